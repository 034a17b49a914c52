"""Processes that predict pictures: much of the work on a picture holds the GIL, which a process has to itself.

A worker is a fork of this process, there at once, or a new Python where a fork is not safe. It answers batches with
their results. It ends when the process that asks it does, and Ctrl-C is not its business.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..models.classifier import Classifier, Failure
from ..system import signals
from ..system.parallel import one_blas_thread
from .batch import Result, predict_batch, reuse_memory

# Each takes a hundred megabytes, and there are disks behind the files.
MOST = 16
_TRIES = 100


class WorkerLost(Exception):
    """A worker's process ended, for want of memory say."""


class Worker:
    """A process that predicts pictures, started by `fork`, within `signals_wait`, or `spawn`.

    Raises
    ------
    OSError
        There can be no more processes.
    """

    def __init__(self, method: str, classifier: Classifier) -> None:
        import multiprocessing  # not quick to load, and seldom needed

        context: Any = multiprocessing.get_context(method)
        self._connection, theirs = context.Pipe()
        with contextlib.closing(theirs), no_ctrl_c() if method == "spawn" else contextlib.nullcontext():
            self._process = context.Process(target=_serve, args=(theirs, classifier), daemon=True)
            try:
                self._process.start()
            except (AssertionError, RuntimeError) as error:
                # This process is a daemon of multiprocessing's, or still about to start as one of its processes.
                raise OSError(str(error)) from error

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def is_ready(self, seconds: float = 0.0) -> bool:
        """Whether it can be asked, or has ended, after at most so many seconds."""
        if not self._connection.poll(seconds):
            return False
        with contextlib.suppress(OSError, EOFError):  # the next who asks it will see
            self._connection.recv()
        return True

    def predict(self, batch: Sequence[Path | Failure]) -> list[Result]:
        """The results of a batch.

        Raises
        ------
        WorkerLost
            The process ended before it had them.
        """
        try:
            self._connection.send(batch)
            results: list[Result] = self._connection.recv()
        except (OSError, EOFError) as error:
            raise WorkerLost from error
        return results

    def end(self) -> None:
        """End the process at once; whoever waits for an answer gets `WorkerLost`."""
        self._process.kill()
        self._process.join()


def can_fork() -> bool:
    """Whether a fork would be sound: other threads of Python's may hold locks, which nobody would release in it.
    (Apple's libraries do not bear it.)"""
    only = threading.active_count() == 1 and threading.current_thread() is threading.main_thread()
    return sys.platform == "linux" and only


def alone() -> bool:
    """Whether this process has one thread, those of libraries included. BLAS ends its own before a fork."""
    with contextlib.suppress(OSError):
        for _ in range(_TRIES):
            if len(os.listdir("/proc/self/task")) == 1:
                return True
            time.sleep(0.001)  # one that has ended, and was joined, may still be there for a moment
    return False


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """What stops a command comes after the block. During a fork Python would lose the exceptions that they raise, and
    in the child they would go the parent's ways. (To block them would not do: the threads of libraries take them.)"""
    came: list[int] = []
    try:
        with signals.restored() as before:
            for number in before:
                signal.signal(number, lambda number, _: came.append(number))
            yield
    finally:
        for late in came:
            signal.raise_signal(late)


@contextlib.contextmanager
def no_ctrl_c() -> Iterator[None]:
    """A Python that is started within is not interrupted while it loads, but for Windows."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # where it is started later, it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Any, classifier: Classifier) -> None:
    """What a worker does: answer until the parent is no more."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    from ..images.resizing import resize_fast

    for number in signals.STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None
    # The terminal is the parent's business. Where it has closed its standard streams, others may have their numbers.
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in {0, 1, 2} - {connection.fileno(), parent.sentinel}:
        os.dup2(nothing, stream)
    reuse_memory()
    never, turn = threading.Event(), threading.Lock()
    with one_blas_thread, contextlib.suppress(OSError, EOFError):
        connection.send("ready")
        while parent.sentinel not in wait([connection, parent.sentinel]):
            connection.send(predict_batch(classifier, connection.recv(), resize_fast, never, turn))
