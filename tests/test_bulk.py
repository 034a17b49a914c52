"""Predicting many pictures: what is named, in which order and format, at which memory; the same pixels and bits."""

import csv
import dataclasses
import io
import itertools
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers import Result, classifier, environment
from PIL import Image

from xlogreg.data.birds import load_birds
from xlogreg.errors import InputError
from xlogreg.images import resizing
from xlogreg.images.resizing import resize
from xlogreg.models.classifier import Classifier, Failure, Prediction
from xlogreg.predicting import bulk
from xlogreg.predicting.bulk import predict_many
from xlogreg.predicting.output import lines
from xlogreg.predicting.paths import PAUSE, Pause, picture_paths
from xlogreg.system.text import NAMES

SIZES = ((4, 5), (9, 12), (40, 31), (3, 7), (64, 64))


@pytest.fixture
def run(run: Callable[..., Result]) -> Callable[..., Result]:
    """The command line in a folder with a model in it."""
    classifier().save("model")
    return run


def make(folder: Path, names: list[str]) -> list[Path]:
    """Pictures of changing sizes under these names."""
    rng = np.random.RandomState(3)
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.randint(0, 256, (*SIZES[number % len(SIZES)], 3)).astype(np.uint8)).save(path)
    return [folder / name for name in names]


def flat(batches: Iterator[list[bulk.Result]]) -> list[bulk.Result]:
    return list(itertools.chain.from_iterable(batches))


@pytest.mark.parametrize("threads", [1, 3])
def test_order_and_bits_are_those_of_one_after_the_other(tmp_path: Path, threads: int) -> None:
    paths: list[Path | Failure] = list(make(tmp_path, [f"{number:03}.png" for number in range(90)]))
    (tmp_path / "007.png").write_bytes(b"no picture")
    paths[40] = tmp_path / "missing.png"
    paths.insert(3, Failure(Path("told before"), "Why."))
    model = classifier()
    expected = list(model.predict_files([path for path in paths if isinstance(path, Path)]))
    expected.insert(3, paths[3])  # type: ignore[arg-type]
    assert flat(predict_many(model, iter(paths), threads=threads)) == expected
    assert [type(expected[number]) for number in (3, 8, 41)] == [Failure] * 3
    assert sum(isinstance(result, Prediction) for result in expected) == 88


def test_look_ahead_is_bounded_and_threads_end(tmp_path: Path) -> None:
    (path,) = make(tmp_path, ["a.png"])
    asked = 0

    def endless() -> Iterator[Path]:
        nonlocal asked
        while True:
            asked += 1
            yield path

    results = predict_many(classifier(), endless(), threads=2)
    for done in range(1, 40):
        next(results)
        assert asked <= (done + 5) * bulk.BATCH
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("xlogreg-decode")]


def test_bad_arguments() -> None:
    for path in ("a.png", Path("a.png")):
        with pytest.raises(InputError, match="Give a list of picture files"):
            predict_many(classifier(), path)
    for paths in (3, None):
        with pytest.raises(InputError, match="Give a list of picture files, not"):
            predict_many(classifier(), paths)
    for threads in (0, 65, True, "2", 1.5):
        with pytest.raises(InputError, match="number of threads"):
            predict_many(classifier(), [], threads=threads)
    assert flat(predict_many(classifier(), [])) == []


@pytest.fixture
def pool() -> Iterator[bulk.Pool]:
    """One of which two new processes are ready."""
    pool = bulk.Pool(classifier(), 2, processes=True)
    pool.start("spawn")
    assert all(worker._connection.poll(100) for worker in pool.workers)
    assert pool.due(0.0) is None
    assert len(pool.idle) == 2
    yield pool
    pool.stop()


