"""Who goes to the optimum: L-BFGS of xlogreg, and what people have for it in scikit-learn, SciPy, PyTorch and JAX.

A minimiser is a function ``(x, y, l2) -> run`` where x (m, d) uint8 and y (m,) are the pictures and labels, and
``run(tolerance)`` minimises the mean log loss + (l2 / 2) |w|^2 from zeros (the bias has no penalty) until no entry of
the gradient is larger than the tolerance, and returns w, b and how many steps it took. What the function does before
it returns `run` (conversion to floats, compilation) is not timed; all that `run` does is. Only xlogreg trains on the
pictures as they are, so only its time has all its preparations.
"""

import contextlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..neuron.options import DescentOptions
from ..solvers.fit import fit

Found = tuple[np.ndarray, float, int]
Run = Callable[[float], Found]
Setup = Callable[[np.ndarray, np.ndarray, float], Run]

# As many as none of the problems takes.
_MOST_STEPS = 100_000


@dataclass(frozen=True)
class Minimiser:
    """One way to the optimum.

    family : as the table shows it; of those of one family, which differ in threads or memory order, the best counts
    setup : see the module
    needs : the package that must be installed, or ""
    bytes_per_pixel : memory it holds for each pixel, to know what fits
    variant : which of its family it is
    threads : number of threads, 0 for all
    most_pictures : beyond this it takes too long, or too much memory
    """

    family: str
    setup: Setup
    needs: str
    bytes_per_pixel: int
    variant: str = ""
    threads: int = 0
    most_pictures: int = 10**9
    device: str = "cpu"

    @property
    def name(self) -> str:
        return ", ".join(filter(None, [self.family, self.variant, f"threads {self.threads or 'all'}"]))

    @property
    def installed(self) -> bool:
        """Whether the package it needs is there."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


def xlogreg_lbfgs(x: np.ndarray, y: np.ndarray, l2: float) -> Run:
    """This package: a whole training from uint8 rows and labels."""

    def run(tolerance: float) -> Found:
        options = DescentOptions(solver="lbfgs", l2=l2, gradient_tolerance=tolerance)
        result = fit(x, 1.0 - 2.0 * y[None], None, _MOST_STEPS, options=options)
        return result.w[0], float(result.b[0]), len(result.histories[0])

    return run


def _features(x: np.ndarray, dtype: Any, order: str = "C") -> np.ndarray:
    """The pixels as floats from 0 to 1, with no more than one copy of them at a time."""
    features = np.asarray(x, dtype=dtype, order=order)  # type: ignore[call-overload]
    features /= dtype(255)
    return features


def sklearn(solver: str, dtype: Any, order: str = "C") -> Setup:
    """scikit-learn's LogisticRegression; its C is 1 / (m l2), and its tolerance the largest entry of the gradient.

    Only saga's tolerance is another: the change of the weights in a pass.
    """

    def setup(x: np.ndarray, y: np.ndarray, l2: float) -> Run:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        warnings.simplefilter("ignore", ConvergenceWarning)  # the answer is looked at
        features = _features(x, dtype, order)
        # saga would go on for hours.
        most = 1000 if solver == "saga" else _MOST_STEPS

        def run(tolerance: float) -> Found:
            model = LogisticRegression(
                C=1.0 / (len(x) * l2), solver=solver, tol=tolerance, max_iter=most, random_state=0
            ).fit(features, y)
            return model.coef_[0], float(model.intercept_[0]), int(model.n_iter_[0])

        return run

    return setup


def _scipy_lbfgs(evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]], d: int) -> Run:
    """SciPy's L-BFGS-B of a function of d weights and the bias, with as many pairs as xlogreg has."""
    from scipy.optimize import minimize

    from ..solvers.lbfgs import PAIRS

    def run(tolerance: float) -> Found:
        limits = {"maxiter": _MOST_STEPS, "maxfun": _MOST_STEPS, "gtol": tolerance, "ftol": 0.0, "maxcor": PAIRS}
        found = minimize(evaluate, np.zeros(d + 1), jac=True, method="L-BFGS-B", options=limits)
        return found.x[:-1], float(found.x[-1]), int(found.nfev)

    return run


