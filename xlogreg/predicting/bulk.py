"""Predict any number of picture files: decoded in threads, in batches through the classifier, in their order.

Pillow lets other threads work while it decodes, and so do the sums; all else holds Python's lock, for which they wait.
So where there is work for long, each thread gets a process that works for it (`workers`).
What lies ahead is bounded by a few batches of the pictures' small pixels, so memory does not grow with the number of
files. Pixels and sums are exact, so every probability has the bits that it has alone.
"""

import contextlib
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from ..errors import InputError
from ..images.resizing import Resizer, resizer_for
from ..models.classifier import Classifier, Failure, one_by_one
from ..system.checks import is_whole
from ..system.parallel import Threads, processors
from ..system.text import given
from .batch import Result, predict_batch, prediction_of
from .paths import Pause
from .workers import MOST, Forked, Started, Worker, WorkerLost, alone, can_fork, signals_wait

# Pictures a batch: enough that handing it to a thread costs nothing beside decoding it.
BATCH = 32
MAX_THREADS = 64


# Seconds of work after which there are processes for what is left: some dozen times what copies of this one take, and
# about as long as new ones take to start.
SOON, LONG = 0.2, 1.0
# No new ones are started where threads use this part of their processors' time.
BUSY = 0.85

# What `predict_many` takes.
Named = str | os.PathLike[str] | Failure | Pause


def default_threads() -> int:
    """As many threads as this process may use processors."""
    return min(MAX_THREADS, processors())


def predict_many(
    classifier: Classifier, paths: Iterable[Named], *, threads: int | None = None, processes: bool = False
) -> Iterator[list[Result]]:
    """Predict picture files in batches, in order; a bad one gives a `Failure` in its place and the rest go on.

    Parameters
    ----------
    paths : picture files; a `Failure` among them is passed on in its place; before a `PAUSE` all results are given
    threads : how many decode; as many as there are processors by default
    processes : let each thread (up to 16) have a process that works for it, if all takes longer than 0.2 seconds: a
        copy of this one, where it runs no other threads and the system is Linux; else, if all takes longer than a
        second and the threads wait for Python's lock, a new one that runs `sys.executable`

    Yields
    ------
    Lists of results, short ones first so that the first comes soon. Closing the generator stops its threads.

    Raises
    ------
    InputError
        `threads` is no number from 1 to 64, or `paths` is one path.
    """
    named = one_by_one(paths)
    if threads is not None and not (is_whole(threads) and 1 <= threads <= MAX_THREADS):
        raise InputError(f"The number of threads must be from 1 to {MAX_THREADS}, not {given(threads)}.")
    return _batches(classifier, named, threads or default_threads(), processes)


def _batches(classifier: Classifier, paths: Iterator[Named], threads: int, processes: bool) -> Iterator[list[Result]]:
    team = _Team(classifier, threads if processes else 1)
    pending: deque[Future[list[Result]]] = deque()
    executor = Threads(threads, thread_name_prefix="xlogreg-decode")
    number, size, ended, worked = 0, 1, False, 0.0
    try:
        while pending or not ended:
            paused = False
            # Only where there is more to do: who waits for paths, of which one may come a second, has no use for them.
            if pending and not ended and team.waits_for_quiet(worked):
                # All threads end, which would not do in a copy of this process.
                while pending:
                    yield pending.popleft().result()
                executor.shutdown(wait=True)
                team.fork()
                executor = Threads(threads, thread_name_prefix="xlogreg-decode")
            while len(pending) < 2 * threads + 1 and not (paused or ended):
                batch, paused = _next_batch(paths, size)
                ended = not batch and not paused
                if batch:
                    pending.append(executor.submit(team.predict, batch, resizer_for(number)))
                    number += len(batch)
                    size = min(2 * size, BATCH)
            while pending:
                begun = time.monotonic()
                results = pending.popleft().result()
                worked += time.monotonic() - begun
                yield results
                if not paused:
                    break
    finally:
        # Reached at the end, at Ctrl-C and when nobody wants more: the threads stop after the picture at hand.
        team.stop()
        executor.shutdown(wait=True, cancel_futures=True)




