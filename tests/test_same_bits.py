"""The promise: cost history, weights and bias of the tutorial's run have the same bits however they are computed."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import strict
from helpers import python

from xlogreg import kernels
from xlogreg.arrays import to_host
from xlogreg.data.birds import load_birds
from xlogreg.data.task import as_columns, make_task
from xlogreg.logistic import descend_many, history_sha256, optimize, propagate
from xlogreg.proof import tutorial

IMPLEMENTATIONS = kernels.available("cpu")


@pytest.fixture(scope="module")
def columns() -> tuple[np.ndarray, np.ndarray]:
    task = make_task(load_birds(), "bird")
    return as_columns(task.x_train, task.y_train)


def train(
    x: np.ndarray, y: np.ndarray, iterations: int = 100, **options: object
) -> tuple[list[float], np.ndarray, float]:
    w = np.zeros((x.shape[0], 1))
    params, _, history = optimize(w, 0, x, y, iterations, tutorial.LEARNING_RATE, record_every=1, **options)  # type: ignore[arg-type]
    return history, params["w"], params["b"]


@pytest.fixture(scope="module")
def reference(columns: tuple[np.ndarray, np.ndarray]) -> tuple[list[float], np.ndarray, float]:
    return train(*columns, implementation="reference")


def same(one: tuple[list[float], np.ndarray, float], other: tuple[list[float], np.ndarray, float]) -> bool:
    return one[0] == other[0] and np.array_equal(one[1], other[1]) and one[2] == other[2]


def test_the_reference_gives_the_golden_digest(reference: tuple[list[float], np.ndarray, float]) -> None:
    assert history_sha256(reference[0]) == tutorial.GOLDEN_SHA256_100


# The reference's first 100 iterations are in every run of the tests; all 2000 are in the slow ones.
@pytest.mark.parametrize("implementation", [pytest.param("reference", marks=pytest.mark.slow), "fused"])
def test_the_whole_run_gives_the_golden_digest(columns: tuple[np.ndarray, np.ndarray], implementation: str) -> None:
    history, _, _ = train(*columns, tutorial.ITERATIONS, implementation=implementation)
    assert history_sha256(history) == tutorial.GOLDEN_SHA256
    # Fewer iterations are the beginning of more: 1000 of 2000 (by the quick kernel), and 100.
    half, _, _ = train(*columns, 1000)
    assert half == history[:1000]
    assert history_sha256(history[:100]) == tutorial.GOLDEN_SHA256_100
    assert max(abs(a - b) for a, b in zip(history[::100], tutorial.COST_HISTORY, strict=True)) < 2e-15


@pytest.mark.parametrize("chunk", [1, 7, 64, 1900])
def test_chunks(columns: tuple[np.ndarray, np.ndarray], reference: tuple, chunk: int) -> None:
    iterations = {1: 2, 7: 10, 64: 30}.get(chunk, 100)  # few samples at a time take their time
    history, *rest = train(*columns, iterations, chunk=chunk, implementation="reference")
    assert history == reference[0][:iterations]
    assert iterations < 100 or same((history, *rest), reference)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_samples_shuffled(columns: tuple[np.ndarray, np.ndarray], reference: tuple, implementation: str) -> None:
    x, y = columns
    order = np.random.RandomState(7).permutation(x.shape[1])
    shuffled = np.ascontiguousarray(x.T[order]).T
    assert same(train(shuffled, y[:, order], implementation=implementation), reference)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_features_shuffled(columns: tuple[np.ndarray, np.ndarray], reference: tuple, implementation: str) -> None:
    x, y = columns
    order = np.random.RandomState(8).permutation(x.shape[0])
    history, w, b = train(np.ascontiguousarray(x[order]), y, implementation=implementation)
    assert (history, b) == (reference[0], reference[2])
    assert np.array_equal(w, reference[1][order])


def test_layout_of_memory(columns: tuple[np.ndarray, np.ndarray], reference: tuple) -> None:
    x, y = columns
    wide = np.zeros((2 * x.shape[0], 2 * x.shape[1]), dtype=np.uint8)
    wide[::2, ::2] = x
    for layout in (np.ascontiguousarray(x), np.asfortranarray(x), wide[::2, ::2]):
        assert same(train(layout, y.astype(float)), reference)


def test_every_array_module(columns: tuple[np.ndarray, np.ndarray], reference: tuple, to_xp: Callable) -> None:
    x, y = columns
    # The strict stand-in takes long for each.
    iterations = 10 if isinstance(to_xp(y), strict.StrictArray) else 100
    result = descend_many(to_xp(x), to_xp(y), [tutorial.LEARNING_RATE], iterations)
    assert result.history[:, 0].tolist() == reference[0][:iterations]
    expected = reference[1] if iterations == 100 else descend_many(x, y, [tutorial.LEARNING_RATE], iterations).w.T
    assert np.array_equal(to_host(result.w)[0], expected[:, 0])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_four_rates_together(columns: tuple[np.ndarray, np.ndarray], reference: tuple, implementation: str) -> None:
    x, y = columns
    result = descend_many(x, y, list(tutorial.LEARNING_RATES), 100, implementation=implementation)
    assert result.history[:, tutorial.LEARNING_RATES.index(tutorial.LEARNING_RATE)].tolist() == reference[0]


def test_stopped_and_gone_on(columns: tuple[np.ndarray, np.ndarray], reference: tuple) -> None:
    x, y = columns
    first, w, b = train(x, y, 37)
    params, _, second = optimize(w, b, x, y, 63, tutorial.LEARNING_RATE, record_every=1)
    assert same((first + second, params["w"], params["b"]), reference)


def test_optimize_is_propagate_repeated(columns: tuple[np.ndarray, np.ndarray], reference: tuple) -> None:
    x, y = columns
    w, b = np.zeros((x.shape[0], 1)), 0.0
    for cost in reference[0][:5]:
        grad, obtained = propagate(w, b, x, y)
        assert obtained == cost
        w = w - tutorial.LEARNING_RATE * grad["dw"]
        b = b - tutorial.LEARNING_RATE * grad["db"]


SCRIPT = """
import hashlib, sys
import numpy as np
from xlogreg import DescentOptions, as_columns, descend_many, history_sha256, load_birds, make_task, optimize
task = make_task(load_birds(), "bird")
x, y = as_columns(task.x_train, task.y_train)
options = DescentOptions(l2=0.01, momentum=0.9, nesterov=True, gradient_tolerance=0.012, class_weight=(1, 1.5))
for name in sys.argv[1:]:
    params, _, history = optimize(np.zeros((3072, 1)), 0, x, y, 100, 0.005, record_every=1, implementation=name)
    print(history_sha256(history), hashlib.sha256(params["w"].tobytes()).hexdigest(), params["b"].hex())
    way = "reference" if name == "reference" else "auto"
    result = descend_many(x, y, [0.005, 0.001], 40, options=options, implementation=way)
    print(*map(history_sha256, result.histories), hashlib.sha256(result.w.tobytes()).hexdigest(), *result.reasons)
