"""Exact sums from small numbers: only what is new since the iterations before is multiplied.

Let V_k be the fixed-point weights (or residuals) of iteration k, whole numbers of 52 to 55 bits, and S_k = P V_k the
sums over pixels that are wanted. Gradient descent moves smoothly, so the backward differences ::

    D^0 V_k = V_k,    D^(n+1) V_k = D^n V_k - D^n V_(k-1)

get smaller with their order n: the slow directions of the problem, which are all that is left after some iterations,
shrink by the factor (learning rate x curvature) with each order, down to the last bit's rounding. Sums over pixels are
linear, D^n S_k = P (D^n V_k), and in whole numbers that is exact. So the pixels are multiplied by the small numbers
D^n V_k, which have one or two digits where V_k has seven (of 8 bits), and S_k is D^n S_k plus the lower differences of
the sums of the iteration before, which were kept. Whatever the numbers do, S_k is exact; if they jump, their
differences are large, need more digits, and take longer.

The weights' grid follows the largest weight. Their differences stay on the grid that they began with while that is
little finer than the present one, and begin anew otherwise. The residuals' grid follows the largest residual; when it
changes, which is seldom, their differences begin anew.
"""

from typing import Any

import numpy as np
from numba import njit

from .arithmetic import OPTIONS
from .pixel_sums import rows_for

Array = Any

# Differences that are kept, at most: orders 0 .. ORDERS - 1, which give order ORDERS of the next iteration.
ORDERS = 8
# How much finer, in bits, than the present grid that of the differences may be.
MOST_SHIFT = 4
# A difference beyond this could overflow in those of higher order; |V_k| is at most 2^(55 + MOST_SHIFT).
_MOST = 2**60
_LOW32 = np.int64(2**32 - 1)
# What is kept may take this part of the bytes of the pixels, about.
_SHARE = 48
_MOST_FEATURES, _MOST_SAMPLES = 2**20, 2**26

# A plan's entries, one plan for each model's weights and one for its residuals: the order of the differences that are
# multiplied; how many are there of the iteration before; how many are kept of this one; the largest number of each
# order in this one, as far as it was computed.
ORDER, THERE, KEPT, LARGEST = 0, 1, 2, 3
PLAN = LARGEST + ORDERS + 1


def orders_for(samples: int, features: int, models: int) -> int:
    """How many differences to keep: none if they would take as much memory as the pixels, or as much time."""
    if features > _MOST_FEATURES or samples > _MOST_SAMPLES:
        return 0
    return min(ORDERS, features // (_SHARE * models), samples // (_SHARE * models))


@njit(**OPTIONS)
def choose(plan: Array, orders: int) -> None:
    """Plan the next iteration from what the last one saw: the lowest order of those with the fewest digits."""
    there = plan[KEPT]
    # Orders 0 .. known have a largest number; those of order `there` and below can be computed.
    known = min(plan[THERE], plan[KEPT])
    for order in range(known + 1):
        if plan[LARGEST + order] > _MOST:
            there = known = min(there, order)
            break
    best, fewest = 0, rows_for(plan[LARGEST])
    for order in range(1, known + 1):
        rows = rows_for(plan[LARGEST + order])
        if rows < fewest:
            best, fewest = order, rows
    plan[ORDER], plan[THERE] = best, there
    # One more each time, until one digit is enough.
    plan[KEPT] = min(best if fewest <= 1 else there + 1, orders)
    plan[LARGEST:] = 0


@njit(**OPTIONS)
def differences(plan: Array, kept: Array, first: int, values: Array, chosen: Array, largest: Array) -> None:
    """From the numbers D^0 to those of the plan's order, in `chosen`; `values` is used up.

    kept : (orders, n), of the iteration before; columns first .. first + len(values) - 1 become this one's
    largest : (ORDERS + 1,): raised to the largest number of each order
    """
    count, there = len(values), plan[THERE]
    for order in range(min(there, plan[KEPT]) + 1):
        top = np.int64(0)
        for s in range(count):
            top = max(top, abs(values[s]))
        largest[order] = max(largest[order], top)
        if order == plan[ORDER]:
            for s in range(count):
                chosen[s] = values[s]
        if order < plan[KEPT]:
            row = kept[order, first : first + count]
            if order < there:
                for s in range(count):
                    value = values[s]
                    values[s] = value - row[s]
                    row[s] = value
            else:
                for s in range(count):
                    row[s] = values[s]


@njit(**OPTIONS)
def accumulate(
    plan: Array, kept_low: Array, kept_high: Array, first: int, low: Array, high: Array, spare_low: Array,
    spare_high: Array,
) -> None:  # fmt: skip
    """From the sums D^n S of the plan's order, pairs low, high, to S itself in their place.

    kept_low, kept_high : (orders, n), of the iteration before; columns from `first` on become this one's
    """
    count, order = len(low), plan[ORDER]
    if order < plan[KEPT]:
        for s in range(count):
            spare_low[s], spare_high[s] = low[s], high[s]
    for n in range(order, plan[KEPT]):
        row_low, row_high = kept_low[n, first : first + count], kept_high[n, first : first + count]
        if n < plan[THERE]:
            for s in range(count):
                now_low, now_high = spare_low[s], spare_high[s]
                lower = now_low - row_low[s]
                spare_high[s] = now_high - row_high[s] + (lower >> 32)
                spare_low[s] = lower & _LOW32
                row_low[s], row_high[s] = now_low, now_high
        else:
            for s in range(count):
                row_low[s], row_high[s] = spare_low[s], spare_high[s]
    for n in range(order - 1, -1, -1):
        row_low, row_high = kept_low[n, first : first + count], kept_high[n, first : first + count]
        for s in range(count):
            lower = low[s] + row_low[s]
            upper = high[s] + row_high[s] + (lower >> 32)
            lower &= _LOW32
            low[s] = row_low[s] = lower
            high[s] = row_high[s] = upper
