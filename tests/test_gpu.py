"""On a real GPU (`pytest -m gpu`): every implementation gives the golden digests and the CPU's bits."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import descent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cuda import MODES, ONE_READ, TILES, plan, problem, separable

from xlogreg import kernels
from xlogreg.arrays import Device, choose_device, in_host_memory, to_host
from xlogreg.benchmarking.problems import RATE, SIZES, Problem, load
from xlogreg.data.birds import load_birds
from xlogreg.data.task import as_columns, make_task, make_tasks
from xlogreg.kernels import cuda
from xlogreg.logistic import (
    accuracy,
    descend_many,
    forward,
    initialize_with_zeros,
    model,
    optimize,
    predict,
    propagate,
    sigmoid,
)
from xlogreg.neuron.reference import Reference
from xlogreg.proof import tutorial
from xlogreg.proof.doctor import examine
from xlogreg.runs.training import train_together
from xlogreg.solvers.descent import history_sha256

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def birds() -> tuple[np.ndarray, np.ndarray]:
    task = make_task(load_birds(), "bird")
    return as_columns(task.x_train, task.y_train)


def on(gpu: Device, *arrays: np.ndarray) -> list[Any]:
    return [gpu.to_device(array) for array in arrays]


def assert_equal(gpu: Device, arrays: tuple, chosen: cuda.Plan | None, iterations: int = 4) -> None:
    rows, sign, w, b, rates = arrays
    reference = descent(Reference, rows, sign, w.copy(), b.copy(), rates)
    engine = descent(cuda.FusedCUDA, *on(gpu, rows, sign, w, b, rates), plan=chosen)
    engine.objective.prepare()
    assert engine.run(iterations).tolist() == reference.run(iterations).tolist()
    assert engine.gradient is not None
    assert reference.gradient is not None
    assert np.array_equal(engine.w.get(), reference.w)
    assert np.array_equal(engine.b.get(), reference.b)
    assert np.array_equal(engine.gradient.dw.get(), reference.gradient.dw)
    assert np.array_equal(engine.gradient.db.get(), reference.gradient.db)


def test_the_fused_kernels_run_here(gpu: Device) -> None:
    assert kernels.why_no_fused(gpu.xp) == ""
    assert kernels.available("gpu", gpu.xp) == ["reference", "fused"]


@pytest.mark.parametrize("implementation", ["reference", "fused"])
def test_golden(gpu: Device, birds: tuple, implementation: str) -> None:
    x, y = on(gpu, *birds)
    result = descend_many(x, y, [tutorial.LEARNING_RATE], 100, implementation=implementation)
    assert result.implementation == implementation
    assert history_sha256(result.history[:, 0]) == tutorial.GOLDEN_SHA256_100


def test_golden_of_the_whole_run_twice(gpu: Device, birds: tuple) -> None:
    x, y = on(gpu, *birds)
    for _ in range(2):
        result = descend_many(x, y, [tutorial.LEARNING_RATE], tutorial.ITERATIONS, implementation="fused")
        assert history_sha256(result.history[:, 0]) == tutorial.GOLDEN_SHA256


@pytest.mark.parametrize("measured", [problem for problem in SIZES if problem.pictures in (10_000, 50_000)])
def test_golden_of_the_measured_problems(gpu: Device, measured: Problem) -> None:
    x, y = load(measured)
    columns, labels = on(gpu, x, y.reshape(1, -1))
    result = descend_many(columns.T, labels, [RATE], measured.iterations, implementation="fused")
    assert history_sha256(result.history[:, 0]) == measured.digest


def test_a_sweep_of_classes_has_the_digests_of_the_cpu(gpu: Device) -> None:
    tasks, rates = make_tasks(load_birds(), ["bird", "frog", "ship"]), [0.005, 0.01, 0.001]
    on_the_cpu = train_together(tasks, rates, 50, device=choose_device("cpu"))
    for together, one in zip(train_together(tasks, rates, 50, device=gpu), on_the_cpu, strict=True):
        assert together.history_sha256 == one.history_sha256


@pytest.mark.parametrize("implementation", ["reference", "fused"])
def test_four_rates_together(gpu: Device, birds: tuple, implementation: str) -> None:
    rates = list(tutorial.LEARNING_RATES)
    wanted = descend_many(*birds, rates, 50)
    result = descend_many(*on(gpu, *birds), rates, 50, implementation=implementation)
    assert np.array_equal(result.history, wanted.history)
    assert np.array_equal(to_host(result.w), wanted.w)
    if implementation == "fused":
        whole = descend_many(*on(gpu, *birds), rates, tutorial.ITERATIONS, implementation="fused").history
        assert history_sha256(whole[:, rates.index(tutorial.LEARNING_RATE)]) == tutorial.GOLDEN_SHA256


@pytest.mark.parametrize(("kernel", "resident"), MODES)
@pytest.mark.parametrize(("m", "d"), [(1, 1), (2, 3), (3, 17), (5, 200), (64, 64), (65, 33), (131, 48), (300, 7)])
def test_every_kernel(gpu: Device, kernel: str, resident: bool, m: int, d: int) -> None:
    limits = cuda.device_limits(gpu.xp)
    for threads in (64, 256, 512):
        chosen = plan(kernel, resident, m, d, threads=threads, tensor=limits.tensor)
        assert chosen.shared <= limits.shared
        assert_equal(gpu, problem(m, d, seed=m), chosen)


@pytest.mark.parametrize(("kernel", "resident"), MODES)
def test_residuals_that_get_smaller_and_smaller(gpu: Device, kernel: str, resident: bool) -> None:
    # Turns that are done again, on other grids; and z that is out of range, where there is none.
    models = 1 if kernel == ONE_READ else 2
    rows, sign, w, b, rates = arrays = separable(300, 200, models)
    chosen = plan(kernel, resident, 300, 200, models, threads=256, tensor=cuda.device_limits(gpu.xp).tensor)
    assert_equal(gpu, arrays, chosen, iterations=60)
    for bias in (-40.0, -690.0):
        assert_equal(gpu, (rows, abs(sign), w, b + bias, rates), chosen)
    far = descent(cuda.FusedCUDA, *on(gpu, rows, sign, w, b + 2e6, rates), plan=chosen)
    far.prepare()
    assert np.isnan(far.run(1)).all()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 4), st.integers(0, 10**6), st.floats(0, 3),
    st.sampled_from([1e-9, 0.01, 1.0, 30.0]),
)  # fmt: skip
def test_any_problem(gpu: Device, m: int, d: int, models: int, seed: int, scale: float, rate: float) -> None:
    m = min(m, 2**20 // d)
    assert_equal(gpu, problem(max(1, m), d, models, seed, scale / np.sqrt(d), rate), None, iterations=3)


@pytest.mark.parametrize(
    ("m", "d", "models"), [(20_000, 3072, 1), (20_000, 3072, 3), (2**18 + 77, 5, 1), (3, 2**20 + 5, 1)]
)
def test_large(gpu: Device, m: int, d: int, models: int) -> None:
    assert_equal(gpu, problem(m, d, models, scale=1 / np.sqrt(d)), None, iterations=2)


def test_more_bytes_than_32_bits_count(gpu: Device) -> None:
    m, d = 800_000, 6144  # 4.9 GB
    if gpu.xp.cuda.Device().mem_info[0] < 12e9:
        pytest.skip("less than 12 GB of free GPU memory")
    rng = np.random.RandomState(0)
    few = rng.randint(0, 256, (1000, d)).astype(np.uint8)
    sign, w = np.where(rng.uniform(size=(1, 1000)) < 0.5, 1.0, -1.0), rng.normal(size=(1, d)) / 1000
    b, rates = np.zeros(1), np.array([0.01])
    rows = gpu.xp.tile(gpu.to_device(few), (m // 1000, 1))
    many = descent(cuda.FusedCUDA, rows, gpu.xp.tile(gpu.to_device(sign), (1, m // 1000)), *on(gpu, w, b, rates))
    many.prepare()
    many.run(1)
    assert many.gradient is not None
    once = descent(Reference, few, sign, w.copy(), b, rates)
    once.run(1)
    assert once.gradient is not None
    # 800 copies of the samples have the mean of one, but for the rounding of a sum 800 times as large.
    np.testing.assert_allclose(many.gradient.dw.get(), once.gradient.dw, rtol=1e-15, atol=1e-18)


@pytest.mark.parametrize(("kernel", "models"), [(ONE_READ, 1), (ONE_READ, 2), (TILES, 1), (TILES, 3)])
@pytest.mark.parametrize("d", [3072, 333])
def test_pixels_in_the_hosts_memory(gpu: Device, kernel: str, models: int, d: int) -> None:
    """As when they do not fit into the GPU's. No plan keeps them in shared memory, as it would so few of them."""
    m = 3000
    rows, sign, w, b, rates = problem(m, d, models, scale=0.01)
    reference = descent(Reference, rows, sign, w.copy(), b.copy(), rates)
    expected = reference.run(3).tolist()
    far = gpu.to_host_memory(rows)
    assert in_host_memory(far)
    engine = descent(cuda.FusedCUDA, far, *on(gpu, sign, w, b, rates), plan=forced(gpu, kernel, m, d, models))
    engine.objective.prepare()
    assert engine.run(3).tolist() == expected
    plain = descent(Reference, far, *on(gpu, sign, w, b, rates))
    assert plain.run(3).tolist() == expected


