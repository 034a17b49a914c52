"""The tutorial's functions: what they compute, to how many digits, and what they refuse."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strict
from hypothesis import given
from hypothesis import strategies as st

from xlogreg import logistic
from xlogreg.arrays import to_host
from xlogreg.data.birds import load_birds
from xlogreg.data.task import as_columns, make_task
from xlogreg.errors import DeviceError, DivergenceError, InputError, RisingCostWarning, XlogregError
from xlogreg.neuron.options import DescentOptions
from xlogreg.neuron.reference import Reference
from xlogreg.proof.tutorial import GOLDEN_SHA256_100
from xlogreg.system import parallel
from xlogreg.system.parallel import one_blas_thread


def problem(seed: int = 0, m: int = 40, d: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (d, m) with some structure and labels (1, m) that depend on them."""
    rng = np.random.RandomState(seed)
    y = (rng.uniform(size=(1, m)) < 0.5).astype(np.int64)
    base = rng.randint(40, 216, (d, 1)) + 25 * (2 * y - 1) * rng.uniform(-1, 1, (d, 1))
    return np.clip(base + rng.normal(0, 40, (d, m)), 0, 255).astype(np.uint8), y


def extended_cost(w: np.ndarray, b: float, x: np.ndarray, y: np.ndarray) -> np.longdouble:
    """The tutorial's cost in 80-bit arithmetic."""
    z = (w.astype(np.longdouble).T @ x.astype(np.longdouble)) / 255 + np.longdouble(b)
    v = np.where(y == 1, -z, z)
    return np.mean(np.maximum(v, 0) + np.log1p(np.exp(-np.abs(v))))


needs_80_bits = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="numpy.longdouble has no 80 bits on this machine"
)


@needs_80_bits
@given(st.integers(0, 10_000), st.integers(1, 300), st.integers(1, 300), st.floats(0.001, 0.3))
def test_cost_is_within_4e16_of_80_bits(seed: int, m: int, d: int, scale: float) -> None:
    x, y = problem(seed, m, d)
    w = np.random.RandomState(seed).normal(0, scale / math.sqrt(d), (d, 1))
    _, cost = logistic.propagate(w, 0.1, x, y)
    true = extended_cost(w, 0.1, x, y)
    assert abs(cost - true) <= 4e-16 * true


@needs_80_bits
def test_cost_stays_accurate_where_the_model_is_nearly_certain() -> None:
    x, y = problem(3, 200, 60)
    w = np.where(x @ (2 * y.T - 1) > 0, 1.0, -1.0) * 0.2
    _, cost = logistic.propagate(w, -float(np.mean(w.T @ (x / 255))), x, y)
    true = extended_cost(w, -float(np.mean(w.T @ (x / 255))), x, y)
    assert abs(cost - true) <= 4e-16 * true


@needs_80_bits
@pytest.mark.parametrize(("positive", "grey"), [("cat", False), ("ship", True), ("frog", True), ("bird", False)])
def test_cost_on_real_pictures_while_training(positive: str, grey: bool) -> None:
    task = make_task(load_birds(), positive, test_size=0.1)
    pictures = task.x_train
    if grey:
        pictures = np.rint(pictures @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)
    x, y = as_columns(pictures, task.y_train)
    w, b = np.zeros((x.shape[0], 1)), 0.0
    for _ in range(4):
        cost = float(logistic.propagate(w, b, x, y)[1])
        true = extended_cost(w, b, x, y)
        assert abs(cost - true) <= 4e-16 * true
        params, _, _ = logistic.optimize(w, b, x, y, 40, 0.01)
        w, b = params["w"], params["b"]


def test_gradient_is_the_slope_of_the_cost() -> None:
    x, y = problem(1)
    w = np.random.RandomState(1).normal(0, 0.1, (48, 1))
    grad, _ = logistic.propagate(w, 0.3, x, y)
    h = 1e-6
    for i in (0, 7, 47):
        step = np.zeros_like(w)
        step[i] = h
        slope = (logistic.propagate(w + step, 0.3, x, y)[1] - logistic.propagate(w - step, 0.3, x, y)[1]) / (2 * h)
        assert grad["dw"][i, 0] == pytest.approx(slope, abs=1e-8)
    slope = (logistic.propagate(w, 0.3 + h, x, y)[1] - logistic.propagate(w, 0.3 - h, x, y)[1]) / (2 * h)
    assert grad["db"] == pytest.approx(slope, abs=1e-8)


