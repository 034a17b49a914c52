"""CIFAR-10 in all its forms is read alike, and a batch that is damaged or wants to act is refused in one sentence."""

import copyreg
import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from xlogreg.data import cifar10, pickles
from xlogreg.data.cifar10 import ARCHIVES, looks_like_cifar10, read_batch, read_cifar10, read_cifar10_sets
from xlogreg.data.pictures import CIFAR10_CLASSES, class_number
from xlogreg.data.sources import load_source
from xlogreg.errors import FileError, InputError, XlogregError

N = 7
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def some_batch(seed: int, n: int = N) -> tuple[np.ndarray, list[int]]:
    """Random pixels (n, 3072) in planes, and labels."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (n, 3072), dtype=np.uint8), random.integers(0, 10, n).tolist()


def as_pictures(data: np.ndarray) -> np.ndarray:
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def pickled(data: np.ndarray, labels: Any, protocol: int = 4) -> bytes:
    return pickle.dumps({"data": data, "labels": labels, "batch_label": "one", "filenames": ["a.png"]}, protocol)


def text2(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def pickled_by_python2(data: np.ndarray, labels: list[int], dtype: bytes = b"u1", shape: bytes | None = None) -> bytes:
    """The very instructions of the original batches."""
    shape = shape or b"M" + struct.pack("<H", len(data)) + b"M\x00\x0c\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85"
        + text2(b"b")
        + b"\x87Rq\x03(K\x01"
        + shape
        + b"cnumpy\ndtype\nq\x04"
        + text2(dtype)
        + b"K\x00K\x01\x87Rq\x05(K\x03"
        + text2(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", data.size)
        + data.tobytes()
        + b"tb"
    )
    numbers = b"]q\x06(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}q\x00(" + text2(b"data") + array + text2(b"labels") + numbers + b"u."


def binary(data: np.ndarray, labels: list[int]) -> bytes:
    return np.column_stack([np.array(labels, dtype=np.uint8), data]).tobytes()


def sheet(data: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(as_pictures(data)).reshape(len(data), 1024, 3)).save(file, "PNG")
    return file.getvalue()


def form_files(form: str, batches: list[tuple[np.ndarray, list[int]]]) -> dict[str, bytes]:
    """All files of the data set in one form, names with the folder."""
    named = list(zip(NAMES, batches, strict=True))
    if form == "python":
        return {f"cifar-10-batches-py/{name}": pickled_by_python2(*batch) for name, batch in named}
    if form == "binary":
        return {f"cifar-10-batches-bin/{name}.bin": binary(*batch) for name, batch in named}
    files = {f"package/{name}.png": sheet(data) for name, (data, _) in named}
    train = [label for _, labels in batches[:5] for label in labels]
    files["package/test_lables.json"] = json.dumps(batches[5][1]).encode()
    files["package/train_lables.json"] = json.dumps(train).encode()
    return files


def write_archive(
    path: Path, files: dict[str, bytes], edit: Callable[[tarfile.TarInfo], None] = lambda info: None
) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            edit(info)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, list[int]]]:
    """Six small batches, and readers that take them for whole ones."""
    monkeypatch.setattr(cifar10, "BATCH_PICTURES", N)
    return [some_batch(seed) for seed in range(6)]


def refused(path: Path, *words: str, part: str | None = None) -> str:
    """The one sentence with which a file is refused; it names the file."""
    with pytest.raises(XlogregError) as caught:
        read_batch(path) if part is None else read_cifar10(path, part)  # type: ignore[arg-type]
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# ------------------------------------------------------------------------------------------------------- single batches


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("bytes_keys", [False, True])
def test_pickled_batch(tmp_path: Path, protocol: int, bytes_keys: bool) -> None:
    data, labels = some_batch(1)
    batch: dict[Any, Any] = {"data": data, "labels": labels, "filenames": ["a", "b"]}
    if bytes_keys:
        batch = {key.encode(): value for key, value in batch.items()} | {b"filenames": [b"a", b"b"]}
    (tmp_path / "mine").write_bytes(pickle.dumps(batch, protocol))
    pictures = read_batch(tmp_path / "mine")
    assert pictures.x.dtype == np.uint8
    assert pictures.x.flags.c_contiguous
    assert pictures.x.flags.writeable
    assert (pictures.x == as_pictures(data)).all()
    assert pictures.labels.dtype == np.int64
    assert pictures.labels.tolist() == labels
    assert pictures.index.tolist() == list(range(N))
    assert pictures.class_names == CIFAR10_CLASSES
    assert "mine" in pictures.source


def test_python2_and_binary_batches(tmp_path: Path) -> None:
    data, labels = some_batch(2)
    (tmp_path / "data_batch_1").write_bytes(pickled_by_python2(data, labels))
    (tmp_path / "data_batch_1.bin").write_bytes(binary(data, labels))
    for name in ("data_batch_1", "data_batch_1.bin"):
        path = tmp_path / name
        for pictures in (read_batch(path), read_cifar10(path), read_cifar10(path, "all")):
            assert (pictures.x == as_pictures(data)).all()
            assert pictures.labels.tolist() == labels


def test_newer_numpy_names(tmp_path: Path) -> None:
    data, labels = some_batch(3)
    content = pickled_by_python2(data, labels).replace(b"numpy.core.multiarray", b"numpy._core.multiarray")
    (tmp_path / "batch").write_bytes(content)
    assert (read_batch(tmp_path / "batch").x == as_pictures(data)).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n", "neither pickled nor binary"),
        (b"hello", "neither pickled nor binary"),
        (b"\x1f\x8b\x08", "archive"),
        (binary(*some_batch(0))[:-1], "truncated"),
        (b"\x03" * 3073 + b"\x0a" * 3073, "label 10"),
        (pickled_by_python2(*some_batch(0))[:-500], "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02]q\x00.", "no dictionary"),
        (b"\x80\x02}q\x00.", "'data'"),
        (pickled(some_batch(0)[0], [1] * N) + b"more", "goes on after its end"),
        (pickled(some_batch(0)[0], [1] * (N - 1)), f"{N - 1} labels for {N} pictures"),
        (pickled(some_batch(0)[0], [1] * (N - 1) + [10]), "label 10"),
        (pickled(some_batch(0)[0], [1] * (N - 1) + [-1]), "label -1"),
        (pickled(some_batch(0)[0], [True] * N), "'labels'"),
        (pickled(some_batch(0)[0], ["a"] * N), "'labels'"),
        (pickled(some_batch(0)[0], "abc"), "'labels'"),
        (pickled(some_batch(0)[0], {}), "'labels'"),
        (pickled(some_batch(0)[0][:, :3071].copy(), [1] * N), "'data'"),
        (pickled(some_batch(0, 0)[0], []), "no pictures"),
        (pickled(some_batch(0)[0].astype(np.int64), [1] * N), "type 'i8'"),
        (pickled(some_batch(0)[0].astype(object)[:1], [1]), "unsigned bytes"),
        (pickled(some_batch(0)[0].reshape(N, 3, 32, 32), [1] * N), "not a table"),
        (pickled(np.asfortranarray(some_batch(0)[0]), [1] * N), "damaged"),
        (
            pickled_by_python2(*some_batch(0), shape=b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"),
            "2147483647 x 2147483647",
        ),
        (pickled_by_python2(*some_batch(0), shape=b"J\xff\xff\xff\xffM\x00\x0c\x86"), "not a table"),
        (pickled_by_python2(*some_batch(0), dtype=b"O8"), "unsigned bytes"),
    ],
)
def test_unusable_batches(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "batch").write_bytes(content)
    refused(tmp_path / "batch", words)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"There is no .*absent"):
        read_batch(tmp_path / "absent")
    with pytest.raises(FileError, match=r"There is no .*absent"):
        read_cifar10(tmp_path / "absent")
    with pytest.raises(FileError, match="is a folder"):
        read_batch(tmp_path)
    with pytest.raises(FileError, match="null"):
        read_batch("a\0b")
    with pytest.raises(InputError, match="no part 'some'"):
        read_cifar10(tmp_path, "some")  # type: ignore[arg-type]
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "no regular file")


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    refused(tmp_path / "secret", "Cannot read")


def test_file_size_is_bounded_before_reading(tmp_path: Path) -> None:
    for name in ("batch", "archive"):
        with open(tmp_path / name, "wb") as file:
            file.write(b"\x80\x02" if name == "batch" else b"\x1f\x8b")
            file.truncate(1 << 40)
        refused(tmp_path / name, "more than", part="train")


# ---------------------------------------------------------------------------------------------------- pickles that act


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


MARKER = "ran"


ACTS: dict[str, tuple[Any, str]] = {
    "system": (Calls(os.system, f"touch {MARKER}"), "system"),
    "eval": (Calls(eval, f"open('{MARKER}', 'w')"), "eval"),
    "exec": (Calls(exec, f"open('{MARKER}', 'w')"), "exec"),
    "open": (Calls(open, MARKER, "w"), "open"),
    "getattr": (Calls(getattr, Calls(__import__, "os"), "system"), "getattr"),
    "numpy.load": (Calls(np.load, MARKER), "numpy"),
    "numpy.memmap": (Calls(np.memmap, MARKER, "u1", "w+", 0, (10,)), "numpy.memmap"),
    "numpy.testing": (Calls(np.testing.assert_equal, 1, 2), "numpy.testing"),
    "numpy.fromfile": (Calls(np.fromfile, "/dev/zero"), "numpy"),
    "bytearray": (Calls(bytearray, 1 << 30), "bytearray"),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("where", ["whole", "data", "labels", "key", "deep"])
def test_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, where: str, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    what, word = ACTS[act]
    data, labels = some_batch(0)
    content = {
        "whole": what,
        "data": {"data": what, "labels": labels},
        "labels": {"data": data, "labels": [*labels, what]},
        "key": {"data": data, "labels": labels, what: 1},
        "deep": {"data": data, "labels": labels, "filenames": [[[{"a": [what]}]]]},
    }[where]
    Path("batch").write_bytes(pickle.dumps(content, protocol))
    if protocol < 2:
        refused(Path("batch"), "neither pickled nor binary")
    else:
        refused(Path("batch"), "was refused", word)
    assert not Path(MARKER).exists()


def raw(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def many_tuples(n: int) -> bytes:
    """A tuple in a tuple in a tuple .. as a key: hashing it would overflow the stack."""
    return b"}K\x01" + b"\x85" * n + b"Ns"


def doubled_tuples(n: int) -> bytes:
    """A tuple of twice the same tuple, n times, as a key: hashing it would take 2^n steps."""
    steps = (b"q" + bytes([slot]) + b"h" + bytes([slot]) + b"\x86" for slot in range(n))
    return b"}K\x01\x85" + b"".join(steps) + b"Ns"


def hidden_tuples(n: int) -> bytes:
    """The same, with an empty APPENDS that would hide the tuple from a careless scan."""
    steps = (b"(eq" + bytes([slot]) + b"h" + bytes([slot]) + b"\x86" for slot in range(n))
    return b"}K\x01\x85" + b"".join(steps) + b"Ns"


COSTLY = {
    "far memo slot": raw(b"Nr\xff\xff\xff\x7f"),
    "further memo slot": raw(b"Nr\xff\xff\xff\xff"),
    "huge bytearray": raw(b"\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc"),
    "huge bytes": raw(b"\x8e\xff\xff\xff\xff\xff\x00\x00\x00abc"),
    "negative string": raw(b"T\xff\xff\xff\xffabc"),
    "huge frame": raw(b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN"),
    "nested tuples": raw(many_tuples(100_000)),
    "doubled tuples": raw(doubled_tuples(15)),
    "doubled tuples, many": raw(doubled_tuples(60)),
    "hidden tuples": raw(hidden_tuples(15)),
    "nested lists": raw(b"]" * 50_000 + b"a" * 49_999),
    "many dictionaries": raw(b"}" * 3_000_000),
    "long numbers as keys": raw(b"}(" + b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x1fN" + b"u"),
    "text number": raw(b"I" + b"9" * 100_000 + b"\n"),
    "long text number": raw(b"L" + b"9" * 100_000 + b"L\n"),
    "very long number": raw(b"\x8b\x10\x00\x00\x00" + b"9" * 16),
    "encoded again and again": raw(
        b"c_codecs\nencode\nq\x00X\xa0\x86\x01\x00"
        + b"a" * 100_000
        + b"q\x01\x8c\x06latin1q\x02"
        + b"h\x00h\x01h\x02\x86R" * 5_000
    ),
    "one long text as a key again and again": raw(
        b"}(T\x80\x96\x98\x00" + b"a" * 10_000_000 + b"q\x00N" + b"h\x00N" * 9_000 + b"u"
    ),
    "persistent text": raw(b"Psomething\n"),
    "persistent": raw(b"NQ"),
    "extension": raw(b"\x82\xf0"),
    "extension 2": raw(b"\x83\xf0\x00"),
    "extension 4": raw(b"\x84\xf0\x00\x00\x00"),
    "buffer": raw(b"\x97"),
    "inst": raw(b"(ios\nsystem\n"),
    "obj": raw(b"(cnumpy\nndarray\no"),
    "newobj": raw(b"cnumpy\nndarray\n)\x81"),
    "newobj_ex": raw(b"cnumpy\nndarray\n)}\x92"),
    "call of an array's type": raw(b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x85R"),
    "other encoding": raw(b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R"),
    "state of a name": raw(b"cnumpy\ndtype\n}X\x08\x00\x00\x00__call__Nsb"),
    "slots of a name": raw(b"cnumpy.core.multiarray\n_reconstruct\nN}X\x08\x00\x00\x00__call__Ns\x86b"),
    "state of a list": raw(b"]}X\x08\x00\x00\x00__call__Nsb"),
    "call of a number": raw(b"K\x01K\x02\x85R"),
    "dtype with fields": raw(
        b"cnumpy\ndtype\nX\x02\x00\x00\x00u1K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00|N(X\x01\x00\x00\x00at}JN\xff\xff\xffNK\x00tb"
    ),
    "dtype from a nested list": raw(
        b"cnumpy\ndtype\n]"
        + b"".join(b"q" + bytes([i]) + b"]h" + bytes([i]) + b"ah" + bytes([i]) + b"a" for i in range(60))
        + b"K\x00K\x01\x87R"
    ),
    "name without an end": raw(b"c" + b"a" * 100_000),
    "name with odd characters": raw(b"cos\x1b[31m\nsy\x00stem\n"),
    "stack name": raw(b"\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R"),
    "stack name that is no text": raw(b"K\x01K\x02\x93"),
    "dotted name": raw(b"\x8c\x05numpy\x8c\x10ndarray.__class__\x93"),
}


@pytest.mark.parametrize("case", COSTLY)
def test_costly_and_odd_pickles_are_refused_cheaply(tmp_path: Path, case: str) -> None:
    (tmp_path / "batch").write_bytes(COSTLY[case])
    tracemalloc.start()
    try:
        message = refused(tmp_path / "batch")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message.isprintable()
    # A few times the file, and the objects of as many instructions as are allowed.
    assert peak < 3 * len(COSTLY[case]) + 20_000_000


def test_arrays_of_the_same_bytes_share_them() -> None:
    """A copy for each array would fill the memory."""
    pixels = (b"\x96\x00\x00\x10\x00\x00\x00\x00\x00" + bytes(1 << 20), b"B\x00\x00\x10\x00" + bytes(1 << 20))
    for data in pixels:
        array = b"h\x03(h\x00h\x01h\x02U\x01CtR"
        content = raw(
            b"}(U\x01a" + data + b"q\x00U\x01bcnumpy\ndtype\nU\x02u1\x85Rq\x01U\x01cM\x00\x04M\x00\x04\x86q\x02"
            + b"U\x01dcnumpy.core.numeric\n_frombuffer\nq\x03U\x01e" + array + b"U\x01f](" + array * 400 + b"eu"
        )  # fmt: skip
        tracemalloc.start()
        try:
            batch = pickles.load_batch_pickle(content, "shared")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        found = batch["e"]
        assert isinstance(found, np.ndarray)
        assert (found.shape, found.dtype, found.flags.writeable) == ((1024, 1024), np.uint8, False)
        assert peak < 10 * len(content)


def test_refused_pickles_leave_no_trace(tmp_path: Path) -> None:
    """A pickle that tries to change the names for the reads that follow."""
    data, labels = some_batch(4)
    for case in ("state of a name", "slots of a name"):
        (tmp_path / "bad").write_bytes(COSTLY[case])
        refused(tmp_path / "bad")
        (tmp_path / "good").write_bytes(pickled_by_python2(data, labels))
        assert read_batch(tmp_path / "good").labels.tolist() == labels


def test_cached_extension_is_not_reached(tmp_path: Path) -> None:
    """An extension code that this process has used before comes from a cache that no find_class sees."""
    copyreg.add_extension("os", "system", 0xF0)
    try:
        assert pickle.loads(b"\x80\x02\x82\xf0.") is os.system
        (tmp_path / "batch").write_bytes(raw(b"\x82\xf0X\x08\x00\x00\x00touch me\x85R"))
        refused(tmp_path / "batch", "0x82")
    finally:
        copyreg.remove_extension("os", "system", 0xF0)


SMALL = [
    pickled_by_python2(*some_batch(0, 1)),
    pickled(*some_batch(0, 1), protocol=4),
    pickled(*some_batch(0, 1), protocol=5),
]
# Everything of a small batch but the pixels, where a change always changes the program.
PLACES = [
    [
        at
        for at, byte in enumerate(small)
        if small.find(some_batch(0, 1)[0].tobytes()) > at or at >= small.find(some_batch(0, 1)[0].tobytes()) + 3072
    ]
    for small in SMALL
]


def read_or_refuse(content: bytes) -> None:
    """Either a batch or an XlogregError: nothing else may come out."""
    try:
        batch = pickles.load_batch_pickle(content, "fuzz")
    except XlogregError:
        return
    assert all(isinstance(key, str) for key in batch)


@pytest.mark.parametrize("which", range(3))
def test_every_truncation_is_refused(which: int) -> None:
    for end in PLACES[which]:
        with pytest.raises(InputError):
            pickles.load_batch_pickle(SMALL[which][:end], "fuzz")


def test_the_order_of_an_array_may_be_a_number() -> None:
    pixels = b"T\x00\x0c\x00\x00"

    def read(order: bytes) -> object:
        assert SMALL[0].count(b"\x89" + pixels) == 1
        return pickles.load_batch_pickle(SMALL[0].replace(b"\x89" + pixels, order + pixels), "order")["data"]

    np.testing.assert_array_equal(read(b"\x89"), read(b"K\x00"))  # type: ignore[call-overload]
    for order in (b"\x88", b"K\x01", b"N"):
        with pytest.raises(InputError):
            read(order)


@settings(max_examples=1000, suppress_health_check=list(HealthCheck))
@given(
    which=st.integers(0, 2),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_mutated_batches(which: int, changes: list[tuple[int, int]]) -> None:
    content = bytearray(SMALL[which])
    for place, byte in changes:
        content[PLACES[which][place % len(PLACES[which])]] = byte
    read_or_refuse(bytes(content))


PIECES = [bytes([code]) for code in b"(}]taesu\x85\x86\x87\x94\x88\x89\x93NRb"] + [
    b"q\x00",
    b"q\x01",
    b"h\x00",
    b"h\x01",
    b"K\x01",
    b"K\x00",
    b"\x8a\x01\x05",
    b"\x8c\x02u1",
    b"\x8c\x01C",
    b"C\x01b",
    b"U\x01|",
    b"\x8c\x06latin1",
    b"cnumpy\nndarray\n",
    b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"\x80\x05",
    b"cnumpy._core.numeric\n_frombuffer\n",
    b"c_codecs\nencode\n",
    b"\x96\x01\x00\x00\x00\x00\x00\x00\x00a",
    b"\x8c\x04data",
    b"cnumpy\ndtype\n\x8c\x02u1K\x00K\x01\x87R",
    b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R",
]


@settings(max_examples=1000, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_random_programs(pieces: list[bytes]) -> None:
    read_or_refuse(b"\x80\x04" + b"".join(pieces) + b".")
    read_or_refuse(b"\x80\x04}(\x8c\x04data" + b"".join(pieces) + b"u.")


def crafted_pickles() -> list[bytes]:
    """Sound pickles of what is no batch: other shapes, kinds and numbers in every place."""
    data, labels = some_batch(1, 2)
    pixels = (data, data[:0], data[:, :9], data[0], data.astype(np.int16), [[1] * 9], b"bytes", None, data[:1])
    numbers = (labels, [], [-1, 10], [True, False], ["1", 2], (1, 2), 7, None, data, [2**31 - 1, 0], [1.5, 2])
    made = [{"data": one, "labels": other} for one in pixels for other in numbers]
    made += [
        {"data": data}, {"labels": labels}, {}, [], {"data": data, b"data": 1, "labels": labels}, {1: 2}, {None: 1},
        {"data": data, "labels": labels, "x": {"y": {"z": []}}}, {"data": data, "labels": labels, ("a",): 1},
        data, labels,
    ]  # fmt: skip
    return [pickle.dumps(what, protocol) for protocol in (2, 4) for what in made]


def test_fuzzed_batches_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    rng = np.random.RandomState(0)
    contents = crafted_pickles() + list(COSTLY.values())[:20]
    assert len(contents) >= 50
    for number in range(300):
        content = bytearray(SMALL[number % 3])
        for _ in range(rng.randint(1, 6)):
            place = PLACES[number % 3][rng.randint(len(PLACES[number % 3]))]
            action, byte = rng.randint(3), bytes([rng.randint(256)])
            content[place : place + (action != 0)] = byte if action < 2 else b""
        contents.append(bytes(content))
    good = 0
    for content in contents:
        path.write_bytes(content)
        try:
            pictures = read_batch(path)
        except XlogregError as error:
            assert str(error).isprintable()  # noqa: PT017
            assert len(str(error)) < 300 + len(str(path))  # noqa: PT017
        else:
            good += 1
            assert pictures.x.shape == (len(pictures.labels), 32, 32, 3)
            assert set(pictures.labels.tolist()) <= set(range(10))
    assert good > 3


# ----------------------------------------------------------------------------------------------- folders and archives


@pytest.mark.parametrize("form", ["python", "binary", "npm"])
@pytest.mark.parametrize("how", ["archive", "folder", "parent", "folder with archive"])
def test_whole_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: list[tuple[np.ndarray, list[int]]], form: str, how: str
) -> None:
    files = form_files(form, batches)
    archive = ARCHIVES[["python", "binary", "npm"].index(form)]
    if "archive" in how:
        # The original archives are in no order, and hold other files too.
        files = {"package/readme.html": b"x" * 5000, **dict(reversed(files.items()))}
        where = write_archive(tmp_path / archive, files)
        where = tmp_path if how == "folder with archive" else where
    else:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        where = tmp_path if how == "parent" else (tmp_path / next(iter(files))).parent
    x = np.concatenate([as_pictures(data) for data, _ in batches])
    y = np.concatenate([labels for _, labels in batches])
    for part, rows in (("train", slice(0, 5 * N)), ("test", slice(5 * N, None)), ("all", slice(None))):
        pictures = read_cifar10(where, part)  # type: ignore[arg-type]
        assert pictures.x.dtype == np.uint8
        assert (pictures.x == x[rows]).all()
        assert (pictures.labels == y[rows]).all()
        assert pictures.index.tolist() == list(range(len(x[rows])))
        assert part in pictures.source
    assert looks_like_cifar10(where if where.is_dir() else where.parent)
    opened: list[object] = []
    members_of = cifar10._members
    monkeypatch.setattr(cifar10, "_members", lambda *given: opened.append(given) or members_of(*given))
    for pictures, part in zip(read_cifar10_sets(where), ("train", "test"), strict=True):
        alone = read_cifar10(where, part)  # type: ignore[arg-type]
        assert (pictures.source, pictures.class_names) == (alone.source, alone.class_names)
        for name in ("x", "labels", "index"):
            assert np.array_equal(getattr(pictures, name), getattr(alone, name))
    # Once for both, and once for each alone.
    assert len(opened) == (3 if "archive" in how else 0)


def test_missing_parts(tmp_path: Path, batches: list[tuple[np.ndarray, list[int]]]) -> None:
    refused(tmp_path, "no CIFAR-10 batches", part="train")
    files = form_files("python", batches)
    for name in ("data_batch_1", "test_batch"):
        (tmp_path / name).write_bytes(files[f"cifar-10-batches-py/{name}"])
    refused(tmp_path, "lacks data_batch_2, data_batch_3, data_batch_4, data_batch_5", part="train")
    assert len(read_cifar10(tmp_path, "test")) == N
    assert len(read_cifar10(tmp_path / "data_batch_1", "train")) == N
    refused(tmp_path / "data_batch_1", "not one of CIFAR-10's test batches", part="test")
    refused(tmp_path / "test_batch", "not one of CIFAR-10's train batches", part="train")
    (tmp_path / "test_batch").unlink()
    (tmp_path / "test_batch").mkdir()
    refused(tmp_path, "is a folder", part="test")
    del files["cifar-10-batches-py/data_batch_3"]
    refused(write_archive(tmp_path / "a.tar.gz", files), "lacks data_batch_3;", part="train")
    files = form_files("npm", batches)
    del files["package/test_lables.json"]
    refused(write_archive(tmp_path / "b.tgz", files), "lacks test_lables.json", part="test")
    only_test = {"cifar-10-batches-bin/test_batch.bin": binary(*batches[5])}
    refused(write_archive(tmp_path / "c.tgz", only_test), "none of CIFAR-10's train", part="train")
    refused(write_archive(tmp_path / "d.tgz", {"data_batch_1": b"x"}), "no CIFAR-10 batches", part="train")


def test_batches_of_another_size(tmp_path: Path, batches: list[tuple[np.ndarray, list[int]]]) -> None:
    files = form_files("binary", batches)
    files["cifar-10-batches-bin/test_batch.bin"] = binary(*some_batch(1, N - 1))
    refused(write_archive(tmp_path / "a.tar.gz", files), "test_batch.bin", f"{N - 1} pictures", part="test")


def test_damaged_archives(tmp_path: Path, batches: list[tuple[np.ndarray, list[int]]]) -> None:
    good = write_archive(tmp_path / "good.tar.gz", form_files("binary", batches)).read_bytes()
    bad = tmp_path / "bad.tar.gz"
    for end in (3, 10, 11, 100, len(good) // 2, len(good) - 9, len(good) - 4, len(good) - 1):
        bad.write_bytes(good[:end])
        refused(bad, "truncated", part="test")
    for place in (len(good) // 3, len(good) // 2, len(good) - 6):
        bad.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        refused(bad, part="test")
    bad.write_bytes(good + b"more")
    refused(bad, "damaged", part="test")
    bad.write_bytes(gzip.compress(b"no archive at all" * 100))
    refused(bad, "not a compressed archive", part="test")
    bad.write_bytes(gzip.compress(gzip.decompress(good)[: 512 + 3073]))
    refused(bad, "truncated", part="train")
    bad.write_bytes(gzip.compress(b""))
    refused(bad, "no CIFAR-10 batches", part="train")


def test_only_regular_members_count(tmp_path: Path, batches: list[tuple[np.ndarray, list[int]]]) -> None:
    (tmp_path / "outside").write_bytes(binary(*batches[5]))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE):

        def edit(info: tarfile.TarInfo, kind: bytes = kind) -> None:
            info.type, info.linkname, info.size = kind, str(tmp_path / "outside"), 0

        path = write_archive(tmp_path / "a.tar.gz", {"cifar-10-batches-bin/test_batch.bin": b""}, edit)
        refused(path, "no CIFAR-10 batches", part="test")


@pytest.mark.parametrize(
    "name",
    [
        "../cifar-10-batches-bin/test_batch.bin",
        "/cifar-10-batches-bin/test_batch.bin",
        "x/cifar-10-batches-bin/test_batch.bin",
        "cifar-10-batches-bin/./test_batch.bin",
    ],
)
def test_only_exact_names_count(tmp_path: Path, batches: list[tuple[np.ndarray, list[int]]], name: str) -> None:
    refused(write_archive(tmp_path / "a.tar.gz", {name: binary(*batches[5])}), "no CIFAR-10 batches", part="test")


def member(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (member("cifar-10-batches-bin/test_batch.bin", 1 << 40), "impossible size"),
        (member("cifar-10-batches-bin/test_batch.bin", 0), "impossible size"),
        (member("readme.html", 1 << 40), "unpacks to more"),
        (member("pax", 1 << 40, tarfile.XHDTYPE), "unpacks to more"),
        (member("long", 1 << 40, tarfile.GNUTYPE_LONGNAME), "unpacks to more"),
        (b"\0" * 512, "unpacks to more"),
    ],
)
def test_archive_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: bytes, words: str) -> None:
    monkeypatch.setattr(cifar10, "MAX_UNPACKED_BYTES", 20_000_000)
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(header + b"\0" * 30_000_000, 1))
    tracemalloc.start()
    try:
        refused(path, words, part="test")
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_negative_size(tmp_path: Path) -> None:
    header = bytearray(member("readme", 0))
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(header)))
    refused(tmp_path / "a.tar.gz", "damaged", part="test")


def test_a_member_twice(tmp_path: Path, batches: list[tuple[np.ndarray, list[int]]]) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for _ in range(2):
            content = binary(*batches[5])
            info = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    refused(path, "twice", part="test")


def test_malicious_batch_in_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(Calls(os.system, f"touch {MARKER}"), 2)
    path = write_archive(tmp_path / "a.tar.gz", {"cifar-10-batches-py/test_batch": content})
    refused(path, "test_batch", "system", part="test")
    assert not Path(MARKER).exists()


def test_damaged_sheets_and_labels(tmp_path: Path, batches: list[tuple[np.ndarray, list[int]]]) -> None:
    good = form_files("npm", batches)
    png = good["package/test_batch.png"]
    wide = io.BytesIO()
    Image.new("RGB", (1025, N)).save(wide, "PNG")
    grey = io.BytesIO()
    Image.new("L", (1024, N)).save(grey, "PNG")
    huge = bytearray(png)
    huge[16:24] = struct.pack(">II", 1 << 30, 1 << 30)
    limit = Image.MAX_IMAGE_PIXELS
    cases = {
        "not a PNG": (wide.getvalue(), grey.getvalue(), bytes(huge), b"GIF89a", png[:20]),
        "damaged PNG": (png[:5000], png[:40], png[:100] + bytes(100) + png[200:]),
    }
    for words, contents in cases.items():
        for content in contents:
            files = good | {"package/test_batch.png": content}
            refused(write_archive(tmp_path / "a.tgz", files), words, "test_batch.png", part="test")
    for labels in (
        b"",
        b"{}",
        b"[1]",
        b"[" * 100,
        b"[1.5" + b",1" * (N - 1) + b"]",
        b"\xff\xfe",
        b"[" + b"1" * 100 + b"]",
        b" " * 100_000,
        b"[" + b"true," * (N - 1) + b"true]",
    ):
        files = good | {"package/test_lables.json": labels}
        path = write_archive(tmp_path / "a.tgz", files)
        refused(path, "labels" if labels else "impossible size", "test_lables.json", part="test")
    files = good | {"package/test_lables.json": json.dumps([10] * N).encode()}
    refused(write_archive(tmp_path / "a.tgz", files), "label 10", part="test")
    assert limit == Image.MAX_IMAGE_PIXELS


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3),
    packed=st.booleans(),
)
def test_mutated_archives(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], packed: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "mutated.tar.gz"
    content = write_archive(path, {"cifar-10-batches-bin/test_batch.bin": binary(*some_batch(0, 1))}).read_bytes()
    mutated = bytearray(content if packed else gzip.decompress(content)[:1536])
    for place, byte in changes:
        mutated[place % len(mutated)] = byte
    path.write_bytes(bytes(mutated) if packed else gzip.compress(bytes(mutated), 1))
    with pytest.raises(XlogregError):
        read_cifar10(path, "test")


def test_memory_of_a_whole_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little more than the pixels and one batch."""
    monkeypatch.setattr(cifar10, "BATCH_PICTURES", 500)
    files = form_files("python", [some_batch(seed, 500) for seed in range(6)])
    path = write_archive(tmp_path / "a.tar.gz", files)
    batch = 500 * 3072
    read_cifar10(path, "test")  # What is imported once does not count.
    tracemalloc.start()
    try:
        read_cifar10(path, "train")
        assert tracemalloc.get_traced_memory()[1] < 5 * batch + 4 * batch + 1_000_000
    finally:
        tracemalloc.stop()


