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
from .arithmetic import OPTIONS, exp_negative, halves_of, log1p_unit, parts_of, total_of

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
def residuals_and_losses(
    low: Array,
    high: Array,
    sign: Array,
    sample_weight: Array,
    scale: float,
    bias: float,
    down: float,
    loss_constants: Array,
    residuals: Array,
    totals: Array,
    numbers: Array,
) -> None:
    """From the forward sums of a block to its residuals, whole numbers; adds to the totals of residuals and losses.

    low, high : the sums, one a sample; sample_weight : of each sample, or empty; down : 2^-e, |residual| < 2^e is hoped
    totals : the sums of the residuals' low and high halves and of the losses' three pieces, how many z were bad, and
        at LARGEST_RESIDUAL the largest |residual|, by which the caller sees whether the hope was right
    """  # fmt: skip
    samples = len(sign)
    v_, p_, loss_ = numbers[0], numbers[1], numbers[2]
    for s in range(samples):
        upper, lower = parts_of(low[s], high[s], 32)
        v_[s] = sign[s] * scale_and_shift(upper * scale, lower * scale, bias)
    bad = np.int64(0)
    for s in range(samples):
        v = v_[s]
        in_range = abs(v) <= LARGEST_Z
        bad += np.int64(not in_range)
        t = exp_negative(-abs(v))
        inverse = 1.0 / (t + 1.0)
        # NaN has no whole number; the cost will be NaN.
        p_[s] = sign[s] * (inverse if v >= 0.0 else t * inverse) if in_range else 0.0
        loss_[s] = (v if v > 0.0 else 0.0) + log1p_unit(t)
    for s in range(len(sample_weight)):
        p_[s] = p_[s] * sample_weight[s]
        loss_[s] = loss_[s] * sample_weight[s]
    largest = 0.0
    for s in range(samples):
        largest = max(largest, abs(p_[s]))
    totals[LARGEST_RESIDUAL] = max(totals[LARGEST_RESIDUAL], largest)
    fixed_point(p_[:samples], down, PRODUCT_BITS, 0, residuals)
    c1, c2, c3 = loss_constants[0], loss_constants[1], loss_constants[2]
    has_third = loss_constants[3]
    low_sum, high_sum = np.int64(0), np.int64(0)
    for s in range(samples):
        low_sum += residuals[s] & (2**26 - 1)
        high_sum += residuals[s] >> 26
    for s in range(samples):
        # v is no longer needed, nor is p: their places take the pieces.
        loss = loss_[s] * down
        first = (loss + c1) - c1
        rest = loss - first
        second = (rest + c2) - c2
        rest = rest - second
        v_[s] = first
        p_[s] = second
        loss_[s] = ((rest + c3) - c3) * has_third
    totals[0] += low_sum
    totals[1] += high_sum
    totals[2] += _sum(v_[:samples])
    totals[3] += _sum(p_[:samples])
    totals[4] += _sum(loss_[:samples])
    totals[5] += bad


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
def largest_residual(totals: Array, model: int) -> float:
    """That all threads saw."""
    largest = 0.0
    for thread in range(len(totals)):
        largest = max(largest, totals[thread, model, LARGEST_RESIDUAL])
    return largest


@njit(**OPTIONS)
def residuals_fit(totals: Array, residual_exponents: Array) -> bool:
    """Whether the residuals have the exponents that they were taken to have."""
    for model in range(len(residual_exponents)):
        if exponent_of(largest_residual(totals, model)) != residual_exponents[model]:
            return False
    return True
