"""The benchmark takes answers before times, and its report shows what was measured."""

import importlib
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("numba")

from xlogreg import arrays
from xlogreg.benchmarking import cpu, gpu, report, rounds
from xlogreg.benchmarking.contestants import CONTESTANTS, FOUR_RATES, ON_GPU, OURS, Contestant, by_name
from xlogreg.benchmarking.limits import Limits
from xlogreg.benchmarking.problems import SIZES, SIZES_ON_GPU, TUTORIAL, Problem, digest_by
from xlogreg.benchmarking.report import write_report
from xlogreg.benchmarking.rounds import compete
from xlogreg.commands.benchmark import benchmark
from xlogreg.errors import InputError
from xlogreg.proof import tutorial


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"copy_gb_s": 40.0, "read_gb_s": 20.0, "multiply_adds_g_s": 160.0, "threads": 2, "vector_bytes": 64}
    limits = Limits("Fake CPU", values, lambda pixels: {"reading": pixels / 1e7})
    monkeypatch.setattr(rounds, "_measure", lambda _: limits)
    monkeypatch.setattr(rounds, "PAUSE", 0.0)


@pytest.mark.usefixtures("quick")
def test_contest_and_report(tmp_path: Path) -> None:
    problems = [Problem(90, 12, "few"), Problem(130, 8, "more", steady_iterations=3)]
    names = [OURS, FOUR_RATES.format(OURS), "xlogreg reference (NumPy)", "tutorial's loop (NumPy float64)",
             "NumPy float32"]  # fmt: skip
    steps: list[str] = []
    results = compete(problems, names, 3, steps.append)
    write_report(tmp_path, results)
    assert json.loads((tmp_path / "peers.json").read_text()) == results
    for problem, measured in zip(problems, results["problems"], strict=True):
        assert not measured["skipped"]
        assert set(measured["contestants"]) == set(names)
        assert measured["history_sha256"] == digest_by("reference", problem)
        for name, entry in measured["contestants"].items():
            assert len(entry["seconds"]) == 3
            few = problem.steady_iterations and not name.startswith("xlogreg fused")
            assert entry["iterations"] == (problem.steady_iterations if few else problem.iterations)
            assert min(entry["seconds"]) > 0
            assert abs(entry["deviation"]) < 1e-4
            assert ("digest" in entry) == name.startswith("xlogreg")
        assert measured["contestants"][OURS]["ratio"] == 1
    text = (tmp_path / "peers.md").read_text()
    assert "| xlogreg fused |" in text
    assert "0 (same bits)" in text
    assert "did 3 of them" in text
    with Image.open(tmp_path / "peers.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    assert any("round 3 of 3" in step for step in steps)


def test_wrong_answers_are_found() -> None:
    problem, right = Problem(90, 12, ""), {"cost": 0.5, "digest": "a"}
    ours, float32, lbfgs = by_name(OURS), by_name("NumPy float32"), by_name("scikit-learn lbfgs, to equal cost")
    assert rounds._wrong(ours, right, right, problem) == ""
    assert "WRONG" in rounds._wrong(ours, {"cost": 0.5, "digest": "b"}, right, problem)
    # A problem that is measured has a digest of its own, by the reference: the first answer is no judge of itself.
    assert "WRONG" in rounds._wrong(ours, right, right, TUTORIAL)
    golden = {"cost": 0.5, "digest": tutorial.GOLDEN_SHA256}
    assert rounds._wrong(ours, golden, golden, TUTORIAL) == ""
    for cost, fine in ((0.50001, True), (0.51, False), (float("nan"), False)):
        wrong = rounds._wrong(float32, {"cost": cost, "digest": None}, right, problem)
        assert (wrong == "") == fine
    assert rounds._wrong(lbfgs, {"cost": 0.4, "digest": None}, right, problem) == ""
    assert "WRONG" in rounds._wrong(lbfgs, {"cost": 0.6, "digest": None}, right, problem)


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(problem, id=str(problem.pictures), marks=pytest.mark.slow if problem.pictures > 10_000 else ())
        for problem in SIZES if problem.pictures in (10_000, 50_000)
    ],
)  # fmt: skip
def test_the_digests_of_the_measured_problems(problem: Problem) -> None:
    # By the fused kernel here; `python -m xlogreg.benchmarking.problems` computes them by the reference.
    assert digest_by("fused", problem) == problem.digest


