"""The two inner loops of the CPU kernel, as vector instructions that Numba's own types cannot express.

Both multiply pixels (unsigned bytes) with digits (16-bit integers) and add pairs of products into 32-bit integers,
which is one instruction on every x86-64 (`pmaddwd`; with VNNI it accumulates too) and a few on other processors.
Written as LLVM vector code through Numba's `intrinsic`, for the widest registers of the processor at hand; integers are
exact, so the width changes no bit.

The functions take addresses (`array.ctypes.data`); whoever calls them answers for bounds and strides.
"""

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

DIGITS = 4
_i8, _i16, _i32, _i64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def _features() -> set[str]:
    """The processor features that Numba compiles for: those there are, unless NUMBA_CPU_FEATURES names others."""
    if config.CPU_FEATURES is not None or config.CPU_NAME not in (None, "host"):
        flags = (config.CPU_FEATURES or "").split(",")
        return {flag[1:] for flag in flags if flag.startswith("+")}
    return {name for name, there in llvm.get_host_cpu_features().items() if there}


def _pmaddwd() -> tuple[str, int]:
    """The x86 instruction for pairs of products, and the bytes of its registers; no name on other processors."""
    if not llvm.get_default_triple().startswith(("x86_64", "amd64")):
        return "", 16
    features = _features()
    if "avx512bw" in features:
        return "llvm.x86.avx512.pmaddw.d.512", 64
    if "avx2" in features:
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


def samples_at_once(models: int) -> int:
    """Samples that one call of the forward loop takes, when it works for so many models."""
    return _SUMS // (DIGITS * models)


def _vector(element: ir.Type, count: int) -> ir.VectorType:
    return ir.VectorType(element, count)


def _constant(element: ir.Type, count: int, value: int) -> ir.Constant:
    return ir.Constant(_vector(element, count), [value] * count)


def _shuffle(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, indices: list[int]) -> ir.Value:
    return builder.shuffle_vector(a, b, ir.Constant(_vector(_i32, len(indices)), indices))


def _add_pairs(builder: ir.IRBuilder, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """total[i] + a[2i] b[2i] + a[2i+1] b[2i+1] for 16-bit a, b and 32-bit total."""
    half, wide = _vector(_i16, 2 * _LANES), _vector(_i32, _LANES)
    if MULTIPLY:
        function = builder.module.declare_intrinsic(MULTIPLY, (), ir.FunctionType(wide, [half, half]))
        return builder.add(total, builder.call(function, [a, b]))
    for first in (0, 1):
        indices = list(range(first, 2 * _LANES, 2))
        factors = [builder.sext(_shuffle(builder, x, ir.Constant(half, ir.Undefined), indices), wide) for x in (a, b)]
        total = builder.add(total, builder.mul(*factors))
    return total


def _load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, align: int = 1) -> ir.Value:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    pointer = _i8.as_pointer()
    function = builder.module.declare_intrinsic(
        "llvm.prefetch", [pointer], ir.FunctionType(ir.VoidType(), [pointer, _i32, _i32, _i32])
    )
    read, near, data = (ir.Constant(_i32, value) for value in (0, 2, 1))
    builder.call(function, [builder.inttoptr(address, pointer), read, near, data])


