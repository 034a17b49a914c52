"""A training that was killed, torn or interrupted anywhere goes on to the bits of one never stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from xlogreg import checkpoint, files
from xlogreg.checkpoint import NAMES, Checkpoint, Checkpoints, latest, save
from xlogreg.data.birds import load_birds
from xlogreg.data.task import Task, hold_out, make_task
from xlogreg.descent import Part, Progress
from xlogreg.engine import DescentOptions, Gradient, State
from xlogreg.errors import FileError, InputError
from xlogreg.training import Training, train

MOMENTUM = DescentOptions(momentum=0.9, nesterov=True, l2=0.01, class_weight="balanced", gradient_tolerance=0.012)


@pytest.fixture(scope="module")
def task() -> Task:
    (task,) = hold_out([make_task(load_birds(), "bird")], 0.1)
    return task


class Stop(Exception):
    pass


def stop_at(iteration: int):
    """An observer that ends the training at this iteration or soon after."""

    def tell(done: int, _: np.ndarray) -> None:
        if done >= iteration:
            raise Stop

    return tell


def assert_same(one: Training, other: Training) -> None:
    assert one.history_sha256 == other.history_sha256
    assert np.array_equal(one.classifier.w, other.classifier.w)
    assert one.classifier.b == other.classifier.b
    assert one.validation == other.validation
    assert one.stopped_by == other.stopped_by


@pytest.mark.parametrize("implementation", ["reference", "fused"])
def test_stopped_again_and_again(task: Task, tmp_path: Path, implementation: str) -> None:
    rates = [0.01, 0.0005, 0.0002]  # the second ends early
    whole = train(task, rates, 260, implementation=implementation, options=MOMENTUM)
    assert [training.stopped_by for training in whole] == ["iterations", "gradient", "iterations"]
    for number, stop in enumerate((1, 7, 60, 101, 180, 255)):
        keeper = Checkpoints(tmp_path, 1e9, resume=number > 0)
        with pytest.raises(Stop):
            train(
                task, rates, 260, implementation=implementation, options=MOMENTUM, checkpoints=keeper,
                observer=stop_at(stop),
            )  # fmt: skip
        assert keeper.stopped() < stop
    last = Checkpoints(tmp_path, 1e9, resume=True)
    # The other implementation takes it up: the bits are the same.
    other = {"reference": "fused", "fused": "reference"}[implementation]
    for one, two in zip(
        whole, train(task, rates, 260, implementation=other, options=MOMENTUM, checkpoints=last), strict=True
    ):
        assert_same(one, two)


def test_another_training_is_refused(task: Task, tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path, 0.0)
    with pytest.raises(Stop):
        train(task, [0.01], 50, checkpoints=keeper, observer=stop_at(20))
    keeper.stopped()
    for rates, iterations, options in (([0.02], 50, None), ([0.01], 51, None), ([0.01], 50, MOMENTUM)):
        with pytest.raises(FileError, match=r"No checkpoint in .* other pictures or options"):
            train(task, rates, iterations, options=options, checkpoints=Checkpoints(tmp_path, resume=True))
    smaller = make_task(load_birds(), "bird", test_size=200)
    with pytest.raises(FileError, match="other pictures or options"):
        train(smaller, [0.01], 50, checkpoints=Checkpoints(tmp_path, resume=True))


def progress(iterations: int) -> Progress:
    ones = np.ones((1, 3))
    part = Part(ones, np.ones(1), Gradient(ones, np.ones(1), np.ones(1)), 2, "cost")
    state = State(iterations, 2 * ones, np.ones(1), ones, np.ones(1))
    return Progress(np.full((2, iterations), 0.5), [1], state, {0: part}, 1.5)


def test_the_newest_good_one_is_taken(tmp_path: Path) -> None:
    assert latest(tmp_path, "mark") is None
    save(tmp_path, Checkpoint(progress(4), "mark", {"a": [1]}), 0)
    save(tmp_path, Checkpoint(progress(9), "mark"), 1)
    found, number = latest(tmp_path, "mark") or (None, 0)
    assert found is not None
    assert (found.progress.state.iterations, number) == (9, 2)
    assert found.progress.models == [1]
    assert found.progress.parts[0].reason == "cost"
    assert found.progress.seconds == 1.5
    # The newer one torn anywhere, or with any byte changed: the older one is taken.
    whole = (tmp_path / NAMES[1]).read_bytes()
    rng = random.Random(0)
    damaged = [whole[: rng.randrange(len(whole))] for _ in range(60)]
    for _ in range(60):
        place = rng.randrange(len(whole))
        damaged.append(whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :])
    for content in [*damaged, b"", b"{}", b"\xff" * 100]:
        (tmp_path / NAMES[1]).write_bytes(content)
        found, number = latest(tmp_path, "mark") or (None, 0)
        assert found is not None
        assert (found.progress.state.iterations, found.extra, number) == (4, {"a": [1]}, 1)
    (tmp_path / NAMES[0]).write_bytes(b"torn")
    with pytest.raises(FileError, match="is damaged"):
        latest(tmp_path, "mark")
    checkpoint.remove(tmp_path)
    assert latest(tmp_path, "mark") is None


def test_a_full_disk_ends_no_training(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train(task, [0.01], 40)[0]
    with pytest.raises(Stop):
        train(task, [0.01], 40, checkpoints=(keeper := Checkpoints(tmp_path, 0.0)), observer=stop_at(10))
    good = keeper.stopped()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    words: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        keeper = Checkpoints(tmp_path, 0.0, resume=True, complain=words.append)
        (training,) = train(task, [0.01], 40, checkpoints=keeper)
    assert_same(training, expected)
    assert len(words) == 1
    assert "No space left on device" in words[0]
    # What was there before is there still, and nothing else.
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    kept = []
    keeper = Checkpoints(tmp_path, 1e9, resume=True)
    assert_same(train(task, [0.01], 40, checkpoints=keeper, observer=lambda done, _: kept.append(done))[0], expected)
    assert min(kept) > good


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_odd_intervals(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(InputError, match="seconds between checkpoints"):
        Checkpoints(tmp_path, seconds)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "xlogreg", "train", *map(str, arguments)]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "XLOGREG_DATA": str(folder / "cache")}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    """Killed again and again, by turns in the fused kernel and the reference; the folder stays one."""
    options = {"cwd": tmp_path, "env": environment(tmp_path), "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    # So many that no process comes to the end before it is killed.
    iterations = 3_000 * kills
    moments = random.Random(1)
    arguments: tuple[object, ...] = ("--iterations", iterations, "--checkpoint", 0, "--out", "run")
    for number in range(kills):
        implementation = ("reference", "fused")[number % 2]
        with subprocess.Popen(command(*arguments, "--implementation", implementation), **options) as process:  # type: ignore[call-overload]
            # Some of these lie in the start of Python and of the training, most in its iterations.
            time.sleep(moments.uniform(0.5, 3.0))
            process.send_signal(signal.SIGKILL)
            errors = process.stderr.read().decode()  # type: ignore[union-attr]
        assert process.returncode == -signal.SIGKILL, errors
        if (tmp_path / "run" / "plan.json").exists():
            arguments = ("--resume", "run", "--checkpoint", 0)
    done = subprocess.run(command(*arguments, "--implementation", "fused"), check=False, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    task = make_task(load_birds(), "bird")
    (whole,) = train(task, [0.005], iterations)
    assert results["history_sha256"] == whole.history_sha256
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["run"]
    assert not [path.name for path in (tmp_path / "run").iterdir() if "checkpoint" in path.name or "plan" in path.name]


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_and_what_it_says(tmp_path: Path) -> None:
    options = {"cwd": tmp_path, "env": environment(tmp_path), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for number, wanted in enumerate((signal.SIGINT, signal.SIGTERM)):
        with subprocess.Popen(command("--iterations", 10**6, "--checkpoint", 0), text=True, **options) as process:  # type: ignore[call-overload]
            run = tmp_path / "runs" / f"birds-{number + 1}"
            for _ in range(2000):
                if (run / NAMES[1]).exists():  # the second one, after some iterations
                    break
                time.sleep(0.01)
            process.send_signal(wanted)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert f"Go on with: xlogreg train --resume runs/birds-{number + 1}" in errors
        assert "Traceback" not in errors
        assert "Stopped after 0 of" not in errors


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    def complaint(*arguments: object) -> str:
        done = subprocess.run(
            command(*arguments), cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        return done.stderr

    run = tmp_path / "run"
    run.mkdir()
    assert "no training to resume in run" in complaint("--resume", "run")
    (run / "results.json").write_text("{}")
    assert "complete, there is nothing to resume" in complaint("--resume", "run")
    assert "leave --learning-rate out" in complaint("--resume", "run", "--learning-rate", 0.1)
    for text in ("", "{}", "[1]", '{"format": "xlogreg plan 1", "options": {}}', "\x00", "[" * 5000):
        (run / "plan.json").write_text(text)
        assert "is no plan that this xlogreg can resume" in complaint("--resume", "run")
