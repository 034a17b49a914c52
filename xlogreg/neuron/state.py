"""What every implementation of gradient descent has in common: its state, what is asked of it, what it is given.

The formulas are those of `reference`.
"""

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..arrays import namespace
from ..errors import InputError
from ..system.parallel import one_blas_thread
from ..system.text import short_repr
from .exact import MAX_TERMS

Array = Any


@dataclass
class Gradient:
    """One iteration's gradient, on the device of its arrays: dW (M, d), db (M,), cost (M,), float64.

    With a penalty, dW and cost include it.
    """

    dw: Array
    db: Array
    cost: Array

    __repr__ = short_repr


@dataclass(frozen=True, eq=False)
class State:
    """Where a training of M models stands: all that its further iterations depend on. Its arrays are its own.

    iterations : done so far
    w, b : (M, d) and (M,) float64, on the training device
    velocity, bias_velocity : the same shapes, with momentum; else None
    """

    iterations: int
    w: Array
    b: Array
    velocity: Array | None = None
    bias_velocity: Array | None = None

    __repr__ = short_repr


class Engine(Protocol):
    """The state of M models and how it advances; the reference and every fused kernel look like this.

    name : what it is called
    gradient : the last iteration's
    slopes : of the last `run`, (iterations, M) on the host, the largest |gradient| of each iteration; only where the
        options ask for it by a gradient tolerance, else None. It includes the penalty's part and the bias.
    """

    name: str
    w: Array
    b: Array
    rates: Array
    gradient: Gradient | None
    slopes: np.ndarray | None

    def prepare(self) -> None:
        """Do what is not training before it starts: compile."""
        ...

    def run(self, iterations: int) -> np.ndarray:
        """Advance the state; returns the costs (iterations, M) on the host, NaN from divergence on."""
        ...

    def state(self) -> State:
        """The present state, in arrays that no later iteration changes."""
        ...

    def restore(self, state: State) -> None:
        """Go back (or on) to a state of the same models; what follows has the bits that followed it before.

        Raises
        ------
        InputError, DeviceError
            It is no state of these models, or on another device.
        """
        ...

    def keep(self, models: list[int]) -> None:
        """Go on with these models only, by their present numbers, ascending; each keeps its state and its bits."""
        ...


def check_arrays(
    rows: Array, sign: Array, w: Array, b: Array, rates: Array, weights: Array | None, *, pixels: bool = False
) -> None:
    """Whether these arrays, of one module, fit together as `reference` says: every engine asks before it keeps
    any, for compiled code believes their shapes. `pixels`: whether only uint8 rows will do.

    Raises
    ------
    InputError
        They do not.
    """
    xp = namespace(*(array for array in (rows, sign, w, b, rates, weights) if array is not None))
    if rows.ndim != 2 or not 1 <= min(rows.shape) <= max(rows.shape) <= MAX_TERMS:
        raise InputError(f"The samples must be rows (m, d), 1 to {MAX_TERMS:,} of each, not {rows.shape}.")
    if rows.dtype not in ((xp.uint8,) if pixels else (xp.uint8, xp.float32, xp.float64)):
        raise InputError(f"The samples hold {rows.dtype}; give uint8 pixels{'' if pixels else ' or float features'}.")
    (m, d), models = rows.shape, b.shape[0] if b.ndim == 1 else 0
    if not models:
        raise InputError(f"b must have the shape (M,) with at least one model, not {b.shape}.")
    shapes = {"sign": (models, m), "w": (models, d), "b": (models,), "rates": (models,), "weights": (models, m)}
    for name, array in {"sign": sign, "w": w, "b": b, "rates": rates, "weights": weights}.items():
        if array is not None:
            check_array(f"The engine's {name}", array, shapes[name])


def check_array(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Whether it is an array of float64, in this machine's order of bytes, and has this shape.

    Raises
    ------
    InputError, DeviceError
        It is not; it is no array at all.
    """
    xp = namespace(array)
    if array.dtype != xp.float64 or array.shape != shape:
        raise InputError(f"{name} must be float64 {shape}, not {array.dtype} {array.shape}.")


# Two trainings at a time would be in each other's way on all processors, the threads of each waiting for its others.
_fused_cpu = threading.RLock()


def _after_fork() -> None:
    # A thread that held it was not forked and will not release it.
    global _fused_cpu
    _fused_cpu = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def alone(engine: Engine) -> AbstractContextManager[Any]:
    """While this engine works: the fused CPU kernel works for one thread at a time, all others as they like; those that
    multiply by BLAS leave it one thread."""
    if not isinstance(engine.w, np.ndarray):
        return nullcontext()
    return _fused_cpu if engine.name == "fused" else one_blas_thread


class Models:
    """`state`, `restore` and `keep` for engines that hold their models' state in plain arrays, one row a model.

    They are these attributes; those that an engine does not have, or are None, are left alone.
    """

    w: Array
    b: Array
    rates: Array
    sign: Array
    gradient: Gradient | None
    iterations: int = 0
    slopes: np.ndarray | None = None
    weights: Array | None = None
    velocity: Array = None
    bias_velocity: Array = None

    def state(self) -> State:
        """The present state, copied."""
        return State(self.iterations, *map(_copy, (self.w, self.b, self.velocity, self.bias_velocity)))

    def restore(self, state: State) -> None:
        """Go on from a copy of this state, if it can be one of these models."""
        if isinstance(state.iterations, bool) or not isinstance(state.iterations, int) or state.iterations < 0:
            raise InputError(f"A state's number of iterations must be a whole number, not {state.iterations!r}.")
        for name in ("w", "b", "velocity", "bias_velocity"):
            mine, new = getattr(self, name), getattr(state, name)
            if (mine is None) != (new is None):
                raise InputError(f"A state's {name} must be there with momentum, and only then.")
            if mine is not None:
                namespace(mine, new)  # of one device
                check_array(f"A state's {name}", new, mine.shape)
        self.iterations = state.iterations
        self.w, self.b = _copy(state.w), _copy(state.b)
        self.velocity, self.bias_velocity = _copy(state.velocity), _copy(state.bias_velocity)

    def keep(self, models: list[int]) -> None:
        """Go on with these models only."""
        for name in ("w", "b", "rates", "sign", "weights", "velocity", "bias_velocity"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, namespace(value).ascontiguousarray(value[models]))
        self.gradient = self.slopes = None


def _copy(value: Array | None) -> Array | None:
    if value is None:
        return None
    xp = namespace(value)
    # In order of rows, which kernels believe.
    return xp.array(xp.ascontiguousarray(value))
