"""The parts of an iteration of the fused CPU kernel: what one thread does with its features, or with a block.

`cpu` puts them together; arrays are those of `FusedCPU`.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from ..neuron.exact import FEW, LARGEST_EXPONENT, MAX_SQUARE_EXPONENT, WEIGHT_BITS, WEIGHT_BITS_OF_FEW
from .arguments import Kept, Own, Problem, Shared, State
from .arithmetic import OPTIONS
from .differences import KEPT, LARGEST, MOST_SHIFT, ORDER, ORDERS, accumulate, choose, differences
from .digits import DIGITS
from .elementwise import (
    add_losses,
    add_residuals,
    add_squares,
    fixed_point,
    of_square,
    outputs_of,
    sigmoid_and_loss,
    softmax_and_loss,
    update_weights,
)
from .pixel_sums import (
    ROOM,
    add_few,
    backward,
    cut_residuals,
    cut_weights,
    flush,
    forward,
    join,
    largest_digit,
    rows_for,
)

Array = Any

# Models that share the loading of the pixels.
GROUP = 8
# Digits are laid out in rows of whole cache lines, which no two threads share.
LINE = 64
# The two plans of a model.
OF_WEIGHTS, OF_RESIDUALS = 0, 1
# Of a grid that no numbers have.
NO_EXPONENT = 2**20


@njit(**OPTIONS)
def plan(
    plans: Array, base: Array, residual_base: Array, exponents: Array, residual_exponents: Array, orders: int
) -> None:
    """What to multiply in the next iteration, for all models; `base` is the exponent of the weights' grid, and
    `residual_base` of the residuals'."""
    for model in range(len(exponents)):
        plan = plans[model, OF_RESIDUALS]
        choose(plan, orders)
        if residual_exponents[model] != residual_base[model]:
            begin_anew(plan, orders)
            residual_base[model] = residual_exponents[model]
        plan = plans[model, OF_WEIGHTS]
        choose(plan, orders)
        shift = exponents[model] - base[model]
        if shift < 0 or shift > MOST_SHIFT or (shift > 0 and plan[ORDER] == 0):
            begin_anew(plan, orders)
            base[model] = exponents[model]


@njit(**OPTIONS)
def weight_bits(features: int) -> int:
    """As in `exact`."""
    return WEIGHT_BITS_OF_FEW if features <= FEW else WEIGHT_BITS


@njit(**OPTIONS)
def begin_anew(plan: Array, orders: int) -> None:
    """On a grid of their own, which the differences of before do not fit."""
    plan[:LARGEST] = 0
    plan[KEPT] = min(1, orders)


@njit(**OPTIONS)
def gather(plans: Array, largest: Array, side: int) -> None:
    """The largest numbers that any thread saw, into the plans; clears the threads'."""
    for model in range(len(plans)):
        for thread in range(len(largest)):
            for order in range(ORDERS + 1):
                place = LARGEST + order
                plans[model, side, place] = max(plans[model, side, place], largest[thread, model, side, order])
                largest[thread, model, side, order] = 0


@njit(**OPTIONS)
def prepare_weights(
    w: Array, exponents: Array, base: Array, plans: Array, kept: Array, weights: Array, numbers: Array, largest: Array,
    rule: Array, totals: Array, first: int, last: int,
) -> None:  # fmt: skip
    """Differences and digits of the weights of features first .. last - 1; numbers : (2, M, d) to work in."""
    for model in range(len(w)):
        values, chosen = numbers[0, model, first:last], numbers[1, model, : w.shape[1]]
        if exponents[model] > LARGEST_EXPONENT:
            values[:] = 0  # weights that have no whole numbers; the cost will be NaN
        else:
            fixed_point(
                w[model, first:last], math.ldexp(1.0, -exponents[model]), weight_bits(w.shape[1]),
                exponents[model] - base[model], values,
            )  # fmt: skip
        differences(
            plans[model, OF_WEIGHTS], kept[model], first, values, chosen[first:last], largest[model, OF_WEIGHTS]
        )  # fmt: skip
        cut_weights(chosen, weights, model, first, last)
        if rule[model, 0] != 0.0 and exponents[model] <= MAX_SQUARE_EXPONENT:
            down = math.ldexp(1.0, -of_square(exponents[model]))
            add_squares(w[model], down, first, last, totals[model])


