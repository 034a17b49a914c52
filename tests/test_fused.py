"""The fused CPU kernel against the reference, by ==, for every size, layout and number of threads."""

import ast
import functools
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import helpers
import numpy as np
import pytest
from helpers import descent, environment, python
from hypothesis import given, settings
from hypothesis import strategies as st

from xlogreg import kernels
from xlogreg.benchmarking.problems import RATE, TUTORIAL, load
from xlogreg.errors import DivergenceError, InputError
from xlogreg.logistic import descend_many, optimize
from xlogreg.neuron.options import DescentOptions
from xlogreg.neuron.reference import Reference
from xlogreg.solvers.descent import history_sha256
from xlogreg.solvers.gradient_descent import GradientDescent

numba = pytest.importorskip("numba")
cpu = pytest.importorskip("xlogreg.kernels.cpu")
pool = pytest.importorskip("xlogreg.kernels.pool")
barrier = pytest.importorskip("xlogreg.kernels.barrier")
shrink = pytest.importorskip("xlogreg.images.resize_kernel")
digits = pytest.importorskip("xlogreg.kernels.digits")
dots = pytest.importorskip("xlogreg.kernels.dots")
sources = pytest.importorskip("xlogreg.kernels.sources")
thread_count = pytest.importorskip("xlogreg.kernels.thread_count")
vectors = pytest.importorskip("xlogreg.kernels.vectors")

# Runs once more for each variant of the kernel.
EVERY_VARIANT = pytest.mark.every_variant
KINDS = (Reference, cpu.FusedCPU)


