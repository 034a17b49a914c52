"""Training beyond the tutorial's: each option against plain float64 and scikit-learn, with the same bits everywhere."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from helpers import descent

from xlogreg import kernels
from xlogreg.arrays import to_host
from xlogreg.data.birds import load_birds
from xlogreg.data.task import Task, as_columns, make_task
from xlogreg.errors import DivergenceError, InputError
from xlogreg.logistic import descend_many, model, optimize, propagate
from xlogreg.neuron.exact import LARGEST_WEIGHT
from xlogreg.neuron.options import CAPABILITIES, DescentOptions
from xlogreg.runs.training import train_together
from xlogreg.solvers.descent import Descent, history_sha256


@dataclass(frozen=True)
class Case:
    """Options and the digests of their histories: 200 iterations of the small problem, 40 of the birds."""

    options: DescentOptions
    golden: str
    golden_birds: str
    weighted: bool = False
    birds_iterations: int = 40
    birds_options: DescentOptions | None = None

    @property
    def needs(self) -> frozenset[str]:
        return self.options.needs(self.weighted)


CASES = {
    "l2": Case(
        DescentOptions(l2=0.02),
        "9b3ab56c3dbb7e2f9e83c22537f569d96babe05722c4f01630d36e98ebdf5fc8",
        "57512435de7d449b9c15724a38aa8de7f8dfd2abc41847910bf7288399361e09",
    ),
    "momentum": Case(
        DescentOptions(momentum=0.9),
        "0dbefd672aa7b12320750e94c70b5d9c1e7bb99cdbb70ce95ca9202c1aba9813",
        "459f9eaab0c16ede3ca4aaf5107e0865e9733423a776e83a3a39e07ee987f574",
    ),
    "nesterov": Case(
        DescentOptions(momentum=0.9, nesterov=True),
        "6213cdac3716321d3d9aea660ec3cf279c5bae6f0f72e2904bb41a83ab404129",
        "f77ce5d9e6bddd20f6f8fd892649a3d6ed51bb93b9497497a2ebc0ac50f3b4b9",
    ),
    "class weights": Case(
        DescentOptions(class_weight=(1.0, 2.5)),
        "4de9bf08e7bfa5b8556d126cbaa39f31bfdf9ed872889e100c3de24ce5ef0dc4",
        "788ed3a855bb3f4c7c0ac6e8c6429455dfecaf6c0d9d98dfbc4cb9d85fa9471b",
    ),
    "balanced": Case(
        DescentOptions(class_weight="balanced"),
        "79d13963f0679e2a7482aa352a1003717c149974a1aba69173e413f87497b11f",
        "ba5f1be3de2b092586aa9ef5fb6276e78ba91b3cdd7f2b4e443530b0b01a11c3",
    ),
    "sample weights": Case(
        DescentOptions(),
        "142c14f1a212ac8f064ac21c1f7cb4451cecb00bf685a958a6cf80a02e53053c",
        "13f2827449c6cb7a193e80b4cd50e9729a93640f329731f179af2ffc3e977311",
        weighted=True,
    ),
    "gradient": Case(
        DescentOptions(gradient_tolerance=0.03),
        "2191f3ee5abb1557a1fdc8abcb74bbc570e28edb5e0f30c0f4ba10c6d7b671e4",
        "39958d4abaca731143a0e3cd254c8dbb970ea285079297955a15d8208cb7fd44",
        birds_options=DescentOptions(gradient_tolerance=0.018),
    ),
    "cost": Case(
        DescentOptions(cost_tolerance=3e-4),
        "edf39bb49ba6929571651e4f624e0104b2dd32b776dff910d06e85a4b1b475ad",
        "7bcbcaba9f758962cf9568e8c48bb886c775e2e8e1ebd1bf72ac9a5faa035165",
        birds_options=DescentOptions(cost_tolerance=7e-4),
    ),
    "everything": Case(
        DescentOptions(
            l2=0.001, momentum=0.5, nesterov=True, gradient_tolerance=1e-9, cost_tolerance=1e-9, class_weight=(0.7, 1.3)
        ),
        "3883324d18e33530efd1f59a321379851af4fb599b4bbb0415ef338871581a1f",
        "3e3326e6220c70a88ac16eeb5d40ec4c8f3379bd861bf79c8601eaa714f48d6f",
        weighted=True,
        birds_iterations=300,
    ),
}
EACH = pytest.mark.parametrize("name", CASES)
# Each option with each implementation that supports it.
EACH_WAY = pytest.mark.parametrize(
    ("name", "implementation"),
    [(name, way) for name, case in CASES.items() for way in kernels.available("cpu", needs=case.needs)],
)
RATE = 0.05


def problem(m: int = 90, d: int = 48) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (d, m), labels (1, m) of which a quarter is 1, and weights of the samples (1, m)."""
    rng = np.random.RandomState(20)
    y = (rng.uniform(size=(1, m)) < 0.25).astype(np.int64)
    shift = rng.randint(-30, 31, (d, 1))
    x = np.clip(rng.randint(60, 196, (d, m)) + shift * y, 0, 255).astype(np.uint8)
    return x, y, rng.randint(0, 17, (1, m)) / 4.0


