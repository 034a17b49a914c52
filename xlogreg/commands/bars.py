"""How far a command is, on stderr: bars on a terminal, plain lines elsewhere."""

import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from .. import kernels
from ..runs.validation import Validation
from ..solvers.descent import Observer
from . import console

# Without a terminal, a line of progress is printed about this often (seconds).
_PLAIN_SECONDS = 5.0
# A bar that has no thread is drawn about this often (seconds), and only where so many pictures are predicted.
_BAR_SECONDS = 0.2
_MANY = 200


@contextmanager
def _progress(words: Callable[..., str], *columns: Any, at_once: bool = False, transient: bool = True,
              **start: Any) -> Iterator[Callable[..., None]]:  # fmt: skip
    """A bar on a terminal, elsewhere a plain line of these `words` every few seconds; yields what is told how far it
    is, by the names of rich's fields of a task, `start` at first.

    at_once : the first plain line comes at once, as does one with another description
    """
    if console.err.is_terminal:
        # Of all these only the bar gives way where the terminal is narrow.
        left = TimeRemainingColumn(table_column=Column(no_wrap=True))
        shown = TextColumn("{task.description}"), BarColumn(), *columns, left
        with Progress(*shown, console=console.err, transient=transient) as bar:
            yield functools.partial(bar.update, bar.add_task(**start))
        return
    said, next_line = start["description"], time.monotonic() + (0.0 if at_once else _PLAIN_SECONDS)

    def tell(**now: Any) -> None:
        nonlocal said, next_line
        if now.get("description", said) != said or time.monotonic() >= next_line:
            said, next_line = now.get("description", said), time.monotonic() + _PLAIN_SECONDS
            console.err.print(words(**now), markup=False)

    yield tell


class _Told:
    """An observer of a training that tells how far it is: iterations done, the lowest of the models' costs, and that on
    the pictures held out."""

    def __init__(self, tell: Callable[..., None], what: str, iterations: int) -> None:
        self._tell, self._what, self._iterations = tell, what, iterations
        self._at, self._lowest, self._held_out = -1, 0.0, ""

    def __call__(self, done: int, costs: np.ndarray) -> None:
        cost = f"{costs[-1].min():.6f}{self._held_out}"
        self._tell(completed=done, cost=cost, description=self._what, total=self._iterations)

    def choosing(self, done: int, most: int, models: int) -> None:
        """An L2 is chosen, before the training itself."""
        doing = f"choosing L2 by {models} models"
        shown = {"description": doing} if console.err.is_terminal else {}  # elsewhere it would be a line at once
        self._tell(completed=done, cost="...", total=most, doing=doing, **shown)

    def validated(self, record: Validation) -> None:
        """One more check, of one of the models."""
        if record.iteration > self._at or record.cost < self._lowest:
            self._at, self._lowest = record.iteration, record.cost
            self._held_out = f", validation {record.cost:.6f}"


@contextmanager
def training_progress(iterations: int, what: str, step: str = "iteration") -> Iterator[Observer]:
    """How far a training is, in steps that are called so; yields the observer that is told."""
    # Until the first iterations are done, the kernel is compiled, or loaded as it was compiled before.
    first = "loading the kernel" if (compiled := kernels.is_compiled()) else kernels.compiling()
    if not (compiled or console.err.is_terminal):
        console.err.print(first)
    with _progress(
        lambda completed, cost, total, doing=what, **_: f"{doing}: {step} {completed} of {total}, cost {cost}",
        MofNCompleteColumn(table_column=Column(no_wrap=True)), TextColumn("cost {task.fields[cost]}"),
        description=first if console.err.is_terminal else what, total=iterations, cost="...",
    ) as tell:  # fmt: skip
        yield _Told(tell, what, iterations)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says on a terminal what is being done while it is."""
    spinner = "dots" if console.err.encoding.startswith("utf") else "line"
    with console.err.status(what, spinner=spinner) if console.err.is_terminal else nullcontext():
        yield


@contextmanager
def download_progress() -> Iterator[Callable[[int, int, str], None]]:
    """How much is downloaded; yields what is told of it: bytes done, in all, and a note instead of "fetching"."""
    with _progress(
        lambda completed, total, description: f"{description}: {completed / 1e6:.1f} of {(total or 0) / 1e6:.1f} MB",
        DownloadColumn(), at_once=True, transient=False, description="fetching", total=None,
    ) as tell:  # fmt: skip
        yield lambda done, total, note: tell(completed=done, total=total or None, description=note or "fetching")


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """How many are done; yields what is told of it: done, in all."""
    with _progress(
        lambda completed, total: f"{what}: {completed:,} of {total:,}", MofNCompleteColumn(),
        description=what, total=None,
    ) as tell:  # fmt: skip
        yield lambda done, total: tell(completed=done, total=total)


@contextmanager
def predicting(total: Callable[[], int | None]) -> Iterator[Callable[[int], None]]:
    """A bar with the rate and the time left on a terminal, nothing elsewhere; yields what is told of pictures done.

    It has no thread of its own: a process that has none can be copied, which predicting many pictures is quicker by.
    Lines that go to the same terminal come above it.

    total : counts all pictures, None where that is not known; it is asked on a terminal only
    """
    count = total() if console.err.is_terminal else 0
    if count is not None and count < _MANY:
        yield lambda more: None
        return
    same = sys.stdout is not None and sys.stdout.isatty()
    with Progress(
        TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(), console=console.err, transient=True, auto_refresh=False, redirect_stdout=same,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=count, rate="")
        begun = shown = time.monotonic()

        def advance(more: int) -> None:
            nonlocal shown
            now = time.monotonic()
            bar.advance(task, more)
            if now - shown >= _BAR_SECONDS:
                shown = now
                rate = bar.tasks[0].completed / (now - begun)
                bar.update(task, rate=f"{rate:,.0f} a second", refresh=True)

        yield advance
