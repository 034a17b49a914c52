"""What a solver does with vectors of one number a feature, compiled: twins of `Objective.dots` and its neighbours."""

import math
from typing import Any

import numpy as np
from numba import njit

from ..neuron.exact import MAX_SQUARE_EXPONENT, MIN_EXPONENT, PRODUCT_BITS
from .arithmetic import OPTIONS, halves_of, total_of
from .keeping import kept
from .sources import digest_of

Array = Any


def _compile(sources: str) -> tuple[Any, Any, Any]:
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
            down = math.ldexp(1.0, -exponent)
            low, high = np.int64(0), np.int64(0)
            for j in range(len(u)):
                lower, upper = halves_of((u[j] * v[j]) * down, 2.0**-PRODUCT_BITS)
                low += lower
                high += upper
            results[i] = total_of(low, high, PRODUCT_BITS - 26) * math.ldexp(1.0, exponent - PRODUCT_BITS)

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

    return dots, add_multiples, add_rows


@njit(**OPTIONS)
def _exponent_of(v: Array) -> int:
    """As in `exact`; beyond all where a number is not finite."""
    largest, bad = 0.0, np.int64(0)
    for j in range(len(v)):
        size = abs(v[j])
        largest = max(largest, size)
        bad += np.int64(not size < math.inf)
    return MAX_SQUARE_EXPONENT + 1 if bad else max(math.frexp(largest)[1], MIN_EXPONENT)


MODULES = ("kernels/dots", "neuron/exact")
dots, add_multiples, add_rows = _compile(digest_of(*MODULES))
