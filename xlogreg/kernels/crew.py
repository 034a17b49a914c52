"""The threads that work in the fused CPU kernel: they are kept from one call to the next."""

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from numba import config

_pool: ThreadPoolExecutor | None = None
_allowed = 0


def allowed() -> int:
    """How many threads there may be: as many as processors that this process may use, or NUMBA_NUM_THREADS."""
    return _allowed or int(config.NUMBA_NUM_THREADS)


def allow(threads: int) -> None:
    """From now on at most so many threads for new trainings; 0 for the default."""
    global _allowed
    _allowed = threads


def together(work: Callable[[int], None], threads: int, stop: Callable[[], None]) -> None:
    """work(0) here and work(1) .. work(threads - 1) in other threads at the same time.

    stop : called when one of them raises, so that the others do not wait for it; then the error is raised
    """
    global _pool
    if threads == 1:
        work(0)
        return

    def guarded(thread: int) -> None:
        try:
            work(thread)
        except BaseException:
            stop()
            raise

    if _pool is None or _pool._max_workers < threads - 1:
        if _pool is not None:
            _pool.shutdown(wait=False)
        _pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="xlogreg")
    futures = []
    try:
        for thread in range(1, threads):
            futures.append(_pool.submit(guarded, thread))
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


def _forget() -> None:
    """In a forked process, which has the pool but not its threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


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
