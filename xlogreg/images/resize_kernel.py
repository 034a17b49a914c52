"""The sums of `images/resizing.py`, compiled by Numba: a weighted band of rows, then of columns, then 0..255.

Compiled without a promise of bits: the caller turns down whatever lies near a rounding's edge. The sums are taken in
float32 first, whose error has a bound, and taken again in float64 where that could decide.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ..kernels.arithmetic import OPTIONS
from ..kernels.keeping import kept
from ..kernels.sources import digest_of
from ..kernels.vectors import I32, I64, call, constant, constant64, load, loop, plus, shuffle, splat, store, vector

_F32 = ir.FloatType()
_LANES = 8
_VECTOR = vector(_F32, _LANES)
# A piece is a channel of so many neighbouring pixels as a vector has lanes. The three channels of colours are worked on
# together, or of grey three neighbours: a weight is loaded once for them, and a cache line of pixels once or twice. Of
# a picture of 256 rows three pieces fit in a first-level cache.
_PIECES = 3
_STRIP = _PIECES * _LANES
# Weights in float32 are followed by zeros up to a multiple of so many: the sums over columns take as many at a time.
WHOLE = 2 * _LANES

# What decoders give may be read-only; arrays that are not fit too.
_PICTURE = types.Array(types.uint8, 2, "C", readonly=True)
_WEIGHTS = (types.int64[::1], types.float64[:, ::1], types.float32[:, ::1])
_SIGNATURE = types.boolean(_PICTURE, types.int64, *_WEIGHTS, *_WEIGHTS, types.float64, types.uint8[:, :, ::1])


@intrinsic
def _convert(typingctx: Any, stride: Any, rows: Any, strip: Any, places: Any) -> Any:
    """Pieces of each row in float32, next to each other.

    stride, rows : bytes from a row to the next, and their number
    strip : address of (rows, _STRIP) float32
    places : address of the pieces' addresses in the first row, int64, and of their channels; pixels have four bytes
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        stride, rows, strip, places = arguments
        kind = vector(I32, _LANES)
        firsts = [load(builder, plus(builder, places, 8 * piece), I64, 8) for piece in range(_PIECES)]
        channels = [load(builder, plus(builder, places, 8 * (_PIECES + piece)), I64, 8) for piece in range(_PIECES)]
        shifts = [
            splat(builder, builder.trunc(builder.mul(channel, constant64(8)), I32), _LANES) for channel in channels
        ]

        def body(i: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            offset = builder.mul(i, stride)
            into = builder.add(strip, builder.mul(i, constant64(4 * _STRIP)))
            for piece, (first, shift) in enumerate(zip(firsts, shifts, strict=True)):
                shifted = builder.lshr(load(builder, builder.add(first, offset), kind), shift)
                values = builder.sitofp(builder.and_(shifted, constant(I32, [255] * _LANES)), _VECTOR)
                store(builder, values, plus(builder, into, 4 * _LANES * piece), 4)
            return []

        loop(builder, rows, 1, [], body)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def _add_rows(typingctx: Any, strip: Any, weights: Any, taps: Any, bands: Any, offset: Any) -> Any:
    """The sums over k of weights[k] strip[k] of each piece, all in float32; taps is even.

    strip : address of the first row; weights : address
    bands : address of the addresses of the pieces' sums, to which `offset` is added
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        strip, weights, taps, bands, offset = arguments

        def body(k: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            new = []
            row = builder.add(strip, builder.mul(k, constant64(4 * _STRIP)))
            weight = builder.add(weights, builder.mul(k, constant64(4)))
            for number, total in enumerate(totals):
                both = splat(builder, load(builder, plus(builder, weight, 4 * (number // _PIECES)), _F32, 4), _LANES)
                pixels = load(builder, plus(builder, row, 4 * _LANES * number), _VECTOR, 4)
                new.append(_multiply_add(builder, pixels, both, total))
            return new

        # Two chains, for the next product need not wait for the sum of the one before.
        totals = loop(builder, taps, 2, [ir.Constant(_VECTOR, None)] * (2 * _PIECES), body)
        for piece in range(_PIECES):
            band = load(builder, plus(builder, bands, 8 * piece), I64, 8)
            store(builder, builder.fadd(totals[piece], totals[_PIECES + piece]), builder.add(band, offset), 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def _dot(typingctx: Any, row: Any, weights: Any, taps: Any) -> Any:
    """The sum over k of weights[k] row[k], all float32, given by their addresses; taps is a multiple of WHOLE."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        row, weights, taps = arguments

        def body(k: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            offset = builder.mul(k, k.type(4))
            a, b = (
                [load(builder, plus(builder, builder.add(base, offset), step), _VECTOR, 4) for step in (0, 4 * _LANES)]
                for base in (row, weights)
            )
            return [_multiply_add(builder, *terms) for terms in zip(a, b, totals, strict=True)]

        total = builder.fadd(*loop(builder, taps, WHOLE, [ir.Constant(_VECTOR, None)] * 2, body))
        for count in (4, 2, 1):
            lower, upper = (shuffle(builder, total, total, list(range(first, first + count))) for first in (0, count))
            total = builder.fadd(lower, upper)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float32(types.int64, types.int64, types.int64), codegen


def _multiply_add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a b + c, rounded once or twice, whichever is sooner done."""
    return call(builder, "llvm.fmuladd.v8f32", _VECTOR, [a, b, c])


@njit(**OPTIONS)
def _fill(x, stored, places, strip):  # type: ignore[no-untyped-def]
    """`_convert` for pixels of any number of bytes, and for rows of any length."""
    count = min(_LANES, x.shape[1] // stored)
    for piece in range(_PIECES):
        first = places[piece] - np.int64(x.ctypes.data) + places[_PIECES + piece]
        for i in range(x.shape[0]):
            row = x[i]
            for k in range(count):
                strip[i, _LANES * piece + k] = np.float32(row[first + k * stored])


@njit(**OPTIONS)
def _precise(x, first, down, at, across, channels):  # type: ignore[no-untyped-def]
    value = 0.0
    for k in range(len(down)):
        part = 0.0
        for other in range(len(across)):
            part += across[other] * x[first + k, at + other * channels]
        value += down[k] * part
    return value


@njit(**OPTIONS)
def _side_fits(first, weights, coarse, source, target):  # type: ignore[no-untyped-def]
    """Whether all that is read of one side, and for it, is there."""
    taps, whole = weights.shape[1], coarse.shape[1]
    if not (len(first) == len(weights) == len(coarse) == target > 0 < taps <= whole) or whole % WHOLE:
        return False
    smallest, largest = first[0], first[0]
    for place in first:
        smallest, largest = min(smallest, place), max(largest, place)
    return smallest >= 0 and largest <= source - taps


def _compile(sources: str) -> Any:
    """The function; `sources` is a key for Numba's cache."""

    @kept(_SIGNATURE)
    def shrink(x, stored, top, down, rows, left, across, columns, margin, out):  # type: ignore[no-untyped-def]
        """Fill `out` (height, width, channels) from x (h, w stored); False where a value is within `margin` of n + 0.5.

        stored : bytes of a pixel, of which the first `channels` count
        top (height,), down (height, taps) : first row and weights, none below 0, of each output row
        rows (height, a multiple of WHOLE) : `down` in float32, and zeros
        left, across, columns : the same of each output column
        """
        assert len(sources) > 0
        height, width, channels = out.shape
        if not (
            0 < channels <= stored <= x.shape[1]
            and x.shape[1] % stored == 0
            and _side_fits(top, down, rows, x.shape[0], height)
            and _side_fits(left, across, columns, x.shape[1] // stored, width)
        ):
            raise ValueError("the arrays of the fast resize do not fit together")
        taps, wide = down.shape[1], across.shape[1]
        # No term is below 0, so each of the roundings on a term's way is at most 2^-24 of the whole, at most 255.
        slack = (taps / 2 + wide / 16 + 24) * 2.0**-24 * 256
        pixels = x.shape[1] // stored
        # The last piece of a row ends with it, and does a part of the one before again.
        last = max(0, pixels - _LANES)
        pieces = (last + 2 * _LANES - 1) // _LANES * channels
        # A row more, for an even number of weights.
        strip = np.zeros((x.shape[0] + 1, _STRIP), np.float32)
        # A window of columns may begin at the last one; then it meets zeros.
        bands = np.empty((channels, height, max(pixels, _LANES) + columns.shape[1]), np.float32)
        bands[:, :, pixels:] = 0
        places, into = np.empty(2 * _PIECES, np.int64), np.empty(_PIECES, np.int64)
        even = np.int64(taps + taps % 2)
        for number in range(0, pieces, _PIECES):
            for piece in range(_PIECES):
                # Where none is left, the last is done again.
                group, channel = divmod(min(number + piece, pieces - 1), channels)
                first = min(group * _LANES, last)
                places[piece] = np.int64(x.ctypes.data) + first * stored
                places[_PIECES + piece] = channel
                into[piece] = np.int64(bands.ctypes.data) + channel * bands.strides[0] + 4 * first
            if stored == 4 and pixels >= _LANES:
                _convert(
                    np.int64(x.strides[0]),
                    np.int64(x.shape[0]),
                    np.int64(strip.ctypes.data),
                    np.int64(places.ctypes.data),
                )
            else:
                _fill(x, stored, places, strip)
            for i in range(height):
                _add_rows(
                    np.int64(strip.ctypes.data) + top[i] * strip.strides[0],
                    np.int64(rows.ctypes.data) + i * rows.strides[0],
                    even,
                    np.int64(into.ctypes.data),
                    np.int64(i * bands.strides[1]),
                )
        sums = np.empty(width, np.float32)
        for channel in range(channels):
            for i in range(height):
                row = np.int64(bands[channel, i].ctypes.data)
                for j in range(width):
                    weights = np.int64(columns.ctypes.data) + j * columns.strides[0]
                    sums[j] = _dot(row + 4 * left[j], weights, np.int64(columns.shape[1]))
                for j in range(width):
                    value = np.float64(sums[j])
                    level = np.floor(value + 0.5)
                    # How far the value is from the nearer of the two edges of its level, n - 0.5 and n + 0.5.
                    if 0.5 - abs(value - level) < slack:
                        value = _precise(x, top[i], down[i], left[j] * stored + channel, across[j], stored)
                        level = np.floor(value + 0.5)
                        if 0.5 - abs(value - level) < margin:
                            return False
                    out[i, j, channel] = np.uint8(min(max(level, 0.0), 255.0))
        return True

    return shrink


shrink = _compile(digest_of("images/resize_kernel"))