def scipy_by_hand(x: np.ndarray, y: np.ndarray, l2: float) -> Run:
    """SciPy's L-BFGS-B with the objective by hand in float32: two products, and what is between them."""
    features, labels = _features(x, np.float32), y.astype(np.float32)
    m, d = features.shape

    def evaluate(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = parameters[:-1].astype(np.float32), np.float32(parameters[-1])
        z = features @ w + b
        t = np.exp(-np.abs(z))
        residual = np.where(z >= 0, 1 / (1 + t), t / (1 + t)) - labels
        loss = np.maximum(z, 0) - labels * z + np.log1p(t)
        gradient = np.append(residual @ features / m, residual.mean(dtype=np.float64)).astype(np.float64)
        gradient[:-1] += l2 * parameters[:-1]
        return float(loss.mean(dtype=np.float64)) + 0.5 * l2 * float(parameters[:-1] @ parameters[:-1]), gradient

    return _scipy_lbfgs(evaluate, d)


def _jax_loss(x: np.ndarray, y: np.ndarray, l2: float, dtype: str) -> tuple[Any, Any, Any]:
    """Features, labels and the objective ((w, b), features, labels) -> cost."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", dtype == "float64")
    features, labels = jnp.asarray(_features(x, np.dtype(dtype).type)), jnp.asarray(y.astype(dtype))

    def loss(parameters: Any, features: Any, labels: Any) -> Any:
        w, b = parameters
        z = features @ w + b
        return jnp.mean(jax.nn.softplus(z) - labels * z) + 0.5 * l2 * jnp.vdot(w, w)

    return features, labels, loss


def jax_scipy(dtype: str) -> Setup:
    """JAX for cost and gradient, jitted, and SciPy's L-BFGS-B for the steps."""

    def setup(x: np.ndarray, y: np.ndarray, l2: float) -> Run:
        import jax

        features, labels, loss = _jax_loss(x, y, l2, dtype)
        both = jax.jit(jax.value_and_grad(loss))

        def evaluate(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            cost, (dw, db) = both((parameters[:-1].astype(dtype), parameters[-1].astype(dtype)), features, labels)
            return float(cost), np.append(np.asarray(dw), np.asarray(db)).astype(np.float64)

        evaluate(np.zeros(features.shape[1] + 1))  # compiles
        return _scipy_lbfgs(evaluate, features.shape[1])

    return setup


def optax_lbfgs(dtype: str) -> Setup:
    """optax's L-BFGS with its own line search, the whole loop jitted."""

    def setup(x: np.ndarray, y: np.ndarray, l2: float) -> Run:
        import jax
        import jax.numpy as jnp
        import optax

        from ..solvers.lbfgs import PAIRS

        features, labels, loss = _jax_loss(x, y, l2, dtype)
        optimiser = optax.lbfgs(memory_size=PAIRS)

        @jax.jit
        def minimise(features: Any, labels: Any, tolerance: Any, most: Any) -> Any:
            def cost(parameters: Any) -> Any:
                return loss(parameters, features, labels)

            both = optax.value_and_grad_from_state(cost)

            def step(carry: Any) -> Any:
                parameters, state, _, count = carry
                value, gradient = both(parameters, state=state)
                updates, state = optimiser.update(
                    gradient, state, parameters, value=value, grad=gradient, value_fn=cost
                )
                parameters = optax.apply_updates(parameters, updates)
                # The line search knows the gradient there.
                w, b = optax.tree_utils.tree_get(state, "grad")
                return parameters, state, jnp.maximum(jnp.max(jnp.abs(w)), jnp.abs(b)), count + 1

            def goes_on(carry: Any) -> Any:
                return (carry[2] > tolerance) & (carry[3] < most)

            zeros = jnp.zeros(features.shape[1], dtype), jnp.zeros((), dtype)
            start = (zeros, optimiser.init(zeros), jnp.asarray(jnp.inf, dtype), 0)
            (w, b), _, _, count = jax.lax.while_loop(goes_on, step, start)
            return w, b, count

        def run(tolerance: float, most: int = 3000) -> Found:
            w, b, count = minimise(features, labels, tolerance, most)
            return np.asarray(w), float(b), int(count)

        run(1.0, 1)  # compiles
        return run

    return setup


def torch_lbfgs(dtype: str) -> Setup:
    """PyTorch's own L-BFGS with strong Wolfe line search; autograd for the gradient."""

    def setup(x: np.ndarray, y: np.ndarray, l2: float) -> Run:
        import torch

        from ..solvers.lbfgs import PAIRS

        kind = getattr(torch, dtype)
        features = torch.from_numpy(_features(x, np.dtype(dtype).type))
        labels = torch.from_numpy(y).to(kind)

        def run(tolerance: float) -> Found:
            w = torch.zeros(features.shape[1], dtype=kind, requires_grad=True)
            b = torch.zeros((), dtype=kind, requires_grad=True)
            optimiser = torch.optim.LBFGS(
                [w, b], max_iter=_MOST_STEPS, max_eval=_MOST_STEPS, tolerance_grad=tolerance, tolerance_change=0.0,
                history_size=PAIRS, line_search_fn="strong_wolfe",
            )  # fmt: skip
            count = 0

            def evaluate() -> Any:
                nonlocal count
                count += 1
                if count > 5000:  # nothing else ends it where rounding hides the gradient
                    raise StopIteration
                optimiser.zero_grad()
                loss = torch.nn.functional.binary_cross_entropy_with_logits(features @ w + b, labels)
                loss = loss + 0.5 * l2 * torch.dot(w, w)
                loss.backward()
                return loss

            with contextlib.suppress(StopIteration):
                optimiser.step(evaluate)
            return w.detach().numpy(), float(b.detach()), count

        return run

    return setup


OURS, ONE_THREAD = "xlogreg L-BFGS", "xlogreg L-BFGS, 1 thread"


def _everybody() -> list[Minimiser]:
    all_of_them = [
        Minimiser(OURS, xlogreg_lbfgs, "numba", 1),
        Minimiser(ONE_THREAD, xlogreg_lbfgs, "numba", 1, threads=1),
    ]
    for dtype, size in ((np.float32, 4), (np.float64, 8)):
        name = dtype.__name__
        for threads in (1, 0):
            for solver in ("lbfgs", "newton-cg"):
                for order, words in (("C", "rows in order"), ("F", "columns in order")):
                    make = sklearn(solver, dtype, order)
                    all_of_them.append(
                        Minimiser(f"scikit-learn {solver} {name}", make, "sklearn", size, words, threads)
                    )
            all_of_them.append(Minimiser(f"PyTorch LBFGS {name}", torch_lbfgs(name), "torch", size, threads=threads))
        all_of_them += [
            # Its matrix of all pairs of features needs all threads, its time grows with their square.
            Minimiser(
                f"scikit-learn newton-cholesky {name}",
                sklearn("newton-cholesky", dtype),
                "sklearn",
                2 * size,
                most_pictures=10_000,
            ),
            # It has one thread, and would take hours of more pictures.
            Minimiser(
                f"scikit-learn saga {name}", sklearn("saga", dtype), "sklearn", size, threads=1, most_pictures=1900
            ),
            Minimiser(f"JAX jit + SciPy L-BFGS-B {name}", jax_scipy(name), "jax", size),
            Minimiser(f"optax L-BFGS {name}", optax_lbfgs(name), "optax", size),
        ]
    all_of_them += [
        Minimiser("SciPy L-BFGS-B, NumPy float32", scipy_by_hand, "scipy", 4, threads=threads) for threads in (1, 0)
    ]
    return all_of_them


# The first is the one that all others are compared with.
MINIMISERS = tuple(_everybody())


def by_name(name: str) -> Minimiser:
    """The minimiser of that name."""
    return next(one for one in MINIMISERS if one.name == name)
