"""What several commands do alike: device, options, task, run folder, JSON."""

import contextlib
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from ..errors import InputError
from ..system import signals
from ..system.text import brief, listed
from .options import BalanceOption

# 3 million pixels a picture; features are for far fewer.
MAX_SIDE = 1024


def chosen_device(wanted: str) -> Any:
    from ..arrays import choose_device
    from . import console

    device = choose_device(wanted)
    if wanted == "auto" and device.note and "not installed" not in device.note:
        console.note(f"{device.note} Training on the CPU instead.")
    return device


@dataclass(frozen=True)
class FolderReading:
    """How to read a folder of own pictures: the options of the command line."""

    size: str | None
    max_unreadable: float | None
    no_cache: bool


def picture_size(source: str, size: str | None) -> tuple[int, int]:
    """Height and width of the pictures that are read from a source, with this --size: "32", "48x64" or none."""
    from ..data.folders import DEFAULT_SIZE
    from ..data.sources import is_picture_folder

    if size is None:
        return DEFAULT_SIZE
    if not is_picture_folder(source):
        raise InputError("--size is for folders of your own pictures; leave it out, these are 32 x 32.")
    found = re.fullmatch(r"(\d{1,4})(?:[xX×](\d{1,4}))?", size.strip(), re.ASCII)
    height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InputError(f"--size must be N or HxW, from 1 to {MAX_SIDE}, such as 32 or 48x64, not {brief(size)!r}.")
    return height, width


def check_folder(source: str, out: Path | None) -> None:
    """Whether a run folder can be made for what is trained or tested on this source."""
    from ..data.sources import is_picture_folder
    from ..runs.run_folder import check_out

    check_out(out, source if is_picture_folder(source) else None)


def load_pictures(
    source: str, data: Path | None, reading: FolderReading, check: Callable[[Any, Any], object]
) -> tuple[Any, Any]:
    """Pictures to train on, and to test on where there are some; reading a folder is shown as it goes on.

    check : is asked before they are read, with pictures that have no pixels; what it raises ends it there
    """
    from ..data.sources import is_picture_folder, is_whole_cifar10, load_source
    from . import bars, console

    size = picture_size(source, reading.size)
    if not is_picture_folder(source):
        if is_whole_cifar10(source):
            check(*_cifar10_without_pixels())
        return load_source(source, data)
    from ..data.cache import Cache
    from ..data.folders import FolderOptions
    from ..images.decoding import quiet_libtiff

    quiet_libtiff()
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(bars.counting("reading pictures"))
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


def tasks_of(
    source: str,
    data: Path | None,
    positives: list[str],
    balance: BalanceOption | None,
    seed: int,
    test_size: float | None,
    reading: FolderReading,
    validation: float | None = None,
) -> list[Any]:
    """The task, or those of several classes, before pictures are held out; whether so many can be is asked before they
    are read."""
    from ..data.task import hold_out, make_task, make_tasks

    several = len(positives) > 1
    if several and balance not in (None, BalanceOption.none):
        raise InputError("Several classes are trained on all pictures together; leave --balance out.")
    chosen: Any = balance and balance.value

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

    return make(*load_pictures(source, data, reading, check))


def _plenty(pictures: Any, test: Any) -> tuple[Any, Any]:
    """So many of each class that any can be split: too few may be too few that can be read, which reading will say."""
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


def step_of(asked: dict[str, Any]) -> str:
    """What an iteration of the training that was asked for is called."""
    return "evaluation" if asked["solver"] == "lbfgs" else "iteration"


def relocated(path: str | Path, started_in: str) -> str:
    """A path that a run recorded, also where it was relative and this is another folder than then."""
    there = Path(started_in, path)
    return str(there if os.path.exists(there) and not os.path.exists(path) else path)


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

        console.note("Stopped; only `xlogreg train` keeps checkpoints to go on from.")
        raise typer.Exit(130) from None


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Any of `signals.STOP_SIGNALS` stops the work as Ctrl-C does, but those that are ignored, as nohup asks for."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone may do this
        yield
        return
    with signals.restored() as before:
        for number, handler in before.items():
            if number != signal.SIGINT and handler is not signal.SIG_IGN:
                signal.signal(number, stop)
        yield


def ignore_stop_signals() -> None:
    """Let nothing interrupt what is nearly done, until `stop_signals` ends."""
    with contextlib.suppress(ValueError):
        for number in signals.STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=2))
