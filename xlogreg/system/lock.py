"""One training a folder: a lock that the operating system takes back when the process ends, however it ends."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import FileError
from .files import reason

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
# So often the lock may be taken away by the one that had it just when it is wanted.
_TRIES = 100
# What the operating systems say where somebody else has the lock; all else means that there are no locks here.
_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training in the folder as long as the block, or this process, goes on.

    On a file system that has no locks nothing is locked.

    Raises
    ------
    FileError
        Another process is training there, or the folder is not writable.
    """
    path = folder / LOCK
    descriptor = _taken(path)
    try:
        yield
    finally:
        # Away while it is still held, so that nobody takes a lock that is about to go; Windows needs it closed first.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)
        with contextlib.suppress(OSError):
            if fcntl is None:
                path.unlink()


def _taken(path: Path) -> int:
    for _ in range(_TRIES):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise FileError(
                f"Cannot write into the folder {path.parent}: {reason(error)}; make it writable, or train into another."
            ) from error
        try:
            lock_now(descriptor)
        except OSError as error:
            if error.errno in _TAKEN:
                os.close(descriptor)
                raise FileError(
                    f"Another process is training in {path.parent}; let it end, or train into another folder."
                ) from error
        # The one that had it may have taken the file away between the two steps: then this one is no longer there.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)
    raise FileError(f"The file {path} does not stay where it is; train into another folder.")


def lock_now(descriptor: int) -> None:
    """Lock an open file until it is closed; an OSError with an errno of `_TAKEN` (which is a BlockingIOError or a
    PermissionError): somebody else has the lock."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
