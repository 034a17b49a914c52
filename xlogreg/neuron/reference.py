"""The plain reference: cost and gradient, written as their formulas, on NumPy or CuPy alike.

Every other implementation must equal this one bit for bit. The formulas of the update stand here too, so that all of an
iteration can be read; `solvers` carries them out. There are M models on the same samples (one neuron each); M = 1 is
the tutorial. Shapes, with m samples of d features::

    P (m, d)   uint8 pixels, one sample a row (or float features)
    y (M, m)   labels 0 or 1;  sign = 1 - 2 y is +1 or -1
    W (M, d), b (M,)   float64

Forward      z = (P . w) / 255 + b,  exact sums over d, rounded once
Loss         v = sign z;  p = sigmoid(v) is the probability given to the wrong class;  loss = softplus(v)
             (with A = sigmoid(z): loss = -y log A - (1 - y) log(1 - A), and A - y = sign p, with no cancellation)
Backward     r = sign p, the residual;  dw = (r . P) / (255 m);  db = (sum of r) / m;  cost = (sum of loss) / m,
             exact sums over m, on grids that follow from the largest |r| of all samples, so relative accuracy does not
             fall as costs shrink
Update       w = w - rate dw;  b = b - rate db,  the product and the difference rounded separately

The options of `neuron.options.DescentOptions` change it so; every product, sum and quotient is rounded separately, in
the order of the brackets. Options that are not given leave the lines above as they are.

Weights      c (M, m) >= 0, a sample's class weight times its sample weight:  r = (sign p) c;  loss = softplus(v) c;
             the divisions stay those by m. c = 1 gives the bits of no weights.
L2           g = dw + (lambda w);  cost = ((sum of loss) / m) + ((0.5 lambda) S),  S = sum of w_j w_j, each square
             rounded, then summed exactly below 2^max(2 e, -900), e the exponent of w;  the cost is NaN where e > 450.
             w is the one before the update. Without L2 g = dw. The bias has no penalty: gb = db.
Momentum     u = (mu u) + g, ub = (mu ub) + gb, from zeros;  step = u, or with Nesterov step = g + (mu u), the new u
Update       w = w - rate step;  b = b - rate step of b
Tolerance    max(max|g_j|, |gb|) is compared with the gradient tolerance

The samples are worked through in parts, in two passes: all go forward before any goes backward, as the grids need the
largest |r| of all. The exact sums of a part are whole numbers on grids that all parts share, so parts are added in any
order, and rounded at the end only: a part may be a block, a thread's share or another machine's.
Float features use the same lines with unsplit products: identical to rounding only.
"""

from functools import reduce
from typing import Any, NamedTuple

from ..arrays import namespace, on_its_device
from .elementary import sigmoid, sigmoid_and_softplus, softmax_and_loss
from .exact import (
    LARGEST_WEIGHT,
    LOSS_ABOVE,
    PIXEL_SCALE,
    PRODUCT_BITS,
    exact_sum,
    exponent_of,
    loss_above,
    loss_bits,
    piece_sums,
    round_pieces,
    scale_and_shift,
    sum_of_squares,
)
from .objective import Gradient, Objective, check_arrays
from .products import BLOCK_TERMS, float_chunks, over_features, over_samples, round_whole

Array = Any

# Up to here the cost is promised to be finite (the losses are summed below 2^20); beyond, training has diverged.
LARGEST_Z = 1e6


