"""The command line as people use it: what it prints, what it keeps, and one sentence with exit code 2 for bad input."""

import csv
import dataclasses
import functools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import Result, bomb, environment
from PIL import Image

from xlogreg.data.birds import load_birds
from xlogreg.data.task import make_task
from xlogreg.models.classifier import Classifier
from xlogreg.models.evaluation import predict_task
from xlogreg.proof import doctor, tutorial
from xlogreg.runs import training
from xlogreg.runs.gallery import write_gallery
from xlogreg.runs.training import Training
from xlogreg.solvers.descent import history_sha256


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a short training, by the installed command in a process of its own."""
    folder = tmp_path_factory.mktemp("trained")
    done = subprocess.run(
        [sys.executable, "-m", "xlogreg", "train", "--iterations", "250", "--device", "cpu", "--checkpoint", "3600"],
        cwd=folder, capture_output=True, text=True, check=False,
        env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    return folder / "runs" / "birds-1"


def test_run_folder(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "results.json", "history.csv", "model.safetensors", "examples.png", "cost_history.png", "test_picture.png",
        "evaluation.png", "most_wrong.png", "most_certain.png", "weights.png", "report.html", "predictions.csv",
        "pictures.png", "pictures.json",
        # What more iterations need.
        "plan.json", "checkpoint-0.safetensors",
    }  # fmt: skip
    results = json.loads((trained / "results.json").read_text())
    for key in ("data", "task", "device", "implementation", "learning_rate", "iterations", "cost_history",
                "history_sha256", "train_accuracy", "test_accuracy", "seconds", "seconds_per_iteration"):  # fmt: skip
        assert key in results
    with open(trained / "history.csv", newline="") as file:
        history = [float(row["cost"]) for row in csv.DictReader(file)]
    # 17 digits keep every bit: the digest can be checked from the table.
    assert history_sha256(history) == results["history_sha256"]
    assert history_sha256(history[:100]) == tutorial.GOLDEN_SHA256_100
    assert results["cost_history"] == history[::100]
    model = Classifier.load(trained)
    assert model.history_sha256 == results["history_sha256"]
    for name in ("examples.png", "cost_history.png", "test_picture.png"):
        with Image.open(trained / name) as picture:
            assert min(picture.size) > 200
            assert np.asarray(picture.convert("L")).std() > 5


def test_a_carriage_return_in_a_files_name_comes_back(tmp_path: Path) -> None:
    task = make_task(load_birds(), "bird")
    names = tuple(f"a\r{number}\n,.png" for number in range(len(task.y_test)))
    model = Classifier(np.ones((3072, 1)), 0.0, task.class_names, task.size, 0.1, 1, "", "", "")
    write_gallery(tmp_path, predict_task(model, dataclasses.replace(task, files_test=names)))
    with open(tmp_path / "predictions.csv", newline="") as file:
        found = [row["file"] for row in csv.DictReader(file) if row["part"] == "test"]
    assert tuple(found) == names


@pytest.mark.plots
def test_reproduce(run: Callable[..., Result]) -> None:
    result = run("reproduce", "--device", "cpu", "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert report["reproduced"] is True
    assert list(report["stages"]) == ["program", "device", "data", "training", "evaluation", "pictures and report"]
    assert min(report["stages"].values()) >= 0
    assert report["stages"]["training"] == report["seconds"]
    assert report["largest_cost_difference"] < 2e-15
    assert report["history_sha256"]["0.005"] == tutorial.GOLDEN_SHA256
    assert report["accuracies"] == {f"{rate:g}": list(both) for rate, both in tutorial.ACCURACIES.items()}
    folder = Path(report["folder"])
    assert folder == Path("runs/reproduce-1")
    for name in ("examples", "cost_history", "learning_rates", "test_picture", "own_picture"):
        assert (folder / f"{name}.png").stat().st_size > 5000
    assert json.loads((folder / "comparison.json").read_text())["reproduced"] is True
    assert json.loads((folder / "results.json").read_text())["stages"] == report["stages"]
    page = (folder / "report.html").read_text()
    assert "Reproduced." in page
    assert "as the neuron sees it" in page
    assert all(page.count(repr(value)) >= 2 for both in tutorial.ACCURACIES.values() for value in both)
    assert all((folder / f"rate-{rate:g}" / "report.html").is_file() for rate in (0.01, 0.001, 0.0001))


@pytest.fixture(scope="module")
def tutorials_trainings() -> list[Training]:
    return training.train(make_task(load_birds(), "bird"), tutorial.LEARNING_RATES, tutorial.ITERATIONS)


@pytest.fixture
def trained_before(tutorials_trainings: list[Training], monkeypatch: pytest.MonkeyPatch) -> None:
    """`reproduce` takes what was trained already, the same every time."""
    monkeypatch.setattr(training, "train", lambda *_, **__: tutorials_trainings)


@pytest.mark.usefixtures("trained_before")
def test_reproduce_with_the_authors_eagle(run: Callable[..., Result], real_data: Path) -> None:
    result = run("reproduce", "--picture", real_data / "eagle.jpeg")
    assert result.code == 0, result.err
    assert "eagle.jpeg: bird (probability of bird 0.60" in result.out
    assert result.out.count("0.6931471805599465") == 1
    assert all(repr(cost) in result.out for cost in tutorial.COST_HISTORY)
    assert all(result.out.count(repr(value)) >= 2 for both in tutorial.ACCURACIES.values() for value in both)
    assert tutorial.GOLDEN_SHA256 in result.out


@pytest.mark.usefixtures("trained_before")
def test_reproduce_says_so_when_a_number_differs(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    changed = (*tutorial.COST_HISTORY[:-1], 0.57)
    monkeypatch.setattr(tutorial, "COST_HISTORY", changed)
    result = run("reproduce")
    assert result.code == 1
    assert "NO  largest cost difference" in result.out


def test_train_json_and_numbered_folders(run: Callable[..., Result]) -> None:
    folders = []
    for positive in ("bird", "cat"):
        result = run("train", "--positive", positive, "--iterations", 3, "--json", "--implementation", "reference")
        assert result.code == 0, result.err
        report = json.loads(result.out)
        assert report["task"]["positive"] == positive
        folders.append(report["folder"])
    assert folders == [str(Path("runs/birds-1")), str(Path("runs/birds-2"))]


def test_train_on_a_batch_and_a_folder(run: Callable[..., Result], real_data: Path, tmp_path: Path) -> None:
    result = run("train", real_data / "cifar-10-batches-py" / "data_batch_1", "--iterations", 100, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["history_sha256"] == tutorial.GOLDEN_SHA256_100
    result = run("train", "cifar10", "--data", real_data / "cifar-10-batches-py")
    assert result.code == 2
    assert "data_batch_2" in result.err


@pytest.mark.plots
def test_sweep(run: Callable[..., Result]) -> None:
    result = run("sweep", "--learning-rate", 0.005, "--learning-rate", 0.01, "--iterations", 100, "--out", "here")
    assert result.code == 0, result.err
    assert tutorial.GOLDEN_SHA256_100[:16] in result.out
    assert {path.name for path in Path("here").iterdir()} == {
        "learning_rates.png",
        "report.html",
        "sweep.json",
        "rate-0.005",
        "rate-0.01",
    }
    runs = json.loads(Path("here/sweep.json").read_text())["runs"]
    assert [item["learning_rate"] for item in runs] == [0.005, 0.01]
    assert runs[0]["history_sha256"] == tutorial.GOLDEN_SHA256_100
    assert (Path("here/rate-0.01/model.safetensors")).is_file()


def test_sweep_of_several_classes(run: Callable[..., Result]) -> None:
    rates = ("--learning-rate", 0.01, "--learning-rate", 0.001)
    result = run("sweep", "--positive", "bird", "--positive", "frog", *rates, "--iterations", 20, "--json")
    runs = {(r["task"]["positive"], r["learning_rate"]): r for r in json.loads(result.out)["runs"]}
    assert len(runs) == 4
    for positive, rate in (("bird", 0.001), ("frog", 0.01)):
        together = runs[positive, rate]
        alone = run(
            "train", "--positive", positive, "--learning-rate", rate, "--iterations", 20, "--balance", "none", "--json"
        )
        assert json.loads(alone.out)["history_sha256"] == together["history_sha256"]
        assert json.loads(alone.out)["test_accuracy"] == together["test_accuracy"]
    assert (Path(json.loads(result.out)["folder"]) / "frog-rate-0.01" / "model.safetensors").is_file()
    assert run("sweep", "--positive", "bird", "--positive", "cat", "--balance", "first").code == 2
    shown = run("sweep", "--positive", "bird", "--positive", "frog", "--iterations", 2, *rates[:2]).out.splitlines()
    assert shown[:3] == [
        "data   built-in birds (CIFAR-10 data_batch_1)",
        "task   bird, frog, each against the rest: 1900 to train, 164 to test",
        "",
    ]


def test_predict(run: Callable[..., Result], trained: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60, 3), 200, dtype=np.uint8)).save(tmp_path / "a b.png")
    result = run("predict", trained, "a b.png")
    assert result.code == 0
    assert result.out.startswith("a b.png: ")
    result = run("predict", trained / "model.safetensors", "missing.png", "a b.png", "--json")
    assert result.code == 1
    first, second = (json.loads(line) for line in result.out.splitlines())
    assert first == {"path": "missing.png", "error": "There is no file missing.png; check its name."}
    assert second["label"] in ("bird", "not bird")
    assert 0 < second["probability"] < 1
    result = run("predict", trained, "missing.png", "a b.png")
    assert (result.code, result.out.count("\n")) == (1, 1)
    assert "Error: There is no file missing.png" in result.err


def test_evaluate(run: Callable[..., Result], trained: Path) -> None:
    result = run("evaluate", trained, "--json")
    assert result.code == 0
    report = json.loads(result.out)
    results = json.loads((trained / "results.json").read_text())
    for part in ("train", "test"):
        assert report[part]["accuracy"] == pytest.approx(results[f"{part}_accuracy"], abs=1e-10)
        assert sum(map(sum, report[part]["confusion"])) == report[part]["pictures"]
        assert report[part]["roc_auc"] == results["metrics"][part]["roc_auc"]
    shown = run("evaluate", trained, "--out", "judged").out
    assert "predicted bird" in shown
    assert "area under the ROC curve" in shown
    assert (Path("judged") / "report.html").is_file()
    assert json.loads(Path("judged/evaluation.json").read_text())["metrics"] == results["metrics"]
    assert run("evaluate", trained, "--out", "judged").code == 2


def test_evaluate_takes_the_split_of_the_run(run: Callable[..., Result], trained: Path) -> None:
    options = ("--seed", 3, "--test-size", 50, "--balance", "random", "--validation", 0.1, "--positive", "cat")
    assert run("train", "--iterations", 20, "--out", "odd", *options).code == 0
    results = json.loads(Path("odd/results.json").read_text())
    # Another folder to stand in, and a model file instead of its folder.
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    for arguments in (("../odd",), ("../odd/model.safetensors",), ("../odd", "birds")):
        report = json.loads(run("evaluate", *arguments, "--json").out)
        assert {part: report[part] for part in results["metrics"]} == results["metrics"]
    # What is asked for goes before.
    report = json.loads(run("evaluate", "../odd", "--test-size", 40, "--json").out)
    assert report["test"]["pictures"] == 40
    # A model by itself does not know.
    Path("alone.safetensors").write_bytes(Path("../odd/model.safetensors").read_bytes())
    result = run("evaluate", "alone.safetensors")
    assert result.code == 2
    assert "It is not recorded which pictures alone.safetensors was trained on" in result.err
    assert run("evaluate", "alone.safetensors", "birds").code == 0


def test_notes_on_a_training_that_may_be_a_mistake(run: Callable[..., Result], trained: Path) -> None:
    result = run("train", "--learning-rate", 0.5, "--iterations", 5)
    assert result.code == 0
    assert "the learning rate 0.5 is too large" in result.err
    # Not a tenth, and another tenth, until it is small enough.
    assert "try 0.005." in result.err
    result = run("train", "--positive", "cat", "--start", trained, "--iterations", 5)
    assert result.code == 0
    assert "The model to start from tells bird and 'not bird' apart, not cat and 'not cat'." in result.err


def test_report_replaces_only_pages_of_its_own(run: Callable[..., Result], trained: Path) -> None:
    assert run("report", trained, "--out", "page.html").code == 0
    assert run("report", trained, "--out", "page.html").code == 0
    Path("notes.html").write_text("mine")
    result = run("report", trained, "--out", "notes.html")
    assert result.code == 2
    assert "notes.html is there already" in result.err
    assert Path("notes.html").read_text() == "mine"
    assert run("report", trained, "--out", "notes.html", "--force").code == 0


def test_a_page_that_was_resumed_says_the_first_command(run: Callable[..., Result]) -> None:
    from xlogreg.commands.train import _DEFAULTS, _KINDS
    from xlogreg.runs.plan import Plan, read_plan, write_plan

    # As a training leaves it that was killed before its first checkpoint.
    assert run("train", "--iterations", 30, "--positive", "cat", "--out", "whole").code == 0
    whole = json.loads(Path("whole/results.json").read_text())
    Path("run").mkdir()
    plan = dict.fromkeys(_KINDS) | {
        "source": "birds", "positive": "cat", "learning_rate": 0.005, "iterations": 30, "seed": 0, "l2": 0.0,
        "momentum": 0.0, "nesterov": False, "class_weight": "none", "features": "pixels", "no_cache": False,
        "device": "auto", "implementation": "auto", "solver": "gd",
    }  # fmt: skip
    write_plan(Path("run"), Plan(plan, os.getcwd(), "xlogreg train --iterations 30 --positive cat --out run"))
    assert read_plan(Path("run"), _KINDS, _DEFAULTS).options["iterations"] == 30
    result = run("train", "--resume", "run")
    assert result.code == 0, result.err
    assert "Note: There is no checkpoint yet; training begins at the beginning.\n" in result.err
    results = json.loads(Path("run/results.json").read_text())
    assert results["history_sha256"] == whole["history_sha256"]
    assert results["command"] == "xlogreg train --iterations 30 --positive cat --out run"
    assert "--resume" not in Path("run/report.html").read_text()


def test_report(run: Callable[..., Result], trained: Path, tmp_path: Path) -> None:
    before = (trained / "report.html").read_text()
    result = run("report", trained, "--out", "page.html")
    assert (result.code, result.out) == (0, "page.html\n")
    assert Path("page.html").read_text() == before
    result = run("report", trained, trained)
    assert (result.code, result.out) == (0, "comparison.html\n")
    assert "2 runs compared" in Path("comparison.html").read_text()
    for arguments in (("nowhere",), (tmp_path,), (trained, "nowhere")):
        result = run("report", *arguments)
        assert (result.code, result.err.count("\n")) == (2, 1)


def test_doctor(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", functools.cache(doctor.examine))
    result = run("doctor", "--json")
    assert result.code == 0, result.out
    report = json.loads(result.out)
    assert report["healthy"] is True
    for solver, golden in (("gd", tutorial.GOLDEN_SHA256_100), ("lbfgs", doctor.GOLDEN_LBFGS_SHA256)):
        proofs = [proof for proof in report["proofs"] if proof["solver"] == solver]
        assert {proof["digest"] for proof in proofs} == {golden}
        assert {proof["implementation"] for proof in proofs} >= {"reference", "fused"}
    out = run("doctor").out
    assert "All bits are equal" in out
    assert tutorial.GOLDEN_SHA256_100[:16] in out
    assert "reference, reordered" in out


def test_doctor_finds_a_difference(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ITERATIONS", 2)  # of which the digest is another
    result = run("doctor")
    assert result.code == 1
    assert "NOT all equal" in result.out


def test_help_and_version(run: Callable[..., Result]) -> None:
    assert run("--version").out.startswith("xlogreg 0.")
    help_text = run("--help").out
    for command in ("reproduce", "train", "predict", "evaluate", "sweep", "report", "fetch", "doctor"):
        assert command in help_text
        assert run(command, "--help").code == 0


class RunsCode:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch ran",))


def test_bad_input_gets_one_sentence_and_exit_code_2(run: Callable[..., Result], trained: Path, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(50_000, 50_000))
    (tmp_path / "evil").write_bytes(pickle.dumps({"data": RunsCode(), "labels": [1]}, protocol=2))
    (tmp_path / "cut").write_bytes(pickle.dumps({"data": b"123"}, protocol=2)[:-4])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old").touch()
    (tmp_path / "file").touch()
    cases: list[tuple[tuple[object, ...], str]] = [
        (("train", "--learning-rate", "0"), "learning rate"),
        (("train", "--learning-rate", "-1"), "learning rate"),
        (("train", "--learning-rate", "inf"), "learning rate"),
        (("train", "--learning-rate", "nan"), "learning rate"),
        (("train", "--iterations", "0"), "iterations"),
        (("train", "--positive", "brid"), "Did you mean 'bird'"),
        (("train", "--device", "gpu"), "gpu" if _has_gpu() else "No GPU can be used"),
        (("train", "--device", "tpu"), "no device 'tpu'"),
        (("train", "--test-size", "5000"), "leaves nothing"),
        (("train", "--test-size", "1.5"), "whole number of pictures or a share"),
        (("train", "bomb.png"), "bomb.png is a picture; train on a folder"),
        (("train", "--seed", "-1"), "seed"),
        (("train", "nowhere"), "no data 'nowhere'"),
        (("train", "evil"), "system"),
        (("train", "cut"), "cut"),
        (("train", "cifar10"), "xlogreg fetch cifar10"),
        (("train", "--out", "full"), "already holds files"),
        (("train", "--out", "file/inside"), "Cannot create the folder"),
        (("train", "--learning-rate", "1e9", "--iterations", "50"), "diverged at iteration"),
        (("sweep", "--learning-rate", "0.1", "--learning-rate", "0.1"), "given twice"),
        (("predict", "nowhere", "a.png"), "no model nowhere"),
        (("predict", "file", "a.png"), "is not a model"),
        (("predict", "full", "a.png"), "holds no model"),
        (("evaluate", trained, "--positive", "dragon"), "no class 'dragon'"),
        (("reproduce", "--picture", "bomb.png"), "pixels"),
        (("reproduce", "--picture", "missing.png"), "no file"),
    ]
    if _has_gpu():
        cases = [case for case in cases if case[0][-1] != "gpu"]
    for arguments, words in cases:
        assert (result := run(*arguments)).refused(words), (arguments, result)
    assert not (tmp_path / "ran").exists()
    # Nothing half-made is left behind, not even an empty folder of a run.
    assert list((tmp_path / "runs").iterdir()) == []


def _has_gpu() -> bool:
    from xlogreg.arrays import choose_device

    return choose_device("auto").kind == "gpu"


def test_unwritable_folder(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    from xlogreg.runs import run_folder as training

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(training.Path, "write_bytes", refuse)
    result = run("train", "--out", "locked")
    assert result.code == 2
    assert "Cannot write into the folder locked: Permission denied" in result.err


def test_full_disk(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    from xlogreg.system import files

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    result = run("train", "--iterations", 2, "--out", "here")
    assert result.code == 2
    assert "No space left on device" in result.err
    assert result.err.count("\n") == 1
    assert list(Path("here").iterdir()) == []
