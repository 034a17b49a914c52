"""Pixels times digits of 8 bits: the inner loops of the CPU kernel where the processor multiplies bytes (VNNI).

A fixed-point number of 52 bits is cut into seven digits of 8. `vpdpbusd` multiplies 64 (or 32) unsigned bytes with as
many signed ones and adds each four products to a 32-bit integer: forward, four features of one sample; backward, four
samples of one feature, for which the bytes of four rows are interleaved. Seven such instructions do what takes `pairs`
eight and the widening of the pixels. The functions are those of `pairs`; nothing else differs, least of all a bit.

Features go in chunks of one register. The last chunk ends with the row, so that nothing is read past it; features that
it shares with the chunk before have the digit 0 in it (forward) or are passed over (backward).

The intrinsics take addresses (`array.ctypes.data`); whoever calls them answers for bounds and strides.
"""

from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from .arithmetic import OPTIONS, halves_of
from .vectors import (
    I8,
    I32,
    I64,
    X86,
    call,
    constant,
    features,
    in_order,
    interleave,
    load,
    loop,
    plus,
    prefetch,
    shuffle,
    splat,
    store,
    vector,
)  # fmt: skip

Array = Any

DIGITS = 7
# The halves of a number that sums are kept in, three and four digits: V = low + 2^HALF high.
HALF = 24
_LOW = 3


def _vpdpbusd() -> tuple[str, int]:
    """The instruction and the bytes of its registers; no name where there is none."""
    there = features() if X86 else set()
    if {"avx512bw", "avx512vl", "avx512vnni"} <= there:
        return "llvm.x86.avx512.vpdpbusd.512", 64
    if {"avx2", "avxvnni"} <= there:
        return "llvm.x86.avx512.vpdpbusd.256", 32
    return "", 32


MULTIPLY, WIDTH = _vpdpbusd()
_LANES = WIDTH // 4
_BYTES, _WORDS = vector(I8, WIDTH), vector(I32, _LANES)
# Models that share the interleaving of the pixels.
MODELS = 8
# Samples that share the loading of digits: their sums of all digits stay in registers.
SAMPLES = 3 if WIDTH == 64 else 1
# Digits that share the loading of interleaved pixels, in several passes: four sums each stay in registers.
_PASSES = [range(0, 4), range(4, 7)] if WIDTH == 64 else [range(0, 2), range(2, 4), range(4, 6), range(6, 7)]
# Bytes of the weights' digits that stay in the first-level cache beside the pixels.
_STRETCH = 24_576 // (DIGITS * WIDTH)
# 32-bit sums take this many samples: 255 * 128 * 65,536 < 2^31.
FLUSH = 2**16
# To make signed digits of unsigned ones: 128 in each of the seven bytes.
_BIAS = sum(128 << 8 * k for k in range(DIGITS))


def _multiply(builder: ir.IRBuilder, total: ir.Value, pixels: ir.Value, digits: ir.Value) -> ir.Value:
    """total[i] + the sum over t < 4 of pixels[4 i + t] digits[4 i + t]."""
    return call(builder, MULTIPLY, _WORDS, [total, builder.bitcast(pixels, _WORDS), builder.bitcast(digits, _WORDS)])


def _constant64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


