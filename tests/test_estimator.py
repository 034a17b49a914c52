"""The scikit-learn face: all of scikit-learn's own checks; its pipelines and searches; the command line's bits."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import python
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from xlogreg import (
    DescentOptions,
    descend_many,
    estimator,
    history_sha256,
    load_birds,
    make_task,
    train,
    train_together,
)
from xlogreg.data.task import make_tasks
from xlogreg.errors import ConvergenceWarning, DivergenceError, InputError, RisingCostWarning, XlogregError
from xlogreg.estimator import PIXEL_RATE, ImageLogisticRegression
from xlogreg.proof import tutorial


@pytest.mark.parametrize(
    "parameters",
    [
        # So many that classes of very different weights are told apart.
        "number_of_iterations=1000",
        # To the optimum, and there is one: a sample twice and one of weight 2 come to it on other ways.
        "solver='lbfgs', l2=0.1, tol=1e-10",
    ],
)
def test_scikit_learns_own_checks(parameters: str) -> None:
    # In a process of its own: one check is skipped unless SciPy is told of other array modules before it is imported.
    code = f"""
import json, warnings
from sklearn.utils.estimator_checks import check_estimator
from xlogreg.estimator import ImageLogisticRegression
warnings.simplefilter("ignore")
results = check_estimator(ImageLogisticRegression({parameters}), on_fail=None, on_skip=None)
print(json.dumps([(result["check_name"], result["status"], repr(result["exception"])) for result in results]))
"""
    results = json.loads(python(code, SCIPY_ARRAY_API="1"))
    assert [result for result in results if result[1] != "passed"] == []
    assert len(results) > 40


@pytest.fixture(scope="module")
def birds() -> tuple[np.ndarray, np.ndarray]:
    """The tutorial's training pictures as rows (1900, 3072) uint8, and their labels."""
    task = make_task(load_birds(), "bird")
    return task.x_train.reshape(len(task.x_train), -1), task.y_train


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits 8 x 8 as pixels (1797, 64) uint8 in 0..240, ten classes."""
    x, y = load_digits(return_X_y=True)
    return (x * 15).astype(np.uint8), y


def test_same_digest_as_the_command_line(birds: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = birds
    task = make_task(load_birds(), "bird")
    (training,) = train(task, [PIXEL_RATE], 100)
    model = ImageLogisticRegression(number_of_iterations=100).fit(x, y)
    assert model.history_sha256_ == training.history_sha256 == tutorial.GOLDEN_SHA256_100
    assert model.learning_rate_ == PIXEL_RATE
    assert model.history_.tolist() == training.history.tolist()
    assert np.array_equal(model.coef_, training.classifier.w.T)
    assert model.intercept_.tolist() == [training.classifier.b]
    x_test = task.x_test.reshape(len(task.x_test), -1)
    assert model.predict(x_test).tolist() == training.prediction_test.tolist()
    assert model.predict_proba(x_test)[:, 1].tolist() == training.classifier.probability(task.x_test).tolist()
    # Pictures as they are, a strided view, and the reference.
    pictures = ImageLogisticRegression(number_of_iterations=100, implementation="reference").fit(task.x_train, y)
    assert pictures.history_sha256_ == model.history_sha256_
    assert pictures.predict(task.x_test).tolist() == training.prediction_test.tolist()
    names = np.array(["other", "wanted"])[y]
    assert ImageLogisticRegression(number_of_iterations=3).fit(x, names).classes_.tolist() == ["other", "wanted"]


def test_a_clone_fitted_twice_has_one_digest(birds: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = birds
    model = ImageLogisticRegression(learning_rate=0.01, number_of_iterations=30)
    digests = {clone(model).fit(x, y).history_sha256_, clone(model).fit(x, y).history_sha256_}
    digests.add(model.fit(x, y).fit(x, y).history_sha256_)
    order = np.random.RandomState(0).permutation(len(y))
    digests.add(clone(model).fit(x[order], y[order]).history_sha256_)
    assert len(digests) == 1
    copy = pickle.loads(pickle.dumps(model))
    assert copy.predict_proba(x[:50]).tolist() == model.predict_proba(x[:50]).tolist()


def test_several_classes_in_one_pass() -> None:
    tasks = make_tasks(load_birds(), ["bird", "cat", "frog"])
    expected = {t.task.positive: t for t in train_together(tasks, [PIXEL_RATE], 20)}
    # Rows of the tasks, labelled by class; all the rest is one more class.
    x = tasks[0].x_train
    y = np.full(len(x), "rest", dtype=object)
    for task in tasks:
        y[task.y_train == 1] = task.positive
    model = ImageLogisticRegression(number_of_iterations=20).fit(x, y.astype(str))
    assert model.classes_.tolist() == ["bird", "cat", "frog", "rest"]
    assert model.history_.shape == (20, 4)
    for number, positive in enumerate(("bird", "cat", "frog")):
        assert model.history_sha256_[number] == expected[positive].history_sha256
        assert np.array_equal(model.coef_[number], expected[positive].classifier.w[:, 0])
    probabilities = model.predict_proba(x)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-15)
    assert model.decision_function(x).shape == probabilities.shape == (len(x), 4)
    assert (model.classes_[probabilities.argmax(axis=1)] == model.predict(x)).all()


def test_probabilities_where_every_neuron_says_no() -> None:
    model = ImageLogisticRegression(number_of_iterations=1).fit(np.eye(3), [0, 1, 2])
    model.coef_ = np.array([[-1000.0, 0, 0], [-1001.0, 0, 0], [-2000.0, 0, 0]])
    (row,) = model.predict_proba(np.array([[1.0, 0, 0]]))
    assert row == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.e), 0], rel=1e-9)


def test_pipeline_search_and_calibration(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits
    x, y = x[y < 5][:300], y[y < 5][:300]
    search = GridSearchCV(
        ImageLogisticRegression(number_of_iterations=40), {"learning_rate": [0.003, 0.03, 0.3]}, cv=3, n_jobs=2
    )
    search.fit(x, y)
    assert search.best_params_ == {"learning_rate": 0.3}
    assert search.best_score_ > 0.8
    alone = ImageLogisticRegression(0.3, 40).fit(x, y)
    assert search.best_estimator_.history_sha256_ == alone.history_sha256_
    # Float features: scaled by the pipeline, with a rate that fits them.
    pipeline = make_pipeline(StandardScaler(), ImageLogisticRegression(number_of_iterations=100))
    assert cross_val_score(pipeline, x, y, cv=3).min() > 0.8
    # Pixels go through a pipeline too, if its steps leave them uint8.
    darker = make_pipeline(FunctionTransformer(lambda pixels: pixels // 2), ImageLogisticRegression(0.3, 40))
    assert darker.fit(x, y)[-1].pixels_
    calibrated = CalibratedClassifierCV(ImageLogisticRegression(0.3, 40), cv=3).fit(x, y)
    assert calibrated.predict_proba(x[:5]).sum(axis=1) == pytest.approx(1)
    assert calibrated.score(x, y) > 0.9


def test_automatic_rate_never_raises_the_cost() -> None:
    rng = np.random.RandomState(1)
    for scale in (1e-3, 1.0, 1e3):
        x = rng.normal(0.5, 1, (200, 7)) * scale
        model = ImageLogisticRegression(number_of_iterations=50).fit(x, x[:, 0] + rng.normal(0, scale, 200) > 0)
        assert (np.diff(model.history_) < 0).all()
        assert model.learning_rate_ == pytest.approx(4 / (np.square(x).sum(axis=1).mean() + 1))
        assert not model.pixels_


def test_pixels_and_floats_are_not_mixed_up(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0][:100], digits[1][:100] > 4
    model = ImageLogisticRegression(number_of_iterations=5).fit(x, y)
    expected = model.decision_function(x).tolist()
    assert model.decision_function(x.tolist()).tolist() == expected
    assert model.decision_function(x.astype(np.int64)).tolist() == expected
    for wrong in (x / 255, x.astype(np.float64), x.astype(np.int64) - 1, x.astype(np.int64) + 200):
        with pytest.raises(InputError, match="trained on uint8 pixels"):
            model.predict(wrong)
    estimator._warn_once.cache_clear()
    with pytest.warns(UserWarning, match=r"divided by 255.*give numpy.rint\(255 \* X\).astype\('uint8'\)\.$"):
        floats = ImageLogisticRegression(number_of_iterations=5).fit(x / 255, y)
    assert floats.decision_function(x).tolist() == floats.decision_function(x.astype(float)).tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": 0}, "learning rate"), ({"learning_rate": "fast"}, "'auto'"),
        ({"device": "tpu"}, "no device"),
        ({"number_of_iterations": 0}, "number of iterations"), ({"implementation": "quick"}, "no implementation"),
        ({"number_of_iterations": 1.5}, "number of iterations"), ({"learning_rate": None}, "learning rate"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_parameters_are_named_when_fitted(options: dict, words: str) -> None:
    model = ImageLogisticRegression(**options)
    with pytest.raises(XlogregError, match=words):
        model.fit(np.eye(4), [0, 1, 0, 1])


def test_options_are_those_of_the_training() -> None:
    rng = np.random.RandomState(0)
    x, y = rng.randint(0, 256, (40, 12)).astype(np.uint8), np.arange(40) % 2
    options = DescentOptions(l2=0.1, momentum=0.9, nesterov=True)
    model = ImageLogisticRegression(0.1, 30, l2=0.1, momentum=0.9, nesterov=True).fit(x, y)
    (history,) = descend_many(x.T, y.reshape(1, -1), [0.1], 30, options=options).histories
    assert model.history_sha256_ == history_sha256(history)


def test_lbfgs_comes_to_scikit_learns_optimum(birds: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = birds[0][:, ::8], birds[1]
    m, rng = len(y), np.random.RandomState(0)
    counts = rng.randint(0, 4, m).astype(np.float64)
    for weights, class_weight in ((None, None), (counts, None), (None, "balanced"), (None, {0: 1.0, 1: 3.0})):
        model = ImageLogisticRegression(solver="lbfgs", l2=0.01, tol=1e-9, class_weight=class_weight)
        model.fit(x, y, weights)
        total = m if weights is None else weights.sum()
        theirs = LogisticRegression(C=1 / (0.01 * total), tol=1e-10, max_iter=5000, class_weight=class_weight)
        theirs.fit(x / 255, y, weights)
        assert np.abs(model.coef_ - theirs.coef_).max() < 1e-5 * np.abs(theirs.coef_).max()
        assert isinstance(model.n_iter_, int)
        assert model.n_iter_ == len(model.history_) < 2000
        assert model.learning_rate_ is None
    # The digest is the function's; weights that are all alike change no bit.
    options = DescentOptions(solver="lbfgs", l2=0.01)
    (history,) = descend_many(x.T, y.reshape(1, -1), None, 2000, options=options).histories
    for weights in (None, np.full(m, 3)):
        model = ImageLogisticRegression(solver="lbfgs", l2=0.01).fit(x, y, sample_weight=weights)
        assert model.history_sha256_ == history_sha256(history)


def test_the_order_of_weighted_samples_changes_no_bit() -> None:
    """Not even by the mean of the weights, and whatever their size."""
    rng = np.random.RandomState(0)
    x, y, weights = rng.randint(0, 256, (300, 40)).astype(np.uint8), np.arange(300) % 2, rng.uniform(0, 3, 300)
    digests = set()
    for scale in [1.0, 2.0**1000, *[1.0] * 10]:
        order = rng.permutation(300)
        model = ImageLogisticRegression(number_of_iterations=2).fit(x[order], y[order], scale * weights[order])
        digests.add(model.history_sha256_)
    assert len(digests) == 1
    # All alike are none, whether or not their sum can be held or divided without a rounding.
    plain = ImageLogisticRegression(number_of_iterations=2).fit(x, y)
    for weight in (0.1, 1.7e308):
        model = ImageLogisticRegression(number_of_iterations=2).fit(x, y, np.full(300, weight))
        assert model.history_sha256_ == plain.history_sha256_


def test_lbfgs_of_several_classes(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits
    model = ImageLogisticRegression(solver="lbfgs", l2=0.01).fit(x, y)
    assert model.n_iter_.shape == (len(model.classes_),)
    assert len(set(model.n_iter_.tolist())) > 1
    ends = (~np.isnan(model.history_)).sum(axis=0)
    assert np.array_equal(model.n_iter_, ends)
    # Each class is a training of its own.
    alone = ImageLogisticRegression(solver="lbfgs", l2=0.01).fit(x, y == model.classes_[3])
    assert model.history_sha256_[3] == alone.history_sha256_


def test_what_lbfgs_says_and_refuses(birds: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = birds
    with pytest.warns(ConvergenceWarning, match="did not arrive in 3 evaluations"):
        ImageLogisticRegression(number_of_iterations=3, solver="lbfgs").fit(x, y)
    for wrong, words in (
        ({"learning_rate": 0.1}, "leave the learning rate 'auto'"), ({"momentum": 0.9}, "has no momentum"),
        ({"tol": -1}, "gradient to stop at"), ({"class_weight": "fair"}, "class_weight must be None, 'balanced'"),
        ({"class_weight": [1, 2]}, "class_weight must be"), ({"class_weight": {0: "x"}}, "class_weight must be"),
        ({"class_weight": {0: -1}}, "weights in class_w"), ({"class_weight": {0: 1e99}}, "weights in class_w"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            ImageLogisticRegression(solver="lbfgs", **{"number_of_iterations": 3} | wrong).fit(x, y)
    for weights in (np.full(len(y), -1.0), np.zeros(len(y))):
        with pytest.raises(ValueError, match=r"[sS]ample weights"):
            ImageLogisticRegression(number_of_iterations=3).fit(x, y, weights)
    with pytest.raises(ValueError, match="sample_weight"):
        ImageLogisticRegression(number_of_iterations=3).fit(x, y, np.ones(3))
    # Gradient descent stops by it, too.
    model = ImageLogisticRegression(tol=0.02).fit(x, y)
    assert 1 < model.n_iter_ < 2000


def test_other_errors() -> None:
    with pytest.raises(TypeError, match=r"__init__\(\) got an unexpected keyword argument 'penalty'"):
        ImageLogisticRegression(penalty="l2")
    with pytest.raises(InputError, match="one class"):
        ImageLogisticRegression().fit(np.eye(3), [1, 1, 1])
    with pytest.raises(DivergenceError, match="smaller learning rate"):
        ImageLogisticRegression(1e9, 50).fit(np.random.RandomState(0).normal(0, 9, (20, 3)), np.arange(20) % 2)


def test_one_class_of_several_that_diverges_is_no_success() -> None:
    x = np.random.RandomState(0).normal(0, 9, (30, 3))
    model = ImageLogisticRegression(1e9, 50)
    with pytest.raises(DivergenceError, match="smaller learning rate"):
        model.fit(x, np.arange(30) % 3)
    assert not hasattr(model, "coef_")


def test_whole_numbers_that_could_be_pixels_are_warned_of_once(recwarn: pytest.WarningsRecorder) -> None:
    rng = np.random.RandomState(0)
    x, y = rng.randint(0, 256, (300, 4)), np.arange(300) % 2
    other = x.astype(float)
    other[299, 3] = 0.5
    estimator._warn_once.cache_clear()
    model = ImageLogisticRegression(number_of_iterations=2)
    for features in (x.astype(np.uint8), x % 2, -x, x + 1, other):
        model.fit(features, y)
    assert not recwarn.list
    for pixels in (x, x.astype(float), x.astype(np.float32)):
        model.fit(pixels, y)
    (warning,) = recwarn.list
    assert warning.category is UserWarning
    assert str(warning.message).endswith("if it holds pixels, give X.astype('uint8').")
    assert warning.filename == __file__


def test_what_is_said_of_numbers_that_may_be_pixels_suits_their_range() -> None:
    sixteen, y = load_digits(return_X_y=True)
    sixteen, y = sixteen[:400], y[:400]
    estimator._warn_once.cache_clear()
    model = ImageLogisticRegression(number_of_iterations=150)
    words = r"^X holds whole numbers from 0 to 16, and is trained on as features, not .* scale them first: (.*)\.$"
    for given in (sixteen, sixteen.astype(np.int32), sixteen.astype(np.float32)):
        estimator._warn_once.cache_clear()
        with pytest.warns(UserWarning, match=words) as caught:
            features = model.fit(given, y).score(given, y)
    advice = re.search(words, str(caught[0].message))
    assert advice is not None
    pixels = eval(advice[1], {"numpy": np, "X": sixteen})
    assert (pixels.dtype, pixels.min(), pixels.max()) == (np.uint8, 0, 255)
    # What was advised before, whatever the range, and what it does.
    black = sixteen.astype(np.uint8)
    assert model.fit(pixels, y).score(pixels, y) > model.fit(black, y).score(black, y) + 0.1
    assert features > 0.9
    for given in (pixels / 255, (pixels / 255).astype(np.float32)):
        estimator._warn_once.cache_clear()
        words = r"^X holds pixels divided by 255, it seems, and is trained on as features.*; give (numpy.*)\.$"
        with pytest.warns(UserWarning, match=words) as caught:
            model.fit(given, y)
        advice = re.search(words, str(caught[0].message))
        assert advice is not None
        assert (eval(advice[1], {"numpy": np, "X": given}) == pixels).all()
    # The tutorial's functions refuse whole numbers of other types, with the same advice.
    for given, words in ((pixels.astype(np.int32), r"int32; .*; if it holds pixels, give x\.astype\('uint8'\)\.$"),
                         (sixteen.astype(np.int64), r"int64; .* first: numpy\.rint\(x \* \(255 / 16\)\)\.astype"),
                         (pixels.astype(np.int64) - 9, r"int64; give uint8 pixels, or float32 or float64 features\.$"),
                         ((pixels / 255).astype(np.float16), r"float16; give uint8 pixels, or float32")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            descend_many(given.T, (y > 4).reshape(1, -1), [0.1], 1)


def test_a_rising_cost_is_warned_of(birds: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = birds
    with pytest.warns(
        RisingCostWarning, match=r"the learning rate 0\.5 is too large for these pictures; try 0\.005\.$"
    ):
        ImageLogisticRegression(0.5, 5).fit(x, y)
    labels = np.arange(len(y)) % 3
    with pytest.warns(RisingCostWarning, match=r"So it is with 2 more of the 3 models\.$") as caught:
        ImageLogisticRegression(0.5, 5).fit(x, labels)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows forks no processes")
def test_a_forked_process_trains_too() -> None:
    """The threads that train are not forked with a process; joblib's multiprocessing forks."""
    python("""
import multiprocessing
import numpy as np
from xlogreg.estimator import ImageLogisticRegression
x, y = np.random.RandomState(0).randint(0, 256, (400, 300)).astype(np.uint8), np.arange(400) % 2
def fit(implementation):
    return ImageLogisticRegression(0.1, 30, implementation=implementation).fit(x, y).history_sha256_
here = fit("fused")
with multiprocessing.get_context("fork").Pool(1) as pool:
    assert pool.map_async(fit, ["auto", "fused", "reference"]).get(60) == [here] * 3
assert fit("fused") == here
""")


def test_threads_train_at_the_same_time() -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from xlogreg.estimator import ImageLogisticRegression
x, y = np.random.RandomState(0).randint(0, 256, (400, 300)).astype(np.uint8), np.arange(400) % 2
with ThreadPoolExecutor(4) as pool:
    models = list(pool.map(lambda _: ImageLogisticRegression(0.01, 100, implementation="fused").fit(x, y), range(8)))
assert len({model.history_sha256_ for model in models}) == 1
"""
    python(code, NUMBA_NUM_THREADS="2")


def test_without_scikit_learn_one_sentence_says_so() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import xlogreg.estimator"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].startswith("ImportError: xlogreg.estimator needs scikit-learn")


def test_the_example_in_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[1] / "docs" / "sklearn.md").read_text(encoding="utf-8")
    example = text.partition("<!-- scikit-learn example -->\n```python\n")[2].partition("```")[0]
    assert "ImageLogisticRegression" in example
    exec(compile(example, "sklearn.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.startswith(tutorial.GOLDEN_SHA256_100)
    assert "{'learning_rate': 0.0" in printed
