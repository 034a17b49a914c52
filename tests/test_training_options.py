"""Options of a whole training: validation, warm start, early ends, diverging models; in Python and as commands."""

import csv
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import Result, few_pixels
from PIL import Image

from xlogreg import kernels
from xlogreg.commands import bars
from xlogreg.data.birds import load_birds
from xlogreg.data.task import Task, as_columns, hold_out, make_task, make_tasks
from xlogreg.errors import DivergenceError, FileError, InputError, RisingCostWarning
from xlogreg.logistic import descend_many, history_sha256, model, propagate
from xlogreg.models.classifier import Classifier
from xlogreg.models.evaluation import evaluate
from xlogreg.neuron.options import DescentOptions
from xlogreg.proof import tutorial
from xlogreg.runs import plots
from xlogreg.runs.checkpoint import Checkpoints
from xlogreg.runs.run_folder import results
from xlogreg.runs.training import train, train_together
from xlogreg.solvers.advice import Adviser, safe_rate


@pytest.fixture(scope="module")
def task() -> Task:
    return few_pixels()


def test_hold_out(task: Task) -> None:
    (held,) = hold_out([task], 0.2)
    assert held.x_validation is not None
    assert held.y_validation is not None
    assert (len(held.x_train), len(held.y_train), len(held.x_validation), len(held.y_validation)) == (320, 320, 80, 80)
    assert np.array_equal(np.concatenate([held.x_train, held.x_validation]), task.x_train)
    assert np.array_equal(np.concatenate([held.y_train, held.y_validation]), task.y_train)
    assert held.x_test is task.x_test
    assert held.options["validation"] == 80
    both = hold_out(make_tasks(load_birds(), ["bird", "cat"]), 0.1)
    assert both[0].x_train is both[1].x_train
    assert both[0].x_validation is both[1].x_validation
    assert not np.array_equal(both[0].y_validation, both[1].y_validation)
    for share in (0, 400, -0.5, 0.0001, 0.9999, float("nan"), 1.0, 5.0):
        with pytest.raises(InputError, match="leaves nothing"):
            hold_out([task], share)
    one = replace(task, y_train=np.where(np.arange(400) < 380, 0, task.y_train))
    with pytest.raises(InputError, match="have one label"):
        hold_out([one], 0.1)


def test_validation_is_what_a_model_of_so_many_iterations_gives(task: Task) -> None:
    (held,) = hold_out([task], 0.25)
    assert held.x_validation is not None
    assert held.y_validation is not None
    options = DescentOptions(l2=0.01, class_weight=(1, 2))
    slow, quick = train(held, [0.05, 0.5], 250, options=options)
    x, y = as_columns(held.x_validation, held.y_validation)
    for training, rate in ((slow, 0.05), (quick, 0.5)):
        assert [record.iteration for record in training.validation] == [0, 100, 200, 250]
        for record in training.validation[1:]:
            (alone,) = train(held, [rate], record.iteration, options=options)
            classifier = alone.classifier
            # The cost is that of the data alone: no penalty, no weights.
            assert record.cost == propagate(classifier.w, classifier.b, x, y)[1]
            expected = evaluate(classifier, held.x_validation, held.y_validation).accuracy
            assert record.accuracy == pytest.approx(expected, abs=1e-12)
        start = training.validation[0]
        assert start.cost == pytest.approx(np.log(2), abs=1e-15)
        assert start.accuracy == pytest.approx(held.y_validation.mean() * 100)
        # Looking on changes no bit.
        blind = replace(held, x_validation=None, y_validation=None)
        (unseen,) = train(blind, [rate], 250, options=options)
        assert (unseen.history_sha256, unseen.validation) == (training.history_sha256, ())
        assert results(unseen)["validation"] is None
        report = results(training)["validation"]
        assert (report["pictures"], report["positives"]) == (100, int(held.y_validation.sum()))
        assert report["history"][1] == {
            "iteration": 100, "cost": training.validation[1].cost, "accuracy": training.validation[1].accuracy,
        }  # fmt: skip
        assert report["lowest_cost"] == min(record["cost"] for record in report["history"])
        assert (report["cost"], report["accuracy"]) == (training.validation[-1].cost, training.validation[-1].accuracy)


@pytest.fixture(scope="module")
def overfitting() -> Task:
    """So few pictures that the cost on those held out soon rises."""
    whole = make_task(load_birds(), "bird")
    few = replace(
        whole, x_train=np.ascontiguousarray(whole.x_train[:400, ::4, ::4]), y_train=whole.y_train[:400],
        x_test=np.ascontiguousarray(whole.x_test[:, ::4, ::4]),
    )  # fmt: skip
    (held,) = hold_out([few], 0.25)
    return held