"""


# What every second line of the script is, on every machine: some of the options together, in two models of which one
# stops.
GOLDEN_OPTIONS = (
    "6ca87d8a5bd40a4c659f085a750cf8f36b2f4697564f90312f2ad31de5fb815a "
    "9e9e25688709d57f848c72563fe95bdb00c868427071eec16bdd3560a7cbcb48 "
    "c81b2f1e043d0525f952dc5a244a766a9cdb23f6e3fe77d2b2e3a72ea1a840cc gradient iterations"
)


@pytest.mark.parametrize(
    "environment",
    [
        {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Haswell"},
        {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX2 FMA3"},
    ],
    ids=["one thread", "Haswell BLAS", "Prescott BLAS, no SIMD"],
)
def test_threads_and_blas(reference: tuple, environment: dict[str, str]) -> None:
    if "NPY_DISABLE_CPU_FEATURES" in environment:
        environment = _only_known_features(environment)
    # NumPy warns where a feature that is to be disabled was not there anyway; that is no error here.
    printed = python(SCRIPT, *IMPLEMENTATIONS, PYTHONWARNINGS="ignore", **environment)
    history, w, b = reference
    expected = f"{history_sha256(history)} {hashlib.sha256(w.tobytes()).hexdigest()} {b.hex()}"
    assert printed.splitlines() == [expected, GOLDEN_OPTIONS] * len(IMPLEMENTATIONS)


def _only_known_features(environment: dict[str, str]) -> dict[str, str]:
    """NumPy refuses names of features that it was not built to dispatch; keep those that this one knows."""
    try:
        from numpy._core._multiarray_umath import __cpu_dispatch__ as known
    except ImportError:
        from numpy.core._multiarray_umath import __cpu_dispatch__ as known
    names = [name for name in environment["NPY_DISABLE_CPU_FEATURES"].split() if name in known]
    return {**environment, "NPY_DISABLE_CPU_FEATURES": " ".join(names)}