def forced(gpu: Device, kernel: str, m: int, d: int, models: int) -> cuda.Plan:
    """The plan for many more samples, which shared memory does not hold; to have tiles, for more models, too."""
    limits = cuda.device_limits(gpu.xp)
    chosen = cuda.plan_for(2**20, d, models if kernel == ONE_READ else max(3, models), limits.processors, limits.shared,
                           limits.tensor)  # fmt: skip
    assert (chosen.kernel, chosen.resident) == (kernel, False)
    tiles = -(-m // chosen.rows) * (1 if kernel == ONE_READ else -(-d // chosen.columns))
    return dataclasses.replace(chosen, blocks=min(chosen.blocks, tiles))


@pytest.mark.parametrize(("kernel", "models"), [(ONE_READ, 1), (ONE_READ, 2), (TILES, 1), (TILES, 3)])
@pytest.mark.parametrize("d", [3072, 3071, 100])
def test_plans_for_many_pictures(gpu: Device, kernel: str, models: int, d: int) -> None:
    assert_equal(gpu, problem(6000, d, models, scale=0.01), forced(gpu, kernel, 6000, d, models))


def test_large_arrays_arrive_in_chunks(gpu: Device) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (30_011, 3072)).astype(np.uint8)
    assert np.array_equal(gpu.to_device(pixels).get(), pixels)
    assert np.array_equal(gpu.to_device(pixels.T).get(), pixels.T)


