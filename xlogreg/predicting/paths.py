"""The picture files that a command names: files, folders, patterns, and lists on standard input."""

import glob
import os
import select
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import FileError
from ..models.classifier import Failure
from ..system.files import reason
from ..system.text import plain

# What a picture's name ends with, in a folder. A file that is named itself is read whatever its name.
SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".hif", ".bmp", ".dib", ".gif",
    ".tif", ".tiff",
))  # fmt: skip
# Bytes of a path on standard input; no system opens longer ones.
_LONGEST = 1 << 16


class Pause:
    """Among paths: the next may be long in coming, so what is there is finished and given first."""


PAUSE = Pause()


def picture_paths(
    arguments: Iterable[str | os.PathLike[str]],
    *,
    stdin: IO[bytes] | None = None,
    null: bool = False,
    pauses: bool = False,
) -> Iterator[Any]:
    """Each picture file that the arguments name, one at a time; a `Failure` for what names none.

    Parameters
    ----------
    arguments : files; folders, which give the pictures below them, sorted; patterns such as ``photos/**/*.jpg``, which
        give what they match, sorted; and "-" for the paths (of files and folders) on standard input, one a line
    stdin : where "-" reads, standard input by default
    null : the paths there end with NUL, as ``find -print0`` writes them, not with the line
    pauses : give a `PAUSE` before waiting for more on standard input, for `predict_many`

    Raises
    ------
    FileError
        Standard input is closed.

    A file called ``-`` is named by ``./-``. Hidden files and folders are left out below folders, and links to folders
    are not followed there. Only the names in the folders on the way are kept in memory.
    """
    for argument in arguments:
        name = os.fspath(argument)
        if name == "-":
            if stdin is None and sys.stdin is None:
                raise FileError("Standard input is closed, where - reads paths; open it, or name the pictures.")
            for line in _lines(stdin or sys.stdin.buffer, b"\0" if null else b"\n"):
                if isinstance(line, str):
                    yield from _of(Path(line))
                elif pauses or isinstance(line, Failure):
                    yield line
        elif glob.has_magic(name) and not os.path.lexists(name):
            yield from _matches(name)
        else:
            yield from _of(Path(name))


def _matches(pattern: str) -> Iterator[Path | Failure]:
    """What a pattern matches, sorted: files, and the pictures below folders, each once."""
    path = Path(pattern)
    if any("**" in part and part != "**" for part in path.parts):
        yield Failure(
            path, f"In the pattern {pattern} ** must stand alone, for folders at any depth, as in a/**/*.jpg."
        )
        return
    parts = list(path.parts)
    while parts and parts[-1] == "**":  # all that is below
        parts.pop()
    below = len(parts) < len(path.parts)
    try:
        found = sorted(_found(str(Path(*parts)))) if parts else ["."]
    except (ValueError, NotImplementedError, OSError, RecursionError) as error:
        yield Failure(path, f"The pattern {pattern} cannot be used: {error}; name the folder, or another pattern.")
        return
    empty = True
    # Below a folder that is matched itself, files may be matched too.
    seen: set[Path] = set()
    for name in found:
        if os.path.isdir(name):
            # ** with * matches the folders on the way too, and what is in them by itself.
            if "**" in parts and parts[-1] == "*":
                continue
            for picture in _of(Path(name)):
                empty = False
                if isinstance(picture, Failure) or picture not in seen:
                    yield picture
                if isinstance(picture, Path):
                    seen.add(picture)
        elif not below and Path(name) not in seen:
            empty = False
            yield Path(name)
    if empty:
        yield Failure(path, f"No file matches {pattern}; check the pattern.")


def _found(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return [pattern] if os.path.lexists(pattern) else []
    if "**" not in pattern:
        return glob.glob(pattern)
    # pathlib does not follow links to folders there, which may lead back to where they are; but it finds hidden files.
    path = Path(pattern)
    below = Path(*path.parts[1:]) if path.anchor else path
    named = [part for part in path.parts if part.startswith(".")]
    return [
        str(found)
        for found in (Path(path.anchor) if path.anchor else Path()).glob(str(below))
        if all(not part.startswith(".") or part in named for part in found.parts)
    ]


def _of(path: Path) -> Iterator[Path | Failure]:
    try:
        folder = path.is_dir()
    except (OSError, ValueError):
        folder = False  # reading it as a file will say what is wrong
    if not folder:
        yield path
        return
    empty = True
    for found in _below(path):
        empty = False
        yield found
    if empty:
        yield Failure(path, f"There are no pictures in the folder {path}; name one with {', '.join(sorted(SUFFIXES))}.")


def _below(folder: Path) -> Iterator[Path | Failure]:
    # No recursion: folders may lie deeper in each other than Python's functions may.
    waiting = [(folder, True)]
    while waiting:
        path, is_folder = waiting.pop()
        if not is_folder:
            yield path
            continue
        try:
            with os.scandir(path) as entries:
                names = sorted((entry.name, kind) for entry in entries if (kind := _kind(entry)) is not None)
        except OSError as error:
            yield Failure(path, str(FileError(f"The folder {path} cannot be read: {reason(error)}; check it.")))
            continue
        waiting += [(path / name, kind) for name, kind in reversed(names)]


def _kind(entry: os.DirEntry[str]) -> bool | None:
    """Whether what lies in a folder is a folder to be gone through (True), a picture (False), or neither (None)."""
    if entry.name.startswith("."):
        return None
    try:
        if entry.is_dir(follow_symlinks=False):
            return True
        folder = entry.is_dir()
    except OSError:
        folder = False  # a link that leads to itself, say: reading it will say what is wrong
    return None if folder or os.path.splitext(entry.name)[1].lower() not in SUFFIXES else False


def _lines(stream: IO[bytes], end: bytes) -> Iterator[str | Pause | Failure]:
    """The paths in a stream, read in pieces; empty ones are left out. A `PAUSE` before waiting for more."""
    rest = b""
    # One read a piece, so that paths are at work before the stream ends.
    read = getattr(stream, "read1", stream.read)
    while True:
        if not _ready(stream):
            yield PAUSE
        piece = read(1 << 16)
        *whole, rest = (rest + piece).split(end)
        for line in whole:
            yield from _line(line, end)
        if not piece:
            break
        rest = rest[: _LONGEST + 2]  # of a line that is too long, with its \r, no more than shows that it is
    yield from _line(rest, end)


def _ready(stream: IO[bytes]) -> bool:
    """Whether a read would not wait, as far as can be told."""
    try:
        return bool(select.select([stream], [], [], 0)[0])
    except (OSError, ValueError, TypeError):  # no file of the system's, or Windows, where only sockets can be asked
        return False


def _line(line: bytes, end: bytes) -> Iterator[str | Failure]:
    if end == b"\n":
        line = line.removesuffix(b"\r")
    if len(line) > _LONGEST:
        begin = os.fsdecode(line[:40])
        yield Failure(
            Path(begin),
            f"A line on standard input has more than {_LONGEST:,} bytes and is no path: {plain(begin)}.. (paths there "
            "end with the line, or with NUL for --null).",
        )
    elif line:
        yield os.fsdecode(line)
