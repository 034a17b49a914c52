"""An iteration of the fused CPU kernel but for the sums over pixels: sigmoid, loss and its rounding, residuals, cost
and update.

The same operations in the same order as in `reference`.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from ..neuron.exact import (
    LARGEST_EXPONENT,
    LARGEST_WEIGHT,
    MAX_SQUARE_EXPONENT,
    MIN_EXPONENT,
    PIXEL_SCALE,
    PRODUCT_BITS,
)
from ..neuron.reference import LARGEST_Z
from .arithmetic import OPTIONS, exp_negative, halves_of, log1p_positive, log1p_unit, parts_of, total_of

Array = Any

# A thread's totals of a model have so many places, two cache lines; this is the last that is used.
TOTALS, LARGEST_RESIDUAL = 16, 8


@njit(**OPTIONS)
def fixed_point(values: Array, down: float, bits: int, shift: int, numbers: Array) -> None:
    """Whole numbers: 2^bits values down, rounded, and 2^shift times that; |values down| <= 1."""
    unit, half = math.ldexp(1.0, -bits), bits - 26
    for j in range(len(values)):
        lower, upper = halves_of(values[j] * down, unit)
        numbers[j] = (np.int64(lower) + (np.int64(upper) << half)) << shift


@njit(**OPTIONS)
def outputs_of(low: Array, high: Array, scale: float, bias: float, z: Array) -> None:
    """z of a block from its forward sums, pairs low, high, one a sample."""
    for s in range(len(z)):
        upper, lower = parts_of(low[s], high[s], 32)
        z[s] = scale_and_shift(upper * scale, lower * scale, bias)


@njit(**OPTIONS)
def sigmoid_and_loss(z: Array, sign: Array, losses: Array) -> Any:
    """From z of a block to its residuals, in their place, and losses; how many z were bad."""
    bad = np.int64(0)
    for s in range(len(z)):
        v = sign[s] * z[s]
        in_range = abs(v) <= LARGEST_Z
        bad += np.int64(not in_range)
        t = exp_negative(-abs(v))
        inverse = 1.0 / (t + 1.0)
        # NaN has no whole number; the cost will be NaN.
        z[s] = sign[s] * (inverse if v >= 0.0 else t * inverse) if in_range else 0.0
        losses[s] = (v if v > 0.0 else 0.0) + log1p_unit(t)
    return bad


@njit(**OPTIONS)
def softmax_and_loss(z: Array, sign: Array, losses: Array, numbers: Array) -> Any:
    """The same for K classes, z (K, n) and sign (K, n): `elementary.softmax_and_loss`; numbers : (5, n) to work in."""
    classes, samples = z.shape
    top, place, others, rest, of_wanted = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    bad = np.int64(0)
    for s in range(samples):
        top[s], place[s], others[s], rest[s], of_wanted[s] = z[0, s], 0.0, 0.0, 0.0, 0.0
    for k in range(1, classes):
        for s in range(samples):
            if z[k, s] > top[s]:
                top[s], place[s] = z[k, s], float(k)
    for k in range(classes):
        for s in range(samples):
            # Of what is out of range, nothing but that it is so: the mark goes where no class is.
            if not abs(z[k, s]) <= LARGEST_Z:
                place[s] = -1.0
                top[s] = 0.0
    for k in range(classes):
        for s in range(samples):
            in_range = place[s] >= 0.0
            share = exp_negative(-abs(z[k, s] - top[s])) if in_range else 0.0
            counted = 0.0 if place[s] == float(k) else share
            wanted = sign[k, s] < 0.0
            others[s] = others[s] + counted
            rest[s] = rest[s] + (0.0 if wanted else counted)
            of_wanted[s] = z[k, s] if wanted else of_wanted[s]
            z[k, s] = share
    for s in range(samples):
        bad += np.int64(place[s] < 0.0)
        losses[s] = log1p_positive(others[s]) + (top[s] - of_wanted[s]) if place[s] >= 0.0 else 0.0
    for k in range(classes):
        for s in range(samples):
            total = others[s] + 1.0
            missing = others[s] if place[s] == float(k) else rest[s] + 1.0
            residual = -(missing / total) if sign[k, s] < 0.0 else z[k, s] / total
            z[k, s] = residual if place[s] >= 0.0 else 0.0
    return bad


@njit(**OPTIONS)
def add_residuals(r: Array, sample_weight: Array, down: float, residuals: Array, totals: Array) -> None:
    """From the residuals of a block to whole numbers; adds to the totals of residuals.

    r : is used up; sample_weight : of each sample, or empty; down : 2^-e, |residual| < 2^e is hoped
    totals : the sums of the residuals' low and high halves, and at LARGEST_RESIDUAL the largest |residual|, by which
        the caller sees whether the hope was right
    """
    for s in range(len(sample_weight)):
        r[s] = r[s] * sample_weight[s]
    largest = 0.0
    for s in range(len(r)):
        largest = max(largest, abs(r[s]))
    totals[LARGEST_RESIDUAL] = max(totals[LARGEST_RESIDUAL], largest)
    fixed_point(r, down, PRODUCT_BITS, 0, residuals)
    low_sum, high_sum = np.int64(0), np.int64(0)
    for s in range(len(r)):
        low_sum += residuals[s] & (2**26 - 1)
        high_sum += residuals[s] >> 26
    totals[0] += low_sum
    totals[1] += high_sum


@njit(**OPTIONS)
def add_losses(
    losses: Array, sample_weight: Array, down: float, constants: Array, totals: Array, first_: Array, second_: Array
) -> None:
    """Adds the three pieces of a block's losses to the totals; losses, first_, second_ : are used up."""
    c1, c2, c3, has_third = constants[0], constants[1], constants[2], constants[3]
    for s in range(len(sample_weight)):
        losses[s] = losses[s] * sample_weight[s]
    for s in range(len(losses)):
        loss = losses[s] * down
        first = (loss + c1) - c1
        rest = loss - first
        second = (rest + c2) - c2
        rest = rest - second
        first_[s] = first
        second_[s] = second
        losses[s] = ((rest + c3) - c3) * has_third
    totals[2] += _sum(first_)
    totals[3] += _sum(second_)
    totals[4] += _sum(losses)


