"""`xlogreg evaluate`: how good a trained model is."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..options import (
    BalanceArgument,
    DataOption,
    JsonOption,
    MaxUnreadableOption,
    ModelArgument,
    NoCacheOption,
    SeedOption,
    SourceArgument,
    TestSizeOption,
)
from .shared import FolderReading, one_task, print_json


def evaluate(
    model: ModelArgument,
    source: SourceArgument = "birds",
    positive: Annotated[str | None, typer.Option(help="The class to recognise. [default: the model's]")] = None,
    balance: BalanceArgument = None,
    seed: SeedOption = 0,
    test_size: TestSizeOption = None,
    max_unreadable: MaxUnreadableOption = None,
    no_cache: NoCacheOption = False,
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures and the page, new or empty.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a trained model on the training and test pictures of a task: accuracy, recall, ROC, calibration and more.

    With --out, also the most wrong and most certain pictures, the weights and a page of it all.
    """
    from .. import console
    from ..classifier import Classifier
    from ..data.sources import is_picture_folder
    from ..evaluation import judge

    classifier = Classifier.load(model)
    # A folder's pictures are resized to what the model takes.
    height, width, _ = classifier.size
    size = f"{height}x{width}" if is_picture_folder(source) else None
    reading = FolderReading(size, max_unreadable, no_cache)
    task = one_task(source, data, positive or classifier.class_names[1], balance, seed, test_size, reading)
    if task.size != classifier.size:
        raise InputError(
            f"The model takes pictures of {' x '.join(map(str, classifier.size))} but {task.source} has "
            f"{' x '.join(map(str, task.size))}; evaluate on data of the same size."
        )
    judgement = judge(classifier, task)
    parts = judgement.parts()
    folder = None
    if out is not None:
        from .. import plots
        from ..run_folder import new_run_folder, write_evaluation

        folder = new_run_folder("evaluation", out=out)
        write_evaluation(folder, judgement, str(model), plots.plot_judgement)
    if as_json:
        found = {name: part.as_dict() for name, part in parts.items()}
        print_json({"model": str(model), "data": task.source, **found} | ({"folder": str(folder)} if folder else {}))
    else:
        console.show_evaluation(parts, classifier.class_names)
        if folder is not None:
            console.show_files(folder, {
                "report.html": "everything on one page", "evaluation.png": "ROC curve, calibration, confusion matrix",
                "most_wrong.png": "the test pictures that are most wrong", "most_certain.png": "the most certain ones",
                "weights.png": "what the neuron looks for", "evaluation.json": "all measures",
                "predictions.csv": "the probability of every picture",
            })  # fmt: skip
