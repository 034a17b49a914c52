"""Folders of own pictures: what counts as a picture, order, split, cache, and everything that can be wrong."""

import contextlib
import csv
import html
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Result, bomb
from PIL import Image
from skimage.data import lfw_subset

from xlogreg import make_task, make_tasks, read_folder
from xlogreg.data import cache as cache_module
from xlogreg.data import folders
from xlogreg.data.cache import Cache
from xlogreg.data.folders import FolderOptions, Reading
from xlogreg.data.pictures import Pictures, class_number, default_class
from xlogreg.data.sources import load_source, run_name
from xlogreg.errors import FileError, InputError
from xlogreg.images.decoding import read_picture
from xlogreg.images.resizing import resize, to_pixels
from xlogreg.predicting.paths import picture_paths
from xlogreg.system.text import plain, shown


def save(path: Path, seed: int = 0, size: tuple[int, int] = (20, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of six pictures, in all formats, nested."""
    folder = tmp_path / "photos"
    for i, ending in enumerate(("png", "jpg", "webp", "bmp", "gif", "tiff")):
        save(folder / "cat" / f"{i}.{ending}", i)
        save(folder / "dog" / "deep" / "deeper" / f"{i}.{ending.upper()}", 10 + i)
    return folder


def read(folder: Path, **options: Any) -> tuple[Pictures, Reading]:
    told: list[Reading] = []
    pictures = read_folder(folder, FolderOptions(told=told.append, **options))
    return pictures, told[0]


# ------------------------------------------------------------------------------------------------------------- reading


def test_classes_order_and_pixels(photos: Path) -> None:
    pictures, reading = read(photos, size=(8, 9))
    assert pictures.class_names == ("cat", "dog")
    assert pictures.labels.tolist() == [0] * 6 + [1] * 6
    assert pictures.files[0] == "cat/0.png"
    assert pictures.files[-1] == "dog/deep/deeper/5.TIFF"
    assert list(pictures.files) == sorted(pictures.files)
    for row, name in enumerate(pictures.files):
        assert np.array_equal(pictures.x[row], to_pixels(photos / name, (8, 9))), name
    assert (reading.pictures, reading.ignored, reading.cached, reading.twice) == (12, 0, 0, 0)


def test_the_order_is_not_the_file_systems(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = read(photos)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(sorted(listing(self))))
    backwards, _ = read(photos)
    assert backwards.files == expected.files
    assert np.array_equal(backwards.x, expected.x)
    assert np.array_equal(backwards.labels, expected.labels)


def test_names_are_ordered_composed(tmp_path: Path) -> None:
    # One file system gives é as one code point, another as e and an accent: between "e" and "f", or behind "z".
    for place, accented in (("a", "\u00e9.png"), ("b", "e\u0301.png")):
        for i, name in enumerate(("e.png", "z.png", accented)):
            save(tmp_path / place / "one" / name, i)
            save(tmp_path / place / "two" / name, i + 5)
    one, _ = read(tmp_path / "a")
    other, _ = read(tmp_path / "b")
    assert np.array_equal(one.x, other.x)


def test_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.open(save(tmp_path / "in" / "a.png", size=(20, 40)))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("one", "two"):
        (tmp_path / "f" / name).mkdir(parents=True)
        picture.save(tmp_path / "f" / name / "a.png", exif=exif)
    pictures, _ = read(tmp_path / "f", size=(40, 20))
    assert np.array_equal(pictures.x[0], np.rot90(np.asarray(picture), -1))


def test_what_is_no_picture_is_passed_over(photos: Path) -> None:
    expected, _ = read(photos)
    (photos / "cat" / "notes.txt").write_text("about cats")
    (photos / "cat" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (photos / "cat" / ".hidden.png").write_bytes(b"junk")
    (photos / "readme").write_text("")
    save(photos / ".git" / "a.png")
    save(photos / "__MACOSX" / "a.png")
    save(photos / "dog" / "@eaDir" / "a.png")
    (photos / "empty").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(photos / "cat" / "pipe.png")
    pictures, reading = read(photos)
    assert pictures.files == expected.files
    assert reading.ignored == 3 + hasattr(os, "mkfifo")
    assert reading.empty == ("empty",)
    # A picture by its content, whatever its name.
    (photos / "cat" / "0.png").rename(photos / "cat" / "0")
    assert len(read(photos)[0]) == 12


def test_links_are_followed_and_loops_are_no_trap(photos: Path, tmp_path: Path) -> None:
    elsewhere = save(tmp_path / "elsewhere" / "a.png", 50).parent
    try:
        (photos / "cat" / "up").symlink_to(photos, target_is_directory=True)
        (photos / "cat" / "self").symlink_to(photos / "cat", target_is_directory=True)
        (photos / "dog" / "more").symlink_to(elsewhere, target_is_directory=True)
        (photos / "dog" / "linked.png").symlink_to(photos / "cat" / "0.png")
        (photos / "dog" / "gone.png").symlink_to(photos / "nowhere")
    except OSError:
        pytest.skip("this system makes no links")
    pictures, reading = read(photos)
    assert "dog/more/a.png" in pictures.files
    assert "dog/linked.png" in pictures.files
    assert [item.path.name for item in reading.unreadable] == ["gone.png"]
    assert len(set(pictures.files)) == len(pictures.files) == 6 + 8
    assert reading.twice == 1


@pytest.fixture
def deep(photos: Path) -> Iterator[Path]:
    """A picture in 1,100 folders, one in the other, below a class."""
    steps = [str(photos / "dog")]
    for _ in range(1_100):
        steps.append(f"{steps[-1]}/d")
        os.mkdir(steps[-1])
    yield save(Path(steps[-1]) / "a.png", 77)
    # What takes folders away goes down into them, and may not so deep.
    os.unlink(f"{steps[-1]}/a.png")
    for step in reversed(steps[1:]):
        os.rmdir(step)


@pytest.mark.skipif(sys.platform != "linux", reason="paths of thousands of characters")
def test_folders_may_be_deep(photos: Path, deep: Path) -> None:
    pictures, reading = read(photos)
    assert reading.pictures == 13
    assert str(deep.relative_to(photos)) in pictures.files
    assert sum(map(str(deep).__eq__, map(str, picture_paths([photos])))) == 1


def test_a_link_to_itself_is_one_picture_that_cannot_be_read(photos: Path) -> None:
    good = sorted(map(str, picture_paths([photos])))
    try:
        (photos / "cat" / "loop.jpg").symlink_to(photos / "cat" / "loop.jpg")
        (photos / "cat" / "loop").symlink_to(photos / "cat" / "loop")
    except OSError:
        pytest.skip("this system makes no links")
    assert sorted(map(str, picture_paths([photos]))) == sorted([*good, str(photos / "cat" / "loop.jpg")])
    pictures, reading = read(photos)
    assert len(pictures) == 12
    assert [item.path.name for item in reading.unreadable] == ["loop.jpg"]
    assert "cannot be read" in reading.unreadable[0].message


def test_a_large_photograph_is_reduced_in_whole_numbers() -> None:
    x = np.random.RandomState(0).randint(0, 256, (640, 512, 3)).astype(np.uint8)
    # 16 and 20 times: blocks of 2 x 2 first.
    blocks = x.reshape(320, 2, 256, 2, 3).astype(int).sum((1, 3))
    assert np.array_equal(resize(x, (32, 32)), resize(((blocks + 2) // 4).astype(np.uint8), (32, 32)))
    grey = x[:, :, :1]
    assert np.array_equal(resize(grey, (32, 32))[:, :, 0], resize(np.repeat(grey, 3, axis=2), (32, 32))[:, :, 0])


# --------------------------------------------------------------------------------------------------------- bad folders


def test_empty_flat_and_one_class(tmp_path: Path, run: Callable[..., Result]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat").mkdir()
    assert_bad(run, "holds no pictures; give a folder with one sub-folder")
    save(folder / "a.png")
    assert_bad(run, "holds 1 pictures but no sub-folders with any")
    save(folder / "cat" / "a.png")
    (folder / "dog").mkdir()
    assert_bad(run, "holds pictures of one class only, cat (dog without any), and training needs two")
    (folder / "dog" / "a.png").write_bytes(b"junk")
    assert_bad(run, "Only the pictures of cat in photos can be read, and training needs two classes; the first")
    save(folder / "dog" / "a.png", 1)
    assert_bad(run, "leaves nothing to train")
    with pytest.raises(FileError, match="cannot be read"):
        read_folder(tmp_path / "nowhere")


def assert_bad(run: Callable[..., Result], words: str, *arguments: object) -> None:
    code, out, err = run("train", "photos", "--iterations", 2, *arguments)
    error = err.splitlines()[-1]
    assert (code, out) == (2, "")
    assert error.startswith("Error: ")
    assert words in error
    assert "Traceback" not in err


def test_parts_of_a_data_set_are_no_classes(tmp_path: Path) -> None:
    for name in ("train/cat/a", "train/dog/a", "Test/cat/a", "Test/dog/a"):
        save(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=r"\(Test, train\) are parts of a data set, not classes; give a folder"):
        read_folder(tmp_path)
    assert read_folder(tmp_path / "train").class_names == ("cat", "dog")
    save(tmp_path / "train" / "a.png")
    assert read_folder(tmp_path).class_names == ("Test", "train")


def test_one_unreadable_among_hundreds(tmp_path: Path, run: Callable[..., Result]) -> None:
    for i in range(200):
        save(tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i:03d}.png", i, (8, 8))
    before, _ = read(tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "010.png").write_bytes(bomb(50_000, 50_000))
    pictures, reading = read(tmp_path / "photos")
    assert np.array_equal(pictures.x, before.x[np.array(before.files) != "cat/010.png"])
    (bad,) = reading.unreadable
    assert bad.path.name == "010.png"
    assert "pixels" in bad.message
    code, out, err = run("train", "photos", "--iterations", 2)
    assert code == 0, err
    assert "199 pictures of 2 classes, 1 unreadable left out" in out
    assert "Note: 1 of 200 pictures cannot be read and were left out." in err
    assert "010.png" in err


def test_the_limit_of_unreadable_pictures(photos: Path, run: Callable[..., Result]) -> None:
    for i in range(11):
        (photos / "cat" / f"bad{i:02d}.jpg").write_bytes(b"\xff\xd8\xff junk")
    # 11 of 23: more than 10, and more than 10 %.
    assert_bad(run, "11 of its 23 pictures cannot be read so far; mend or remove them, or allow more with --max-unread")
    assert_bad(run, "6 of its 23 pictures", "--max-unreadable", 5)
    assert_bad(run, "3 of its 23 pictures", "--max-unreadable", 0.1)
    assert_bad(run, "0 or more", "--max-unreadable", -1)
    assert len(read(photos, max_unreadable=11)[0]) == 12
    assert len(read(photos, max_unreadable=0.5)[1].unreadable) == 11
    (photos / "cat" / "bad00.jpg").unlink()
    assert len(read(photos)[1].unreadable) == 10
    with pytest.raises(InputError, match="1 of its 22 pictures cannot be read"):
        read(photos, max_unreadable=0)


def test_all_unreadable(tmp_path: Path, run: Callable[..., Result]) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert_bad(run, "None of the 2 pictures in photos can be read. The first: photos")
    for i in range(20):
        (tmp_path / "photos" / "cat" / f"{i}.png").touch()
    assert_bad(run, "cannot be read")


def test_classes_that_are_not_there(photos: Path, run: Callable[..., Result]) -> None:
    assert_bad(run, "There is no class 'dgo'; the classes are cat, dog. Did you mean 'dog'?", "--positive", "dgo")
    save(photos / "bird" / "a.png")
    assert_bad(run, "There are 3 classes (bird, cat, dog); name the one to recognise with --positive.")
    assert_bad(run, "--size must be N or HxW", "--size", "0x5")
    assert_bad(run, "--size must be N or HxW", "--size", "5000")
    assert_bad(run, "at least 12 x 12", "--size", "8", "--features", "hog", "--positive", "cat")
    code, _, err = run("train", "--size", "16")
    assert code == 2
    assert "--size is for folders" in err


NAMES = (
    "a b",
    "it's",
    'say "hi"',
    "<b>bold</b>".replace("/", "\u2044"),
    "[red]x[]",
    "line\nend",
    "鳥 🐦",
    "$\\frac{$",
    "-d",
    "\u202erev",
)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.plots
def test_odd_names(tmp_path: Path, run: Callable[..., Result]) -> None:
    names = (*NAMES, os.fsdecode(b"\xff"))
    for number, name in enumerate(names):
        for i in range(3):
            save(tmp_path / "photos" / name / f"{name} {i}.png", 10 * number + i)
    pictures, _ = read(tmp_path / "photos")
    assert sorted(pictures.class_names) == sorted(names)
    for name in ("line\nend", "[red]x[]", names[-1]):
        code, out, err = run(
            "train", "photos", "--positive", name, "--iterations", 2, "--no-cache", "--out", f"r-{name}"
        )
        assert code == 0, err
        assert f"\ntask             {plain(name)} against the rest: " in out
        assert out.count("\n") == 13
        # What was read, and that two evaluations are not enough.
        assert err.count("\n") == 2
        results = json.loads((tmp_path / f"r-{name}" / "results.json").read_text())
        assert results["task"]["positive"] == name
        code, out, err = run("predict", f"r-{name}", tmp_path / "photos" / name / f"{name} 0.png")
        assert (code, out.count("\n")) == (0, 1)
        code, out, err = run("evaluate", f"r-{name}", "photos", "--no-cache")
        assert (code, err.count("\n")) == (0, 1)


def test_text_that_is_shown() -> None:
    assert plain("a\n\x1b[31m\u202e\udcff é 鳥") == "a\\n\\x1b[31m\\u202e\\udcff é 鳥"
    assert [shown(text) for text in ("cat", "a b", "", "a\nb")] == ["cat", "'a b'", "''", "'a\\nb'"]


# --------------------------------------------------------------------------------------------------------------- tasks


def labelled(*counts: int) -> Pictures:
    labels = np.repeat(np.arange(len(counts)), counts)
    x = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), dtype=np.uint8)
    files = tuple(f"{label}/{row}" for row, label in enumerate(labels))
    return Pictures(x, labels, tuple("abcdef"[: len(counts)]), np.arange(len(labels)), "folder", files)


@pytest.mark.parametrize("counts", [(100, 100), (50, 3), (3, 50), (7, 7, 7, 7), (2, 2), (90, 10, 5)], ids=str)
@pytest.mark.parametrize("balance", ["random", "none"])
def test_every_class_is_tested_on(counts: tuple[int, ...], balance: Any) -> None:
    pictures = labelled(*counts)
    task = make_task(pictures, "a", balance=balance, test_size=None if sum(counts) > 60 or balance == "random" else 0.4)
    n = len(task.y_train) + len(task.y_test)
    assert set(task.files_train).isdisjoint(task.files_test)
    assert n == (sum(counts) if balance == "none" else 2 * min(counts[0], sum(counts[1:])))
    # Each class gives its share, to within one picture.
    share = len(task.y_test) / n
    for label in range(len(counts)):
        tested, trained = (
            sum(name.startswith(f"{label}/") for name in names) for names in (task.files_test, task.files_train)
        )
        assert abs(tested - share * (tested + trained)) <= 1
    again = make_task(pictures, "a", balance=balance, test_size=len(task.y_test))
    assert again.files_test == task.files_test
    assert make_task(pictures, "a", balance=balance, test_size=len(task.y_test), seed=1).files_train != task.files_train


def test_files_follow_their_pictures() -> None:
    task = make_task(labelled(20, 30, 10), "b")
    assert task.options["balance"] == "random"
    for x, y, files in ((task.x_train, task.y_train, task.files_train), (task.x_test, task.y_test, task.files_test)):
        assert [int(name.split("/")[1]) for name in files] == x[:, 0, 0, 0].tolist()
        assert [int(name.startswith("1/")) for name in files] == y.tolist()


def test_balancing_says_what_it_leaves_out(tmp_path: Path, run: Callable[..., Result]) -> None:
    assert make_task(labelled(20, 1500), "a").left_out == "20 of 1,500 others are used"
    assert make_task(labelled(20, 1500), "b").left_out == "20 of 1,500 pictures of b are used"
    assert make_task(labelled(20, 20), "b").left_out == make_task(labelled(20, 30), "b", balance="none").left_out == ""
    for i in range(20):
        save(tmp_path / "photos" / "cat" / f"{i}.png", i)
        save(tmp_path / "photos" / "dog" / f"{i}.png", 30 + i)
        save(tmp_path / "photos" / "horse" / f"{i}.png", 60 + i)
    arguments = ("train", "photos", "--positive", "dog", "--iterations", 2, "--no-cache")
    code, out, _ = run(*arguments)
    assert code == 0
    assert "to test (20 of 40 others are used; --balance none takes all)\n" in out


def test_several_classes_share_a_split() -> None:
    tasks = make_tasks(labelled(20, 30, 10), ["a", "b", "c"])
    assert len({task.files_test for task in tasks}) == 1
    assert tasks[0].x_train is tasks[2].x_train


def test_too_few_pictures() -> None:
    with pytest.raises(InputError, match="1 of 41 pictures are of class b, too few on one side"):
        make_task(labelled(40, 1), "b", balance="none")
    with pytest.raises(InputError, match="leaves nothing"):
        make_task(labelled(40, 1), "b")


def test_the_class_to_recognise() -> None:
    for names, expected in (
        (("cat", "dog"), "dog"), (("face", "other"), "face"), (("no_bird", "bird"), "bird"),
        (("bird", "not bird"), "bird"),
        (("no", "yes"), "yes"), (("no", "other"), "other"), (("nothing", "something"), "something"),
    ):  # fmt: skip
        assert default_class(names) == expected
    two = make_task(labelled(10, 10))
    assert two.class_names == ("a", "b")
    assert make_task(labelled(10, 10), "a").class_names == ("b", "a")
    assert make_task(labelled(10, 10, 10), "a").class_names == ("not a", "a")


def test_names_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my photos").mkdir()
    monkeypatch.chdir(tmp_path / "my photos")
    assert [run_name(source) for source in (".", "birds", "../my photos/", "a.tar.gz")] == [
        "my photos", "birds", "my photos", "a",
    ]  # fmt: skip


def test_folders_of_cifar10_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "data_batch_1").write_bytes(b"\x80")
    with pytest.raises(InputError, match="lacks data_batch_2"):
        load_source(str(tmp_path / "cifar"))
    (tmp_path / "cifar" / "data_batch_1").rename(tmp_path / "cifar" / "data")
    with pytest.raises(InputError, match="holds no pictures"):
        load_source(str(tmp_path / "cifar"))
    with pytest.raises(InputError, match="--data goes with `cifar10`"):
        load_source(str(tmp_path / "cifar"), tmp_path)


# --------------------------------------------------------------------------------------------------------------- cache


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    original = folders.decode

    def decode(path: Path, content: bytes) -> np.ndarray:
        names.append(path.name)
        return original(path, content)

    monkeypatch.setattr(folders, "decode", decode)
    return names


def aged(folder: Path) -> None:
    """As if the files had been there for long: only then are their times relied on."""
    for path in folder.rglob("*.*"):
        os.utime(path, (1e9, 1e9))


def test_only_what_changed_is_decoded_again(photos: Path, tmp_path: Path, decoded: list[str]) -> None:
    def again() -> tuple[Pictures, int, list[str]]:
        decoded.clear()
        with Cache(tmp_path / "cache") as cache:
            pictures, reading = read(photos, cache=cache)
        assert not reading.note
        assert np.array_equal(pictures.x, read_folder(photos).x)
        return pictures, reading.cached, sorted(decoded[: len(decoded) - len(pictures)])

    assert again()[1:] == (0, sorted(path.name for path in photos.rglob("*.*")))
    assert again()[1:] == (12, [])
    save(photos / "cat" / "0.png", 99)
    assert again()[1:] == (11, ["0.png"])
    save(photos / "cat" / "new.png", 98)
    (photos / "dog" / "deep" / "deeper" / "0.PNG").unlink()
    assert again()[1:] == (11, ["new.png"])
    # The content counts, not the name.
    (photos / "cat" / "new.png").rename(photos / "dog" / "other.png")
    assert again()[1:] == (12, [])
    with Cache(tmp_path / "cache") as cache:
        assert read(photos, cache=cache, size=(16, 16))[1].cached == 0


def test_unchanged_files_are_not_even_read(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_SETTLED", 0)
    with Cache(tmp_path / "cache") as cache:
        expected, _ = read(photos, cache=cache)
    opened: list[str] = []
    original = folders.read_content
    monkeypatch.setattr(folders, "read_content", lambda path: opened.append(path.name) or original(path))
    with Cache(tmp_path / "cache") as cache:
        assert np.array_equal(read(photos, cache=cache)[0].x, expected.x)
    assert opened == []
    for damage in ("'text'", "x'00'", "NULL || 1"):
        with sqlite3.connect(cache.path) as connection:
            connection.execute(f"UPDATE files SET sha256 = coalesce({damage}, 5)")
        connection.close()
        with Cache(tmp_path / "cache") as cache:
            assert np.array_equal(read(photos, cache=cache)[0].x, expected.x)
        assert len(opened) == 12
        opened.clear()
    # The same size and time of the last change of content, another content.
    path = photos / "cat" / "3.bmp"
    status = path.stat()
    save(path, 77)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    with Cache(tmp_path / "cache") as cache:
        changed, _ = read(photos, cache=cache)
    assert opened == ["3.bmp"]
    assert np.array_equal(changed.x[3], to_pixels(path, (32, 32)))


def test_times_of_fresh_files_are_not_relied_on(photos: Path, tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as cache:
        read(photos, cache=cache)
        path = photos / "cat" / "0.png"
        assert cache.digest_of(path, path.stat()) is None


def test_damaged_entries_are_made_again(photos: Path, tmp_path: Path, decoded: list[str]) -> None:
    with Cache(tmp_path / "cache") as cache:
        expected, _ = read(photos, cache=cache)
    with sqlite3.connect(cache.path) as connection:
        rows = connection.execute("SELECT key, bytes FROM pixels ORDER BY key").fetchall()
        for (key, content), change in zip(
            rows, (lambda c: c[:-1], lambda c: c[:50] + bytes([c[50] ^ 1]) + c[51:], lambda c: b"", str), strict=False
        ):
            connection.execute("UPDATE pixels SET bytes = ? WHERE key = ?", (change(content), key))
        # Sound, but another picture's.
        connection.execute("UPDATE pixels SET bytes = ? WHERE key = ?", (rows[5][1], rows[6][0]))
    connection.close()
    decoded.clear()
    for cached, made in ((7, 5), (12, 0)):
        decoded.clear()
        with Cache(tmp_path / "cache") as cache:
            pictures, reading = read(photos, cache=cache)
        assert (reading.cached, len(decoded)) == (cached, made)
        assert np.array_equal(pictures.x, expected.x)


@pytest.mark.parametrize("damage", ["cut", "text", "page"])
def test_a_damaged_cache_begins_anew(photos: Path, tmp_path: Path, damage: str) -> None:
    with Cache(tmp_path / "cache") as cache:
        expected, _ = read(photos, cache=cache)
    content = cache.path.read_bytes()
    cache.path.write_bytes({
        "cut": content[:20_000],
        "text": content.replace(b"CREATE TABLE files", b"CREATE TABLE \xffiles"),
        "page": content[:4096] + b"\xff" * 8192 + content[12288:],
    }[damage])  # fmt: skip
    readings = []
    for _ in range(3):
        with Cache(tmp_path / "cache") as cache:
            pictures, reading = read(photos, cache=cache)
        assert np.array_equal(pictures.x, expected.x)
        readings.append(reading)
    assert (readings[2].cached, readings[2].note) == (12, "")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["pictures.sqlite"]


def database(path: Path, script: str) -> bytes:
    """A SQLite file that the script made."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    return path.read_bytes()


OURS = ";".join(cache_module._TABLES.values())
# As xlogreg wrote it before it gave its files a number of its own.
OLDER = f"{OURS}; PRAGMA user_version = 1"
FOREIGN = {
    "text": "",
    "short": "",
    "magic": "",
    "another": "CREATE TABLE a (b); INSERT INTO a VALUES (1)",
    "newer": f"{OURS}; PRAGMA user_version = 99",
    "newer of ours": f"{OURS}; PRAGMA user_version = 2; PRAGMA application_id = {cache_module._APPLICATION}",
    "another's number": f"{OLDER}; PRAGMA application_id = 7",
    "more": f"{OLDER}; CREATE TABLE mine (notes TEXT)",
    "other columns": "CREATE TABLE pixels (key BLOB PRIMARY KEY, mine); CREATE TABLE files (a PRIMARY KEY, b);"
    "PRAGMA user_version = 1",
    "views": "CREATE VIEW pixels AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT i AS key, i AS bytes, i AS used FROM n; CREATE TABLE files (path PRIMARY KEY, state, sha256);"
    "CREATE TABLE more (a PRIMARY KEY); PRAGMA user_version = 1",
    "a trigger": f"{OLDER}; CREATE TRIGGER t AFTER INSERT ON pixels BEGIN DELETE FROM files; END",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_xlogreg_did_not_write_stays(photos: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cache" / "pictures.sqlite"
    content = database(path, FOREIGN[kind] or "CREATE TABLE a (b)")
    plain_content = {"text": b"my notes", "short": content[:60], "magic": b"SQLite format 3\0" + b"\xff" * 5000}
    path.write_bytes(content := plain_content.get(kind, content))
    for cached in (0, 12):
        with Cache(path.parent) as cache:
            reading = read(photos, cache=cache)[1]
        assert reading.cached == cached
        assert reading.note.startswith(f"{path} is ")
        assert reading.note.endswith(f" and stays as it is; decoded pictures are kept in {cache.path}.")
        assert cache.path.name == "pictures-2.sqlite"
        assert path.read_bytes() == content


def test_an_older_cache_is_used(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "pictures.sqlite"
    database(path, OLDER)
    for cached in (0, 12):
        with Cache(path.parent) as cache:
            reading = read(photos, cache=cache)[1]
        assert (reading.cached, reading.note) == (cached, "")
        assert path.read_bytes()[68:72] == b"xlgr"


def test_all_names_of_the_cache_are_taken(photos: Path, tmp_path: Path) -> None:
    for name in (cache_module.FILE, *cache_module.OTHER_FILES):
        (tmp_path / name).mkdir()
    with Cache(tmp_path) as cache:
        reading = read(photos, cache=cache)[1]
    assert reading.note == (
        f"{tmp_path / cache_module.FILE} is no file and stays as it is, as do pictures-2.sqlite to pictures-9.sqlite: "
        "decoded pictures are not kept."
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_cache_waits_for_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pictures.sqlite")
    os.mkfifo(tmp_path / "pictures-2.sqlite-journal")
    (tmp_path / "pictures-3.sqlite").symlink_to(tmp_path / "nowhere")
    with Cache(tmp_path) as cache:
        assert cache.path.name == "pictures-4.sqlite"
        assert "pictures.sqlite is no file and stays as it is" in cache.note


def test_a_cache_takes_no_longer_than_it_may(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(tmp_path / "cache") as cache:
        expected, _ = read(photos, cache=cache)
    monkeypatch.setattr(cache_module, "_SECONDS", -1.0)
    monkeypatch.setattr(cache_module, "_STEPS", 1)
    with Cache(tmp_path / "cache") as cache:
        pictures, reading = read(photos, cache=cache)
    assert np.array_equal(pictures.x, expected.x)
    assert "interrupted" in reading.note
    assert cache.path.exists()


def try_cache(folder: Path) -> None:
    """All that a reading does with a cache; it raises nothing, and what it finds is sound."""
    here = folder.parent
    with Cache(folder) as cache:
        assert cache.get(b"key 3", 1000) in (None, b"\3" * 1000)
        assert cache.get(b"key 99", 1000) is None
        assert len(cache.digest_of(here, here.stat()) or bytes(32)) == 32
        cache.put(b"new", b"content")
        cache.remember(here, here.stat(), bytes(32))
    assert "\n" not in cache.note
    assert "Traceback" not in cache.note


def test_fuzzed_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_SETTLED", 0)
    # Nothing here must outlive a crash of the machine.
    schema = cache_module._schema

    def hasty(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
        connection.execute("PRAGMA synchronous = OFF")
        return schema(connection)

    monkeypatch.setattr(cache_module, "_schema", hasty)
    folder = tmp_path / "cache"
    with Cache(folder) as cache:
        for i in range(12):
            cache.put(b"key %d" % i, bytes([i]) * 1000)
        cache.remember(tmp_path, tmp_path.stat(), bytes(32))
    sound = cache.path.read_bytes()
    rng = np.random.RandomState(0)
    for number in range(300):
        content = bytearray(sound)
        for _ in range(rng.randint(1, 20)):
            # Mostly where the structure is: the first page, and the beginnings of the others.
            at = rng.choice([rng.randint(4096), 4096 * rng.randint(len(sound) // 4096) + rng.randint(40)])
            content[at if number % 3 else rng.randint(len(sound))] = rng.randint(256)
        if number % 5 == 0:
            del content[rng.randint(1, len(content)) :]
        if number % 7 == 0:
            page = 4096 * rng.randint(len(sound) // 4096)
            content[page : page + 4096] = sound[: 4096 * (number % 2)]
        for path in folder.iterdir():
            path.unlink()
        cache.path.write_bytes(content)
        if number % 11 == 0:
            (folder / "pictures.sqlite-journal").write_bytes(sound[: rng.randint(9000)])
        try_cache(folder)


CRAFTED = [
    *FOREIGN.values(), "", OURS, OLDER,
    *(f"{OLDER}; PRAGMA application_id = {cache_module._APPLICATION}; {more}" for more in (
        "DROP TABLE pixels", "DROP TABLE files", "CREATE TABLE a (b)", "CREATE INDEX i ON pixels (used)", "VACUUM",
        "CREATE VIEW v AS SELECT * FROM v2; CREATE VIEW v2 AS SELECT * FROM v", "PRAGMA journal_mode = WAL",
        "ALTER TABLE pixels RENAME TO files2", "ALTER TABLE files ADD COLUMN more", "CREATE TEMP TABLE t (a)",
        "CREATE TRIGGER t BEFORE UPDATE ON pixels BEGIN SELECT raise(ABORT, 'no'); END", "ANALYZE",
        "CREATE TRIGGER t AFTER INSERT ON pixels BEGIN INSERT INTO pixels VALUES (new.used, 1, new.used + 1); END",
        "INSERT INTO pixels VALUES ('key 3', 'text', 'text')", "INSERT INTO pixels VALUES (x'6b65792033', 1, 1)",
        "INSERT INTO pixels VALUES (x'6b65792033', zeroblob(1016), 1)", "INSERT INTO files VALUES (1, 2, 3)",
        "INSERT INTO pixels VALUES (x'6b65792033', zeroblob(20000000), 'x')", "INSERT INTO pixels VALUES (1.5, '', -1)",
        "INSERT INTO pixels VALUES (x'6b65792033', 9e999, 9223372036854775807)",
        "INSERT INTO files VALUES ('', char(0), '')", "PRAGMA page_size = 512; VACUUM",
        "PRAGMA auto_vacuum = 1; VACUUM",
        "PRAGMA encoding = 'UTF-16'", "PRAGMA user_version = -1", "PRAGMA user_version = 0",
        "PRAGMA schema_version = 9",
        *(f"PRAGMA writable_schema = ON; UPDATE sqlite_master SET {change}" for change in (
            "sql = 'CREATE TABLE pixels (key)' WHERE name = 'pixels'", "rootpage = 1", "rootpage = 99", "rootpage = 2",
            "sql = 'garbage'", "type = 'view'", "sql = NULL", "name = x'ff'", "tbl_name = 'pixels'",
            "sql = 'CREATE VIRTUAL TABLE pixels USING fts5(key)' WHERE name = 'pixels'", "rootpage = NULL",
            "sql = sql || char(255, 0, 10)", "name = 'sqlite_master'", "type = 'trigger'",
        )),
    )),
]  # fmt: skip


def test_crafted_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(CRAFTED) >= 50
    monkeypatch.setattr(cache_module, "_SETTLED", 0)
    path = tmp_path / "cache" / "pictures.sqlite"
    for script in CRAFTED:
        for there in path.parent.iterdir() if path.parent.exists() else ():
            there.unlink()
        with contextlib.suppress(sqlite3.Error):
            database(path, f"PRAGMA synchronous = OFF; {script}")
        try_cache(path.parent)


def test_a_cache_that_cannot_be_written_is_no_failure(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_folder(photos).x
    (tmp_path / "file").touch()
    with Cache(tmp_path / "file" / "inside") as cache:
        pictures, reading = read(photos, cache=cache)
    assert np.array_equal(pictures.x, expected)
    assert "Decoded pictures are not kept: " in reading.note

    class Full(sqlite3.Connection):
        def executemany(self, *_: object) -> Any:
            raise sqlite3.OperationalError("database or disk is full")

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Full))
    with Cache(tmp_path / "full") as cache:
        pictures, reading = read(photos, cache=cache)
    assert np.array_equal(pictures.x, expected)
    assert "disk is full" in reading.note
    assert "\n" not in reading.note


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    def kept(cache: Cache) -> list[int]:
        return [i for i in range(40) if cache.get(bytes([i]), 1000) is not None]

    for day in range(4):
        with Cache(tmp_path, max_bytes=25_000) as cache:
            cache._today = day
            for i in range(10):
                cache.put(bytes([10 * day + i]), bytes([i]) * 1000)
            if day == 2:
                assert cache.get(b"\1", 1000)  # used again, so that it stays
    with Cache(tmp_path) as cache:
        left = kept(cache)
        # The last ten are there, and the oldest have gone.
        assert left[-10:] == list(range(30, 40))
        assert len(left) <= 25
        assert 1 in left
        assert 2 not in left
    with Cache(tmp_path, max_bytes=5_000) as cache:
        for i in range(10):
            cache.put(bytes([100 + i]), bytes(1000))
    with Cache(tmp_path) as cache:
        assert not cache.note


# ----------------------------------------------------------------------------------------------------------- must show


def test_faces_in_one_command(tmp_path: Path, run: Callable[..., Result]) -> None:
    for i, picture in enumerate(lfw_subset()):
        path = tmp_path / "faces" / ("face" if i < 100 else "other") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(255 * picture).astype(np.uint8)).save(path)
    reports = []
    for arguments in ((), (), ("--no-cache",)):
        code, out, err = run("train", "faces", "--iterations", 1000, "--json", *arguments)
        assert code == 0, err
        assert f"200 pictures of 2 classes{' (200 decoded before)' if len(reports) == 1 else ''}" in err
        reports.append(json.loads(out))
    assert len({report["history_sha256"] for report in reports}) == 1
    assert len({report["features"]["sha256"] for report in reports}) == 1
    assert reports[0]["test_accuracy"] >= 90
    assert reports[0]["task"]["class_names"] == ["other", "face"]
    assert (reports[0]["data"]["test_pictures"], reports[0]["data"]["test_positives"]) == (40, 20)
    code, out, err = run("train", "faces", "--features", "hog", "--iterations", 300, "--size", "24x40", "--json")
    report = json.loads(out)
    assert report["data"]["size"] == [24, 40, 3]
    assert report["test_accuracy"] >= 90
    # What was trained is what evaluate and predict use.
    code, out, err = run("evaluate", report["folder"], "faces", "--json")
    assert json.loads(out)["test"]["accuracy"] == pytest.approx(report["test_accuracy"])
    code, out, err = run("predict", report["folder"], *sorted((tmp_path / "faces" / "face").iterdir()), "--json")
    right = [json.loads(line)["label"] == "face" for line in out.splitlines()]
    assert sum(right) >= 90


def test_read_picture_is_what_a_folder_holds(photos: Path) -> None:
    pictures, _ = read(photos, size=(20, 24))
    assert np.array_equal(pictures.x[0], read_picture(photos / "cat" / "0.png"))


def test_evaluate_tells_when_a_folder_has_changed(photos: Path, run: Callable[..., Result]) -> None:
    for i in range(20, 60):
        save(photos / ("cat" if i % 2 else "dog") / f"{i}.png", i)
    options = ("--positive", "dog", "--iterations", 5, "--no-cache")
    assert run("train", "photos", *options, "--out", "run")[0] == 0
    code, out, _ = run("evaluate", "run", "--json")
    assert code == 0
    results = json.loads(Path("run/results.json").read_text())
    assert {part: json.loads(out)[part] for part in results["metrics"]} == results["metrics"]
    # Another split is what is asked for, and may be misleading.
    code, _, err = run("evaluate", "run", "--seed", 1)
    assert (code, "not the run's own split" in err) == (0, True)
    (photos / "cat" / "0.png").unlink()
    for arguments in (("run",), ("run", "photos")):
        code, out, err = run("evaluate", *arguments, "--out", "judged")
        assert (code, out) == (2, "")
        assert "are no longer those that the model was trained and tested on" in err
        assert not Path("judged").exists()
    assert run("evaluate", "run", "--seed", 0)[0] == 0


def test_all_of_another_folder_is_tested_on(photos: Path, run: Callable[..., Result]) -> None:
    for i in range(7):
        save(Path("others") / "dog" / f"{i}.png", 50 + i)
        save(Path("others") / "cat" / f"{i}.png", 60 + i)
    save(Path("others") / "horse" / "1.png", 3)
    assert run("train", "photos", "--positive", "dog", "--iterations", 5, "--no-cache", "--out", "run")[0] == 0
    code, out, _ = run("evaluate", "run", "others", "--json", "--out", "judged")
    found = json.loads(out)
    assert (code, found.get("train"), found["test"]["pictures"], found["test"]["positives"]) == (0, None, 15, 7)
    recorded = json.loads(Path("judged/evaluation.json").read_text())
    assert recorded["metrics"] == {"test": found["test"]}
    assert "train_accuracy" not in recorded
    # Predicted one by one they are told alike.
    names = sorted(Path("others").rglob("*.png"))
    code, out, _ = run("predict", "run", *names, "--json")
    right = [(json.loads(line)["label"] == "dog") == (name.parent.name == "dog") for line, name in
             zip(out.splitlines(), names, strict=True)]  # fmt: skip
    assert found["test"]["accuracy"] == pytest.approx(100 * sum(right) / 15)
    page = Path("judged/report.html").read_text()
    assert "trained on folder photos" in page
    assert "test pictures of folder others" in page
    # A page beside the run itself.
    assert run("report", "run", "judged", "--out", "both.html")[0] == 0
    # With a share to test on it is split as ever.
    code, out, _ = run("evaluate", "run", "others", "--test-size", 0.5, "--json")
    assert json.loads(out)["train"]["pictures"] > 0


def test_class_names_in_either_form_of_unicode() -> None:
    composed, split = "caf\u00e9", "cafe\u0301"
    assert class_number(composed, ("tea", split)) == 1
    assert class_number(split, ("tea", composed)) == 1
    assert class_number(composed, (split, composed)) == 1


@pytest.mark.plots
def test_sweep_of_classes_with_long_names(photos: Path, run: Callable[..., Result]) -> None:
    names = ["x" * 240, "x" * 241, "cat"]
    for number, name in enumerate(names[:2]):
        for i in range(4):
            save(photos / name / f"{i}.png", 70 + 4 * number + i)
    classes = [part for name in names for part in ("--positive", name)]
    code, _, err = run("sweep", "photos", *classes, "--learning-rate", 0.01, "--iterations", 2, "--no-cache",
                       "--out", "swept")  # fmt: skip
    assert code == 0, err
    found = [json.loads(path.read_text())["task"]["positive"] for path in Path("swept").glob("*/results.json")]
    assert sorted(found) == sorted(names)


def test_the_unreadable_one_that_is_named_is_of_another_class(photos: Path) -> None:
    (photos / "cat" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    for path in (photos / "dog").rglob("*.*"):
        path.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(InputError, match=r"Only the pictures of cat .*the first of the others: .*dog"):
        read(photos, max_unreadable=11)


def test_a_picture_is_found_by_its_file(photos: Path, run: Callable[..., Result]) -> None:
    odd = 'a "<b>bold</b>", & so.png'
    for i in range(8):
        save(photos / "cat" / f"{i} {odd}", 90 + i)
        save(photos / "dog" / f"{i} {odd}", 190 + i)
    code, _, err = run("train", "photos", "--positive", "dog", "--iterations", 30, "--validation", 0.2, "--no-cache",
                       "--out", "found")  # fmt: skip
    assert code == 0, err
    with open("found/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    held_out = json.loads(Path("found/results.json").read_text())["validation"]["pictures"]
    assert len({row["file"] for row in rows}) == len(rows) == 28 - held_out
    for row in rows:
        assert (photos / row["file"]).is_file()
        assert int(row["label"]) == row["file"].startswith("dog/")
        # One by one they have the same probability.
        if row["part"] == "test":
            _, out, _ = run("predict", "found", photos / row["file"], "--json")
            assert json.loads(out)["probability"] == float(row["probability"])
    page = Path("found/report.html").read_text()
    tiles = json.loads(Path("found/pictures.json").read_text())
    assert all(html.escape(tile["file"]) in page.replace("&#34;", "&quot;") for tile in tiles)
    assert "<b>bold" not in page
    # The page can be made again, and shows the validation.
    assert run("report", "found")[0] == 0
    again = Path("found/report.html").read_text()
    assert again == page
    assert 'data-key="validation.lowest_cost"' in page
    assert "&#39;iteration&#39;" not in page


def test_a_comparison_names_the_features(photos: Path, run: Callable[..., Result]) -> None:
    for i in range(20, 30):
        save(photos / "cat" / f"{i}.png", i)
        save(photos / "dog" / f"{i}.png", 40 + i)
    arguments = ("train", "photos", "--positive", "dog", "--iterations", 3)
    for name, more in (("a", ()), ("b", ("--features", "hog")), ("c", ("--validation", 0.2))):
        assert run(*arguments, *more, "--out", name)[0] == 0
    assert run("report", "a", "b", "--out", "features.html")[0] == 0
    page = Path("features.html").read_text()
    assert "features hog" in page
    assert "an edge in that direction" in page
    # Fewer to train on, the same to test on.
    assert run("report", "a", "c", "--out", "validation.html")[0] == 0
    page = Path("validation.html").read_text()
    assert "Most test pictures right" in page
    assert "light there speaks" in page
