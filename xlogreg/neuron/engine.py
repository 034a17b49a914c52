"""What every implementation of gradient descent has in common: its options, its state and how it is asked to work.

The formulas are those of `xlogreg.neuron.reference`; here is only what they are given and what can be taken from them.
"""

import math
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ..arrays import namespace
from ..errors import InputError
from ..system.checks import finite_number
from ..system.parallel import one_blas_thread
from ..system.text import given, short_repr
from .exact import MAX_TERMS

Array = Any

# Classes and samples may weigh this much; the grids of the exact sums stay inside float64 with room to spare.
LARGEST_SAMPLE_WEIGHT = 2.0**100

# What a training may need beyond the tutorial's, and the words for it. An engine that can do it names it in `supports`.
FEATURES = {
    "weights": "class or sample weights",
    "l2": "L2",
    "momentum": "momentum",
    "nesterov": "Nesterov's momentum",
    "slopes": "stopping by the gradient",
}


@dataclass(frozen=True)
class DescentOptions:
    """How gradient descent goes beyond the tutorial's; the default is the tutorial's, bit for bit.

    Attributes
    ----------
    l2 : lambda >= 0 of the penalty (lambda / 2) |w|^2, which is part of the cost; the bias is not penalised.
        scikit-learn's LogisticRegression has the same minimum with C = 1 / (m lambda).
    momentum : mu, from 0 to below 1: the velocity v = mu v + gradient takes the gradient's place
    nesterov : step by gradient + mu v instead of v (PyTorch's and scikit-learn's form); needs a momentum
    gradient_tolerance : stop after the first iteration whose largest |gradient| (of the weights and the bias, with
        the penalty's part) is at most this; None never stops
    cost_tolerance : stop after the first iteration k >= 1 with |cost[k-1] - cost[k]| at most this times
        max(|cost[k-1]|, |cost[k]|, 1); None never stops
    class_weight : weights of class 0 and class 1 in cost and gradient; "balanced" is m / (2 count of the class), which
        lets both classes count alike; None is 1 and 1

    Raises
    ------
    InputError
        A value is none of these.
    """

    l2: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    gradient_tolerance: float | None = None
    cost_tolerance: float | None = None
    class_weight: Literal["balanced"] | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        momentum = _number(self.momentum, "The momentum", "at least 0 and below 1, 0.9 say", below=1.0)
        if not isinstance(self.nesterov, (bool, np.bool_)):
            raise InputError(f"Nesterov's momentum is on or off, True or False, not {given(self.nesterov)}.")
        if self.nesterov and not momentum:
            raise InputError("Nesterov's form needs a momentum above 0; give one, 0.9 say, or leave nesterov out.")
        fields: dict[str, Any] = {
            "l2": _number(self.l2, "The L2 penalty", "finite and at least 0, 0.001 say"),
            "momentum": momentum,
            "nesterov": bool(self.nesterov),
            "class_weight": _class_weight(self.class_weight),
        }
        for name, words in (("gradient_tolerance", "gradient"), ("cost_tolerance", "change of the cost")):
            value = getattr(self, name)
            if value is not None:
                fields[name] = _number(value, f"The {words} to stop at", "finite and at least 0, 1e-6 say")
        for name, value in fields.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    @property
    def stops(self) -> bool:
        """Whether a training may end before its last iteration."""
        return self.gradient_tolerance is not None or self.cost_tolerance is not None

    def needs(self, weights: bool = False) -> frozenset[str]:
        """The names in `FEATURES` that an engine must support; `weights`: whether samples have weights of their own."""
        wanted = {
            "weights": weights or self.class_weight is not None,
            "l2": self.l2 > 0,
            "momentum": self.momentum > 0,
            "nesterov": self.nesterov,
            "slopes": self.gradient_tolerance is not None,
        }
        return frozenset(name for name, is_wanted in wanted.items() if is_wanted)

    def as_dict(self) -> dict[str, Any]:
        """The options in plain types, as `results.json` has them."""
        weight = self.class_weight
        return {**asdict(self), "class_weight": list(weight) if isinstance(weight, tuple) else weight}


def _number(value: Any, what: str, wanted: str, below: float = math.inf) -> float:
    number = finite_number(value)
    if number is None or not 0 <= number < below:
        raise InputError(f"{what} must be {wanted}, not {given(value)}.")
    return number


def _class_weight(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value == "balanced"):
        return value
    try:
        weights = () if isinstance(value, (str, dict, set)) else tuple(value)
    except Exception:  # no numbers, or whatever a class of somebody else's raises
        weights = ()
    if len(weights) != 2:
        raise InputError(
            "The class weights must be None, 'balanced' or two numbers, those of class 0 and class 1, "
            f"not {given(value)}."
        )
    words = f"from 0 to {LARGEST_SAMPLE_WEIGHT:.3g}"
    first, second = (_number(weight, "A class weight", words, math.nextafter(LARGEST_SAMPLE_WEIGHT, math.inf))
                     for weight in weights)  # fmt: skip
    if not first and not second:
        raise InputError("Both class weights are 0, which leaves nothing to train on; give at least one above 0.")
    return first, second


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

    name, supports : what it is called, and which of `FEATURES` it can do
    gradient : the last iteration's
    slopes : of the last `run`, (iterations, M) on the host, the largest |gradient| of each iteration; only where the
        options ask for it by a gradient tolerance, else None. It includes the penalty's part and the bias.
    """

    name: str
    supports: frozenset[str]
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
