"""Who takes part: the same gradient descent as people write it in NumPy, JAX, PyTorch and xlogreg, on CPU and GPU.

A contestant is a function ``(x, y, rate) -> run`` where x (m, d) uint8 and y (m,) are the pictures and labels and
``run(iterations)`` trains from zeros and returns the costs as far as it has them (the last at least) as a list. What
the function does before it returns `run` (conversion to floats, moving to the device) is not timed; what `run` does is,
and it returns only when the work is done: on a GPU, when the last cost is on the host. Every peer gets its data in the
layout that serves it best.
"""

import functools
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import choose_device
from ..logistic import descend_many

Run = Callable[[int], list[float]]
Setup = Callable[[np.ndarray, np.ndarray, float], Run]


@dataclass(frozen=True)
class Contestant:
    """One way to train.

    name : as the table shows it
    setup : see the module
    needs : the package that must be installed, or ""
    bytes_per_pixel : memory it holds for each pixel, to know what fits
    tolerance : what its last cost may deviate; 0 if all its costs must have xlogreg's bits
    device : cpu or gpu
    threads : number of threads, 0 for all
    steady : whether all its iterations take the same time, so that a few of them show it
    own_solver : whether it is no gradient descent, and need only reach a cost that is as low
    """

    name: str
    setup: Setup
    needs: str
    bytes_per_pixel: int
    tolerance: float = 0.0
    device: str = "cpu"
    threads: int = 0
    steady: bool = True
    own_solver: bool = False

    @property
    def exact(self) -> bool:
        """Whether its costs must have xlogreg's bits."""
        return not self.tolerance and not self.own_solver

    @property
    def ours(self) -> bool:
        """Whether it needs nothing but what this package needs on its device."""
        return self.needs in ("", "numba", "cupy")

    @property
    def installed(self) -> bool:
        """Whether the package it needs is there."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


def xlogreg(implementation: str, rates: int = 1, device: str = "cpu") -> Setup:
    """This package from zeros, every cost recorded; an iteration is one of all rates, and the first one's costs."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        there = choose_device(device)
        columns, labels = there.to_device(x).T, there.to_device(y.reshape(1, -1))
        several = [rate / 2**i for i in range(rates)]

        def run(iterations: int) -> list[float]:
            result = descend_many(columns, labels, several, iterations, implementation=implementation)
            there.synchronise()
            return result.history[:, 0].tolist()

        return run

    return setup


def tutorial(device: str) -> Setup:
    """The tutorial's own loop: float64, samples as columns; on a GPU with CuPy for NumPy and nothing else changed."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        there = choose_device(device)
        xp = there.xp
        features, labels = (there.to_device(x) / 255).T, there.to_device(y.reshape(1, -1).astype(np.float64))
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
                if _kept(i, iterations):
                    costs.append(float(cost))
            return costs

        return run

    return setup


def _kept(i: int, iterations: int) -> bool:
    """Whether a peer notes the cost of this iteration, as the tutorial does."""
    return i % 100 == 0 or i == iterations - 1


def numpy_float32(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
    """The same formulas in float32, samples as rows."""
    features, labels = x.astype(np.float32) / np.float32(255), y.astype(np.float32)
    m, step = np.float32(len(x)), np.float32(rate)

    def run(iterations: int) -> list[float]:
        w, b, costs = np.zeros(features.shape[1], np.float32), np.float32(0), []
        for i in range(iterations):
            z = features @ w + b
            residual = 1 / (1 + np.exp(-z)) - labels
            if _kept(i, iterations):
                costs.append(float(np.mean(np.logaddexp(0, z) - labels * z)))
            w -= step * (residual @ features) / m
            b -= step * residual.sum() / m
        return costs

    return run


def jax_scan(dtype: str, device: str = "cpu") -> Setup:
    """JAX: one jitted `lax.scan` over all iterations; float32 products in float32, as the others have them."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        import jax
        import jax.numpy as jnp

        if jax.default_backend() != device:
            raise RuntimeError(f"JAX runs on the {jax.default_backend()} here")
        jax.config.update("jax_enable_x64", dtype == "float64")
        if device == "gpu":
            jax.config.update("jax_default_matmul_precision", "highest")
        features = jnp.asarray(x.astype(dtype) / np.asarray(255, dtype))
        labels = jnp.asarray(y.astype(dtype))
        m = len(x)

        # The data are arguments: as constants of the program they would be compiled into it, for a minute and with
        # several copies of them.
        @functools.partial(jax.jit, static_argnames="iterations")
        def descend(features: Any, labels: Any, iterations: int) -> Any:
            def step(state: tuple, _: None) -> tuple:
                w, b = state
                z = features @ w + b
                residual = jax.nn.sigmoid(z) - labels
                cost = jnp.mean(jax.nn.softplus(z) - labels * z)
                return (w - rate * (residual @ features) / m, b - rate * jnp.sum(residual) / m), cost

            start = (jnp.zeros(features.shape[1], dtype), jnp.zeros((), dtype))
            return jax.lax.scan(step, start, length=iterations)[1]

        def run(iterations: int) -> list[float]:
            return np.asarray(descend(features, labels, iterations)).tolist()

        return run

    return setup