@njit(**OPTIONS)
def propagate(
    problem: Problem, state: State, kept: Kept, shared: Shared, own: Own, thread: int, first: int, last: int
) -> None:
    """Forward and backward propagation of a block by this thread: samples first .. last - 1, all models."""
    rows, sign, sample_weight, _, _, loss_constants, _, _, classes = problem
    base, _, plans, _, kept_sums, kept_residuals, _ = kept
    b, residual_exponents, weights = state.b, state.residual_exponents, shared.digits
    largest, low, high, totals = shared.seen[thread], shared.low[thread], shared.high[thread], shared.totals[thread]
    products, cut, narrow, pending = own.products[thread], own.cut[thread], own.narrow[thread], own.pending[thread]
    tile, numbers, whole, outputs = own.tile[thread], own.numbers[thread], own.whole[thread], own.outputs[thread]
    pixels = rows[first:last]
    samples, features = pixels.shape
    places = np.empty(GROUP * DIGITS, np.int64)
    value_low, value_high = whole[0, :samples], whole[1, :samples]
    other_low, other_high = whole[2, :samples], whole[3, :samples]
    residuals, chosen = whole[4, :samples], whole[5, :samples]
    for begin in range(0, len(b), GROUP):
        end = min(begin + GROUP, len(b))
        # Of a type of their own: a plain 0 would have `forward` and others compiled twice.
        count, digit = np.int64(0), np.int64(1)
        for i in range(begin, end):
            plan = plans[i, OF_WEIGHTS]
            most = plan[LARGEST + plan[ORDER]]
            digit = max(digit, largest_digit(most))
            for k in range(rows_for(most)):
                places[count] = i * DIGITS + k
                count += 1
        forward(pixels, weights, places, count, digit, products)
        column = np.int64(0)
        for i in range(begin, end):
            plan = plans[i, OF_WEIGHTS]
            width = rows_for(plan[LARGEST + plan[ORDER]])
            join(products, column, width, value_low, value_high)
            column += width
            accumulate(plan, kept_sums[i, 0], kept_sums[i, 1], first, value_low, value_high, other_low, other_high)
            outputs_of(
                value_low, value_high, math.ldexp(1.0, base[i] - weight_bits(features)), b[i], outputs[i, :samples]
            )  # fmt: skip
    losses = numbers[0, :samples]
    for i in range(0, len(b), classes):
        last_of_model = i + classes
        if classes == 1:
            bad = sigmoid_and_loss(outputs[i, :samples], sign[i, first:last], losses)
        else:
            bad = softmax_and_loss(
                outputs[i:last_of_model, :samples], sign[i:last_of_model, first:last], losses, numbers[1:6, :samples]
            )  # fmt: skip
        totals[i, 5] += bad
        # A slice of what is empty is empty.
        add_losses(
            losses, sample_weight[i, first:last], math.ldexp(1.0, -residual_exponents[i]), loss_constants, totals[i],
            numbers[1, :samples], numbers[2, :samples],
        )  # fmt: skip
    for begin in range(0, len(b), GROUP):
        end = min(begin + GROUP, len(b))
        count = np.int64(0)
        for i in range(begin, end):
            add_residuals(
                outputs[i, :samples], sample_weight[i, first:last], math.ldexp(1.0, -residual_exponents[i]), residuals,
                totals[i],
            )  # fmt: skip
            plan = plans[i, OF_RESIDUALS]
            differences(plan, kept_residuals[i], first, residuals, chosen, largest[i, OF_RESIDUALS])
            most = np.int64(0)
            for s in range(samples):
                most = max(most, abs(chosen[s]))
            width = rows_for(most)
            room = samples * largest_digit(most)
            if pending[i, 1] + room > ROOM:
                flush(narrow, i, pending[i, 0], low[i, :features], high[i, :features], tile)
                pending[i, 0] = pending[i, 1] = 0
            pending[i, 0] = max(pending[i, 0], width)
            pending[i, 1] += room
            cut_residuals(chosen, width, cut, count)
            add_few(pixels, chosen, low[i, :features], high[i, :features])
            for k in range(width):
                places[count] = i * DIGITS + k
                count += 1
        backward(pixels, cut, places, count, narrow)


@njit(**OPTIONS)
def update(
    w: Array, velocity: Array, rates: Array, rule: Array, residual_exponents: Array, dw: Array, samples: int,
    low: Array, high: Array, plans: Array, kept: Array, numbers: Array, largest: Array, steepest: Array, first: int,
    last: int,
) -> None:  # fmt: skip
    """Add the threads' sums and update the weights of features first .. last - 1, all models."""
    for model in range(len(w)):
        value_low, value_high = low[0, model], high[0, model]
        for thread in range(1, len(low)):
            other_low, other_high = low[thread, model], high[thread, model]
            for j in range(first, last):
                value_low[j] += other_low[j]
                value_high[j] += other_high[j]
        for j in range(first, last):
            value_high[j] += value_low[j] >> 32
            value_low[j] &= 2**32 - 1
        accumulate(
            plans[model, OF_RESIDUALS], kept[model, 0], kept[model, 1], first, value_low[first:last],
            value_high[first:last], numbers[0, model, first:last], numbers[1, model, first:last],
        )  # fmt: skip
        largest[model], steepest[model] = update_weights(
            w[model], velocity[model], rates[model], rule[model], residual_exponents[model], dw[model], samples,
            value_low, value_high, first, last,
        )  # fmt: skip


@njit(**OPTIONS)
def clear(low: Array, high: Array, totals: Array) -> None:
    """Zeros, for a thread's sums of an iteration."""
    low[:] = 0
    high[:] = 0
    totals[:] = 0.0


@njit(**OPTIONS)
def share(features: int, thread: int, threads: int) -> int:
    """Where a thread's share of the features begins: with a cache line, so that no two threads write to one."""
    return min(features, (features + LINE - 1) // LINE * thread // threads * LINE)
