"""The sums of `xlogreg.shrinking`, compiled by Numba: a weighted band of rows, then of columns, then 0..255.

Compiled without fast-math and without a promise of bits: the caller turns down whatever lies near a rounding's edge.
"""

import numpy as np
from numba import njit, types

from .arithmetic import CAN_CACHE, OPTIONS

# What decoders give may be read-only; arrays that are not fit too.
_PICTURE = types.Array(types.uint8, 2, "C", readonly=True)
_FIRST, _WEIGHTS = types.int64[::1], types.float64[:, ::1]
_SIGNATURE = types.boolean(_PICTURE, _FIRST, _WEIGHTS, _FIRST, _WEIGHTS, types.float64, types.uint8[:, :, ::1])


@njit(_SIGNATURE, cache=CAN_CACHE, **OPTIONS)
def shrink(x, top, down, left, across, margin, out):  # type: ignore[no-untyped-def]
    """Fill `out` (height, width, channels) from x (h, w channels); False where a value is within `margin` of x.5.

    top (height,), down (height, taps) : first row and weights of each output row; left, across : of each column
    """
    height, width, channels = out.shape
    row = np.empty(x.shape[1])
    taps = down.shape[1]
    for i in range(height):
        first = top[i]
        row[:] = 0.0
        k = 0
        # Four rows at a time: each sum is loaded and stored once for them.
        while k + 4 <= taps:
            a, b, c, d = down[i, k], down[i, k + 1], down[i, k + 2], down[i, k + 3]
            xa, xb, xc, xd = x[first + k], x[first + k + 1], x[first + k + 2], x[first + k + 3]
            for j in range(x.shape[1]):
                row[j] += (a * xa[j] + b * xb[j]) + (c * xc[j] + d * xd[j])
            k += 4
        while k < taps:
            a, xa = down[i, k], x[first + k]
            for j in range(x.shape[1]):
                row[j] += a * xa[j]
            k += 1
        for j in range(width):
            for channel in range(channels):
                value = 0.0
                start = left[j] * channels + channel
                for k in range(across.shape[1]):
                    value += across[j, k] * row[start + k * channels]
                nearest = np.floor(value + 0.5)
                if abs(value + 0.5 - nearest) < margin or abs(value - 0.5 - nearest) < margin:
                    return False
                out[i, j, channel] = np.uint8(min(max(nearest, 0.0), 255.0))
    return True