@pytest.mark.usefixtures("quick")
def test_contestants_that_do_not_fit_together_take_turns_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = 90 * 3072
    monkeypatch.setattr(rounds, "_free_memory", lambda _: pixels * 24.0)
    ours, *others = (by_name(name) for name in (OURS, "tutorial's loop (NumPy float64)", "JAX jit + scan float64"))
    skipped: dict[str, str] = {}
    group, later = rounds.group_of(90, ours, others, skipped)
    assert (group, later, skipped) == ([ours, others[0]], [others[1]], {})
    names = [OURS, "NumPy float32", "tutorial's loop (NumPy float64)", "xlogreg reference (NumPy)"]
    (measured,) = compete([Problem(90, 2, "")], names, 1, lambda _: None)["problems"]
    assert set(measured["contestants"]) == set(names)
    assert not measured["skipped"]


def test_a_process_that_dies_says_why(tmp_path: Path) -> None:
    worker = rounds.Worker(by_name(OURS))
    try:
        missing = {"x": str(tmp_path / "x.npy"), "y": str(tmp_path / "y.npy"), "rate": 0.1}
        assert "No such file" in worker.ask({"setup": missing})["error"]
        worker.process.stdin.write("this is no JSON\n")  # type: ignore[union-attr]
        assert "its process ended" in (answer := worker.ask({"run": 1})["error"])
        assert "JSONDecodeError" in answer
    finally:
        worker.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_process_that_is_killed_or_late_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_PATIENCE", 1.0)
    for number, words in (
        (signal.SIGKILL, "was killed (signal 9)"), (signal.SIGSTOP, "it answered nothing for 0 minutes"),
    ):  # fmt: skip
        worker = rounds.Worker(by_name(OURS))
        try:
            worker.process.send_signal(number)
            assert words in worker.ask({"setup": {}})["error"]
        finally:
            worker.close()


@pytest.mark.usefixtures("quick")
def test_a_contestant_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_free_memory", lambda _: 90 * 3072 * 5.0)
    results = compete([Problem(90, 2, "")], [OURS, "tutorial's loop (NumPy float64)"], 1, lambda _: None)
    (measured,) = results["problems"]
    assert list(measured["contestants"]) == [OURS]
    assert "memory" in measured["skipped"]["tutorial's loop (NumPy float64)"]


def test_the_best_limits_count_for_all_sizes() -> None:
    def results(copy: float, rate: float, bound: float) -> dict[str, Any]:
        problem = {"bound_ms": {"one read of the pixels": 1.0, "multiply-adds": bound}}
        limits = {"copy_gb_s": copy, "read_gb_s": 5.0, "multiply_adds_g_s": rate, "threads": 2}
        return {"date": f"day {copy}", "limits": limits, "problems": [problem]}

    first = rounds.joined({}, results(3.0, 10.0, 4.0))
    both = rounds.joined(rounds.joined(first, results(2.0, 20.0, 7.0)), results(4.0, 16.0, 10.0))
    assert both["date"] == "day 3.0"
    assert both["limits"] == {"copy_gb_s": 4.0, "read_gb_s": 5.0, "multiply_adds_g_s": 20.0, "threads": 2}
    assert [problem["bound_ms"]["multiply-adds"] for problem in both["problems"]] == [2.0, 7.0, 8.0]
    assert [problem["bound_ms"]["one read of the pixels"] for problem in both["problems"]] == [1.0] * 3


def test_every_contestant_has_a_name_of_its_own() -> None:
    assert len({contestant.name for contestant in CONTESTANTS}) == len(CONTESTANTS)


