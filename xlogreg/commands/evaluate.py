"""`xlogreg evaluate`: how good a trained model is."""

from dataclasses import asdict
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
    as_json: JsonOption = False,
) -> None:
    """Accuracy and confusion matrix of a trained model on the training and test pictures of a task."""
    from .. import console
    from ..classifier import Classifier
    from ..data.sources import is_picture_folder
    from ..evaluation import evaluate as evaluate_on

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
    parts = {
        "train": evaluate_on(classifier, task.x_train, task.y_train),
        "test": evaluate_on(classifier, task.x_test, task.y_test),
    }
    if as_json:
        print_json({"model": str(model), "data": task.source, **{name: asdict(part) for name, part in parts.items()}})
    else:
        console.show_evaluation(parts, classifier.class_names)
