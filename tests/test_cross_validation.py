"""The penalty chosen by cross-validation: the same everywhere, as a plain loop chooses it, through every door."""

import contextlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strict
from helpers import Result, few_pixels, python
from PIL import Image

from xlogreg import kernels
from xlogreg.commands import bars
from xlogreg.data import sources
from xlogreg.data.birds import load_birds
from xlogreg.data.pictures import CIFAR10_CLASSES, Pictures
from xlogreg.data.task import Task, make_tasks
from xlogreg.errors import InputError
from xlogreg.kernels import why_no_fused
from xlogreg.logistic import descend_many, optimize
from xlogreg.neuron.options import DescentOptions
from xlogreg.runs.checkpoint import Checkpoints
from xlogreg.runs.report import write_report
from xlogreg.runs.run_folder import results, write_run
from xlogreg.runs.training import train, train_together
from xlogreg.solvers import cross_validation
from xlogreg.solvers.cross_validation import GRID, Choice, choose_l2, folds_of
from xlogreg.solvers.fit import fit

IMPLEMENTATIONS = ["reference", *([] if why_no_fused() else ["fused"])]
AUTO = DescentOptions(solver="lbfgs", l2="auto")
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def task() -> Task:
    return few_pixels()


def noisy(m: int = 120, d: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of pixels that say a little of the label, and the labels' signs."""
    rng = np.random.RandomState(seed)
    y = rng.randint(0, 2, m)
    rows = rng.randint(0, 200, (m, d))
    rows[:, :6] += 40 * y[:, None]
    return rows.astype(np.uint8), (1.0 - 2.0 * y)[None]


def same(choice: Choice) -> tuple[Any, ...]:
    return choice.l2, choice.values, choice.scores, choice.folds, choice.samples


# The same bits.


def test_the_same_choice_by_every_implementation_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, sign = noisy()
    weights = np.random.RandomState(1).uniform(0.0, 3.0, rows.shape[0])
    weights[::7] = 0.0
    options = DescentOptions(solver="lbfgs", class_weight="balanced")
    for own in (None, weights):
        first = same(choose_l2(rows, sign, options=options, sample_weight=own, implementation="reference"))
        for name in IMPLEMENTATIONS:
            assert same(choose_l2(rows, sign, options=options, sample_weight=own, implementation=name)) == first
        with monkeypatch.context() as patched:
            patched.setattr(cross_validation, "_BYTES", 1)
            assert same(choose_l2(rows, sign, options=options, sample_weight=own)) == first
    # Features in another order are the same features.
    order = np.random.RandomState(2).permutation(rows.shape[1])
    assert same(choose_l2(rows[:, order], sign)) == same(choose_l2(rows, sign))


def test_the_same_choice_on_the_stand_in_for_cupy() -> None:
    rows, sign = noisy(40, 12)
    obtained = choose_l2(strict.asarray(rows), strict.asarray(sign), implementation="reference")
    assert same(obtained) == same(choose_l2(rows, sign))


def test_the_same_choice_and_digest_for_any_number_of_threads(tmp_path: Path) -> None:
    code = (
        "from xlogreg import DescentOptions, load_birds, make_task, train\n"
        "t, = train(make_task(load_birds(), 'bird', test_size=1500), None, 30,\n"
        "           options=DescentOptions(solver='lbfgs', l2='auto', gradient_tolerance=0.01))\n"
        "print(t.history_sha256, t.choice.l2, *map(float.hex, t.choice.scores))\n"
    )
    one, two = (
        python(code, cwd=tmp_path, NUMBA_NUM_THREADS=n, OPENBLAS_NUM_THREADS=n, OMP_NUM_THREADS=n) for n in ("1", "2")
    )
    assert one == two
    assert len(one.split()) >= 5


# The choice.


def test_folds_have_their_share_of_each_class() -> None:
    rng = np.random.RandomState(0)
    for counts in ((2, 2), (2, 50), (7, 3), (50, 51), (400, 33, 5), (5, 5, 5, 5)):
        labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        fold, k = folds_of(labels, len(counts))
        assert k == min(5, *counts)
        for one, count in enumerate(counts):
            shares = np.bincount(fold[labels == one], minlength=k)
            assert shares.sum() == count
            assert shares.max() - shares.min() <= 1
        sizes = np.bincount(fold, minlength=k)
        assert sizes.max() - sizes.min() <= 1
        # They follow from the order of the samples, and nothing else.
        assert np.array_equal(folds_of(labels.copy(), len(counts))[0], fold)
    for counts in ((1, 9), (9, 1), (0, 9), (3, 0), (4, 4, 1)):
        with pytest.raises(InputError, match="at least 2 training samples of each class"):
            folds_of(np.repeat(np.arange(len(counts)), counts), len(counts))


def test_as_scikit_learn_chooses_on_the_same_folds() -> None:
    linear_model, metrics = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.metrics")
    for seed, class_weight in ((0, None), (1, (1, 3))):
        options = DescentOptions(solver="lbfgs", class_weight=class_weight)
        rows, sign = noisy(100, 30, seed)
        y, own = (sign[0] < 0).astype(int), np.ones(100)
        if options.class_weight:
            own = np.where(y == 1, 3.0, 1.0)
        choice = choose_l2(rows, sign, options=options)
        fold, k = folds_of(y)
        scores = []
        for l2 in GRID:
            losses = []
            for held in range(k):
                a, b = fold != held, fold == held
                peer = linear_model.LogisticRegression(C=1 / (l2 * a.sum()), tol=1e-10, max_iter=10_000)
                p = peer.fit(rows[a] / 255, y[a], sample_weight=own[a]).predict_proba(rows[b] / 255)
                losses.append(metrics.log_loss(y[b], p, sample_weight=own[b]))
            scores.append(sum(losses) / k)
        assert choice.l2 == GRID[int(np.argmin(scores))]
        assert choice.values == GRID[: len(choice.values)]
        # As near as the tolerance asks for.
        assert choice.scores == pytest.approx(scores[: len(choice.values)], rel=5e-3)
        # Of those that were not tried none is better.
        assert min(scores) == min(scores[: len(choice.values)])


def test_near_scikit_learn_when_models_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    selection = pytest.importorskip("sklearn.model_selection")
    rows, sign = noisy(100, 30)
    y = (sign[0] < 0).astype(int)
    monkeypatch.setattr(cross_validation, "TOLERANCE", 0.0)
    monkeypatch.setattr(cross_validation, "EVALUATIONS", 2000)
    choice = choose_l2(rows, sign, options=DescentOptions(solver="lbfgs", gradient_tolerance=1e-9))
    fold, k = folds_of(y)
    scores = [
        -selection.cross_val_score(
            linear_model.LogisticRegression(C=1 / (l2 * 80), tol=1e-12, max_iter=100_000), rows / 255, y,
            cv=selection.PredefinedSplit(fold), scoring="neg_log_loss",
        ).mean() for l2 in choice.values
    ]  # fmt: skip
    assert k == 5
    assert choice.scores == pytest.approx(scores, rel=1e-6)


def test_small_penalties_are_tried_only_while_they_win() -> None:
    rng = np.random.RandomState(0)
    noise = rng.randint(0, 256, (60, 40)).astype(np.uint8)
    sign = (1.0 - 2.0 * rng.randint(0, 2, 60))[None]
    choice = choose_l2(noise, sign)
    assert choice.l2 > 0.01  # it says nothing of the label
    assert choice.values == GRID[:3]
    clear = np.where(sign[0] < 0, 200, 10).astype(np.uint8)[:, None] + np.zeros((1, 3), dtype=np.uint8)
    choice = choose_l2(clear, sign)
    assert (choice.l2, choice.values) == (GRID[-1], GRID)
    # Equal scores: the largest penalty, whatever the order in which they are given.
    black = np.zeros((60, 3), dtype=np.uint8)
    choice = choose_l2(black, sign, values=(0.1, 10.0, 1.0))
    assert (choice.l2, choice.values) == (10.0, (10.0, 1.0, 0.1))
    assert len(set(choice.scores)) == 1


def test_many_samples_are_fewer_for_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, sign = noisy(400, 20)
    sign[0, :] = np.where(np.arange(400) % 40 == 3, -1.0, 1.0)  # 10 of one class
    monkeypatch.setattr(cross_validation, "SAMPLES", 80)
    choice = choose_l2(rows, sign)
    y = sign[0] < 0
    chosen = np.sort(np.concatenate([np.flatnonzero(y)[:5], np.flatnonzero(~y)[:78]]))
    assert (choice.folds, choice.samples) == (5, len(chosen))
    monkeypatch.setattr(cross_validation, "SAMPLES", 10_000)
    assert same(choose_l2(np.ascontiguousarray(rows[chosen]), sign[:, chosen])) == same(choice)


def test_several_classes() -> None:
    rng = np.random.RandomState(0)
    labels = rng.randint(0, 3, 90)
    rows = rng.randint(0, 200, (90, 12))
    rows[:, 0] += 20 * labels
    sign = np.where(labels == np.arange(3)[:, None], -1.0, 1.0)
    first = choose_l2(rows.astype(np.uint8), sign, classes=3, implementation="reference")
    assert first.folds == 5
    assert all(score is not None and 0.3 < score < 2 for score in first.scores)
    for name in IMPLEMENTATIONS:
        assert same(choose_l2(rows.astype(np.uint8), sign, classes=3, implementation=name)) == same(first)


def test_any_features_and_weights() -> None:
    rows, sign = noisy(30, 6)
    for weights in (np.full(30, 2.0**100), np.full(30, 5e-324), 2.0 ** np.linspace(-900, 90, 30)):
        choice = choose_l2(rows, sign, sample_weight=weights)
        assert all(score is not None and math.isfinite(score) for score in choice.scores)
    for scale in (1e-300, 1e-3, 1e3):
        choice = choose_l2(rows * scale, sign)
        assert choice.l2 in GRID
        assert choice.in_words()
    with pytest.raises(InputError, match="scale the features down"):
        choose_l2(rows * 1e150, sign)
    assert choose_l2(rows[:4], np.array([[1.0, -1, 1, -1]])).folds == 2
    for bad in (sign[:, :1] * np.ones((1, 30)), np.where(np.arange(30) == 4, -1.0, 1.0)[None]):
        with pytest.raises(InputError, match="at least 2 training samples of each class"):
            choose_l2(rows, bad)
    with pytest.raises(InputError, match="at least 2 training samples"):
        choose_l2(rows, sign, options=DescentOptions(solver="lbfgs", class_weight=(0, 1)))


# Through the doors.


def test_a_training_with_the_choice(task: Task) -> None:
    (training,) = train(task, None, 500, options=AUTO)
    choice = training.choice
    assert choice is not None
    assert training.options.l2 == choice.l2
    (alone,) = train(task, None, 500, options=replace(AUTO, l2=choice.l2))
    assert alone.choice is None
    assert alone.history_sha256 == training.history_sha256
    for name in IMPLEMENTATIONS:
        (again,) = train(task, None, 500, options=AUTO, implementation=name)
        assert again.history_sha256 == training.history_sha256
        assert again.choice is not None
        assert same(again.choice) == same(choice)
    # The choice looks at the training pictures alone, and starts from zeros.
    (other,) = train(replace(task, x_test=255 - task.x_test), None, 500, options=AUTO, start=alone.classifier)
    assert other.choice is not None
    assert same(other.choice) == same(choice)
    kept = results(training)
    assert kept["options"]["l2"] == choice.l2
    assert kept["l2_choice"] == {
        "values": list(choice.values), "scores": list(choice.scores), "folds": 5, "pictures": 400,
        "seconds": choice.seconds,
    }  # fmt: skip
    assert results(alone)["l2_choice"] is None
    # Given ones take its place.
    assert [one.options.l2 for one in train(task, None, 5, options=AUTO, l2=[0.1, 0.2])] == [0.1, 0.2]


def test_what_is_refused(task: Task) -> None:
    for options in ({}, {"solver": "gd"}, {"momentum": 0.5}):
        with pytest.raises(InputError, match="L2 'auto' is for L-BFGS; choose the solver lbfgs, or give a number"):
            DescentOptions(**options, l2="auto")
    for wrong in ("Auto", "", "1", None, [0.1], np.array(["auto"]), True, math.nan, -1):
        with pytest.raises(InputError, match=r"^The L2 penalty must be finite and at least 0, 0\.001 say, or 'auto'"):
            DescentOptions(solver="lbfgs", l2=wrong)
    with pytest.raises(InputError, match="leave the learning rate out"):
        train(task, [0.1], 5, options=AUTO)
    tasks = make_tasks(load_birds(), ["bird", "cat"])
    with pytest.raises(InputError, match="for one class against the rest"):
        train_together(tasks, None, 5, options=AUTO)
    few = replace(task, y_train=np.where(np.arange(400) == 7, 1, 0))
    with pytest.raises(InputError, match="at least 2 training samples of each class, and one class has 1"):
        train(few, None, 5, options=AUTO)
    rows, sign = noisy(20, 4)
    with pytest.raises(InputError, match="chosen by `train`"):
        fit(rows, sign, None, 5, options=AUTO)
    x, y = rows.T, (sign < 0).astype(int)
    for call in (lambda: descend_many(x, y, None, 5, options=AUTO),
                 lambda: optimize(np.zeros((4, 1)), 0.0, x, y, 5, options=AUTO)):  # fmt: skip
        with pytest.raises(InputError, match=r"chosen by `train`|learning rate"):
            call()


def test_a_stopped_training_resumes_with_the_same_choice(task: Task, tmp_path: Path) -> None:
    options = replace(AUTO, gradient_tolerance=1e-8)
    (whole,) = train(task, None, 200, options=options)

    class Stop(Exception):
        pass

    def stop(done: int, costs: np.ndarray) -> None:
        if done >= 5:
            raise Stop

    checkpoints = Checkpoints(tmp_path, 0.0, every=1)
    with pytest.raises(Stop):
        train(task, None, 200, options=options, observer=stop, checkpoints=checkpoints)
    checkpoints.stopped()
    said: list[str] = []
    (taken_up,) = train(
        task, None, 200, options=options, checkpoints=Checkpoints(tmp_path, resume=True, tell=said.append)
    )
    assert re.fullmatch(r"Going on from iteration [1-9]\d*\.", said[0])
    assert taken_up.history_sha256 == whole.history_sha256
    assert taken_up.options == whole.options


def test_the_command(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("--solver", "lbfgs", "--l2", "auto", "--features", "grey", "--test-size", 1700)
    result = run("train", *lines, "--out", "a")
    assert result.code == 0, result.err
    kept = json.loads(Path("a", "results.json").read_text())
    choice = kept["l2_choice"]
    assert kept["options"]["l2"] in choice["values"]
    assert (choice["folds"], choice["pictures"]) == (5, 364)
    words = rf"L2 +{kept['options']['l2']:g}, chosen by 5-fold cross-validation: log loss 0\.\d{{4}}, against "
    assert re.search(words, result.out)
    assert json.loads(Path("a", "plan.json").read_text())["options"]["l2"] == "auto"
    page = Path("a", "report.html").read_text()
    assert "Which L2" in page
    assert "chosen by" in page
    assert page.count("(chosen)") == 1
    # Stopped while it trains, and taken up: the same choice, the same digest.
    before = bars.training_progress

    def stopping(*arguments: Any, **keywords: Any) -> Any:
        class Observer:
            def __enter__(self) -> "Observer":
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def choosing(self, done: int, most: int, models: int) -> None:
                assert 0 < done <= most == cross_validation.EVALUATIONS
                assert models % 5 == 0

            def __call__(self, done: int, costs: np.ndarray) -> None:
                if done > 3:
                    raise KeyboardInterrupt

        return Observer()

    monkeypatch.setattr(bars, "training_progress", stopping)
    stopped = run("train", *lines, "--out", "b")
    assert stopped.code == 130
    assert "Go on with" in stopped.err
    monkeypatch.setattr(bars, "training_progress", before)
    assert run("train", "--resume", "b").code == 0
    again = json.loads(Path("b", "results.json").read_text())
    assert again["history_sha256"] == kept["history_sha256"]
    assert {**again["l2_choice"], "seconds": 0} == {**choice, "seconds": 0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--l2", "auto"), "L2 'auto' is for L-BFGS; choose the solver lbfgs"),
        (("--solver", "lbfgs", "--l2", "automatic"), "--l2 must be a number or auto, not 'automatic'"),
        (("--solver", "lbfgs", "--l2", "auto", "--learning-rate", 0.1), "leave --learning-rate out"),
        (("--solver", "lbfgs", "--l2", "-1"), "The L2 penalty must be finite"),
    ],
)
def test_what_the_command_refuses(run: Callable[..., Result], arguments: tuple, words: str) -> None:
    assert run("train", *arguments).refused(words)


def folder_of(counts: tuple[int, int], name: str = "photos") -> None:
    """Dark and light noisy pictures, so many of each."""
    rng = np.random.RandomState(0)
    for label, count in zip(("dark", "light"), counts, strict=True):
        Path(name, label).mkdir(parents=True)
        for i in range(count):
            picture = rng.randint(0, 120, (8, 8, 3)) + 40 * (label == "light")
            Image.fromarray(picture.astype(np.uint8)).save(Path(name, label, f"{i}.png"))


def test_own_folders_are_trained_to_the_optimum(run: Callable[..., Result]) -> None:
    folder_of((20, 20))
    by_default = json.loads(run("train", "photos", "--size", 8, "--out", "a", "--json").out)
    said = json.loads(run("train", "photos", "--size", 8, "--solver", "lbfgs", "--l2", "auto", "--json").out)
    assert by_default["options"]["solver"] == "lbfgs"
    assert by_default["stopped_by"] == "gradient"
    assert by_default["history_sha256"] == said["history_sha256"]
    assert by_default["l2_choice"]["values"] == said["l2_choice"]["values"]
    plan = json.loads(Path("a", "plan.json").read_text())["options"]
    assert (plan["solver"], plan["l2"], plan["learning_rate"]) == ("lbfgs", "auto", None)
    # Whoever says how has what was said, and the tutorial's for the rest.
    for how in (("--learning-rate", 0.005), ("--solver", "gd"), ("--l2", 0.1), ("--momentum", 0.5)):
        kept = json.loads(run("train", "photos", "--size", 8, *how, "--iterations", 3, "--json").out)
        assert (kept["options"]["solver"], kept["learning_rate"], kept["l2_choice"]) == ("gd", 0.005, None), how
    kept = json.loads(run("train", "photos", "--size", 8, "--start", "a", "--iterations", 3, "--json").out)
    assert kept["options"]["solver"] == "gd"
    kept = json.loads(run("train", "birds", "--iterations", 3, "--json").out)
    assert (kept["options"]["solver"], kept["learning_rate"]) == ("gd", 0.005)
    assert run("train", "photos", "--size", 8, "--nesterov").refused("Nesterov's form needs a momentum")


def test_cifar10_is_trained_to_the_optimum(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.RandomState(0)

    def small(source: str, *_: object) -> tuple[Pictures, Pictures]:
        assert source == "cifar10"
        train, test = (
            Pictures(
                rng.randint(0, 256, (n, 32, 32, 3)).astype(np.uint8), np.arange(n) % 10, CIFAR10_CLASSES, np.arange(n),
                "CIFAR-10",
            )
            for n in (200, 50)
        )  # fmt: skip
        return train, test

    monkeypatch.setattr(sources, "load_source", small)
    kept = json.loads(run("train", "cifar10", "--positive", "ship", "--json").out)
    assert (kept["options"]["solver"], kept["learning_rate"], kept["l2_choice"]["folds"]) == ("lbfgs", None, 5)


def test_a_batch_is_trained_as_the_tutorial(run: Callable[..., Result], real_data: Path) -> None:
    batch = real_data / "cifar-10-batches-py" / "data_batch_1"
    kept = json.loads(run("train", batch, "--iterations", 2, "--json").out)
    assert (kept["options"]["solver"], kept["learning_rate"]) == ("gd", 0.005)


def test_with_too_few_pictures_to_choose_there_is_a_penalty_all_the_same(run: Callable[..., Result]) -> None:
    folder_of((2, 9))
    # One dark picture to train on, or none that counts.
    for more in ((), ("--class-weight", "0,1")):
        arguments = ("--test-size", 5, "--balance", "none", *more)
        result = run("train", "photos", "--size", 8, *arguments, "--json")
        assert result.code == 0, result.err
        assert "too few to choose an L2 by cross-validation; 0.01 is taken" in result.err
        kept = json.loads(result.out)
        assert (kept["options"]["solver"], kept["options"]["l2"], kept["l2_choice"]) == ("lbfgs", 0.01, None)
        assert json.loads(Path(kept["folder"], "plan.json").read_text())["options"]["l2"] == 0.01
        # Asked for, it is an error.
        asked = ("train", "photos", "--size", 8, *arguments, "--solver", "lbfgs", "--l2", "auto")
        refused = run(*asked)
        assert refused.code == 2
        assert "Error: To choose an L2 takes at least 2 training samples of each class" in refused.err


def test_a_sweep_takes_numbers(run: Callable[..., Result]) -> None:
    assert run("sweep", "--solver", "lbfgs", "--l2", "auto").refused("--l2 must be a number, not 'auto'")


def test_pages_of_odd_choices(task: Task, tmp_path: Path) -> None:
    (training,) = train(task, None, 30, options=replace(AUTO, gradient_tolerance=0.01))
    folder = tmp_path / "run"
    folder.mkdir()
    write_run(folder, training)
    kept = json.loads((folder / "results.json").read_text())
    for change in (
        {"values": [], "scores": []}, {"values": [1.0], "scores": [0.5]}, {"scores": [None, None, None]},
        {"values": [0.0, 0.0, 0.1], "scores": [0.5, 0.6, 0.7]}, {"values": [1e-300, 1e300, 5e-324]},
        {"values": [1.0, 1.0, 1.0], "scores": [0.5, 0.5, 0.5]}, {"scores": [0.5]}, {"scores": [1e308, 0, 5e-324]},
    ):  # fmt: skip
        odd = {**kept, "l2_choice": {**kept["l2_choice"], **change}}
        with contextlib.suppress(InputError):
            assert "Which L2" in write_report(folder, odd).read_text()
    for wrong in ({"values": "x"}, {"folds": 1}, {"scores": [-1]}, {"pictures": None}):
        odd = {**kept, "l2_choice": {**kept["l2_choice"], **wrong}}
        (folder / "results.json").write_text(json.dumps(odd))
        with pytest.raises(InputError):
            write_report(folder)


def test_the_estimator_chooses_too() -> None:
    estimator = pytest.importorskip("xlogreg.estimator")
    rows, sign = noisy(90, 20)
    y = (sign[0] < 0).astype(int)
    kind = estimator.ImageLogisticRegression
    model = kind(solver="lbfgs", l2="auto").fit(rows, y)
    assert model.l2_ == choose_l2(rows, sign).l2
    assert model.history_sha256_ == kind(solver="lbfgs", l2=model.l2_).fit(rows, y).history_sha256_
    assert kind(solver="lbfgs", l2=0.1).fit(rows, y).l2_ == 0.1
    labels = np.random.RandomState(3).randint(0, 3, 90)
    several = kind(solver="lbfgs", l2="auto").fit(rows, labels)
    assert several.l2_.tolist() == [choose_l2(rows, 1.0 - 2.0 * (labels == k)[None]).l2 for k in range(3)]
    with pytest.raises(InputError, match="L2 'auto' is for L-BFGS"):
        kind(l2="auto").fit(rows, y)


def test_nothing_is_said_of_models_that_do_not_arrive(caplog: pytest.LogCaptureFixture) -> None:
    # Warnings are errors here.
    rows, sign = noisy(40, 30)
    choose_l2(rows, sign, values=(1e-12, 1e-13))
    assert not caplog.records or not kernels.is_compiled()