def _torch_data(x: np.ndarray, y: np.ndarray, dtype: str, device: str) -> tuple[Any, Any]:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("PyTorch sees no GPU here")
    kind = getattr(torch, dtype)
    return torch.from_numpy(x).to(device).to(kind) / 255, torch.from_numpy(y).to(device).to(kind)


def torch_linear(dtype: str, device: str = "cpu") -> Setup:
    """PyTorch as people write it: nn.Linear, BCEWithLogitsLoss, SGD."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        import torch

        features, labels = _torch_data(x, y, dtype, device)
        labels = labels.reshape(-1, 1)

        def run(iterations: int) -> list[float]:
            neuron = torch.nn.Linear(features.shape[1], 1, dtype=features.dtype, device=device)
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
                if _kept(i, iterations):
                    costs.append(loss.item())
            return costs

        return run

    return setup


def torch_by_hand(dtype: str, device: str = "cpu") -> Setup:
    """PyTorch without autograd: the formulas by hand; on a GPU one iteration captured in a CUDA graph and replayed."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        import torch

        features, labels = _torch_data(x, y, dtype, device)
        m = len(x)
        w = torch.zeros(features.shape[1], dtype=features.dtype, device=device)
        b, cost = torch.zeros_like(w[0]), torch.zeros_like(w[0])

        @torch.no_grad()
        def step(with_cost: bool) -> None:
            z = features @ w + b
            residual = torch.sigmoid(z) - labels
            if with_cost:
                cost.copy_((torch.nn.functional.softplus(z) - labels * z).mean())
            w.sub_(residual @ features, alpha=rate / m)
            b.sub_(residual.sum(), alpha=rate / m)

        turn = _captured(step) if device == "cuda" else step

        def run(iterations: int) -> list[float]:
            w.zero_()
            b.zero_()
            for i in range(iterations):
                turn(_kept(i, iterations))
            return [cost.item()]

        return run

    return setup


def _captured(step: Callable[[bool], None]) -> Callable[[bool], None]:
    """One iteration, with its cost, as a CUDA graph."""
    import torch

    # Libraries set themselves up outside of the capture.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(True)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(True)
    return lambda _: graph.replay()


# Many times what any of the problems takes.
_MOST_STEPS = 1024


