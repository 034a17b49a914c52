"""What several commands do alike: device, options, task, run folder, JSON."""

import contextlib
import json
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import typer

from ..errors import InputError
from ..neuron.options import DescentOptions
from ..system.parallel import STOP_SIGNALS
from ..system.text import brief, listed, shown
from .options import BalanceOption, typed_name

# 3 million pixels a picture; features are for far fewer.
MAX_SIDE = 1024


def chosen_device(wanted: str) -> Any:
    from ..arrays import choose_device
    from . import console

    device = choose_device(wanted)
    if wanted != "auto":
        return device
    if device.note and "not installed" not in device.note:
        console.complain(f"{device.note} Training on the CPU instead.", "Note")
    return device


def check_options(rates: list[float], iterations: int) -> None:
    # Before data are read and a folder is made.
    from ..neuron.arguments import check_iterations, check_learning_rate

    for rate in rates:
        check_learning_rate(rate)
    check_iterations(iterations)


def descent_options(asked: dict[str, Any]) -> Any:
    """The options of the descent, as they were typed."""
    given = {field.name: asked[typed_name(field)] for field in fields(DescentOptions)}
    return DescentOptions(**{**given, "class_weight": class_weights(given["class_weight"])})


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


@dataclass(frozen=True)
class FolderReading:
    """How to read a folder of own pictures: the options of the command line."""

    size: str | None = None
    max_unreadable: float | None = None
    no_cache: bool = False


def picture_size(source: str, size: str | None) -> tuple[int, int, int]:
    """Height, width and channels of the pictures that are read from a source, with this --size."""
    from ..data.folders import DEFAULT_SIZE
    from ..data.sources import is_picture_folder

    if size is None:
        return *DEFAULT_SIZE, 3
    if not is_picture_folder(source):
        raise InputError("--size is for folders of your own pictures; leave it out, these are 32 x 32.")
    return *parsed_size(size), 3


def check_features(source: str, size: str | None, features: Any, start: Any) -> None:
    """Whether pictures of the size to be read have these features, and suit the model to start from."""
    from ..runs.training import check_start

    read = picture_size(source, size)
    features.length(read)
    if start is not None:
        check_start(start, read, source, features)


def check_folder(source: str, out: Path | None) -> None:
    """Whether a run folder can be made for what is trained or tested on this source."""
    from ..data.sources import is_picture_folder
    from ..runs.run_folder import check_out

    check_out(out, source if is_picture_folder(source) else None)


def load_pictures(
    source: str, data: Path | None, reading: FolderReading, check: Callable[[Any, Any], object] = lambda *_: None
) -> tuple[Any, Any]:
    """Pictures to train on, and to test on where there are some; reading a folder is shown as it goes on.

    check : is asked before they are read, with pictures that have no pixels; what it raises ends it there
    """
    from ..data.sources import is_picture_folder, is_whole_cifar10, load_source
    from . import console

    size = picture_size(source, reading.size)[:2]
    if not is_picture_folder(source):
        if is_whole_cifar10(source):
            check(*_cifar10_without_pixels())
        return load_source(source, data)
    from ..data.cache import Cache
    from ..data.folders import FolderOptions
    from ..images.decoding import quiet_libtiff

    quiet_libtiff()
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(console.counting("reading pictures"))
        cache = None if reading.no_cache else stack.enter_context(Cache())
        found: list[Any] = []
        options = FolderOptions(
            size, reading.max_unreadable, cache, progress, found.append, lambda pictures: check(pictures, None)
        )
        pictures = load_source(source, data, options)
    console.show_reading(found[0])
    return pictures


def _cifar10_without_pixels() -> tuple[Any, Any]:
    import numpy as np

    from ..data.pictures import CIFAR10_CLASSES, Pictures

    classes = len(CIFAR10_CLASSES)
    train, test = (
        Pictures(
            np.empty((count * classes, 0, 0, 3), dtype=np.uint8), np.tile(np.arange(classes), count), CIFAR10_CLASSES,
            np.arange(count * classes), "CIFAR-10",
        )
        for count in (5000, 1000)
    )  # fmt: skip
    return train, test


def parsed_size(text: str) -> tuple[int, int]:
    """Height and width from "32" or "48x64"."""
    found = re.fullmatch(r"(\d{1,4})(?:[xX×](\d{1,4}))?", text.strip(), re.ASCII)
    height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InputError(f"--size must be N or HxW, from 1 to {MAX_SIDE}, such as 32 or 48x64, not {brief(text)!r}.")
    return height, width


