"""The barrier of the fused CPU kernel's threads, and how they share the blocks among them.

They stay in compiled code for many iterations and meet some times in each, so they wait for each other there, by
atomic instructions, and not in Python. Which thread works on which block changes no bit: all sums are exact.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from .arithmetic import OPTIONS
from .vectors import I32, I64, X86

Array = Any

# Places of the shared memory, in numbers of 64 bits, each with a cache line to itself: how many have come, how many
# times all have come, whether to stop; and then one for each thread, the next block of its share.
_LINE = 8
ARRIVED, GENERATION, STOP, SHARES = 0, _LINE, 2 * _LINE, 3 * _LINE
# Looks at the others before the processor is offered to whatever else wants to run.
_PATIENCE = 2000


def memory_size(threads: int) -> int:
    """Numbers of 64 bits that so many threads need."""
    return SHARES + _LINE * threads


def _pointer(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, I64.as_pointer())


@intrinsic
def _add(typingctx: Any, address: Any, value: Any) -> Any:
    """What was at the address; adds the value to it."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, arguments[0]), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _look(typingctx: Any, address: Any) -> Any:
    """What is at the address now."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_pointer(builder, arguments[0]), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _put(typingctx: Any, address: Any, value: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], _pointer(builder, arguments[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def _pause(typingctx: Any) -> Any:
    """Tell the processor that this thread only waits."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        if X86:
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), _NOTHING), [])
        return context.get_dummy_value()

    return types.void(), codegen


_NOTHING = ir.FunctionType(ir.VoidType(), [])


@intrinsic
def _call(typingctx: Any, function: Any) -> Any:
    """Call the C function without arguments at this address."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        builder.call(builder.inttoptr(arguments[0], ir.FunctionType(I32, []).as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@njit(**OPTIONS)
def wait(memory: Array, threads: int, give_way: int) -> bool:
    """Wait until all threads have come here; False if one of them failed and will not come.

    give_way : the address of a C function that lets other programs run, 0 for none
    """
    if threads == 1:
        return True
    place = np.int64(memory.ctypes.data)
    generation = _look(place + 8 * GENERATION)
    if _add(place + 8 * ARRIVED, 1) == threads - 1:
        _put(place + 8 * ARRIVED, 0)
        _add(place + 8 * GENERATION, 1)
        return True
    looks = 0
    while _look(place + 8 * GENERATION) == generation:
        looks += 1
        if looks < _PATIENCE:
            _pause()
            continue
        if _look(place + 8 * STOP) != 0:
            return False
        if give_way != 0:
            _call(give_way)
    return True


@njit(**OPTIONS)
def begin_share(memory: Array, thread: int, first: int) -> None:
    """A thread's share of the blocks begins with this one."""
    _put(np.int64(memory.ctypes.data) + 8 * (SHARES + _LINE * thread), first)


@njit(**OPTIONS)
def next_block(memory: Array, thread: int, last: int) -> int:
    """The next block of a thread's share, which ends before `last`; -1 if all are taken."""
    place = np.int64(memory.ctypes.data) + 8 * (SHARES + _LINE * thread)
    # To look is cheap: others may look as well.
    if _look(place) >= last:
        return -1
    block = _add(place, 1)
    return block if block < last else -1