@njit(**OPTIONS)
def scale_and_shift(upper: float, lower: float, shift: float) -> float:
    """(upper + lower) / 255 + shift, rounded once: the twin of the function in `exact`; |lower| < |upper| or 0."""
    total = upper + lower
    rest = lower - (total - upper)
    q = total / PIXEL_SCALE
    remainder = ((total - q * 256.0) + q) + rest
    z = q + shift
    part = z - q
    return z + (((q - (z - part)) + (shift - part)) + remainder / PIXEL_SCALE)


@njit(fastmath={"reassoc"}, **OPTIONS)
def _sum(pieces: Array) -> float:
    """The sum of pieces, which is exact in any order; nothing else may be compiled with this option."""
    total = 0.0
    for s in range(len(pieces)):
        total += pieces[s]
    return total


@njit(**OPTIONS)
def add_squares(w: Array, down: float, first: int, last: int, totals: Array) -> None:
    """Adds to the totals the two halves of the sum of squares of w[first : last], where w^2 down lies within 0 .. 1."""
    low_sum, high_sum = np.int64(0), np.int64(0)
    for j in range(first, last):
        lower, upper = halves_of((w[j] * w[j]) * down, 2.0**-PRODUCT_BITS)
        low_sum += lower
        high_sum += upper
    totals[6] += low_sum
    totals[7] += high_sum


@njit(**OPTIONS)
def update_weights(
    w: Array,
    velocity: Array,
    rate: float,
    rule: Array,
    exponent: int,
    dw: Array,
    samples: int,
    low: Array,
    high: Array,
    first: int,
    last: int,
) -> tuple[float, float]:
    """Gradient and new weights of features first .. last - 1 of a model; low, high : its sums.

    Returns the largest of the weights, infinite where one is too large or NaN, and of the gradient.
    """
    l2, momentum, nesterov = rule[0], rule[2], rule[3] != 0.0
    scale = math.ldexp(1.0, exponent - PRODUCT_BITS)
    for j in range(first, last):
        dw[j] = (total_of(low[j], high[j], 32) * scale) / (PIXEL_SCALE * samples)
    if l2 != 0.0:
        for j in range(first, last):
            dw[j] = dw[j] + l2 * w[j]
    if momentum != 0.0:
        for j in range(first, last):
            v = momentum * velocity[j] + dw[j]
            velocity[j] = v
            step = dw[j] + momentum * v if nesterov else v
            w[j] = w[j] - rate * step
    else:
        for j in range(first, last):
            w[j] = w[j] - rate * dw[j]
    maximum, steep, too_large = 0.0, 0.0, np.int64(0)
    for j in range(first, last):
        maximum = max(maximum, abs(w[j]))
        steep = max(steep, abs(dw[j]))
        # max may pass over NaN.
        too_large += np.int64(not abs(w[j]) < LARGEST_WEIGHT)
    return math.inf if too_large else maximum, steep