RATES = [0.1, 0.2, 0.02, 0.05]


class Stop(Exception):
    pass


@pytest.mark.parametrize("implementation", ["reference", "fused"])
def test_early_stopping(overfitting: Task, implementation: str, tmp_path: Path) -> None:
    whole = train(overfitting, RATES, 650)
    early = train(overfitting, RATES, 650, patience=2, implementation=implementation)
    assert [(t.stopped_by, len(t.history), t.best.iteration) for t in early if t.best] == [
        ("validation", 400, 200), ("validation", 200, 0), ("iterations", 650, 650), ("validation", 500, 300),
    ]  # fmt: skip
    for one, other, rate in zip(early, whole, RATES, strict=True):
        # All that was done is in the digest and the record, and is the beginning of what would have been.
        assert np.array_equal(one.history, other.history[: len(one.history)])
        assert one.history_sha256 == history_sha256(one.history)
        assert one.best is not None
        assert one.validation == other.validation[: len(one.validation)]
        assert one.best.cost == min(record.cost for record in one.validation)
        # The model is that of the lowest cost on the pictures held out.
        if one.best.iteration:
            (kept,) = train(overfitting, [rate], one.best.iteration)
            assert np.array_equal(one.classifier.w, kept.classifier.w)
            assert one.classifier.b == kept.classifier.b
            assert np.array_equal(one.probability_test, kept.probability_test)
        else:
            assert not one.classifier.w.any()
        assert results(one)["best_iteration"] == one.best.iteration
        assert results(one)["patience"] == 2
        # Alone as together.
        (alone,) = train(overfitting, [rate], 650, patience=2, implementation=implementation)
        assert (alone.history_sha256, alone.best) == (one.history_sha256, one.best)
        assert np.array_equal(alone.classifier.w, one.classifier.w)
    # Stopped anywhere and taken up by the other implementation: the best so far and the counting are kept.
    for number, stop in enumerate((1, 90, 150, 201, 250, 330, 410, 499, 501, 640)):

        def tell(done: int, _: np.ndarray, stop: int = stop) -> None:
            if done >= stop:
                raise Stop

        checkpoints = Checkpoints(tmp_path, 1e9, resume=number > 0, every=37)
        with pytest.raises(Stop):
            train(overfitting, RATES, 650, patience=2, checkpoints=checkpoints, observer=tell,
                  implementation=("reference", "fused")[number % 2])  # fmt: skip
        checkpoints.stopped()
    resumed = train(overfitting, RATES, 650, patience=2, checkpoints=Checkpoints(tmp_path, 1e9, resume=True))
    for one, other in zip(early, resumed, strict=True):
        assert (one.history_sha256, one.validation, one.stopped_by) == (
            other.history_sha256, other.validation, other.stopped_by,
        )  # fmt: skip
        assert np.array_equal(one.classifier.w, other.classifier.w)
        assert one.classifier.b == other.classifier.b
    # It is another training than one with other patience.
    with pytest.raises(FileError, match="other pictures or options"):
        train(overfitting, RATES, 650, patience=3, checkpoints=Checkpoints(tmp_path, resume=True))


def test_early_stopping_is_given_more_iterations(overfitting: Task, tmp_path: Path) -> None:
    # Ended between two checks, the last of which was the lowest: more iterations do not have that one.
    checkpoints = Checkpoints(tmp_path, 1e9, every=30)
    (first,) = train(overfitting, [0.05], 250, patience=2, checkpoints=checkpoints)
    assert (first.best, first.stopped_by) == (first.validation[-1], "iterations")
    checkpoints.ended()
    assert len(list(tmp_path.iterdir())) == 1
    more = Checkpoints(tmp_path, resume=True, before=[250])
    (second,) = train(overfitting, [0.05], 650, patience=2, checkpoints=more)
    (whole,) = train(overfitting, [0.05], 650, patience=2)
    assert second.stopped_by == whole.stopped_by == "validation"
    assert second.validation == whole.validation
    assert np.array_equal(second.classifier.w, whole.classifier.w)
    # The check at the very end counts as one in the midst does.
    (exact,) = train(overfitting, [0.05], 500, patience=2)
    assert exact.stopped_by == "validation"


def test_odd_patience(overfitting: Task) -> None:
    for patience in (0, -1, True, 1.5, "3", 10**5000):
        with pytest.raises(InputError, match="patience must be a whole number"):
            train(overfitting, [0.05], 5, patience=patience)  # type: ignore[arg-type]
    blind = replace(overfitting, x_validation=None, y_validation=None)
    with pytest.raises(InputError, match="hold some out"):
        train(blind, [0.05], 5, patience=3)