def engines(m: int, d: int, models: int = 1, seed: int = 0, scale: float = 0.0, rate: float = 0.05) -> tuple:
    """The reference and the fused kernel at the same start."""
    rng = np.random.RandomState(seed)
    rows = rng.randint(0, 256, (m, d)).astype(np.uint8)
    rows[: m // 2] //= 2
    sign = np.where(rng.uniform(size=(models, m)) < 0.5, 1.0, -1.0)
    w, b = rng.normal(0, 1, (models, d)) * scale, rng.normal(0, 1, models) * scale
    rates = np.array([rate / 10**i for i in range(models)])
    return tuple(descent(kind, rows, sign, w, b, rates) for kind in KINDS)


def assert_equal(reference: Reference, fused: "cpu.FusedCPU", iterations: int = 4) -> None:
    expected, obtained = reference.run(iterations), fused.run(iterations)
    assert np.array_equal(obtained, expected, equal_nan=True)
    assert np.isfinite(expected).all()
    assert np.array_equal(fused.w, reference.w)
    assert np.array_equal(fused.b, reference.b)
    assert np.array_equal(fused.gradient.dw, reference.gradient.dw)
    assert np.array_equal(fused.gradient.db, reference.gradient.db)


# The other variants take every m and every d with a few of the others.
SIZES = [
    pytest.param(m, d, marks=EVERY_VARIANT if (i + j) % 5 == 0 else ())
    for i, m in enumerate([*range(1, 12), 31, 64, 65, 127, 130, 200])
    for j, d in enumerate([1, 3, 31, 32, 33, 63, 64, 65, 130, 300])
]


@pytest.mark.parametrize(("m", "d"), SIZES)
def test_sizes_that_fill_no_block(m: int, d: int) -> None:
    assert_equal(*engines(m, d, seed=m * 1000 + d, scale=0.1))


@EVERY_VARIANT
@settings(max_examples=60)
@given(
    st.integers(1, 700), st.integers(1, 700), st.integers(1, 5), st.integers(0, 10**6), st.floats(0, 3),
    st.sampled_from([1e-9, 0.01, 1.0, 30.0]),
)  # fmt: skip
def test_any_problem(m: int, d: int, models: int, seed: int, scale: float, rate: float) -> None:
    assert_equal(*engines(m, d, models, seed, scale, rate), iterations=3)


@EVERY_VARIANT
@pytest.mark.parametrize(("m", "d"), [(2**18 + 77, 5), (2**18 + 77, 70), (5, 2**18 + 77), (700, 9000), (2, 40_000)])
def test_long_sums(m: int, d: int) -> None:
    # More terms than one block of the reference's, and more than 32-bit sums of the kernel could take.
    assert_equal(*engines(m, d, scale=1 / np.sqrt(d)), iterations=2)


@EVERY_VARIANT
def test_the_largest_sums() -> None:
    # Every pixel 255, every weight and residual at its bound: nothing may overflow.
    for m, d in ((600, 20_000), (1500, 300), (140_000, 65)):
        rows = np.full((m, d), 255, dtype=np.uint8)
        sign = np.ones((1, m))
        w = np.full((1, d), np.nextafter(1.0, 0)) * 2.0**-3
        for side in (1.0, -1.0):
            arrays = rows, side * sign, side * w, np.zeros(1), np.array([1e-3])
            assert_equal(*(descent(kind, *arrays) for kind in KINDS), iterations=2)


@EVERY_VARIANT
@pytest.mark.parametrize(("m", "d", "models"), [(1, 1, 1), (130, 65, 2), (300, 200, 1), (67, 301, 9)])
def test_an_evaluation_anywhere(m: int, d: int, models: int) -> None:
    """Cost and gradient at points that follow no path, and between them a descent, which they do not disturb."""
    rng = np.random.RandomState(m)
    rows = rng.randint(0, 256, (m, d)).astype(np.uint8)
    sign = np.where(rng.uniform(size=(models, m)) < 0.5, 1.0, -1.0)
    c = rng.uniform(0, 9, (models, m)) if models > 1 else None
    one, other = (kind(rows, sign, sample_weight=c, l2=np.full(models, 0.01) if d % 2 else None) for kind in KINDS)
    start = np.zeros((models, d)), np.zeros(models), np.full(models, 0.01)
    path = [GradientDescent(objective, *start, DescentOptions(momentum=0.5)) for objective in (one, other)]
    for scale in (0.0, 1e-3, 0.1, 40.0, 1e-300, 1e290, 0.1):
        w, b = rng.normal(0, 1, (models, d)) * scale, rng.normal(0, 1, models)
        before = w.copy()
        with np.errstate(all="ignore"):
            expected, obtained = one.evaluate(w, b), other.evaluate(w, b)
        for name in ("dw", "db", "cost"):
            assert np.array_equal(getattr(obtained, name), getattr(expected, name), equal_nan=True), (name, scale)
        assert np.isnan(expected.cost).all() == (scale > 1e6)
        assert np.array_equal(w, before)
        assert np.array_equal(*(solver.run(2) for solver in path))


THREADS = """
import numpy as np
from xlogreg.kernels import cpu, pool
from xlogreg.neuron.reference import Reference
from xlogreg.solvers.gradient_descent import GradientDescent
rng = np.random.RandomState(0)
# Few samples meet most often.
for m, d, models, iterations in ((1003, 517, 3, 3), (1500, 1000, 1, 3), (5, 3, 1, 50), (150, 130, 2, 300)):
    rows = rng.randint(0, 256, (m, d)).astype(np.uint8)
    sign = np.where(rng.uniform(size=(models, m)) < 0.5, 1.0, -1.0)
    start = np.full((models, d), 0.01), np.zeros(models), np.full(models, 0.01)
    reference = GradientDescent(Reference(rows, sign), *start)
    expected = reference.run(iterations)
    for threads in (1, 2, 3, 7):
        pool.allow(threads)
        fused = GradientDescent(cpu.FusedCPU(rows, sign), *start)
        fused.objective._block = 16
        assert np.array_equal(fused.run(iterations), expected) and np.array_equal(fused.w, reference.w), threads
pool.allow(0)
print(pool.allowed())
"""


def test_threads() -> None:
    # More threads than there are cores, which only a process of its own can have.
    assert python(THREADS, NUMBA_NUM_THREADS="7").split() == ["7"]


def test_who_fails_is_not_waited_for() -> None:
    """An error in one thread reaches the caller, though the others wait in compiled code for that thread."""
    wait_for_all = barrier.wait
    memory = np.zeros(barrier.memory_size(3), np.int64)

    @numba.njit(nogil=True)
    def wait(memory: np.ndarray) -> bool:
        return wait_for_all(memory, 3, 0)

    assert pool.giving_way() != 0

    def work(thread: int) -> None:
        if thread == failing:
            raise MemoryError(f"thread {thread}")
        came.append(wait(memory))

    def stop() -> None:
        memory[barrier.STOP] = 1

    for failing in (0, 2):
        memory[:] = 0
        came: list[bool] = []
        with pytest.raises(MemoryError, match=f"thread {failing}"):
            pool.run_all(work, 3, stop)
        assert came == [False, False]


def test_the_number_of_threads_follows_what_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(thread_count.time, "perf_counter", lambda: clock[0])

    def train(chooser: thread_count.ThreadCount, cost: dict[int, float], iterations: int) -> float:
        """Seconds that so many iterations take, by blocks of 100, where one takes cost[threads]."""
        start = clock[0]
        for _ in range(iterations // 100):
            left = 100
            while left:
                threads, count = chooser.plan(left)
                clock[0] += cost[threads] * count
                chooser.note(threads, count, cost[threads] * count)
                left -= count
        return clock[0] - start

    chooser = thread_count.ThreadCount(8)
    quiet, busy = {1: 0.8e-3, 2: 0.45e-3, 4: 0.3e-3, 8: 0.2e-3}, {1: 1e-3, 2: 9e-3, 4: 15e-3, 8: 30e-3}
    # Trials cost little, trouble is left quickly, and quiet is noticed again.
    assert train(chooser, quiet, 20_000) < 1.05 * 20_000 * quiet[8]
    assert chooser.threads == 8
    train(chooser, busy, 400)
    assert train(chooser, busy, 20_000) < 1.5 * 20_000 * busy[1]
    assert chooser.threads == 1
    train(chooser, quiet, 20_000)
    assert chooser.threads == 8
    alone = thread_count.ThreadCount(1)
    assert alone.plan(5) == (1, 5)
    alone.note(1, 5, 1.0)
    assert alone.plan(5) == (1, 5)


def test_it_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Numba compiles anew for each mixture of writable and read-only arrays and of layouts.
    x = np.random.RandomState(0).randint(0, 256, (70, 90)).astype(np.uint8)
    y = np.arange(90).reshape(1, -1) % 2
    locked = x.copy()
    locked.flags.writeable = False
    optimize(np.zeros((70, 1)), 0, x, y, 3, 0.1)
    optimize(np.zeros((70, 1)), 0, locked[:, ::-1], np.asfortranarray(y), 3, 0.1)
    descend_many(locked, np.repeat(y, 2, axis=0), [0.1, 0.2], 3, sample_weight=np.ones(90))
    descend_many(x, y, [0.1, 0.2], 3, options=DescentOptions(momentum=0.9, l2=0.1))
    assert len(cpu._run.signatures) == 1


def test_after_an_error_in_the_middle_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, say: what the threads had half done is forgotten, so that what follows has the right bits."""
    reference, fused = engines(300, 130, models=2, seed=3, scale=1e-3)
    assert_equal(reference, fused, 5)
    changed = []

    def interrupted(*arguments: object) -> None:
        for kept in fused.objective._kept.values():
            for array in kept[3:]:
                array += 1
                changed.append(array.size)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cpu, "run_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fused.run(1)
    assert sum(changed) > 0
    assert_equal(reference, fused, 3)


@EVERY_VARIANT
def test_samples_of_a_whole_part_may_count_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid is that of the largest residual of all samples, however the reference cuts them into parts."""
    rng = np.random.RandomState(0)
    rows, sign = rng.randint(0, 256, (200, 70)).astype(np.uint8), np.where(rng.rand(1, 200) < 0.5, 1.0, -1.0)
    weight, w, b = np.full((1, 200), 0.01), rng.normal(0, 1e-3, (1, 70)), np.zeros(1)
    weight[:, 128:] = 0.0
    whole = Reference(rows, sign, sample_weight=weight).evaluate(w, b)
    monkeypatch.setattr("xlogreg.neuron.reference.BLOCK_TERMS", 64)
    for one in (Reference(rows, sign, sample_weight=weight), cpu.FusedCPU(rows, sign, sample_weight=weight)):
        found = one.evaluate(w, b)
        for name in ("cost", "dw", "db"):
            assert np.array_equal(getattr(found, name), getattr(whole, name)), (one.name, name)


@EVERY_VARIANT
def test_blocks_change_no_bit() -> None:
    histories = []
    for block in (1, 2, 4, 7, 64, 256):
        _, fused = engines(333, 200, scale=0.1)
        fused.objective._block = block
        histories.append(fused.run(5).tolist())
    assert all(history == histories[0] for history in histories)


def test_calls_of_any_length_are_one_run() -> None:
    _, whole = engines(100, 50)
    _, parts = engines(100, 50)
    costs = np.concatenate([parts.run(n) for n in (1, 5, 2, 12)])
    assert np.array_equal(costs, whole.run(20))
    assert np.array_equal(parts.w, whole.w)


def smooth(m: int, d: int, models: int = 1, rate: float = 0.5, seed: int = 0) -> tuple:
    """The reference and the kernel on a problem in which an order of differences is worth its while."""
    rng = np.random.RandomState(seed)
    y = rng.randint(0, 2, (models, m))
    rows = rng.randint(0, 100, (m, d)).astype(np.uint8)
    rows[:, : d // 2] += (60 * y[0][:, None]).astype(np.uint8)
    rates = np.array([rate / d / 2**i for i in range(models)])
    return tuple(descent(kind, rows, 1.0 - 2.0 * y, np.zeros((models, d)), np.zeros(models), rates) for kind in KINDS)


# What takes long is made smaller for the other variants.
@pytest.mark.parametrize(
    ("m", "d", "models"),
    [
        (440, 440, 9),
        *(
            pytest.param(*sizes, marks=EVERY_VARIANT)
            for sizes in ((200, 300, 1), (500, 385, 3), (96, 96, 1), (96, 440, 9), (47, 500, 1))
        ),
    ],
)
def test_differences_change_no_bit(m: int, d: int, models: int) -> None:
    reference, fused = smooth(m, d, models)
    for iterations in (1, 2, 60, 7):
        assert_equal(reference, fused, iterations)
    # Weights that jump, as another program might set them, and that go back to a finer grid.
    for factor in (-3.0, 2.0**-9, 1.0 + 2.0**-30, 2.0**11):
        for engine in (reference, fused):
            engine.w[:] = engine.w * factor
        assert_equal(reference, fused, 3)
    state = fused.state()
    assert_equal(reference, fused, 5)
    for engine in (reference, fused):
        engine.restore(state)
        if models > 1:
            engine.keep([0, models - 1])
    assert_equal(reference, fused, 20)


@EVERY_VARIANT
def test_residuals_that_get_smaller_and_smaller() -> None:
    """Their grid follows the largest of them: an iteration in which it changes is done again, for all models."""
    rng = np.random.RandomState(3)
    y = rng.randint(0, 2, (3, 150))
    rows = rng.randint(0, 100, (150, 300)).astype(np.uint8)
    rows[:, :250] += (100 * y[0][:, None]).astype(np.uint8)
    sign = 1.0 - 2.0 * y[[0, 0, 1]]  # the third has labels that no training gets right
    for c in (None, rng.uniform(0, 5, (3, 150))):
        reference, fused = (
            descent(kind, rows, sign, np.zeros((3, 300)), np.zeros(3), np.array([0.3, 0.05, 0.01]), sample_weight=c)
            for kind in KINDS
        )
        seen = set()
        for _ in range(40):
            assert_equal(reference, fused, 5)
            seen.add(tuple(fused.objective._residual_exponents))
        assert len({exponents[0] for exponents in seen}) > 3
        assert len({exponents[2] for exponents in seen}) < len(seen)
        # From one extreme to the other.
        for factor in (-1.0, 40.0, 1e-6):
            for engine in (reference, fused):
                engine.w[:] = engine.w * factor
            assert_equal(reference, fused, 4)


@EVERY_VARIANT
def test_differences_save_most_of_the_work() -> None:
    _, fused = smooth(400, 500)
    fused.run(100)
    before = fused.objective.work.copy()
    fused.run(100)
    # Of 64 / BITS digits, one of the weights and one of the residuals is left, or hardly more; of narrow digits two.
    assert (fused.objective.work - before <= (150 if digits.BITS == 16 else 200)).all()
    assert (before >= 100).all()


@pytest.mark.parametrize(
    ("iterations", "digest", "most_of_8_bits", "most_of_16_bits"),
    [
        # As docs/exactness.md says: of weights and of residuals.
        (TUTORIAL.iterations, TUTORIAL.digest, [1.3, 1.15], [1.05, 1.03]),
        # The beginning, which needs more, is enough for the other variants.
        pytest.param(
            300, "4656758e6cf37d1f2df28db49debb93b81bd26b0d721575f4cb41f45f53587c6", [1.85, 1.77], [1.19, 1.1],
            marks=EVERY_VARIANT,
        ),
    ],
)  # fmt: skip
def test_the_tutorials_run_needs_hardly_more_than_one_digit(
    iterations: int, digest: str, most_of_8_bits: list[float], most_of_16_bits: list[float]
) -> None:
    x, y = load(TUTORIAL)
    fused = descent(cpu.FusedCPU, x, 1.0 - 2.0 * y[None], np.zeros((1, x.shape[1])), np.zeros(1), np.array([RATE]))
    assert history_sha256(fused.run(iterations)[:, 0]) == digest
    work = fused.objective.work / iterations
    assert (work < (most_of_16_bits if digits.BITS == 16 else most_of_8_bits)).all(), work


@EVERY_VARIANT
def test_differences_of_a_training_on_an_edge() -> None:
    # The steepest direction is at the limit of what descends: it swings from side to side, and no order is small.
    for rate in (2.0, 8.0, 30.0):
        assert_equal(*smooth(300, 400, rate=rate), iterations=40)


@EVERY_VARIANT
def test_large_and_tiny_weights() -> None:
    for scale in (300.0, 1e-200, 1e-307, 0.0):
        assert_equal(*engines(50, 100, scale=scale, rate=1e-12))


def test_divergence_is_found_at_the_same_iteration() -> None:
    x = np.random.RandomState(0).randint(0, 256, (40, 60)).astype(np.uint8)
    y = np.arange(60).reshape(1, -1) % 2
    iterations = []
    for implementation in ("reference", "fused"):
        with pytest.raises(DivergenceError) as caught:
            optimize(np.zeros((40, 1)), 0, x, y, 5000, 5e5, implementation=implementation)
        iterations.append(caught.value.iteration)
    assert iterations[0] == iterations[1]


@EVERY_VARIANT
@pytest.mark.parametrize(
    ("x", "rates", "options", "start"),
    [
        ([[255, 0]], [1e308], {"class_weight": (16, 16)}, 0.0),
        ([[0, 0]], [1e12], {"l2": 1e300}, 1e-3),
        ([[0, 0]], [1e12, 1e9], {"l2": 1e300}, 1e-3),
        ([[255, 0], [0, 0]], [1e300, 1e-3], {"momentum": 0.9}, 0.0),
        # Pixels that are all 0 hide weights of any size.
        ([[0, 0]], [1.0], {}, 2.0**899),
        ([[0, 0]], [1.0], {"l2": 5e-324}, 2.0**500),
        ([[0, 9]], [1.0], {"l2": 5e-324}, 0.0),
        ("many features", [6e300], {}, 0.0),
    ],
)
def test_edges_of_float64(x: object, rates: list[float], options: dict, start: float) -> None:
    """Where a training diverges, it does so at the same iteration everywhere, and has the same costs until then."""
    if x == "many features":
        pixels = np.zeros((2**18 + 1, 2), np.uint8)
        pixels[0, 0] = 255
    else:
        pixels = np.array(x, np.uint8)
    y, w = np.array([[0, 1]]), np.full((len(rates), len(pixels)), start)
    results = []
    for implementation in ("reference", "fused"):
        try:
            result = descend_many(
                pixels, y, rates, 100, implementation=implementation, w=w, options=DescentOptions(**options)
            )
            errors = [None if error is None else error.iteration for error in result.errors]
            results.append((errors, [history.tolist() for history in result.histories]))
            assert all(np.isfinite(history).all() and (history >= 0).all() for history in result.histories)
        except DivergenceError as error:
            results.append(error.iteration)
    assert results[0] == results[1]


def test_no_float_copy_and_no_change_of_the_pixels() -> None:
    def held(m: int) -> tuple[float, float]:
        """What the objective holds after a training and held at most, in bytes a pixel."""
        rows = np.random.RandomState(0).randint(0, 256, (m, 2000)).astype(np.uint8)
        before = rows.copy()
        rows.flags.writeable = False
        tracemalloc.start()
        engine = descent("fused", rows, np.ones((1, m)), np.zeros((1, 2000)), np.zeros(1), np.array([0.1]))
        engine.run(3)
        now, most = (size / rows.size for size in tracemalloc.get_traced_memory())
        tracemalloc.stop()
        assert np.array_equal(rows, before)
        return now, most

    held(1)  # compile and load
    now, most = held(2000)
    # One copy in bytes, from the start of a cache line on; the smallest floats of NumPy have two.
    assert now < 1.5
    assert most < 1.9


def test_auto_takes_the_fused_kernel_for_pixels_only() -> None:
    x = np.random.RandomState(0).randint(0, 256, (9, 20)).astype(np.uint8)
    y = np.arange(20).reshape(1, -1) % 2
    assert descend_many(x, y, [0.1], 1).implementation == "fused"
    assert descend_many(x / 255, y, [0.1], 1).implementation == "reference"
    with pytest.raises(InputError, match="uint8 pixels, not float64"):
        descend_many(x / 255, y, [0.1], 1, implementation="fused")
    with pytest.raises(InputError, match="own chunks"):
        descend_many(x, y, [0.1], 1, implementation="fused", chunk=5)


def test_without_numba_training_goes_on_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.RandomState(0).randint(0, 256, (9, 20)).astype(np.uint8)
    y = np.arange(20).reshape(1, -1) % 2
    expected = descend_many(x, y, [0.1], 5)
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    kernels._why_no_numba.cache_clear()
    kernels._warn_once.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="Numba is not installed; training goes on"):
            obtained = descend_many(x, y, [0.1], 5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            descend_many(x, y, [0.1], 5)
        assert obtained.implementation == "reference"
        assert np.array_equal(obtained.history, expected.history)
        assert kernels.available("cpu") == ["reference"]
        assert "Numba is not installed" in kernels.notes()[0]
        with pytest.raises(InputError, match="Numba is not installed"):
            descend_many(x, y, [0.1], 5, implementation="fused")
    finally:
        kernels._why_no_numba.cache_clear()
        kernels._warn_once.cache_clear()


def test_a_kernel_that_does_not_compile_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.RandomState(0).randint(0, 256, (9, 20)).astype(np.uint8)
    y = np.arange(20).reshape(1, -1) % 2
    expected = descend_many(x, y, [0.1], 5)

    def broken(*_: object) -> None:
        raise RuntimeError("LLVM says no\nand more")

    monkeypatch.setattr(cpu, "_run", broken)
    kernels._warn_once.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match=r"does not compile or start here \(LLVM says no\)"):
            obtained = descend_many(x, y, [0.1], 5)
        assert obtained.implementation == "reference"
        assert np.array_equal(obtained.history, expected.history)
        with pytest.raises(InputError, match="does not compile"):
            descend_many(x, y, [0.1], 5, implementation="fused")
    finally:
        kernels._warn_once.cache_clear()


def compiled_into(module: str) -> set[str]:
    """The modules whose text a module's compiled function is made of: where each name in it was made, and each name
    there.

    They are the functions within the one that is given the digest; decorators of these run in Python only.
    """
    package = Path(cpu.__file__).parents[1]
    trees = {
        path.relative_to(package).with_suffix("").as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in package.rglob("*.py")
    }

    def names(node: ast.AST, how: type) -> set[str]:
        return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, how)}

    @functools.cache
    def imports(module: str) -> dict[str, tuple[str, str]]:
        """Module and name there of what is taken from the package."""
        return {
            alias.asname or alias.name: (
                "/".join([*module.split("/")[: -each.level], *(each.module or "").split(".")]).strip("/"), alias.name
            )
            for each in ast.walk(trees[module]) if isinstance(each, ast.ImportFrom) and each.level
            for alias in each.names
        }  # fmt: skip

    @functools.cache
    def made(module: str, name: str) -> list[ast.stmt]:
        """What gives a module's name its value."""
        kinds = (ast.FunctionDef, ast.ClassDef)
        return [
            each for each in trees[module].body
            if (each.name == name if isinstance(each, kinds) else name in names(each, ast.Store))
        ]  # fmt: skip

    (outer,) = made(module, "_compile")
    inner = [each for each in ast.walk(outer) if isinstance(each, ast.FunctionDef) and each is not outer]
    todo: list[tuple[str, ast.AST]] = [(module, node) for each in inner for node in each.body]
    done = {(module, "_compile")}
    while todo:
        module, node = todo.pop()
        imported = imports(module)
        used = {imported.get(name, (module, name)) for name in names(node, ast.Load)}
        for each in ast.walk(node):
            if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id in imported:
                used.add(("/".join(imported[each.value.id]).strip("/"), each.attr))
        for place, name in used:
            while place in trees and name in imports(place):
                place, name = imports(place)[name]
            # What an error says is in no compiled code.
            if place in trees and place != "errors" and (place, name) not in done and (found := made(place, name)):
                done.add((place, name))
                todo += [(place, each) for each in found]
    return {place for place, _ in done}


