"""Exact sums over pixels: forward for a block's samples, backward for its features, by rows of digits.

A number of 64 bits is the sum of its DIGITS signed digits d_k times 2^(BITS k). Row `model * DIGITS + k` holds the k-th
digits of a model's numbers; only those rows that are not all zeros are worked on. Exact sums are pairs of integers of
64 bits, low + 2^32 high, with 0 <= low < 2^32.

Features go in chunks of one vector. The last chunk ends with the row, so that nothing is read past it; features that
it shares with the chunk before have the digit 0 in it (forward) or are passed over (backward).
"""

from typing import Any

import numpy as np
from numba import njit

from .arithmetic import OPTIONS
from .digits import (
    BACKWARD_ROWS,
    BITS,
    DIGITS,
    GROUP,
    ROWS,
    STEP,
    TILE,
    WIDTH,
    add_1,
    add_2,
    add_4,
    dot_1,
    dot_2,
    dot_4,
    samples_at_once,
    take_sums,
)

Array = Any

_LINE = 64
_DIGIT = np.int8 if BITS == 8 else np.int16
_LARGEST_DIGIT = 2 ** (BITS - 1)
# What turns the digits 0 .. 2^BITS - 1 of a number into signed ones.
_BIAS = np.int64(sum(_LARGEST_DIGIT << BITS * k for k in range(DIGITS - 1)))
# Bytes of the weights' digits that stay in the first-level cache beside the pixels.
_DIGIT_BYTES = 24_576
# 32-bit sums take so much, in units of one pixel of 255.
ROOM = (2**31 - 1) // 255
_LOW32 = np.int64(2**32 - 1)
_SAMPLES_OF_1, _SAMPLES_OF_2, _SAMPLES_OF_4 = (samples_at_once(rows) for rows in (1, 2, 4))


