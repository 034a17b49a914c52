"""Pixels times digits of 16 bits: the inner loops of the CPU kernel on processors of every kind.

A fixed-point number of 52 bits is cut into four digits of 13. Pixels (unsigned bytes) are widened, pairs of products
are added into 32-bit integers, which is one instruction on every x86-64 (`pmaddwd`; with VNNI it accumulates too) and
a few on others. `quads` does the same faster where the processor multiplies bytes; both have the same functions, which
`cpu` takes from the one or the other.

The intrinsics take addresses (`array.ctypes.data`); whoever calls them answers for bounds and strides.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from .arithmetic import OPTIONS, halves_of
from .vectors import (
    I8,
    I16,
    I32,
    I64,
    X86,
    constant,
    features,
    in_order,
    interleave,
    load,
    loop,
    prefetch,
    shuffle,
    splat,
    vector,
)

Array = Any

DIGITS = 4
# The halves of a number that sums are kept in: V = low + 2^HALF high.
HALF = 26


def _pmaddwd() -> tuple[str, int]:
    """The x86 instruction for pairs of products, and the bytes of its registers; no name on other processors."""
    if not X86:
        return "", 16
    if "avx512bw" in features():
        return "llvm.x86.avx512.pmaddw.d.512", 64
    if "avx2" in features():
        return "llvm.x86.avx2.pmadd.wd", 32
    return "llvm.x86.sse2.pmadd.wd", 16


MULTIPLY, WIDTH = _pmaddwd()
# Pixels that one step of the forward loop takes, and features that one call of the backward loop takes.
STEP = WIDTH // 2
TILE = WIDTH
# Features of one call of the forward loop: each 32-bit sum takes at most 256 pairs of products below 2^21 each.
LONGEST = 256 * STEP
# Models that share the loading of pixels, and samples that share the loading of digits. With 32 registers 16 sums are
# kept at once, with 16 registers 8.
MODELS = 2 if WIDTH == 64 else 1
_SUMS = 16 if WIDTH == 64 else 8
_LANES = WIDTH // 4
# Bytes of the weights' digits that stay in the first-level cache beside the pixels.
_DIGIT_BYTES = 24_576
_LINE = 64


def samples_at_once(models: int) -> int:
    """Samples that one call of the forward loop takes, when it works for so many models."""
    return _SUMS // (DIGITS * models)


def _add_pairs(builder: ir.IRBuilder, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """total[i] + a[2i] b[2i] + a[2i+1] b[2i+1] for 16-bit a, b and 32-bit total."""
    half, wide = vector(I16, 2 * _LANES), vector(I32, _LANES)
    if MULTIPLY:
        function = builder.module.declare_intrinsic(MULTIPLY, (), ir.FunctionType(wide, [half, half]))
        return builder.add(total, builder.call(function, [a, b]))
    for first in (0, 1):
        indices = list(range(first, 2 * _LANES, 2))
        factors = [builder.sext(shuffle(builder, x, ir.Constant(half, ir.Undefined), indices), wide) for x in (a, b)]
        total = builder.add(total, builder.mul(*factors))
    return total


def _dot_samples(models: int) -> Any:
    samples, rows_of_digits = samples_at_once(models), DIGITS * models

    @intrinsic
    def dot_samples(
        typingctx: Any, pixels: Any, stride: Any, digits: Any, digit_stride: Any, count: Any, sums: Any
    ) -> Any:
        """sums[s, k] += sum over j < count of pixels[s, j] * digits[k, j], for all digits k of `models` models.

        pixels : address of `samples_at_once` uint8 rows, `stride` bytes apart; digits : address of int16 rows,
        `digit_stride` bytes apart; count : a multiple of STEP, at most LONGEST, so that no 32-bit sum overflows;
        sums : address of int64
        """
        signature = types.void(*[types.int64] * 6)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            pixels, stride, digits, digit_stride, count, sums = arguments
            rows = [builder.add(pixels, builder.mul(stride, ir.Constant(I64, s))) for s in range(samples)]
            ahead = builder.mul(stride, ir.Constant(I64, samples))
            tables = [
                builder.add(digits, builder.mul(digit_stride, ir.Constant(I64, k))) for k in range(rows_of_digits)
            ]

            def body(j: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
                place = builder.shl(j, ir.Constant(I64, 1))
                factors = [load(builder, builder.add(table, place), vector(I16, STEP), 2) for table in tables]
                values = []
                for row in rows:
                    # The rows to come; each is too short for the processor to see a stream in it. Never faults.
                    prefetch(builder, builder.add(row, builder.add(ahead, j)))
                    values.append(builder.zext(load(builder, builder.add(row, j), vector(I8, STEP)), vector(I16, STEP)))
                pairs = [(value, factor) for value in values for factor in factors]
                return [
                    _add_pairs(builder, total, value, factor)
                    for total, (value, factor) in zip(totals, pairs, strict=True)
                ]

            zero = constant(I32, [0] * _LANES)
            totals = loop(builder, count, STEP, [zero] * (samples * rows_of_digits), body)
            wide = vector(I64, _LANES)
            reduce = builder.module.declare_intrinsic(
                f"llvm.vector.reduce.add.v{_LANES}i64", (), ir.FunctionType(I64, [wide])
            )
            pointer = builder.inttoptr(sums, I64.as_pointer())
            for n, total in enumerate(totals):
                place = builder.gep(pointer, [ir.Constant(I64, n)])
                builder.store(
                    builder.add(builder.load(place), builder.call(reduce, [builder.sext(total, wide)])), place
                )
            return context.get_dummy_value()

        return signature, codegen

    return dot_samples


def _add_samples(models: int) -> Any:
    rows_of_digits = DIGITS * models
    # A tile's sums of one digit are four groups. What one pass keeps in registers: some digits of some groups.
    groups_at_once = min(4, _SUMS // rows_of_digits) if models > 1 else 4
    digits_at_once = _SUMS // groups_at_once

    @intrinsic
    def add_samples(
        typingctx: Any,
        pixels: Any,
        stride: Any,
        digits: Any,
        digit_stride: Any,
        pairs: Any,
        low: Any,
        high: Any,
        sum_stride: Any,
    ) -> Any:
        """Add, for TILE features j and all models, the sums over 2 `pairs` samples s of pixels[s, j] * digits[k, s].

        low[j] += sum_0 + 2^13 sum_1; high[j] += sum_2 + 2^13 sum_3

        pixels : address of uint8 rows, `stride` bytes apart, from the first feature on; digits : address of rows of
        int16, `digit_stride` bytes apart; pairs : at most 256, so that no 32-bit sum overflows; low, high : addresses
        of int64 rows, one a model, `sum_stride` bytes apart
        """  # fmt: skip
        signature = types.void(*[types.int64] * 8)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            pixels, stride, digits, digit_stride, pairs, low, high, sum_stride = arguments
            zero, no_bytes = constant(I32, [0] * _LANES), constant(I8, [0] * WIDTH)
            sums: dict[tuple[int, int], ir.Value] = {}
            for first_digit in range(0, rows_of_digits, digits_at_once):
                for first_group in range(0, 4, groups_at_once):
                    wanted = [
                        (k, g)
                        for k in range(first_digit, first_digit + digits_at_once)
                        for g in range(first_group, first_group + groups_at_once)
                    ]

                    def body(
                        pair: ir.Value, totals: list[ir.Value], wanted: list[tuple[int, int]] = wanted
                    ) -> list[ir.Value]:
                        row = builder.add(pixels, builder.mul(builder.shl(pair, ir.Constant(I64, 1)), stride))
                        one = load(builder, row, vector(I8, WIDTH))
                        other = load(builder, builder.add(row, stride), vector(I8, WIDTH))
                        groups, factors = {}, {}
                        for g in sorted({g for _, g in wanted}):
                            both = interleave(builder, one, other, 1, g >= 2)
                            widened = interleave(builder, both, no_bytes, 1, g % 2 == 1)
                            groups[g] = builder.bitcast(widened, vector(I16, 2 * _LANES))
                        for k in sorted({k for k, _ in wanted}):
                            place = builder.add(
                                builder.add(digits, builder.mul(digit_stride, ir.Constant(I64, k))),
                                builder.shl(pair, ir.Constant(I64, 2)),
                            )
                            pair_of_digits = splat(builder, load(builder, place, I32, 2), _LANES)
                            factors[k] = builder.bitcast(pair_of_digits, vector(I16, 2 * _LANES))
                        return [
                            _add_pairs(builder, total, groups[g], factors[k])
                            for total, (k, g) in zip(totals, wanted, strict=True)
                        ]

                    totals = loop(builder, pairs, 1, [zero] * len(wanted), body)
                    sums.update(zip(wanted, totals, strict=True))
            kind = vector(I64, TILE)
            shift = constant(I64, [13] * TILE)
            for model in range(models):
                offset = builder.mul(sum_stride, ir.Constant(I64, model))
                for address, k in ((low, DIGITS * model), (high, DIGITS * model + 2)):
                    pointer = builder.inttoptr(builder.add(address, offset), kind.as_pointer())
                    unit, upper = (
                        builder.sext(in_order(builder, [sums[digit, g] for g in range(4)]), kind)
                        for digit in (k, k + 1)
                    )
                    added = builder.add(unit, builder.shl(upper, shift))
                    builder.store(builder.add(builder.load(pointer, align=8), added), pointer, align=8)
            return context.get_dummy_value()

        return signature, codegen

    return add_samples


SAMPLES_OF_ONE, SAMPLES_OF_MODELS = samples_at_once(1), samples_at_once(MODELS)
dot_samples, dot_samples_of_models = _dot_samples(1), _dot_samples(MODELS)
add_samples, add_samples_of_models = _add_samples(1), _add_samples(MODELS)


# ---- What `cpu` calls; `quads` has the same.

# Samples after which the narrow sums must be flushed: there are none here.
FLUSH = 2**62


def shapes(models: int, features: int, block: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Arrays to work in: `weights` for all threads; `residuals`, `sums`, `narrow` and `spare` for each thread."""
    padded = -(-features // _LINE) * _LINE
    return {
        "weights": ((models, DIGITS, padded), np.int16),
        "residuals": ((MODELS, DIGITS, -(-block // 32) * 32), np.int16),
        "sums": ((block * MODELS, DIGITS), np.int64),
        "narrow": ((models, 1), np.int32),
        "spare": ((1,), np.uint8),
    }


@njit(**OPTIONS)
def together(models: int) -> int:
    """How many of so many models that are left to do are done at once."""
    return MODELS if models >= MODELS else 1


@njit(**OPTIONS)
def _digits_of(lower: int, upper: int) -> tuple[Any, Any, Any, Any]:
    """Four digits d: lower + 2^26 upper = d0 + 2^13 d1 + 2^26 d2 + 2^39 d3."""
    d0 = np.int32(np.int32(np.int32(lower + 4096) & 8191) - 4096)
    d1 = np.int32(np.int32(lower - d0) >> 13)
    d2 = np.int32(np.int32(np.int32(upper + 4096) & 8191) - 4096)
    d3 = np.int32(np.int32(upper - d2) >> 13)
    return d0, d1, d2, d3


@njit(**OPTIONS)
def cut_weights(w: Array, down: float, weights: Array, first: int, last: int) -> None:
    """The digits of the weights of features first .. last - 1 of one model; w down lies within -1 .. 1."""
    for j in range(first, last):
        lower, upper = halves_of(w[j] * down)
        d0, d1, d2, d3 = _digits_of(lower, upper)
        weights[0, j] = d0
        weights[1, j] = d1
        weights[2, j] = d2
        weights[3, j] = d3


@njit(**OPTIONS)
def cut_residuals(lower: Array, upper: Array, samples: int, residuals: Array) -> None:
    """The digits of a block's residuals of one model, from their halves."""
    for s in range(samples):
        d0, d1, d2, d3 = _digits_of(lower[s], upper[s])
        residuals[0, s] = d0
        residuals[1, s] = d1
        residuals[2, s] = d2
        residuals[3, s] = d3


@njit(**OPTIONS)
def forward(pixels: Array, weights: Array, sums: Array) -> None:
    """The sums over features j of pixels[s, j] times weight j, for a block's samples s and one or MODELS models."""
    samples, features = pixels.shape
    models = len(weights)
    at_once = SAMPLES_OF_ONE if models == 1 else SAMPLES_OF_MODELS
    whole_samples = samples // at_once * at_once
    whole_features = features // STEP * STEP
    sums[: samples * models] = 0
    stride, weight_stride = np.int64(pixels.strides[0]), np.int64(weights.strides[1])
    # The digits that go with a stretch of features stay in the first-level cache while all samples pass.
    longest = min(LONGEST, _DIGIT_BYTES // (2 * DIGITS * models) // STEP * STEP)
    for j in range(0, whole_features, longest):
        digits = np.int64(weights.ctypes.data + 2 * j)
        count = np.int64(min(longest, whole_features - j))
        for s in range(0, whole_samples, at_once):
            first = np.int64(pixels.ctypes.data + s * stride + j)
            into = np.int64(sums.ctypes.data + s * models * sums.strides[0])
            if models == 1:
                dot_samples(first, stride, digits, weight_stride, count, into)
            else:
                dot_samples_of_models(first, stride, digits, weight_stride, count, into)
    for s in range(samples):
        # What fills no vector: the last features of all samples, and all features of the last samples.
        for j in range(whole_features if s < whole_samples else 0, features):
            pixel = np.int64(pixels[s, j])
            for i in range(models):
                for k in range(DIGITS):
                    sums[s * models + i, k] += pixel * weights[i, k, j]


@njit(**OPTIONS)
def halves(sums: Array, place: int) -> tuple[int, int]:
    """A sum of `forward`, that of sample s and model i at s models + i, in halves."""
    return sums[place, 0] + (sums[place, 1] << 13), sums[place, 2] + (sums[place, 3] << 13)


@njit(**OPTIONS)
def backward(pixels: Array, residuals: Array, narrow: Array, spare: Array, low: Array, high: Array) -> None:
    """Add to low[i], high[i] the halves of the sums over a block's samples s of pixels[s, j] times residual s."""
    samples, features = pixels.shape
    models = len(low)
    pairs = np.int64(samples // 2)
    whole_features = features // TILE * TILE
    stride, residual_stride = np.int64(pixels.strides[0]), np.int64(residuals.strides[1])
    digits, sum_stride = np.int64(residuals.ctypes.data), np.int64(low.strides[0])
    for j in range(0, whole_features, TILE):
        first = np.int64(pixels.ctypes.data + j)
        into_low, into_high = np.int64(low.ctypes.data + 8 * j), np.int64(high.ctypes.data + 8 * j)
        if models == 1:
            add_samples(first, stride, digits, residual_stride, pairs, into_low, into_high, sum_stride)
        else:
            add_samples_of_models(first, stride, digits, residual_stride, pairs, into_low, into_high, sum_stride)
    for s in range(samples):
        for i in range(models):
            lower = np.int64(residuals[i, 0, s]) + (np.int64(residuals[i, 1, s]) << 13)
            upper = np.int64(residuals[i, 2, s]) + (np.int64(residuals[i, 3, s]) << 13)
            for j in range(whole_features if s < 2 * pairs else 0, features):
                low[i, j] += pixels[s, j] * lower
                high[i, j] += pixels[s, j] * upper


@njit(**OPTIONS)
def flush(narrow: Array, low: Array, high: Array, features: int) -> None:
    """Nothing is kept in narrow sums here."""
