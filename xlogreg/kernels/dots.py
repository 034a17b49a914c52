"""What a solver does with vectors of one number a feature, compiled: twins of `Objective.dots` and its neighbours."""

import math
from typing import Any

import numpy as np
from numba import njit

from ..neuron.exact import MAX_SQUARE_EXPONENT, MIN_EXPONENT, PRODUCT_BITS
from .arithmetic import OPTIONS, total_of
from .keeping import kept
from .sources import digest_of

Array = Any

# Bits of the first piece; the second has the rest.
_HALF = 26
# Of a number's bits those without its sign, and those of infinity.
_SIZE, _INFINITE = 2**63 - 1, 0x7FF << 52


def _compile(sources: str) -> tuple[Any, Any, Any, Any]:
    """The functions; `sources` is a key for Numba's cache."""

    @kept()
    def dots(u: Array, vectors: Array, results: Array) -> None:
        """results[i] = the exact dot product of u and vectors[i]."""
        assert len(sources) > 0
        e = _exponent_of(u)
        for i in range(len(vectors)):
            v = vectors[i]
            f = _exponent_of(v)
            if max(e, f) > MAX_SQUARE_EXPONENT:
                results[i] = math.nan
                continue
            exponent = max(e + f, MIN_EXPONENT)
            # The two pieces of `exact.split`, of 26 bits each: the last bits of piece and constant count its units.
            first = math.ldexp(1.5, exponent + 52 - _HALF)
            second = math.ldexp(1.5, exponent + 52 - PRODUCT_BITS)
            first_bits, second_bits = _bits_of(first), _bits_of(second)
            low, high = np.int64(0), np.int64(0)
            for j in range(len(u)):
                product = u[j] * v[j]
                upper = product + first
                lower = (product - (upper - first)) + second
                high += _bits_of(upper) - first_bits
                low += _bits_of(lower) - second_bits
            results[i] = total_of(low, high, PRODUCT_BITS - _HALF) * math.ldexp(1.0, exponent - PRODUCT_BITS)

    @kept()
    def add_multiples(v: Array, factors: Array, vectors: Array) -> None:
        """v = v + factors[0] vectors[0] + factors[1] vectors[1] .., in this order, each product and sum rounded."""
        assert len(sources) > 0
        for i in range(len(vectors)):
            factor, other = factors[i], vectors[i]
            for j in range(len(v)):
                v[j] = v[j] + factor * other[j]

    @kept()
    def add_rows(rows: Array, totals: Array) -> None:
        """totals = totals + the sum of the rows, whole numbers."""
        assert len(sources) > 0
        for i in range(len(rows)):
            row = rows[i]
            for j in range(len(totals)):
                totals[j] += row[j]

    @kept()
    def two_loops(sy: Array, yy: Array, gs: Array, gy: Array, places: Array, of_s: Array, of_y: Array) -> float:
        """As `Objective.two_loops`, into of_s and of_y, which are zeros."""
        assert len(sources) > 0
        count = len(places)
        for k in range(count - 1, -1, -1):
            i = places[k]
            product = gs[i]
            for other in range(k + 1, count):
                product = product - of_y[places[other]] * sy[i, places[other]]
            of_y[i] = product / sy[i, i]
        newest = places[count - 1]
        scale = sy[newest, newest] / yy[newest, newest]
        for k in range(count):
            i = places[k]
            product = gy[i]
            for other in range(count):
                product = product - of_y[places[other]] * yy[i, places[other]]
            product = scale * product
            for other in range(k):
                product = product + of_s[places[other]] * sy[places[other], i]
            of_s[i] = of_y[i] - product / sy[i, i]
        return scale

    return dots, add_multiples, add_rows, two_loops


@njit(**OPTIONS)
def _exponent_of(v: Array) -> int:
    """As in `exact`; beyond all where a number is not finite."""
    # Sizes of numbers are in the order of their bits, of which many are compared at a time.
    largest, bits = np.int64(0), v.view(np.int64)
    for j in range(len(v)):
        largest = max(largest, bits[j] & _SIZE)
    if largest >= _INFINITE:
        return MAX_SQUARE_EXPONENT + 1
    return max(int(largest >> 52) - 1022, MIN_EXPONENT) if largest else 0


@njit(**OPTIONS)
def _bits_of(number: float) -> Any:
    return np.float64(number).view(np.int64)


MODULES = ("kernels/dots", "neuron/exact")
dots, add_multiples, add_rows, two_loops = _compile(digest_of(*MODULES))
