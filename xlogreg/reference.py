"""The plain reference: one iteration of gradient descent, written as its formulas, on NumPy or CuPy alike.

Every other implementation must equal this one bit for bit. It trains M models on the same samples at once (one
neuron each); M = 1 is the tutorial. Shapes, with m samples of d features::

    P (m, d)   uint8 pixels, one sample a row (or float features)
    y (M, m)   labels 0 or 1;  sign = 1 - 2 y is +1 or -1
    W (M, d), b (M,)   float64

Forward      z = (P . w) / 255 + b,  exact sums over d
Loss         v = sign z;  p = sigmoid(v) is the probability given to the wrong class;  loss = softplus(v)
             (with A = sigmoid(z): loss = -y log A - (1 - y) log(1 - A), and A - y = sign p, with no cancellation)
Backward     r = sign p;  dw = (r . P) / (255 m);  db = (sum of r) / m;  cost = (sum of loss) / m,  exact sums over m
Update       w = w - rate dw;  b = b - rate db,  the product and the difference rounded separately

The samples are worked through in chunks, converted to float64 one chunk at a time; the sums are exact, so the size of
the chunks changes no bit. Float features use the same lines with unsplit products: identical to rounding only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import namespace, to_host
from .elementary import sigmoid_and_softplus
from .exact import LOSS_BITS, LOSS_EXPONENT, PIXEL_BITS, PRODUCT_BITS, add_up, exponent_of, split

Array = Any

PIXEL_SCALE = 255.0
# Up to here the cost is promised to be finite (the losses are summed below 2^20); beyond, training has diverged.
LARGEST_Z = 1e6

# A chunk of this many float64 stays in a core's second-level cache on the CPU and gives a GPU enough to do.
_CHUNK_ELEMENTS = {"numpy": 96 * 3072}
_CHUNK_ELEMENTS_GPU = 2**26


def default_chunk(x: Array, features: int) -> int:
    """Samples to convert at a time."""
    elements = _CHUNK_ELEMENTS.get(namespace(x).__name__, _CHUNK_ELEMENTS_GPU)
    return max(1, elements // features)


def product_pieces(v: Array, exponent: Array | int, n: int, exact: bool) -> list[Array]:
    """v cut so that n products with pixels sum exactly; v itself for float features."""
    return split(v, exponent, n, PIXEL_BITS) if exact else [v]


def forward_chunk(chunk: Array, pieces: Array, b: Array, exact: bool) -> Array:
    """z (M, c) for c samples `chunk` (c, d) float64 and the stacked pieces of the weights (K M, d)."""
    products = pieces @ chunk.T
    models = b.shape[0]
    z = add_up([products[k : k + models] for k in range(0, len(products), models)])
    if exact:
        z = z / PIXEL_SCALE
    return z + b[:, None]


@dataclass
class Gradient:
    """What `propagate_rows` gives, on the device of its arrays: dW (M, d), db (M,), cost (M,), float64."""

    dw: Array
    db: Array
    cost: Array


def propagate_rows(rows: Array, sign: Array, w: Array, b: Array, chunk: int | None = None) -> Gradient:
    """Forward and backward propagation of all models over all samples.

    Parameters
    ----------
    rows : (m, d) uint8 pixels or float features
    sign : (M, m) float64, +1 where the label is 0 and -1 where it is 1
    w, b : (M, d) and (M,) float64
    chunk : samples converted at a time; changes the speed and no bit

    Returns
    -------
    Gradient; a cost is NaN where some |z| is not finite or exceeds 1e6.
    """
    xp = namespace(rows, sign, w, b)
    (m, d), models = rows.shape, len(b)
    exact = rows.dtype == xp.uint8
    chunk = chunk or default_chunk(rows, d)
    weights = xp.concatenate(product_pieces(w, exponent_of(w), d, exact))
    dw = xp.zeros((1, 1), dtype=xp.float64)
    largest = xp.zeros(models, dtype=xp.float64)
    r_sums: list[Array] = []
    loss_sums: list[Array] = []
    for start in range(0, m, chunk):
        samples = rows[start : start + chunk].astype(xp.float64, copy=False)
        s = sign[:, start : start + chunk]
        z = forward_chunk(samples, weights, b, exact)
        p, loss = sigmoid_and_softplus(s * z)
        r = s * p
        dw = dw + xp.concatenate(product_pieces(r, 0, m, exact)) @ samples
        r_sums = _accumulate(r_sums, split(r, 0, m, 0, PRODUCT_BITS))
        loss_sums = _accumulate(loss_sums, split(loss, LOSS_EXPONENT, m, 0, LOSS_BITS))
        largest = xp.maximum(largest, xp.max(xp.abs(z), axis=-1))
    gradient = add_up([dw[k : k + models] for k in range(0, len(dw), models)]) / ((PIXEL_SCALE if exact else 1.0) * m)
    cost = add_up(loss_sums) / m
    return Gradient(gradient, add_up(r_sums) / m, xp.where(largest <= LARGEST_Z, cost, xp.nan))


def _accumulate(sums: list[Array], pieces: list[Array]) -> list[Array]:
    new = [piece.sum(axis=-1) for piece in pieces]
    return [old + more for old, more in zip(sums, new, strict=True)] if sums else new


class Reference:
    """Gradient descent by `propagate_rows`: the state of M models and how it advances."""

    name = "reference"

    def __init__(
        self, rows: Array, sign: Array, w: Array, b: Array, rates: Array, chunk: int | None = None
    ) -> None:
        self.rows, self.sign, self.rates, self.chunk = rows, sign, rates, chunk
        self.w, self.b = w, b
        self.gradient: Gradient | None = None

    def run(self, iterations: int) -> np.ndarray:
        """Advance by so many iterations; returns their costs (iterations, M), copied from the device once."""
        xp = namespace(self.rows)
        costs = xp.empty((iterations, len(self.b)), dtype=xp.float64)
        # A diverged model works on with infinities until the caller looks at the costs; that is no news by then.
        with np.errstate(all="ignore"):
            for i in range(iterations):
                gradient = propagate_rows(self.rows, self.sign, self.w, self.b, self.chunk)
                costs[i] = gradient.cost
                self.w = self.w - self.rates[:, None] * gradient.dw
                self.b = self.b - self.rates * gradient.db
                self.gradient = gradient
        return to_host(costs)
