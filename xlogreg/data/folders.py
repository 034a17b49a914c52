"""Own pictures: a folder with one sub-folder per class, in any format that `xlogreg.images` reads and of any size.

The classes are the sub-folders, the pictures all files in them at any depth, both in the order of their names (by
Unicode code points, composed), never in the file system's. A file is a picture if it begins like one or is named like
one; all else (texts, Thumbs.db, ..) is passed over, as are hidden files and folders and the system's own thumbnails.
"""

import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FileError, InputError
from ..images.decoding import MAX_PIXELS, decode, decoder, is_picture, read_content
from ..images.resizing import resizer_for
from ..system.checks import check_callable, of_kind, path_of, sides
from ..system.files import reason
from ..system.parallel import Threads, in_order, processors
from ..system.text import given, listed, shown
from .cache import Cache
from .pictures import Pictures

DEFAULT_SIZE = (32, 32)
# Reading stops where more pictures than both of these cannot be read, unless another limit is given.
UNREADABLE_COUNT = 10
UNREADABLE_SHARE = 0.1

# Names of pictures, those in formats that are not read included: they are told of, not passed over.
_ENDINGS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".mpo",
    ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2",
})  # fmt: skip
# Folders of thumbnails and the like that systems put beside pictures.
_PASSED_OVER = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})

# What the parts of a data set are called.
_SETS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})

# (pictures done, pictures in all)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not be read, and why, in one sentence."""

    path: Path
    message: str
    label: int


@dataclass(frozen=True)
class Reading:
    """What reading a folder found.

    pictures, classes : read and used
    cached : of the pictures, those whose pixels were kept from an earlier run
    ignored : files that are no pictures, or lie beside the folders of the classes
    twice : pictures whose content occurs more than once, the first of each not counted
    empty : sub-folders without pictures, which are no classes
    unreadable : what was left out
    note : why the cache was not used, or nothing
    """

    pictures: int
    classes: tuple[str, ...]
    cached: int
    ignored: int
    twice: int
    empty: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    note: str


@dataclass(frozen=True)
class FolderOptions:
    """How to read a folder of pictures.

    size : (height, width) to which every picture is resized
    max_unreadable : so many pictures (a share of all, if below 1) may be unreadable; by default 10 or 10 %, whichever
        is more
    cache : where decoded pictures are kept; None keeps nothing
    progress : called with (pictures done, pictures in all)
    told : called once with what was found
    check : called before any picture is decoded with pictures that have no pixels, only labels, names and files; what
        it raises ends the reading
    """

    size: tuple[int, int] = DEFAULT_SIZE
    max_unreadable: int | float | None = None
    cache: Cache | None = None
    progress: Progress | None = None
    told: Callable[[Reading], None] | None = None
    check: Callable[[Pictures], object] | None = None

    def __post_init__(self) -> None:
        height, width = sides(self.size, "height, width")
        if height * width > MAX_PIXELS:
            raise InputError(f"A picture may have up to {MAX_PIXELS:,} pixels, not {given(height)} x {given(width)}.")
        most = self.max_unreadable
        if most is not None and (not isinstance(most, (int, float)) or isinstance(most, bool) or not most >= 0):
            raise InputError(f"The number of unreadable pictures must be 0 or more, not {given(most)}.")
        check_callable(self.progress, "progress")
        check_callable(self.told, "told")
        check_callable(self.check, "check")


@dataclass(frozen=True)
class _Item:
    path: Path
    name: str
    label: int


