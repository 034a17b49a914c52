"""The scalar arithmetic of the fused CPU kernel: twins of `elementary` and `exact`, compiled by Numba.

The same operations in the same order as there, so the same bits. Numba contracts nothing to fused multiply-adds unless
asked to, and here it is not asked.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from ..neuron.elementary import EXP_COEFFICIENTS, EXP_FLOOR, LN2_HIGH, LN2_LOW, LOG2_E, LOG_COEFFICIENTS
from .vectors import power_of_two

_LAST_EXP = len(EXP_COEFFICIENTS) - 1


# For functions that Python calls (`keeping`), and for those that only compiled ones call, which compile sooner. These
# have no cache of their own: the outermost function's holds all that it calls, under a key that knows all sources.
CALLED: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
OPTIONS: dict[str, Any] = {**CALLED, "no_cpython_wrapper": True}


@njit(**OPTIONS)
def halves_of(scaled: float, unit: float) -> tuple[Any, Any]:
    """Two 32-bit integers of a number |scaled| <= 1 in fixed point: scaled = lower unit + 2^-26 upper, rounded.

    unit : 2^-52 to 2^-56
    """
    constant, small = 1.5 * 2.0**26, unit * (1.5 * 2.0**52)
    first = (scaled + constant) - constant
    second = ((scaled - first) + small) - small
    return np.int32(second * (1.0 / unit)), np.int32(first * 2.0**26)


@njit(**OPTIONS)
def total_of(low: int, high: int, half: int) -> float:
    """low + 2^half high as float64, rounded once, for half <= 36: the twin of `products.round_whole`."""
    upper, lower = parts_of(low, high, half)
    return upper + lower


@njit(**OPTIONS)
def parts_of(low: int, high: int, half: int) -> tuple[float, float]:
    """low + 2^half high as the sum of two numbers, 2^36 k and one from 0 to below 2^36, both exact."""
    high = high + (low >> half)
    low = low & ((1 << half) - 1)
    rest = 36 - half
    return float(high >> rest) * 2.0**36, float(((high & ((1 << rest) - 1)) << half) | low)


@njit(**OPTIONS)
def exp_negative(x: float) -> float:
    x = max(x, EXP_FLOOR)
    k = (x * LOG2_E + 1.5 * 2.0**52) - 1.5 * 2.0**52
    high = x - k * LN2_HIGH
    low = k * LN2_LOW
    r = high - low
    c = (high - r) - low
    q = r * EXP_COEFFICIENTS[0]
    for i in range(1, _LAST_EXP):
        q = (q + EXP_COEFFICIENTS[i]) * r
    q = (q + EXP_COEFFICIENTS[_LAST_EXP]) * (r * r)
    q = ((q + c) + r) + 1.0
    return q * power_of_two(k)


@njit(**OPTIONS)
def log1p_positive(t: float) -> float:
    half, k = math.frexp(t + 1.0)
    large = t > 1.0
    number = float(k - 1) if large else 0.0
    return (log1p_unit(half * 2.0 - 1.0 if large else t) + number * LN2_LOW) + number * LN2_HIGH


@njit(**OPTIONS)
def log1p_unit(t: float) -> float:
    upper = t >= 0.5
    f = (t - 1.0) * 0.5 if upper else t
    s = f / (f + 2.0)
    s2 = s * s
    series = s2 * LOG_COEFFICIENTS[0]
    for i in range(1, len(LOG_COEFFICIENTS)):
        series = (series + LOG_COEFFICIENTS[i]) * s2
    half_square = (f * f) * 0.5
    series = (series + half_square) * s
    series = series + (LN2_LOW if upper else 0.0)
    f = f - (half_square - series)
    return f + (LN2_HIGH if upper else 0.0)
