"""Who takes part: the same gradient descent as people write it in NumPy, JAX, PyTorch and xlogreg.

A contestant is a function ``(x, y, rate) -> run`` where x (m, d) uint8 and y (m,) are the pictures and labels and
``run(iterations)`` trains from zeros and returns the costs as far as it has them (the last at least) as a list. What
the function does before it returns `run` (conversion to floats, moving to the device) is not timed; what `run` does is,
and it returns only when the work is done. Every peer gets its data in the layout that serves it best.
"""

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Run = Callable[[int], list[float]]
Setup = Callable[[np.ndarray, np.ndarray, float], Run]


@dataclass(frozen=True)
class Contestant:
    """One way to train.

    name : as the table shows it
    setup : see the module
    needs : the package that must be installed, or ""
    bytes_per_pixel : memory it holds for each pixel, to know what fits
    exact : whether its costs must have xlogreg's bits; otherwise `tolerance` is what its last cost may deviate
    threads : number of threads, 0 for all
    own_solver : whether it is no gradient descent, and need only reach a cost that is as low
    device : cpu or gpu
    whole : whether it does all iterations of a problem, whose start would show in a few
    """

    name: str
    setup: Setup
    needs: str
    bytes_per_pixel: float
    exact: bool
    tolerance: float
    threads: int = 0
    own_solver: bool = False
    device: str = "cpu"
    whole: bool = False

    @property
    def ours(self) -> bool:
        """Whether it needs nothing but what this package needs on its device."""
        return self.needs in ("", "numba", "cupy")

    @property
    def steady(self) -> bool:
        """Whether all its iterations take the same time; the fused CPU kernel's take ever less."""
        return self.needs != "numba" and not self.own_solver and not self.whole

    @property
    def installed(self) -> bool:
        """Whether the package it needs is there."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


def tutorial_float64(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
    """The tutorial's own loop: float64, samples as columns."""
    features, labels = (x / 255).T, y.reshape(1, -1).astype(np.float64)
    m = len(x)

    def run(iterations: int) -> list[float]:
        w, b, costs = np.zeros((features.shape[0], 1)), 0.0, []
        for i in range(iterations):
            a = 1 / (1 + np.exp(-(np.dot(w.T, features) + b)))
            cost = (-1 / m) * np.sum(labels * np.log(a) + (1 - labels) * np.log(1 - a))
            dw = (1 / m) * np.dot(features, (a - labels).T)
            db = (1 / m) * np.sum(a - labels)
            w = w - rate * dw
            b = b - rate * db
            if i % 100 == 0 or i == iterations - 1:
                costs.append(float(cost))
        return costs

    return run


def numpy_float32(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
    """The same formulas in float32, samples as rows."""
    features, labels = x.astype(np.float32) / np.float32(255), y.astype(np.float32)
    m, step = np.float32(len(x)), np.float32(rate)

    def run(iterations: int) -> list[float]:
        w, b, costs = np.zeros(features.shape[1], np.float32), np.float32(0), []
        for i in range(iterations):
            z = features @ w + b
            residual = 1 / (1 + np.exp(-z)) - labels
            if i % 100 == 0 or i == iterations - 1:
                costs.append(float(np.mean(np.logaddexp(0, z) - labels * z)))
            w -= step * (residual @ features) / m
            b -= step * residual.sum() / m
        return costs

    return run


def xlogreg(implementation: str) -> Setup:
    """This package, whole `optimize` from zeros, every cost recorded."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        from ..logistic import optimize

        columns, labels = x.T, y.reshape(1, -1)

        def run(iterations: int) -> list[float]:
            w = np.zeros((columns.shape[0], 1))
            return optimize(
                w, 0.0, columns, labels, iterations, rate, record_every=1, implementation=implementation
            )[2]  # fmt: skip

        return run

    return setup


def jax_scan(dtype: str) -> Setup:
    """JAX: one jitted `lax.scan` over all iterations."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", dtype == "float64")
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