def read_folder(path: str | os.PathLike[str], options: FolderOptions | None = None) -> Pictures:
    """The pictures of a folder with one sub-folder per class.

    Returns
    -------
    Pictures with x (n, height, width, 3) uint8, labels (n,) the number of each picture's class in the order of their
    names, index 0 .. n-1, and files, their paths inside the folder.

    Raises
    ------
    FileError
        The folder is missing or cannot be read.
    InputError
        It holds no pictures in sub-folders or those of one class only, or too many cannot be read.
    """
    options = FolderOptions() if options is None else options
    of_kind(options, FolderOptions, "options")
    path = path_of(path, "path")
    if "\0" in str(path):
        raise FileError(f"{shown(path)} is no name of a folder; check it.")
    items, classes, empty, ignored = _find(path)
    limit = _limit(options.max_unreadable, len(items))
    if options.check is not None:
        labels = np.array([item.label for item in items], dtype=np.int64)
        no_pixels = np.empty((len(items), 0, 0, 3), dtype=np.uint8)
        options.check(_pictures(path, no_pixels, labels, classes, items))
    height, width = options.size
    try:
        x = np.empty((len(items), height, width, 3), dtype=np.uint8)
    except MemoryError as error:
        raise InputError(
            f"{len(items):,} pictures of {height} x {width} need {len(items) * height * width * 3 / 1e9:.1f} GB of "
            "memory; give a smaller --size."
        ) from error
    reader = _Reader(x, options.cache)
    good: list[int] = []
    bad: list[Unreadable] = []
    cached = 0
    digests: set[bytes] = set()
    with Threads(processors()) as threads:
        for number, result in enumerate(in_order(threads, reader.read, enumerate(items))):
            if isinstance(result, Unreadable):
                bad.append(result)
                if len(bad) > limit:
                    raise _too_many(path, bad, len(items))
            else:
                digest, was_cached = result
                good.append(number)
                digests.add(digest)
                cached += was_cached
            if options.progress is not None:
                options.progress(number + 1, len(items))
    if options.cache is not None:
        options.cache.flush()
    labels = np.array([items[number].label for number in good], dtype=np.int64)
    there = np.unique(labels)
    if len(there) < 2:
        if not good:
            raise _too_many(path, bad, len(items))
        raise InputError(
            f"Only the pictures of {shown(classes[there[0]])} in {shown(path)} can be read, and training needs two "
            f"classes; the first of the others: {next(one for one in bad if one.label != there[0]).message}"
        )
    if bad:
        x = x[good]
    lost = [name for number, name in enumerate(classes) if number not in there]
    names = tuple(classes[number] for number in there)
    reading = Reading(
        len(good), names, cached, ignored, len(good) - len(digests), (*empty, *lost), tuple(bad),
        options.cache.note if options.cache is not None else "",
    )  # fmt: skip
    if options.told is not None:
        options.told(reading)
    left_out = f", {len(bad)} unreadable left out" if bad else ""
    return _pictures(path, x, np.searchsorted(there, labels), names, [items[number] for number in good], left_out)


def _pictures(
    path: Path, x: np.ndarray, labels: np.ndarray, classes: Sequence[str], items: list[_Item], left_out: str = ""
) -> Pictures:
    source = f"folder {path} ({len(x):,} pictures of {len(classes)} classes{left_out})"
    return Pictures(x, labels, tuple(classes), np.arange(len(x)), source, tuple(item.name for item in items))


class _Reader:
    """Reads pictures into the rows of x, in many threads."""

    def __init__(self, x: np.ndarray, cache: Cache | None) -> None:
        self._x = x
        self._cache = cache
        self._how = f"{decoder()}, {x.shape[1:]}\0".encode()

    def read(self, numbered: tuple[int, _Item]) -> Unreadable | tuple[bytes, bool]:
        """Fill one row; the digest of the file's content, and whether its pixels were kept."""
        number, item = numbered
        cache = self._cache
        try:
            status = item.path.stat() if cache is not None else None
            if cache is not None and status is not None:
                digest = cache.digest_of(item.path, status)
                if digest is not None and self._from_cache(number, digest):
                    return digest, True
            content = read_content(item.path)
            digest = hashlib.sha256(content).digest()
            if cache is not None and status is not None:
                cache.remember(item.path, status, digest)
                if self._from_cache(number, digest):
                    return digest, True
            self._x[number] = resizer_for(number)(decode(item.path, content), self._x.shape[1:3])
        except (InputError, FileError) as error:
            return Unreadable(item.path, str(error), item.label)
        except OSError as error:
            return Unreadable(item.path, f"{item.path} cannot be read: {reason(error)}; check the file.", item.label)
        if cache is not None:
            cache.put(self._key(digest), self._x[number].tobytes())
        return digest, False

    def _key(self, digest: bytes) -> bytes:
        return hashlib.sha256(self._how + digest).digest()

    def _from_cache(self, number: int, digest: bytes) -> bool:
        assert self._cache is not None
        kept = self._cache.get(self._key(digest), self._x[number].size)
        if kept is None:
            return False
        self._x[number] = np.frombuffer(kept, dtype=np.uint8).reshape(self._x.shape[1:])
        return True


