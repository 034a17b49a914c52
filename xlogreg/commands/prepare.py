"""What `train` and `sweep` do alike before they train: check all that was asked, then read the pictures."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..neuron.options import DescentOptions
from ..system.text import shown
from .options import typed_name
from .shared import FolderReading, check_folder, chosen_device, picture_size, tasks_of
from .start import check_split


def rates_of(asked: dict[str, Any], *by_default: float) -> list[float] | None:
    """The learning rates that were asked for, one or several, or those by default; None for L-BFGS, which has none.

    Raises
    ------
    InputError
        L-BFGS was to have some.
    """
    given = asked["learning_rate"]
    if asked["solver"] != "lbfgs":
        return list(by_default) if given in (None, []) else given if isinstance(given, list) else [given]
    if given not in (None, []):
        raise InputError("L-BFGS chooses its steps by itself; leave --learning-rate out, or choose --solver gd.")
    return None


def prepared(
    asked: dict[str, Any], rates: list[float] | None, positives: list[str], out: Path | None, new: bool = True
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
    from ..neuron.arguments import checked_iterations, checked_learning_rate
    from ..runs.training import check_start
    from ..runs.validation import check_patience
    from . import bars, console

    source, data, size, validation = (asked[name] for name in ("source", "data", "size", "validation"))
    for rate in rates or ():
        checked_learning_rate(rate)
    checked_iterations(asked["iterations"])
    options = _descent_options(asked)
    patience = check_patience(asked["patience"], validation is not None)
    device = chosen_device(asked["device"])
    start = None if asked["start"] is None else Classifier.load(asked["start"])
    features = Features(asked["features"].value)
    shape = *picture_size(source, size), 3
    features.length(shape)
    if start is not None:
        check_start(start, shape, source, features)
    if new:
        check_folder(source, out)
    reading = FolderReading(size, asked["max_unreadable"], asked["no_cache"])
    tasks = tasks_of(source, data, positives, asked["balance"], asked["seed"], asked["test_size"], reading, validation)
    whole = tasks[0]
    if validation is not None:
        tasks = hold_out(tasks, validation)
    if start is not None:
        check_split(asked["start"], start, (source, data), whole, tasks[0])
        for task in tasks:
            if start.class_names != task.class_names:
                apart, wanted = (" and ".join(map(shown, one.class_names[::-1])) for one in (start, task))
                console.note(f"The model to start from tells {apart} apart, not {wanted}.")
    n, m = len(tasks[0].x_train), len(tasks[0].x_test)
    with bars.counting(f"computing {features.name}") as progress:
        rows = (
            features.rows(tasks[0].x_train, progress=lambda done, _: progress(done, n + m)),
            features.rows(tasks[0].x_test, progress=lambda done, _: progress(n + done, n + m)),
        )
    return tasks, {
        "device": device, "implementation": asked["implementation"].value, "options": options, "start": start,
        "features": features, "rows": rows, "patience": patience,
    }  # fmt: skip


def _descent_options(asked: dict[str, Any]) -> DescentOptions:
    """The options of the descent, as they were typed; class weights are none, balanced or two numbers A,B."""
    given = {field.name: asked[typed_name(field)] for field in fields(DescentOptions)}
    text = given["class_weight"]
    if text == "none":
        given["class_weight"] = None
    elif text != "balanced":
        try:
            first, second = map(float, text.split(","))
        except ValueError:
            raise InputError(
                f"The class weights must be none, balanced or two numbers like 1,3 (the rest, the wanted class), not "
                f"{text!r}."
            ) from None
        given["class_weight"] = first, second
    return DescentOptions(**given)