def test_validation_of_several_classes_must_be_shared() -> None:
    one, two = make_tasks(load_birds(), ["bird", "cat"])
    with pytest.raises(InputError, match="share their validation"):
        train_together([replace(one, x_validation=one.x_train[:5], y_validation=one.y_train[:5]), two], [0.01], 1)


def test_warm_start_goes_on(task: Task) -> None:
    (whole,) = train(task, [0.2], 90)
    (first,) = train(task, [0.2], 50)
    (second, other) = train(task, [0.2, 0.1], 40, start=first.classifier)
    assert np.concatenate([first.history, second.history]).tolist() == whole.history.tolist()
    assert second.classifier.w.tolist() == whole.classifier.w.tolist()
    assert other.history[0] == second.history[0]
    start = results(second)["start"]
    assert (start["iterations"], start["history_sha256"]) == (50, first.history_sha256)
    assert results(first)["start"] is None
    larger = replace(task, x_train=np.repeat(task.x_train, 2, axis=1), x_test=np.repeat(task.x_test, 2, axis=1))
    with pytest.raises(InputError, match=r"takes pictures of 4 x 4 x 1 but .* has 8 x 4 x 1"):
        train(larger, [0.2], 1, start=first.classifier)


def test_results_say_why_a_training_ended(task: Task) -> None:
    options = DescentOptions(cost_tolerance=1e-4)
    early, late = train(task, [0.2, 0.01], 300, options=options)
    x, y = as_columns(task.x_train, task.y_train)
    for training in (early, late):
        report = results(training)
        rate = training.classifier.learning_rate
        (alone,) = descend_many(x, y, [rate], 300, options=options).histories
        assert report["iterations"] == training.classifier.number_of_iterations == len(alone)
        assert report["history_sha256"] == history_sha256(alone)
        assert report["cost_history"] == alone[::100].tolist()
        assert (report["max_iterations"], report["options"]["cost_tolerance"]) == (300, 1e-4)
        assert json.loads(json.dumps(report)) == report
    assert results(early)["stopped_by"] == "cost"
    (plain,) = train(task, [0.2], 30)
    assert (results(plain)["stopped_by"], results(plain)["iterations"]) == ("iterations", 30)
    assert results(plain)["options"] == DescentOptions().as_dict()


def test_diverging_models_are_told_or_raise(task: Task) -> None:
    diverged: list[tuple[Task, DivergenceError]] = []
    kept = train(task, [1e8, 0.2], 60, diverged=diverged)
    assert [training.classifier.learning_rate for training in kept] == [0.2]
    assert [(dropped, error.learning_rate) for dropped, error in diverged] == [(task, 1e8)]
    assert kept[0].history_sha256 == train(task, [0.2], 60)[0].history_sha256
    with pytest.raises(DivergenceError, match="learning rate 1e"):
        train(task, [1e8, 0.2], 60)
    with pytest.raises(DivergenceError):
        train(task, [1e8], 60)