@njit(**OPTIONS)
def update_bias(
    b: Array,
    velocity: Array,
    rates: Array,
    rule: Array,
    exponents: Array,
    residual_exponents: Array,
    db: Array,
    costs: Array,
    largest_entries: Array,
    samples: int,
    totals: Array,
    steepest: Array,
) -> None:
    """Cost, gradient and new bias of all models, and the largest entry of the gradient."""
    for model in range(len(b)):
        l2, half_l2, momentum, nesterov = rule[model, 0], rule[model, 1], rule[model, 2], rule[model, 3] != 0.0
        lower, upper, lower_square, upper_square = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        first, second, third, bad, steep = 0.0, 0.0, 0.0, 0.0, 0.0
        for thread in range(len(totals)):
            lower += np.int64(totals[thread, model, 0])
            upper += np.int64(totals[thread, model, 1])
            first += totals[thread, model, 2]
            second += totals[thread, model, 3]
            third += totals[thread, model, 4]
            bad += totals[thread, model, 5]
            lower_square += np.int64(totals[thread, model, 6])
            upper_square += np.int64(totals[thread, model, 7])
            steep = max(steep, steepest[thread, model])
        exponent = residual_exponents[model]
        gradient = (total_of(lower, upper, 26) * math.ldexp(1.0, exponent - PRODUCT_BITS)) / samples
        cost = (((first + second) + third) * math.ldexp(1.0, exponent)) / samples
        if l2 != 0.0:
            squares = total_of(lower_square, upper_square, PRODUCT_BITS - 26)
            cost = cost + half_l2 * (squares * math.ldexp(1.0, of_square(exponents[model]) - PRODUCT_BITS))
            if exponents[model] > MAX_SQUARE_EXPONENT:
                bad = 1.0
        if exponents[model] > LARGEST_EXPONENT:
            bad = 1.0
        db[model] = gradient
        largest_entries[model] = max(steep, abs(gradient))
        costs[model] = cost if bad == 0.0 else math.nan
        if momentum != 0.0:
            velocity[model] = momentum * velocity[model] + gradient
            step = gradient + momentum * velocity[model] if nesterov else velocity[model]
        else:
            step = gradient
        b[model] = b[model] - rates[model] * step


@njit(**OPTIONS)
def of_square(exponent: int) -> int:
    return max(2 * exponent, MIN_EXPONENT)


@njit(**OPTIONS)
def exponents_of(largest: Array, exponents: Array) -> None:
    """The exponents of the weights, from the largest that each thread saw; beyond the last where one is too large."""
    for model in range(len(exponents)):
        maximum = 0.0
        for thread in range(len(largest)):
            maximum = max(maximum, largest[thread, model])
        exponents[model] = exponent_of(maximum) if maximum < LARGEST_WEIGHT else LARGEST_EXPONENT + 1


@njit(**OPTIONS)
def exponent_of(largest: float) -> int:
    """The smallest e with largest < 2^e: 0 for 0, at least -900."""
    return max(math.frexp(largest)[1], MIN_EXPONENT)


@njit(**OPTIONS)
def largest_residual(totals: Array, model: int, classes: int) -> float:
    """That all threads saw, of all neurons of this one's softmax."""
    largest = 0.0
    first = model // classes * classes
    for thread in range(len(totals)):
        for neuron in range(first, first + classes):
            largest = max(largest, totals[thread, neuron, LARGEST_RESIDUAL])
    return largest


@njit(**OPTIONS)
def residuals_fit(totals: Array, residual_exponents: Array, classes: int) -> bool:
    """Whether the residuals have the exponents that they were taken to have."""
    for model in range(0, len(residual_exponents), classes):
        if exponent_of(largest_residual(totals, model, classes)) != residual_exponents[model]:
            return False
    return True
