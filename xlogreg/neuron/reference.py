"""The plain reference: one iteration of gradient descent, written as its formulas, on NumPy or CuPy alike.

Every other implementation must equal this one bit for bit. It trains M models on the same samples at once (one
neuron each); M = 1 is the tutorial. Shapes, with m samples of d features::

    P (m, d)   uint8 pixels, one sample a row (or float features)
    y (M, m)   labels 0 or 1;  sign = 1 - 2 y is +1 or -1
    W (M, d), b (M,)   float64

Forward      z = (P . w) / 255 + b,  exact sums over d, rounded once
Loss         v = sign z;  p = sigmoid(v) is the probability given to the wrong class;  loss = softplus(v)
             (with A = sigmoid(z): loss = -y log A - (1 - y) log(1 - A), and A - y = sign p, with no cancellation)
Backward     r = sign p;  dw = (r . P) / (255 m);  db = (sum of r) / m;  cost = (sum of loss) / m,  exact sums over m,
             on grids that follow from the largest |r| of all samples, so that small costs and gradients are as accurate
Update       w = w - rate dw;  b = b - rate db,  the product and the difference rounded separately

The options of `neuron.options.DescentOptions` change it so; every product, sum and quotient is rounded separately, in
the order of the brackets. Options that are not given leave the lines above as they are.

Weights      c (M, m) >= 0, a sample's class weight times its sample weight:  r = (sign p) c;  loss = softplus(v) c;
             the divisions stay those by m. c = 1 gives the bits of no weights.
L2           g = dw + (lambda w);  cost = ((sum of loss) / m) + ((0.5 lambda) S),  S = sum of w_j w_j, each square
             rounded, then summed exactly below 2^max(2 e, -900), e the exponent of w;  the cost is NaN where e > 450.
             w is the one before the update. Without L2 g = dw. The bias has no penalty: gb = db.
Momentum     v = (mu v) + g, vb = (mu vb) + gb, from zeros;  step = v, or with Nesterov step = g + (mu v), the new v
Update       w = w - rate step;  b = b - rate step of b
Slope        max(max|g_j|, |gb|), which is compared with the gradient tolerance

The samples are worked through in chunks, converted to float64 one chunk at a time; the sums are exact, so the size of
the chunks changes no bit. Float features use the same lines with unsplit products: identical to rounding only.
"""

from typing import Any

from ..arrays import namespace
from .elementary import sigmoid, sigmoid_and_softplus
from .exact import (
    LARGEST_WEIGHT,
    LOSS_ABOVE,
    PIXEL_SCALE,
    exact_sum,
    exponent_of,
    loss_bits,
    scale_and_shift,
    sum_of_squares,
)
from .products import float_chunks, over_features, over_samples
from .state import Gradient

Array = Any

# Up to here the cost is promised to be finite (the losses are summed below 2^20); beyond, training has diverged.
LARGEST_Z = 1e6


def propagate_rows(
    rows: Array,
    sign: Array,
    w: Array,
    b: Array,
    chunk: int | None = None,
    *,
    weights: Array | None = None,
    l2: float = 0.0,
) -> Gradient:
    """Forward and backward propagation of all models over all samples.

    Parameters
    ----------
    rows : (m, d) uint8 pixels or float features
    sign : (M, m) float64, +1 where the label is 0 and -1 where it is 1
    w, b : (M, d) and (M,) float64
    chunk : samples converted at a time; changes the speed and no bit
    weights : (M, m) float64 >= 0, what each sample counts; None is 1
    l2 : lambda of the penalty, 0 is none

    Returns
    -------
    Gradient; a cost is NaN where some |z| is not finite or exceeds 1e6, and where some |w| is not below 2^900 (with a
    penalty 2^450).
    """
    xp = namespace(rows, sign, w, b)
    m = len(rows)
    # Forward
    z = forward_rows(rows, w, b, chunk)
    # Loss
    p, loss = sigmoid_and_softplus(sign * z)
    r = sign * p
    if weights is not None:
        r = r * weights
        loss = loss * weights
    # Backward
    exponent = exponent_of(r)
    dw = backward_rows(rows, r, exponent, chunk)
    db = exact_sum(r, exponent) / m
    cost = exact_sum(loss, exponent + LOSS_ABOVE, loss_bits(m)) / m
    if l2:
        dw = dw + l2 * w
        cost = cost + (0.5 * l2) * sum_of_squares(w)
    return Gradient(dw, db, xp.where(_in_range(z, w), cost, xp.nan))


def _in_range(z: Array, w: Array) -> Array:
    """For each model whether its sums are what they should be; max passes a NaN on, and a comparison turns it down."""
    xp = namespace(z, w)
    return (xp.max(xp.abs(z), axis=-1) <= LARGEST_Z) & (xp.max(xp.abs(w), axis=-1) < LARGEST_WEIGHT)


def evaluate_rows(rows: Array, sign: Array, w: Array, b: Array, chunk: int | None = None) -> tuple[Array, Array]:
    """The cost (M,) without weights and penalty, and the number of wrong predictions (M,); arguments as above.

    A cost is not finite, or NaN, where that of `propagate_rows` is.
    """
    xp = namespace(rows, sign, w, b)
    z = forward_rows(rows, w, b, chunk)
    p, loss = sigmoid_and_softplus(sign * z)
    cost = exact_sum(loss, exponent_of(p) + LOSS_ABOVE, loss_bits(len(rows))) / len(rows)
    # The prediction is 1 where sigmoid(z) >= 0.5, which rounding lets begin a little below z = 0.
    wrong = (sigmoid(z) >= 0.5) != (sign < 0.0)
    return xp.where(_in_range(z, w), cost, xp.nan), wrong.sum(axis=-1)


def forward_rows(rows: Array, w: Array, b: Array, chunk: int | None = None) -> Array:
    """z = (P . w) / 255 + b, (M, m) float64, for all samples; without the division for float features."""
    xp = namespace(rows, w, b)
    if rows.dtype == xp.uint8:
        return scale_and_shift(*over_features(rows, w, chunk), b[:, None])
    z = xp.empty((len(w), len(rows)), dtype=xp.float64)
    for start, samples in float_chunks(rows, chunk):
        z[:, start : start + len(samples)] = w @ samples.T
    return z + b[:, None]


def backward_rows(rows: Array, r: Array, exponent: Array, chunk: int | None = None) -> Array:
    """dw = (r . P) / (255 m), (M, d) float64, over all samples, |r| < 2^exponent; no 255 for float features."""
    xp = namespace(rows, r)
    m, d = rows.shape
    if rows.dtype == xp.uint8:
        return over_samples(rows, r, exponent, chunk) / (PIXEL_SCALE * m)
    dw = xp.zeros((len(r), d), dtype=xp.float64)
    for start, samples in float_chunks(rows, chunk):
        dw += r[:, start : start + len(samples)] @ samples
    return dw / m