def tutorial_loop(x: np.ndarray, y: np.ndarray, iterations: int, rate: float) -> tuple[np.ndarray, float, list[float]]:
    """The tutorial's own float64 computation on x / 255."""
    m = x.shape[1]
    w, b, costs = np.zeros((x.shape[0], 1)), 0.0, []
    for _ in range(iterations):
        a = 1 / (1 + np.exp(-(np.dot(w.T, x) + b)))
        costs.append(float((-1 / m) * np.sum(y * np.log(a) + (1 - y) * np.log(1 - a))))
        w = w - rate * ((1 / m) * np.dot(x, (a - y).T))
        b = b - rate * float((1 / m) * np.sum(a - y))
    return w, b, costs


def test_pixels_and_features_give_the_tutorials_numbers() -> None:
    x, y = problem(2)
    w, b, costs = tutorial_loop(x / 255, y, 200, 0.1)
    for samples in (x, x / 255, np.ascontiguousarray(x.T).T, (x / 255)[:, ::1]):
        params, grad, history = logistic.optimize(np.zeros((48, 1)), 0, samples, y, 200, 0.1, record_every=1)
        assert history == pytest.approx(costs, abs=1e-12)
        assert params["w"] == pytest.approx(w, abs=1e-12)
        assert params["b"] == pytest.approx(b, abs=1e-12)
        assert (grad["dw"].shape, np.ndim(grad["db"])) == ((48, 1), 0)


def test_float32_features_are_computed_in_float64() -> None:
    x, y = problem(2)
    features = (x / 255).astype(np.float32)
    _, _, history = logistic.optimize(np.zeros((48, 1)), 0, features, y, 50, 0.1, record_every=1)
    assert history == pytest.approx(tutorial_loop(features.astype(np.float64), y, 50, 0.1)[2], abs=1e-12)


def test_tutorial_interface() -> None:
    x, y = problem(4, 60)
    w, b = logistic.initialize_with_zeros(48)
    assert (w.shape, w.dtype, w.any(), b) == ((48, 1), np.float64, False, 0)
    d = logistic.model(x[:, :50], y[:, :50], x[:, 50:], y[:, 50:], number_of_iterations=250, learning_rate=0.05)
    assert set(d) == {
        "cost_history", "y_prediction_train", "y_prediction_test", "w", "b", "learning_rate", "number_of_iterations",
    }  # fmt: skip
    assert len(d["cost_history"]) == 3
    assert d["cost_history"][0] == pytest.approx(math.log(2), abs=1e-16)
    assert (d["y_prediction_train"].shape, d["y_prediction_test"].shape) == ((1, 50), (1, 10))
    assert logistic.accuracy(d["y_prediction_train"], y[:, :50]) > 80
    assert logistic.sigmoid(0) == 0.5
    assert logistic.sigmoid(np.array([[-800.0, 0.0, 800.0]])).tolist()[0][1:] == [0.5, 1.0]


