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
_SIGNATURE = types.boolean(
    _PICTURE, types.int64, _FIRST, _WEIGHTS, _FIRST, _WEIGHTS, types.float64, types.uint8[:, :, ::1]
)

_BLOCK = 16


@njit(**OPTIONS)
def _add_rows(x, first, step, weights, sums):  # type: ignore[no-untyped-def]
    """sums = the sum over k of weights[k] x[first + k step]; four at a time, to load and store sums less."""
    taps, k = len(weights), 0
    sums[:] = 0
    while k + 4 <= taps:
        a, b, c, d = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        at = first + k * step
        xa, xb, xc, xd = x[at], x[at + step], x[at + 2 * step], x[at + 3 * step]
        for j in range(len(sums)):
            upper = a * np.float32(xa[j]) + b * np.float32(xb[j])
            sums[j] += upper + (c * np.float32(xc[j]) + d * np.float32(xd[j]))
        k += 4
    while k < taps:
        a, xa = weights[k], x[first + k * step]
        for j in range(len(sums)):
            sums[j] += a * np.float32(xa[j])
        k += 1


@njit(**OPTIONS)
def _of_two(x, y):  # type: ignore[no-untyped-def]
    """x + y as float32, added as integers of 16 bits, of which most go into a register."""
    return np.float32(np.uint16(np.uint16(x) + np.uint16(y)))


@njit(**OPTIONS)
def _add_pairs(x, first, weights, row):  # type: ignore[no-untyped-def]
    """`_add_rows` for weights that are the same from both ends: half as many products."""
    half, k, last = len(weights) // 2, 0, first + len(weights) - 1
    row[:] = 0
    while k + 4 <= half:
        a, b, c, d = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        xa, xb, xc, xd = x[first + k], x[first + k + 1], x[first + k + 2], x[first + k + 3]
        ya, yb, yc, yd = x[last - k], x[last - k - 1], x[last - k - 2], x[last - k - 3]
        for j in range(x.shape[1]):
            upper = a * _of_two(xa[j], ya[j]) + b * _of_two(xb[j], yb[j])
            row[j] += upper + (c * _of_two(xc[j], yc[j]) + d * _of_two(xd[j], yd[j]))
        k += 4
    while k < half:
        a, xa, ya = weights[k], x[first + k], x[last - k]
        for j in range(x.shape[1]):
            row[j] += a * _of_two(xa[j], ya[j])
        k += 1
    if len(weights) % 2:
        a, xa = weights[half], x[first + half]
        for j in range(x.shape[1]):
            row[j] += a * np.float32(xa[j])


@njit(**OPTIONS)
def _symmetric(weights):  # type: ignore[no-untyped-def]
    for k in range(len(weights) // 2):  # noqa: SIM110 (a loop compiles sooner)
        if weights[k] != weights[len(weights) - 1 - k]:
            return False
    return True


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
def shrink(x, stored, top, down, left, across, margin, out):  # type: ignore[no-untyped-def]
    """Fill `out` (height, width, channels) from x (h, w stored); False where a value is within `margin` of n + 0.5.

    stored : bytes of a pixel, of which the first `channels` count
    top (height,), down (height, taps) : first row and weights, none below 0, of each output row
    left, across : the same of each output column
    """
    height, width, channels = out.shape
    taps, wide = down.shape[1], across.shape[1]
    # No term is below 0, so each of the roundings on a term's way is at most 2^-24 of the whole, which is at most 255.
    slack = ((taps + wide) / 4 + 24) * 2.0**-24 * 256
    coarse_down, coarse_across = down.astype(np.float32), across.astype(np.float32)
    # A cache line's worth of rows, to be turned round together; their lengths no power of two, for in some caches one
    # such row would drive out the others.
    block = np.empty((_BLOCK, x.shape[1] + _BLOCK), np.float32)
    pixels = x.shape[1] // stored
    # Turned round, so that the sums over columns go through memory in order, for all output rows at once.
    columns = np.empty((pixels * channels, height), np.float32)
    for i in range(height):
        row = block[i % _BLOCK, : x.shape[1]]
        # Most weights are symmetric where the size goes down by a whole factor.
        if _symmetric(coarse_down[i]):
            _add_pairs(x, top[i], coarse_down[i], row)
        else:
            _add_rows(x, top[i], 1, coarse_down[i], row)
        if i % _BLOCK == _BLOCK - 1 or i == height - 1:
            above = i - i % _BLOCK
            for pixel in range(pixels):
                for channel in range(channels):
                    for k in range(i + 1 - above):
                        columns[pixel * channels + channel, above + k] = block[k, pixel * stored + channel]
    sums = np.empty(height, np.float32)
    for j in range(width):
        for channel in range(channels):
            _add_rows(columns, left[j] * channels + channel, channels, coarse_across[j], sums)
            for i in range(height):
                value = np.float64(sums[i])
                level = np.floor(value + 0.5)
                # How far the value is from the nearer of the two edges of its level, n - 0.5 and n + 0.5.
                if 0.5 - abs(value - level) < slack:
                    value = _precise(x, top[i], down[i], left[j] * stored + channel, across[j], stored)
                    level = np.floor(value + 0.5)
                    if 0.5 - abs(value - level) < margin:
                        return False
                out[i, j, channel] = np.uint8(min(max(level, 0.0), 255.0))
    return True
