"""The threads and processes of `predict`: how many, and who does what.

Any number of picture files is decoded in threads and goes through the classifier in batches, in their order.
Pillow lets other threads work while it decodes, and so do the sums; all else holds the GIL, for which they wait.
So where there is work for long, each thread gets a process that works for it (`processes`).
What lies ahead is bounded by a few batches of the pictures' small pixels, so memory does not grow with the number of
files. Pixels and sums are exact, so every probability has the bits that it has alone.
"""

import contextlib
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path

from ..errors import InputError
from ..images.resizing import Resizer, resizer_for
from ..models.classifier import Classifier, Failure, one_by_one
from ..system.checks import is_whole
from ..system.parallel import Threads, processors
from ..system.text import given
from .batch import Result, predict_batch
from .paths import Pause
from .processes import MOST, Worker, WorkerLost, alone, can_fork, signals_wait

# Pictures a batch: enough that handing it to a thread costs nothing beside decoding it.
BATCH = 32
MAX_THREADS = 64
# Seconds of work after which there are processes for what is left: some dozen times what forks take, and about as long
# as new ones take to start.
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
        fork of this one, where it runs no other threads and the system is Linux; else, if all takes longer than a
        second and the threads wait for the GIL, a new one, as `multiprocessing` spawns it

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
    pool = Pool(classifier, threads, processes)
    pending: deque[Future[list[Result]]] = deque()
    executor = Threads(threads, thread_name_prefix="xlogreg-decode")
    number, size, ended, worked = 0, 1, False, 0.0
    try:
        while pending or not ended:
            paused = False
            # Only where there is more to do: who waits for paths, of which one may come a second, has no use for them.
            method = pool.due(worked) if pending and not ended else None
            if method == "fork":
                # All threads end, which would not do in a fork.
                while pending:
                    yield pending.popleft().result()
                executor.shutdown(wait=True)
                pool.start(method)
                executor = Threads(threads, thread_name_prefix="xlogreg-decode")
            elif method:
                pool.start(method)
            while len(pending) < 2 * threads + 1 and not (paused or ended):
                batch, paused = _next_batch(paths, size)
                ended = not batch and not paused
                if batch:
                    pending.append(executor.submit(pool.predict, batch, resizer_for(number)))
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
        pool.stop()
        executor.shutdown(wait=True, cancel_futures=True)


class Pool:
    """What works on batches: the thread that comes with one, or a process that is idle, once there are some."""

    def __init__(self, classifier: Classifier, threads: int, processes: bool) -> None:
        self._classifier, self._threads = classifier, threads
        # So many are still to be started; a single one would be no faster than a single thread.
        self._wanted = min(threads, MOST) if processes and threads > 1 else 0
        self._may_fork = can_fork()
        self._begun, self._used = time.monotonic(), time.process_time()
        self._stop, self._turn = threading.Event(), threading.Lock()
        self.workers: list[Worker] = []
        # Of these, those that load, and those to be asked: `append` and `pop` are atomic.
        self._loading: list[Worker] = []
        self.idle: list[Worker] = []

    def due(self, worked: float) -> str | None:
        """How to `start` processes, if it is time, after so many seconds of work; no other thread may run at a fork."""
        self._welcome()
        if not self._wanted:
            return None
        if self._may_fork:
            return "fork" if worked > SOON else None
        seconds = time.monotonic() - self._begun
        busy = time.process_time() - self._used > BUSY * self._threads * seconds
        return "spawn" if seconds >= LONG and not busy else None

    def start(self, method: str) -> None:
        """Have processes; where there can be no more, or no memory is left for them, there are fewer or none."""
        forking = method == "fork"
        if forking and not can_fork():
            self._may_fork = False
            return
        with signals_wait() if forking else contextlib.nullcontext(), contextlib.suppress(OSError):
            for _ in range(self._wanted):
                self.workers.append(Worker(method, self._classifier))
                if forking and not alone():
                    # A library's thread may have held a lock.
                    self.workers.pop().end()
                    self._may_fork = False
                    return
        self._wanted = 0
        self._loading += self.workers
        self._welcome(LONG if forking else 0.0)

    def _welcome(self, seconds: float = 0.0) -> None:
        for worker in [worker for worker in self._loading if worker.is_ready(seconds)]:
            self._loading.remove(worker)
            self.idle.append(worker)

    def predict(self, batch: list[Path | Failure], resizer: Resizer) -> list[Result]:
        """The results of a batch."""
        with contextlib.suppress(IndexError, WorkerLost):  # none is idle; or it was one, which is not asked again
            worker = self.idle.pop()
            results = worker.predict(batch)
            self.idle.append(worker)
            return results
        return predict_batch(self._classifier, batch, resizer, self._stop, self._turn)

    def stop(self) -> None:
        """Have all stop, the threads after the picture at hand."""
        self._stop.set()
        for worker in self.workers:
            worker.end()


def _next_batch(paths: Iterator[Named], size: int) -> tuple[list[Path | Failure], bool]:
    """At most so many paths, and whether a pause ended them; neither at the end."""
    batch: list[Path | Failure] = []
    for path in itertools.islice(paths, size):
        if isinstance(path, Pause):
            return batch, True
        batch.append(path if isinstance(path, Failure) else Path(path))
    return batch, False