@pytest.mark.plots
def test_train_with_everything_and_go_on(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(
        "train", "--l2", 0.01, "--momentum", 0.9, "--nesterov", "--stop-gradient", 1e-9, "--stop-cost", 1e-3,
        "--class-weight", "1,1.5", "--validation", 0.1, "--iterations", 60,
    )  # fmt: skip
    assert result.code == 0, result.err
    for words in (
        "L2 0.01, Nesterov momentum 0.9, class weights 1 and 1.5, stop at gradient 1e-09, stop at cost change 0.001",
        "of 60: the cost hardly changed any more", "on 190 pictures held out", "1710 to train",
    ):  # fmt: skip
        assert words in result.out
    report = json.loads(Path("runs/birds-1/results.json").read_text())
    assert report["options"] == {
        "solver": "gd", "l2": 0.01, "momentum": 0.9, "nesterov": True, "gradient_tolerance": 1e-9,
        "cost_tolerance": 1e-3, "class_weight": [1.0, 1.5],
    }  # fmt: skip
    assert report["stopped_by"] == "cost"
    assert report["iterations"] == len(Path("runs/birds-1/history.csv").read_text().splitlines()) - 1 < 60
    assert report["validation"]["history"][-1]["iteration"] == report["iterations"]
    assert report["task"]["validation"] == 190
    with Image.open("runs/birds-1/cost_history.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    (task,) = hold_out([make_task(load_birds(), "bird")], 0.1)
    options = DescentOptions(
        l2=0.01, momentum=0.9, nesterov=True, gradient_tolerance=1e-9, cost_tolerance=1e-3, class_weight=(1, 1.5)
    )
    x, y = as_columns(task.x_train, task.y_train)
    assert report["history_sha256"] == history_sha256(descend_many(x, y, [0.005], 60, options=options).histories[0])

    monkeypatch.setattr(plots, "plot_run", lambda *_: None)
    again = run("train", "--start", "runs/birds-1", "--iterations", 3, "--json", "--class-weight", "balanced")
    assert again.code == 0, again.err
    second = json.loads(again.out)
    assert second["start"]["history_sha256"] == report["history_sha256"]
    assert second["options"]["class_weight"] == "balanced"
    model = Classifier.load("runs/birds-1/model.safetensors")
    x, y = as_columns(*(lambda whole: (whole.x_train, whole.y_train))(make_task(load_birds(), "bird")))
    assert second["cost_history"][0] == pytest.approx(propagate(model.w, model.b, x, y)[1], rel=1e-2)


def test_sweep_keeps_what_does_not_diverge(run: Callable[..., Result]) -> None:
    rates = ("--learning-rate", 1e8, "--learning-rate", 0.005)
    result = run("sweep", *rates, "--iterations", 100, "--out", "here")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert result.err.startswith("Error: Training diverged at iteration 1: with learning rate 1e+08")
    assert tutorial.GOLDEN_SHA256_100[:16] in result.out
    assert (Path("here/rate-0.005/results.json")).is_file()
    summary = json.loads(Path("here/sweep.json").read_text())
    assert [item["learning_rate"] for item in summary["runs"]] == [0.005]
    assert summary["diverged"] == [{"positive": "bird", "learning_rate": 1e8, "iteration": 1}]

    classes = ("--positive", "bird", "--positive", "cat", "--validation", 0.1, "--stop-cost", 0.01)
    result = run("sweep", *classes, *rates, "--iterations", 5)
    assert result.code == 2
    assert [line.partition(" Training")[0] for line in result.err.splitlines()] == ["Error: bird:", "Error: cat:"]
    assert "valid. %" in result.out
    assert "steps" in result.out
    assert all(len(line.rstrip()) <= 80 for line in result.out.splitlines()[:3])

    result = run("sweep", "--learning-rate", 1e8, "--learning-rate", 1e9, "--iterations", 5)
    assert result.code == 2
    assert result.err.count("Training diverged") == 2
    assert result.out == ""
    assert [path.name for path in Path("runs").iterdir()] == ["sweep-birds-1"]


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--l2", -1), "L2 penalty must be finite and at least 0"),
        (("--momentum", 1), "momentum must be at least 0 and below 1"),
        (("--nesterov",), "needs a momentum"),
        (("--stop-gradient", "nan"), "gradient to stop at"),
        (("--stop-cost", -1), "change of the cost to stop at"),
        (("--class-weight", "fair"), "none, balanced or two numbers"),
        (("--class-weight", "1,2,3"), "two numbers like 1,3"),
        (("--class-weight", "1,-2"), "class weight must be"),
        (("--class-weight", "0,0"), "Both class weights"),
        (("--validation", 1.5), "validation share of 1.5"),
        (("--start", "nowhere"), "no model nowhere"),
        (("--momentum", 0.9, "--implementation", "fused"), "has no momentum yet"),
    ],
)
def test_bad_options_get_one_sentence(
    run: Callable[..., Result], command: str, arguments: tuple, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernels.CAPABLE_OF, "numpy", frozenset())
    result = run(command, *arguments)
    assert (result.code, result.out) == (2, "")
    assert words in result.err
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1
    assert not any(Path("runs").iterdir()) if Path("runs").exists() else True


def test_lbfgs_on_the_command_line(run: Callable[..., Result]) -> None:
    result = run("train", "--solver", "lbfgs", "--l2", 0.01, "--out", "a")
    assert result.code == 0, result.err
    done = len(Path("a/history.csv").read_text().splitlines()) - 1
    assert f"L-BFGS, arrived: no part of the gradient above 0.0001 after {done} evaluations" in result.out
    assert "learning rate" not in result.out
    assert "an evaluation" in result.out
    kept = json.loads(Path("a/results.json").read_text())
    assert (kept["learning_rate"], kept["stopped_by"], kept["iterations"]) == (None, "gradient", done)
    assert (kept["options"]["solver"], kept["options"]["l2"], kept["max_iterations"]) == ("lbfgs", 0.01, 2000)
    assert kept["final_cost"] == min(kept["final_cost"], kept["cost_history"][0])
    assert json.loads(Path("a/plan.json").read_text())["options"]["learning_rate"] is None
    # The digest is the function's.
    task = make_task(load_birds(), "bird")
    x, y = as_columns(task.x_train, task.y_train)
    (history,) = descend_many(x, y, None, 2000, options=DescentOptions(solver="lbfgs", l2=0.01)).histories
    assert kept["history_sha256"] == history_sha256(history)
    # It takes no more iterations; a model goes on from it, and from its optimum there is one evaluation.
    result = run("train", "--resume", "a", "--iterations", 5000)
    assert (result.code, result.err.count("it stopped by itself (gradient)")) == (0, 1)
    assert "--start a, the same options and a smaller --tol" in result.err
    again = json.loads(run("train", "--solver", "lbfgs", "--l2", 0.01, "--start", "a", "--json").out)
    assert again["iterations"] == 1
    assert again["start"]["learning_rate"] is None
    for command in (("evaluate", "a"), ("export", "a", "m.npz"), ("report", "a", "--out", "p.html")):
        assert run(*command).code == 0