@intrinsic
def _dot(
    typingctx: Any, pixels: Any, stride: Any, rows: Any, offset: Any, last: Any, digits: Any, chunks: Any, sums: Any,
    sum_stride: Any,
) -> Any:  # fmt: skip
    """Add to the halves sums[s] the sums over features j of some chunks of pixels[s, j] times weight j, SAMPLES rows.

    pixels : address of uint8 rows, `stride` bytes apart; where fewer than SAMPLES `rows` are left, the last is taken
    again; offset, last : of the first chunk in a row, and the greatest that any may have; digits : address of
    (chunks, DIGITS, WIDTH) int8; sums : address of pairs of int64, `sum_stride` bytes apart
    """
    signature = types.void(*[types.int64] * 9)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        pixels, stride, rows, offset, last, digits, chunks, sums, sum_stride = arguments
        final = builder.sub(rows, _constant64(1))
        lines = []
        for s in range(SAMPLES):
            row = builder.select(builder.icmp_signed("<", _constant64(s), final), _constant64(s), final)
            lines.append(builder.add(pixels, builder.mul(stride, row)))
        ahead = builder.mul(stride, _constant64(SAMPLES))

        def body(chunk: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            j = builder.add(offset, builder.mul(chunk, _constant64(WIDTH)))
            j = builder.select(builder.icmp_signed("<", j, last), j, last)
            table = builder.add(digits, builder.mul(chunk, _constant64(DIGITS * WIDTH)))
            values = []
            for line in lines:
                place = builder.add(line, j)
                values.append(load(builder, place, _BYTES))
                # The rows to come; each is too short for the processor to see a stream in it. Never faults.
                prefetch(builder, builder.add(place, ahead))
            new = list(totals)
            for k in range(DIGITS):
                factor = load(builder, plus(builder, table, k * WIDTH), _BYTES, WIDTH)
                for s in range(SAMPLES):
                    new[s * DIGITS + k] = _multiply(builder, totals[s * DIGITS + k], values[s], factor)
            return new

        zero = constant(I32, [0] * _LANES)
        totals = loop(builder, chunks, 1, [zero] * (SAMPLES * DIGITS), body)
        for s in range(SAMPLES):
            both = _halves_of_digits(builder, totals[s * DIGITS : (s + 1) * DIGITS])
            place = builder.add(sums, builder.mul(sum_stride, _constant64(s)))
            store(builder, builder.add(load(builder, place, both.type, 8), both), place, 8)
        return context.get_dummy_value()

    return signature, codegen


def _halves_of_digits(builder: ir.IRBuilder, totals: list[ir.Value]) -> ir.Value:
    """Two 64-bit integers, low and high, from the sums of the seven digits, each still spread over the lanes."""
    zero = constant(I32, [0] * _LANES)
    a, b = (_sums_of_four(builder, [*totals[:_LOW], zero]), _sums_of_four(builder, totals[_LOW:]))
    # a and b hold, in every 16 bytes, sums of four digits each; now a and b side by side, and their 16 bytes added up.
    while a.type.count > 4:
        half = a.type.count // 2
        a, b = (
            builder.add(shuffle(builder, x, x, list(range(half))), shuffle(builder, x, x, list(range(half, 2 * half))))
            for x in (a, b)
        )
    eight = builder.sext(shuffle(builder, a, b, list(range(8))), vector(I64, 8))
    eight = builder.shl(eight, constant(I64, [0, 8, 16, 0, 0, 8, 16, 24]))
    four = builder.add(shuffle(builder, eight, eight, [0, 1, 4, 5]), shuffle(builder, eight, eight, [2, 3, 6, 7]))
    return builder.add(shuffle(builder, four, four, [0, 2]), shuffle(builder, four, four, [1, 3]))


def _sums_of_four(builder: ir.IRBuilder, totals: list[ir.Value]) -> ir.Value:
    """Of four vectors one: every 16 bytes hold the sums of the 16 bytes of the first, second, third and fourth."""

    def add(x: ir.Value, y: ir.Value, size: int) -> ir.Value:
        x, y = builder.bitcast(x, _BYTES), builder.bitcast(y, _BYTES)
        lower, upper = (builder.bitcast(interleave(builder, x, y, size, up), _WORDS) for up in (False, True))
        return builder.add(lower, upper)

    return add(add(totals[0], totals[1], 4), add(totals[2], totals[3], 4), 8)


def _add(fresh: bool) -> Any:
    @intrinsic
    def add(typingctx: Any, pixels: Any, stride: Any, rows: Any, digits: Any, sums: Any, spare: Any) -> Any:
        """Add to a chunk's narrow sums the sums over samples s of pixels[s, j] times residual s.

        pixels : address of uint8 rows, `stride` bytes apart, from the chunk's first feature on; rows : how many;
        digits : address of (rows / 4, 8, 4) int8, 0 for rows that are not there; sums : address of
        (DIGITS, 4, LANES) int32; spare : address of memory for the interleaved pixels, WIDTH bytes a row. If `fresh`,
        these are made and left there, else they are taken from there.
        """
        signature = types.void(*[types.int64] * 6)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            pixels, stride, rows, digits, sums, spare = arguments
            four = builder.shl(stride, _constant64(2))
            full, rest = builder.lshr(rows, _constant64(2)), builder.and_(rows, _constant64(3))
            some = builder.zext(builder.icmp_unsigned(">", rest, _constant64(0)), I64)
            last = builder.mul(builder.sub(rest, _constant64(1)), stride)
            whole = [builder.mul(stride, _constant64(s)) for s in range(4)]
            # Of the last one to three rows, the last is taken again for those that are not there.
            ends = [builder.select(builder.icmp_signed("<", step, last), step, last) for step in whole]

            def body(
                steps: list[ir.Value],
                begin: ir.Value,
                group: range,
                make: bool,
                quad: ir.Value,
                totals: list[ir.Value],
            ) -> list[ir.Value]:
                quad = builder.add(begin, quad)
                keep = builder.add(spare, builder.mul(quad, _constant64(4 * WIDTH)))
                if make:
                    place = builder.add(pixels, builder.mul(quad, four))
                    lines = [load(builder, builder.add(place, step), _BYTES) for step in steps]
                    values = _interleave_four(builder, lines)
                    for g, value in enumerate(values):
                        store(builder, value, plus(builder, keep, g * WIDTH), WIDTH)
                else:
                    values = [load(builder, plus(builder, keep, g * WIDTH), _BYTES, WIDTH) for g in range(4)]
                table = builder.add(digits, builder.shl(quad, _constant64(5)))
                new = []
                for i, k in enumerate(group):
                    factor = splat(builder, load(builder, plus(builder, table, 4 * k), I32, 4), _LANES)
                    new += [_multiply(builder, totals[4 * i + g], values[g], factor) for g in range(4)]
                return new

            for number, group in enumerate(_PASSES):
                make = fresh and number == 0
                places = [plus(builder, sums, (4 * k + g) * WIDTH) for k in group for g in range(4)]
                totals = [load(builder, place, _WORDS, WIDTH) for place in places]
                totals = loop(builder, full, 1, totals, partial(body, whole, _constant64(0), group, make))
                totals = loop(builder, some, 1, totals, partial(body, ends, full, group, make))
                for place, total in zip(places, totals, strict=True):
                    store(builder, total, place, WIDTH)
            return context.get_dummy_value()

        return signature, codegen

    return add


def _interleave_four(builder: ir.IRBuilder, lines: list[ir.Value]) -> list[ir.Value]:
    """Bytes of four rows in turn: vector g holds features 16 n + 4 g + (0..3) of all four in its n-th 16 bytes."""
    values = []
    for upper in (False, True):
        pairs = [interleave(builder, lines[s], lines[s + 1], 1, upper) for s in (0, 2)]
        values += [interleave(builder, pairs[0], pairs[1], 2, top) for top in (False, True)]
    return values


_add_fresh, _add_kept = _add(True), _add(False)


@intrinsic
def _take(typingctx: Any, sums: Any, low: Any, high: Any) -> Any:
    """Take a chunk's narrow sums, (DIGITS, 4, LANES) int32, and leave zeros: their halves to (WIDTH,) int64 each."""
    signature = types.void(types.int64, types.int64, types.int64)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        sums, low, high = arguments
        wide = vector(I64, WIDTH)
        zero = constant(I32, [0] * _LANES)
        for address, digits in ((low, range(_LOW)), (high, range(_LOW, DIGITS))):
            total = None
            for i, k in enumerate(digits):
                places = [plus(builder, sums, (4 * k + g) * WIDTH) for g in range(4)]
                groups = [load(builder, place, _WORDS, WIDTH) for place in places]
                for place in places:
                    store(builder, zero, place, WIDTH)
                part = builder.shl(builder.sext(in_order(builder, groups), wide), constant(I64, [8 * i] * WIDTH))
                total = part if total is None else builder.add(total, part)
            store(builder, total, address, 8)
        return context.get_dummy_value()

    return signature, codegen


# ---- What `cpu` calls: the functions of `pairs`.


def shapes(models: int, features: int, block: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Arrays to work in: `weights` for all threads; `residuals`, `sums`, `narrow` and `spare` for each thread."""
    chunks, quads = -(-features // WIDTH), -(-block // 4)
    return {
        "weights": ((models, chunks, DIGITS, WIDTH), np.int8),
        "residuals": ((MODELS, quads, 8, 4), np.int8),
        # One more than there are samples for each that `_dot` repeats.
        "sums": (((block + SAMPLES) * MODELS, 2), np.int64),
        "narrow": ((models, chunks, DIGITS, 4, _LANES), np.int32),
        "spare": ((quads, 4, WIDTH), np.uint8),
    }


@njit(**OPTIONS)
def together(models: int) -> int:
    """How many of so many models that are left to do are done at once."""
    return min(models, MODELS)


@njit(**OPTIONS)
def _digits_of(lower: int, upper: int) -> Any:
    """The seven digits of lower + 2^26 upper, one a byte."""
    return (((np.int64(upper) << 26) + lower) + _BIAS) ^ _BIAS


@njit(**OPTIONS)
def cut_weights(w: Array, down: float, weights: Array, first: int, last: int) -> None:
    """The digits of the weights of features first .. last - 1 of one model; w down lies within -1 .. 1."""
    features = len(w)
    for chunk in range(first // WIDTH, (last + WIDTH - 1) // WIDTH):
        begin, end = max(first, chunk * WIDTH), min(last, (chunk + 1) * WIDTH)
        # Where the chunk's lanes begin: the last one ends with the row.
        lane = max(0, min(chunk * WIDTH, features - WIDTH))
        for j in range(begin, end):
            lower, upper = halves_of(w[j] * down)
            digits = _digits_of(lower, upper)
            for k in range(DIGITS):
                weights[chunk, k, j - lane] = np.int8((digits >> (8 * k)) & 255)


@njit(**OPTIONS)
def cut_residuals(lower: Array, upper: Array, samples: int, residuals: Array) -> None:
    """The digits of a block's residuals of one model, from their halves."""
    for s in range(samples):
        digits = _digits_of(lower[s], upper[s])
        for k in range(DIGITS):
            residuals[s >> 2, k, s & 3] = np.int8((digits >> (8 * k)) & 255)
    for s in range(samples, (samples + 3) // 4 * 4):
        for k in range(DIGITS):
            residuals[s >> 2, k, s & 3] = 0


@njit(**OPTIONS)
def _number(digits: Array, first: int, last: int) -> Any:
    """The number of the digits first .. last - 1."""
    total = np.int64(0)
    for k in range(first, last):
        total += np.int64(digits[k]) << (8 * (k - first))
    return total


@njit(**OPTIONS)
def forward(pixels: Array, weights: Array, sums: Array) -> None:
    """The sums over features j of pixels[s, j] times weight j, for a block's samples s and some models."""
    samples, features = pixels.shape
    models = len(weights)
    sums[: samples * models] = 0
    if features < WIDTH:
        for i in range(models):
            for j in range(features):
                low = _number(weights[i, 0, :, j], 0, _LOW)
                high = _number(weights[i, 0, :, j], _LOW, DIGITS)
                for s in range(samples):
                    sums[s * models + i, 0] += pixels[s, j] * low
                    sums[s * models + i, 1] += pixels[s, j] * high
        return
    stride, sum_stride = np.int64(pixels.strides[0]), np.int64(models * sums.strides[0])
    chunks, last = weights.shape[1], np.int64(features - WIDTH)
    for model in range(models):
        # The digits that go with a stretch of features stay in the first-level cache while all samples pass.
        for chunk in range(0, chunks, _STRETCH):
            digits = np.int64(weights.ctypes.data + model * weights.strides[0] + chunk * weights.strides[1])
            count = np.int64(min(_STRETCH, chunks - chunk))
            for s in range(0, samples, SAMPLES):
                _dot(
                    np.int64(pixels.ctypes.data + s * stride), stride, np.int64(samples - s), np.int64(chunk * WIDTH),
                    last, digits, count, np.int64(sums.ctypes.data + s * sum_stride + model * sums.strides[0]),
                    sum_stride,
                )  # fmt: skip


@njit(**OPTIONS)
def halves(sums: Array, place: int) -> tuple[int, int]:
    """A sum of `forward`, that of sample s and model i at s models + i, in halves."""
    return sums[place, 0], sums[place, 1]


@njit(**OPTIONS)
def backward(pixels: Array, residuals: Array, narrow: Array, spare: Array, low: Array, high: Array) -> None:
    """Add to narrow[i], or to low[i], high[i], the sums over a block's samples s of pixels[s, j] times residual s."""
    samples, features = pixels.shape
    models = len(low)
    if features < WIDTH:
        for i in range(models):
            for s in range(samples):
                lower = _number(residuals[i, s >> 2, :, s & 3], 0, _LOW)
                upper = _number(residuals[i, s >> 2, :, s & 3], _LOW, DIGITS)
                for j in range(features):
                    low[i, j] += pixels[s, j] * lower
                    high[i, j] += pixels[s, j] * upper
        return
    stride, kept = np.int64(pixels.strides[0]), np.int64(spare.ctypes.data)
    for chunk in range(narrow.shape[1]):
        first = np.int64(pixels.ctypes.data + min(chunk * WIDTH, features - WIDTH))
        into = np.int64(narrow.ctypes.data + chunk * narrow.strides[1])
        digits = np.int64(residuals.ctypes.data)
        _add_fresh(first, stride, np.int64(samples), digits, into, kept)
        for i in range(1, models):
            _add_kept(
                first, stride, np.int64(samples), np.int64(digits + i * residuals.strides[0]),
                np.int64(into + i * narrow.strides[0]), kept,
            )  # fmt: skip


@njit(**OPTIONS)
def flush(narrow: Array, low: Array, high: Array, features: int) -> None:
    """Add all narrow sums to low, high and clear them; at the latest after FLUSH samples."""
    if features < WIDTH:
        return
    some_low, some_high = np.empty(WIDTH, np.int64), np.empty(WIDTH, np.int64)
    for model in range(len(low)):
        for chunk in range(narrow.shape[1]):
            _take(
                np.int64(narrow.ctypes.data + model * narrow.strides[0] + chunk * narrow.strides[1]),
                np.int64(some_low.ctypes.data), np.int64(some_high.ctypes.data),
            )  # fmt: skip
            first = min(chunk * WIDTH, features - WIDTH)
            for j in range(chunk * WIDTH, min((chunk + 1) * WIDTH, features)):
                low[model, j] += some_low[j - first]
                high[model, j] += some_high[j - first]
    # Used by address only: this keeps them alive until here.
    some_low[0] = some_high[0] = 0
