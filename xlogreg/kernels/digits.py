"""Pixels times digits: which instruction multiplies them here, and the vector code around it.

A whole number is cut into signed digits, lowest first; one product of all pixels with one digit of each number is a
row of work, and numbers that are small need few rows. The digits are as wide as the processor's best instruction takes
them: 8 bits where it multiplies bytes (VNNI: `vpdpbusd`, four products a lane), else 16 bits (`pmaddwd`, two products a
lane, on every x86-64; a few instructions on others), for which pixels are widened. The sums are whole numbers either
way, so neither the width nor the instruction changes a bit.

The intrinsics take addresses (`array.ctypes.data`); whoever calls them answers for bounds, and for sums that stay
below 2^31 in every lane.
"""

import os
from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..errors import InputError
from .vectors import (
    I8,
    I16,
    I32,
    I64,
    X86,
    call,
    constant,
    constant64,
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


@dataclass(frozen=True)
class Variant:
    """needs : of the processor's features; instruction : by LLVM's name, none for code of every processor; width : of
    its registers, in bytes; bits : of a digit"""

    needs: frozenset[str]
    instruction: str
    width: int
    bits: int


# By name, the best first.
VARIANTS = {
    "avx512-vnni": Variant(frozenset({"avx512bw", "avx512vl", "avx512vnni"}), "llvm.x86.avx512.vpdpbusd.512", 64, 8),
    "avx-vnni": Variant(frozenset({"avx2", "avxvnni"}), "llvm.x86.avx512.vpdpbusd.256", 32, 8),
    "avx512bw": Variant(frozenset({"avx512bw"}), "llvm.x86.avx512.pmaddw.d.512", 64, 16),
    "avx2": Variant(frozenset({"avx2"}), "llvm.x86.avx2.pmadd.wd", 32, 16),
    "sse2": Variant(frozenset({"sse2"}), "llvm.x86.sse2.pmadd.wd", 16, 16),
    "portable": Variant(frozenset(), "", 16, 16),
}


def chosen(name: str) -> Variant:
    """The variant of that name, or the best that the processor has; no number that it computes depends on it.

    Where the processor lacks the named variant's instruction, the same layout is worked on by code for every processor,
    far more slowly: so all variants can be tested everywhere.
    """
    there = features() if X86 else set()
    if not name:
        return next(variant for variant in VARIANTS.values() if variant.needs <= there)
    if name not in VARIANTS:
        raise InputError(f"XLOGREG_KERNEL is {name!r}; choose {', '.join(VARIANTS)}, or leave it unset for the best.")
    variant = VARIANTS[name]
    return variant if variant.needs <= there else replace(variant, instruction="")


_VARIANT = chosen(os.environ.get("XLOGREG_KERNEL", ""))
MULTIPLY, WIDTH, BITS = _VARIANT.instruction, _VARIANT.width, _VARIANT.bits
# Digits of a number of 64 bits.
DIGITS = 64 // BITS
# Products that one lane adds up: features of a sample (forward), samples of a feature (backward).
GROUP = 32 // BITS
LANES = WIDTH // 4
# Features that one step takes: forward, backward.
STEP, TILE = LANES * GROUP, WIDTH
# Rows of work that share the loading of pixels, at most; backward each needs four registers of sums.
ROWS = 4
BACKWARD_ROWS = 4 if WIDTH == 64 else 2
_DIGIT = I8 if BITS == 8 else I16
_BYTES, _WORDS, _DIGITS_OF_A_STEP = vector(I8, WIDTH), vector(I32, LANES), vector(_DIGIT, STEP)


def samples_at_once(rows: int) -> int:
    """Samples that share the loading of so many rows of digits: all their sums stay in registers."""
    return {1: 6, 2: 6, 4: 4}[rows] if WIDTH == 64 else {1: 4, 2: 4, 4: 2}[rows]


def _multiply(builder: ir.IRBuilder, total: ir.Value, pixels: ir.Value, digits: ir.Value) -> ir.Value:
    """total[i] + the sum over t < GROUP of pixels[GROUP i + t] digits[GROUP i + t]; pixels as wide as digits."""
    if MULTIPLY and BITS == 8:
        return call(
            builder, MULTIPLY, _WORDS, [total, builder.bitcast(pixels, _WORDS), builder.bitcast(digits, _WORDS)]
        )  # fmt: skip
    if MULTIPLY:
        return builder.add(total, call(builder, MULTIPLY, _WORDS, [pixels, digits]))
    undefined = ir.Constant(pixels.type, ir.Undefined)
    for first in range(GROUP):
        indices = list(range(first, STEP, GROUP))
        pixel, digit = (shuffle(builder, x, undefined, indices) for x in (pixels, digits))
        total = builder.add(total, builder.mul(builder.zext(pixel, _WORDS), builder.sext(digit, _WORDS)))
    return total


def _dot(rows: int) -> Any:
    samples = samples_at_once(rows)

    @intrinsic
    def dot(
        typingctx: Any, pixels: Any, stride: Any, left: Any, offset: Any, last: Any, digits: Any, steps: Any, sums: Any,
        sum_stride: Any,
    ) -> Any:  # fmt: skip
        """sums[s, r] += the sum over some features j of pixels[s, j] times digit r of j, for `samples_at_once` samples.

        pixels : address of uint8 rows, `stride` bytes apart; where fewer are `left`, the last is taken again
        offset, last : the first step's first feature, and the greatest that any step may have
        digits : address of the addresses of the rows of digits, each for the first step
        sums : address of int64, `sum_stride` bytes between samples
        """
        signature = types.void(*[types.int64] * 9)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            pixels, stride, left, offset, last, digits, steps, sums, sum_stride = arguments
            final = builder.sub(left, constant64(1))
            lines = []
            for s in range(samples):
                line = builder.select(builder.icmp_signed("<", constant64(s), final), constant64(s), final)
                lines.append(builder.add(pixels, builder.mul(stride, line)))
            ahead = builder.mul(stride, constant64(samples))
            tables = [load(builder, plus(builder, digits, 8 * r), I64, 8) for r in range(rows)]

            def body(step: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
                j = builder.add(offset, builder.mul(step, constant64(STEP)))
                j = builder.select(builder.icmp_signed("<", j, last), j, last)
                place = builder.mul(step, constant64(STEP * BITS // 8))
                factors = [load(builder, builder.add(table, place), _DIGITS_OF_A_STEP, WIDTH) for table in tables]
                new = list(totals)
                for s, line in enumerate(lines):
                    at = builder.add(line, j)
                    value = load(builder, at, vector(I8, STEP))
                    # The rows to come; each is too short for the processor to see a stream in it. Never faults.
                    prefetch(builder, builder.add(at, ahead))
                    if BITS == 16:
                        value = builder.zext(value, _DIGITS_OF_A_STEP)
                    for r, factor in enumerate(factors):
                        new[s * rows + r] = _multiply(builder, totals[s * rows + r], value, factor)
                return new

            zero = constant(I32, [0] * LANES)
            totals = loop(builder, steps, 1, [zero] * (samples * rows), body)
            wide = vector(I64, LANES)
            reduce = builder.module.declare_intrinsic(
                f"llvm.vector.reduce.add.v{LANES}i64", (), ir.FunctionType(I64, [wide])
            )
            for s in range(samples):
                place = builder.add(sums, builder.mul(sum_stride, constant64(s)))
                for r in range(rows):
                    at = plus(builder, place, 8 * r)
                    total = builder.call(reduce, [builder.sext(totals[s * rows + r], wide)])
                    store(builder, builder.add(load(builder, at, I64, 8), total), at, 8)
            return context.get_dummy_value()

        return signature, codegen

    return dot


def _turned(builder: ir.IRBuilder, lines: list[ir.Value]) -> list[ir.Value]:
    """The bytes of GROUP samples in turn, as wide as digits: vector g holds features 16 n + 4 g + (0..3) of all of them
    in its n-th 16 bytes."""
    if BITS == 8:
        values = []
        for upper in (False, True):
            pairs = [interleave(builder, lines[s], lines[s + 1], 1, upper) for s in (0, 2)]
            values += [interleave(builder, pairs[0], pairs[1], 2, top) for top in (False, True)]
        return values
    no_bytes = constant(I8, [0] * WIDTH)
    both = [interleave(builder, lines[0], lines[1], 1, upper) for upper in (False, True)]
    return [interleave(builder, both[g // 2], no_bytes, 1, g % 2 == 1) for g in range(4)]


def _add(rows: int) -> Any:
    @intrinsic
    def add(
        typingctx: Any, pixels: Any, stride: Any, first: Any, second: Any, third: Any, groups: Any, digits: Any,
        digit_stride: Any, sums: Any, offset: Any,
    ) -> Any:  # fmt: skip
        """sums[r, j] += the sum over samples s of pixels[s, j] times digit r of s, for TILE features j.

        pixels : address of uint8 rows; `stride` is from one group of GROUP samples to the next; first, second, third :
        from a group's first sample to its others; digits : address of rows, `digit_stride` bytes apart, GROUP digits
        each group; sums : address of the addresses of the rows of (4, LANES) int32, to which `offset` is added
        """
        signature = types.void(*[types.int64] * 10)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            pixels, stride, first, second, third, groups, digits, digit_stride, sums, offset = arguments
            tables = [builder.add(digits, builder.mul(digit_stride, constant64(r))) for r in range(rows)]
            places = []
            for r in range(rows):
                row = builder.add(load(builder, plus(builder, sums, 8 * r), I64, 8), offset)
                places += [plus(builder, row, g * WIDTH) for g in range(4)]

            def body(group: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
                line = builder.add(pixels, builder.mul(group, stride))
                at = [line, *(builder.add(line, step) for step in (first, second, third))][:GROUP]
                values = _turned(builder, [load(builder, place, _BYTES) for place in at])
                new = []
                for r, table in enumerate(tables):
                    factor = load(builder, builder.add(table, builder.shl(group, constant64(2))), I32, 4)
                    factor = builder.bitcast(splat(builder, factor, LANES), _DIGITS_OF_A_STEP)
                    new += [
                        _multiply(builder, totals[4 * r + g], builder.bitcast(values[g], _DIGITS_OF_A_STEP), factor)
                        for g in range(4)
                    ]
                return new

            totals = [load(builder, place, _WORDS, WIDTH) for place in places]
            totals = loop(builder, groups, 1, totals, body)
            for place, total in zip(places, totals, strict=True):
                store(builder, total, place, WIDTH)
            return context.get_dummy_value()

        return signature, codegen

    return add


@intrinsic
def take_sums(typingctx: Any, sums: Any, target: Any) -> Any:
    """Move a tile's sums, (4, LANES) int32, to TILE int64 in the order of the features, and leave zeros."""
    signature = types.void(types.int64, types.int64)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        sums, target = arguments
        places = [plus(builder, sums, g * WIDTH) for g in range(4)]
        groups = [load(builder, place, _WORDS, WIDTH) for place in places]
        for place in places:
            store(builder, constant(I32, [0] * LANES), place, WIDTH)
        store(builder, builder.sext(in_order(builder, groups), vector(I64, TILE)), target, 8)
        return context.get_dummy_value()

    return signature, codegen


# By number of rows; three are two and one.
dot_1, dot_2, dot_4 = (_dot(rows) for rows in (1, 2, 4))
add_1, add_2, add_4 = (_add(rows) for rows in (1, 2, 4))
