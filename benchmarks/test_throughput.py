"""Throughput of `propagate` and `optimize` with pytest-benchmark; every answer is checked before its time is taken.

    python -m pytest benchmarks --benchmark-json=throughput.json

Each result's `extra_info` holds samples and iterations a second, GB of pixels a second, digest and machine.
"""

import os
from functools import cache
from typing import Any

import numpy as np
import pytest

from xlogreg.arrays import choose_device, to_host
from xlogreg.benchmarking.contestants import by_name, xlogreg
from xlogreg.benchmarking.problems import RATE, Problem, load
from xlogreg.errors import DeviceError
from xlogreg.logistic import propagate
from xlogreg.proof import tutorial
from xlogreg.solvers.descent import history_sha256
from xlogreg.system.machine import processor_name

pool = pytest.importorskip("xlogreg.kernels.pool")

# (pictures, features, iterations); sizes that fill no block and no vector among them.
SHAPES = [
    (1900, 3072, 200),
    (10_000, 3072, 40),
    (50_000, 3072, 10),
    (1237, 1001, 200),
    (200_003, 7, 20),
    (5, 3072, 500),
]
IDS = [f"{m}x{d}" for m, d, _ in SHAPES]


@cache
def problem(pictures: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """x (m, d) uint8 and y (m,); the tutorial's own pictures where the size is its own."""
    if features == 3072 and pictures in (1900, 10_000, 50_000):
        return load(Problem(pictures, 1, ""))
    rng = np.random.RandomState(pictures)
    y = rng.randint(0, 2, pictures)
    return rng.randint(0, 200, (pictures, features), dtype=np.uint8) + (y[:, None] * 40).astype(np.uint8), y


@cache
def expected(pictures: int, features: int, iterations: int) -> tuple[float, str]:
    """Last cost and digest by the reference; the tutorial's must be the golden ones."""
    history = xlogreg("reference")(*problem(pictures, features), RATE)(iterations)
    if (pictures, features) == (1900, 3072):
        assert history_sha256(history[:100]) == tutorial.GOLDEN_SHA256_100
    return history[-1], history_sha256(history)


def note(benchmark: Any, shape: tuple[int, int, int], iterations: int, digest: str, device: str) -> None:
    pictures, features, _ = shape
    seconds = benchmark.stats.stats.median / iterations
    benchmark.extra_info.update(
        samples_per_second=pictures / seconds,
        iterations_per_second=1 / seconds,
        pixel_gb_per_second=pictures * features / seconds / 1e9,
        digest=digest,
        machine=device,
    )


def gpu() -> Any:
    try:
        return choose_device("gpu")
    except DeviceError as error:
        if os.environ.get("XLOGREG_NEED_GPU"):
            raise
        pytest.skip(str(error))


# Implementation, device, and number of threads, 0 for all.
EXACT = {
    "fused, all threads": ("fused", "cpu", 0),
    "fused, 1 thread": ("fused", "cpu", 1),
    "reference": ("reference", "cpu", 0),
    "reference on CuPy": ("reference", "gpu", 0),
    "fused on CuPy": ("fused", "gpu", 0),
}
NAMES = [pytest.param(name, marks=pytest.mark.gpu) if "CuPy" in name else name for name in EXACT]


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@pytest.mark.parametrize("name", NAMES)
def test_optimize(benchmark: Any, name: str, shape: tuple[int, int, int]) -> None:
    pictures, features, iterations = shape
    implementation, kind, threads = EXACT[name]
    device = str(gpu()) if kind == "gpu" else processor_name()
    try:
        pool.allow(threads)
        run = xlogreg(implementation, device=kind)(*problem(pictures, features), RATE)
        digest = history_sha256(run(iterations))
        assert digest == expected(*shape)[1]
        benchmark.pedantic(run, args=(iterations,), rounds=5, warmup_rounds=1)
    finally:
        pool.allow(0)
    note(benchmark, shape, iterations, digest, device)


@pytest.mark.parametrize("shape", SHAPES[:3], ids=IDS[:3])
@pytest.mark.parametrize("name", ["tutorial's loop (NumPy float64)", "NumPy float32"])
def test_optimize_of_peers(benchmark: Any, name: str, shape: tuple[int, int, int]) -> None:
    pictures, features, iterations = shape
    peer = by_name(name)
    run = peer.setup(*problem(pictures, features), RATE)
    assert abs(run(iterations)[-1] - expected(*shape)[0]) <= peer.tolerance
    benchmark.pedantic(run, args=(iterations,), rounds=5, warmup_rounds=1)
    note(benchmark, shape, iterations, "", processor_name())


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@pytest.mark.parametrize("kind", ["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def test_propagate(benchmark: Any, kind: str, shape: tuple[int, int, int]) -> None:
    pictures, features, _ = shape
    rows, labels = problem(pictures, features)
    x, y = rows.T, labels.reshape(1, -1)
    w = np.random.RandomState(0).normal(0, 0.01, (features, 1))
    grad, cost = propagate(w, 0.1, x, y)
    device = gpu() if kind == "cupy" else choose_device("cpu")
    arrays = [device.to_device(array) for array in (w, x, y)]

    def work() -> tuple[dict[str, Any], Any]:
        result = propagate(arrays[0], 0.1, arrays[1], arrays[2])
        device.synchronise()
        return result

    obtained, same_cost = work()
    assert float(same_cost) == cost
    assert np.array_equal(to_host(obtained["dw"]), grad["dw"])
    benchmark.pedantic(work, rounds=7, warmup_rounds=1)
    note(benchmark, shape, 1, "", str(device))
