"""What is minimised: the cost of M models on the same samples, and its gradient, at any weights and biases.

`reference` has the formulas, and the plain objective that computes by them; the fast ones of `kernels` have its bits.
How the weights move is a solver's business (`solvers`).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..arrays import namespace
from ..errors import InputError
from ..system.parallel import one_blas_thread
from ..system.text import short_repr
from .exact import MAX_TERMS, PIXEL_SCALE, exact_dot

Array = Any


@dataclass
class Gradient:
    """Cost and gradient, on the device of its arrays: dW (M, d), db (M,), cost (M,), float64; with K classes a model
    dW (M K, d), db (M K,), cost (M,).

    With a penalty, dW and cost include it.
    """

    dw: Array
    db: Array
    cost: Array

    __repr__ = short_repr

    @property
    def largest(self) -> Array:
        """The largest |entry| of the gradient, of the weights and the bias, (M,): what a gradient tolerance is for."""
        xp = namespace(self.dw)
        models = self.cost.shape[0]
        dw, db = (xp.max(xp.abs(one).reshape(models, -1), axis=-1) for one in (self.dw, self.db))
        return xp.maximum(dw, db)


class Steps(NamedTuple):
    """Arguments of `Objective.descend`: what it advances, and how.

    w, b : (M, d) and (M,) float64, advanced in place; velocity, bias_velocity : the same with momentum, else None
    rates : (M,) float64; momentum, nesterov : as in `options.DescentOptions`
    """

    w: Array
    b: Array
    velocity: Array | None
    bias_velocity: Array | None
    rates: Array
    momentum: float
    nesterov: bool


def standing(w: Array, b: Array) -> Steps:
    """Steps with rate 0, so that one iteration only evaluates, at w, b."""
    xp = namespace(w, b)
    return Steps(xp.array(w), xp.array(b), None, None, xp.zeros(b.shape, dtype=xp.float64), 0.0, False)


class Descended(NamedTuple):
    """What `Objective.descend` returns.

    costs, largest : (iterations, M) float64 on the host, each iteration's cost and largest |entry| of the gradient
    gradient : the last iteration's
    """

    costs: np.ndarray
    largest: np.ndarray | None
    gradient: Gradient


class Objective:
    """Cost and gradient of M models on the same m samples of d features.

    name : what the implementation is called
    rows : (m, d) uint8 pixels
    sign : (M, m) float64, +1 where the label is 0 and -1 where it is 1
    classes : K, 1 for one neuron a model. With more, neurons k K .. k K + K - 1 are those of model k's classes, whose
        softmax are the probabilities; then `sign`, `sample_weight` and `l2` have a row a neuron, of `sign` one -1 among
        a model's in each column, at the sample's class
    sample_weight : (M, m) float64 >= 0, what each sample counts; None is 1
    l2 : (M,) float64 >= 0, lambda of each model's penalty; None is 0
    descend : None, or the fast path of gradient descent, `(Steps, iterations) -> Descended`, with the bits of one
        evaluation an iteration
    """

    name: str
    rows: Array
    sign: Array
    sample_weight: Array | None = None
    l2: Array | None = None
    classes: int = 1
    descend: Any = None

    def prepare(self) -> None:
        """Compile now, so that it is not timed as training."""

    def evaluate(self, w: Array, b: Array) -> Gradient:
        """Cost and gradient of all models at w (M, d) and b (M,); a cost is NaN where the sums leave their range."""
        raise NotImplementedError

    def means(self) -> Array:
        """The mean of each feature over the samples, (d,) float64, of pixels divided by 255."""
        xp = namespace(self.rows)
        pixels = self.rows.dtype == xp.uint8
        total = self.rows.sum(axis=0, dtype=xp.int64 if pixels else xp.float64)
        return total.astype(xp.float64) / (len(self.rows) * (PIXEL_SCALE if pixels else 1.0))

    def bounds(self) -> Array:
        """What the size of each feature is not beyond in any sample, (d,) float64: 1 of pixels divided by 255."""
        xp, d = namespace(self.rows), self.rows.shape[1]
        if self.rows.dtype == xp.uint8:
            return xp.ones((d,), dtype=xp.float64)
        return xp.maximum(xp.max(self.rows, axis=0), -xp.min(self.rows, axis=0)).astype(xp.float64)

    def add_multiples(self, v: Array, factors: list[float], vectors: Array) -> Array:
        """v + factors[0] vectors[0] + factors[1] vectors[1] .., one after the other, each product and sum rounded."""
        for i, factor in enumerate(factors):
            v = v + factor * vectors[i]
        return v

    def dots(self, u: Array, vectors: Array) -> Array:
        """`exact_dot` of u (n,) and each of the vectors (k, n)."""
        return exact_dot(u[None], vectors)

    def two_loops(
        self, sy: np.ndarray, yy: np.ndarray, gs: np.ndarray, gy: np.ndarray, places: list[int]
    ) -> tuple[float, list[float], list[float]]:
        """H g of L-BFGS as a multiple of g and multiples of its steps s and of its changes y, on the host.

        sy, yy : s_i . y_j and y_i . y_j; gs, gy : g . s_i and g . y_i; places : those in use, the oldest pair's first
        """
        # Python counts faster with numbers of its own.
        sy, yy, gs, gy = (numbers.tolist() for numbers in (sy, yy, gs, gy))
        of_s, of_y = [0.0] * len(gs), [0.0] * len(gs)
        for k in range(len(places) - 1, -1, -1):
            i = places[k]
            product = gs[i]
            for j in places[k + 1 :]:
                product = product - of_y[j] * sy[i][j]
            of_y[i] = product / sy[i][i]
        scale = sy[places[-1]][places[-1]] / yy[places[-1]][places[-1]]
        for k, i in enumerate(places):
            product = gy[i]
            for j in places:
                product = product - of_y[j] * yy[i][j]
            product = scale * product
            for j in places[:k]:
                product = product + of_s[j] * sy[j][i]
            of_s[i] = of_y[i] - product / sy[i][i]
        return scale, of_s, [-scale * one for one in of_y]

    def keep(self, models: list[int]) -> None:
        """Go on with these models only, by their present numbers, ascending."""
        models = [self.classes * model + k for model in models for k in range(self.classes)]
        self.sign = namespace(self.sign).ascontiguousarray(self.sign[models])
        for name in ("sample_weight", "l2"):
            if getattr(self, name) is not None:
                setattr(self, name, namespace(self.sign).ascontiguousarray(getattr(self, name)[models]))

    def alone(self) -> AbstractContextManager[Any]:
        """Context to hold while evaluating: for NumPy it leaves BLAS one thread."""
        return one_blas_thread if isinstance(self.rows, np.ndarray) else nullcontext()


def check_arrays(
    rows: Array, sign: Array, sample_weight: Array | None, l2: Array | None, classes: int = 1, *, pixels: bool = False
) -> None:
    """Whether these arrays, of one module, fit together as `Objective` says: every objective asks before it keeps any,
    for compiled code believes their shapes. `pixels`: whether only uint8 rows will do.

    Raises
    ------
    InputError
        They do not.
    """
    xp = namespace(*(array for array in (rows, sign, sample_weight, l2) if array is not None))
    if rows.ndim != 2 or not 1 <= min(rows.shape) <= max(rows.shape) <= MAX_TERMS:
        raise InputError(f"The samples must be rows (m, d), 1 to {MAX_TERMS:,} of each, not {rows.shape}.")
    if rows.dtype not in ((xp.uint8,) if pixels else (xp.uint8, xp.float32, xp.float64)):
        raise InputError(f"The samples hold {rows.dtype}; give uint8 pixels{'' if pixels else ' or float features'}.")
    models = sign.shape[0] if sign.ndim == 2 else 0
    if not models or models % classes:
        raise InputError(f"sign must have the shape (M, m) with at least one model, not {sign.shape}.")
    check_array("The objective's sign", sign, (models, len(rows)))
    if sample_weight is not None:
        check_array("The objective's sample_weight", sample_weight, (models, len(rows)))
    if l2 is not None:
        check_array("The objective's l2", l2, (models,))


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