def sklearn_lbfgs(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
    """scikit-learn's own solver, as many of its iterations as reach the cost of gradient descent's last."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped on purpose
    features = x / 255
    enough: dict[int, int] = {}

    def fit(solver_iterations: int) -> float:
        model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=solver_iterations)
        return float(log_loss(y, model.fit(features, y).predict_proba(features)[:, 1]))

    def run(iterations: int) -> list[float]:
        if iterations not in enough:  # in the round that is not counted
            target = xlogreg("auto")(x, y, rate)(iterations)[-1]
            low, high = 0, 1
            while fit(high) > target:
                low, high = high, 2 * high
                if high > _MOST_STEPS:
                    raise RuntimeError(f"the solver did not reach the cost {target} in {low} steps")
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if fit(middle) > target else (low, middle)
            enough[iterations] = high
        return [fit(enough[iterations])]

    return run


# The cost of a float32 training wanders off by its rounding; a wrong gradient would be far beyond this.
FLOAT32, FLOAT64 = 1e-4, 1e-11
OURS, ON_GPU = "xlogreg fused", "xlogreg fused (GPU)"
ONE_THREAD, FOUR_RATES = f"{OURS}, 1 thread", "{}, 4 learning rates together"
# The first of each device is the one that all others are compared with.
CONTESTANTS = (
    Contestant(OURS, xlogreg("fused"), "numba", 1, steady=False),
    Contestant(ONE_THREAD, xlogreg("fused"), "numba", 1, threads=1, steady=False),
    Contestant(FOUR_RATES.format(OURS), xlogreg("fused", 4), "numba", 1, steady=False),
    Contestant("xlogreg reference (NumPy)", xlogreg("reference"), "", 1),
    Contestant("xlogreg reference, 4 learning rates together", xlogreg("reference", 4), "", 1),
    Contestant("tutorial's loop (NumPy float64)", tutorial("cpu"), "", 8, FLOAT64),
    Contestant("NumPy float32", numpy_float32, "", 4, FLOAT32),
    Contestant("JAX jit + scan float32", jax_scan("float32"), "jax", 4, FLOAT32),
    Contestant("JAX jit + scan float64", jax_scan("float64"), "jax", 8, FLOAT64),
    Contestant("PyTorch nn.Linear + SGD float32", torch_linear("float32"), "torch", 4, FLOAT32),
    Contestant("PyTorch nn.Linear + SGD float64", torch_linear("float64"), "torch", 8, FLOAT64),
    Contestant("PyTorch by hand float32", torch_by_hand("float32"), "torch", 4, FLOAT32),
    # It stops at a cost no higher than gradient descent's, which one of its steps may leave far behind.
    Contestant("scikit-learn lbfgs, to equal cost", sklearn_lbfgs, "sklearn", 8, steady=False, own_solver=True),
    # A few of the fused kernels' iterations would show how long it takes to start them.
    Contestant(ON_GPU, xlogreg("fused", 1, "gpu"), "cupy", 1, device="gpu", steady=False),
    Contestant(FOUR_RATES.format(ON_GPU), xlogreg("fused", 4, "gpu"), "cupy", 1, device="gpu", steady=False),
    Contestant("xlogreg reference (CuPy)", xlogreg("reference", 1, "gpu"), "cupy", 1, device="gpu"),
    Contestant("tutorial's loop (CuPy float64)", tutorial("gpu"), "cupy", 8, FLOAT64, "gpu"),
    Contestant("JAX jit + scan float32 (GPU)", jax_scan("float32", "gpu"), "jax", 4, FLOAT32, "gpu"),
    Contestant("JAX jit + scan float64 (GPU)", jax_scan("float64", "gpu"), "jax", 8, FLOAT64, "gpu"),
    Contestant("PyTorch nn.Linear + SGD float32 (GPU)", torch_linear("float32", "cuda"), "torch", 4, FLOAT32, "gpu"),
    Contestant("PyTorch CUDA graph by hand float32", torch_by_hand("float32", "cuda"), "torch", 4, FLOAT32, "gpu"),
    Contestant("PyTorch CUDA graph by hand float64", torch_by_hand("float64", "cuda"), "torch", 8, FLOAT64, "gpu"),
)


def contestants_on(device: str) -> list[Contestant]:
    """Those who take part on a device: cpu or gpu."""
    return [contestant for contestant in CONTESTANTS if contestant.device == device]


def by_name(name: str) -> Contestant:
    """The contestant of that name."""
    return next(contestant for contestant in CONTESTANTS if contestant.name == name)