@pytest.mark.parametrize("as_json", [True, False])
def test_lbfgs_that_did_not_arrive_says_so_and_can_be_given_more(run: Callable[..., Result], as_json: bool) -> None:
    shown = ("--json",) if as_json else ()
    result = run("train", "--solver", "lbfgs", "--tol", 0.001, "--l2", 0.01, "--iterations", 5, "--out", "a", *shown)
    assert result.code == 0
    (line,) = (line for line in result.err.splitlines() if line.startswith("Note: "))
    assert line.startswith("Note: L-BFGS did not arrive in 5 evaluations: the largest entry of the gradient is 0.")
    assert as_json or "L-BFGS, did not arrive in 5 evaluations" in result.out
    whole = json.loads(run("train", "--solver", "lbfgs", "--tol", 0.001, "--l2", 0.01, "--json").out)
    more = run("train", "--resume", "a", "--iterations", 2000, "--json")
    assert "Going on from iteration " in more.err
    assert json.loads(more.out)["history_sha256"] == whole["history_sha256"]


def test_lbfgs_says_where_there_is_no_optimum(run: Callable[..., Result]) -> None:
    result = run("train", "--solver", "lbfgs")
    assert result.code == 0
    assert "so there is no optimum" in result.err
    result = run("train", "--solver", "lbfgs", "--tol", 0.001)
    assert "train accuracy   100.00 %" not in result.out
    assert "no optimum" not in result.err


def test_a_sweep_of_penalties(run: Callable[..., Result]) -> None:
    penalties = ("--l2", 0.1, "--l2", 0.01)
    result = run("sweep", "--solver", "lbfgs", *penalties, "--out", "s")
    assert result.code == 0, result.err
    names = {"cost_history.png", "report.html", "sweep.json", "l2-0.1", "l2-0.01"}
    assert {path.name for path in Path("s").iterdir()} | {"cost_history.png"} == names
    runs = json.loads(Path("s/sweep.json").read_text())["runs"]
    assert [(one["options"]["l2"], one["learning_rate"]) for one in runs] == [(0.1, None), (0.01, None)]
    alone = json.loads(run("train", "--solver", "lbfgs", "--l2", 0.01, "--json").out)
    assert runs[1]["history_sha256"] == alone["history_sha256"]
    assert "rate" not in result.out.splitlines()[3]
    assert "evaluations" in result.out.splitlines()[3]
    assert "L2" in result.out.splitlines()[3]
    assert all(len(line.rstrip()) <= 80 for line in result.out.splitlines()[2:6])
    # Gradient descent does it too, with the one rate, and each model as if alone; what diverges is named.
    runs = json.loads(run("sweep", *penalties, "--iterations", 20, "--json").out)["runs"]
    assert [(one["options"]["l2"], one["learning_rate"]) for one in runs] == [(0.1, 0.005), (0.01, 0.005)]
    alone = json.loads(run("train", "--l2", 0.01, "--iterations", 20, "--json").out)
    assert runs[1]["history_sha256"] == alone["history_sha256"]
    result = run("sweep", "--l2", 0.1, "--l2", 1e9, "--iterations", 60)
    assert result.code == 2
    assert "Error: L2 1e+09: Training diverged" in result.err
    for number in (3, 1):
        classes = ("--positive", "bird", "--positive", "cat")[: number + 1]
        result = run("sweep", "--solver", "lbfgs", *penalties, *classes, "--iterations", 2)
        assert result.code == 0
        notes = [line for line in result.err.splitlines() if line.startswith("Note: ")]
        prefix = "bird, L2 0.1: " if number == 3 else "L2 0.1: "
        assert notes[0].startswith(f"Note: {prefix}L-BFGS did not arrive in 2 evaluations")


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--learning-rate", 0.1), "L-BFGS chooses its steps by itself; leave --learning-rate out"),
        (("--momentum", 0.9), "L-BFGS has no momentum"), (("--nesterov",), "L-BFGS has no momentum"),
        (("--tol", -1), "gradient to stop at"),
        (("--l2", "nan"), "L2 penalty must be finite"),
        (("--iterations", 0), "number of iterations must be"),
    ],
)
def test_what_lbfgs_refuses(run: Callable[..., Result], command: str, arguments: tuple, words: str) -> None:
    assert run(command, "--solver", "lbfgs", *arguments).refused(words)
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_names_of_other_programs_for_solvers(run: Callable[..., Result]) -> None:
    for name, words in (
        ("--optimizer", "it is --solver."), ("--lbfgs", "it is --solver lbfgs."), ("--sgd", "--solver lbfgs goes to"),
    ):  # fmt: skip
        assert run("train", name, "x").refused(words)
    assert run("sweep", "--l2", 0.1, "--l2", 0.1).refused("A penalty is given twice in 0.1, 0.1")
    assert run("train", "--solver", "adam").refused("There is no solver 'adam'; choose gd or lbfgs.")


