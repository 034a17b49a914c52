"""What the fused CPU kernel is given, in groups. Shapes: M models, m samples of d features, T threads.

Arrays that begin with (T, ..) have a part for each thread. Integer sums are pairs low + 2^32 high.
"""

from typing import Any, NamedTuple

Array = Any


class Problem(NamedTuple):
    """What is trained on, and how; nothing of it changes.

    rows : (m, d) uint8 pixels
    sign : (M, m) float64, +1 where the label is 0 and -1 where it is 1
    sample_weight : (M, m) float64, what each sample counts, or (M, 0) where all count alike
    rates : (M,) float64, the learning rates
    rule : (M, 4) float64: l2, l2 / 2, the momentum, 1 or 0 for Nesterov's form
    loss_constants : (4,) float64, what rounds the losses to their three pieces, and whether there is a third
    block : samples of a block
    orders : differences that may be kept
    classes : K; with more than 1, models K k .. K k + K - 1 are the neurons of one softmax
    """

    rows: Array
    sign: Array
    sample_weight: Array
    rates: Array
    rule: Array
    loss_constants: Array
    block: int
    orders: int
    classes: int


class State(NamedTuple):
    """Where the models stand; advanced in place.

    w, b : (M, d) and (M,) float64
    velocity_w, velocity_b : the same shapes with momentum, (M, 0) and (0,) without
    exponents : (M,) int64, of the weights
    residual_exponents : (M,) int64, those that the residuals are taken to have
    """

    w: Array
    b: Array
    velocity_w: Array
    velocity_b: Array
    exponents: Array
    residual_exponents: Array


class Results(NamedTuple):
    """What comes out.

    costs, largest_entries : (iterations, M) float64; of each iteration's gradient the largest |entry|
    dw, db : (M, d) and (M,) float64, the last gradient
    work : (2,) int64, digits that were multiplied, of weights and of residuals
    """

    costs: Array
    largest_entries: Array
    dw: Array
    db: Array
    work: Array


class Kept(NamedTuple):
    """What is kept of the iterations before, for differences (see `differences`); O orders.

    base, residual_base : (M,) int64, the exponents of the grids that they are on
    plans : (M, 2, PLAN) int64, what is multiplied next, of weights and of residuals
    weights : (M, O, d) int64; sums : (M, 2, O, m) int64, low and high
    residuals : (M, O, m) int64; gradients : (M, 2, O, d) int64, low and high
    """

    base: Array
    residual_base: Array
    plans: Array
    weights: Array
    sums: Array
    residuals: Array
    gradients: Array


class Shared(NamedTuple):
    """To work in, where threads look at each other's parts.

    largest, steepest : (T, M) float64, the largest |w| and |dw| of a thread's share of the features
    seen : (T, M, 2, 2 ORDERS) int64, the largest differences that it saw
    digits : the digits of the weights, as `pixel_sums.shapes` has them
    low, high : (T, M, d rounded up) int64, the sums of the gradient
    totals : (T, M, TOTALS) float64, the sums of residuals and losses
    split : (2, M, d rounded up) int64, the weights in fixed point
    """

    largest: Array
    steepest: Array
    seen: Array
    digits: Array
    low: Array
    high: Array
    totals: Array
    split: Array


class Own(NamedTuple):
    """To work in, each thread for itself; of `pixel_sums.shapes` where nothing else is said.

    products : the forward sums; cut : the residuals' digits; narrow : the backward sums in 32 bits
    pending : (T, M, 2) int64, digits in the narrow sums, and how much of their room is taken
    tile : a tile of them in 64 bits
    numbers, whole : (T, 7, samples of a block) float64 and (T, 6, ..) int64
    outputs : (T, M, samples of a block) float64, z of a block, and then its residuals
    """

    products: Array
    cut: Array
    narrow: Array
    pending: Array
    tile: Array
    numbers: Array
    whole: Array
    outputs: Array
