"""Gradient descent from start to end: which implementation, in which blocks, who is told, what is returned."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .errors import DivergenceError
from .reference import Gradient

Array = Any

# Called after each block with the number of iterations done so far and the block's costs, (iterations, models).
Observer = Callable[[int, np.ndarray], None]

# Observers hear, and Ctrl-C works, about this often (seconds).
_BLOCK_SECONDS = 0.1


class Engine(Protocol):
    """The state of M models and how it advances; the reference and every fused kernel look like this."""

    name: str
    w: Array
    b: Array
    rates: Array
    gradient: Gradient | None

    def prepare(self) -> None:
        """Do what is not training before it starts: compile."""
        ...

    def run(self, iterations: int) -> np.ndarray:
        """Advance the state; returns the costs (iterations, M) on the host, NaN from divergence on."""
        ...


@dataclass(frozen=True, eq=False)
class Descent:
    """What gradient descent gives for M models.

    history : (iterations, M) float64, on the host, the cost of every iteration
    w, b : (M, d) and (M,) on the training device
    gradient : the last iteration's
    seconds : wall time of the iterations, compilation not counted
    implementation : name of the engine that did the work
    """

    history: np.ndarray
    w: Array
    b: Array
    gradient: Gradient
    seconds: float
    implementation: str


def descend(engine: Engine, iterations: int, observer: Observer | None = None) -> Descent:
    """Run `iterations` steps of the engine, in blocks short enough for progress and Ctrl-C. Blocks change no bit.

    Raises
    ------
    DivergenceError
        A cost is not finite, or some |z| exceeded 1e6; names the iteration and the rate.
    """
    engine.prepare()
    history = np.empty((iterations, len(engine.b)), dtype=np.float64)
    done, block, seconds = 0, 1, 0.0
    while done < iterations:
        block = min(block, iterations - done)
        start = time.perf_counter()
        costs = engine.run(block)
        elapsed = time.perf_counter() - start
        seconds += elapsed
        _check_finite(costs, done, engine.rates)
        history[done : done + block] = costs
        done += block
        if observer is not None:
            observer(done, costs)
        # Grow by doubling towards the wanted time a block, so that no single slow measurement makes a long block.
        block = max(1, min(2 * block, int(block * _BLOCK_SECONDS / max(elapsed, 1e-9))))
    assert engine.gradient is not None
    return Descent(history, engine.w, engine.b, engine.gradient, seconds, engine.name)


def _check_finite(costs: np.ndarray, done: int, rates: Array) -> None:
    bad = np.argwhere(~np.isfinite(costs))
    if len(bad):
        iteration, model = done + int(bad[0][0]), int(bad[0][1])
        rate = float(rates[model])
        raise DivergenceError(
            f"Training diverged at iteration {iteration}: with learning rate {rate:g} the cost is no longer finite; "
            f"choose a smaller learning rate, {rate / 10:g} say.",
            iteration,
            rate,
        )


def history_sha256(history: np.ndarray | list[float]) -> str:
    """The digest of a training: SHA-256 over the little-endian float64 bytes of the cost of every iteration."""
    return hashlib.sha256(np.ascontiguousarray(history, dtype="<f8").tobytes()).hexdigest()