def tasks_of(
    source: str,
    data: Path | None,
    positives: list[str],
    balance: BalanceOption | None,
    seed: int,
    test_size: float | None,
    reading: FolderReading | None = None,
    validation: float | None = None,
) -> list[Any]:
    """The task, or those of several classes, before pictures are held out; whether so many can be is asked before they
    are read."""
    from ..data.task import hold_out, make_task, make_tasks

    several = len(positives) > 1
    if several and balance not in (None, BalanceOption.none):
        raise InputError("Several classes are trained on all pictures together; leave --balance out.")
    chosen: Any = balance.value if balance is not None else None

    def make(pictures: Any, test: Any) -> list[Any]:
        if not several:
            positive = positives[0] if positives else None
            return [make_task(pictures, positive, test=test, balance=chosen, seed=seed, test_size=test_size)]
        tasks = make_tasks(pictures, positives, test=test, seed=seed, test_size=test_size)
        names = [task.positive for task in tasks]
        if len(set(names)) < len(names):
            raise InputError(f"A class is given twice in {listed(names)}; give each once.")
        return tasks

    def check(pictures: Any, test: Any) -> None:
        if test_size is None and validation is None:
            pictures, test = _plenty(pictures, test)
        tasks = make(pictures, test)
        if validation is not None:
            hold_out(tasks, validation)

    return make(*load_pictures(source, data, reading or FolderReading(), check))


def _plenty(pictures: Any, test: Any) -> tuple[Any, Any]:
    """So many of each class that any can be split: too few may be too few that can be read, which reading will say."""
    from dataclasses import replace

    import numpy as np

    times = 1 if len(pictures) > 100 else 100
    many = {name: np.repeat(getattr(pictures, name), times, axis=0) for name in ("x", "labels", "index")}
    return replace(pictures, **many, files=tuple(np.repeat(np.array(pictures.files, dtype=object), times))), test


def asked_data(source: str, data: Path | None, started_in: str | None = None) -> dict[str, str | None]:
    """What a run records of where its pictures came from, so that they can be found again."""
    return {
        "source": source,
        "data": None if data is None else str(data),
        "started_in": started_in or str(Path.cwd()),
    }


def note_other_classes(start: Any, task: Any) -> None:
    """Says so where a training goes on from a model of other classes, which is allowed and may be a mistake."""
    from . import console

    if start is not None and start.class_names != task.class_names:
        names = " and ".join(map(shown, reversed(start.class_names)))
        console.complain(
            f"The model to start from tells {names} apart, not {' and '.join(map(shown, reversed(task.class_names)))}.",
            "Note",
        )


def feature_rows(task: Any, features: Any) -> tuple[Any, Any]:
    """The features of a task's training and test pictures, with progress."""
    from . import console

    with console.counting(f"computing {features.name}") as progress:
        n = len(task.x_train)
        total = n + len(task.x_test)
        train = features.rows(task.x_train, progress=lambda done, _: progress(done, total))
        return train, features.rows(task.x_test, progress=lambda done, _: progress(n + done, total))


@contextlib.contextmanager
def training_folder(folder: Path) -> Iterator[None]:
    """Takes the run folder away again if the training fails before anything is in it; Ctrl-C gets a sentence."""
    try:
        yield
    except BaseException as error:
        # A folder that was named by --out may have been there before.
        with contextlib.suppress(OSError):
            if folder.parent.name == "runs" and not any(folder.iterdir()):
                folder.rmdir()
        if not isinstance(error, KeyboardInterrupt):
            raise
        from . import console

        console.complain("Stopped; only `xlogreg train` keeps checkpoints to go on from.", "Note")
        raise typer.Exit(130) from None


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Any of `STOP_SIGNALS` stops the work as Ctrl-C does, but those that are ignored, as nohup asks for."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        for number, handler in before.items():
            if number != signal.SIGINT and handler is not signal.SIG_IGN:
                signal.signal(number, stop)
    except ValueError:  # not in the main thread, which alone may do this
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None was not set by Python, and cannot be by it
                signal.signal(number, handler)


def ignore_stop_signals() -> None:
    """Let nothing interrupt what is nearly done, until `stop_signals` ends."""
    with contextlib.suppress(ValueError):
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def sample_picture() -> Path:
    # A picture that every installation has: scikit-image ships its cat.
    from importlib.util import find_spec

    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "chelsea.png"


def print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=2))
