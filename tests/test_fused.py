"""The fused CPU kernel against the reference, by ==, for every size, layout and number of threads."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlogreg import kernels
from xlogreg.errors import DivergenceError, InputError
from xlogreg.logistic import descend_many, optimize
from xlogreg.reference import Reference

numba = pytest.importorskip("numba")
cpu = pytest.importorskip("xlogreg.kernels.cpu")


def engines(m: int, d: int, models: int = 1, seed: int = 0, scale: float = 0.0, rate: float = 0.05) -> tuple:
    """The reference and the fused kernel at the same start."""
    rng = np.random.RandomState(seed)
    rows = rng.randint(0, 256, (m, d)).astype(np.uint8)
    rows[: m // 2] //= 2
    sign = np.where(rng.uniform(size=(models, m)) < 0.5, 1.0, -1.0)
    w, b = rng.normal(0, 1, (models, d)) * scale, rng.normal(0, 1, models) * scale
    rates = np.array([rate / 10**i for i in range(models)])
    return tuple(kind(rows, sign, w.copy(), b.copy(), rates) for kind in (Reference, cpu.FusedCPU))


def assert_equal(reference: Reference, fused: "cpu.FusedCPU", iterations: int = 4) -> None:
    expected, obtained = reference.run(iterations), fused.run(iterations)
    assert np.array_equal(obtained, expected, equal_nan=True)
    assert np.isfinite(expected).all()
    assert np.array_equal(fused.w, reference.w)
    assert np.array_equal(fused.b, reference.b)
    assert np.array_equal(fused.gradient.dw, reference.gradient.dw)
    assert np.array_equal(fused.gradient.db, reference.gradient.db)


@pytest.mark.parametrize("m", [*range(1, 12), 31, 64, 65, 127, 130, 200])
@pytest.mark.parametrize("d", [1, 3, 31, 32, 33, 63, 64, 65, 130, 300])
def test_sizes_that_fill_no_block(m: int, d: int) -> None:
    assert_equal(*engines(m, d, seed=m * 1000 + d, scale=0.1))


@settings(max_examples=60)
@given(
    st.integers(1, 700), st.integers(1, 700), st.integers(1, 5), st.integers(0, 10**6), st.floats(0, 3),
    st.sampled_from([1e-9, 0.01, 1.0, 30.0]),
)  # fmt: skip
def test_any_problem(m: int, d: int, models: int, seed: int, scale: float, rate: float) -> None:
    assert_equal(*engines(m, d, models, seed, scale, rate), iterations=3)


@pytest.mark.parametrize(("m", "d"), [(2**18 + 77, 5), (5, 2**18 + 77), (700, 9000), (2, 40_000)])
def test_long_sums(m: int, d: int) -> None:
    # More terms than one block of the reference's, and more than 32-bit sums of the kernel could take.
    assert_equal(*engines(m, d, scale=1 / np.sqrt(d)), iterations=2)


def test_the_largest_sums() -> None:
    # Every pixel 255, every weight and residual at its bound: nothing may overflow.
    for m, d in ((600, 20_000), (1500, 300)):
        rows = np.full((m, d), 255, dtype=np.uint8)
        sign = np.ones((1, m))
        w = np.full((1, d), np.nextafter(1.0, 0)) * 2.0**-3
        pair = [kind(rows, sign, w.copy(), np.zeros(1), np.array([1e-3])) for kind in (Reference, cpu.FusedCPU)]
        assert_equal(*pair, iterations=2)
        negative = [kind(rows, -sign, -w, np.zeros(1), np.array([1e-3])) for kind in (Reference, cpu.FusedCPU)]
        assert_equal(*negative, iterations=2)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads(threads: int) -> None:
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip(f"Numba has {numba.config.NUMBA_NUM_THREADS} threads on this machine")
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        assert_equal(*engines(1003, 517, models=3, scale=0.05))
    finally:
        numba.set_num_threads(before)


def test_blocks_change_no_bit() -> None:
    histories = []
    for block in (2, 4, 6, 64, 512):
        _, fused = engines(333, 200, scale=0.1)
        fused._block = block
        histories.append(fused.run(5).tolist())
    assert all(history == histories[0] for history in histories)


def test_calls_of_any_length_are_one_run() -> None:
    _, whole = engines(100, 50)
    _, parts = engines(100, 50)
    costs = np.concatenate([parts.run(n) for n in (1, 5, 2, 12)])
    assert np.array_equal(costs, whole.run(20))
    assert np.array_equal(parts.w, whole.w)


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


def test_no_float_copy_and_no_change_of_the_pixels() -> None:
    rows = np.random.RandomState(0).randint(0, 256, (100, 64)).astype(np.uint8)
    before = rows.copy()
    engine = kernels.engine_for("fused", rows, np.ones((1, 100)), np.zeros((1, 64)), np.zeros(1), np.array([0.1]))
    engine.run(3)
    assert engine.rows.dtype == np.uint8  # type: ignore[attr-defined]
    assert np.array_equal(rows, before)


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


def test_an_old_kernel_is_never_used(tmp_path: Path) -> None:
    """What is kept was compiled from these sources: the name of the kernel's variant holds their digest."""
    assert cpu._run.py_func.__closure__[0].cell_contents == cpu._sources()
    before = cpu._sources()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "MULTIPLY", "another instruction")
        assert cpu._sources() != before


NARROW = """
import sys
import numpy as np
from xlogreg.kernels import vector
if sys.argv[1] == "portable":
    vector.MULTIPLY = ""
from xlogreg.kernels import cpu
from xlogreg.reference import Reference
rng = np.random.RandomState(0)
for m, d, models in ((70, 333, 1), (41, 5000, 3), (3, 17, 2)):
    rows = rng.randint(0, 256, (m, d)).astype(np.uint8)
    sign = np.where(rng.uniform(size=(models, m)) < 0.5, 1.0, -1.0)
    start = lambda: (rows, sign, np.full((models, d), 0.01), np.zeros(models), np.full(models, 0.01))
    reference, fused = Reference(*start()), cpu.FusedCPU(*start())
    assert np.array_equal(fused.run(3), reference.run(3)) and np.array_equal(fused.w, reference.w)
print(vector.WIDTH, vector.MULTIPLY)
"""


@pytest.mark.parametrize(
    ("processor", "features", "width"),
    [("haswell", "+avx2", "32"), ("x86-64", "+sse2", "16"), ("portable", "+sse2", "16")],
)
def test_narrower_processors(tmp_path: Path, processor: str, features: str, width: str) -> None:
    """What the kernel compiles to for AVX2 and SSE2 machines, and without any x86 instruction, has the same bits."""
    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[1]),
        "NUMBA_CPU_NAME": "x86-64" if processor == "portable" else processor,
        "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "1",
    }  # fmt: skip
    import llvmlite.binding as llvm

    if not llvm.get_default_triple().startswith("x86_64") and processor != "portable":
        pytest.skip("this machine's processor is no x86-64")
    done = subprocess.run(
        [sys.executable, "-c", NARROW, processor], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == width
