"""Files that appear whole or not at all (temporary name, fsync, rename), and reading that neither waits nor floods."""

import atexit
import contextlib
import errno
import functools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import FileError, InputError

# Neither wait for a FIFO's writer, nor make a terminal ours, nor hand the file to a child.
_OPEN_FLAGS = os.O_RDONLY
for _name in ("O_BINARY", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC"):
    _OPEN_FLAGS |= getattr(os, _name, 0)


def reason(error: OSError) -> str:
    """The operating system's own words for an error, without numbers and paths: "No space left on device"."""
    return error.strerror or str(error) or type(error).__name__


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes; a FIFO, a device or a socket is refused, without waiting for it.

    Raises
    ------
    InputError
        It is no regular file.
    OSError
        The operating system does not open it.
    """
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        # What was opened is asked, not the name: that may be another file by now.
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise InputError(f"{os.fspath(path)} is no regular file; give one.")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a regular file, at most `limit` of them; memory is asked for only as far as the file reaches.

    Raises
    ------
    InputError
        It is no regular file, or larger.
    OSError
        The operating system does not read it.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        parts: list[bytes] = []
        # The size may be wrong (a file that grows, or one of /proc): read on until nothing comes, or too much.
        left = limit + 1 if size <= limit else 0
        while left > 0 and (part := file.read(min(left, max(size + 1, 1 << 16)))):
            parts.append(part)
            left -= len(part)
    if left <= 0:
        raise InputError(f"{os.fspath(path)} is larger than the {limit:,} bytes that it may have; give another.")
    return b"".join(parts)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there becomes `path` when the block ends well.

    If the block raises, or the disk is full, the temporary file is removed and an older `path` stays as it was.

    Raises
    ------
    FileError
        The folder does not exist or is not writable, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _fsync_folder(path.parent)
    except FileError:
        raise
    except OSError as error:
        advice = "free some space or choose another folder"
        if isinstance(error, FileNotFoundError):
            advice = "create its folder first, or choose another one"
        raise FileError(f"Cannot write {path}: {reason(error)}; {advice}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def leftovers(folder: Path, names: Iterable[str]) -> list[Path]:
    """What a process that was killed left of files of these names (patterns) that it was writing in the folder."""
    return [path for name in names for path in folder.glob(f".{name}.{'[0-9a-f]' * 8}.part")]


def check_new(path: str | os.PathLike[str], force: bool = False) -> None:
    """Whether `path` may be written: nothing is there yet, or a regular file and `force`.

    Raises
    ------
    FileError
        It may not.
    """
    path = Path(path)
    there = os.path.lexists(path)
    if there and not path.is_file():
        raise FileError(f"{path} is no regular file; choose another name.")
    if os.path.realpath(path.parent) == "/dev":
        raise FileError(f"{path} would lie among the devices; choose another folder.")
    if there and not force:
        raise FileError(f"{path} is there already; choose another name, or replace it with --force.")


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder (and its parents) if it is not there, with one clear sentence if that cannot be done."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"Cannot create the folder {path}: {reason(error)}; choose another with --out.") from error
    return path


def own_temporary_folder() -> str:
    """The user's own for compiled kernels, the same in every process; where somebody else has that name, a new one.

    Raises
    ------
    OSError
        There is no place for temporary files.
    """
    import tempfile  # not quick to load, and seldom needed

    if hasattr(os, "getuid"):
        folder = Path(tempfile.gettempdir()) / f"xlogreg-kernels-{os.getuid()}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            # What is loaded from there is executed: nobody else may write to it.
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
                return str(folder)
    return _new_temporary_folder()


@functools.cache
def _new_temporary_folder() -> str:
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="xlogreg-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _fsync_folder(folder: Path) -> None:
    # The rename itself must reach the disk too. Not every system can open a folder; there the rename still holds.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
