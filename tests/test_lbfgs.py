"""L-BFGS: the optimum, with the same bits everywhere, from any start, stopped and resumed anywhere."""

import contextlib
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import strict
from helpers import python
from hypothesis import given, settings
from hypothesis import strategies as st

from xlogreg.arrays import namespace, to_host
from xlogreg.benchmarking.problems import TUTORIAL, load
from xlogreg.errors import ConvergenceWarning, DivergenceError, InputError
from xlogreg.kernels import objective_for, why_no_fused
from xlogreg.neuron.exact import exact_dot
from xlogreg.neuron.options import DescentOptions
from xlogreg.neuron.reference import Reference
from xlogreg.solvers.descent import Descent, descend, history_sha256
from xlogreg.solvers.fit import fit
from xlogreg.solvers.lbfgs import LBFGS, PAIRS, Pairs
from xlogreg.solvers.line_search import LineSearch
from xlogreg.solvers.resume import Frame, Progress

# Runs once more for each variant of the kernel.
EVERY_VARIANT = pytest.mark.every_variant
IMPLEMENTATIONS = ["reference", *([] if why_no_fused() else ["fused"])]
NEEDS_KERNELS = pytest.mark.skipif(bool(why_no_fused()), reason=why_no_fused() or "it is there")
# Whoever does not arrive says so, which only some tests look at; every other warning is a failure.
pytestmark = [
    pytest.mark.filterwarnings("error"), pytest.mark.filterwarnings("ignore::xlogreg.errors.ConvergenceWarning")
]  # fmt: skip


class Problem(NamedTuple):
    rows: np.ndarray
    y: np.ndarray