@pytest.mark.usefixtures("quick")
def test_report_of_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The way from the contest to the report, with contestants of the processor in the GPU's place."""
    ours = Contestant(ON_GPU, by_name(OURS).setup, "numba", 1, device="gpu")
    monkeypatch.setattr(rounds, "contestants_on", lambda _: [ours, by_name("NumPy float32")])
    monkeypatch.setattr(rounds, "_measure", lambda _: gpu.limits("Fake GPU", 4000.0, 2e-6, 132))
    monkeypatch.setattr(rounds, "_free_memory", lambda _: 1e9)
    monkeypatch.setattr(rounds, "_WORKER", [sys.executable, "-c", _FAKE_WORKER])
    results = compete([Problem(90, 12, "few"), Problem(130, 8, "more")], None, 2, lambda step: None, "gpu")
    write_report(tmp_path, results)
    assert results["device"] == "gpu"
    assert results["problems"][0]["contestants"][ON_GPU]["ratio"] == 1
    text = (tmp_path / "peers.md").read_text()
    assert "Fake GPU" in text
    assert "2.00 microseconds for the two grid barriers" in text
    assert "| xlogreg fused (GPU) |" in text


def test_one_gpu_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(device: str) -> None:
        benchmark(peers=True, optimum=False, data=None, pictures=None, rounds=1, device=device, out=None, as_json=True)

    importlib.import_module("xlogreg.commands.console")  # loaded later, what it imports would keep the stand-in
    monkeypatch.setattr(arrays, "choose_device", lambda word: (_ for _ in ()).throw(KeyError(word)))
    for seen, device, now in (("", "gpu:3", "3"), ("5,7", "gpu:1", "7"), ("5", "gpu:0", "5"), ("5", "gpu", "5")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        with pytest.raises(KeyError, match="gpu"):
            measure(device)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == now
    for word in ("auto", "tpu", "gpu:x", "cpu:1"):
        with pytest.raises(InputError, match="choose cpu, gpu or gpu:N"):
            measure(word)


def test_a_gpu_does_more_iterations_of_the_same_problems() -> None:
    assert [problem.pictures for problem in SIZES_ON_GPU] == [problem.pictures for problem in SIZES]
    for problem in SIZES_ON_GPU[:3]:
        assert problem.iterations == 2000
        assert len(problem.digest) == 64


@pytest.mark.usefixtures("quick")
def test_results_are_kept_after_each_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = []

    def one(problems: list[Problem], *_: object) -> dict:
        if kept or (tmp_path / "peers.json").exists():
            kept.append(json.loads((tmp_path / "peers.json").read_text())["problems"])
        (problem,) = problems
        return {"limits": {"threads": problem.pictures}, "problems": [problem.pictures]}

    monkeypatch.setattr(rounds, "compete", one)
    monkeypatch.setattr(
        report, "write_report", lambda folder, results: (folder / "peers.json").write_text(json.dumps(results))
    )
    benchmark(
        peers=True, optimum=False, data=None, pictures=[1900, 10_000, 50_000], rounds=1, device="cpu", out=tmp_path,
        as_json=True,
    )  # fmt: skip
    assert kept == [[1900], [1900, 10_000]]
    assert json.loads((tmp_path / "peers.json").read_text()) == {
        "limits": {"threads": 1900}, "problems": [1900, 10_000, 50_000]
    }  # fmt: skip


def test_all_of_the_gpus_steps_take_less_than_nine_minutes() -> None:
    script = (Path(__file__).parent.parent / "benchmarks" / "on_gpu.sh").read_text(encoding="utf-8")
    limits_of_steps = [int(seconds) for seconds in re.findall(r"^ *step \w+ (\d+) ", script, re.MULTILINE)]
    (kill,) = re.findall(r"--kill-after=(\d+)", script)
    assert len(limits_of_steps) == 9
    assert sum(limits_of_steps) + len(limits_of_steps) * int(kill) < 540


# A worker to which the GPU's name means the processor's kernel.
_FAKE_WORKER = f"""
import sys
from xlogreg.benchmarking import worker
from xlogreg.benchmarking.contestants import ON_GPU, by_name
worker.by_name = lambda name: by_name({OURS!r} if name == ON_GPU else name)
worker.main()
"""


def test_the_limits_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_BYTES", 2**20)
    monkeypatch.setattr(cpu, "_REPEATS", 20)
    for odd in range(5):  # memory that begins anywhere
        kept = np.zeros(1000 * odd + 8)
        found = cpu.measure_cpu(1)
        assert min(*found.values.values(), *found.bounds(200).values(), len(kept)) > 0
