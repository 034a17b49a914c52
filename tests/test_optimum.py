"""The time to the optimum: answers are judged before times are taken, and the report shows what was measured."""

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import python
from PIL import Image

pytest.importorskip("numba")

from xlogreg.benchmarking import optimum, optimum_report
from xlogreg.benchmarking.minimisers import MINIMISERS, ONE_THREAD, OURS, Minimiser, by_name
from xlogreg.benchmarking.optimum import GOALS, Judge, Question, compete, load_question, reached, synthetic
from xlogreg.commands.benchmark import benchmark
from xlogreg.data import cifar10, fetch
from xlogreg.errors import InputError
from xlogreg.neuron.options import DescentOptions
from xlogreg.neuron.reference import Reference

FEW = Question(150, 0.1, "few")


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum, "cached_cifar10", lambda: None)
    monkeypatch.setattr(optimum, "PAUSE", 0.0)


def test_contest_and_report(tmp_path: Path) -> None:
    results = compete([FEW], False, 2, lambda step: None)
    optimum_report.write_report(tmp_path, results)
    assert json.loads((tmp_path / "optimum.json").read_text()) == results
    (question,) = results["questions"]
    assert question["origin"] == "150 synthetic pictures"
    assert not question["skipped"]
    assert {(entry["family"], entry["goal"]) for entry in question["entries"]} == {
        (family, goal) for family in (OURS, ONE_THREAD) for goal in GOALS
    }
    for entry in question["entries"]:
        assert len(entry["seconds"]) == 2
        assert entry[entry["goal"]] <= GOALS[entry["goal"]]
        assert entry["family"] != OURS or entry["ratio"] == 1
    # Threads change no bit, so nothing that the judge finds.
    first, second = (
        [(run["steps"], run["gradient"], run["cost"]) for run in runs] for runs in question["runs"].values()
    )
    assert first == second
    text = (tmp_path / "optimum.md").read_text()
    assert f"| {OURS} |" in text
    assert "NOT THERE" not in text
    with Image.open(tmp_path / "optimum.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    page = optimum_report.put_into("a\n<!-- table of optimum.json -->\nold\n<!-- end of the table -->\nb\n", results)
    assert page.startswith("a\n")
    assert page.endswith("\n<!-- end of the table -->\nb\n")
    assert "old" not in page
    assert optimum_report.put_into(page, results) == page
    with pytest.raises(InputError, match="comments"):
        optimum_report.put_into("no table", results)


def test_the_judge_sees_who_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, question = load_question(FEW)
    judge = Judge(x, y, question.l2)
    at_start = judge({"w": [0.0] * x.shape[1], "b": 0.0})
    assert not any(reached(at_start, goal) for goal in GOALS)
    assert not reached({"cost": float("nan")}, "cost")
    assert judge.best < float(np.log(2))

    class Lazy:
        contestant = by_name(next(one.name for one in MINIMISERS if one.family == OURS))

        def __init__(self, *_: Any) -> None:
            pass

        def ask(self, request: dict[str, Any]) -> dict[str, Any]:
            return {"seconds": 99.0, "steps": 1, "memory": None, "w": [0.0] * x.shape[1], "b": 0.0}

        def close(self) -> None:
            pass

    monkeypatch.setattr(optimum, "Worker", Lazy)
    runs, error = optimum._alone(Lazy.contestant, {}, judge, 10.0)
    assert (len(runs), error) == (1, "")
    with pytest.raises(InputError, match="did not arrive"):
        compete([FEW], False, 1, lambda step: None)


@pytest.mark.parametrize("family", sorted({one.family for one in MINIMISERS}))
def test_every_minimiser_that_is_installed_arrives(family: str) -> None:
    one = next(one for one in MINIMISERS if one.family == family)
    if not one.installed:
        pytest.skip(f"{one.needs} is not installed")
    rng = np.random.RandomState(0)
    x = rng.randint(0, 256, (80, 12), dtype=np.uint8)
    y = (x[:, 0] > rng.randint(0, 256, 80)).astype(np.int64)
    # In a process of its own: libraries set the whole process up, for float64 say.
    script = f"""
import sys, json
sys.path[:] = {sys.path!r}
import numpy as np
from xlogreg.benchmarking.minimisers import by_name
w, b, steps = by_name({one.name!r}).setup(np.array({x.tolist()}, np.uint8), np.array({y.tolist()}), 0.01)(1e-5)
print(json.dumps([np.asarray(w, float).tolist(), b, steps]))
"""
    w, b, steps = json.loads(python(script))
    found = Reference(x, 1.0 - 2.0 * y[None], l2=np.array([0.01])).evaluate(np.array([w]), np.array([b]))
    assert float(found.largest[0]) <= 1e-4
    assert steps > 0


def test_names_and_sizes() -> None:
    names = [one.name for one in MINIMISERS]
    assert len(set(names)) == len(names)
    assert MINIMISERS[0].family == OURS
    assert not Minimiser("x", lambda *_: None, "no_such_package", 1).installed  # type: ignore[arg-type, return-value]
    assert Question(1900, 1.0, "").l2 == 1 / 1900
    assert DescentOptions(solver="lbfgs").gradient_tolerance == optimum.TOLERANCES[0]


def test_synthetic_pictures_look_like_the_built_in_ones() -> None:
    x, y = synthetic(3000)
    birds = optimum.load_birds()
    for label, wanted in ((0, birds.labels != 2), (1, birds.labels == 2)):
        rows = birds.x[wanted].reshape(-1, 3072)
        assert abs(x[y == label].mean(axis=0) - rows.mean(axis=0)).max() < 12
        assert abs(x[y == label].std() - rows.std()) < 5
    # Neighbours are alike, as in pictures.
    assert np.corrcoef(x[:, 0], x[:, 3])[0, 1] > 0.8


def test_pictures_of_cifar10(tmp_path: Path) -> None:
    assert optimum.cached_cifar10 is not fetch.cached_cifar10
    rng = np.random.RandomState(0)
    data, labels = rng.randint(0, 256, (cifar10.BATCH_PICTURES, 3072), dtype=np.uint8), [2] * cifar10.BATCH_PICTURES
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": data, b"labels": labels}, 2))
    question = Question(100, 1.0, "some of CIFAR-10")
    for path in (tmp_path, tmp_path / "data_batch_1"):
        x, y, found = load_question(question, path)
        assert found == question
        assert x.shape == (100, 3072)
        assert (x[0].reshape(32, 32, 3)[:, :, 0].ravel() == data[0, :1024]).all()
        assert y.sum() == 100
    assert load_question(replace(question, pictures=1900))[2].pictures == 1900


def test_options_of_the_command() -> None:
    def measure(**options: Any) -> None:
        defaults = {"peers": False, "optimum": True, "pictures": None, "rounds": 1, "device": "cpu", "data": None}
        benchmark(**{**defaults, "out": None, "as_json": True, **options})

    with pytest.raises(InputError, match="cpu only"):
        measure(device="gpu")
    with pytest.raises(InputError, match="choose from 1900, 10000, 50000"):
        measure(pictures=[7])
    with pytest.raises(InputError, match="--data goes with --optimum"):
        measure(optimum=False, data=Path("x"))