# ------------------------------------------------------------------------------------------------- finding pictures


def _find(path: Path) -> tuple[list[_Item], list[str], list[str], int]:
    """The pictures in order, the names of the classes, sub-folders without pictures, and the number of other files."""
    entries = _entries(path)
    items: list[_Item] = []
    classes: list[str] = []
    empty: list[str] = []
    ignored = loose = 0
    for entry in entries:
        if not os.path.isdir(entry):
            ignored += 1
            loose += _is_picture(entry)
            continue
        found, others = _walk(entry, path)
        ignored += others
        if found:
            items += [_Item(file, file.relative_to(path).as_posix(), len(classes)) for file in found]
            classes.append(entry.name)
        else:
            empty.append(entry.name)
    layout = "give a folder with one sub-folder of pictures per class"
    if not classes:
        what = f"{loose} pictures but no sub-folders with any" if loose else "no pictures"
        raise InputError(f"The folder {shown(path)} holds {what}; {layout}, or a folder of CIFAR-10's batches.")
    # Classes do not have such names, and folders in them.
    if all(name.lower() in _SETS for name in classes) and all(item.name.count("/") > 1 for item in items):
        raise InputError(
            f"The sub-folders of {shown(path)} ({listed(classes)}) are parts of a data set, not classes; {layout}, "
            f"such as {shown(path / classes[0])}."
        )
    if len(classes) < 2:
        also = f" ({listed(empty)} without any)" if empty else ""
        raise InputError(
            f"The folder {shown(path)} holds pictures of one class only, {shown(classes[0])}{also}, and training "
            f"needs two; {layout}."
        )
    return items, classes, empty, ignored


def _walk(folder: Path, root: Path) -> tuple[list[Path], int]:
    """All pictures below a folder, sorted, and the number of other files; links are followed, each folder once.

    A link to the `root` of all classes is not: it would make all of them this one.
    """
    found: list[Path] = []
    others = 0
    seen = {_identity(root)}
    # No recursion: folders may lie deeper in each other than Python's functions may.
    waiting = [folder]
    while waiting:
        entry = waiting.pop()
        if os.path.isdir(entry):
            # A link to a folder further up would lead round and round.
            if (identity := _identity(entry)) not in seen:
                seen.add(identity)
                waiting += reversed(_entries(entry))
        elif _is_picture(entry):
            found.append(entry)
        else:
            others += 1
    return found, others


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise FileError(f"The folder {shown(folder)} cannot be read: {reason(error)}; check it.") from error
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[Path]:
    """What a folder holds in the order of names, without hidden things; the same order on every file system."""
    try:
        entries = [entry for entry in folder.iterdir() if entry.name[0] != "." and entry.name not in _PASSED_OVER]
    except OSError as error:
        raise FileError(f"The folder {shown(folder)} cannot be read: {reason(error)}; check it.") from error
    return sorted(entries, key=lambda entry: (unicodedata.normalize("NFC", entry.name), entry.name))


def _is_picture(path: Path) -> bool:
    try:
        regular = stat.S_ISREG(path.stat().st_mode)  # a pipe would be waited for
    except OSError:
        regular = False
        if os.path.islink(path):  # to nothing, or to itself
            return path.suffix.lower() in _ENDINGS
    return regular and (path.suffix.lower() in _ENDINGS or is_picture(path))


def _limit(max_unreadable: int | float | None, n: int) -> float:
    if max_unreadable is None:
        return max(UNREADABLE_COUNT, UNREADABLE_SHARE * n)
    return max_unreadable * n if 0 < max_unreadable < 1 else max_unreadable


def _too_many(path: Path, bad: list[Unreadable], n: int) -> InputError:
    first = " ".join(item.message for item in bad[:3])
    if len(bad) == n:
        return InputError(f"None of the {n:,} pictures in {shown(path)} can be read. The first: {first}")
    return InputError(
        f"Stopped reading {shown(path)}: {len(bad)} of its {n:,} pictures cannot be read so far; mend or remove them, "
        f"or allow more with --max-unreadable. The first: {first}"
    )