def problem(m: int = 60, d: int = 40, models: int = 1, seed: int = 0) -> Problem:
    """Noisy pictures whose first half says something of the label; constant, black and nearly constant pixels."""
    rng = np.random.RandomState(seed)
    y = rng.randint(0, 2, (models, m))
    rows = rng.randint(0, 190, (m, d)).astype(np.uint8)
    rows[:, : d // 2] += (rng.randint(0, 60, (m, 1)) * y[0][:, None]).astype(np.uint8)
    if d > 8:
        rows[:, -1], rows[:, -2], rows[:, -3] = 0, 255, 7
        rows[0, -3] = 8
    return Problem(rows, y)


def train(
    rows: Any, y: Any, l2: float | list[float] = 0.01, tolerance: float = 1e-6, iterations: int = 400, **more: Any
) -> Descent:
    several = isinstance(l2, list)
    options = DescentOptions(
        solver="lbfgs", l2=0.0 if several else l2, gradient_tolerance=tolerance, class_weight=more.pop("weights", None)
    )
    sign = namespace(rows).asarray(1.0 - 2.0 * np.atleast_2d(y))
    return fit(rows, sign, None, iterations, options=options, l2=l2 if several else None, **more)


def all_of(result: Descent, order: Any = slice(None)) -> tuple[Any, ...]:
    """Everything that has to be equal; `order` of the features."""
    w, b, dw, db, cost = (to_host(a) for a in (result.w, result.b, *vars(result.gradient).values()))
    return (
        [history.tolist() for history in result.histories], result.reasons, result.notes,
        w[:, order].tolist(), b.tolist(), dw[:, order].tolist(), db.tolist(), cost.tolist(),
    )  # fmt: skip


# The same bits.


@EVERY_VARIANT
@NEEDS_KERNELS
@pytest.mark.parametrize(
    ("m", "d", "models", "weighted"), [(1, 1, 1, False), (7, 3, 2, True), (60, 40, 1, False), (130, 65, 3, True)]
)
def test_reference_and_kernel(m: int, d: int, models: int, weighted: bool) -> None:
    rows, y = problem(m, d, models, seed=m)
    c = np.random.RandomState(1).uniform(0, 5, (models, m)) if weighted else None
    for l2, tolerance in ((0.0, 1e-4), ([10.0**-i for i in range(models)], 1e-9)):
        one, other = (
            all_of(train(rows, y, l2, tolerance, sample_weight=c, implementation=name)) for name in IMPLEMENTATIONS
        )
        assert one == other


@pytest.mark.parametrize("weighted", [False, True])
def test_strict_stand_in(weighted: bool) -> None:
    rows, y = problem(30, 12, 2)
    c = np.random.RandomState(1).uniform(0, 5, (2, 30)) if weighted else None
    arguments = {"l2": [0.01, 1.0], "tolerance": 1e-5}
    expected = train(rows, y, **arguments, sample_weight=c)
    obtained = train(strict.asarray(rows), y, **arguments, sample_weight=None if c is None else strict.asarray(c))
    assert all_of(obtained) == all_of(expected)


def test_few_synchronisations() -> None:
    """What waits for a GPU: one reading an evaluation, and two more for a step that is taken."""
    rows, y = problem(30, 12)
    objective = Reference(strict.asarray(rows), strict.asarray(1.0 - 2.0 * y), l2=strict.asarray([1e-3]))
    zeros = strict.zeros((1, 12), float), strict.zeros((1,), float), strict.ones((1,), float)
    solver = LBFGS(objective, *zeros, DescentOptions(solver="lbfgs", gradient_tolerance=0.0))
    before = strict.synchronisations
    solver.run(20)
    assert strict.synchronisations - before <= 3 * 20


THREADS = """
import sys, numpy as np, warnings
warnings.simplefilter("ignore")
from test_lbfgs import all_of, problem, train
import hashlib
print(hashlib.sha256(repr([all_of(train(*problem(900, 700, 2, seed=3), 1e-3, 1e-5, implementation="fused")),
                           all_of(train(*problem(), 0.0))]).encode()).hexdigest())
"""


@NEEDS_KERNELS
def test_threads() -> None:
    printed = {python(THREADS, cwd=Path(__file__).parent, NUMBA_NUM_THREADS=threads) for threads in "12"}
    assert len(printed) == 1


@EVERY_VARIANT
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_any_order_and_any_chunk(implementation: str) -> None:
    rows, y = problem(200, 90, 2)
    c = np.random.RandomState(1).uniform(0, 5, (2, 200))
    expected = train(rows, y, sample_weight=c, implementation=implementation)
    rng = np.random.RandomState(2)
    order = rng.permutation(200)
    shuffled = train(rows[order], y[:, order], sample_weight=c[:, order], implementation=implementation)
    assert all_of(shuffled) == all_of(expected)
    order = rng.permutation(90)
    assert all_of(train(rows[:, order], y, sample_weight=c, implementation=implementation)) == all_of(expected, order)
    if implementation == "reference":
        for chunk in (1, 33, 200):
            assert all_of(train(rows, y, sample_weight=c, implementation="reference", chunk=chunk)) == all_of(expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_together_as_alone(implementation: str) -> None:
    """Models that end at different iterations, and of different penalties."""
    rows, y = problem(100, 30, 5)
    y[3] = 1
    l2 = [0.0, 1e-3, 0.1, 1.0, 1e300]
    together = train(rows, y, l2, 1e-5, implementation=implementation)
    assert len({len(history) for history in together.histories}) > 2
    for j in range(5):
        alone = train(rows, y[j], [l2[j]], 1e-5, implementation=implementation)
        assert alone.histories[0].tolist() == together.histories[j].tolist()
        assert (alone.reasons[0], alone.notes[0]) == (together.reasons[j], together.notes[j])
        for one, all_models in ((alone.w, together.w), (alone.b, together.b), *(
            (getattr(alone.gradient, name), getattr(together.gradient, name)) for name in ("dw", "db", "cost")
        )):  # fmt: skip
            assert one[0].tolist() == all_models[j].tolist()
    same = train(np.repeat(rows, 1, axis=0), np.repeat(y[:1], 3, axis=0), l2[:3], implementation=implementation)
    assert same.histories[1].tolist() == train(rows, y[0], 1e-3).histories[0].tolist()


@EVERY_VARIANT
def test_golden_digest() -> None:
    """The tutorial's pictures at C = 1: whoever changes the algorithm changes these."""
    x, y = load(TUTORIAL)
    few = train(x[:150], y[:150], 1 / 150, 1e-4)
    assert history_sha256(few.histories[0]) == FEW_DIGEST
    if not why_no_fused():
        result = train(x, y, 1 / 1900, 1e-4)
        assert (len(result.histories[0]), result.reasons) == (EVALUATIONS, ["gradient"])
        assert history_sha256(result.histories[0]) == DIGEST


@pytest.mark.skipif(bool(why_no_fused()), reason="the reference takes too long")
def test_what_the_page_of_the_optimum_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """How near a tolerance comes to the lowest cost at C = 1, and what it saves to take the means out."""
    x, y = load(TUTORIAL)
    lowest = float(train(x, y, 1 / 1900, 1e-9).gradient.cost[0])
    for tolerance, share in ((1e-4, 4e-4), (1e-5, 2e-6)):
        assert 0.0 < float(train(x, y, 1 / 1900, tolerance).gradient.cost[0]) / lowest - 1.0 < share
    monkeypatch.setattr("xlogreg.kernels.cpu.FusedCPU.means", lambda self: np.zeros(self.rows.shape[1]))
    assert len(train(x, y, 1 / 1900, 1e-4).histories[0]) == 154


FEW_DIGEST = "f2cbba3e877a51ef04b3ac0a9d9c5eb24fd9f88c08a201e0aefcabcd4e429636"
EVALUATIONS, DIGEST = 98, "84b4c680a3c0394dd8ae4998ef064c2b57dc3f09f8cab9e731b687caf0d5ff69"


# The dot products.


def both_dots(u: np.ndarray, vectors: np.ndarray) -> None:
    dots = pytest.importorskip("xlogreg.kernels.dots")
    with np.errstate(all="ignore"):
        expected = exact_dot(u[None], vectors)
    obtained = np.empty(len(vectors))
    locked = [array.copy() for array in (u, vectors)]
    for array in locked:
        array.flags.writeable = False
    dots.dots(*locked, obtained)
    assert obtained.tobytes() == expected.tobytes() or np.array_equal(obtained, expected, equal_nan=True)


NUMBERS = st.one_of(
    st.floats(-1, 1), st.floats(width=64), st.sampled_from([
        0.0, -0.0, math.inf, math.nan, 5e-324, -5e-324, 2.0**-1022, 2.0**-900, 2.0**-451, 2.0**-450, 2.0**449,
        math.nextafter(2.0**450, 0.0), 2.0**450, -(2.0**450), 2.0**1023, 1.0, 1.0 + 2.0**-52, 0.1,
    ]),
)  # fmt: skip


@settings(max_examples=200)
@given(st.integers(1, 9).flatmap(lambda n: st.lists(st.lists(NUMBERS, min_size=n, max_size=n), min_size=2, max_size=5)))
def test_dots_of_any_numbers(vectors: list[list[float]]) -> None:
    both_dots(np.array(vectors[0]), np.array(vectors[1:]))


@settings(max_examples=40)
@given(st.integers(1, 3000), st.integers(0, 10**6), st.integers(-1074, 449), st.integers(0, 400))
def test_dots_of_any_size(n: int, seed: int, exponent: int, spread: int) -> None:
    rng = np.random.RandomState(seed)
    vectors = rng.normal(size=(3, n)).clip(-1, 1) * 2.0 ** rng.uniform(max(-1074, exponent - spread), exponent, (3, n))
    both_dots(vectors[0], vectors)
    both_dots(np.abs(vectors[1]), np.abs(vectors))


def test_dots_are_exact() -> None:
    rng = np.random.RandomState(0)
    u, v = rng.randint(-(2**25), 2**25, (2, 70_001))
    total = sum(int(a) * int(b) for a, b in zip(u, v, strict=True))
    assert exact_dot(u * 2.0**-25, v * 2.0**-20) == float(total) * 2.0**-45
    both_dots(u * 2.0**-25, np.stack([v * 2.0**-20, u * 1.0]))
    # Every product at its bound.
    both_dots(np.full(2**17 + 1, math.nextafter(1.0, 0)), np.full((1, 2**17 + 1), math.nextafter(1.0, 0)))


@NEEDS_KERNELS
def test_vectors_of_the_kernel() -> None:
    """Its twins of what every objective does with vectors, in any layout, compiled once."""
    from xlogreg.kernels import dots

    rows, y = problem(70, 33)
    objectives = [objective_for(name, rows, 1.0 - 2.0 * y) for name in IMPLEMENTATIONS]
    rng = np.random.RandomState(0)
    wide = rng.normal(size=(9, 80))
    for vectors in (wide[:, :34], wide[::2, ::2], np.asfortranarray(wide)):
        n = vectors.shape[1]
        one, other = (objective.dots(wide[0, :n], vectors) for objective in objectives)
        assert one.tobytes() == other.tobytes()
        factors = rng.normal(size=len(vectors)).tolist()
        one, other = (objective.add_multiples(wide[1, :n], factors, vectors) for objective in objectives)
        assert one.tobytes() == other.tobytes()
    for name in ("means", "bounds"):
        assert getattr(objectives[0], name)().tobytes() == getattr(objectives[1], name)().tobytes()
    train(rows, y, implementation="fused")
    functions = dots.dots, dots.add_multiples, dots.add_rows, dots.two_loops
    assert [len(function.signatures) for function in functions] == [1, 1, 1, 1]


# The optimum.

RNG, HALVES = np.random.RandomState(5), np.arange(60)[None] // 20 % 2
DATA_SETS = {
    "few": (problem(40, 10), 1.0, {}),
    "weak penalty": (problem(80, 20, seed=1), 10.0, {}),
    "strong penalty": (problem(80, 20, seed=2), 1e-3, {}),
    "middle": (problem(150, 60, seed=3), 0.1, {}),
    "more features than samples": (problem(30, 200, seed=4), 1.0, {}),
    "one feature": (problem(50, 1, seed=5), 1.0, {}),
    "two samples": (Problem(problem(2, 30, seed=6).rows, np.array([[0, 1]])), 1.0, {}),
    "separable": (Problem(np.arange(40, dtype=np.uint8)[:, None] * np.uint8([[6, 1, 3]]), HALVES[:, :40]), 10.0, {}),
    "hardly a feature varies": (Problem((7 + (RNG.uniform(size=(60, 30)) < 0.02)).astype(np.uint8), HALVES), 10.0, {}),
    "bright": (Problem(255 - problem(90, 25, seed=7).rows // 20, problem(90, 25, seed=7).y), 1.0, {}),
    "uneven labels": (Problem(problem(120, 15).rows, np.arange(120)[None] // 115), 1.0, {}),
    "balanced": (Problem(problem(120, 15).rows, np.arange(120)[None] // 110), 1.0, {"weights": "balanced"}),
    "class weights": (problem(100, 30, seed=8), 1.0, {"weights": (0.1, 7.0)}),
    "sample weights": (problem(100, 30, seed=9), 0.5, {"sample_weight": RNG.uniform(0, 3, 100)}),
    "mostly weight 0": (problem(100, 30, seed=10), 1.0, {"sample_weight": np.arange(100) % 10 // 8 * 1.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA_SETS)
def test_optimum_of_scikit_learn(name: str) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    (rows, y), c, more = DATA_SETS[name]
    weights = more.get("weights")
    peer = linear_model.LogisticRegression(
        C=c, tol=1e-10, max_iter=20_000, solver="newton-cholesky" if rows.shape[1] < 100 else "lbfgs",
        class_weight=dict(enumerate(weights)) if isinstance(weights, tuple) else weights,
    )  # fmt: skip
    peer.fit(rows / 255.0, y[0], sample_weight=more.get("sample_weight"))
    result = train(rows, y, 1.0 / (c * len(rows)), 1e-9, 3000, **more)
    assert result.reasons == ["gradient"]
    # By our own objective, at both.
    start = {"w": np.ascontiguousarray(peer.coef_), "b": peer.intercept_.astype(float)}
    best = train(rows, y, 1.0 / (c * len(rows)), 1e300, 1, **start, **more)
    ours, theirs = result.histories[0][-1], best.histories[0][0]
    assert ours <= theirs * (1 + 1e-9)
    assert ours == pytest.approx(theirs, rel=1e-9)
    scale = np.abs(peer.coef_).max()
    assert np.abs(result.w - peer.coef_).max() <= 1e-5 * scale
    assert abs(result.b[0] - peer.intercept_[0]) <= 1e-5 * max(1.0, abs(peer.intercept_[0]))


@pytest.mark.parametrize("start", [-100.0, 1.0, 2000.0])
def test_the_same_optimum_from_anywhere(start: float) -> None:
    rows, y = problem()
    expected = train(rows, y, tolerance=1e-10)
    w = start * np.random.RandomState(0).uniform(-1, 1, (1, 40))
    obtained = train(rows, y, tolerance=1e-10, w=w, b=np.array([-start]))
    assert obtained.reasons == ["gradient"]
    assert np.abs(obtained.w - expected.w).max() < 1e-7
    # At the optimum there is nothing to do.
    again = train(rows, y, tolerance=1e-10, w=obtained.w, b=obtained.b)
    assert [len(history) for history in again.histories] == [1]
    assert again.w.tolist() == obtained.w.tolist()


# Extremes: no error, no warning of NumPy's, the same bits, and words that say what came of it.

X, Y = problem(30, 12)
SEPARABLE = np.where(Y[0][:, None] == 1, X // 4 + 150, X // 4).astype(np.uint8)
EXTREMES: dict[str, tuple[np.ndarray, Any, dict[str, Any], list[str]]] = {
    "black": (0 * X, Y, {}, ["gradient"]),
    "black and balanced": (0 * X, np.arange(30) % 2, {"tolerance": 0.0}, ["gradient"]),
    "white": (0 * X + 255, Y, {}, ["gradient"]),
    "all labels 0": (X, 0 * Y, {}, ["gradient"]),
    "all labels 1, no tolerance": (X, 0 * Y + 1, {"l2": 0.0, "tolerance": 0.0}, ["iterations", "stuck"]),
    "one sample": (X[:1], Y[:, :1], {"tolerance": 0.0, "l2": 0.0}, ["iterations", "stuck"]),
    "separable": (SEPARABLE, Y, {"l2": 0.0, "tolerance": 1e-12}, ["gradient"]),
    "separable, no tolerance": (SEPARABLE, Y, {"l2": 0.0, "tolerance": 0.0}, ["iterations", "stuck"]),
    "no tolerance": (X, Y, {"tolerance": 0.0}, ["iterations", "stuck", "gradient"]),
    "subnormal penalty": (X, Y, {"l2": 5e-324, "tolerance": 1e-4}, ["gradient"]),
    "large penalty": (X, Y, {"l2": 1e5}, ["gradient"]),
    "huge penalty": (X, Y, {"l2": 1e300}, ["gradient", "iterations"]),
    "largest penalty": (X, Y, {"l2": sys.float_info.max}, ["gradient", "iterations"]),
    "huge penalty, far": (X, Y, {"l2": 1e300, "w": np.ones((1, 12))}, ["stuck"]),
    "infinite cost": (X, Y, {"l2": sys.float_info.max, "w": np.ones((1, 12))}, []),
    "heavy": (X, Y, {"sample_weight": np.full(30, 2.0**100)}, ["iterations", "stuck"]),
    "light": (X, Y, {"sample_weight": np.full(30, 2.0**-500), "tolerance": 0.0}, ["stuck"]),
    "subnormal": (X, Y, {"sample_weight": np.full(30, 5e-324), "tolerance": 0.0}, ["gradient"]),
    "heavy and light": (X, Y, {"sample_weight": 2.0 ** np.linspace(-1074, 100, 30)}, ["gradient", "iterations"]),
    "light, no penalty": (
        X, Y, {"sample_weight": 2.0 ** np.linspace(-900, -440, 30), "l2": 0.0, "tolerance": 0.0},
        ["iterations", "stuck"],
    ),
    "one counts": (
        X, Y, {"sample_weight": 1.0 * (np.arange(30) == 7), "l2": 0.0, "tolerance": 0.0}, ["iterations", "stuck"]
    ),
    "class weights": (X, Y, {"weights": (2.0**-100, 2.0**100)}, ["gradient", "iterations", "stuck"]),
    "far": (X, Y, {"w": np.full((1, 12), 7e4)}, ["gradient"]),
    "too far": (X, Y, {"w": np.full((1, 12), 1e5)}, ["stuck"]),
    "out of range": (X, Y, {"b": np.array([2e6])}, []),
    "without end": (X, Y, {"w": np.full((1, 12), 2.0**899)}, []),
    "in the dark": (0 * X, np.arange(30) % 2, {"w": np.full((1, 12), 2.0**899), "l2": 0.0}, ["gradient"]),
}  # fmt: skip


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes(name: str) -> None:
    rows, y, more, reasons = EXTREMES[name]
    results = []
    for implementation in IMPLEMENTATIONS:
        if not reasons:
            with pytest.raises(DivergenceError, match="diverged at iteration 0: the cost is not finite before"):
                train(rows, y, implementation=implementation, **more)
            continue
        result = train(rows, y, implementation=implementation, **{"iterations": 150, **more})
        assert result.reasons[0] in reasons
        (history,) = result.histories
        assert (history >= 0.0).all()
        assert np.isfinite(history).all()
        assert np.isfinite(result.w).all()
        assert bool(result.notes[0]) == (result.reasons[0] != "gradient")
        results.append(all_of(result))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("scale", [1e-300, 1e-8, 1e3, 1e8, 1e38, 1e120])
def test_float_features_of_any_size(scale: float) -> None:
    """No step takes them out of range, so none diverges."""
    rng = np.random.RandomState(0)
    x = rng.normal(size=(50, 4))
    x[:, 0] *= scale
    result = train(x, (rng.uniform(size=50) < 0.5) * 1, 1e-6, 1e-5, 500)
    assert result.reasons[0] in ("gradient", "iterations", "stuck")
    assert result.histories[0][-1] < result.histories[0][0]
    if scale <= 1e8:
        assert result.reasons == ["gradient"]


@pytest.mark.parametrize("scale", [1e150, 1e300, 3e307])
def test_float_features_beyond_all_sums_are_to_be_scaled(scale: float) -> None:
    """Nothing is wrong with the weights, which were zeros, and no sum of the features warns."""
    x = np.random.RandomState(0).normal(size=(50, 4)) * scale
    with pytest.raises(DivergenceError, match=r"first step; .* or scale the features down"):
        train(x, np.arange(50) % 2, 1e-6, 1e-5, 500)


def test_a_single_pixel_may_weigh_much() -> None:
    """What bounds z is each weight, not the largest times their number."""
    rows = np.full((60, 3000), 9, np.uint8)
    y = np.arange(60) // 30
    rows[:, 0] = y
    rows[3, 0] = 1
    result = train(rows, y, 0.0, 1e-6, 500)
    assert result.reasons == ["gradient"]
    assert result.w.max() > 1000


# Where it ends.


def test_each_end_has_its_word() -> None:
    rows, y = problem()
    assert train(rows, y).reasons == ["gradient"]
    with pytest.warns(ConvergenceWarning, match="did not arrive in 5 evaluations.*more iterations"):
        result = train(rows, y, iterations=5)
    assert result.reasons == ["iterations"]
    assert f"{float(result.gradient.largest[0]):.2g}" in result.notes[0]
    with pytest.warns(ConvergenceWarning, match="finds no lower cost after 1 evaluations.*start from smaller weights"):
        result = train(rows, y, w=np.full((1, 40), 3e4))
    assert result.reasons == ["stuck"]
    options = DescentOptions(solver="lbfgs", l2=0.01, gradient_tolerance=0.0, cost_tolerance=1e-6)
    result = fit(rows, 1.0 - 2.0 * y, None, 400, options=options)
    assert result.reasons == ["cost"]
    costs = result.histories[0]
    assert abs(costs[-1] - costs[-2]) <= 1e-6 < abs(costs[-3] - costs[-2])


def test_the_gradient_is_that_of_the_weights() -> None:
    """Whether the last evaluation was a step that was taken or not."""
    rows, y = problem(80, 30)
    sign = 1.0 - 2.0 * y
    for iterations in range(1, 25):
        result = train(rows, y, tolerance=0.0, iterations=iterations)
        found = Reference(rows, sign, l2=np.array([0.01])).evaluate(result.w, result.b)
        assert found.dw.tolist() == result.gradient.dw.tolist()
        assert found.cost.tolist() == result.gradient.cost.tolist()
        assert result.gradient.cost[0] in result.histories[0]


def test_a_block_ends_where_a_model_does() -> None:
    """Nothing is evaluated after it, and nothing twice."""
    rows, y = problem(80, 30)
    objective = Reference(rows, 1.0 - 2.0 * y, l2=np.array([0.01]))
    solver = LBFGS(objective, np.zeros((1, 30)), np.zeros(1), np.ones(1), DescentOptions(solver="lbfgs"))
    count = 0
    evaluate = objective.evaluate

    def counted(w: np.ndarray, b: np.ndarray) -> Any:
        nonlocal count
        count += 1
        return evaluate(w, b)

    objective.evaluate = counted  # type: ignore[method-assign]
    result = descend(solver, 1000)
    assert result.reasons == ["gradient"]
    assert count == len(result.histories[0])


def test_monitor_stops() -> None:
    rows, y = problem(80, 30, 2)
    options = DescentOptions(solver="lbfgs", gradient_tolerance=0.0)
    seen = []

    def monitor(models: list[int], state: Any) -> list[int]:
        seen.append((state.iterations, models))
        return [1] if state.iterations == 10 else []

    solver = LBFGS(Reference(rows, 1.0 - 2.0 * y), np.zeros((2, 30)), np.zeros(2), np.ones(2), options)
    result = descend(solver, 30, monitor=monitor, monitor_every=5)
    assert result.reasons == ["iterations", "validation"]
    assert [len(history) for history in result.histories] == [30, 10]
    assert (10, [0, 1]) in seen
    assert (30, [0]) in seen
    alone = LBFGS(Reference(rows, 1.0 - 2.0 * y[:1]), np.zeros((1, 30)), np.zeros(1), np.ones(1), options)
    assert descend(alone, 30).histories[0].tolist() == result.histories[0].tolist()


def test_one_of_several_diverges() -> None:
    rows, y = problem(80, 30, 2)
    start = {"w": np.zeros((2, 30)), "b": np.array([2e6, 0.5])}
    result = train(rows, y, **start)
    assert result.reasons == ["diverged", "gradient"]
    assert result.errors[0] is not None
    assert result.errors[0].iteration == 0
    assert len(result.histories[0]) == 0
    alone = train(rows, y[1], w=start["w"][1:], b=start["b"][1:])
    assert alone.histories[0].tolist() == result.histories[1].tolist()
    assert alone.w.tolist() == result.w[1:].tolist()


# Stopped and resumed.


class Keeper:
    """A checkpointer that keeps what it is shown."""

    def __init__(self, every: int | None = None) -> None:
        self.every, self.kept = every, {}

    def shown(self, progress: Progress) -> None:
        self.kept[progress.state.iterations] = replace(progress, costs=progress.costs.copy())


def fresh(rows: np.ndarray, y: np.ndarray, l2: list[float], tolerance: float, name: str = "reference") -> LBFGS:
    objective = objective_for(name, rows, 1.0 - 2.0 * y, l2=np.array(l2), needs=frozenset({"l2"}))
    models, d = len(y), rows.shape[1]
    options = DescentOptions(solver="lbfgs", gradient_tolerance=tolerance)
    return LBFGS(objective, np.zeros((models, d)), np.zeros(models), np.ones(models), options)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_resumed_anywhere(implementation: str) -> None:
    rows, y = problem(60, 20, 3)
    problem_of = rows, y, [1e-4, 0.1, 0.0], 1e-4
    keeper = Keeper(every=1)
    whole = descend(fresh(*problem_of), 60, checkpointer=keeper)
    assert len({len(history) for history in whole.histories}) == 3
    assert sorted(keeper.kept) == list(range(max(map(len, whole.histories))))
    for progress in keeper.kept.values():
        assert all_of(descend(fresh(*problem_of, implementation), 60, progress=progress)) == all_of(whole)
    # Taken up at its last iteration: the gradient is known, and so is what to say.
    for done in (1, 7):
        short = descend(fresh(*problem_of), done)
        taken_up = descend(fresh(*problem_of), done, progress=keeper.kept[done])
        assert all_of(taken_up) == all_of(short)


def one_progress() -> tuple[Progress, Frame]:
    rows, y = problem(60, 20)
    keeper = Keeper(every=1)
    solver = fresh(rows, y, [1e-4], 0.0)
    descend(solver, 40, checkpointer=keeper)
    return keeper.kept[30], Frame(1, 20, 40, solver.options)


def test_a_checkpoint_weighs_no_more_than_its_frame_says() -> None:
    progress, frame = one_progress()
    frame.check(progress)
    state = progress.state
    assert sum(array.size for array in (state.w, state.b, *state.memory.values())) + 40 < frame.numbers
    assert sum(array.size for array in state.memory.values()) == (2 + 2 * PAIRS) * 21 + Pairs.SIZE + 13


# Where the product of the first pair is, which has the second place.
FIRST = 2 + PAIRS + 1


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("pairs", 0, PAIRS + 1.0), ("pairs", 0, 2.5), ("pairs", 0, -1.0), ("pairs", 1, float(PAIRS)), ("pairs", 1, 0.5),
        ("pairs", 1, math.nan), ("pairs", FIRST, 0.0), ("pairs", FIRST, -1.0), ("pairs", FIRST + PAIRS * PAIRS, 0.0),
        ("pairs", 50, math.nan), ("gradient", 0, math.inf), ("direction", 3, math.nan), ("steps", (0, 0), math.nan),
        ("search", "slope", 1.0), ("search", "slope", 0.0), ("search", "slope", math.nan), ("search", "t", 0.0),
        ("search", "t", -1.0), ("search", "t", 1e300), ("search", "low", 1e300), ("search", "low", -1.0),
        ("search", "high", 1e-300), ("search", "trials", 41.0), ("search", "trials", -1e300), ("search", "stuck", 1.0),
        ("search", "low_slope", 0.0), ("search", "most", math.nan), ("search", "most", -1.0),
    ],
)  # fmt: skip
def test_hostile_memory_is_refused(name: str, at: Any, value: float) -> None:
    progress, frame = one_progress()
    array = progress.state.memory[name]
    at = list(LineSearch.__dataclass_fields__).index(at) if isinstance(at, str) else at
    array[(0, *at) if isinstance(at, tuple) else (0, at)] = value
    with pytest.raises(InputError):
        frame.check(progress)


@settings(max_examples=25)
@given(st.data())
def test_whatever_memory_passes_raises_nothing_strange(data: st.DataObject) -> None:
    progress, frame = one_progress()
    rows, y = problem(60, 20)
    numbers = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, 1.0, -1.0, 5e-324]))
    for _ in range(data.draw(st.integers(1, 4))):
        array = progress.state.memory[data.draw(st.sampled_from(sorted(progress.state.memory)))].reshape(-1)
        array[data.draw(st.integers(0, len(array) - 1))] = data.draw(numbers)
    try:
        frame.check(progress)
    except InputError:
        return
    with contextlib.suppress(DivergenceError):
        descend(fresh(rows, y, [1e-4], 0.0), 40, progress=progress)


def test_a_divergence_speaks_of_no_learning_rate() -> None:
    progress, _ = one_progress()
    progress.state.w[:] = 1e8  # whoever changes a checkpoint so
    rows, y = problem(60, 20)
    with pytest.raises(DivergenceError, match="iteration 30: the cost is no longer finite; start from smaller"):
        descend(fresh(rows, y, [1e-4], 0.0), 40, progress=progress)


# The line search, on functions of one number.


def search(f: Callable[[float], tuple[float, float]], t: float = 1.0, most: float = 1e300) -> tuple[LineSearch, int]:
    """After so many evaluations of f, which gives cost and slope."""
    cost, slope = f(0.0)
    one = LineSearch.begun(cost, slope, t, most)
    for evaluations in range(1, 60):
        assert 0.0 < one.t <= most
        if one.takes(*f(one.t)):
            return one, evaluations
        if one.stuck:
            return one, evaluations
        assert one.goes_on
    raise AssertionError("it does not end")


FUNCTIONS: dict[str, Callable[[float], tuple[float, float]]] = {
    "parabola": lambda t: ((t - 1.0) ** 2, 2.0 * (t - 1.0)),
    "far": lambda t: ((t - 1e6) ** 2, 2.0 * (t - 1e6)),
    "near": lambda t: ((t - 1e-6) ** 2, 2.0 * (t - 1e-6)),
    "quartic": lambda t: ((t - 3.0) ** 4, 4.0 * (t - 3.0) ** 3),
    "softplus": lambda t: (math.log1p(math.exp(-t)) + 0.01 * t, -1.0 / (1.0 + math.exp(t)) + 0.01),
    "corner": lambda t: (abs(t - 0.3), -1.0 if t < 0.3 else 1.0),
    "wall": lambda t: (-t, -1.0) if t < 0.7 else (math.nan, math.nan),
    "infinite wall": lambda t: ((t - 5.0) ** 2, 2 * (t - 5.0)) if t < 0.01 else (math.inf, math.inf),
    "slope unknown": lambda t: ((t - 0.2) ** 2, 2 * (t - 0.2) if t < 0.5 else math.nan),
    "huge": lambda t: (1e300 * (t - 0.01) ** 2, 2e300 * (t - 0.01)),
    "tiny": lambda t: (1e-300 * (t - 3.0) ** 2, 2e-300 * (t - 3.0)),
    "rounding": lambda t: (1.0, 1e-9 * (t - 4.0)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_line_search(name: str) -> None:
    f = FUNCTIONS[name]
    cost, slope = f(0.0)
    one, evaluations = search(f)
    taken, slope_there = f(one.t)
    assert evaluations <= 45
    assert not one.stuck
    assert taken <= cost + 1e-14 * abs(cost)
    assert math.isfinite(slope_there)
    if name not in ("corner", "wall", "infinite wall"):
        assert abs(slope_there) <= 0.9 * -slope
        assert evaluations <= 12


def test_line_search_is_stuck_where_there_is_nothing() -> None:
    assert search(lambda t: (0.0, -1.0) if t == 0.0 else (math.nan, math.nan))[0].stuck
    assert search(lambda t: (0.0, -1.0) if t == 0.0 else (1.0, -1.0))[0].stuck
    assert search(lambda t: (0.0, -1.0) if t == 0.0 else (5e-324, -1.0))[0].stuck
    for slope, most in ((0.0, 1.0), (1.0, 1.0), (math.nan, 1.0), (-1.0, 0.0), (-1.0, -1.0), (-1.0, math.nan)):
        assert LineSearch.begun(1.0, slope, 1.0, most).stuck
    # Never farther than it may go, and there it stays.
    one, evaluations = search(lambda t: (-t, -1.0), most=50.0)
    assert (one.t, one.stuck, evaluations) == (50.0, 0.0, 4)


@settings(max_examples=200)
@given(st.data())
def test_line_search_with_any_numbers(data: st.DataObject) -> None:
    """Nothing raises, and it ends."""
    anything = st.floats()
    one = LineSearch.begun(data.draw(anything), data.draw(anything), data.draw(st.floats(1e-300, 1e300)), 1e308)
    if not one.stuck:
        for _ in range(45):
            if one.takes(data.draw(anything), data.draw(anything)) or one.stuck:
                return
        raise AssertionError("it does not end")


# The two loops.


def test_the_two_loops_are_the_inverse_hessian() -> None:
    """H of these pairs, as a matrix, times g; also after the oldest of more pairs than there are places were left."""
    rng = np.random.RandomState(0)
    n, pairs = 45, Pairs()
    objectives = [objective_for(name, X, 1.0 - 2.0 * Y) for name in IMPLEMENTATIONS]
    root = rng.normal(size=(n, n))
    hessian = root @ root.T / n + np.eye(n)
    x, steps, changes = rng.normal(size=n), np.zeros((PAIRS, n)), np.zeros((PAIRS, n))
    g = hessian @ x
    for count in range(1, 2 * PAIRS + 4):
        s = rng.normal(size=n)
        new = g + hessian @ s
        y = new - g
        ys, yy = pairs.move(steps @ new, changes @ new)
        i = pairs.add(ys, yy, s @ new, y @ new, s @ y, y @ y)
        steps[i], changes[i], g = s, y, new
        numbers = pairs.sy, pairs.yy, pairs.gs, pairs.gy, pairs.places
        of_g, of_s, of_y = objectives[0].two_loops(*numbers)
        assert all(objective.two_loops(*numbers) == (of_g, of_s, of_y) for objective in objectives[1:])
        obtained = of_g * g + np.array(of_s) @ steps + np.array(of_y) @ changes
        h = np.eye(n) * (s @ y) / (y @ y)
        for j in pairs.places:
            rho = 1.0 / (steps[j] @ changes[j])
            left = np.eye(n) - rho * np.outer(steps[j], changes[j])
            h = left @ h @ left.T + rho * np.outer(steps[j], steps[j])
        assert np.allclose(obtained, h @ g, rtol=1e-6, atol=1e-6 * np.abs(h @ g).max()), count
        assert len(pairs.places) == min(count, PAIRS)
    pairs.forget()
    assert pairs.places == []