def test_arrays_of_a_gpu_that_is_not_the_current_one(gpu: Device, birds: tuple) -> None:
    if gpu.xp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one GPU only")
    second = choose_device("gpu:1")
    result = descend_many(*[second.to_device(array) for array in birds], [tutorial.LEARNING_RATE], 100)
    assert history_sha256(result.history[:, 0]) == tutorial.GOLDEN_SHA256_100


def test_public_functions_stay_on_the_device(gpu: Device, birds: tuple) -> None:
    host_x, host_y = birds[0][:, :300], birds[1][:, :300]
    x, y = on(gpu, np.ascontiguousarray(host_x.T), host_y)
    x = x.T
    w = gpu.to_device(np.random.RandomState(0).normal(size=(3072, 1)) / 100)
    host_w = to_host(w)
    assert np.array_equal(to_host(sigmoid(w)), sigmoid(host_w))
    assert np.array_equal(to_host(forward(w, 0.1, x)), forward(host_w, 0.1, host_x))
    grad, cost = propagate(w, 0.1, x, y)
    host_grad, host_cost = propagate(host_w, 0.1, host_x, host_y)
    assert float(cost) == float(host_cost)
    assert np.array_equal(to_host(grad["dw"]), host_grad["dw"])
    assert np.array_equal(to_host(predict(w, 0.1, x)), predict(host_w, 0.1, host_x))
    params, _, costs = optimize(w, 0.1, x, y, 20, 0.01, record_every=1)
    host_params, _, host_costs = optimize(host_w, 0.1, host_x, host_y, 20, 0.01, record_every=1)
    assert costs == host_costs
    assert np.array_equal(to_host(params["w"]), host_params["w"])
    assert isinstance(params["w"], gpu.xp.ndarray)
    whole = model(x, y, x[:, :50], y[:, :50], 20, 0.01)
    host = model(host_x, host_y, host_x[:, :50], host_y[:, :50], 20, 0.01)
    assert whole["cost_history"] == host["cost_history"]
    assert np.array_equal(to_host(whole["y_prediction_test"]), host["y_prediction_test"])
    assert accuracy(predict(w, 0.1, x), y) == accuracy(predict(host_w, 0.1, host_x), host_y)
    assert initialize_with_zeros(3)[0].shape == (3, 1)


def test_float_features(gpu: Device) -> None:
    x = np.random.RandomState(0).normal(size=(30, 100))
    y = np.arange(100).reshape(1, -1) % 2
    result = descend_many(*on(gpu, x, y), [0.1], 20)
    np.testing.assert_allclose(result.history, descend_many(x, y, [0.1], 20).history, rtol=1e-12)


def test_the_doctor(gpu: Device) -> None:
    report = examine()
    assert report.healthy, report
    proved = {(proof.device, proof.implementation) for proof in report.proofs}
    assert {("gpu:0", "reference"), ("gpu:0", "fused")} <= proved


# Every kernel, with several tiles a block, two of them in turn in shared memory; and turns that are done again.
SMALL = """
from test_gpu import assert_equal, choose_device, cuda, MODES, plan, problem, separable
gpu = choose_device("gpu")
tensor = cuda.device_limits(gpu.xp).tensor
for kernel, resident in MODES:
    chosen = plan(kernel, resident, 130, 45, blocks=2, cut=5, tensor=tensor)
    assert_equal(gpu, problem(130, 45), chosen, 3)
    rows, sign, w, b, rates = separable(130, 45)
    assert_equal(gpu, (rows, abs(sign), w, b - 40.0, rates), chosen, 2)
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer(gpu: Device, tool: str) -> None:
    program = shutil.which("compute-sanitizer")
    if program is None:
        pytest.skip("compute-sanitizer is not installed")
    done = subprocess.run(
        [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SMALL], cwd=Path(__file__).parent,
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    if "not supported" in done.stdout or "Unable to" in done.stdout:
        pytest.skip(f"compute-sanitizer cannot look at this machine: {done.stdout[-200:]}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
