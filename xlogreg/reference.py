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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import namespace, to_host
from .elementary import sigmoid_and_softplus
from .exact import BLOCK_TERMS, LOSS_BITS, LOSS_EXPONENT, add_products, exact_sum, exponent_of, split_for_products

Array = Any

PIXEL_SCALE = 255.0
# Up to here the cost is promised to be finite (the losses are summed below 2^20); beyond, training has diverged.
LARGEST_Z = 1e6

# A chunk of this many float64 stays in a core's second-level cache on the CPU and gives a GPU enough to do.
_CHUNK_ELEMENTS = {"numpy": 32 * 3072}
_CHUNK_ELEMENTS_GPU = 2**26


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
    m = len(rows)
    # Forward
    z = forward_rows(rows, w, b, chunk)
    # Loss
    p, loss = sigmoid_and_softplus(sign * z)
    r = sign * p
    # Backward
    dw = backward_rows(rows, r, chunk)
    db = exact_sum(r, 0) / m
    cost = exact_sum(loss, LOSS_EXPONENT, LOSS_BITS) / m
    # max passes a NaN on, and the comparison turns it down.
    in_range = xp.max(xp.abs(z), axis=-1) <= LARGEST_Z
    return Gradient(dw, db, xp.where(in_range, cost, xp.nan))


def forward_rows(rows: Array, w: Array, b: Array, chunk: int | None = None) -> Array:
    """z = (P . w) / 255 + b, (M, m) float64, for all samples; without the division for float features."""
    xp = namespace(rows, w, b)
    m, d = rows.shape
    if rows.dtype != xp.uint8:
        z = xp.empty((len(w), m), dtype=xp.float64)
        for start, samples in _float_chunks(rows, chunk):
            z[:, start : start + len(samples)] = w @ samples.T
        return z + b[:, None]
    exponent = exponent_of(w)
    pieces = split_for_products(w, exponent, d)
    blocks = [xp.empty((len(pieces), m), dtype=xp.float64) for _ in range(0, d, BLOCK_TERMS)]
    for start, samples in _float_chunks(rows, chunk):
        for i, block in enumerate(blocks):
            part = slice(i * BLOCK_TERMS, (i + 1) * BLOCK_TERMS)
            block[:, start : start + len(samples)] = pieces[:, part] @ samples[:, part].T
    return add_products(blocks, exponent) / PIXEL_SCALE + b[:, None]


def backward_rows(rows: Array, r: Array, chunk: int | None = None) -> Array:
    """dw = (r . P) / (255 m), (M, d) float64, summed over all samples; without the 255 for float features."""
    xp = namespace(rows, r)
    m, d = rows.shape
    if rows.dtype != xp.uint8:
        dw = xp.zeros((len(r), d), dtype=xp.float64)
        for start, samples in _float_chunks(rows, chunk):
            dw += r[:, start : start + len(samples)] @ samples
        return dw / m
    pieces = split_for_products(r, 0, m)
    blocks = []
    for first in range(0, m, BLOCK_TERMS):
        sums = xp.zeros((len(pieces), d), dtype=xp.float64)
        for start, samples in _float_chunks(rows[first : first + BLOCK_TERMS], chunk):
            sums += pieces[:, first + start : first + start + len(samples)] @ samples
        blocks.append(sums)
    return add_products(blocks, 0) / (PIXEL_SCALE * m)


def _float_chunks(rows: Array, chunk: int | None) -> Iterator[tuple[int, Array]]:
    """(start, samples as float64) for each chunk of rows; the samples are valid until the next are asked for."""
    xp = namespace(rows)
    if rows.dtype == xp.float64:
        step = chunk or len(rows)
        for start in range(0, len(rows), step):
            yield start, rows[start : start + step]
        return
    step = min(len(rows), chunk or max(1, _CHUNK_ELEMENTS.get(xp.__name__, _CHUNK_ELEMENTS_GPU) // rows.shape[1]))
    # One buffer for all chunks: fresh memory for each would cost more in page faults than the conversion itself.
    buffer = xp.empty((step, rows.shape[1]), dtype=xp.float64)
    for start in range(0, len(rows), step):
        samples = rows[start : start + step]
        buffer[: len(samples)] = samples
        yield start, buffer[: len(samples)]


class Reference:
    """Gradient descent by `propagate_rows`: the state of M models and how it advances."""

    name = "reference"

    def __init__(self, rows: Array, sign: Array, w: Array, b: Array, rates: Array, chunk: int | None = None) -> None:
        self.rows, self.sign, self.rates, self.chunk = rows, sign, rates, chunk
        self.w, self.b = w, b
        self.gradient: Gradient | None = None

    def prepare(self) -> None:
        """Nothing to compile."""

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