def test_print_cost_prints_every_hundredth(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = problem()
    logistic.optimize(np.zeros((48, 1)), 0, x, y, 201, 0.01, True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"Cost after iteration {i}" for i in (0, 100, 200)]
    assert lines[0].endswith("0.693147")


def test_arguments_are_not_changed() -> None:
    x, y = problem()
    w = np.full((48, 1), 0.01)
    before = (w.copy(), x.copy(), y.copy())
    logistic.optimize(w, 0.5, x, y, 5, 0.01)
    assert all(np.array_equal(a, b) for a, b in zip((w, x, y), before, strict=True))


def test_observer_hears_every_cost_once() -> None:
    x, y = problem()
    heard: list[float] = []
    dones: list[int] = []

    def observer(done: int, costs: np.ndarray) -> None:
        dones.append(done)
        heard.extend(costs[:, 0])

    _, _, history = logistic.optimize(np.zeros((48, 1)), 0, x, y, 333, 0.01, record_every=1, observer=observer)
    assert heard == history
    assert dones[-1] == 333
    assert dones == sorted(set(dones))


def test_several_models_have_the_bits_of_their_own_trainings(to_xp: Callable) -> None:
    x, y = problem(5)
    rates = [0.2, 0.05, 1e-6]
    labels = np.concatenate([y, 1 - y, y])
    together = logistic.descend_many(to_xp(x), to_xp(labels), rates, 60)
    for i, rate in enumerate(rates):
        params, grad, history = logistic.optimize(
            np.zeros((48, 1)), 0, x, labels[i : i + 1], 60, rate, record_every=1, implementation="reference"
        )
        assert together.history[:, i].tolist() == history
        assert to_host(together.w)[i].tolist() == params["w"][:, 0].tolist()
        assert to_host(together.b)[i] == params["b"]
        assert to_host(together.gradient.dw)[i].tolist() == grad["dw"][:, 0].tolist()


def test_device_arrays_give_the_bits_of_numpy_and_stay_on_their_device(to_xp: Callable) -> None:
    x, y = problem(6, 70, 30)
    w = np.random.RandomState(0).normal(0, 0.05, (30, 1))
    expected = logistic.optimize(w, 0.25, x, y, 40, 0.1, record_every=1, implementation="reference")
    params, grad, history = logistic.optimize(to_xp(w), 0.25, to_xp(x), to_xp(y), 40, 0.1, record_every=1)
    assert type(params["w"]) is type(to_xp(w)) is type(grad["dw"])
    assert history == expected[2]
    assert to_host(params["w"]).tolist() == expected[0]["w"].tolist()
    assert params["b"] == expected[0]["b"]
    assert to_host(grad["dw"]).tolist() == expected[1]["dw"].tolist()
    assert float(grad["db"]) == expected[1]["db"]
    grad, cost = logistic.propagate(to_xp(w), 0.25, to_xp(x), to_xp(y), chunk=9)
    assert float(cost) == history[0]
    outputs = logistic.forward(to_xp(w), 0.25, to_xp(x))
    assert to_host(outputs).tolist() == logistic.forward(w, 0.25, x).tolist()
    predictions = logistic.predict(to_xp(w), 0.25, to_xp(x))
    assert to_host(predictions).tolist() == logistic.predict(w, 0.25, x).tolist()
    assert logistic.accuracy(predictions, to_xp(y)) == logistic.accuracy(logistic.predict(w, 0.25, x), y)
    d = logistic.model(*(to_xp(array) for array in (x, y, x, y)), 30, 0.1)
    assert d["cost_history"] == logistic.model(x, y, x, y, 30, 0.1)["cost_history"]


def test_float_features_on_device_arrays(to_xp: Callable) -> None:
    x, y = problem(6, 70, 30)
    history = logistic.optimize(to_xp(np.zeros((30, 1))), 0, to_xp(x / 255), to_xp(y), 40, 0.1, record_every=1)[2]
    assert history == pytest.approx(tutorial_loop(x / 255, y, 40, 0.1)[2], abs=1e-12)


def test_a_rising_cost_is_said_wherever_the_arrays_are(to_xp: Callable) -> None:
    x, y = problem(6, 70, 30)
    for samples in (x, x / 255):
        with pytest.warns(RisingCostWarning) as expected:
            logistic.descend_many(samples, y, [80.0], 30)
        options = DescentOptions(class_weight=(1.0, 1.0))
        with pytest.warns(RisingCostWarning) as caught:
            logistic.descend_many(to_xp(samples), to_xp(y), [80.0], 30, options=options)
        assert [str(warning.message) for warning in caught] == [str(expected[0].message)]
    with pytest.raises(DivergenceError, match=r"choose a smaller learning rate, 0\.\d+ say\."):
        logistic.descend_many(to_xp(x), to_xp(y), [1e9], 30)


def test_no_synchronisation_an_iteration() -> None:
    x, y = problem()
    arrays = [strict.asarray(array) for array in (np.zeros((48, 1)), x, y)]

    def count(iterations: int, monkeypatched_block: float) -> int:
        from xlogreg.solvers import descent

        before = strict.synchronisations
        saved, descent._BLOCK_SECONDS = descent._BLOCK_SECONDS, monkeypatched_block
        try:
            logistic.optimize(arrays[0], 0, arrays[1], arrays[2], iterations, 0.01)
        finally:
            descent._BLOCK_SECONDS = saved
        return strict.synchronisations - before

    # Blocks of 1, 8, 64 and 182: one host copy a block, whatever the number of iterations in it.
    assert count(255, 1e9) - count(1, 1e9) == 3


def test_mixed_arrays_are_refused() -> None:
    x, y = problem()
    with pytest.raises(DeviceError, match=r"numpy and strict are mixed"):
        logistic.propagate(np.zeros((48, 1)), 0, strict.asarray(x), strict.asarray(y))
    with pytest.raises(DeviceError, match="mixed"):
        logistic.optimize(strict.asarray(np.zeros((48, 1))), 0, strict.asarray(x), y, 1, 0.1)
    with pytest.raises(DeviceError, match="not list"):
        logistic.propagate(np.zeros((48, 1)), 0, [[1, 2]], y)


@pytest.mark.parametrize("implementation", ["reference", "auto"])
def test_saturation_is_no_accident(implementation: str) -> None:
    x = np.array([[255, 255, 0]], dtype=np.uint8)
    y = np.array([[0, 1, 1]])
    grad, cost = logistic.propagate(np.array([[1e6]]), 0.0, x, y)
    assert cost == (1e6 + 0 + math.log(2)) / 3
    assert np.isfinite(grad["dw"]).all()
    with pytest.raises(DivergenceError, match=r"iteration 1.*smaller learning rate") as caught:
        logistic.optimize(np.zeros((1, 1)), 0.0, x, y, 500, 1e9, implementation=implementation)
    assert caught.value.iteration == 1
    assert caught.value.learning_rate == 1e9
    assert isinstance(caught.value, ArithmeticError)


def test_divergence_names_the_iteration_in_a_later_block() -> None:
    x, y = problem(7)
    # This rate overshoots more with every step.
    with pytest.raises(DivergenceError) as caught:
        logistic.optimize(np.zeros((48, 1)), 0.0, x, y, 10_000, 3e5)
    _, _, history = logistic.optimize(np.zeros((48, 1)), 0.0, x, y, caught.value.iteration, 3e5, record_every=1)
    assert np.isfinite(history).all()


def test_the_tutorials_steps_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
    block = text.partition("<!-- step by step -->\n```python\n")[2].partition("```")[0]
    assert [line[2:4] for line in block.splitlines() if line.startswith("# ")] == [f"{i}." for i in range(1, 10)]
    assert block.count("2000") == 4
    found: dict[str, Any] = {}
    # Fewer iterations: what is printed is of the same kind.
    exec(compile(block.replace("2000", "100"), "tutorial.md", "exec"), found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(logistic.sigmoid(np.array([0, 2])))
    assert lines[1] == "Cost after iteration 0: 0.693147"
    assert found["training"].history_sha256 == GOLDEN_SHA256_100
    assert found["d"]["w"].tolist() == found["params"]["w"].tolist()
    assert float(lines[-1]) == found["training"].classifier.probability(found["picture"][None])[0]


X, Y = problem()
W = np.zeros((48, 1))
BAD_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "y with 2s": (lambda: logistic.propagate(W, 0, X, np.where(Y == 1, 2, 0)), "must be 0 or 1.*sample"),
    "y NaN": (lambda: logistic.propagate(W, 0, X, np.full((1, 40), np.nan)), "must be 0 or 1"),
    "lengths": (lambda: logistic.propagate(W, 0, X, Y[:, :39]), "40 samples .* 39 labels"),
    "y flat": (lambda: logistic.propagate(W, 0, X, Y[0]), r"reshape\(1, -1\)"),
    "w size": (lambda: logistic.propagate(np.zeros((47, 1)), 0, X, Y), r"\(48, 1\)"),
    "w flat": (lambda: logistic.optimize(np.zeros(48), 0, X, Y, 1, 0.1), r"\(48, 1\)"),
    "w type": (lambda: logistic.propagate(W.astype(np.float32), 0, X, Y), "float64 weights"),
    "w NaN": (lambda: logistic.propagate(np.full((48, 1), np.nan), 0, X, Y), "NaN"),
    "b NaN": (lambda: logistic.propagate(W, math.nan, X, Y), "b must be a finite"),
    "b text": (lambda: logistic.propagate(W, "zero", X, Y), "b must be a finite"),  # type: ignore[arg-type]
    "x NaN": (
        lambda: logistic.propagate(W, 0, np.where(X[3, 4] == X, np.nan, X / 255), Y),
        "NaN or infinite at feature",
    ),
    "x infinite": (lambda: logistic.forward(W, 0, np.full((48, 2), np.inf)), "infinite at feature 0 of sample 0"),
    "x integers": (lambda: logistic.propagate(W, 0, X.astype(np.int64), Y), "int64; give uint8"),
    "x one dimension": (lambda: logistic.propagate(W, 0, X[0], Y), "shape"),
    "x empty": (lambda: logistic.propagate(W, 0, X[:, :0], Y[:, :0]), "at least one"),
    "rate 0": (lambda: logistic.optimize(W, 0, X, Y, 1, 0), "learning rate .* above 0"),
    "rate negative": (lambda: logistic.optimize(W, 0, X, Y, 1, -0.1), "learning rate"),
    "rate infinite": (lambda: logistic.optimize(W, 0, X, Y, 1, math.inf), "learning rate"),
    "rate NaN": (lambda: logistic.optimize(W, 0, X, Y, 1, math.nan), "learning rate"),
    "rate text": (lambda: logistic.optimize(W, 0, X, Y, 1, "fast"), "learning rate"),  # type: ignore[arg-type]
    "no iterations": (lambda: logistic.optimize(W, 0, X, Y, 0, 0.1), "iterations"),
    "half an iteration": (lambda: logistic.optimize(W, 0, X, Y, 1.5, 0.1), "iterations"),  # type: ignore[arg-type]
    "chunk 0": (lambda: logistic.optimize(W, 0, X, Y, 1, 0.1, chunk=0), "chunk"),
    "record": (lambda: logistic.optimize(W, 0, X, Y, 1, 0.1, record_every=0), "record_every"),
    "implementation": (lambda: logistic.optimize(W, 0, X, Y, 1, 0.1, implementation="magic"), "implementation"),
    "dim": (lambda: logistic.initialize_with_zeros(0), "number of features"),
    "test features": (lambda: logistic.model(X, Y, X[:47], Y, 1, 0.1), "x_test has 47"),
    "rows of labels": (
        lambda: logistic.descend_many(X, np.concatenate([Y, Y]), [0.1] * 3, 1),
        "2 rows of labels for 3",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_arguments_get_one_clear_sentence(name: str) -> None:
    call, words = BAD_CALLS[name]
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert isinstance(caught.value, (XlogregError, ValueError))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("m", "d"), [(2**18 + 5, 3), (3, 2**18 + 5)])
def test_more_terms_than_one_block(m: int, d: int, to_xp: Callable) -> None:
    rng = np.random.RandomState(9)
    x, y = rng.randint(0, 256, (d, m)).astype(np.uint8), rng.randint(0, 2, (1, m))
    w = rng.normal(0, 1 / math.sqrt(d), (d, 1))
    grad, cost = logistic.propagate(w, 0.1, x, y)
    order = rng.permutation(m)
    again, same_cost = logistic.propagate(to_xp(w), 0.1, to_xp(x[:, order]), to_xp(y[:, order]), chunk=99_999)
    assert float(same_cost) == cost
    assert to_host(again["dw"]).tolist() == grad["dw"].tolist()
    residual = logistic.forward(w, 0.1, x) - y
    np.testing.assert_allclose(grad["dw"], (x / 255) @ residual.T / m, rtol=0, atol=1e-14)


@pytest.mark.parametrize("implementation", ["reference", "auto"])
@pytest.mark.parametrize(
    ("w", "b", "words"),
    [
        (np.zeros((1, 47)), [0.0], r"\(1, 48\)"),
        (np.zeros((2, 48)), [0.0], r"\(1, 48\)"),
        (np.zeros((1, 48)), [0.0, 0.0], "b has 2"),
        (np.zeros((1, 48)), [], "b has 0"),
        (np.full((1, 48), np.nan), [0.0], "NaN"),
        (np.full((1, 48), 1e306), [0.0], "huge"),
        (np.zeros((1, 48)), [10**400], "b must be"),
    ],
)
def test_bad_starts_are_refused(w: np.ndarray, b: list, words: str, implementation: str) -> None:
    with pytest.raises(InputError, match=words):
        logistic.descend_many(X, Y, [0.1], 1, w=w, b=b, implementation=implementation)


def test_absurd_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="up to 1,000,000,000"):
        logistic.optimize(W, 0, X, Y, 10**20, 0.1)
    with pytest.raises(InputError, match="learning rate"):
        logistic.optimize(W, 0, X, Y, 1, 10**400)
    with pytest.raises(InputError, match="at least one"):
        logistic.descend_many(X, Y, [], 1)


def test_blas_has_one_thread_while_anybody_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> set[int]:
        # SciPy may have brought another one since.
        return {library["num_threads"] for library in parallel._blas().info() if library["user_api"] == "blas"}

    two = parallel._blas().limit(limits=2, user_api="blas")
    before = threads()
    assert before == {2}, "NumPy's BLAS is not known to threadpoolctl"
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(one_blas_thread)
    second.enter_context(one_blas_thread)
    assert threads() == {1}
    first.close()
    assert threads() == {1}
    second.close()
    assert threads() == before
    seen = []

    def watched(*given: Any, **named: Any) -> Any:
        seen.append(threads())
        return evaluate(*given, **named)

    evaluate = Reference.evaluate
    monkeypatch.setattr(Reference, "evaluate", watched)
    logistic.descend_many(*problem(), [0.1], 3, implementation="reference")
    assert seen == [{1}] * 3
    assert threads() == before
    two.restore_original_limits()