X, Y, C = problem()


def train(name: str, iterations: int = 200, rates: tuple[float, ...] = (RATE,), **changes: Any) -> Descent:
    case = CASES[name]
    arguments: dict[str, Any] = {"options": case.options, "sample_weight": C if case.weighted else None, **changes}
    return descend_many(X, Y, list(rates), iterations, **arguments)


def plain(
    x: np.ndarray, y: np.ndarray, iterations: int, rate: float, options: DescentOptions, c: np.ndarray | None
) -> tuple[np.ndarray, float, list[float], list[float]]:
    """The same training in plain float64 on x / 255: w, b, and the cost and largest gradient of each iteration."""
    x = x / 255
    m = x.shape[1]
    weight = np.ones((1, m)) if c is None else c
    if options.class_weight == "balanced":
        weight = weight * np.where(y == 1, m / (2 * np.sum(y == 1)), m / (2 * np.sum(y == 0)))
    elif options.class_weight is not None:
        weight = weight * np.where(y == 1, options.class_weight[1], options.class_weight[0])
    w, b, v, vb = np.zeros((len(x), 1)), 0.0, np.zeros((len(x), 1)), 0.0
    costs, slopes = [], []
    for _ in range(iterations):
        a = 1 / (1 + np.exp(-(np.dot(w.T, x) + b)))
        loss = -(y * np.log(a) + (1 - y) * np.log(1 - a))
        costs.append(float(np.sum(weight * loss) / m + options.l2 / 2 * np.sum(w**2)))
        dw = np.dot(x, (weight * (a - y)).T) / m + options.l2 * w
        db = float(np.sum(weight * (a - y)) / m)
        slopes.append(max(float(np.abs(dw).max()), abs(db)))
        v, vb = options.momentum * v + dw, options.momentum * vb + db
        step, step_b = (dw + options.momentum * v, db + options.momentum * vb) if options.nesterov else (v, vb)
        w, b = w - rate * step, b - rate * step_b
    return w, b, costs, slopes


@EACH_WAY
def test_golden_digest(name: str, implementation: str) -> None:
    assert history_sha256(train(name, implementation=implementation).histories[0]) == CASES[name].golden


@pytest.fixture(scope="module")
def birds() -> tuple[np.ndarray, np.ndarray]:
    task = make_task(load_birds(), "bird")
    return as_columns(task.x_train, task.y_train)


@EACH_WAY
def test_golden_digest_of_the_birds(birds: tuple[np.ndarray, np.ndarray], name: str, implementation: str) -> None:
    x, y = birds
    case = CASES[name]
    weights = (np.arange(y.shape[1]) % 7 / 2) if case.weighted else None
    result = descend_many(
        x, y, [0.005], case.birds_iterations, options=case.birds_options or case.options, sample_weight=weights,
        implementation=implementation,
    )  # fmt: skip
    assert history_sha256(result.histories[0]) == case.golden_birds