def test_an_old_kernel_is_never_used() -> None:
    """What is kept was compiled from these sources: the name of the kernel's variant holds their digest."""
    listed, needed = set(), set()
    for function, modules, extra, made_of in (
        (
            cpu._run, cpu._MODULES, f"{cpu.digits.MULTIPLY} {cpu.digits.WIDTH} {cpu.digits.BITS}",
            compiled_into("kernels/cpu"),
        ),
        *(
            (function, dots.MODULES, "", compiled_into("kernels/dots"))
            for function in (dots.dots, dots.add_multiples, dots.add_rows, dots.two_loops)
        ),
        (shrink.shrink, ("images/resize_kernel",), "", compiled_into("images/resize_kernel")),
    ):  # fmt: skip
        (cell,) = function.py_func.__closure__
        assert cell.cell_contents == sources.digest_of(*modules, extra=extra)
        assert cell.cell_contents != sources.digest_of(*modules, extra="another instruction")
        assert cell.cell_contents != sources.digest_of(*modules[:-1], extra=extra)
        assert made_of <= {*sources._COMMON, *modules}, "a module is not in the digest"
        listed |= {*sources._COMMON, *modules}
        needed |= made_of
    # And of nothing that would have it compiled anew for no reason.
    assert listed == needed


LOOPS = """
import importlib, os, sys
import numpy as np
from numba import config
from xlogreg.kernels import arithmetic, digits
# Called from Python here, which the kernel's own functions are not.
arithmetic.OPTIONS.pop("no_cpython_wrapper")
arithmetic.OPTIONS["cache"] = True
from xlogreg.kernels import pixel_sums

def check():
    rng = np.random.RandomState(0)
    for m, d, models in ((70, 333, 1), (41, 5000, 3), (3, 17, 2), (9, 40, 1), (64, 128, 5), (1, 64, 1), (250, 65, 2)):
        rows = rng.randint(0, 256, (m, d)).astype(np.uint8)
        rows[0] = 255
        # Numbers of every length, and the largest of each.
        weights, residuals = ((rng.uniform(-1, 1, (models, n)) * 2.0**62).astype(np.int64) for n in (d, m))
        for model in range(models):
            weights[model] >>= 62 - (62, 30, 7, 0, 15)[model]
            residuals[model] >>= 62 - (62, 7, 41, 30, 0)[model]
        weights[0, 0], residuals[0, 0] = 2**62, -(2**62)
        arrays = {}
        for name, (shape, kind) in pixel_sums.shapes(models, models, d, m).items():
            memory = np.zeros(int(np.prod(shape)) * np.dtype(kind).itemsize + 64, np.uint8)
            start = -memory.ctypes.data % 64
            arrays[name] = memory[start : len(memory) - 64 + start].view(kind).reshape(shape)
        places, widths, digit = [], [], 1
        for model in range(models):
            largest = int(np.abs(weights[model]).max())
            widths.append(pixel_sums.rows_for(largest))
            digit = max(digit, pixel_sums.largest_digit(largest))
            places += [model * digits.DIGITS + k for k in range(widths[-1])]
            for first in range(0, d, 64):
                pixel_sums.cut_weights(weights[model], arrays["weights"], model, first, min(d, first + 64))
        pixel_sums.forward(rows, arrays["weights"], np.array(places), len(places), digit, arrays["sums"])
        low, high = np.zeros((2, m), np.int64)
        for model in range(models):
            pixel_sums.join(arrays["sums"], sum(widths[:model]), widths[model], low, high)
            exact = rows.astype(object) @ weights[model].astype(object)
            assert (low.astype(object) + high.astype(object) * 2**32 == exact).all(), (m, d, model)
            assert (low >= 0).all() and (low < 2**32).all()
        low, high = np.zeros((2, models, d), np.int64)
        places, widths = [], []
        for model in range(models):
            widths.append(pixel_sums.rows_for(int(np.abs(residuals[model]).max())))
            pixel_sums.cut_residuals(residuals[model], widths[-1], arrays["residuals"], len(places))
            places += [model * digits.DIGITS + k for k in range(widths[-1])]
            pixel_sums.add_few(rows, residuals[model], low[model], high[model])
        pixel_sums.backward(rows, arrays["residuals"], np.array(places), len(places), arrays["narrow"])
        for model in range(models):
            pixel_sums.flush(arrays["narrow"], model, widths[model], low[model], high[model], arrays["tile"])
        exact = residuals.astype(object) @ rows.astype(object)
        assert (low.astype(object) + high.astype(object) * 2**32 == exact).all(), (m, d)
        assert (low >= 0).all() and (low < 2**32).all()
        assert not arrays["narrow"].any()
    for n in range(1, digits.DIGITS):
        most = sum((2 ** (digits.BITS - 1) - 1) << digits.BITS * k for k in range(n))
        assert pixel_sums.rows_for(most) == n and pixel_sums.rows_for(most + 1) == n + 1
    assert pixel_sums.rows_for(0) == 0

for name, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    os.environ["XLOGREG_KERNEL"], config.CACHE_DIR = name, folder
    importlib.reload(digits)
    importlib.reload(pixel_sums)
    print(name, digits.BITS, digits.WIDTH, digits.MULTIPLY, flush=True)
    check()
"""


