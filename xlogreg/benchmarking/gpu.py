"""Who takes part on a GPU, and what the GPU can do at best. Nothing here has a meaning without one.

Data are on the device before the time is taken, and `run` returns when the device has finished: each contestant's last
cost is copied to the host.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .contestants import FLOAT32, FLOAT64, Contestant, Run, Setup, jax_scan
from .problems import SIZES as SIZES_OF_THE_CPU
from .problems import Problem

OURS = "xlogreg fused (GPU)"
FOUR_RATES = "xlogreg fused (GPU), 4 learning rates together"

# More iterations than on a CPU: a few would show how long it takes to start them, which the peers' steady ones are too
# slow for at the larger sizes. The digests are the CPU kernel's
# (`python -m xlogreg.benchmarking.gpu`), whose first iterations have the reference's bits by the digests of `problems`.
ITERATIONS = 2000
_DIGESTS = {
    10_000: "9cee30f0b18123ebe7b936fba82be99e27135a6e94f291d5f9226530ac413df0",
    50_000: "55b0829802ce90b97af1706b719b518bde3558dd2c3622ab8fc493280315cd81",
}
SIZES = tuple(
    Problem(problem.pictures, ITERATIONS, problem.origin, _DIGESTS[problem.pictures], 200)
    if problem.pictures in _DIGESTS
    else replace(problem, steady_iterations=0)
    for problem in SIZES_OF_THE_CPU
)


def xlogreg_on_gpu(implementation: str, rates: int = 1) -> Setup:
    """This package on CuPy arrays, from zeros, every cost recorded; an iteration is one of all rates."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        from ..arrays import choose_device
        from ..logistic import descend_many

        device = choose_device("gpu")
        columns, labels = device.to_device(x).T, device.to_device(y.reshape(1, -1))

        def run(iterations: int) -> list[float]:
            several = [rate / 2**i for i in range(rates)]
            result = descend_many(columns, labels, several, iterations, implementation=implementation)
            device.synchronise()
            return result.history[:, 0].tolist()

        return run

    return setup