@EACH
def test_plain_float64(name: str) -> None:
    case = CASES[name]
    result = train(name)
    steps = len(result.histories[0])
    w, b, costs, slopes = plain(X, Y, 200, RATE, case.options, C if case.weighted else None)
    assert result.histories[0] == pytest.approx(costs[:steps], abs=1e-12)
    if steps < 200:
        w, b, _, _ = plain(X, Y, steps, RATE, case.options, C if case.weighted else None)
    assert result.w[0] == pytest.approx(w[:, 0], abs=1e-12)
    assert result.b[0] == pytest.approx(b, abs=1e-12)
    if name == "gradient":
        assert steps == 1 + next(k for k, slope in enumerate(slopes) if slope <= 0.03) < 200
    elif name == "cost":
        changes = [abs(before - after) for before, after in pairwise(costs)]
        assert steps == 2 + next(k for k, change in enumerate(changes) if change <= 3e-4) < 200
    else:
        assert steps == 200
    assert result.reasons == [{"gradient": "gradient", "cost": "cost"}.get(name, "iterations")]
    # The penalty's part is in the gradient that is returned.
    norm = max(np.abs(result.gradient.dw).max(), abs(result.gradient.db[0]))
    assert norm == pytest.approx(slopes[steps - 1], abs=1e-12)


@EACH
def test_float_features_are_equal_to_rounding(name: str) -> None:
    case = CASES[name]
    result = descend_many(
        X / 255, Y, [RATE], 200, options=case.options, sample_weight=C[0] if case.weighted else None
    )  # fmt: skip
    assert result.histories[0] == pytest.approx(train(name).histories[0], abs=1e-12)


@pytest.mark.parametrize("class_weight", [None, "balanced", (1.0, 3.0)])
def test_scikit_learn_has_the_same_minimum(class_weight: Any) -> None:
    from sklearn.linear_model import LogisticRegression

    l2, m = 0.2, X.shape[1]
    options = DescentOptions(
        l2=l2, momentum=0.9, nesterov=True, gradient_tolerance=1e-9, class_weight=class_weight
    )  # fmt: skip
    result = descend_many(X, Y, [0.2], 20_000, options=options)
    assert result.reasons == ["gradient"]
    weights = dict(enumerate(class_weight)) if isinstance(class_weight, tuple) else class_weight
    peer = LogisticRegression(C=1 / (m * l2), class_weight=weights, tol=1e-12, max_iter=10_000)
    peer.fit(X.T / 255, Y[0])
    assert result.w[0] == pytest.approx(peer.coef_[0], abs=2e-6)
    assert result.b[0] == pytest.approx(peer.intercept_[0], abs=2e-6)


def same(one: Descent, i: int, other: Descent, j: int = 0) -> bool:
    return (
        one.histories[i].tolist() == other.histories[j].tolist()
        and one.reasons[i] == other.reasons[j]
        and to_host(one.w)[i].tolist() == to_host(other.w)[j].tolist()
        and to_host(one.b)[i] == to_host(other.b)[j]
        and to_host(one.gradient.dw)[i].tolist() == to_host(other.gradient.dw)[j].tolist()
        and to_host(one.gradient.db)[i] == to_host(other.gradient.db)[j]
    )


@EACH
@pytest.mark.parametrize("chunk", [1, 7, 90])
def test_chunks(name: str, chunk: int) -> None:
    assert same(train(name, 50, chunk=chunk), 0, train(name, 50))


@EACH_WAY
def test_samples_shuffled(name: str, implementation: str) -> None:
    case = CASES[name]
    order = np.random.RandomState(3).permutation(X.shape[1])
    result = descend_many(
        X[:, order], Y[:, order], [RATE], 60, options=case.options,
        sample_weight=C[:, order] if case.weighted else None, implementation=implementation,
    )  # fmt: skip
    assert same(result, 0, train(name, 60))


@EACH
def test_device_arrays(name: str, to_xp: Callable) -> None:
    case = CASES[name]
    result = descend_many(
        to_xp(X), to_xp(Y), [RATE, 2 * RATE], 80, options=case.options,
        sample_weight=to_xp(C) if case.weighted else None,
    )  # fmt: skip
    expected = train(name, 80, (RATE, 2 * RATE))
    assert same(result, 0, expected)
    assert same(result, 1, expected, 1)


RATES = (RATE, 0.2, 0.01, 1e-5)


@functools.cache
def alone(name: str, rate: float) -> Descent:
    return train(name, 130, (rate,), implementation="reference")