class Reference(Objective):
    """Cost and gradient of all models over all samples by the formulas above.

    Parameters
    ----------
    rows, sign, sample_weight, l2 : as in `Objective`; float features are taken, too
    chunk : samples converted to float64 at a time; changes the speed and, for uint8 pixels, no bit
        (float features: identical to rounding)
    """

    name = "reference"

    def __init__(
        self, rows: Array, sign: Array, *, sample_weight: Array | None = None, l2: Array | None = None,
        classes: int = 1, chunk: int | None = None,
    ) -> None:  # fmt: skip
        check_arrays(rows, sign, sample_weight, l2, classes)
        self.classes = classes
        self.rows, self.sign, self.sample_weight, self.l2, self.chunk = rows, sign, sample_weight, l2, chunk

    def evaluate(self, w: Array, b: Array) -> Gradient:
        """Forward and backward propagation.

        A cost is NaN where some |z| is not finite or exceeds 1e6, and where some |w| is not below 2^900 (with a penalty
        2^450); dw and db are then not to be used.
        """
        m = len(self.rows)
        parts = [slice(first, first + BLOCK_TERMS) for first in range(0, m, BLOCK_TERMS)]
        outputs = [
            propagate_forward(
                self.rows[part], self.sign[:, part], w, b, self.chunk,
                None if self.sample_weight is None else self.sample_weight[:, part], self.classes,
            )
            for part in parts
        ]  # fmt: skip
        # Of the largest of all: a part without residuals (samples that count nothing, say) has no exponent of its own.
        exponent = exponent_of(reduce(namespace(w).maximum, (output.largest(self.classes) for output in outputs)))
        sums = (
            propagate_backward(self.rows[part], output, exponent, m, self.chunk, self.classes)
            for part, output in zip(parts, outputs, strict=True)
        )
        return gradient_of(reduce(Sums.plus, sums), exponent, m, w, self.l2, self.classes)


class Outputs(NamedTuple):
    """What the neurons make of n samples.

    z, residuals, losses : (M, n) float64; residuals of samples that are out of range are 0
    in_range : (M,) bool, whether the sums are what they should be

    With several classes all have a row a neuron; the losses of a model are in its first neuron's, and zeros elsewhere.
    """

    z: Array
    residuals: Array
    losses: Array
    in_range: Array

    def largest(self, classes: int = 1) -> Array:
        """The largest |residual| of each model, of all its neurons, (M, 1)."""
        xp = namespace(self.residuals)
        own = xp.max(xp.abs(self.residuals), axis=-1)
        if classes > 1:
            of_models = xp.max(own.reshape(-1, classes), axis=-1)[:, None]
            own = xp.ascontiguousarray(xp.broadcast_to(of_models, (len(of_models), classes))).reshape(-1)
        return own[:, None]


class Sums(NamedTuple):
    """Exact sums over n of all m samples.

    products : of residuals and pixels, (2, M, d) int64 as `over_samples` has them; (M, d) float64 of float features
    residuals, losses : (pieces, M) float64 as `piece_sums` of m terms
    in_range : (M,) bool
    """

    products: Array
    residuals: Array
    losses: Array
    in_range: Array

    def plus(self, other: "Sums") -> "Sums":
        """Of the samples of both; exact, so in any order."""
        return Sums(
            self.products + other.products, self.residuals + other.residuals, self.losses + other.losses,
            self.in_range & other.in_range,
        )  # fmt: skip


