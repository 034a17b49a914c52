"""A solver: how the weights of M models move, from the cost and gradient that an objective gives."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arrays import namespace
from ..errors import InputError
from ..neuron.objective import Gradient, Objective, check_array
from ..neuron.options import DescentOptions
from ..system.text import short_repr

Array = Any


@dataclass(frozen=True, eq=False)
class State:
    """Where a training of M models stands: all that its further iterations depend on. Its arrays are its own.

    iterations : done so far
    w, b : (M, K d) and (M,) float64, on the training device; b is (M, K) with K > 1 classes
    memory : what the solver keeps from one iteration to the next, (M, ..) float64 each, by its name
    """

    iterations: int
    w: Array
    b: Array
    memory: dict[str, Array] = field(default_factory=dict)

    __repr__ = short_repr

    def of(self, rows: list[int]) -> "State":
        """Of these of the models."""
        return State(self.iterations, self.w[rows], self.b[rows], {k: v[rows] for k, v in self.memory.items()})


class Solver:
    """M models on the way to lower cost. Another solver is a class that gives `memory_shapes` and `run`, and a line in
    `solvers.SOLVERS`.

    Parameters
    ----------
    objective : what is minimised
    w, b : (M, K d) and (M,), or (M, K) with K > 1 classes, float64, where to begin; not changed
    rates : (M,) float64, the learning rates
    options : what the solver reads of them is its business

    Attributes
    ----------
    descends : whether its iterations are steps at a learning rate, so that a cost that rises is news
    gradient : the last iteration's
    largest : of the last `run`, (iterations, M) on the host, the largest |entry| of each iteration's gradient; only
        where the options ask for it by a gradient tolerance, else None
    stuck : of the last `run`, (iterations, M), where the solver finds no lower cost any more, if it looks for it
    """

    descends = True

    def __init__(
        self, objective: Objective, w: Array, b: Array, rates: Array, options: DescentOptions | None = None
    ) -> None:
        self.classes, d = objective.classes, objective.rows.shape[1]
        models, biases = len(objective.sign) // self.classes, bias_shape(self.classes)
        xp = namespace(objective.rows, w, b, rates)
        shapes = {"w": (models, self.classes * d), "b": (models, *biases), "rates": (models,)}
        for name, array in {"w": w, "b": b, "rates": rates}.items():
            check_array(f"The solver's {name}", array, shapes[name])
        self.objective, self.options = objective, options or DescentOptions()
        self.w, self.b, self.rates = copy_of(w), copy_of(b), copy_of(rates)
        self.iterations = 0
        self.gradient: Gradient | None = None
        self.largest: np.ndarray | None = None
        self.stuck: np.ndarray | None = None
        kept = self.memory_shapes(self.options, d, self.classes)
        self.memory = {name: xp.zeros((models, *shape), dtype=xp.float64) for name, shape in kept.items()}

    def prepare(self) -> None:
        """Compile now, so that it is not timed as training."""
        self.objective.prepare()

    def evaluate(self, w: Array, b: Array) -> Gradient:
        """Cost and gradient there, in the shapes of w and b."""
        found = self.objective.evaluate(w.reshape(-1, self.objective.rows.shape[1]), b.reshape(-1))
        return Gradient(found.dw.reshape(*w.shape), found.db.reshape(*b.shape), found.cost)

    @staticmethod
    def memory_shapes(options: DescentOptions, features: int, classes: int) -> dict[str, tuple[int, ...]]:
        """What one model keeps from one iteration to the next: the shape of each array, which begins as zeros."""
        raise NotImplementedError

    @staticmethod
    def check_memory(memory: dict[str, Array]) -> None:
        """Whether arrays of these shapes and finite numbers can be its memory; raises `InputError` where not."""

    def run(self, iterations: int) -> np.ndarray:
        """Advance by so many iterations, or fewer where a model ends by itself; returns their costs (iterations, M) on
        the host, NaN from divergence on."""
        raise NotImplementedError

    def state(self) -> State:
        """The present state, in arrays that no later iteration changes."""
        return State(self.iterations, copy_of(self.w), copy_of(self.b), {k: copy_of(v) for k, v in self.memory.items()})

    def restore(self, state: State) -> None:
        """Go back (or on) to a state of the same models; what follows has the bits that followed it before.

        Raises
        ------
        InputError, DeviceError
            It is no state of these models, or on another device.
        """
        if isinstance(state.iterations, bool) or not isinstance(state.iterations, int) or state.iterations < 0:
            raise InputError(f"A state's number of iterations must be a whole number, not {state.iterations!r}.")
        if not isinstance(state.memory, dict) or state.memory.keys() != self.memory.keys():
            raise InputError(f"A state of this solver keeps {list(self.memory)} in its memory, and nothing else.")
        mine = {"w": self.w, "b": self.b, **self.memory}
        for name, new in {"w": state.w, "b": state.b, **state.memory}.items():
            namespace(self.w, new)  # of one device
            check_array(f"A state's {name}", new, mine[name].shape)
        self.check_memory(state.memory)
        self.iterations, self.w, self.b = state.iterations, copy_of(state.w), copy_of(state.b)
        self.memory = {name: copy_of(value) for name, value in state.memory.items()}

    def keep(self, models: list[int]) -> None:
        """Go on with these models only, by their present numbers, ascending; each keeps its state and its bits."""
        self.objective.keep(models)
        self.w, self.b, self.rates = (copy_of(value[models]) for value in (self.w, self.b, self.rates))
        self.memory = {name: copy_of(value[models]) for name, value in self.memory.items()}
        self.gradient = self.largest = None


def bias_shape(classes: int) -> tuple[int, ...]:
    """Of one model's bias: a number, or with several classes one each."""
    return () if classes == 1 else (classes,)


def copy_of(value: Array) -> Array:
    xp = namespace(value)
    # In order of rows, which kernels believe.
    return xp.array(xp.ascontiguousarray(value))
