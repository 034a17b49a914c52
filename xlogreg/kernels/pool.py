"""The threads that work in the fused CPU kernel: they are kept from one call to the next."""

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

from numba import config

_allowed = 0


def allowed() -> int:
    """How many threads there may be: as many as processors that this process may use, or NUMBA_NUM_THREADS."""
    return _allowed or int(config.NUMBA_NUM_THREADS)


def allow(threads: int) -> None:
    """From now on at most so many threads for new trainings; 0 for the default."""
    global _allowed
    _allowed = threads


def ready(threads: int) -> int:
    """So many threads, with this one, for `run_all`; fewer where the system starts no more."""
    while len(_members) < threads - 1:
        member = _Member()
        try:
            member.start()
        except RuntimeError:  # a limit of processes, say
            break
        _members.append(member)
    return min(threads, len(_members) + 1)


def run_all(work: Callable[[int], None], threads: int, stop: Callable[[], None]) -> None:
    """work(0) here and work(1) .. work(threads - 1) in other threads at the same time; they must be `ready`.

    stop : called when one of them raises, so that the others do not wait for it; then the error is raised
    """
    if ready(threads) < threads:
        raise RuntimeError("the system starts no more threads")

    def guarded(thread: int, future: Future[None]) -> None:
        try:
            work(thread)
            future.set_result(None)
        except BaseException as error:
            stop()
            future.set_exception(error)

    futures = []
    try:
        for thread in range(1, threads):
            future: Future[None] = Future()
            _members[thread - 1].tasks.put(functools.partial(guarded, thread, future))
            futures.append(future)
        work(0)
    except BaseException:
        stop()
        raise
    finally:
        for future in futures:
            # Nobody works on after the caller has gone on.
            future.exception()
    for future in futures:
        future.result()


class _Member(threading.Thread):
    """A thread that does one task after the other; it ends with the process."""

    def __init__(self) -> None:
        super().__init__(name="xlogreg", daemon=True)
        self.tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def run(self) -> None:
        while True:
            # Nothing of a task is kept while the next is waited for.
            self.tasks.get()()


_members: list[_Member] = []


if hasattr(os, "register_at_fork"):
    # A forked process has the list but not its threads.
    os.register_at_fork(after_in_child=_members.clear)


def giving_way() -> int:
    """The address of the system's function that lets other threads run first; 0 where there is none."""
    try:
        if sys.platform == "win32":
            function = ctypes.windll.kernel32.SwitchToThread
        else:
            function = ctypes.CDLL(None).sched_yield
    except (AttributeError, OSError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0
