"""The sums of `xlogreg.shrinking`, compiled by Numba: a weighted band of rows, then of columns, then 0..255.

Compiled without a promise of bits: the caller turns down whatever lies near a rounding's edge. The sums are taken in
float32 first, whose error has a bound, and taken again in float64 where that could decide.
"""

import numpy as np
from numba import njit, types

from .arithmetic import CALLED, CAN_CACHE, OPTIONS

# What decoders give may be read-only; arrays that are not fit too.
_PICTURE = types.Array(types.uint8, 2, "C", readonly=True)
_FIRST, _WEIGHTS = types.int64[::1], types.float64[:, ::1]
_SIGNATURE = types.boolean(_PICTURE, _FIRST, _WEIGHTS, _FIRST, _WEIGHTS, types.float64, types.uint8[:, :, ::1])

_BLOCK = 16


@njit(**OPTIONS)
def _precise(x, first, down, at, across, channels):  # type: ignore[no-untyped-def]
    value = 0.0
    for k in range(len(down)):
        part = 0.0
        for other in range(len(across)):
            part += across[other] * x[first + k, at + other * channels]
        value += down[k] * part
    return value


@njit(_SIGNATURE, cache=CAN_CACHE, **CALLED)
def shrink(x, top, down, left, across, margin, out):  # type: ignore[no-untyped-def]
    """Fill `out` (height, width, channels) from x (h, w channels); False where a value is within `margin` of n + 0.5.

    top (height,), down (height, taps) : first row and weights, none below 0, of each output row
    left, across : the same of each output column
    """
    height, width, channels = out.shape
    taps, wide = down.shape[1], across.shape[1]
    # No term is below 0, so each of the roundings on a term's way is at most 2^-24 of the whole, which is at most 255.
    slack = (taps / 4 + 12) * 2.0**-24 * 256
    coarse = down.astype(np.float32)
    # A cache line's worth of rows, to be turned round together.
    block = np.empty((_BLOCK, x.shape[1]), np.float32)
    # Turned round, so that the sums over columns go through memory in order, for all output rows at once.
    rows = np.empty((x.shape[1], height), np.float32)
    for i in range(height):
        first = top[i]
        row = block[i % _BLOCK]
        row[:] = 0
        k = 0
        # Four rows at a time: each sum is loaded and stored once for them.
        while k + 4 <= taps:
            a, b, c, d = coarse[i, k], coarse[i, k + 1], coarse[i, k + 2], coarse[i, k + 3]
            xa, xb, xc, xd = x[first + k], x[first + k + 1], x[first + k + 2], x[first + k + 3]
            for j in range(x.shape[1]):
                upper = a * np.float32(xa[j]) + b * np.float32(xb[j])
                row[j] += upper + (c * np.float32(xc[j]) + d * np.float32(xd[j]))
            k += 4
        while k < taps:
            a, xa = coarse[i, k], x[first + k]
            for j in range(x.shape[1]):
                row[j] += a * np.float32(xa[j])
            k += 1
        if i % _BLOCK == _BLOCK - 1 or i == height - 1:
            above = i - i % _BLOCK
            for j in range(x.shape[1]):
                for k in range(i + 1 - above):
                    rows[j, above + k] = block[k, j]
    sums = np.empty(height)
    for j in range(width):
        for channel in range(channels):
            at = left[j] * channels + channel
            sums[:] = 0.0
            for k in range(wide):
                weight, column = across[j, k], rows[at + k * channels]
                for i in range(height):
                    sums[i] += weight * column[i]
            for i in range(height):
                value = sums[i]
                level = np.floor(value + 0.5)
                # How far the value is from the nearer of the two edges of its level, n - 0.5 and n + 0.5.
                if 0.5 - abs(value - level) < slack:
                    value = _precise(x, top[i], down[i], at, across[j], channels)
                    level = np.floor(value + 0.5)
                    if 0.5 - abs(value - level) < margin:
                        return False
                out[i, j, channel] = np.uint8(min(max(level, 0.0), 255.0))
    return True