def alive(pid: int) -> bool:
    """Whether there is such a process, which is no zombie that nobody has waited for."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_processes_give_the_same_bits_and_words(
    pool: bulk.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.png" for number in range(20)] + [os.fsdecode(b"\xff.jpg"), "line\nfeed.bmp"]
    paths: list[Path | Failure] = list(make(tmp_path, names))
    (tmp_path / "7.png").write_bytes(b"no picture")
    paths += [tmp_path / "missing.png", tmp_path]
    paths.insert(3, Failure(Path("told before"), "Why."))
    expected = list(classifier().predict_files([path for path in paths if isinstance(path, Path)]))
    expected.insert(3, paths[3])  # type: ignore[arg-type]
    here = []
    predict_batch = bulk.predict_batch
    monkeypatch.setattr(bulk, "predict_batch", lambda *batch: here.append(1) or predict_batch(*batch))
    assert pool.predict(paths, resize) == expected
    assert pool.predict(paths[4:9], resize) == expected[4:9]
    assert not here
    # Without them, after a crash say, the work is done here.
    for worker in pool.workers:
        os.kill(worker.pid, signal.SIGKILL)
    assert pool.predict(paths, resize) == pool.predict(paths, resize) == expected
    assert len(here) == 2
    assert pool.idle == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux shows processes as files")
def test_processes_end_with_the_work(pool: bulk.Pool, tmp_path: Path) -> None:
    pids = [worker.pid for worker in pool.workers]
    assert all(map(alive, pids))
    pool.stop()
    assert not any(map(alive, pids))
    assert pool.predict(make(tmp_path, ["a.png"]), resize) == []  # and so do the threads
    # Killed as it is, a program cannot end them: they see it themselves. Ctrl-C is not their business, from the start.
    code = """
