"""A training that was killed, torn or interrupted anywhere goes on to the bits of one never stopped."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
from helpers import Result

from xlogreg.commands import shared
from xlogreg.data.birds import load_birds
from xlogreg.data.task import Task, hold_out, make_task
from xlogreg.errors import ConvergenceWarning, FileError, InputError
from xlogreg.kernels import pool
from xlogreg.neuron.objective import Gradient
from xlogreg.neuron.options import DescentOptions, option
from xlogreg.runs import checkpoint, plots, run_folder
from xlogreg.runs import fingerprint as fingerprint_module
from xlogreg.runs.checkpoint import Checkpoint, Checkpoints, latest, save
from xlogreg.runs.plan import Plan, write_plan
from xlogreg.runs.run_folder import new_run_folder
from xlogreg.runs.training import Training, train
from xlogreg.solvers.resume import Part, Progress
from xlogreg.solvers.solver import State
from xlogreg.system import files, lock
from xlogreg.system.run_file_names import CHECKPOINTS

# `xlogreg.commands.train` names the function.
train_command = sys.modules["xlogreg.commands.train"]
MOMENTUM = DescentOptions(momentum=0.9, nesterov=True, l2=0.01, class_weight="balanced", gradient_tolerance=0.012)


@pytest.fixture(scope="module")
def task() -> Task:
    (task,) = hold_out([make_task(load_birds(), "bird")], 0.1)
    return task


# As a plan has them.
OPTIONS: dict[str, Any] = {
    "source": "birds", "positive": None, "learning_rate": 0.005, "iterations": 2, "balance": None, "seed": 0,
    "test_size": None, "l2": 0.0, "momentum": 0.0, "nesterov": False, "stop_gradient": None, "stop_cost": None,
    "class_weight": "none", "validation": None, "start": None, "features": "pixels", "size": None,
    "max_unreadable": None, "no_cache": False, "data": None, "device": "cpu", "implementation": "auto",
}  # fmt: skip


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
def test_stopped_again_and_again(tmp_path: Path, implementation: str) -> None:
    (task,) = hold_out([make_task(load_birds(), "bird", test_size=1500)], 0.1)  # few to train on are as good
    rates = [0.01, 0.0005, 0.0002]  # the second ends early
    whole = train(task, rates, 260, implementation=implementation, options=MOMENTUM)
    assert [training.stopped_by for training in whole] == ["iterations", "gradient", "iterations"]
    for number, stop in enumerate((1, 7, 60, 101, 180, 255)):
        checkpoints = Checkpoints(tmp_path, 1e9, resume=number > 0)
        with pytest.raises(Stop):
            train(
                task, rates, 260, implementation=implementation, options=MOMENTUM, checkpoints=checkpoints,
                observer=stop_at(stop),
            )  # fmt: skip
        assert checkpoints.stopped() < stop
    last = Checkpoints(tmp_path, 1e9, resume=True)
    # The other implementation takes it up: the bits are the same.
    other = {"reference": "fused", "fused": "reference"}[implementation]
    for one, two in zip(
        whole, train(task, rates, 260, implementation=other, options=MOMENTUM, checkpoints=last), strict=True
    ):
        assert_same(one, two)


@pytest.mark.filterwarnings("ignore::xlogreg.ConvergenceWarning")
def test_lbfgs_stopped_again_and_again(tmp_path: Path) -> None:
    """By turns in both implementations, and on any number of threads; several penalties, of which two arrive."""
    (task,) = hold_out([make_task(load_birds(), "bird", test_size=1500)], 0.1)
    options, penalties = DescentOptions(solver="lbfgs", class_weight="balanced"), [0.1, 0.001, 1e-6]
    whole = train(task, None, 60, options=options, l2=penalties)
    assert [training.stopped_by for training in whole] == ["gradient", "iterations", "gradient"]
    assert [training.options.l2 for training in whole] == penalties
    for number, stop in enumerate((1, 2, 7, 8, 20, 45)):
        pool.allow(1 + number % 2)
        checkpoints = Checkpoints(tmp_path, 1e9, resume=number > 0)
        with pytest.raises(Stop):
            train(
                task, None, 60, implementation=("reference", "fused")[number % 2], options=options, l2=penalties,
                checkpoints=checkpoints, observer=stop_at(stop),
            )  # fmt: skip
        assert checkpoints.stopped() < stop
    pool.allow(2)
    # The list of penalties is a part of it.
    for other in ([0.1, 0.001, 1e-5], [0.1, 0.001], None):
        with pytest.raises(FileError, match=r"No checkpoint in .* can be used"):
            train(task, None, 60, options=options, l2=other, checkpoints=Checkpoints(tmp_path, resume=True))
    # Ended where it stands, each is what it was then: the cost is that of the weights.
    ended = train(
        task, None, 60, options=options, l2=penalties, checkpoints=Checkpoints(tmp_path, resume=True, finish=True)
    )
    assert ended[1].stopped_by == "interrupted"
    assert ended[1].final_cost in ended[1].history
    assert f"did not arrive in {len(ended[1].history)} evaluations: the largest entry" in ended[1].note
    assert "nan" not in ended[1].note
    last = Checkpoints(tmp_path, 1e9, resume=True)
    for one, two in zip(
        whole, train(task, None, 60, options=options, l2=penalties, checkpoints=last), strict=True
    ):
        assert_same(one, two)
        assert one.final_cost == two.final_cost
    # Given more, they are those of a training that had them from the first.
    last.ended()
    more = Checkpoints(tmp_path, 1e9, resume=True, before=[60])
    longer = train(task, None, 80, options=options, l2=penalties)
    for one, two in zip(
        longer, train(task, None, 80, options=options, l2=penalties, checkpoints=more), strict=True
    ):
        assert_same(one, two)
    assert len(longer[1].history) > 60


def test_no_other_memory_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What memory held before would come out of np.empty, and into the file of somebody who passes it on.
    monkeypatch.setattr(np, "empty", lambda *shape, **_: np.full(*shape, 1e300))
    task = make_task(load_birds(), "bird")
    checkpoints = Checkpoints(tmp_path, 1e9)
    early = DescentOptions(cost_tolerance=1e-7)
    rates = [0.005, 1e-9]
    with pytest.raises(Stop):
        train(task, rates, 30, options=early, implementation="reference", checkpoints=checkpoints, observer=stop_at(20))
    checkpoints.stopped()
    kept, _ = latest(tmp_path, checkpoints._fingerprint) or (None, 0)
    assert kept is not None
    assert len(kept.progress.parts) == 1
    assert np.abs(kept.progress.costs).max() < 1


def test_another_training_is_refused(task: Task, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 0.0)
    with pytest.raises(Stop):
        train(task, [0.01], 50, checkpoints=checkpoints, observer=stop_at(20))
    checkpoints.stopped()
    for rates, iterations, options in (([0.02], 50, None), ([0.01], 51, None), ([0.01], 50, MOMENTUM)):
        with pytest.raises(FileError, match=r"No checkpoint in .* other pictures or options"):
            train(task, rates, iterations, options=options, checkpoints=Checkpoints(tmp_path, resume=True))
    smaller = make_task(load_birds(), "bird", test_size=200)
    with pytest.raises(FileError, match="other pictures or options"):
        train(smaller, [0.01], 50, checkpoints=Checkpoints(tmp_path, resume=True))


def progress(iterations: int) -> Progress:
    ones = np.ones((1, 3))
    part = Part(ones, np.ones(1), Gradient(ones, np.ones(1), np.ones(1)), 2, "cost")
    state = State(iterations, 2 * ones, np.ones(1), {"velocity": ones, "bias_velocity": np.ones(1)})
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
    whole = (tmp_path / CHECKPOINTS[1]).read_bytes()
    rng = random.Random(0)
    damaged = [whole[: rng.randrange(len(whole))] for _ in range(60)]
    for _ in range(60):
        place = rng.randrange(len(whole))
        damaged.append(whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :])
    for content in [*damaged, b"", b"{}", b"\xff" * 100]:
        (tmp_path / CHECKPOINTS[1]).write_bytes(content)
        found, number = latest(tmp_path, "mark") or (None, 0)
        assert found is not None
        assert (found.progress.state.iterations, found.extra, number) == (4, {"a": [1]}, 1)
    (tmp_path / CHECKPOINTS[0]).write_bytes(b"torn")
    with pytest.raises(FileError, match="is damaged"):
        latest(tmp_path, "mark")
    checkpoint.remove(tmp_path)
    assert latest(tmp_path, "mark") is None


def test_a_full_disk_ends_no_training(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train(task, [0.01], 40)[0]
    with pytest.raises(Stop):
        train(task, [0.01], 40, checkpoints=(checkpoints := Checkpoints(tmp_path, 0.0)), observer=stop_at(10))
    good = checkpoints.stopped()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    words: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        checkpoints = Checkpoints(tmp_path, 0.0, resume=True, complain=words.append)
        (training,) = train(task, [0.01], 40, checkpoints=checkpoints)
    assert_same(training, expected)
    assert len(words) == 1
    assert "No space left on device" in words[0]
    # Interrupted, what is kept is what was saved, not where it stood; that is said again.
    checkpoints = Checkpoints(tmp_path, 0.0, resume=True, complain=words.append)
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(Stop):
        train(task, [0.01], 40, checkpoints=checkpoints, observer=stop_at(good + 5))
    assert checkpoints.stopped() == good
    monkeypatch.undo()
    assert len(words) == 3
    assert "after the last checkpoint is lost" in words[2]
    # What was there before is there still, and nothing else.
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    kept = []
    checkpoints = Checkpoints(tmp_path, 1e9, resume=True)
    trained = train(task, [0.01], 40, checkpoints=checkpoints, observer=lambda done, _: kept.append(done))
    assert_same(trained[0], expected)
    assert min(kept) > good


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_odd_intervals(tmp_path: Path, seconds: float, run: Callable[..., Result]) -> None:
    with pytest.raises(InputError, match="seconds between checkpoints"):
        Checkpoints(tmp_path, seconds)
    with pytest.raises(InputError, match="seconds between checkpoints must be 0 or more, not 'x'"):
        Checkpoints(tmp_path, "x")  # type: ignore[arg-type]
    for every in (0, -5, 1.5, True):
        with pytest.raises(InputError, match="iterations between checkpoints"):
            Checkpoints(tmp_path, every=every)  # type: ignore[arg-type]
    # Said before anything is read or made.
    result = run("train", "nowhere", "--checkpoint", seconds)
    assert result.code == 2
    assert "seconds between checkpoints" in result.err
    assert not (tmp_path / "runs").exists()


def test_checkpoints_by_iterations(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []

    def note(folder: Path, kept: Checkpoint, number: int) -> None:
        saved.append(kept.progress.state.iterations)
        # As many records as belong to these iterations: after 0, 100, 200, ..
        assert [len(found) for found in kept.extra["validations"]] == [saved[-1] // 100 + 1]
        save(folder, kept, number)

    monkeypatch.setattr(checkpoint, "save", note)
    expected = train(task, [0.01], 260)[0]
    checkpoints = Checkpoints(tmp_path, 1e9, every=35)
    assert_same(train(task, [0.01], 260, checkpoints=checkpoints)[0], expected)
    assert saved == [35, 70, 105, 140, 175, 210, 245]
    words: list[str] = []
    checkpoints = Checkpoints(tmp_path, 1e9, resume=True, every=250, tell=words.append)
    assert_same(train(task, [0.01], 260, checkpoints=checkpoints)[0], expected)
    assert saved[7:] == [250]
    assert words == ["Going on from iteration 245."]


def test_checkpoints_cost_nothing_until_they_are_written(task: Task, tmp_path: Path) -> None:
    asked = []

    class Watched(Checkpoints):
        def begin(self, fingerprints: Sequence[str], extra: Callable, *checks: Any) -> Checkpoint | None:
            return super().begin(fingerprints, lambda done: asked.append(done) or extra(done), *checks)

    checkpoints = Watched(tmp_path, 1e9)
    with pytest.raises(Stop):
        train(task, [0.01], 260, checkpoints=checkpoints, observer=stop_at(150))
    assert asked == []
    assert asked == [checkpoints.stopped()]


def stop_soon(monkeypatch: pytest.MonkeyPatch, at: int = 20) -> Callable[[], None]:
    """Lets the next training on the command line be stopped after so many iterations, as by Ctrl-C; returns its end."""
    from xlogreg.commands import bars

    @contextlib.contextmanager
    def progress(iterations: int, *_: str) -> Iterator[Callable]:
        def tell(done: int, _: np.ndarray) -> None:
            if done >= at:
                raise KeyboardInterrupt

        yield tell

    before = bars.training_progress
    monkeypatch.setattr(bars, "training_progress", progress)
    return lambda: monkeypatch.setattr(bars, "training_progress", before)


def test_the_disk_is_full_when_all_is_done(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise FileError("Cannot write r/model.safetensors: No space left on device; free some space.")

        patch.setattr(run_folder, "write_run", full)
        result = run("train", "--iterations", 40, "--checkpoint-every", 30, "--out", "my run")
    assert result.code == 2
    assert result.err.endswith("free some space. Then go on with: xlogreg train --resume 'my run'\n")
    assert {path.name for path in Path("my run").iterdir()} == {"plan.json", CHECKPOINTS[0]}
    result = run("train", "--resume", "my run", "--json")
    assert result.code == 0
    assert "Going on from iteration 30." in result.err
    whole = json.loads(run("train", "--iterations", 40, "--json").out)
    assert json.loads(result.out)["history_sha256"] == whole["history_sha256"]
    # What will never end otherwise is cleared away.
    result = run("train", "--iterations", 40, "--checkpoint", 0, "--learning-rate", 1e9, "--out", "d")
    assert (result.code, list(Path("d").iterdir())) == (2, [])
    assert "resume" not in result.err


def test_a_second_ctrl_c_loses_nothing(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    again = stop_soon(monkeypatch)

    def interrupted(folder: Path, kept: Checkpoint, number: int) -> None:
        for number_of_signal in (signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number_of_signal)
        save(folder, kept, number)

    monkeypatch.setattr(checkpoint, "save", interrupted)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    result = run("train", "--iterations", 500, "--checkpoint", 1e6, "--out", "r")
    assert result.code == 130
    assert result.err.count("\n") == 1
    assert result.err.startswith("Note: Stopped after ")
    assert not result.err.startswith("Note: Stopped after 0 ")
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    again()
    monkeypatch.setattr(checkpoint, "save", save)
    assert run("train", "--resume", "r").code == 0


def test_stopped_when_all_is_trained(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(plots, "plot_run", lambda *_: signal.raise_signal(signal.SIGTERM))
        result = run("train", "--iterations", 20, "--out", "r")
    assert result.code == 130
    assert "Stopped while its results were written. Go on with: xlogreg train --resume r\n" in result.err
    assert run("train", "--resume", "r").code == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("command", ["sweep", "reproduce"])
def test_other_commands_stop_too(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    if not hasattr(signal, name):
        pytest.skip("Windows has no terminals that hang up")
    from xlogreg.kernels.cpu import FusedCPU

    before = signal.getsignal(getattr(signal, name))
    monkeypatch.setattr(FusedCPU, "descend", lambda *_: signal.raise_signal(getattr(signal, name)))
    result = run(command)
    assert (result.code, result.out) == (130, "")
    assert result.err.endswith("Note: Stopped; only `xlogreg train` keeps checkpoints to go on from.\n")
    assert not list(Path("runs").iterdir())
    assert signal.getsignal(getattr(signal, name)) == before


def test_a_stopped_run_says_how_to_go_on(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    again = stop_soon(monkeypatch)
    assert run("train", "--iterations", 500, "--out", "r2").code == 130
    for command in (("train", "--out", "r2"), ("predict", "r2", "a.png"), ("evaluate", "r2"), ("report", "r2")):
        result = run(*command)
        assert result.code == 2
        assert "The training in r2 is not finished; go on with: xlogreg train --resume r2" in result.err
        assert result.err.count("\n") == 1
    # Killed after its results, or before the older checkpoint went, or by an xlogreg that kept none: complete all the
    # same.
    kept = {path.name: path.read_bytes() for path in Path("r2").iterdir()}
    assert set(kept) == {"plan.json", CHECKPOINTS[0]}
    again()
    first = run("train", "--resume", "r2", "--json")
    assert first.code == 0
    assert kept_to_go_on(Path("r2")) == {"plan.json", CHECKPOINTS[1]}
    kept[CHECKPOINTS[1]] = (Path("r2") / CHECKPOINTS[1]).read_bytes()
    monkeypatch.setattr(plots, "plot_run", None)  # nothing is trained or drawn again
    for left in (set(kept), set(kept) - {"plan.json"}, {"plan.json"}, {"plan.json", CHECKPOINTS[1]}, set()):
        for name in kept:
            Path("r2", name).unlink(missing_ok=True)
        for name in sorted(left):
            Path("r2", name).write_bytes(kept[name])
        Path("r2", ".model.safetensors.0123abcd.part").touch()
        Path("r2", ".labels.csv.0123abcd.part").touch()
        result = run("train", "--resume", "r2", "--json")
        assert result.code == 0
        # More iterations need the plan and a checkpoint.
        how = "to go on from its model, train with --start r2"
        if "plan.json" in left and len(left) > 1:
            how = "to go on, give it more with --iterations, or train from its model with --start r2"
        assert result.err == f"Note: The run r2 is complete; {how}.\n"
        answer = json.loads(result.out)
        assert answer["history_sha256"] == json.loads(first.out)["history_sha256"]
        # Of two checkpoints the newer one stays.
        assert kept_to_go_on(Path("r2")) == left - ({CHECKPOINTS[0]} if CHECKPOINTS[1] in left else set())
        # Of what is not written whole only the training's own goes away.
        assert [path.name for path in Path("r2").glob(".*")] == [".labels.csv.0123abcd.part"]
    assert run("train", "--resume", "r2").out == ""


def test_what_a_kill_leaves_at_the_very_beginning_is_no_obstacle(run: Callable[..., Result]) -> None:
    Path("r").mkdir()
    for name in (".lock", ".plan.json.0123abcd.part"):
        Path("r", name).touch()
    assert run("train", "--iterations", 2, "--out", "r").code == 0
    assert not list(Path("r").glob(".*"))
    Path("s").mkdir()
    Path("s", ".plan.json").touch()
    assert "already holds files" in run("train", "--iterations", 2, "--out", "s").err


def test_a_numbered_folder_is_never_without_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []

    def first(folder: Path) -> None:
        seen.append([path.name for path in Path("runs").iterdir() if not path.name.startswith(".")])
        (folder / "plan.json").touch()

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    assert [new_run_folder("birds", first=first).name for _ in range(2)] == ["birds-1", "birds-2"]
    # Another process may be faster, before or after this one has looked.
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda old, new: Path(new, "full").mkdir(parents=True) or rename(old, new))
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "lexists", lambda path: Path(path).name.endswith("-3") or Path(path).exists())
        patch.setattr(os, "rename", rename)
        assert new_run_folder("birds", first=first).name == "birds-4"
    calls = iter([os.rename, rename])
    monkeypatch.setattr(os, "rename", lambda old, new: next(calls)(old, new))
    assert new_run_folder("birds", first=first).name == "birds-6"
    monkeypatch.setattr(os, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        new_run_folder("birds", first=first)
    numbered = [f"birds-{number}" for number in (1, 2, 4, 5, 6)]
    assert sorted(path.name for path in Path("runs").iterdir()) == numbered
    assert seen[:2] == [[], ["birds-1"]]
    assert all(Path("runs", name, "plan.json").exists() for name in numbered if name != "birds-5")


def test_one_training_a_folder(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    again = stop_soon(monkeypatch)
    assert run("train", "--iterations", 500, "--out", "r").code == 130
    assert not Path("r", ".lock").exists()
    before = {path.name: path.read_bytes() for path in Path("r").iterdir()}
    with lock.locked(Path("r")):
        result = run("train", "--resume", "r")
        assert (result.code, result.out) == (2, "")
        assert result.err == "Error: Another process is training in r; let it end, or train into another folder.\n"
    assert {path.name: path.read_bytes() for path in Path("r").iterdir()} == before
    # A process that ends leaves no lock, however it ends.
    code = (
        "import os; from pathlib import Path; from xlogreg.system.lock import locked\n"
        "with locked(Path('r')): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(Path()))
    assert Path("r", ".lock").exists()
    again()

    # Where there are no locks, training goes on without.
    def unsupported(_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock, "lock_now", unsupported)
    assert run("train", "--resume", "r").code == 0
    assert not Path("r", ".lock").exists()


def test_a_folder_that_cannot_be_written_is_noticed_at_once(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_soon(monkeypatch)
    assert run("train", "--iterations", 500, "--out", "r").code == 130

    whole = os.open

    def refused(path: Path, *rest: int) -> int:
        if Path(path).name != lock.LOCK:
            return whole(path, *rest)
        raise PermissionError(13, "Permission denied")

    # Not by permissions, which do not bind the administrator; read_plan and others are as before.
    monkeypatch.setattr(lock.os, "open", refused)
    monkeypatch.setattr(shared, "load_pictures", None)  # before any data are read
    result = run("train", "--resume", "r")
    assert result.code == 2
    assert result.err == (
        "Error: Cannot write into the folder r: Permission denied; make it writable, or train into another.\n"
    )


def test_paths_and_names_from_another_folder(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A folder of the built-in pictures' name is no reason to read another one's.
    again = stop_soon(monkeypatch)
    Path("birds", "cat").mkdir(parents=True)
    assert run("train", "--iterations", 100, "--out", "r").code == 130
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    again()
    result = run("train", "--resume", "../r", "--json")
    assert result.code == 0, result.err
    assert json.loads(Path("../r/results.json").read_text())["asked"]["source"] == "birds"
    # Data that are named anew are recorded so that they are found from anywhere.
    asked = {}
    monkeypatch.setattr(train_command, "_train", lambda options, run, *_: asked.update(options))
    monkeypatch.chdir(tmp_path)
    Path("r", "results.json").unlink()
    write_plan(Path("r"), Plan({**OPTIONS, "source": "cifar10"}, str(tmp_path / "gone"), ""))
    Path("mine").mkdir()
    assert run("train", "--resume", "r", "--data", "mine").code == 0
    assert asked["data"] == tmp_path / "mine"
    assert asked["source"] == "cifar10"


def kept_to_go_on(run: Path) -> set[str]:
    """What is in a run folder for more iterations, or was being written."""
    return {path.name for path in run.iterdir() if path.name.startswith(("checkpoint", "plan", ".plan", ".check"))}


def command(*arguments: object) -> list[str]:
    """`xlogreg train` without the pictures, which take longer than all the rest."""
    code = "from xlogreg.runs import plots; plots.plot_run = lambda *_: None; from xlogreg.__main__ import main; main()"
    return [sys.executable, "-c", code, "train", *map(str, arguments)]


def environment(folder: Path) -> dict[str, str]:
    return helpers.environment(XLOGREG_DATA=str(folder / "cache"))


def stamps(run: Path) -> set[tuple[str, int]]:
    """What tells the checkpoints that are there from earlier and later ones."""
    found = set()
    for name in CHECKPOINTS:
        with contextlib.suppress(FileNotFoundError):
            found.add((name, (run / name).stat().st_mtime_ns))
    return found


def wait(process: subprocess.Popen, reached: Callable[[], bool]) -> None:
    """Until it is so, or the process has ended."""
    end = time.monotonic() + 60
    while not reached() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    """Killed again and again, by turns in the fused kernel and the reference; the folder stays one."""
    options = {"cwd": tmp_path, "env": environment(tmp_path), "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    # So many that no process comes to the end before it is killed.
    iterations = 1_000 * kills
    moments = random.Random(1)
    run = tmp_path / "run"
    arguments: tuple[object, ...] = ("--iterations", iterations, "--checkpoint", 0, "--out", "run")
    kept = 0
    for number in range(kills):
        implementation = ("reference", "fused")[number % 2]
        seen, new = stamps(run), set()

        def is_at_work(seen: set = seen, new: set = new) -> bool:
            new |= stamps(run) - seen
            return len(new) >= 3  # the first is where it began, the third after some iterations

        with subprocess.Popen(command(*arguments, "--implementation", implementation), **options) as process:  # type: ignore[call-overload]
            if number % 5 == 4:
                # In the start of Python, or while the data are read.
                time.sleep(moments.uniform(0, 1))
            else:
                wait(process, is_at_work)
                time.sleep(moments.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            errors = process.stderr.read().decode()  # type: ignore[union-attr]
        assert process.returncode == -signal.SIGKILL, errors
        kept += is_at_work()
        if (run / "plan.json").exists():
            arguments = ("--resume", "run", "--checkpoint", 0)
    assert kept >= kills * 3 // 4
    done = subprocess.run(command(*arguments, "--implementation", "fused"), check=False, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert "Going on from iteration " in done.stderr
    results = json.loads((run / "results.json").read_text())
    task = make_task(load_birds(), "bird")
    (whole,) = train(task, [0.005], iterations)
    assert results["history_sha256"] == whole.history_sha256
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["run"]
    assert kept_to_go_on(run) in ({"plan.json", name} for name in CHECKPOINTS)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_lbfgs_killed(tmp_path: Path) -> None:
    """Killed in the fused kernel on all threads; the reference goes on, and the fused kernel on one thread."""
    options = {"cwd": tmp_path, "env": environment(tmp_path), "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    run = tmp_path / "run"
    first = ("--solver", "lbfgs", "--tol", 0, "--l2", 1e-4, "--iterations", 300, "--checkpoint", 0, "--out", "run")
    for arguments in (first, ("--resume", "run", "--checkpoint", 0, "--implementation", "reference")):
        before = stamps(run)
        with subprocess.Popen(command(*arguments), **options) as process:  # type: ignore[call-overload]
            wait(process, lambda before=before: len(stamps(run) - before) > 1)
            process.send_signal(signal.SIGKILL)
            errors = process.stderr.read().decode()  # type: ignore[union-attr]
        assert process.returncode == -signal.SIGKILL, errors
    alone = options | {"env": environment(tmp_path) | {"NUMBA_NUM_THREADS": "1"}}
    done = subprocess.run(
        command("--resume", "run", "--implementation", "fused"), check=False, text=True, **alone  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stderr
    assert "Going on from iteration " in done.stderr
    assert "Note: L-BFGS did not arrive in 300 evaluations" in done.stderr
    exact = DescentOptions(solver="lbfgs", gradient_tolerance=0.0, l2=1e-4)
    with pytest.warns(ConvergenceWarning):
        (whole,) = train(make_task(load_birds(), "bird"), None, 300, options=exact)
    assert digest(run) == whole.history_sha256
    assert kept_to_go_on(run) in ({"plan.json", name} for name in CHECKPOINTS)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(
    "moment",
    [
        "results.json",
        *(pytest.param(name, marks=pytest.mark.slow) for name in (
            "plan.json", CHECKPOINTS[0], "model.safetensors", "report.html", "one checkpoint",
        )),
    ],
)  # fmt: skip
def test_killed_at_its_end(tmp_path: Path, moment: str) -> None:
    """Killed while results are written and checkpoints are taken away: complete, or to be resumed, every time.

    And then it can be given more iterations.
    """
    options = {"cwd": tmp_path, "env": environment(tmp_path), "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    run = tmp_path / "run"

    def is_there() -> bool:
        if moment == "one checkpoint":
            return (run / "results.json").exists() and len(stamps(run)) == 1
        return (run / moment).exists()

    arguments = ("--iterations", 40, "--checkpoint", 0, "--out", "run")
    with subprocess.Popen(command(*arguments), **options) as process:  # type: ignore[call-overload]
        wait(process, is_there)
        process.send_signal(signal.SIGKILL)
        errors = process.stderr.read().decode()  # type: ignore[union-attr]
    assert process.returncode in (-signal.SIGKILL, 0), errors
    assert (run / "results.json").exists() or (run / "plan.json").exists()
    done = subprocess.run(command("--resume", "run"), check=False, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    results = json.loads((run / "results.json").read_text())
    (whole,) = train(make_task(load_birds(), "bird"), [0.005], 40)
    assert results["history_sha256"] == whole.history_sha256
    names = {path.name for path in run.iterdir()}
    assert {"report.html", "model.safetensors"} <= names
    assert not [name for name in names if name.startswith(".")]
    assert kept_to_go_on(run) in ({"plan.json", name} for name in CHECKPOINTS)
    done = subprocess.run(command("--resume", "run", "--iterations", 70), check=False, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    (whole,) = train(make_task(load_birds(), "bird"), [0.005], 70)
    assert digest(run) == whole.history_sha256


def digest(run: Path) -> str:
    return json.loads((run / "results.json").read_text())["history_sha256"]


@pytest.mark.parametrize("more", ["--momentum", "--patience"])
def test_a_finished_run_is_given_more_iterations(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    kinds = {"--momentum": ("--momentum", 0.9, "--nesterov"), "--patience": ("--validation", 0.2, "--patience", 9)}
    options = ("--test-size", 1500, *kinds[more])  # few to train on are as good
    assert run("train", "--iterations", 130, *options, "--out", "r").code == 0
    assert run("train", "--iterations", 230, *options, "--implementation", "reference", "--out", "whole").code == 0
    result = run("train", "--resume", "r", "--iterations", 130)
    assert result.code == 2
    assert result.err == "Error: The run r has 130 iterations already; give more with --iterations.\n"
    # Stopped on the way: its results of before are good until the new ones are there, and it goes on by itself.
    again = stop_soon(monkeypatch, 170)
    before = digest(Path("r"))
    assert run("train", "--resume", "r", "--iterations", 230).code == 130
    assert digest(Path("r")) == before
    assert run("evaluate", "r").code == 0
    again()
    result = run("train", "--resume", "r", "--json")
    assert result.code == 0, result.err
    one, two = json.loads(result.out), json.loads(Path("whole/results.json").read_text())
    names = "history_sha256", "iterations", "max_iterations", "stopped_by", "validation", "best_iteration", "metrics"
    for name in names:
        assert one[name] == two[name], name
    assert Path("r/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert json.loads(Path("r/results.json").read_text())["command"].endswith(" --iterations 230")
    # And again; the plan says each number that it was to have.
    assert run("train", "--resume", "r", "--iterations", 240).code == 0
    assert json.loads(Path("r/plan.json").read_text())["before"] == [130, 230]
    # What is no longer there is one sentence, and the results stay.
    before = digest(Path("r"))
    for path in Path("r").glob("checkpoint-*"):
        path.unlink()
    result = run("train", "--resume", "r", "--iterations", 300)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "does not keep what more iterations need" in result.err
    assert digest(Path("r")) == before
    assert "to go on from its model, train with --start r." in run("train", "--resume", "r").err
    assert run("train", "--resume", "r").code == 0


def test_a_stopped_run_is_finished_where_it_stands(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    again = stop_soon(monkeypatch, 250)
    options = ("--validation", 0.2, "--momentum", 0.5)
    assert "add --finish" in run("train", "--iterations", 5000, *options, "--out", "r").err
    again()
    result = run("train", "--resume", "r", "--finish")
    assert result.code == 0, result.err
    assert "5000: it was ended there" in result.out
    results = json.loads(Path("r/results.json").read_text())
    done = results["iterations"]
    assert 0 < done < 5000
    assert (results["max_iterations"], results["stopped_by"]) == (5000, "interrupted")
    command = "xlogreg train --iterations 5000 --validation 0.2 --momentum 0.5 --out r"
    assert results["command"] == f"{command} --iterations {done}"
    assert "5,000 at most: it was ended there" in Path("r/report.html").read_text()
    # As a training of so many iterations.
    assert run("train", "--iterations", done, *options, "--out", "whole").code == 0
    whole = json.loads(Path("whole/results.json").read_text())
    for name in ("history_sha256", "validation", "metrics"):
        assert results[name] == whole[name], name
    assert Path("r/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert f"it was ended after {done} of 5000 iterations" in run("train", "--resume", "r").err
    # It can be given more all the same.
    assert run("train", "--resume", "r", "--iterations", done + 70).code == 0
    assert run("train", "--iterations", done + 70, *options, "--out", "more").code == 0
    assert digest(Path("r")) == digest(Path("more"))


def test_what_cannot_be_finished(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, words in (
        (("--finish",), "name its folder with --resume"),
        (("--finish", "--resume", "r", "--iterations", 9), "leave one of the two options out"),
        (("--finish", "--resume", "r"), "no training to resume in r"),
    ):
        result = run("train", *arguments)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert words in result.err
    stop_soon(monkeypatch, 1)
    assert run("train", "--iterations", 500, "--out", "r").code == 130
    result = run("train", "--finish", "--resume", "r")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "In r no iterations are kept to make results from; go on without --finish." in result.err


def test_too_few_iterations_change_no_plan(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    again = stop_soon(monkeypatch, 150)
    assert run("train", "--iterations", 300, "--out", "r").code == 130
    again()
    plan = Path("r/plan.json").read_bytes()
    result = run("train", "--resume", "r", "--iterations", 10)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "iterations already; give it more." in result.err
    assert Path("r/plan.json").read_bytes() == plan
    result = run("train", "--resume", "r", "--iterations", 260)
    assert (result.code, "260 iterations" in result.out) == (0, True), result.err


def test_a_run_that_stopped_by_itself_needs_no_more(run: Callable[..., Result]) -> None:
    assert run("train", "--iterations", 300, "--stop-cost", 0.5, "--out", "r").code == 0
    result = run("train", "--resume", "r", "--iterations", 400)
    assert result.code == 0
    assert "The run r is complete: it stopped by itself (cost) after 2 iterations, and more would" in result.err


def test_plans_of_other_versions(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    again = stop_soon(monkeypatch)
    assert run("train", "--iterations", 500, "--l2", 0, "--out", "r").code == 130
    again()
    plan = json.loads(Path("r/plan.json").read_text())
    content = {**plan, "options": {**plan["options"], "shrink_rate": 0.1}}
    Path("r/plan.json").write_text(json.dumps(content))
    result = run("train", "--resume", "r")
    assert result.code == 2
    assert result.err == (
        "Error: r/plan.json is no plan that this xlogreg can resume: it has options of a newer one (shrink_rate); "
        "resume it with that, or train anew.\n"
    )
    # Whatever came after the plan was written has its default.
    content = {**plan, "options": {name: plan["options"][name] for name in ("source", "iterations", "device")}}
    Path("r/plan.json").write_text(json.dumps(content))
    result = run("train", "--resume", "r")
    assert result.code == 0, result.err
    assert "Going on from iteration" in result.err


def test_options_of_the_descent_that_came_later_change_no_older_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Later(DescentOptions):
        shrink_rate: float = option(0.0, float, help="", words=lambda _: "", needs="")

    def fingerprint(options: DescentOptions) -> str:
        return fingerprint_module.fingerprint("data", [0.1], 10, options, None, None)

    monkeypatch.setattr(fingerprint_module, "ARITHMETIC_VERSION", "any")
    before = fingerprint(DescentOptions(l2=0.1))
    monkeypatch.setattr(fingerprint_module, "DescentOptions", Later)
    assert fingerprint(Later(l2=0.1)) == before
    assert len({fingerprint(Later(l2=0.1, shrink_rate=rate)) for rate in (0.0, 0.1, 0.2)}) == 3
    # As it was before options could come.
    assert before == "1f441ba36979a61b276402453c23b2c1cff48ba2e662fc14fc6287a7eadcb501"


def test_more_iterations_of_a_training_from_a_model(run: Callable[..., Result]) -> None:
    assert run("train", "--iterations", 5, "--out", "first").code == 0
    for out, iterations in (("r", 5), ("whole", 8)):
        assert run("train", "--iterations", iterations, "--start", "first", "--out", out).code == 0
    result = run("train", "--resume", "r", "--iterations", 8)
    assert result.code == 0, result.err
    assert Path("r/history.csv").read_bytes() == Path("whole/history.csv").read_bytes()
    assert json.loads(Path("r/plan.json").read_text())["options"]["start"] == "first"


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_and_what_it_says(tmp_path: Path) -> None:
    options = {"cwd": tmp_path, "env": environment(tmp_path), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for number, wanted in enumerate((signal.SIGINT, signal.SIGTERM)):
        with subprocess.Popen(command("--iterations", 10**6, "--checkpoint", 0), text=True, **options) as process:  # type: ignore[call-overload]
            run = tmp_path / "runs" / f"birds-{number + 1}"
            for _ in range(2000):
                if (run / CHECKPOINTS[1]).exists():  # the second one, after some iterations
                    break
                time.sleep(0.01)
            process.send_signal(wanted)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert f"Go on with: xlogreg train --resume runs/birds-{number + 1}" in errors
        assert "Traceback" not in errors
        assert "Stopped after 0 of" not in errors


def test_what_cannot_be_resumed(run: Callable[..., Result]) -> None:
    def complaint(*arguments: object) -> str:
        result = run("train", *arguments)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        return result.err

    Path("r").mkdir()
    assert "no training to resume in r" in complaint("--resume", "r")
    assert "no training to resume in nowhere" in complaint("--resume", "nowhere")
    assert "leave --learning-rate out" in complaint("--resume", "r", "--learning-rate", 0.1)
    for text in ("", "{}", "[1]", '{"format": "xlogreg plan 1", "options": {}}', "\x00", "[" * 5000):
        Path("r/plan.json").write_text(text)
        assert "is no plan that this xlogreg can resume" in complaint("--resume", "r")