# --------------------------------------------------------------------------------------------------------- class names


def test_class_numbers() -> None:
    for number, name in enumerate(CIFAR10_CLASSES):
        assert class_number(name, CIFAR10_CLASSES) == class_number(str(number), CIFAR10_CLASSES) == number
    assert class_number("airplane", CIFAR10_CLASSES) == 0
    assert class_number("Automobile", CIFAR10_CLASSES) == 1
    with pytest.raises(InputError, match=r"plane, car, bird.*Did you mean 'bird'"):
        class_number("brid", CIFAR10_CLASSES)
    with pytest.raises(InputError, match="no class '10'"):
        class_number("10", CIFAR10_CLASSES)


# ----------------------------------------------------------------------------------------------------------- real data


def test_original_batches(real_data: Path) -> None:
    """The facts of the tutorial about data_batch_1."""
    folder = real_data / "cifar-10-batches-py"
    pictures = read_batch(folder / "data_batch_1")
    assert pictures.x.shape == (10000, 32, 32, 3)
    assert pictures.labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert (pictures.labels == 2).sum() == 1032
    assert pictures.x[0, 0, 0].tolist() == [59, 62, 63]
    test = read_cifar10(folder, "test")
    assert test.labels[:5].tolist() == [3, 8, 8, 0, 6]
    assert np.bincount(test.labels).tolist() == [1000] * 10
    refused(folder / "batches.meta", "'data'")
    refused(folder, "lacks data_batch_2", part="train")


