"""The fused CUDA kernels without a GPU: their source is executed thread by thread and equals the reference by ==."""

import dataclasses
import os
import types
import warnings
from collections.abc import Iterator
from typing import Any

import emulated
import numpy as np
import pytest
import strict
from emulated import state
from helpers import descent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlogreg import kernels
from xlogreg.arrays import on_its_device
from xlogreg.data.birds import load_birds
from xlogreg.data.task import make_task
from xlogreg.errors import DeviceError, DivergenceError, InputError
from xlogreg.kernels import cuda
from xlogreg.logistic import descend_many
from xlogreg.neuron import elementary, exact, products
from xlogreg.neuron.options import DescentOptions
from xlogreg.neuron.reference import Reference
from xlogreg.proof import tutorial
from xlogreg.solvers.descent import descend, history_sha256
from xlogreg.solvers.gradient_descent import GradientDescent
from xlogreg.solvers.lbfgs import LBFGS

pytestmark = pytest.mark.skipif(
    not emulated.COMPILER, reason="no C++ compiler (g++, or CXX) to run the CUDA source with"
)

TILES, ONE_READ = emulated.KERNELS
# Kernel, whether tiles are resident.
MODES = [(TILES, True), (TILES, False), (ONE_READ, False)]


@pytest.fixture(params=["90", "75"], ids=["tensor cores", "dp4a"])
def device(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """The strict stand-in with raw kernels: a small device."""
    for name in ("RawModule", "cuda", "get_default_memory_pool"):
        monkeypatch.setattr(strict, name, getattr(emulated, name), raising=False)
    for name, value in {**vars(state), "capability": request.param}.items():
        monkeypatch.setattr(state, name, value)
    kernels._warn_once.cache_clear()
    cuda._module.cache_clear()
    yield
    kernels._warn_once.cache_clear()
    cuda._module.cache_clear()


on_device = pytest.mark.usefixtures("device")


def plan(
    kernel: str, resident: bool, m: int, d: int, models: int = 1, threads: int = 64, blocks: int = 4, cut: int = 3,
    tensor: bool | None = None,
) -> cuda.Plan:  # fmt: skip
    """A plan with several tiles in both directions, whatever the size."""
    tensor = state.capability >= "80" if tensor is None else tensor
    rows, columns = cuda._up(-(-m // cut), 4), cuda._up(-(-d // 2), 16)
    if kernel == ONE_READ:
        columns, threads = cuda._up(d, 16), max(threads, cuda._up(cuda._up(d, 16) // 4, 32))
    tiles = -(-m // rows) * (1 if kernel == ONE_READ else -(-d // columns))
    blocks = tiles if resident else min(blocks, tiles)
    size = cuda.shared_bytes(kernel, rows, columns, threads, 1 if kernel == ONE_READ else models, resident, tensor)
    return cuda.Plan(kernel, blocks, threads, rows, columns, resident, size)


def problem(m: int, d: int, models: int = 1, seed: int = 0, scale: float = 0.1, rate: float = 0.05) -> tuple:
    rng = np.random.RandomState(seed)
    rows = rng.randint(0, 256, (m, d)).astype(np.uint8)
    rows[: m // 2] //= 2
    sign = np.where(rng.uniform(size=(models, m)) < 0.5, 1.0, -1.0)
    w, b = rng.normal(0, 1, (models, d)) * scale, rng.normal(0, 1, models) * scale
    return rows, sign, w, b, np.array([rate / 10**i for i in range(models)])


def separable(m: int, d: int, models: int = 1) -> tuple:
    """As `problem`, from zeros: the first model's residuals get smaller and smaller."""
    rng = np.random.RandomState(3)
    sign = np.where(rng.uniform(size=(models, m)) < 0.5, 1.0, -1.0)
    rows = rng.randint(0, 100, (m, d)).astype(np.uint8)
    rows[:, : d * 3 // 4] += np.where(sign[0] < 0, 100, 0)[:, None].astype(np.uint8)
    return rows, sign, np.zeros((models, d)), np.zeros(models), np.array([80.0 / d, 4.0 / d] * models)[:models]


def fused(arrays: tuple, chosen: cuda.Plan | None) -> GradientDescent:
    if chosen is not None:
        state.processors, state.shared = max(state.processors, chosen.blocks), max(state.shared, chosen.shared)
    engine = descent(cuda.FusedCUDA, *[strict.array(array) for array in arrays], plan=chosen)
    engine.objective.prepare()
    return engine


def assert_equal(arrays: tuple, chosen: cuda.Plan | None, iterations: int = 4) -> GradientDescent:
    rows, sign, w, b, rates = arrays
    reference, engine = descent(Reference, rows, sign, w.copy(), b.copy(), rates), fused(arrays, chosen)
    expected, obtained = reference.run(iterations), engine.run(iterations)
    assert obtained.tolist() == expected.tolist()
    assert np.isfinite(expected).all()
    assert np.array_equal(engine.w.get(), reference.w)
    assert np.array_equal(engine.b.get(), reference.b)
    assert engine.gradient is not None
    assert reference.gradient is not None
    assert np.array_equal(engine.gradient.dw.get(), reference.gradient.dw)
    assert np.array_equal(engine.gradient.db.get(), reference.gradient.db)
    assert np.array_equal(engine.gradient.cost.get(), reference.gradient.cost)
    return engine


@pytest.mark.parametrize(("kernel", "resident"), MODES)
@on_device
def test_an_evaluation_anywhere(kernel: str, resident: bool) -> None:
    rows, sign, w, b, rates = problem(40, 50, 2)
    engine, plain = fused((rows, sign, w, b, rates), plan(kernel, resident, 40, 50, 2)), Reference(rows, sign)
    for scale in (0.0, 1e-3, 40.0, 0.1):
        expected = plain.evaluate(w * scale, b)
        obtained = engine.objective.evaluate(*map(strict.array, (w * scale, b)))
        for name in ("dw", "db", "cost"):
            assert getattr(obtained, name).get().tolist() == getattr(expected, name).tolist()
        assert engine.run(2).shape == (2, 2)


@pytest.mark.parametrize(("kernel", "resident"), MODES)
@pytest.mark.parametrize(("m", "d"), [(1, 1), (2, 3), (3, 17), (5, 200), (64, 64), (65, 33), (131, 48), (300, 7)])
@on_device
def test_sizes(kernel: str, resident: bool, m: int, d: int) -> None:
    assert_equal(problem(m, d, seed=m * 1000 + d), plan(kernel, resident, m, d))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 200), st.integers(1, 130), st.integers(1, 4), st.integers(0, 10**6), st.floats(0, 3),
    st.sampled_from([1e-9, 0.01, 1.0, 30.0]), st.sampled_from([32, 64, 96]), st.integers(1, 7),
    st.integers(7_000, 60_000),
)  # fmt: skip
@on_device
def test_any_problem_on_any_device(
    m: int, d: int, models: int, seed: int, scale: float, rate: float, threads: int, processors: int, shared: int
) -> None:
    state.processors, state.shared, state.seed = processors, shared, seed
    chosen = cuda.plan_for(m, d, models, processors, shared, state.capability >= "80", threads, threads)
    assert_equal(problem(m, d, models, seed, scale, rate), chosen, iterations=3)


@pytest.mark.parametrize(("kernel", "resident"), MODES)
@on_device
def test_the_order_of_threads_changes_no_bit(kernel: str, resident: bool) -> None:
    for seed in range(12):
        state.seed = seed
        models = 1 if kernel == ONE_READ else 1 + seed % 3
        chosen = plan(kernel, resident, 61, 40, models, threads=64 if seed % 2 else 32)
        assert_equal(problem(61, 40, models), chosen)


@pytest.mark.parametrize("resident", [True, False])
@on_device
def test_several_models(resident: bool) -> None:
    arrays = problem(70, 50, models=3, scale=0.2)
    together = assert_equal(arrays, plan(TILES, resident, 70, 50, models=3))
    rows, sign, w, b, rates = arrays
    for i in range(3):
        one = slice(i, i + 1)
        alone = fused((rows, sign[one], w[one], b[one], rates[one]), plan(ONE_READ, False, 70, 50))
        alone.run(4)
        assert np.array_equal(alone.w.get(), together.w.get()[one])


@on_device
def test_two_models_one_after_the_other() -> None:
    state.processors = 3
    launches = state.launches
    engine = assert_equal(problem(61, 40, models=2, scale=0.2), plan(ONE_READ, False, 61, 40, models=2))
    assert state.launches == launches + 2 * 2  # of no iterations, and of all
    engine.keep([1])
    rows, sign, w, b, rates = problem(61, 40, models=2, scale=0.2)
    alone = descent(Reference, rows, sign[1:], w[1:].copy(), b[1:].copy(), rates[1:])
    assert alone.run(7)[4:].tolist() == engine.run(3).tolist()


@on_device
def test_sums_of_z_are_for_tiles_alone() -> None:
    arrays = problem(3000, 16)
    sizes = [fused(arrays, plan(kernel, False, 3000, 16)).objective._workspace.shape[0] for kernel in (TILES, ONE_READ)]
    assert sizes[0] - sizes[1] == 2 * 3 * 3000


@pytest.mark.parametrize(("kernel", "resident"), MODES)
@on_device
def test_rows_begin_at_multiples_of_16_bytes(kernel: str, resident: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, chosen = problem(61, 37), plan(kernel, resident, 61, 37)
    assert assert_equal(arrays, chosen).objective._pixels.shape == (61, 48)
    # Not where there is no memory for a copy, nor where they are in the host's, which is no place for another one.
    runtime = emulated.cuda.runtime
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "pointerGetAttributes", lambda _: types.SimpleNamespace(type=1))
        assert assert_equal(arrays, chosen).objective._pixels.shape == (61, 37)
    state.free = 61 * 48
    assert assert_equal(arrays, chosen).objective._pixels.shape == (61, 37)
    arrays = problem(61, 48)
    engine = fused(arrays, chosen=plan(kernel, resident, 61, 48))
    assert engine.objective._pixels is engine.objective.rows


@pytest.mark.parametrize(("kernel", "resident"), MODES)
@on_device
def test_exponents_that_change(kernel: str, resident: bool) -> None:
    # From zeros, and with weights that double again and again: resident tiles repeat their forward pass.
    rows, sign, w, b, _ = problem(40, 20, scale=0.0)
    rows[:] = np.where(sign[0] < 0, 250, 3)[:, None]
    assert_equal((rows, sign, w, b, np.array([1e-3])), plan(kernel, resident, 40, 20), iterations=12)
    for scale in (300.0, 1e-200, 1e-307, 5e-324):
        assert_equal((rows, sign, w + scale, b, np.array([1e-12])), plan(kernel, resident, 40, 20))


@pytest.mark.parametrize(("kernel", "resident"), MODES)
@on_device
def test_residuals_that_get_smaller_and_smaller(kernel: str, resident: bool) -> None:
    # Their grid follows the largest of them: a turn in which it changes is done again.
    models = 1 if kernel == ONE_READ else 2
    arrays = separable(60, 40, models)
    for seed in range(3):
        state.seed = seed
        chosen = plan(kernel, resident, 60, 40, models, threads=64 if seed % 2 else 32)
        engine = assert_equal(arrays, chosen, iterations=40)
        assert engine.objective._exponents.get()[0, 1] < -1


@pytest.mark.parametrize(("kernel", "resident"), MODES)
@on_device
def test_the_largest_sums(kernel: str, resident: bool) -> None:
    # Every pixel 255, weights and residuals at their bounds: nothing may overflow (the emulator's dp4a looks).
    for m, d, cut in ((40, 3000, 1), (20_000, 3, 1), (70_000, 1, 3)):
        rows, w = np.full((m, d), 255, dtype=np.uint8), np.full((1, d), np.nextafter(1.0, 0))
        for sign in (1.0, -1.0):
            arrays = (rows, np.full((1, m), sign), sign * w, np.zeros(1), np.array([1e-3]))
            assert_equal(arrays, plan(kernel, resident, m, d, threads=256, cut=cut), iterations=2)


@on_device
def test_more_terms_than_32_bits_hold() -> None:
    # Over 2^18 samples: the reference works in blocks, and threads empty their 32-bit sums on the way.
    m = 2**18 + 77
    rows = np.full((m, 2), 255, dtype=np.uint8)
    arrays = (rows, np.ones((1, m)), np.full((1, 2), 20.0), np.zeros(1), np.array([1e-3]))
    assert_equal(arrays, cuda.Plan(ONE_READ, 1, 64, 32_768, 16, False, 2_300_000), iterations=1)
    assert_equal(problem(m, 2), cuda.plan_for(m, 2, 1, 4, 200_000, state.capability >= "80", 64, 64), iterations=1)


@on_device
def test_unaligned_pixels() -> None:
    rows, *rest = problem(30, 32)
    memory = strict.zeros((30 * 32 + 1,), np.uint8)
    memory._values[1:] = rows.reshape(-1)
    state.shared = 60_000
    engine = descent(cuda.FusedCUDA, strict.StrictArray(memory._values[1:].reshape(30, 32)), *map(strict.array, rest))
    engine.objective.prepare()
    assert engine.run(3).tolist() == descent(Reference, rows, *rest).run(3).tolist()


@pytest.mark.parametrize(("kernel", "resident"), MODES)
@on_device
def test_calls_of_any_length_are_one_run(kernel: str, resident: bool) -> None:
    arrays, chosen = problem(50, 40, rate=1.0), plan(kernel, resident, 50, 40)
    whole, parts = fused(arrays, chosen), fused(arrays, chosen)
    expected = whole.run(11)
    assert np.concatenate([parts.run(n) for n in (1, 5, 2, 3)]).tolist() == expected.tolist()
    assert np.array_equal(parts.w.get(), whole.w.get())


@pytest.mark.parametrize(("kernel", "resident"), MODES)
@on_device
def test_the_tutorials_pictures(kernel: str, resident: bool) -> None:
    task = make_task(load_birds(), "bird")
    rows = task.x_train.reshape(1900, -1)
    sign = 1.0 - 2.0 * task.y_train.reshape(1, -1)
    arrays = (rows, sign, np.zeros((1, 3072)), np.zeros(1), np.array([tutorial.LEARNING_RATE]))
    chosen = plan(kernel, resident, 1900, 3072, threads=128, blocks=6)
    # 2000 iterations take some minutes a kernel, and must give the golden digest.
    iterations = int(os.environ.get("XLOGREG_EMULATED_ITERATIONS", "2"))
    if iterations == 2:
        assert_equal(arrays, chosen, iterations)
    else:
        golden = {100: tutorial.GOLDEN_SHA256_100, tutorial.ITERATIONS: tutorial.GOLDEN_SHA256}[iterations]
        assert history_sha256(fused(arrays, chosen).run(iterations)[:, 0]) == golden


@pytest.mark.parametrize(("kernel", "resident"), MODES)
@on_device
def test_divergence(kernel: str, resident: bool) -> None:
    rows, sign, w, b, _ = problem(40, 20, scale=0.0)
    iterations = []
    for rate in (1e6, 1e300):
        arrays = (rows, sign, w, b, np.array([rate]))
        engines = (
            descent(Reference, *arrays),
            fused(arrays, plan(kernel, resident, 40, 20)),
        )
        for engine in engines:
            with pytest.raises(DivergenceError) as caught:
                descend(engine, 1000)
            iterations.append(caught.value.iteration)
    assert iterations[0] == iterations[1]
    assert iterations[2] == iterations[3]
    # Once weights are no numbers, no cost is one.
    engine = fused((rows, sign, np.full((1, 20), np.inf), b, np.array([0.1])), plan(kernel, resident, 40, 20))
    assert np.isnan(engine.run(3)).all()


@on_device
def test_one_synchronisation_a_run() -> None:
    engine = fused(problem(50, 40), plan(TILES, True, 50, 40))
    before, launches = strict.synchronisations, state.launches
    engine.run(20)
    assert strict.synchronisations == before + 1  # the costs
    assert state.launches == launches + 1


def columns() -> tuple[Any, Any]:
    x = np.random.RandomState(0).randint(0, 256, (9, 20)).astype(np.uint8)
    return strict.array(x), strict.array(np.arange(20).reshape(1, -1) % 2)


def expected() -> np.ndarray:
    x, y = columns()
    return descend_many(x.get(), y.get(), [0.1], 5, implementation="reference").history


@on_device
def test_auto_takes_the_fused_kernels() -> None:
    x, y = columns()
    result = descend_many(x, y, [0.1], 5)
    assert result.implementation == "fused"
    assert np.array_equal(result.history, expected())
    assert descend_many(x, y, [0.1], 5, implementation="reference").implementation == "reference"
    assert descend_many(x, y, [0.1], 5, chunk=4).implementation == "reference"
    with pytest.raises(InputError, match="own chunks"):
        descend_many(x, y, [0.1], 5, chunk=4, implementation="fused")
    assert kernels.available("gpu", strict) == ["reference", "fused"]
    assert kernels.notes(strict) == []


@pytest.mark.parametrize(
    ("attribute", "value", "why"),
    [("cooperative", False, "no cooperative launches"), ("capability", "70", "7.5 or later, not 7.0")],
)
@on_device
def test_a_gpu_that_cannot_run_them(attribute: str, value: Any, why: str) -> None:
    setattr(state, attribute, value)
    x, y = columns()
    with pytest.warns(RuntimeWarning, match=why):
        result = descend_many(x, y, [0.1], 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        descend_many(x, y, [0.1], 5)
    assert result.implementation == "reference"
    assert np.array_equal(result.history, expected())
    assert kernels.available("gpu", strict) == ["reference"]
    assert why in kernels.notes(strict)[0]
    with pytest.raises(InputError, match=why):
        descend_many(x, y, [0.1], 5, implementation="fused")


@pytest.mark.parametrize("when", ["compile", "launch"])
@on_device
def test_kernels_that_fail_are_no_failure(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE\nand more")

    if when == "compile":
        monkeypatch.setattr(strict, "RawModule", broken)
    else:
        monkeypatch.setattr(emulated.RawKernel, "_launch", broken)
    x, y = columns()
    with pytest.warns(
        RuntimeWarning, match=r"does not compile or start here \(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE\)"
    ):
        result = descend_many(x, y, [0.1], 5)
    assert result.implementation == "reference"
    assert np.array_equal(result.history, expected())
    with pytest.raises(InputError, match="does not compile or start"):
        descend_many(x, y, [0.1], 5, implementation="fused")


@on_device
def test_what_cuda_reports_is_one_sentence() -> None:
    for error, words in (
        (emulated.OutOfMemoryError("12 bytes"), r"memory of gpu:0 is full \(12 bytes\)"),
        (emulated.CUDARuntimeError("cudaErrorECC"), r"gpu:0 stopped working \(cudaErrorECC\)"),
        (emulated.CUDADriverError("CUDA_ERROR_LAUNCH_TIMEOUT"), "nvidia-smi"),
    ):

        def fail(array: Any, error: Exception = error) -> None:
            raise error

        with pytest.raises(DeviceError, match=words):
            on_its_device(fail)(strict.zeros(3, float))


@on_device
def test_no_memory_left(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = columns()

    def full(*_: object, **__: object) -> None:
        raise emulated.OutOfMemoryError

    zeros = strict.zeros
    monkeypatch.setattr(strict, "zeros", lambda shape, dtype: full() if dtype == np.int64 else zeros(shape, dtype))
    with pytest.raises(DeviceError, match=r"memory of gpu:0 has no room for .* GB of sums beside the pixels"):
        descend_many(x, y, [0.1], 5)
    monkeypatch.setattr(strict, "zeros", zeros)
    monkeypatch.setattr(strict, "full", full)  # of the costs, at the first launch
    with pytest.raises(DeviceError, match=r"memory of gpu:0 has no room for"):
        descend_many(x, y, [0.1], 5)


@on_device
def test_memory_that_ends_in_the_launch_is_no_failure_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise emulated.OutOfMemoryError

    monkeypatch.setattr(strict, "RawModule", full)
    x, y = columns()
    with pytest.raises(DeviceError, match="memory of gpu:0 is full"):
        descend_many(x, y, [0.1], 5)


@on_device
def test_arrays_of_a_gpu_that_is_not_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = columns()
    x._on = y._on = 1
    seen = []
    launch = emulated.RawKernel._launch
    monkeypatch.setattr(emulated.RawKernel, "_launch", lambda *a, **b: (seen.append(state.current), launch(*a, **b)))
    assert np.array_equal(descend_many(x, y, [0.1], 5).history, expected())
    assert set(seen) == {1}
    assert state.current == 0
    y._on = 0
    with pytest.raises(DeviceError, match="gpu:1 and gpu:0 are mixed"):
        descend_many(x, y, [0.1], 5)


@on_device
def test_the_plain_code_takes_smaller_chunks_where_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = columns()
    empty, asked = strict.empty, []

    def small(shape: tuple, dtype: Any) -> Any:
        asked.append(shape)
        if len(shape) == 2 and shape[1] == 9 and shape[0] > 3:  # the chunk of samples
            raise emulated.OutOfMemoryError("a chunk of 20")
        return empty(shape, dtype)

    monkeypatch.setattr(strict, "empty", small)
    assert np.array_equal(descend_many(x, y, [0.1], 5, implementation="reference").history, expected())
    assert [shape[0] for shape in asked if shape[1:] == (9,)][:4] == [20, 10, 5, 2]

    def none(*_: object, **__: object) -> None:
        raise emulated.OutOfMemoryError("9 bytes")

    monkeypatch.setattr(strict, "empty", none)
    with pytest.raises(DeviceError, match=r"memory of gpu:0 is full \(9 bytes\)"):
        descend_many(x, y, [0.1], 5, implementation="reference")


@on_device
def test_blocks_that_are_not_resident_together() -> None:
    state.occupancy = 0
    x, y = columns()
    with pytest.warns(RuntimeWarning, match="runs 0 blocks of descend_in_tiles on a multiprocessor at once"):
        result = descend_many(x, y, [0.1], 5)
    assert result.implementation == "reference"
    assert np.array_equal(result.history, expected())


@on_device
def test_prepared_once() -> None:
    engine = fused(problem(50, 40), plan(TILES, True, 50, 40))
    launches = state.launches
    engine.objective.prepare()
    assert state.launches == launches


@on_device
def test_a_grid_that_was_cut_gives_no_costs() -> None:
    engine = fused(problem(50, 40), plan(TILES, True, 50, 40))
    engine.objective.plan = dataclasses.replace(engine.objective.plan, blocks=engine.objective.plan.blocks - 1)
    assert np.isnan(engine.run(2)).all()


@on_device
def test_two_engines_at_once() -> None:
    small, large = problem(5, 4), problem(50, 40)
    engines = [fused(arrays, None) for arrays in (large, small)]
    for engine, arrays in zip(engines, (large, small), strict=True):
        assert engine.run(3).tolist() == descent(Reference, *arrays).run(3).tolist()


def test_too_many_models() -> None:
    with pytest.raises(InputError, match="models are too many"):
        cuda.plan_for(100, 100, 5000, 132, 50_000)


# ---- the arithmetic


def digits_of(v: np.ndarray) -> list[np.ndarray]:
    """The kernel's eight signed digits of whole numbers v, lowest first."""
    bias = np.uint64(0x80808080808080)
    cut = (v.astype(np.uint64) + bias) ^ bias
    return [((cut >> np.uint64(8 * k)) & np.uint64(255)).astype(np.uint8).view(np.int8) for k in range(8)]


def test_digits() -> None:
    edges = [
        0,
        1,
        -1,
        127,
        128,
        129,
        -127,
        -128,
        -129,
        2**55,
        -(2**55),
        2**55 - 1,
        0x7F7F7F7F7F7F,
        0x80808080808080 >> 4,
    ]
    v = np.array([*edges, *np.random.RandomState(0).randint(-(2**55), 2**55, 10_000)], dtype=np.int64)
    total = sum(digit.astype(np.int64) << (8 * k) for k, digit in enumerate(digits_of(v)))
    assert np.array_equal(total, v)
    assert np.abs(digits_of(v)[7]).max() <= 1


@pytest.mark.parametrize("n", [1, 5, 1900, 2**18, 2**18 + 1, 2**19 + 3])
@pytest.mark.parametrize("kind", ["random", "all at the bound", "alternating"])
def test_the_digits_sums_are_the_exact_sums(n: int, kind: str) -> None:
    """A model in NumPy of what the kernels do, against `products`, by ==."""
    rng = np.random.RandomState(n)
    pixels = rng.randint(0, 256, n) if kind == "random" else np.full(n, 255)
    v = rng.uniform(-1, 1, n) if kind == "random" else np.full(n, 1.0)
    if kind == "alternating":
        v[::2] = -1.0 + 2.0**-53
    bits = exact.weight_bits(n)
    pieces = np.array(exact.split(v, 0, min(n, products.BLOCK_TERMS), exact.PIXEL_BITS, bits))
    blocks = [
        pieces[:, i : i + products.BLOCK_TERMS] @ pixels[i : i + products.BLOCK_TERMS].astype(np.float64)
        for i in range(0, n, products.BLOCK_TERMS)
    ]
    whole: Any = sum(products.whole_sums(*block, 0, bits) for block in blocks)
    wanted = float(blocks[0].sum() if len(blocks) == 1 else products.round_whole(whole, 0, bits)[0])
    low = high = 0
    for start in range(0, n, 65_536):  # as many terms as 32 bits hold
        part = slice(start, start + 65_536)
        sums = [int((pixels[part] * digit).sum()) for digit in digits_of(np.rint(v[part] * 2.0**bits).astype(np.int64))]
        assert all(abs(total) < 2**31 for total in sums)
        low += sums[0] + (sums[1] << 8) + (sums[2] << 16)
        high += sums[3] + (sums[4] << 8) + (sums[5] << 16) + (sums[6] << 24) + (sums[7] << 32)
    assert abs(low) < 2**63
    assert abs(high) < 2**63
    assert emulated.library(cuda.source()).total(low, high) * 2.0**-bits == wanted


def test_totals_are_rounded_once() -> None:
    total = emulated.library(cuda.source()).total
    rng = np.random.RandomState(0)
    for bits in (3, 20, 40, 57):
        for high_bits in (1, 10, 30, 50, 62):
            for _ in range(50):
                low = int(rng.randint(-(2**bits), 2**bits, dtype=np.int64))
                high = int(rng.randint(-(2**high_bits), 2**high_bits, dtype=np.int64))
                assert total(low, high) == float(low + (high << 24))  # Python rounds whole numbers correctly
    # The most that 2^26 samples can sum up to.
    most = 255 * 2**26 * 2**53
    for value in (most, -most, most - 1):
        assert total(value & (2**24 - 1), value >> 24) == float(value)


@pytest.mark.parametrize("m", [1, 2, 3, 1900, 2**24, 2**24 + 1, 2**25 + 1, exact.MAX_TERMS])
def test_the_grids_of_losses_are_the_references(m: int) -> None:
    exponent_of_piece = emulated.library(cuda.source()).loss_exponent
    length, most = exact.bits_per_piece(m, 0), exact.loss_bits(m)
    grids = [exact.LOSS_ABOVE - min(k * length, most) for k in (1, 2, 3)]
    assert [exponent_of_piece(emulated.ctypes.c_longlong(m), k) for k in range(3)] == grids


def test_elementary_functions_have_the_references_bits() -> None:
    rng = np.random.RandomState(0)
    v = np.concatenate([rng.uniform(-800, 800, 20_000), rng.normal(size=20_000), 10.0 ** rng.uniform(-300, 3, 20_000)])
    v = np.concatenate([v, [0.0, -0.0, 708.0, 709.0, np.inf, np.log(2), 1e-320]])
    exp, log = np.empty_like(v), np.empty_like(v)
    emulated.library(cuda.source()).elementary(
        *[array.ctypes.data_as(emulated.POINTER) for array in (v, exp, log)], len(v)
    )
    expected_exp = elementary.exp_negative(-np.abs(v))
    assert np.array_equal(exp, expected_exp)
    assert np.array_equal(log, elementary.log1p_unit(expected_exp))


@on_device
def test_another_solver_evaluates_by_it() -> None:
    """L-BFGS asks for cost and gradient anywhere, and does the rest by the array module."""
    rows, sign, w, b, rates = problem(40, 50, 2)
    options = DescentOptions(solver="lbfgs", gradient_tolerance=0.0)
    expected = LBFGS(Reference(rows, sign), w, b, rates, options)
    on_gpu = [strict.array(array) for array in (rows, sign, w, b, rates)]
    obtained = LBFGS(cuda.FusedCUDA(*on_gpu[:2]), *on_gpu[2:], options)
    obtained.objective.prepare()
    assert obtained.run(12).tolist() == expected.run(12).tolist()
    assert np.array_equal(obtained.w.get(), expected.w)