def variant_environment(name: str, cpu: str = "host") -> dict[str, str]:
    variables = environment(XLOGREG_KERNEL=name)
    for key in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        variables.pop(key, None)
    if cpu != "host":
        variables |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": "+sse2"}
    return variables


# What the processor has, and the same layouts in code for one that has nothing.
CPUS = ["host", "x86-64"] if vectors.X86 else ["host"]


@pytest.mark.parametrize("cpu", CPUS)
def test_inner_loops_of_every_variant(cpu: str) -> None:
    """What the inner loops compile to for processors with and without VNNI or AVX, and without any x86, is exact."""
    # Numba itself looks at the processor, and at one file's date only.
    folders = {
        name: helpers.folder(
            sources.digest_of("kernels/digits", "kernels/pixel_sums", extra=f"{name} {numba.__version__}")
        )
        for name in digits.VARIANTS
    }
    command = [sys.executable, "-c", LOOPS, *(str(each) for both in folders.items() for each in both)]
    done = subprocess.run(
        command, env=variant_environment("", cpu), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, [*done.stdout.splitlines()[-1:], done.stderr]
    there = vectors.features() if cpu == "host" and vectors.X86 else {"sse2"} if vectors.X86 else set()
    assert [line.split() for line in done.stdout.splitlines()] == [
        [name, str(variant.bits), str(variant.width), *variant.instruction.split()[: variant.needs <= there]]
        for name, variant in digits.VARIANTS.items()
    ]


@pytest.mark.parametrize("name", [name for name in digits.VARIANTS if digits.chosen(name) != digits._VARIANT])
def test_every_variant_does_the_same(name: str) -> None:
    """The tests of the kernel, marked so, once for each variant that this process does not run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "every_variant"]
    files = [__file__, str(Path(__file__).with_name("test_lbfgs.py"))]
    done = subprocess.run(
        [*command, *files], env=variant_environment(name), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_a_variant_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="XLOGREG_KERNEL is 'mmx'; choose avx512-vnni"):
        digits.chosen("mmx")
    assert digits.chosen("").needs <= (vectors.features() if vectors.X86 else set())