def shapes(models: int, group: int, features: int, block: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Arrays to work in: `weights` for all threads, the others for each; `group` models are worked on together."""
    groups = -(-block // GROUP)
    tiles = -(-features // TILE) * TILE
    return {
        "weights": ((models * DIGITS, -(-features // STEP) * STEP), _DIGIT),
        "residuals": ((group * DIGITS, -(-groups * GROUP // _LINE) * _LINE), _DIGIT),
        # `forward` takes the last sample several times where too few are left.
        "sums": ((block + max(_SAMPLES_OF_1, _SAMPLES_OF_2, _SAMPLES_OF_4), group * DIGITS), np.int64),
        "narrow": ((models * DIGITS, tiles), np.int32),
        "tile": ((TILE,), np.int64),
    }


@njit(**OPTIONS)
def rows_for(largest: int) -> int:
    """How many digits numbers need that are at most this large in size."""
    rows, most = 0, np.int64(0)
    while rows < DIGITS - 1 and largest > most:
        most = (most << BITS) + _LARGEST_DIGIT - 1
        rows += 1
    return rows if largest <= most else DIGITS


@njit(**OPTIONS)
def largest_digit(largest: int) -> int:
    """The largest that a digit of such numbers can be in size."""
    return min(largest, _LARGEST_DIGIT)


@njit(**OPTIONS)
def cut_weights(values: Array, weights: Array, model: int, first: int, last: int) -> None:
    """The digits of values[first : last] into the model's rows of weights."""
    features = len(values)
    for chunk in range(first // STEP, (last + STEP - 1) // STEP):
        begin, end = max(first, chunk * STEP), min(last, (chunk + 1) * STEP)
        # Where the chunk's lanes begin in the row: the last one ends with it.
        lane = chunk * STEP - max(0, min(chunk * STEP, features - STEP))
        for k in range(DIGITS):
            row = weights[model * DIGITS + k]
            for j in range(begin, end):
                row[j + lane] = _DIGIT(((values[j] + _BIAS) ^ _BIAS) >> (BITS * k))


@njit(**OPTIONS)
def cut_residuals(values: Array, rows: int, cut: Array, first: int) -> None:
    """The lowest `rows` digits of the values into the rows of `cut` from `first` on, and zeros to the group's end."""
    samples = len(values)
    for k in range(rows):
        row = cut[first + k]
        for s in range(samples):
            row[s] = _DIGIT(((values[s] + _BIAS) ^ _BIAS) >> (BITS * k))
        for s in range(samples, (samples + GROUP - 1) // GROUP * GROUP):
            row[s] = 0


@njit(**OPTIONS)
def _rows_at_once(rows: int, most: int) -> int:
    """Of so many rows that are left: 1, 2 or 4, at most `most`."""
    return 4 if rows >= 4 and most >= 4 else min(rows, 2)


@njit(**OPTIONS)
def forward(pixels: Array, weights: Array, places: Array, rows: int, digit: int, sums: Array) -> None:
    """sums[s, r] = the sum over features j of pixels[s, j] times weights[places[r], j], for `rows` rows r.

    digit : the largest that a digit may be in size
    """
    samples, features = pixels.shape
    for s in range(samples):
        for r in range(rows):
            sums[s, r] = 0
    if features < STEP:
        for r in range(rows):
            for s in range(samples):
                total = np.int64(0)
                for j in range(features):
                    total += np.int64(pixels[s, j]) * weights[places[r], j]
                sums[s, r] = total
        return
    stride, last = np.int64(pixels.strides[0]), np.int64(features - STEP)
    sum_stride = np.int64(sums.strides[0])
    tables = np.empty(ROWS, np.int64)
    digits = np.int64(tables.ctypes.data)
    chunks = (features + STEP - 1) // STEP
    row = 0
    while row < rows:
        count = _rows_at_once(rows - row, ROWS)
        at_once = _SAMPLES_OF_1 if count == 1 else _SAMPLES_OF_2 if count == 2 else _SAMPLES_OF_4
        # The digits that go with a stretch of features stay in the first-level cache while all samples pass; and
        # each lane, which takes GROUP products a step, stays below 2^31.
        stretch = max(1, min(_DIGIT_BYTES // (WIDTH * count), ROOM // (GROUP * digit)))
        for chunk in range(0, chunks, stretch):
            for r in range(count):
                tables[r] = np.int64(weights.ctypes.data) + places[row + r] * weights.strides[0] + chunk * WIDTH
            steps, offset = np.int64(min(stretch, chunks - chunk)), np.int64(chunk * STEP)
            for s in range(0, samples, at_once):
                first, left = np.int64(pixels.ctypes.data + s * stride), np.int64(samples - s)
                into = np.int64(sums.ctypes.data + s * sum_stride + 8 * row)
                if count == 1:
                    dot_1(first, stride, left, offset, last, digits, steps, into, sum_stride)
                elif count == 2:
                    dot_2(first, stride, left, offset, last, digits, steps, into, sum_stride)
                else:
                    dot_4(first, stride, left, offset, last, digits, steps, into, sum_stride)
        row += count
    # Used by address only: this keeps it alive until here.
    tables[0] = 0


@njit(**OPTIONS)
def join(sums: Array, first: int, rows: int, low: Array, high: Array) -> None:
    """The pairs low, high of the sums of a model's `rows` digits in the columns from `first` on, one a sample."""
    for s in range(len(low)):
        lower, upper = np.int64(0), np.int64(0)
        for k in range(rows):
            # In two parts, for a sum may have more than 32 bits.
            shift, part = (BITS * k) & 31, sums[s, first + k]
            if BITS * k < 32:
                lower += (part & _LOW32 >> shift) << shift
                upper += part >> (32 - shift)
            else:
                upper += part << shift
        low[s] = lower & _LOW32
        high[s] = upper + (lower >> 32)


@njit(**OPTIONS)
def backward(pixels: Array, cut: Array, places: Array, rows: int, narrow: Array) -> None:
    """narrow[places[r]] += the sums over a block's samples s of pixels[s, j] times cut[r, s], for `rows` rows r.

    Nothing where there are fewer than TILE features: see `add_few`.
    """
    samples, features = pixels.shape
    if features < TILE:
        return
    stride, digit_stride = np.int64(pixels.strides[0]), np.int64(cut.strides[0])
    full, rest = samples // GROUP, samples % GROUP
    # Of the last samples that fill no group, the last is taken again for those that are not there: their digit is 0.
    end = np.int64(max(0, rest - 1) * stride)
    tables = np.empty(ROWS, np.int64)
    into = np.int64(tables.ctypes.data)
    for chunk in range(narrow.shape[1] // TILE):
        first = np.int64(pixels.ctypes.data + min(chunk * TILE, features - TILE))
        offset = np.int64(chunk * TILE * 4)
        row = 0
        while row < rows:
            count = _rows_at_once(rows - row, BACKWARD_ROWS)
            for r in range(count):
                tables[r] = np.int64(narrow.ctypes.data) + places[row + r] * narrow.strides[0]
            digits = np.int64(cut.ctypes.data) + row * digit_stride
            for part in range(2):  # the groups, and what is left
                groups, most, skipped = (full, 3 * stride, 0) if part == 0 else (min(rest, 1), end, full)
                if groups == 0:
                    continue
                start, step = first + skipped * GROUP * stride, GROUP * stride
                one, two, three = min(stride, most), min(2 * stride, most), min(3 * stride, most)
                at = digits + 4 * skipped
                if count == 1:
                    add_1(start, step, one, two, three, groups, at, digit_stride, into, offset)
                elif count == 2:
                    add_2(start, step, one, two, three, groups, at, digit_stride, into, offset)
                elif BACKWARD_ROWS > 2:
                    add_4(start, step, one, two, three, groups, at, digit_stride, into, offset)
            row += count
    tables[0] = 0


@njit(**OPTIONS)
def add_few(pixels: Array, values: Array, low: Array, high: Array) -> None:
    """What `backward` does, where there are too few features for it, by the values themselves; to be flushed too."""
    samples, features = pixels.shape
    if features >= TILE:
        return
    for s in range(samples):
        upper = (values[s] + 2**31) >> 32
        lower = values[s] - (upper << 32)
        for j in range(features):
            low[j] += pixels[s, j] * lower
            high[j] += pixels[s, j] * upper


@njit(**OPTIONS)
def flush(narrow: Array, model: int, rows: int, low: Array, high: Array, tile: Array) -> None:
    """Move the narrow sums of the model's first `rows` digits to its pairs low, high; they are zeros then."""
    features = len(low)
    if features >= TILE:
        for chunk in range(narrow.shape[1] // TILE):
            first = min(chunk * TILE, features - TILE)
            for k in range(rows):
                row = narrow[model * DIGITS + k]
                take_sums(np.int64(row.ctypes.data) + chunk * TILE * 4, np.int64(tile.ctypes.data))
                into = low if BITS * k < 32 else high
                shift = (BITS * k) & 31
                for j in range(chunk * TILE, min((chunk + 1) * TILE, features)):
                    into[j] += tile[j - first] << shift
    for j in range(features):
        high[j] += low[j] >> 32
        low[j] &= _LOW32
