"""What several commands do alike: device, options, task, run folder, JSON."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..options import BalanceOption


def chosen_device(wanted: str) -> Any:
    from .. import console
    from ..backend import choose_device

    device = choose_device(wanted)
    if wanted != "auto":
        return device
    if device.note and "not installed" not in device.note:
        console.complain(f"{device.note} Training on the CPU instead.", "Note")
    return device


def check_options(rates: list[float], iterations: int) -> None:
    # Before data are read and a folder is made.
    from ..logistic import check_iterations, check_learning_rate

    for rate in rates:
        check_learning_rate(rate)
    check_iterations(iterations)


def descent_options(
    l2: float,
    momentum: float,
    nesterov: bool,
    stop_gradient: float | None,
    stop_cost: float | None,
    class_weight: str,
) -> Any:
    """The options of the descent, as they were typed."""
    from ..engine import DescentOptions

    return DescentOptions(
        l2=l2,
        momentum=momentum,
        nesterov=nesterov,
        gradient_tolerance=stop_gradient,
        cost_tolerance=stop_cost,
        class_weight=class_weights(class_weight),
    )


def class_weights(text: str) -> Any:
    """none, balanced or two numbers A,B as `DescentOptions` takes them."""
    if text in ("none", "balanced"):
        return None if text == "none" else text
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"The class weights must be none, balanced or two numbers like 1,3 (the rest, the wanted class), not "
            f"{text!r}."
        ) from None
    return first, second


def one_task(
    source: str, data: Path | None, positive: str, balance: BalanceOption, seed: int, test_size: float | None
) -> Any:
    from ..data.sources import load_source
    from ..data.task import make_task

    pictures, test = load_source(source, data)
    return make_task(pictures, positive, test=test, balance=balance.value, seed=seed, test_size=test_size)


def tasks_of(
    source: str,
    data: Path | None,
    positives: list[str],
    balance: BalanceOption | None,
    seed: int,
    test_size: float | None,
) -> list[Any]:
    if len(positives) == 1:
        return [one_task(source, data, positives[0], balance or BalanceOption.first, seed, test_size)]
    from ..data.sources import load_source
    from ..data.task import make_tasks

    if balance not in (None, BalanceOption.none):
        raise InputError("Several classes are trained on all pictures together; leave --balance out.")
    pictures, test = load_source(source, data)
    tasks = make_tasks(pictures, positives, test=test, seed=seed, test_size=test_size)
    names = [task.positive for task in tasks]
    if len(set(names)) < len(names):
        raise InputError(f"A class is given twice in {', '.join(names)}; give each once.")
    return tasks


@contextlib.contextmanager
def training_folder(folder: Path) -> Iterator[None]:
    """Takes the run folder away again if the training fails before anything is in it."""
    try:
        yield
    except BaseException:
        # A folder that was named by --out may have been there before.
        with contextlib.suppress(OSError):
            if folder.parent.name == "runs" and not any(folder.iterdir()):
                folder.rmdir()
        raise


def sample_picture() -> Path:
    # A picture that every installation has: scikit-image ships its cat.
    from importlib.util import find_spec

    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "chelsea.png"


def print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=2))
