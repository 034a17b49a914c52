"""The benchmark takes answers before times, and its report shows what was measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("numba")

from xlogreg import tutorial
from xlogreg.benchmarking import gpu, limits, rounds
from xlogreg.benchmarking.contestants import CONTESTANTS, FOUR_RATES, OURS, Contestant, by_name
from xlogreg.benchmarking.problems import TUTORIAL, Problem, load
from xlogreg.benchmarking.report import write_report
from xlogreg.benchmarking.rounds import compete
from xlogreg.descent import history_sha256
from xlogreg.logistic import optimize


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "measure", lambda: limits.Limits(40.0, 20.0, 160.0, 2, 64))
    monkeypatch.setattr(rounds, "_PAUSE", 0.0)


@pytest.mark.usefixtures("quick")
def test_contest_and_report(tmp_path: Path) -> None:
    problems = [Problem(90, 12, "few"), Problem(130, 8, "more")]
    names = [OURS, FOUR_RATES, "tutorial's loop (NumPy float64)", "NumPy float32"]
    steps: list[str] = []
    results = compete(problems, names, 3, steps.append)
    write_report(tmp_path, results)
    assert json.loads((tmp_path / "peers.json").read_text()) == results
    for problem, measured in zip(problems, results["problems"], strict=True):
        assert not measured["skipped"]
        assert set(measured["contestants"]) == set(names)
        x, y = load(problem)
        costs = optimize(
            np.zeros((3072, 1)), 0, x.T, y.reshape(1, -1), problem.iterations, results["learning_rate"], record_every=1
        )[2]
        assert measured["history_sha256"] == history_sha256(costs)
        for name, entry in measured["contestants"].items():
            assert len(entry["seconds"]) == 3
            assert min(entry["seconds"]) > 0
            assert abs(entry["deviation"]) < 1e-4
            assert ("digest" in entry) == name.startswith("xlogreg")
        assert measured["contestants"][OURS]["ratio"] == 1
    text = (tmp_path / "peers.md").read_text()
    assert "| xlogreg fused |" in text
    assert "0 (same bits)" in text
    with Image.open(tmp_path / "peers.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    assert any("round 3 of 3" in step for step in steps)


def test_wrong_answers_are_found() -> None:
    problem, right = Problem(90, 12, ""), {"cost": 0.5, "digest": "a"}
    ours, float32, lbfgs = by_name(OURS), by_name("NumPy float32"), by_name("scikit-learn lbfgs, to equal cost")
    assert rounds._wrong(ours, right, 0.5, "a", problem) == ""
    assert "WRONG" in rounds._wrong(ours, right, 0.5, "b", problem)
    assert "WRONG" in rounds._wrong(ours, {"cost": 0.5, "digest": "a"}, 0.5, "a", Problem(1900, 2000, ""))
    golden = {"cost": 0.5, "digest": tutorial.GOLDEN_SHA256}
    assert rounds._wrong(ours, golden, 0.5, tutorial.GOLDEN_SHA256, TUTORIAL) == ""
    assert rounds._wrong(float32, {"cost": 0.50001, "digest": None}, 0.5, "a", problem) == ""
    assert "WRONG" in rounds._wrong(float32, {"cost": 0.51, "digest": None}, 0.5, "a", problem)
    assert "WRONG" in rounds._wrong(float32, {"cost": float("nan"), "digest": None}, 0.5, "a", problem)
    assert rounds._wrong(lbfgs, {"cost": 0.4, "digest": None}, 0.5, "a", problem) == ""
    assert "WRONG" in rounds._wrong(lbfgs, {"cost": 0.6, "digest": None}, 0.5, "a", problem)


@pytest.mark.usefixtures("quick")
def test_a_contestant_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_free_memory", lambda: 90 * 3072 * 5.0)
    results = compete([Problem(90, 2, "")], [OURS, "tutorial's loop (NumPy float64)"], 1, lambda _: None)
    (measured,) = results["problems"]
    assert list(measured["contestants"]) == [OURS]
    assert "memory" in measured["skipped"]["tutorial's loop (NumPy float64)"]


def test_every_contestant_has_a_name_of_its_own() -> None:
    assert len({contestant.name for contestant in CONTESTANTS}) == len(CONTESTANTS)


@pytest.mark.usefixtures("quick")
def test_report_of_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The way from the contest to the report, with contestants of the processor in the GPU's place."""
    ours = Contestant(gpu.OURS, by_name(OURS).setup, "numba", 1.0, True, 0.0, device="gpu")
    monkeypatch.setattr(gpu, "CONTESTANTS", (ours, by_name("NumPy float32")))
    monkeypatch.setattr(gpu, "measure_gpu", lambda: gpu.GpuLimits("Fake GPU", 4000.0, 2e-6, 132))
    monkeypatch.setattr(rounds, "_WORKER", [sys.executable, "-c", _FAKE_WORKER])
    results = compete([Problem(90, 12, "few"), Problem(130, 8, "more")], None, 2, lambda step: None, "gpu")
    write_report(tmp_path, results)
    assert results["device"] == "gpu"
    assert results["problems"][0]["contestants"][gpu.OURS]["ratio"] == 1
    text = (tmp_path / "peers.md").read_text()
    assert "Fake GPU" in text
    assert "2.00 microseconds for the two grid barriers" in text
    assert "| xlogreg fused (GPU) |" in text


# A worker to which the GPU's name means the processor's kernel.
_FAKE_WORKER = f"""
import sys
from xlogreg.benchmarking import gpu, worker
from xlogreg.benchmarking.contestants import by_name
worker.by_name = lambda name: by_name({OURS!r} if name == gpu.OURS else name)
worker.main()
"""
