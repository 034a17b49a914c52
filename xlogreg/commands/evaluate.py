"""`xlogreg evaluate`: how good a trained model is."""

from dataclasses import asdict
from typing import Annotated

import typer

from ..errors import InputError
from ..options import (
    BalanceArgument,
    BalanceOption,
    DataOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    SourceArgument,
    TestSizeOption,
)
from .shared import one_task, print_json


def evaluate(
    model: ModelArgument,
    source: SourceArgument = "birds",
    positive: Annotated[str | None, typer.Option(help="The class to recognise. [default: the model's]")] = None,
    balance: BalanceArgument = BalanceOption.first,
    seed: SeedOption = 0,
    test_size: TestSizeOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accuracy and confusion matrix of a trained model on the training and test pictures of a task."""
    from .. import console
    from ..classifier import Classifier
    from ..evaluation import evaluate as evaluate_on

    classifier = Classifier.load(model)
    task = one_task(source, data, positive or classifier.class_names[1], balance, seed, test_size)
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
