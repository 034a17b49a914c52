"""Pieces of LLVM vector code that the inner loops of the CPU kernel are built of, through Numba's `intrinsic`.

Numba's own types cannot express vector instructions. Everything here works on vectors of the widest registers of the
processor at hand; integers are exact, so the width changes no bit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

I8, I16, I32, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def features() -> set[str]:
    """The processor features that Numba compiles for: those there are, unless NUMBA_CPU_FEATURES names others."""
    if config.CPU_FEATURES is not None or config.CPU_NAME not in (None, "host"):
        flags = (config.CPU_FEATURES or "").split(",")
        return {flag[1:] for flag in flags if flag.startswith("+")}
    return {name for name, there in llvm.get_host_cpu_features().items() if there}


X86 = llvm.get_default_triple().startswith(("x86_64", "amd64"))


def vector(element: ir.Type, count: int) -> ir.VectorType:
    return ir.VectorType(element, count)


def constant(element: ir.Type, values: Sequence[int]) -> ir.Constant:
    return ir.Constant(vector(element, len(values)), list(values))


def constant64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def shuffle(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, indices: list[int]) -> ir.Value:
    return builder.shuffle_vector(a, b, constant(I32, indices))


def plus(builder: ir.IRBuilder, address: ir.Value, bytes_: int) -> ir.Value:
    return builder.add(address, ir.Constant(I64, bytes_)) if bytes_ else address


def load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, align: int = 1) -> ir.Value:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def store(builder: ir.IRBuilder, value: ir.Value, address: ir.Value, align: int = 1) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def call(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
    """An instruction that LLVM knows by name."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(builder.module.declare_intrinsic(name, (), kind), arguments)


def prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Ask for the cache line at `address`, which need not exist."""
    pointer = I8.as_pointer()
    function = builder.module.declare_intrinsic(
        "llvm.prefetch", [pointer], ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
    )
    read, near, data = (ir.Constant(I32, value) for value in (0, 2, 1))
    builder.call(function, [builder.inttoptr(address, pointer), read, near, data])


def loop(
    builder: ir.IRBuilder,
    count: ir.Value,
    step: int,
    totals: list[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """for i in range(0, count, step): totals = body(i, totals); returns the final totals. count may be 0."""
    before = builder.block
    head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(I64)
    i.add_incoming(ir.Constant(I64, 0), before)
    states = [builder.phi(total.type) for total in totals]
    for state, total in zip(states, totals, strict=True):
        state.add_incoming(total, before)
    builder.cbranch(builder.icmp_signed("<", i, count), inside, after)
    builder.position_at_end(inside)
    new = body(i, states)
    i.add_incoming(builder.add(i, ir.Constant(I64, step)), builder.block)
    for state, total in zip(states, new, strict=True):
        state.add_incoming(total, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return states


def interleave(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, size: int, upper: bool) -> ir.Value:
    """Elements of `size` bytes of the byte vectors a and b in turn, from the lower or upper half of every 16 bytes
    (x86: `punpckl..`, `punpckh..`; ARM: `zip1`, `zip2`)."""
    width = a.type.count
    indices = []
    for lane in range(0, width, 16):
        for i in range(8 // size):
            place = lane + i * size + (8 if upper else 0)
            indices += [*range(place, place + size), *range(width + place, width + place + size)]
    return shuffle(builder, a, b, indices)


def in_order(builder: ir.IRBuilder, groups: list[ir.Value]) -> ir.Value:
    """One vector of four of 32-bit lanes, of which group g holds elements 16 n + 4 g + (0..3) in its n-th 16 bytes."""
    lanes = groups[0].type.count
    first = shuffle(builder, groups[0], groups[1], list(range(2 * lanes)))
    second = shuffle(builder, groups[2], groups[3], list(range(2 * lanes)))
    indices = [g * lanes + 4 * lane + t for lane in range(lanes // 4) for g in range(4) for t in range(4)]
    return shuffle(builder, first, second, indices)


def splat(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """`value` in every lane."""
    one = builder.insert_element(ir.Constant(vector(value.type, lanes), ir.Undefined), value, ir.Constant(I32, 0))
    return shuffle(builder, one, one, [0] * lanes)


@intrinsic
def power_of_two(typingctx: Any, k: Any) -> Any:
    """2^k for a whole number k in float64, -1022 <= k <= 1023, by its bits."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        biased = builder.fptosi(builder.fadd(arguments[0], ir.Constant(ir.DoubleType(), 1023.0)), I64)
        return builder.bitcast(builder.shl(biased, ir.Constant(I64, 52)), ir.DoubleType())

    return types.float64(types.float64), codegen
