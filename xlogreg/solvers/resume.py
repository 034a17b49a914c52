"""Where a training stands, so that it can go on after whatever stopped it, and whether that is so."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..arrays import namespace
from ..errors import InputError
from ..neuron.exact import LARGEST_WEIGHT
from ..neuron.objective import Gradient, check_array
from ..neuron.options import DescentOptions
from ..system.text import short_repr
from . import solver_of
from .solver import State, bias_shape

Array = Any

# Why a model's training ended, the words of `Descent.reasons`.
ITERATIONS, GRADIENT, COST, VALIDATION = "iterations", "gradient", "cost", "validation"
DIVERGED, STUCK = "diverged", "stuck"


@dataclass(frozen=True, eq=False)
class Part:
    """What one model gave: its parameters (1, d) and (1,), its last gradient, its number of iterations, and why."""

    w: Array
    b: Array
    gradient: Gradient
    iterations: int
    reason: str

    __repr__ = short_repr


@dataclass(frozen=True, eq=False)
class Progress:
    """Where a training stands: all that its remaining iterations depend on, and what it has given so far.

    costs : (M, iterations) float64, on the host, of all models; of those that ended before, zeros after their end
    models : the numbers of those still in training, ascending; the rows of `state` are theirs
    parts : what the others gave
    seconds : wall time so far
    """

    costs: np.ndarray
    models: list[int]
    state: State
    parts: dict[int, Part]
    seconds: float

    __repr__ = short_repr


@dataclass(frozen=True)
class Frame:
    """What is known of every progress of a training before it begins: M models of d features, up to so many
    iterations, the options, and how many classes a model has (1 for one neuron)."""

    models: int
    features: int
    iterations: int
    options: DescentOptions
    classes: int = 1

    @property
    def numbers(self) -> int:
        """So many numbers a progress has at most."""
        memory = sum(math.prod(shape) for shape in self._memory_shapes.values())
        return self.models * (self.iterations + 2 * self.classes * (self.features + 1) + 5 + memory)

    @property
    def _memory_shapes(self) -> dict[str, tuple[int, ...]]:
        return solver_of(self.options).memory_shapes(self.options, self.features, self.classes)

    def check(self, progress: Progress) -> None:
        """Whether the progress can be one of this training, and each number in it one that training comes to.

        Raises
        ------
        InputError, DeviceError
            It is not: what is wrong, in words.
        """
        state, models, parts = progress.state, progress.models, progress.parts
        kinds = [(state, State), (models, list), (parts, dict), (progress.costs, np.ndarray), (progress.seconds, float)]
        whole = all(isinstance(value, kind) for value, kind in kinds) and isinstance(state.memory, dict)
        whole = whole and all(type(model) is int for model in (*models, *parts))
        if not whole or not all(
            isinstance(part, Part) and isinstance(part.gradient, Gradient) and isinstance(part.reason, str)
            for part in parts.values()
        ):
            raise InputError("A progress must have parts of the types that a checkpointer was shown.")
        done = _whole(state.iterations, 0, self.iterations, "The number of iterations done")
        if not 0.0 <= progress.seconds < math.inf:
            raise InputError("The seconds of a progress must be a finite number from 0 on.")
        if not models or models != sorted(models) or sorted([*models, *parts]) != list(range(self.models)):
            raise InputError(f"Each of {self.models} models must be in training or have ended, and one be in training.")
        costs = progress.costs
        check_array("The costs", costs, (self.models, done))
        weights, biases = (self.classes * self.features,), bias_shape(self.classes)
        shapes = {"w": weights, "b": biases, **self._memory_shapes}
        arrays = {"w": state.w, "b": state.b, **state.memory}
        if arrays.keys() != shapes.keys():
            raise InputError(f"The state must have the arrays {list(shapes)}, not {list(arrays)}.")
        for name, shape in shapes.items():
            check_array(f"The state's {name}", arrays[name], (len(models), *shape))
        solver_of(self.options).check_memory(state.memory)
        if not can_go_on(state):
            raise InputError("The state has weights that are not finite, or beyond all that sums hold.")
        ends = {DIVERGED, VALIDATION, STUCK, *(reason for reason, tolerance in (
            (GRADIENT, self.options.gradient_tolerance), (COST, self.options.cost_tolerance)
        ) if tolerance is not None)}  # fmt: skip
        lengths = dict.fromkeys(models, done)
        for model, part in parts.items():
            lengths[model] = _whole(part.iterations, 0, done, "The number of iterations of a model that has ended")
            if part.reason not in ends:
                raise InputError(f"No model of this training ends by {part.reason!r:.40}.")
            for name, array in {"w": part.w, "b": part.b, **vars(part.gradient)}.items():
                shape = {"w": weights, "dw": weights, "b": biases, "db": biases}.get(name, ())
                check_array(f"The {name} of a model that has ended", array, (1, *shape))
                # NaN fails the comparison.
                below = LARGEST_WEIGHT if name == "w" else math.inf
                if part.reason != DIVERGED and not bool((abs(array) < below).all()):
                    raise InputError(
                        f"The {name} of a model that has ended is not finite, or beyond all that sums hold."
                    )
        for model, length in lengths.items():
            of_model = costs[model, :length]
            if not ((of_model >= 0.0) & (of_model < np.inf)).all():
                raise InputError("Not all costs are finite numbers from 0 on.")


def _whole(value: Any, least: int, most: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{what} must be a whole number from {least} to {most}.")
    return value


def can_go_on(state: State) -> bool:
    """Whether its numbers are finite and fit the sums."""
    # NaN fails the comparison.
    return bool((abs(state.w) < LARGEST_WEIGHT).all()) and all(
        bool(namespace(array).isfinite(array).all()) for array in (state.b, *state.memory.values())
    )


class Checkpointer(Protocol):
    """Who keeps where a training stands: see `xlogreg.runs.checkpoint`.

    every : blocks end at the multiples of this number of iterations; None where it does not matter
    """

    every: int | None

    def shown(self, progress: Progress) -> None:
        """Before every block."""
        ...