def tutorial_on_cupy(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
    """The tutorial's own loop, float64, samples as columns, with CuPy for NumPy and nothing else changed."""
    from ..arrays import choose_device

    device = choose_device("gpu")
    xp = device.xp
    features = xp.ascontiguousarray((device.to_device(x) / 255).T)
    labels = device.to_device(y.reshape(1, -1)).astype(xp.float64)
    m = len(x)

    def run(iterations: int) -> list[float]:
        w, b, costs = xp.zeros((features.shape[0], 1)), 0.0, []
        for i in range(iterations):
            a = 1 / (1 + xp.exp(-(xp.dot(w.T, features) + b)))
            cost = (-1 / m) * xp.sum(labels * xp.log(a) + (1 - labels) * xp.log(1 - a))
            dw = (1 / m) * xp.dot(features, (a - labels).T)
            db = (1 / m) * xp.sum(a - labels)
            w = w - rate * dw
            b = b - rate * db
            if i % 100 == 0 or i == iterations - 1:
                costs.append(float(cost))
        return costs

    return run


def jax_on_gpu(dtype: str) -> Setup:
    """JAX: one jitted `lax.scan` over all iterations; float32 products in float32, as the others have them."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        import jax

        if jax.default_backend() != "gpu":
            raise RuntimeError(f"JAX runs on the {jax.default_backend()} here")
        jax.config.update("jax_default_matmul_precision", "highest")
        return jax_scan(dtype)(x, y, rate)

    return setup


def _torch_data(x: np.ndarray, y: np.ndarray, dtype: str) -> tuple[Any, Any]:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch sees no GPU here")
    kind = getattr(torch, dtype)
    return torch.from_numpy(x).cuda().to(kind) / 255, torch.from_numpy(y).cuda().to(kind)


def torch_eager(dtype: str) -> Setup:
    """PyTorch as people write it: nn.Linear, BCEWithLogitsLoss, SGD."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        import torch

        features, labels = _torch_data(x, y, dtype)
        labels = labels.reshape(-1, 1)

        def run(iterations: int) -> list[float]:
            neuron = torch.nn.Linear(features.shape[1], 1, dtype=features.dtype, device="cuda")
            torch.nn.init.zeros_(neuron.weight)
            torch.nn.init.zeros_(neuron.bias)
            optimiser = torch.optim.SGD(neuron.parameters(), lr=rate)
            criterion = torch.nn.BCEWithLogitsLoss()
            costs = []
            for i in range(iterations):
                optimiser.zero_grad()
                loss = criterion(neuron(features), labels)
                loss.backward()
                optimiser.step()
                if i % 100 == 0 or i == iterations - 1:
                    costs.append(loss.item())
            return costs

        return run

    return setup


def torch_graph(dtype: str) -> Setup:
    """PyTorch's quickest: the formulas by hand, one iteration captured in a CUDA graph and replayed."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        import torch

        features, labels = _torch_data(x, y, dtype)
        m = len(x)
        w = torch.zeros(features.shape[1], dtype=features.dtype, device="cuda")
        b, cost = torch.zeros((), dtype=features.dtype, device="cuda"), torch.zeros((), device="cuda").to(features)

        @torch.no_grad()
        def step() -> None:
            z = features @ w + b
            residual = torch.sigmoid(z) - labels
            cost.copy_((torch.nn.functional.softplus(z) - labels * z).mean())
            w.sub_(residual @ features, alpha=rate / m)
            b.sub_(residual.sum(), alpha=rate / m)

        # Libraries set themselves up outside of the capture.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()

        def run(iterations: int) -> list[float]:
            w.zero_()
            b.zero_()
            for _ in range(iterations):
                graph.replay()
            return [cost.item()]

        return run

    return setup


CONTESTANTS = (
    Contestant(OURS, xlogreg_on_gpu("fused"), "cupy", 1.0, True, 0.0, device="gpu", whole=True),
    Contestant(FOUR_RATES, xlogreg_on_gpu("fused", 4), "cupy", 1.0, True, 0.0, device="gpu", whole=True),
    Contestant("xlogreg reference (CuPy)", xlogreg_on_gpu("reference"), "cupy", 1.0, True, 0.0, device="gpu"),
    Contestant("tutorial's loop (CuPy float64)", tutorial_on_cupy, "cupy", 8.0, False, FLOAT64, device="gpu"),
    Contestant("JAX jit + scan float32 (GPU)", jax_on_gpu("float32"), "jax", 4.0, False, FLOAT32, device="gpu"),
    Contestant("JAX jit + scan float64 (GPU)", jax_on_gpu("float64"), "jax", 8.0, False, FLOAT64, device="gpu"),
    Contestant("PyTorch nn.Linear + SGD float32 (GPU)", torch_eager("float32"), "torch", 4.0, False, FLOAT32,
               device="gpu"),
    Contestant("PyTorch CUDA graph by hand float32", torch_graph("float32"), "torch", 4.0, False, FLOAT32,
               device="gpu"),
    Contestant("PyTorch CUDA graph by hand float64", torch_graph("float64"), "torch", 8.0, False, FLOAT64,
               device="gpu"),
)  # fmt: skip


@dataclass(frozen=True)
class GpuLimits:
    """name : of the GPU; copy : GB/s read and written by a copy on the device; barriers : seconds for two grid
    barriers, the least that an iteration needs, in a kernel that does nothing else; software : driver and CUDA."""

    name: str
    copy: float
    barriers: float
    processors: int
    software: str = ""

    names = ("one read of the pixels at copy bandwidth", "two grid barriers")

    def as_json(self) -> dict[str, float]:
        """For the saved results."""
        return {"copy_gb_s": self.copy, "barriers_us": self.barriers * 1e6, "multiprocessors": self.processors}

    def bounds(self, pictures: int, features: int) -> tuple[float, float]:
        """Seconds an iteration at best: one read of the pixels, and two grid barriers."""
        return pictures * features / (self.copy * 1e9), self.barriers


def measure_gpu(rounds: int = 7) -> GpuLimits:
    """Medians of so many rounds, after one that is not counted."""
    from ..arrays import choose_device
    from ..kernels import cuda

    device = choose_device("gpu")
    xp = device.xp
    copy = _copy(device, rounds)
    # The contestants, in processes of their own, need the memory.
    xp.get_default_memory_pool().free_all_blocks()
    limits = cuda.device_limits(xp)
    kernel = xp.RawModule(code=cuda.source(), options=cuda.OPTIONS).get_function("only_barriers")
    counter, count = xp.zeros(1, dtype=xp.uint32), 4000

    def barriers() -> None:
        counter.fill(0)
        kernel.kernel(
            (limits.processors,), (cuda.TILES_THREADS,), (counter, np.int32(count)), enable_cooperative_groups=True
        )

    latency = _median(barriers, device.synchronise, rounds) / count
    runtime = xp.cuda.runtime
    software = f"driver for CUDA {_cuda(runtime.driverGetVersion())}, CUDA {_cuda(runtime.runtimeGetVersion())}"
    return GpuLimits(device.name, copy, 2 * latency, limits.processors, software)


def _copy(device: Any, rounds: int) -> float:
    """GB/s read and written by a copy on the device."""
    xp = device.xp
    size = min(2**32, int(xp.cuda.Device().mem_info[0]) // 4) // 8
    source, target = xp.ones(size, dtype=xp.uint64), xp.empty(size, dtype=xp.uint64)
    seconds = _median(lambda: xp.copyto(target, source), device.synchronise, rounds)
    return 2 * 8 * size / seconds / 1e9


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def free_memory() -> float:
    """Bytes of the GPU that can be had."""
    from ..arrays import choose_device

    return float(choose_device("gpu").xp.cuda.Device().mem_info[0])


def _median(work: Callable[[], object], synchronise: Callable[[], None], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        synchronise()
        start = time.perf_counter()
        work()
        synchronise()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def _digest(problem: Problem) -> str:
    """By the fused CPU kernel."""
    from ..logistic import optimize
    from ..solvers.descent import history_sha256
    from .problems import RATE, load

    x, y = load(problem)
    w = np.zeros((x.shape[1], 1))
    return history_sha256(optimize(w, 0.0, x.T, y.reshape(1, -1), problem.iterations, RATE, record_every=1)[2])


if __name__ == "__main__":
    for problem in SIZES:
        if problem.pictures in _DIGESTS:
            print(problem.pictures, problem.iterations, _digest(problem), flush=True)