import os, signal
from helpers import classifier
from xlogreg.predicting import bulk
os.setpgid(0, 0)
pool = bulk.Pool(classifier(), 2, processes=True)
pool.start("spawn")
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.killpg(0, signal.SIGINT)
assert all(worker._connection.poll(100) and worker._connection.recv() == "ready" for worker in pool.workers)
print(*[worker.pid for worker in pool.workers], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = in_new_python(code)
    pids = list(map(int, done.stdout.split()))
    assert (len(pids), done.stderr) == (2, "")
    assert end_soon(pids)


def test_many_pictures_go_to_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make(tmp_path, [f"{number:02}.png" for number in range(40)])
    asked = []

    class Watched(bulk.Worker):
        def __init__(self, method: str, model: Classifier) -> None:
            assert method == "spawn"
            super().__init__(method, model)

        def is_ready(self, seconds: float = 0.0) -> bool:
            return super().is_ready(100)

        def predict(self, batch: Sequence[Path | Failure]) -> list[bulk.Result]:
            asked.append(len(batch))
            return super().predict(batch)

    monkeypatch.setattr(bulk, "can_fork", lambda: False)
    monkeypatch.setattr(bulk, "LONG", 0.0)
    monkeypatch.setattr(bulk, "BUSY", 9.0)
    monkeypatch.setattr(bulk, "Worker", Watched)

    expected = list(classifier().predict_files(paths)) * 2
    assert flat(predict_many(classifier(), paths * 2, threads=2, processes=True)) == expected
    assert sum(asked) > 0
    asked.clear()
    assert flat(predict_many(classifier(), paths * 2, threads=2)) == expected
    assert flat(predict_many(classifier(), paths * 2, threads=1, processes=True)) == expected
    assert not asked

    # Where no process can be started, threads do it all.
    def none(*_: object) -> bulk.Worker:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(bulk, "Worker", none)
    assert flat(predict_many(classifier(), paths * 2, threads=2, processes=True)) == expected
    # As in a worker of multiprocessing's own Pool, which may have no children.
    monkeypatch.undo()
    monkeypatch.setitem(vars(multiprocessing.current_process())["_config"], "daemon", True)
    for method in ("fork", "spawn"):
        pool = bulk.Pool(classifier(), 2, processes=True)
        monkeypatch.setattr(bulk, "can_fork", lambda: True)
        pool.start(method)
        assert not pool.workers
        assert pool.due(10.0) is None
        assert pool.predict(paths, resize) == expected[: len(paths)]
        pool.stop()


_COPIES = """
import json, os, signal, sys, threading, time
from pathlib import Path
from helpers import classifier
from xlogreg.models.classifier import Failure
from xlogreg.predicting import bulk
from xlogreg.predicting.output import lines

pools, here, kind = [], [], sys.argv[1]
bulk.SOON, bulk.LONG, class_, predict_batch = 0.0, 1000.0, bulk.Pool, bulk.predict_batch
bulk.Pool = lambda *all: pools.append(class_(*all)) or pools[-1]
bulk.predict_batch = lambda *all: here.append(1) or predict_batch(*all)
if kind == "none":
    def fork():
        raise BlockingIOError("no more processes")
    os.fork = fork
if kind == "kill":
    start = class_.start

    def start_and_kill(pool, method):
        start(pool, method)
        for worker in pool.workers:
            os.kill(worker.pid, signal.SIGKILL)

    class_.start = start_and_kill
if kind == "threads":
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
paths = [Path(line) for line in sys.stdin.read().splitlines()]
paths.insert(3, Failure(Path("told before"), "Why."))
results = []
for batch in bulk.predict_many(classifier(), iter(paths), threads=2, processes=True):
    results += batch
    pids = [worker.pid for worker in pools[0].workers]
    if kind == "killed" and pids:
        print(json.dumps(["", len(here), pids]), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
print(json.dumps([lines(results, "csv", "bird"), len(here), pids]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are there copies")
@pytest.mark.parametrize("kind", ["fine", "kill", "none", "threads", "killed"])
def test_copies_of_the_process_give_the_same_bits_and_end(tmp_path: Path, kind: str) -> None:
    paths: list[Path | Failure] = list(make(tmp_path, [f"{number}.png" for number in range(150)]))
    (tmp_path / "7.png").write_bytes(b"no picture")
    paths.append(tmp_path / "missing.png")
    done = in_new_python(_COPIES, kind, stdin="\n".join(map(str, paths)))
    text, here, pids = json.loads(done.stdout)
    assert len(pids) == (0 if kind in ("none", "threads") else 2)
    # In processes, unless there are none, but for the batches before: of 1, 2, 4, 8 and 16 pictures.
    assert (here == 5) == (kind in ("fine", "killed"))
    assert end_soon(pids)
    if kind != "killed":
        expected = list(classifier().predict_files([path for path in paths if isinstance(path, Path)]))
        assert text == lines([*expected[:3], Failure(Path("told before"), "Why."), *expected[3:]], "csv", "bird")
        assert (done.returncode, done.stderr) == (0, "")


# What happens around copies, in a command that makes them at once: `kind` in front of the arguments says what.
_COMMAND = """
import os, signal, sys, threading, time
from xlogreg.predicting import bulk, processes
from xlogreg.commands import cli
kind = sys.argv.pop(1)
bulk.SOON, fork = 0.0, os.fork

def copy():
    if kind.startswith("before"):
        os.kill(os.getpid(), getattr(signal, kind.split()[1]))
    pid = fork()
    if pid:
        os.write(2, f"copy {pid}\\n".encode())
    if kind.startswith("in the copy") and pid == 0:
        os.kill(os.getpid(), getattr(signal, kind.split()[3]))
    if kind.startswith("after") and pid:
        os.kill(os.getpid(), getattr(signal, kind.split()[1]))
    if kind == "raise" and pid == 0:
        processes.predict_batch = None
    return pid

os.fork = copy
if kind == "library":
    processes.alone.__globals__["os"].listdir = lambda path: ["1", "2"]
sys.argv[0] = "xlogreg"
cli.main()
"""


def command_with_copies(folder: Path, kind: str, *arguments: str, end: str = "") -> tuple[int, str, str, list[int]]:
    """Exit code, standard output and error, and the copies, of `predict`; `end` is for a shell, after it."""
    start = [sys.executable, "-c", _COMMAND, kind, "predict", "model", "p", *arguments]
    done = subprocess.run(
        ["bash", "-c", shlex.join(start) + end], cwd=folder, env=environment(), capture_output=True, text=True,
        check=False, timeout=100,
    )  # fmt: skip
    lines = done.stderr.splitlines(keepends=True)
    pids = [int(line.split()[1]) for line in lines if line.startswith("copy")]
    return done.returncode, done.stdout, "".join(line for line in lines if not line.startswith("copy")), pids


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are there copies")
def test_signals_and_errors_around_copies(tmp_path: Path) -> None:
    make(tmp_path, [f"p/{number:03}.png" for number in range(300)])
    classifier().save(tmp_path / "model")
    # Without a standard input, as a service may be started.
    code, text, err, pids = command_with_copies(tmp_path, "fine", "--csv", "--threads", "2", end=" <&-")
    assert (code, text.count("\n"), err, len(set(pids))) == (0, 301, "", 2)
    assert end_soon(pids)
    for kind in ("before SIGINT", "after SIGTERM", "after SIGHUP"):
        code, _, err, pids = command_with_copies(tmp_path, kind, "--out", "table.csv", "--threads", "2")
        assert (code, err.count("\n")) == (130, 1), err
        assert err.startswith("Note: Stopped after ")
        assert pids
        assert end_soon(pids)
        assert not list(tmp_path.glob("*table.csv*"))
    # What befalls a copy is none of the others' business, nor is what a library does a reason to stop.
    for kind in ("in the copy SIGTERM", "raise", "library"):
        code, _, err, pids = command_with_copies(tmp_path, kind, "--out", "table.csv", "--threads", "2", "--force")
        assert (code, err) == (0, "300 pictures: table.csv\n"), kind
        assert (tmp_path / "table.csv").read_bytes().decode() == text
        assert end_soon(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are there copies")
def test_a_closed_pipe_with_copies(tmp_path: Path) -> None:
    make(tmp_path, [f"p/{number:03}.png" for number in range(300)])
    classifier().save(tmp_path / "model")
    got, text, err, pids = command_with_copies(tmp_path, "fine", "--csv", "--threads", "2", end=" | head -n 40")
    assert (got, text.count("\n"), err.count("\n"), len(set(pids))) == (0, 40, 0, 2)
    assert end_soon(pids)


_MEMORY = """
import itertools, resource, sys
from helpers import classifier
from xlogreg.predicting import bulk
bulk.SOON = 0.0
peaks = []
for count in (400, 4000):
    for batch in bulk.predict_many(classifier(), itertools.repeat(sys.argv[1], count), threads=2, processes=True):
        pass
    peaks.append(sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
print(*peaks)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others count in other units")
def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    (path,) = make(tmp_path, ["a.png"])
    done = in_new_python(_MEMORY, str(path))
    few, many = map(int, done.stdout.split())
    assert 0 < many < few + 8192  # kB


def in_new_python(code: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=Path(__file__).parent, env=environment(), input=stdin,
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def end_soon(pids: Sequence[int]) -> bool:
    """Whether the processes end of themselves."""
    deadline = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def shapes() -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Pictures that become smaller: noise, real ones, hard edges and plain ones, of many sizes."""
    rng = np.random.RandomState(5)
    birds = load_birds().x
    for number in range(60):
        height, width = rng.randint(1, 160, 2)
        size = (int(rng.randint(1, height + 1)), int(rng.randint(1, width + 1)))
        noise = rng.randint(0, 256, (height, width, (1, 3)[number % 2])).astype(np.uint8)
        yield noise, size
        yield (noise > 127).astype(np.uint8) * 255, size
        yield np.full_like(noise, number * 4), size
        yield np.asarray(Image.fromarray(birds[number]).resize((width, height))), size
    yield np.asarray(Image.fromarray(birds[0]).resize((900, 700))), (32, 32)
    yield np.asarray(Image.fromarray(birds[1]).resize((64, 64))), (32, 32)
    yield birds[2], (32, 32)
    yield birds[3], (40, 20)


def test_fast_resize_gives_the_pixels_of_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(resizing, "resize", lambda x, size: asked.append(x) or resize(x, size))
    count = 0
    for count, (x, size) in enumerate(shapes(), 1):  # noqa: B007
        assert np.array_equal(resizing.resize_fast(x, size), resize(x, size)), (x.shape, size)
    # Ties, and what becomes larger, are left to scikit-image; nearly all is not.
    assert 0 < len(asked) < count / 4


def test_a_tie_is_left_to_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    # Halves of 0 and 255: the middle of three columns is the mean, 127.5, whatever the smoothing.
    x = np.zeros((9, 9, 3), dtype=np.uint8)
    x[:, 4:5], x[:, 5:] = 127, 254
    x = np.concatenate([x[:, :4], x[:, 5:]], axis=1) | np.uint8(1) * (x[:, :8] > 0)
    asked = []
    monkeypatch.setattr(resizing, "resize", lambda x, size: asked.append(1) or resize(x, size))
    assert np.array_equal(resizing.resize_fast(x, (9, 1)), resize(x, (9, 1)))
    assert asked


def test_without_numba_the_pixels_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizing, "_kernel", lambda: None)
    x = load_birds().x[5]
    assert np.array_equal(resizing.resize_fast(x, (8, 9)), resize(x, (8, 9)))


def test_paths_of_folders_patterns_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "b/2.png",
        "b/10.JPG",
        "b/a/x.webp",
        "b/notes.txt",
        "b/.hidden.png",
        "b/.git/y.png",
        "[1].png",
        "c.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "none").mkdir()
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "z.png").symlink_to(tmp_path / "c.png")

    def named(*arguments: str, stdin: bytes = b"", null: bool = False) -> list[str]:
        return [
            found.as_posix() if isinstance(found, Path) else found.message
            for found in picture_paths(arguments, stdin=io.BytesIO(stdin), null=null)
        ]

    below = ["b/10.JPG", "b/2.png", "b/a/x.webp", "b/z.png"]
    assert named("b") == below
    assert named("c.png", "b", "nowhere.png", "b/notes.txt") == ["c.png", *below, "nowhere.png", "b/notes.txt"]
    assert named("[1].png", "*.png") == ["[1].png", "[1].png", "c.png"]
    assert named("b/**/*.webp", "b/*.png") == ["b/a/x.webp", "b/2.png", "b/z.png"]
    assert named("?") == below  # a pattern may match folders
    assert named("*.gif") == ["No file matches *.gif; check the pattern."]
    # ** at the end is all that is below, and a folder may be the last part.
    for pattern in ("b/**", "b/**/", "b/**/**", "?/**"):
        assert named(pattern) == below
    assert named("**") == ["[1].png", *below, "c.png"]
    assert named("**/a", "b/**/a/**") == ["b/a/x.webp"] * 2
    # Each picture once, also where a pattern matches it and its folder.
    assert named("b/**/[ax]*") == ["b/a/x.webp"]
    assert named("b/**/*") == ["b/10.JPG", "b/2.png", "b/a/x.webp", "b/notes.txt", "b/z.png"]
    for pattern in ("b/**.png", "b/***", "a**/b"):
        (sentence,) = named(pattern)
        assert sentence.startswith(f"In the pattern {pattern} ** must stand alone")
    for pattern in ("nowhere/**", "**/nowhere", "none/**/*", "b/**/x.webp/**"):
        assert named(pattern) == [f"No file matches {pattern}; check the pattern."]
    (sentence,) = named("none/**")
    assert sentence.startswith("There are no pictures in the folder none; ")
    (sentence,) = named("none")
    assert sentence.startswith("There are no pictures in the folder none; ")
    assert named("-", "-", stdin=b"c.png\r\n\n*.png\nb/a\n last") == ["c.png", "*.png", "b/a/x.webp", " last"]
    assert named("-", stdin=b"a\nb.png\0c.png\0", null=True) == ["a\nb.png", "c.png"]
    assert named("-", stdin=b"") == []
    assert [os.fsencode(path) for path in picture_paths(["-"], stdin=io.BytesIO(b"\xff.png\n"))] == [b"\xff.png"]


def test_formats_have_the_same_content(run: Callable[..., Result], tmp_path: Path) -> None:
    make(tmp_path, ["p/1.png", 'p/2, "two".jpg', "p/3.bmp"])
    (tmp_path / "p" / "bad.png").write_bytes(b"bad")
    expected = {Path(r.path).name: r for r in Classifier.load("model").predict_files(sorted(Path("p").iterdir()))}
    records = [json.loads(line) for line in run("predict", "model", "p", "--json").out.splitlines()]
    result = run("predict", "model", "p", "--csv")
    assert result.code == 1
    assert result.err == ""
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert [row["path"] for row in rows] == [record["path"] for record in records] == list(map(str, map(Path, (
        "p/1.png", "p/2, \"two\".jpg", "p/3.bmp", "p/bad.png"))))  # fmt: skip
    for row, record in zip(rows, records, strict=True):
        result_there = expected[Path(row["path"]).name]
        if isinstance(result_there, Failure):
            assert row["error"] == record["error"] == result_there.message
            assert row["probability"] == ""
        else:
            # Every bit comes back from either.
            assert float(row["probability"]) == record["probability"] == result_there.probability
            assert (row["label"], int(row["number"])) == (record["label"], record["number"])
            assert row["error"] == ""
    text = run("predict", "model", "p")
    assert text.code == 1
    assert text.out.count("\n") == 3
    assert text.err.startswith(f"Error: {Path('p/bad.png')} is no picture")
    same = run("predict", "model", "-", "--format", "csv", stdin=b"p\n")
    assert same.out == result.out
    assert run("predict", "model", "-", "-0", "--csv", stdin=b'p/1.png\0p/2, "two".jpg\0p/3.bmp\0').code == 0


def test_out_is_whole_or_not_there(run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, ["1.png", "2.png"])
    printed = run("predict", "model", "1.png", "2.png", "--csv").out
    result = run("predict", "model", "1.png", "2.png", "--out", "table.csv")
    assert (result.code, result.out) == (0, "")
    assert result.err == "2 pictures: table.csv\n"
    assert Path("table.csv").read_bytes().decode() == printed
    assert run("predict", "model", "1.png", "gone.png", "--out", "t.jsonl").code == 1
    assert json.loads(Path("t.jsonl").read_text().splitlines()[1])["path"] == "gone.png"
    # Nothing is replaced unasked; with no picture to predict at all the exit code is another.
    result = run("predict", "model", "1.png", "--out", "table.csv")
    assert result.code == 2
    assert "table.csv is there already; choose another name, or replace it with --force." in result.err
    assert run("predict", "model", "gone.png", "--out", "t.jsonl", "--force").code == 2
    before = sorted(tmp_path.iterdir())

    def stopped(*_: object, **__: object) -> Iterator[list[bulk.Result]]:
        yield [Failure(Path("1.png"), "Told.")]
        raise KeyboardInterrupt

    monkeypatch.setattr(bulk, "predict_many", stopped)
    result = run("predict", "model", "1.png", "--out", "table.csv", "--force")
    assert result.code == 130
    assert result.err == "Error: Told.\nNote: Stopped after 1 pictures; table.csv was not written.\n"
    assert Path("table.csv").read_bytes().decode() == printed
    assert sorted(tmp_path.iterdir()) == before


def test_bad_options_get_one_sentence(run: Callable[..., Result], tmp_path: Path) -> None:
    make(tmp_path, ["1.png"])
    for options, words in (
        (("--csv", "--json"), "one format, not csv and json"), (("--csv", "--format", "text"), "one format"),
        (("--threads", "0"), "number of threads"), (("--out", "no/where.csv"), "Cannot write"),
        (("--out", "t.json"), "which format"), (("--out", "t.png"), "end it with .csv, .jsonl or .txt"),
        (("--csv", "--out", "."), "no regular file"),
    ):  # fmt: skip
        result = run("predict", "model", "1.png", *options)
        assert (result.code, result.out) == (2, ""), options
        assert words in result.err
        assert result.err.count("\n") == 1


def test_odd_names_stay_on_their_line() -> None:
    bad = os.fsdecode(b"\xff\x1b[31m\n.png")
    results = [Prediction(Path(bad), "bird", 1, 0.75), Failure(Path(bad), "No.")]
    text = lines(results, "text", "bird")
    assert text == "\\udcff\\x1b[31m\\n.png: bird (probability of bird 0.7500)\n"
    assert [json.loads(line)["path"] for line in lines(results, "json", "bird").splitlines()] == [bad, bad]
    table = lines(results, "csv", "bird").encode("utf-8", NAMES)
    assert table.startswith(b'"\xff\x1b[31m\n.png",bird,1,0.75,\n')
    # Either line end in a name comes back, and what is no character at all is escaped.
    results = [Prediction(Path("a\rb"), "c\r\nd", 1, 0.75), Failure(Path("e\r"), "No\r.")]
    rows = list(csv.reader(io.StringIO(lines(results, "csv", "bird"), newline="")))
    assert rows == [["a\rb", "c\r\nd", "1", "0.75", ""], ["e\r", "", "", "", "No\r."]]
    results = [Prediction(Path("é.png"), "\ud800\udce9", 1, 0.75)]
    assert lines(results, "csv", "bird").encode("utf-8", NAMES) == "é.png,\\ud800".encode() + b"\xe9,1,0.75,\n"


def test_formulas_are_text_in_csv_and_themselves_elsewhere() -> None:
    results = [Prediction(Path("=cmd|x!A0.png"), "-bird", 1, 1e-300), Failure(Path("@x"), "+x is no picture.")]
    first, second = csv.reader(io.StringIO(lines(results, "csv", "-bird"), newline=""))
    assert first == ["'=cmd|x!A0.png", "'-bird", "1", "1e-300", ""]
    assert second == ["'@x", "", "", "", "'+x is no picture."]
    assert [json.loads(line)["path"] for line in lines(results, "json", "").splitlines()] == ["=cmd|x!A0.png", "@x"]
    assert lines(results[:1], "text", "-bird").startswith("=cmd|x!A0.png: -bird (")


def test_results_come_before_more_paths_are_awaited(tmp_path: Path) -> None:
    make(tmp_path, ["a.png"])
    given: list[str] = []

    def slow() -> Iterator[Path | Pause]:
        for number in range(7):
            if number in (0, 1, 3):
                yield PAUSE
                given.append(f"{number} awaited")
            yield tmp_path / "a.png"

    for results in predict_many(classifier(), slow(), threads=1):
        given.append(f"{len(results)} done")
    # All that is there is given, in its order, before the next is asked for.
    assert given == ["0 awaited", "1 done", "1 awaited", "2 done", "3 awaited", "4 done"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such shell")
def test_standard_streams(tmp_path: Path) -> None:
    """Slow, closed and ASCII ones."""
    make(tmp_path, ["é.png"])
    dataclasses.replace(classifier(), class_names=("rest", "b\ud800rd")).save(tmp_path / "model")
    command = f"{sys.executable} -m xlogreg predict model"

    def shell(rest: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-c", rest.format(command)], cwd=tmp_path, env=environment(PYTHONUNBUFFERED="", **variables),
            capture_output=True, check=False, timeout=60,
        )  # fmt: skip

    # The first answer is what lets the list of paths go on.
    os.mkfifo(tmp_path / "go")
    done = shell("{{ echo é.png; cat go; }} | {} - --csv | {{ head -n 2; echo é.png > go; cat; }}")
    assert (done.returncode, done.stdout.count(b"\n"), done.stderr) == (0, 3, b"")
    bad = [("{} - <&-", b"Standard input is closed"), ("{} é.png >&-", b"Standard output is closed")]
    if Path("/dev/full").exists():
        bad.append(("{} é.png é.png > /dev/full", b"No space left on device"))
    for rest, words in bad:
        done = shell(rest)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
        assert words in done.stderr
    for form, begin in (("csv", "path,label,number,probability,error\né.png,"), ("json", "{"), ("text", "\\xe9.png: ")):
        done = shell("{} é.png --format " + form, PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode().startswith(begin)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes and signals")
@pytest.mark.parametrize("wanted", [signal.SIGINT, signal.SIGTERM])
def test_closed_pipe_and_ctrl_c_end_quietly(tmp_path: Path, wanted: signal.Signals) -> None:
    make(tmp_path, [f"p/{number}.png" for number in range(40)])
    classifier().save(tmp_path / "model")
    command = [sys.executable, "-m", "xlogreg", "predict", "model"]
    listed = "for i in $(seq 500); do echo p; done"
    done = subprocess.run(
        ["bash", "-c", f"{{ {listed}; }} | {' '.join(command)} - --csv | head -n 2"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.startswith("path,label,number,probability,error\np/0.png,")
    # Ctrl-C while paths are still awaited: the lines so far are there, one note, 130.
    process = subprocess.Popen(
        [*command, "-", "--out", "table.csv"], cwd=tmp_path, env=environment(), stdin=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write("p\n")
    process.stdin.flush()
    while not list(tmp_path.glob(".table.csv.*")):  # it is at work once its file is begun
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(wanted)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("table.csv was not written.\n")
    assert not list(tmp_path.glob("*table.csv*"))