@EACH_WAY
@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_several_together_have_the_bits_of_their_own_trainings(
    name: str, implementation: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of one iteration, and of 1, 2, 4, .., in which models end early: they are taken back to that iteration."""
    monkeypatch.setattr("xlogreg.solvers.descent._BLOCK_SECONDS", seconds)
    together = train(name, 130, RATES, implementation=implementation)
    for i, rate in enumerate(RATES):
        assert same(together, i, alone(name, rate))
    if name in ("gradient", "cost"):
        assert len(set(map(len, together.histories))) > 1
        assert name in together.reasons


@pytest.mark.parametrize("name", ["gradient", "cost"])
def test_stopping_is_the_beginning_of_a_training_that_never_stops(name: str) -> None:
    stopped = train(name)
    steps = len(stopped.histories[0])
    whole = train(name, options=DescentOptions())
    assert stopped.histories[0].tolist() == whole.histories[0][:steps].tolist()
    alone = train(name, steps, options=DescentOptions())
    assert (stopped.w.tolist(), stopped.b.tolist()) == (alone.w.tolist(), alone.b.tolist())
    assert stopped.gradient.dw.tolist() == alone.gradient.dw.tolist()
    # A smaller tolerance stops later, none at all never.
    names = {"gradient": "gradient_tolerance", "cost": "cost_tolerance"}
    value = getattr(CASES[name].options, names[name])
    later = train(name, options=DescentOptions(**{names[name]: value / 2}))
    assert steps < len(later.histories[0])
    assert train(name, options=DescentOptions(**{names[name]: 0.0})).reasons == ["iterations"]


def test_stopping_at_the_first_and_at_the_last_iteration() -> None:
    first = descend_many(X, Y, [RATE], 50, options=DescentOptions(gradient_tolerance=10.0))
    assert (len(first.histories[0]), first.reasons) == (1, ["gradient"])
    second = descend_many(X, Y, [RATE], 50, options=DescentOptions(cost_tolerance=10.0))
    assert (len(second.histories[0]), second.reasons) == (2, ["cost"])
    steps = len(train("gradient").histories[0])
    assert train("gradient", steps).reasons == ["gradient"]
    assert train("gradient", steps - 1).reasons == ["iterations"]


def test_weights_of_one_are_no_weights_and_a_weight_of_two_is_a_sample_twice() -> None:
    nothing = descend_many(X, Y, [RATE], 60)
    for changes in (
        {"sample_weight": np.ones(X.shape[1])},
        {"options": DescentOptions(class_weight=(1, 1))},
        {"options": DescentOptions(class_weight=(2, 2)), "sample_weight": np.full(Y.shape, 0.5)},
    ):
        assert same(descend_many(X, Y, [RATE], 60, **changes), 0, nothing)  # type: ignore[arg-type]
    twice = descend_many(np.concatenate([X, X], axis=1), np.concatenate([Y, Y], axis=1), [RATE], 60)
    weighted = descend_many(X, Y, [2 * RATE], 60, sample_weight=np.full(Y.shape, 0.5))
    assert weighted.w[0] == pytest.approx(twice.w[0], abs=1e-13)
    # A sample without weight might as well not be there, but for m.
    some = np.arange(X.shape[1]) < 60
    part = descend_many(X[:, some], Y[:, some], [RATE * 60 / 90], 60)
    assert descend_many(X, Y, [RATE], 60, sample_weight=some).w[0] == pytest.approx(part.w[0], abs=1e-13)


def test_large_weights_lose_no_digit() -> None:
    """A power of two as the weight of all samples changes nothing but the cost's exponent and the needed rate."""
    result = descend_many(X, Y, [RATE / 2**40], 60, sample_weight=np.full(Y.shape, 2.0**40))
    assert result.w.tolist() == descend_many(X, Y, [RATE], 60).w.tolist()
    with pytest.raises(DivergenceError):
        descend_many(X, Y, [RATE], 60, sample_weight=np.full(Y.shape, 2.0**100))


def test_balanced_classes_count_alike() -> None:
    grad, _ = propagate(np.zeros((48, 1)), 0.0, X, Y)
    assert grad["db"] > 0.2
    result = descend_many(X, Y, [RATE], 1, options=DescentOptions(class_weight="balanced"))
    assert abs(result.gradient.db[0]) < 1e-15


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e-130, 1e100])
def test_penalty_of_tiny_and_of_large_weights(scale: float) -> None:
    """Squares beyond the numbers there are give a small penalty or a clear end, never a wrong cost."""
    w = np.full((1, 48), scale)
    no_pixels = np.zeros_like(X)
    result = descend_many(no_pixels, Y, [1e-9], 1, w=w, options=DescentOptions(l2=1.0))
    assert result.histories[0][0] == pytest.approx(math.log(2) + 0.5 * 48 * scale**2, rel=1e-15)
    large = np.full((1, 48), LARGEST_WEIGHT / 2)
    with pytest.raises(DivergenceError, match="iteration 0"):
        descend_many(no_pixels, Y, [1e-9], 1, w=large, options=DescentOptions(l2=1.0))