def test_all_forms_of_original_pictures(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Original pictures in all three archives come out the same."""
    monkeypatch.setattr(cifar10, "BATCH_PICTURES", 100)
    pictures = read_batch(real_data / "cifar-10-batches-py" / "data_batch_1")
    x = pictures.x[:600]
    planes = x.transpose(0, 3, 1, 2).reshape(6, 100, 3072)
    batches = [(data, pictures.labels[i * 100 : i * 100 + 100].tolist()) for i, data in enumerate(planes)]
    for form, name in zip(("python", "binary", "npm"), ARCHIVES, strict=True):
        read = read_cifar10(write_archive(tmp_path / name, form_files(form, batches)), "all")
        assert (read.x == x).all()
        assert (read.labels == pictures.labels[:600]).all()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("name", ["pipe", "pipe.tar.gz", "folder/data_batch_1", "folder/cifar-10-python.tar.gz"])
def test_no_pipe_is_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / name)
    path = tmp_path / name.split("/")[0]
    for read in (load_source, read_cifar10, read_cifar10_sets, read_batch):
        with pytest.raises((FileError, InputError)) as caught:
            read(str(path))
        assert "\n" not in str(caught.value)
    if name != "folder/data_batch_1":  # the others of which are missing
        with pytest.raises((FileError, InputError), match=r"no regular file|not a regular file|no pictures"):
            load_source(str(path))


def test_a_sheet_of_many_chunks_is_refused() -> None:
    content = sheet(np.zeros((10_000, 3072), dtype=np.uint8))
    assert len(cifar10._decode_sheet(content, "a")[0]) == 10_000
    chunks = b"\0\0\0\0tEXt\0\0\0\0" * 250_000
    with pytest.raises(InputError, match="damaged PNG"):
        cifar10._decode_sheet(content[:33] + chunks + content[33:], "a")


def test_errors_quote_little(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        cifar10._decode_labels(b"[" + b"9" * 4000 + b"]", 1_000, "labels")
    assert len(str(caught.value)) < 200
    with pytest.raises(InputError) as caught:
        cifar10._checked_labels([10**4000], "labels")
    assert len(str(caught.value)) < 200
    with pytest.raises(FileError) as file_error:
        load_source("x" * 5000)
    assert len(str(file_error.value)) < 300
