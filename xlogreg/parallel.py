"""Work in threads: results in order, a bounded number on the way, nothing left running when the caller stops."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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


class Turn:
    """A lock for what threads do with small files, which is Python's own work for the most part.

    Threads that all want Python's lock, for a few microseconds each time, spend several times as long on handing it
    over. So one at a time goes through small files, and only a large one's decoding is done beside the others.
    """

    # Bytes of a file that take longer to decode than a lock to change hands.
    LARGE = 6_000

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @contextlib.contextmanager
    def given_up_for(self, size: int) -> Iterator[None]:
        """Within its turn a thread lets the others go on while it decodes a file of so many bytes, if they are many."""
        if size < self.LARGE:
            yield
            return
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()


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