@pytest.mark.parametrize("implementation", kernels.available("cpu"))
def test_a_diverging_model_leaves_the_others_alone(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = [RATE, 1e5, 0.01, 1e9]
    result = descend_many(X, Y, rates, 120, implementation=implementation)
    assert [reason == "diverged" for reason in result.reasons] == [False, True, False, True]
    for i in (0, 2):
        assert same(result, i, descend_many(X, Y, [rates[i]], 120))
        assert result.errors[i] is None
    for i in (1, 3):
        with pytest.raises(DivergenceError) as caught:
            descend_many(X, Y, [rates[i]], 120, implementation=implementation)
        error = result.errors[i]
        assert error is not None
        assert (str(error), error.iteration) == (str(caught.value), caught.value.iteration)
        assert len(result.histories[i]) == error.iteration
        assert np.isfinite(result.histories[i]).all()
    assert np.isnan(result.history[-1, [1, 3]]).all()
    assert result.history.shape == (120, 4)
    # The last one of all, too, and inside a long block.
    monkeypatch.setattr("xlogreg.solvers.descent._BLOCK_SECONDS", 1e9)
    every = descend_many(X, Y, [1e9, 1e5, 2e9], 5000, implementation=implementation)
    assert every.reasons == ["diverged"] * 3
    assert len(set(map(len, every.histories))) > 1
    assert every.histories[1].tolist() == result.histories[1].tolist()


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_models_that_stop_and_diverge_in_one_block(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The penalty makes these rates overshoot a little more with every step."""
    monkeypatch.setattr("xlogreg.solvers.descent._BLOCK_SECONDS", seconds)
    options = DescentOptions(l2=1.0, gradient_tolerance=0.03)
    rates = [2.5, 0.2, 2.1, 1e-4, 2.05, 0.1]
    result = descend_many(X, Y, rates, 200, options=options)
    assert result.reasons == ["diverged", "gradient", "diverged", "iterations", "diverged", "gradient"]
    assert list(map(len, result.histories)) == [26, 91, 94, 200, 169, 181]
    for i in (1, 3, 5):
        assert same(result, i, descend_many(X, Y, [rates[i]], 200, options=options))


@EACH_WAY
def test_state_and_restore_and_keep(name: str, implementation: str) -> None:
    case = CASES[name]
    rows, sign = np.ascontiguousarray(X.T), np.concatenate([1.0 - 2.0 * Y] * 3)
    engine = descent(
        implementation, rows, sign, np.zeros((3, 48)), np.zeros(3), np.array([0.1, 0.2, 0.05]),
        sample_weight=np.concatenate([C] * 3) if case.weighted else None,
        options=replace(case.options, class_weight=None),
    )  # fmt: skip
    engine.run(20)
    state = engine.state()
    kept = state.w.copy()
    assert state.iterations == 20
    first = engine.run(15)
    if case.options.gradient_tolerance is not None:
        assert engine.largest is not None
        assert engine.largest.shape == (15, 3)
    after = engine.w.copy()
    engine.restore(state)
    assert engine.state().iterations == 20
    engine.keep([0, 2])
    assert engine.run(15).tolist() == first[:, [0, 2]].tolist()
    assert engine.w.tolist() == after[[0, 2]].tolist()
    assert state.w.tolist() == kept.tolist()


def test_the_monitor_sees_every_hundredth_state_and_the_last() -> None:
    visits: list[tuple[list[int], int, list[float]]] = []
    rates = [RATE, 0.2, 1e9]
    options = replace(CASES["gradient"].options)
    result = descend_many(
        X, Y, rates, 250, options=options, monitor=lambda models, state: visits.append(
            (models, state.iterations, state.w[:, 0].tolist()))
    )  # fmt: skip
    assert visits[0] == ([0, 1, 2], 0, [0.0, 0.0, 0.0])
    for i, rate in enumerate(rates[:2]):
        steps = len(result.histories[i])
        seen = {at: w[models.index(i)] for models, at, w in visits if i in models}
        assert sorted(seen) == sorted({*range(0, steps + 1, 100), steps})
        for at in set(seen) - {0}:
            assert descend_many(X, Y, [rate], at).w[0, 0] == seen[at]
    assert [2 in models for models, at, _ in visits if at] == [False] * (len(visits) - 1)


def test_functional_interface() -> None:
    w = np.zeros((48, 1))
    options = DescentOptions(momentum=0.9, gradient_tolerance=0.03)
    params, _, history = optimize(w, 0, X, Y, 400, RATE, record_every=1, options=options)
    result = descend_many(X, Y, [RATE], 400, options=options)
    assert history == result.histories[0].tolist()
    assert params["w"][:, 0].tolist() == result.w[0].tolist()
    d = model(X, Y, X, Y, 400, RATE, options=options, record_every=1)
    assert d["cost_history"] == history


def test_auto_takes_what_can_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # As it is with the CUDA kernels, which have no options yet.
    monkeypatch.setitem(kernels.CAPABLE_OF, "numpy", frozenset())
    for name, case in CASES.items():
        if case.needs:
            assert train(name, 2).implementation == "reference"
            with pytest.raises(InputError, match=r"has no .* yet; choose reference or auto") as caught:
                train(name, 2, implementation="fused")
            assert all((words in str(caught.value)) == (key in case.needs) for key, words in CAPABILITIES.items())
        else:
            assert train(name, 2).implementation == kernels.available("cpu")[-1]
    assert kernels.available("cpu", needs=frozenset({"l2"})) == ["reference"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"l2": -1}, "L2 penalty must be"),
        ({"l2": math.nan}, "L2"),
        ({"l2": math.inf}, "L2"),
        ({"l2": "much"}, "L2"),
        ({"l2": True}, "L2"),
        ({"momentum": 1.0}, "momentum must be .*below 1"),
        ({"momentum": -0.1}, "momentum"),
        ({"nesterov": True}, "needs a momentum"),
        ({"nesterov": "yes", "momentum": 0.9}, "True or False"),
        ({"gradient_tolerance": -1e-9}, "gradient to stop at"),
        ({"gradient_tolerance": 10**400}, "gradient to stop at"),
        ({"cost_tolerance": math.nan}, "change of the cost to stop at"),
        ({"class_weight": "balance"}, "'balanced' or two numbers"),
        ({"class_weight": (1, 2, 3)}, "two numbers"),
        ({"class_weight": 5}, "two numbers"),
        ({"class_weight": (1, -2)}, "class weight must be"),
        ({"class_weight": (1, math.inf)}, "class weight must be"),
        ({"class_weight": (0, 0)}, "both|Both"),
        ({"class_weight": {0: 1, 1: 2}}, "two numbers"),
    ],
)
def test_bad_options(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        DescentOptions(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(5), r"shape \(5,\), but 90 samples"),
        (np.ones((2, 90)), "90 samples need"),
        (np.ones((1, 1, 90)), "need"),
        (np.full(90, -1.0), "from 0"),
        (np.full(90, np.nan), "from 0"),
        (np.full(90, 1e200), "from 0"),
        (np.zeros(90), "weight 0"),
        (1.0 - Y[0], "weight 0"),
    ],
)
def test_bad_sample_weights(weights: np.ndarray, words: str) -> None:
    options = DescentOptions(class_weight=(0.0, 1.0))
    with pytest.raises(InputError, match=words):
        descend_many(X, Y, [RATE], 1, options=options, sample_weight=weights)


def test_other_bad_calls() -> None:
    with pytest.raises(InputError, match="one label"):
        descend_many(X, np.ones_like(Y), [RATE], 1, options=DescentOptions(class_weight="balanced"))
    with pytest.raises(InputError, match=r"xlogreg\.DescentOptions, not dict"):
        descend_many(X, Y, [RATE], 1, options={"l2": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("implementation", ["reference", "fused"])
def test_a_last_step_into_the_void_is_a_divergence(implementation: str) -> None:
    task = make_task(load_birds())
    diverged: list[tuple[Task, DivergenceError]] = []
    (kept,) = train_together([task], [1e300, 0.005], 1, implementation=implementation, diverged=diverged)
    assert kept.classifier.learning_rate == 0.005
    assert [(error.iteration, error.learning_rate) for _, error in diverged] == [(1, 1e300)]
    with pytest.raises(DivergenceError, match="choose a smaller learning rate"):
        train_together([task], [1e300], 1, implementation=implementation)