def propagate_forward(
    rows: Array, sign: Array, w: Array, b: Array, chunk: int | None = None, sample_weight: Array | None = None,
    classes: int = 1,
) -> Outputs:  # fmt: skip
    """Forward and loss, of these samples."""
    xp = namespace(rows, sign, w, b)
    # max passes a NaN on, and comparisons turn it down.
    usable = xp.max(xp.abs(w), axis=-1) < LARGEST_WEIGHT
    z = forward_rows(rows, xp.where(usable[:, None], w, 0.0), b, chunk)
    size = xp.abs(z)
    if classes == 1:
        p, loss = sigmoid_and_softplus(sign * z)
        r = xp.where(size <= LARGEST_Z, sign * p, 0.0)
    else:
        shape = (len(z) // classes, classes, len(rows))
        p, loss_of_model = softmax_and_loss(z.reshape(*shape), (sign < 0.0).reshape(*shape))
        good = xp.max(size.reshape(*shape), axis=1) <= LARGEST_Z
        r = xp.where(good[:, None], p, 0.0).reshape(*z.shape)
        loss = xp.zeros(z.shape, dtype=xp.float64)
        loss[::classes] = loss_of_model
    if sample_weight is not None:
        r = r * sample_weight
        loss = loss * sample_weight
    return Outputs(z, r, loss, usable & (xp.max(size, axis=-1) <= LARGEST_Z))


def propagate_backward(
    rows: Array, outputs: Outputs, exponent: Array, m: int, chunk: int | None = None, classes: int = 1
) -> Sums:
    """Backward and the sums of residuals and losses, of these samples out of m, on the grids of all m: |r| < 2^exponent
    for all residuals r, (M, 1)."""
    _, r, loss, in_range = outputs
    return Sums(
        products=backward_rows(rows, r, exponent, chunk),
        residuals=piece_sums(r, exponent, m),
        losses=piece_sums(loss, exponent + loss_above(classes), m, loss_bits(m)),
        in_range=in_range,
    )


def gradient_of(
    sums: Sums, exponent: Array, m: int, w: Array, l2: Array | None = None, classes: int = 1
) -> Gradient:
    """Cost and gradient from the sums over all m samples, which are rounded here and only here."""
    xp = namespace(w)
    if sums.products.dtype == xp.int64:
        dw = round_whole(sums.products, exponent, PRODUCT_BITS)[0] / (PIXEL_SCALE * m)
    else:
        dw = sums.products / m
    db = round_pieces(sums.residuals) / m
    cost = round_pieces(sums.losses) / m
    if l2 is not None:
        dw = xp.where(l2[:, None] > 0.0, dw + l2[:, None] * w, dw)
        cost = xp.where(l2 > 0.0, cost + (0.5 * l2) * sum_of_squares(w), cost)
    return Gradient(dw, db, cost_of_models(xp.where(sums.in_range, cost, xp.nan), classes))


def cost_of_models(cost: Array, classes: int) -> Array:
    """From the costs of neurons, (.., M K), those of models, (.., M): added in the order of the classes."""
    total = cost[..., ::classes]
    for k in range(1, classes):
        total = total + cost[..., k::classes]
    return total


def evaluate_rows(rows: Array, sign: Array, w: Array, b: Array, chunk: int | None = None) -> tuple[Array, Array]:
    """The cost (M,) without weights and penalty, and the number of wrong predictions (M,); arguments as above.

    A cost is NaN where that of `Reference` is.
    """
    xp = namespace(rows, sign, w, b)
    z, r, loss, in_range = propagate_forward(rows, sign, w, b, chunk)
    cost = exact_sum(loss, exponent_of(r) + LOSS_ABOVE, loss_bits(len(rows))) / len(rows)
    # The prediction is 1 where sigmoid(z) >= 0.5, which rounding lets begin a little below z = 0.
    wrong = (sigmoid(z) >= 0.5) != (sign < 0.0)
    return xp.where(in_range, cost, xp.nan), wrong.sum(axis=-1)


def forward_rows(rows: Array, w: Array, b: Array, chunk: int | None = None) -> Array:
    """z = (P . w) / 255 + b, (M, m) float64, for all samples; without the division for float features."""
    xp = namespace(rows, w, b)
    if rows.dtype == xp.uint8:
        return scale_and_shift(*over_features(rows, w, chunk), b[:, None])
    z = xp.empty((len(w), len(rows)), dtype=xp.float64)
    for start, samples in float_chunks(rows, chunk):
        z[:, start : start + len(samples)] = w @ samples.T
    return z + b[:, None]


@on_its_device
def output_rows(rows: Array, w: Array, b: Array, chunk: int | None = None) -> Array:
    """A = sigmoid(z), (M, m) float64: the probability of class 1."""
    return sigmoid(forward_rows(rows, w, b, chunk))


def backward_rows(rows: Array, r: Array, exponent: Array, chunk: int | None = None) -> Array:
    """r . P over these samples, as `Sums` has it; |r| < 2^exponent."""
    xp = namespace(rows, r)
    if rows.dtype == xp.uint8:
        return over_samples(rows, r, exponent, chunk)
    products = xp.zeros((len(r), rows.shape[1]), dtype=xp.float64)
    for start, samples in float_chunks(rows, chunk):
        products += r[:, start : start + len(samples)] @ samples
    return products