def test_lbfgs_by_the_tutorials_functions(task: Task) -> None:
    x, y = as_columns(task.x_train, task.y_train)
    lbfgs = DescentOptions(solver="lbfgs", l2=0.01)
    d = model(x, y, x, y, options=lbfgs)
    assert d["learning_rate"] is None
    many = descend_many(x, np.vstack([y, 1 - y]), None, 2000, options=lbfgs)
    assert np.array_equal(many.w[0], d["w"][:, 0])
    # Labels the other way round are the same problem with the other sign.
    assert np.allclose(many.w[1], -many.w[0], atol=1e-3)
    several = descend_many(x, y, None, 2000, options=lbfgs, l2=[0.1, 0.01])
    assert several.reasons == ["gradient", "gradient"]
    assert np.array_equal(several.w[1], many.w[0])
    assert model(x, y, x, y, 2)["learning_rate"] == 0.5
    for rates, options, l2, words in (
        ([0.1], lbfgs, None, "leave the learning rate out"), (None, None, None, "needs a learning rate"),
        (None, lbfgs, [], "There is no L2"), (None, lbfgs, [-1], "L2 penalty must be"),
        ([0.1], None, [1, 2], "2 penalties for 1 models"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            descend_many(x, y, rates, 2, options=options, l2=l2)


def test_help_is_for_newcomers(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for command in ("train", "sweep"):
        text = run(command, "--help").out
        for option in ("--l2", "--momentum", "--nesterov", "--stop-gradient", "--stop-cost", "--class-weight",
                       "--validation", "--start"):  # fmt: skip
            assert option in text
        assert "Beyond the tutorial" in text


@pytest.mark.parametrize("implementation", ["reference", "fused"])
def test_golden_digests_of_a_warm_start_and_of_a_validation(implementation: str) -> None:
    (held,) = hold_out([make_task(load_birds())], 0.2)
    (first,) = train(held, [0.005], 40, implementation=implementation)
    (second,) = train(held, [0.01], 40, start=first.classifier, implementation=implementation)
    assert first.history_sha256 == "c01a7d99f6cc221787ba806a29eaa499d51ba2548058fbe382b5d6ebc8c11ae9"
    assert second.history_sha256 == "0fa1797a12fc04ffd4cfb356ff95f87d58cc7d2c0cbc6522be107c42ce4a0aa9"
    costs = np.array([record.cost for training in (first, second) for record in training.validation])
    assert history_sha256(costs) == "0006f7970350fce0f046f471de0d15eff803ebd8f8d5510d1ddf5583d9040e00"


def _advised(message: str) -> float:
    found = re.search(r"(?:try|rate,) (\S+?)(?: say)?\.$", message)
    assert found, message
    return float(found[1])


def _data_sets() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.RandomState(0)
    bird = make_task(load_birds(), "bird")
    y = np.arange(60) % 2
    return {
        "birds": (bird.x_train.reshape(1900, -1)[:300], bird.y_train[:300]),
        "white": (np.full((60, 300), 255, np.uint8), y),
        "black": (np.zeros((60, 300), np.uint8), y),
        "noise": (rng.randint(0, 256, (60, 40)).astype(np.uint8), y),
        "one bright picture": (np.where(np.arange(60)[:, None] == 7, 255, 3).astype(np.uint8).repeat(500, 1), y),
        "small floats": (rng.normal(0, 1e-3, (60, 7)), y),
        "large floats": (rng.normal(500, 1e3, (60, 7)), y),
        "float32": (rng.normal(0, 9, (60, 20)).astype(np.float32), y),
    }


@pytest.mark.parametrize("options", [
    {}, {"l2": 3.0}, {"class_weight": (0.3, 8.0)}, {"class_weight": (5.0, 0.0), "l2": 0.1}, {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True, "l2": 1.0},
], ids=str)  # fmt: skip
def test_the_advised_rate_works_at_once(options: dict) -> None:
    chosen = DescentOptions(**options)
    for name, (x, y) in _data_sets().items():
        columns, labels = x.T, y.reshape(1, -1)
        safe = safe_rate(
            x, chosen, np.where(y, *reversed(chosen.class_weight)) if options.get("class_weight") else None
        )
        advised = set()
        for rate in (safe * 1000, 1e9):
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", RisingCostWarning)
                    descend_many(columns, labels, [rate], 60, options=chosen, implementation="reference")
                if not caught:  # nothing rose: black pictures, say, have a bias only
                    continue
                (warning,) = caught
                assert (warning.category, warning.filename) == (RisingCostWarning, __file__)
                advised.add(_advised(str(warning.message)))
            except DivergenceError as error:
                advised.add(_advised(str(error)))
        for rate in advised:
            assert rate == pytest.approx(safe, rel=0.4), name
            (history,) = descend_many(columns, labels, [rate], 60, options=chosen, implementation="reference").histories
            assert history[-1] <= history[0], name
            if not chosen.momentum:
                assert (np.diff(history) <= 1e-12 * history[:-1]).all(), name


def test_what_no_learning_rate_can_mend_is_said_so() -> None:
    y = np.arange(4).reshape(1, -1) % 2
    with pytest.raises(DivergenceError, match=r"iteration 1: .*no learning rate suits features so large, so scale"):
        descend_many(np.arange(8.0).reshape(2, 4) * 1e200, y, [0.1], 5)
    with pytest.raises(DivergenceError, match=r"iteration 0: the cost is not finite before the first step; start from"):
        descend_many(np.full((2, 4), 255, np.uint8), y, [0.1], 5, w=np.full((1, 2), 1e30))


def test_a_rising_cost_is_warned_of_once_a_training(task: Task) -> None:
    x, y = as_columns(task.x_train, task.y_train)
    words = r"^The cost rose from 0\.693147 to \S+: the learning rate 3 is too large for these pictures; try \S+\.$"
    with pytest.warns(RisingCostWarning, match=words) as caught:
        model(x, y, x, y, 20, 3)
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(RisingCostWarning, match=words) as caught:
        (training,) = train(task, [3], 20)
    assert [str(warning.message) for warning in caught] == [training.note]
    with pytest.warns(RisingCostWarning, match=r"\. So it is with 1 more of the 3 models\.$") as caught:
        result = descend_many(x, y, [3, 0.001, 4], 20)
    assert len(caught) == 1
    assert [bool(note) for note in result.notes] == [True, False, True]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RisingCostWarning)
        model(x, y, x, y, 20, 0.001)
        # Momentum swings; only its end counts.
        descend_many(x, y, [0.01], 300, options=DescentOptions(momentum=0.9))


def test_a_cost_that_falls_but_rises_on_the_way_is_told_of() -> None:
    words = "The cost fell from 1 to {}, but rose on the way: the learning rate 0.2 is too large for these "
    for history, last in (([1.0, 0.5, 0.6, 0.55], "0.55"), ([1.0, 0.5, 0.6, 0.4, 0.45, 0.3], "")):
        note = Adviser().note(0, np.array(history), 0.2)
        assert note == (words.format(last) + "pictures; try 0.02." if last else "")
    # Up and down to its end, or only by what float features round.
    zigzag = np.linspace(1, 0.5, 200) + np.tile([0.05, 0], 100)
    assert Adviser(np.zeros((1, 1))).note(0, zigzag / zigzag[0], 0.2).endswith("these features; try 0.02.")
    assert Adviser().note(0, 1 - 1e-9 * zigzag, 0.2) == ""
    assert Adviser(options=DescentOptions(momentum=0.5)).note(0, zigzag / zigzag[0], 0.2) == ""


def test_the_command_line_says_it_once(run: Callable[..., Result]) -> None:
    result = run("train", "--learning-rate", 0.5, "--iterations", 5)
    assert (result.code, result.err.count("\n"), result.err.count("The cost rose from")) == (0, 1, 1)
    assert "Warning" not in result.err
    assert result.err.startswith("Note: ")
    for command in ("train", "sweep"):
        result = run(command, "--learning-rate", 0.5, "--iterations", 5, "--json")
        assert (result.code, result.err.count("\n"), result.err.count("The cost rose from")) == (0, 1, 1)
    classes = ("--positive", "bird", "--positive", "cat")
    result = run("sweep", "--learning-rate", 0.5, "--iterations", 5, *classes)
    assert result.err.startswith("Note: bird: The cost rose from")
    assert "\nNote: cat: The cost rose from" in result.err


def test_a_start_is_not_tested_on_what_it_learned_from(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    rng = np.random.RandomState(0)
    for name in ("yes", "no"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(15):
            Image.fromarray(rng.randint(0, 256, (8, 8, 3)).astype(np.uint8)).save(f"photos/{name}/{i}.png")
    common = ("--iterations", 3, "--size", 8, "--learning-rate", 0.01)
    again = ("train", "photos", *common, "--start", "first")
    assert run("train", "photos", *common, "--out", "first", "--validation", 0.25).code == 0
    # The split that the model had, with fewer or more pictures held out for validation.
    result = run(*again)
    assert (result.code, "Note" in result.err) == (0, False)
    assert "Note" not in run(*again, "--validation", 0.25).err
    assert "has learned from pictures that are held out for validation" in run(*again, "--validation", 0.5).err
    # Another one.
    for command in ("train", "sweep"):
        result = run(command, *again[1:], "--seed", 3, "--test-size", 10)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 2)
        assert (
            "it knows some of those to test on; split them as it did (--seed 0 --test-size 6), or train" in result.err
        )
    assert run(*again, "--seed", 3, "--test-size", 10, "--start", "first/model.safetensors").code == 2
    assert run(*again, "--balance", "none").code == 2
    # Another class, data that are not its own, and a model that came without its run.
    result = run(*again, "--positive", "no")
    assert result.code == 0
    assert "Note: Pictures to test on may be among those that the model to start from has learned from." in result.err
    Path("photos").rename("moved")
    Path("alone.safetensors").write_bytes(Path("first/model.safetensors").read_bytes())
    for start in ("first", "alone.safetensors"):
        result = run("train", "moved", *common, "--start", start, "--seed", 3)
        assert result.code == 0, result.err
        assert (
            "has learned from pictures to test on is not known (it was trained on folder photos (30 pic" in result.err
        )
    # Its own data, which are others now.
    Path("moved").rename("photos")
    Path("photos/yes/0.png").unlink()
    result = run(*again)
    assert result.code == 2
    assert "are no longer those that the model to start from was trained on (added, changed" in result.err


def test_early_stopping_on_the_command_line(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bars, "_PLAIN_SECONDS", 0.0)
    few = ("--validation", 0.2, "--patience", 2, "--iterations", 900)
    result = run("train", "--learning-rate", 0.02, *few, "--out", "one")
    assert result.code == 0, result.err
    one = json.loads(Path("one/results.json").read_text())
    history = one["validation"]["history"]
    assert (one["stopped_by"], one["max_iterations"]) == ("validation", 900)
    assert one["best_iteration"] == one["validation"]["lowest_cost_iteration"] == one["iterations"] - 200
    assert f"{one['iterations']} iterations of 900: the validation cost no longer fell" in result.out
    assert f"the model after {one['best_iteration']} iterations is kept" in result.out
    kept = min(history, key=lambda record: record["cost"])
    assert (one["validation"]["cost"], one["validation"]["accuracy"]) == (kept["cost"], kept["accuracy"])
    assert f"validation       {kept['accuracy']:.2f} %" in result.out
    assert f", validation {history[1]['cost']:.6f}\n" in result.err
    with open("one/history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert history_sha256([float(row["cost"]) for row in rows]) == one["history_sha256"]
    measured = {int(row["iteration"]): float(row["validation_cost"]) for row in rows if row["validation_cost"]}
    assert measured == {record["iteration"]: record["cost"] for record in history[:-1]}  # the last is after the end
    page = Path("one/report.html").read_text()
    assert "of 900 at most: the validation cost no longer falls" in page
    assert "early stopping after" in page
    assert '<span class="yes">Checked:</span>' in page
    # Together with others each stops by itself.
    rates = ("--learning-rate", 0.02, "--learning-rate", 0.0001)
    several = run("sweep", *rates, *few, "--out", "two", "--json")
    first, second = json.loads(several.out)["runs"]
    for name in ("history_sha256", "best_iteration", "test_accuracy", "validation", "stopped_by"):
        assert first[name] == one[name], name
    assert second["iterations"] > first["iterations"]
    for command in ("train", "sweep"):
        result = run(command, "nowhere", "--patience", 3)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "hold some out with --validation" in result.err
        assert run(command, "nowhere", "--validation", 0.2, "--patience", 0).code == 2
