"""What `train` and `sweep` do alike before they train: check all that was asked, then read the pictures."""

from pathlib import Path
from typing import Any

from .shared import (
    FolderReading,
    check_features,
    check_folder,
    check_options,
    chosen_device,
    descent_options,
    feature_rows,
    note_other_classes,
    tasks_of,
)
from .start import check_start


def prepared(
    asked: dict[str, Any], rates: list[float], positives: list[str], out: Path | None, new: bool = True
) -> tuple[list[Any], dict[str, Any]]:
    """The tasks, one a class, and the keywords with which they are trained, as it was `asked`; in a new run folder,
    `out` if that was named.

    Raises
    ------
    InputError, FileError, DeviceError
        It cannot be trained, which is found before pictures are read where it can be.
    """
    from ..data.task import hold_out
    from ..images.features import Features
    from ..models.classifier import Classifier
    from ..runs.validation import check_patience

    source, data, size, validation = (asked[name] for name in ("source", "data", "size", "validation"))
    check_options(rates, asked["iterations"])
    options = descent_options(asked)
    patience = check_patience(asked["patience"], validation is not None)
    device = chosen_device(asked["device"])
    start = None if asked["start"] is None else Classifier.load(asked["start"])
    features = Features(asked["features"].value)
    check_features(source, size, features, start)
    if new:
        check_folder(source, out)
    reading = FolderReading(size, asked["max_unreadable"], asked["no_cache"])
    tasks = tasks_of(source, data, positives, asked["balance"], asked["seed"], asked["test_size"], reading, validation)
    whole = tasks[0]
    if validation is not None:
        tasks = hold_out(tasks, validation)
    check_start(asked["start"], start, (source, data), whole, tasks[0])
    for task in tasks:
        note_other_classes(start, task)
    rows = feature_rows(tasks[0], features)
    return tasks, {
        "device": device, "implementation": asked["implementation"].value, "options": options, "start": start,
        "features": features, "rows": rows, "patience": patience,
    }  # fmt: skip