def _loop(builder: ir.IRBuilder, count: ir.Value, step: int, totals: list[ir.Value], body: Any) -> list[ir.Value]:
    """for i in range(0, count, step): totals = body(i, totals); returns the final totals. count may be 0."""
    before = builder.block
    head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(_i64)
    i.add_incoming(ir.Constant(_i64, 0), before)
    states = [builder.phi(total.type) for total in totals]
    for state, total in zip(states, totals, strict=True):
        state.add_incoming(total, before)
    builder.cbranch(builder.icmp_signed("<", i, count), inside, after)
    builder.position_at_end(inside)
    new = body(i, states)
    i.add_incoming(builder.add(i, ir.Constant(_i64, step)), builder.block)
    for state, total in zip(states, new, strict=True):
        state.add_incoming(total, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return states


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
            rows = [builder.add(pixels, builder.mul(stride, ir.Constant(_i64, s))) for s in range(samples)]
            ahead = builder.mul(stride, ir.Constant(_i64, samples))
            tables = [
                builder.add(digits, builder.mul(digit_stride, ir.Constant(_i64, k))) for k in range(rows_of_digits)
            ]

            def body(j: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
                place = builder.shl(j, ir.Constant(_i64, 1))
                factors = [_load(builder, builder.add(table, place), _vector(_i16, STEP), 2) for table in tables]
                values = []
                for row in rows:
                    # The rows to come; each is too short for the processor to see a stream in it. Never faults.
                    _prefetch(builder, builder.add(row, builder.add(ahead, j)))
                    values.append(
                        builder.zext(_load(builder, builder.add(row, j), _vector(_i8, STEP)), _vector(_i16, STEP))
                    )
                pairs = [(value, factor) for value in values for factor in factors]
                return [
                    _add_pairs(builder, total, value, factor)
                    for total, (value, factor) in zip(totals, pairs, strict=True)
                ]

            zero = _constant(_i32, _LANES, 0)
            totals = _loop(builder, count, STEP, [zero] * (samples * rows_of_digits), body)
            wide = _vector(_i64, _LANES)
            reduce = builder.module.declare_intrinsic(
                f"llvm.vector.reduce.add.v{_LANES}i64", (), ir.FunctionType(_i64, [wide])
            )
            pointer = builder.inttoptr(sums, _i64.as_pointer())
            for n, total in enumerate(totals):
                place = builder.gep(pointer, [ir.Constant(_i64, n)])
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
            zero, no_bytes = _constant(_i32, _LANES, 0), _constant(_i8, WIDTH, 0)
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
                        row = builder.add(pixels, builder.mul(builder.shl(pair, ir.Constant(_i64, 1)), stride))
                        one = _load(builder, row, _vector(_i8, WIDTH))
                        other = _load(builder, builder.add(row, stride), _vector(_i8, WIDTH))
                        groups, factors = {}, {}
                        for g in sorted({g for _, g in wanted}):
                            both = _interleave(builder, one, other, g >= 2)
                            widened = _interleave(builder, both, no_bytes, g % 2 == 1)
                            groups[g] = builder.bitcast(widened, _vector(_i16, 2 * _LANES))
                        for k in sorted({k for k, _ in wanted}):
                            place = builder.add(
                                builder.add(digits, builder.mul(digit_stride, ir.Constant(_i64, k))),
                                builder.shl(pair, ir.Constant(_i64, 2)),
                            )
                            factors[k] = _splat(builder, _load(builder, place, _i32, 2))
                        return [
                            _add_pairs(builder, total, groups[g], factors[k])
                            for total, (k, g) in zip(totals, wanted, strict=True)
                        ]

                    totals = _loop(builder, pairs, 1, [zero] * len(wanted), body)
                    sums.update(zip(wanted, totals, strict=True))
            kind = _vector(_i64, TILE)
            shift = _constant(_i64, TILE, 13)
            for model in range(models):
                offset = builder.mul(sum_stride, ir.Constant(_i64, model))
                for address, k in ((low, DIGITS * model), (high, DIGITS * model + 2)):
                    pointer = builder.inttoptr(builder.add(address, offset), kind.as_pointer())
                    unit, upper = (
                        builder.sext(_in_order(builder, [sums[digit, g] for g in range(4)]), kind)
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


@intrinsic
def power_of_two(typingctx: Any, k: Any) -> Any:
    """2^k for a whole number k in float64, -1022 <= k <= 1023, by its bits."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        biased = builder.fptosi(builder.fadd(arguments[0], ir.Constant(ir.DoubleType(), 1023.0)), _i64)
        return builder.bitcast(builder.shl(biased, ir.Constant(_i64, 52)), ir.DoubleType())

    return types.float64(types.float64), codegen


def _interleave(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, upper: bool) -> ir.Value:
    """Bytes of a and b in turn, from the lower or upper half of every 16 bytes: `punpcklbw`, `punpckhbw`, `zip`."""
    indices = []
    for lane in range(0, WIDTH, 16):
        for i in range(8):
            place = lane + i + (8 if upper else 0)
            indices += [place, WIDTH + place]
    return _shuffle(builder, a, b, indices)


def _in_order(builder: ir.IRBuilder, groups: list[ir.Value]) -> ir.Value:
    """The sums of TILE features in order: group g holds features 16 n + 4 g + (0..3) of every lane n."""
    first = _shuffle(builder, groups[0], groups[1], list(range(2 * _LANES)))
    second = _shuffle(builder, groups[2], groups[3], list(range(2 * _LANES)))
    indices = [g * _LANES + 4 * lane + t for lane in range(_LANES // 4) for g in range(4) for t in range(4)]
    return _shuffle(builder, first, second, indices)


def _splat(builder: ir.IRBuilder, pair: ir.Value) -> ir.Value:
    vector = builder.insert_element(ir.Constant(_vector(_i32, _LANES), ir.Undefined), pair, ir.Constant(_i32, 0))
    vector = _shuffle(builder, vector, vector, [0] * _LANES)
    return builder.bitcast(vector, _vector(_i16, 2 * _LANES))
