"""Work in threads: results in order, a bounded number on the way, nothing left running when the caller stops; how many
threads BLAS may have."""

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Enough that no thread waits for the caller, few enough that stopping is prompt and results do not pile up.
_AHEAD = 64


def processors() -> int:
    """Processors that this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


class _NoThread(Exception):
    """The system starts none, and there is none yet."""


class Threads(ThreadPoolExecutor):
    """So many threads, or as many as the system starts; where that is none, the work is done by who submits it."""

    def _adjust_thread_count(self) -> None:
        # What is submitted waits in the queue by then, and one thread is enough to do it all.
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            if not self._threads:
                raise _NoThread from error

    def submit(self, work: Callable[..., Result], /, *args: Any, **named: Any) -> "Future[Result]":
        try:
            return super().submit(work, *args, **named)
        except _NoThread:
            self._work_queue.get_nowait()
        future: Future[Result] = Future()
        try:
            future.set_result(work(*args, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def in_order(threads: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map` in threads; what has not begun is cancelled when the caller stops or a result raises."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class _OneBlasThread(AbstractContextManager[None]):
    """While anybody is in it, NumPy's BLAS uses one thread.

    OpenBLAS's threads wait for each other by giving way: two programs whose products of matrices do that on the same
    processors stand still for minutes. One thread takes no longer for products as narrow as ours.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limits: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1 and (blas := _blas()):
                self._limits = blas.limit(limits=1, user_api="blas")

    def __exit__(self, *_: object) -> None:
        # The last one out restores what the first one in found, in whatever order they come and go.
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._limits:
                self._limits.restore_original_limits()


one_blas_thread = _OneBlasThread()


@functools.cache
def _blas() -> Any:
    """The BLAS that are loaded when they are first asked for, NumPy's among them."""
    try:
        from threadpoolctl import ThreadpoolController
    except ModuleNotFoundError:  # the core runs with NumPy alone
        return None
    return ThreadpoolController()