def torch_linear(dtype: str) -> Setup:
    """PyTorch as people write it: nn.Linear, BCEWithLogitsLoss, SGD."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        import torch

        kind = getattr(torch, dtype)
        features = torch.from_numpy(x).to(kind) / 255
        labels = torch.from_numpy(y).to(kind).reshape(-1, 1)

        def run(iterations: int) -> list[float]:
            neuron = torch.nn.Linear(features.shape[1], 1, dtype=kind)
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


def torch_by_hand(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
    """PyTorch without autograd: the formulas by hand, float32."""
    import torch

    features, labels = torch.from_numpy(x).float() / 255, torch.from_numpy(y).float()
    m = len(x)

    @torch.no_grad()
    def run(iterations: int) -> list[float]:
        w, b, costs = torch.zeros(features.shape[1]), torch.zeros(()), []
        for i in range(iterations):
            z = features @ w + b
            residual = torch.sigmoid(z) - labels
            if i % 100 == 0 or i == iterations - 1:
                costs.append(float((torch.nn.functional.softplus(z) - labels * z).mean()))
            w -= rate * (residual @ features) / m
            b -= rate * residual.sum() / m
        return costs

    return run


def xlogreg_together(rates: int, implementation: str) -> Setup:
    """This package, several learning rates in one pass; an iteration is one of all."""

    def setup(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
        from ..logistic import descend_many

        columns, labels = x.T, y.reshape(1, -1)

        def run(iterations: int) -> list[float]:
            several = [rate / 2**i for i in range(rates)]
            result = descend_many(columns, labels, several, iterations, implementation=implementation)
            return result.history[:, 0].tolist()

        return run

    return setup


# Many times what any of the problems takes.
_MOST_STEPS = 1024


def sklearn_lbfgs(x: np.ndarray, y: np.ndarray, rate: float) -> Run:
    """scikit-learn's own solver, as many of its iterations as reach the cost of gradient descent's last."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    from ..logistic import optimize

    warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped on purpose
    features = x / 255
    enough: dict[int, int] = {}

    def fit(solver_iterations: int) -> float:
        model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=solver_iterations)
        return float(log_loss(y, model.fit(features, y).predict_proba(features)[:, 1]))

    def run(iterations: int) -> list[float]:
        if iterations not in enough:  # in the round that is not counted
            target = optimize(
                np.zeros((x.shape[1], 1)), 0.0, x.T, y.reshape(1, -1), iterations, rate, record_every=1
            )[2][-1]  # fmt: skip
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


OURS, ONE_THREAD, FOUR_RATES = "xlogreg fused", "xlogreg fused, 1 thread", "xlogreg fused, 4 learning rates together"
# The cost of a float32 training wanders off by its rounding; a wrong gradient would be far beyond this.
FLOAT32, FLOAT64 = 1e-4, 1e-11
CONTESTANTS = (
    Contestant(OURS, xlogreg("fused"), "numba", 1.0, True, 0.0),
    Contestant(ONE_THREAD, xlogreg("fused"), "numba", 1.0, True, 0.0, threads=1),
    Contestant(FOUR_RATES, xlogreg_together(4, "fused"), "numba", 1.0, True, 0.0),
    Contestant("xlogreg reference (NumPy)", xlogreg("reference"), "", 1.0, True, 0.0),
    Contestant("xlogreg reference, 4 learning rates together", xlogreg_together(4, "reference"), "", 1.0, True, 0.0),
    Contestant("tutorial's loop (NumPy float64)", tutorial_float64, "", 8.0, False, FLOAT64),
    Contestant("NumPy float32", numpy_float32, "", 4.0, False, FLOAT32),
    Contestant("JAX jit + scan float32", jax_scan("float32"), "jax", 4.0, False, FLOAT32),
    Contestant("JAX jit + scan float64", jax_scan("float64"), "jax", 8.0, False, FLOAT64),
    Contestant("PyTorch nn.Linear + SGD float32", torch_linear("float32"), "torch", 4.0, False, FLOAT32),
    Contestant("PyTorch nn.Linear + SGD float64", torch_linear("float64"), "torch", 8.0, False, FLOAT64),
    Contestant("PyTorch by hand float32", torch_by_hand, "torch", 4.0, False, FLOAT32),
    # It stops at a cost no higher than gradient descent's, which one of its steps may leave far behind.
    Contestant("scikit-learn lbfgs, to equal cost", sklearn_lbfgs, "sklearn", 8.0, False, 0.0, own_solver=True),
)  # fmt: skip