class _Team:
    """What works on batches: the thread that comes with one, or a process that is idle, once there are some.

    A single one would be no faster than a single thread.
    """

    def __init__(self, classifier: Classifier, most: int) -> None:
        self._classifier, self._most, self._threads = classifier, min(most, MOST) if most > 1 else 0, most
        self._begun, self._used = time.monotonic(), time.process_time()
        self._lock, self._stop, self._turn = threading.Lock(), threading.Event(), threading.Lock()
        # May this process be copied, as soon as it has no threads? Found out once.
        self._may_fork = self._most > 0 and can_fork()
        self._workers: list[Worker] | None = None if self._most else []
        # Ready and idle ones: `append` and `pop` are atomic.
        self._idle: list[Worker] = []

    def waits_for_quiet(self, worked: float) -> bool:
        """Whether it is time to `fork`, for which no other thread may run, after so many seconds of work."""
        return self._may_fork and self._workers is None and worked > SOON

    def fork(self) -> None:
        """Have processes, if this one has no threads now."""
        self._may_fork = can_fork()
        if not self._may_fork:
            return
        # No thread looks at it meanwhile.
        copies = self._workers = []
        # Where there can be no more processes, or no memory is left for them, there are fewer or none.
        with signals_wait(), contextlib.suppress(OSError):
            for _ in range(self._most):
                copies.append(Forked(self._classifier, copies))
                if not alone():
                    # A library's thread may have held a lock.
                    copies.pop().end()
                    self._may_fork, self._workers = False, None
                    break
        self._idle += copies

    def predict(self, batch: Sequence[str | os.PathLike[str] | Failure], resizer: Resizer) -> list[Result]:
        """The results of a batch."""
        self._start()
        try:
            worker = self._idle.pop()
        except IndexError:
            return predict_batch(self._classifier, batch, resizer, self._stop, self._turn)
        paths = [os.fspath(path) for path in batch if not isinstance(path, Failure)]
        try:
            outcomes = iter(worker.predict(paths))
        except WorkerLost:
            # It is not asked again.
            return predict_batch(self._classifier, batch, resizer, self._stop, self._turn)
        self._idle.append(worker)
        return [path if isinstance(path, Failure) else self._result(Path(path), next(outcomes)) for path in batch]

    def _result(self, path: Path, outcome: float | str) -> Result:
        return Failure(path, outcome) if isinstance(outcome, str) else prediction_of(self._classifier, path, outcome)

    def _start(self) -> None:
        """Start new processes if it is time and there are none."""
        seconds = time.monotonic() - self._begun
        if self._workers is not None or self._may_fork or seconds < LONG:
            return
        # A frozen program's executable is no Python.
        able = bool(sys.executable) and not getattr(sys, "frozen", False)
        if not able or time.process_time() - self._used > BUSY * self._threads * seconds:
            return
        with self._lock:
            if self._workers is None and not self._stop.is_set():
                self._workers = []
                with contextlib.suppress(OSError):
                    for _ in range(self._most):
                        self._workers.append(Started(self._classifier, self._idle.append))

    def stop(self) -> None:
        """Have all stop, the threads after the picture at hand."""
        self._stop.set()
        with self._lock:
            for worker in self._workers or ():
                worker.end()


def _next_batch(paths: Iterator[Named], size: int) -> tuple[list[str | os.PathLike[str] | Failure], bool]:
    """At most so many paths, and whether a pause ended them; neither at the end."""
    batch: list[str | os.PathLike[str] | Failure] = []
    for path in itertools.islice(paths, size):
        if isinstance(path, Pause):
            return batch, True
        batch.append(path)
    return batch, False






