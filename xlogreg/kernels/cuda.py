"""The fused CUDA kernels from the host's side: compile them, divide the work, launch many iterations at once.

`cuda.cu` says what the kernels do. Here it is decided which of them runs, with how many blocks and with which tiles; no
such choice changes a bit. Pixels, weights, bias and costs stay on the device; `run` copies the costs of its iterations
back, and nothing is synchronised within a launch.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import in_host_memory, namespace, room_for
from ..errors import DeviceError, InputError
from ..neuron import elementary
from ..neuron.exact import (
    FEW,
    LARGEST_EXPONENT,
    LOSS_ABOVE,
    LOSS_BITS,
    MIN_EXPONENT,
    PIXEL_SCALE,
    PRODUCT_BITS,
    WEIGHT_BITS,
    WEIGHT_BITS_OF_FEW,
)
from ..neuron.objective import Descended, Gradient, Objective, Steps, check_arrays, standing
from ..neuron.reference import LARGEST_Z

Array = Any

SOURCE = Path(__file__).with_name("cuda.cu")
# No product may be contracted with a sum: the elementary functions must have the bits of the reference.
OPTIONS = ("--fmad=false", "--std=c++17")
# By dp4a a thread holds the sums of 4 features in the one-read kernel, by tensor cores a warp those of SHARES times 32.
TILES_THREADS, ONE_READ_THREADS_DP4A, ONE_READ_THREADS_TENSOR, SHARES = 512, 768, 512, 6
# dp4a is there from compute capability 6.1 on, what CuPy and its compiler support from 7.5; tensor cores multiply
# bytes with signed bytes from 8.0 on.
OLDEST, TENSOR_CORES = 75, 80

# The barrier's counter, 8-byte words.
_COUNTER_WORDS = 16
# Estimates of the hardware for the choice of tiles, in cycles; a bad estimate costs time and nothing else.
_ADDS_PER_CYCLE = 200.0
_MOST_SPLITS = 64
# One after the other, so many models read each pixel as often as all together in tiles, but without waiting for it.
_MOST_IN_TURN = 2


@dataclass(frozen=True)
class Plan:
    """How the work is divided.

    kernel : its name
    blocks, threads : of the launch, all resident at once
    rows, columns : of a tile: a multiple of 4 samples, a multiple of 16 features
    resident : whether each block keeps its only tile in shared memory for all iterations
    shared : bytes of shared memory a block
    """

    kernel: str
    blocks: int
    threads: int
    rows: int
    columns: int
    resident: bool
    shared: int


def source() -> str:
    """The kernels' source, with the constants of the Python modules before it."""
    names = {
        "EXP_FLOOR": elementary.EXP_FLOOR, "LOG2_E": elementary.LOG2_E, "LN2_HIGH": elementary.LN2_HIGH,
        "LN2_LOW": elementary.LN2_LOW, "PIXEL_SCALE": PIXEL_SCALE, "LARGEST_Z": LARGEST_Z,
    }  # fmt: skip
    lines = [f"#define {name} ({value.hex()})" for name, value in names.items()]
    for name, values in (("EXP", elementary.EXP_COEFFICIENTS), ("LOG", elementary.LOG_COEFFICIENTS)):
        lines.append(f"#define {name}_COEFFICIENTS {{{', '.join(value.hex() for value in values)}}}")
    numbers = {
        "LOSS_BITS": LOSS_BITS, "LOSS_ABOVE": LOSS_ABOVE, "MIN_EXPONENT": MIN_EXPONENT,
        "LARGEST_EXPONENT": LARGEST_EXPONENT, "PRODUCT_BITS": PRODUCT_BITS,
        "WEIGHT_BITS": WEIGHT_BITS, "WEIGHT_BITS_OF_FEW": WEIGHT_BITS_OF_FEW, "FEW": FEW,
        "TILES_THREADS": TILES_THREADS, "ONE_READ_THREADS_DP4A": ONE_READ_THREADS_DP4A,
        "ONE_READ_THREADS_TENSOR": ONE_READ_THREADS_TENSOR, "SHARES": SHARES,
    }  # fmt: skip
    lines += [f"#define {name} ({value})" for name, value in numbers.items()]
    return "\n".join(lines) + "\n" + SOURCE.read_text(encoding="utf-8")


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def _stride(columns: int) -> int:
    return (columns // 16 | 1) * 16


def shared_bytes(
    kernel: str, rows: int, columns: int, threads: int, models: int, resident: bool, tensor: bool
) -> int:  # fmt: skip
    """Shared memory of a block, as the kernel lays it out."""
    one_read = kernel == "descend_in_one_read"
    size = (1 if resident else 2) * rows * _stride(columns)  # pixels: those worked on, those on their way
    # Digits of weights and of residuals; parts of sums.
    size += columns // 16 * 8 * 16 + (_up(rows, 32) if tensor else rows) * 8
    parts = threads * (1 if one_read else 4) if not tensor else threads // 2 if one_read else threads
    size += max(parts, rows) * 16 + models * (8 + 4 + 4)  # bias, exponents of weights and residuals
    return size + (models * columns * 8 if resident else 0)


def plan_for(
    m: int, d: int, models: int, processors: int, shared: int, tensor: bool = True,
    tiles_threads: int = TILES_THREADS, one_read_threads: int | None = None,
) -> Plan:  # fmt: skip
    """The plan for m samples of d features on a device of so many multiprocessors, with `shared` bytes a block.

    Tiles that stay in shared memory if they fit; else one read of the pixels an iteration if whole samples fit, for one
    model, or a few in turn; else tiles that are read twice an iteration.

    Raises
    ------
    InputError
        Not even the smallest tile fits: too many models.
    """
    best = _resident(m, d, models, processors, shared, tiles_threads, tensor)
    if best is not None:
        return best
    columns = _up(d, 16)
    threads = one_read_threads or (ONE_READ_THREADS_TENSOR if tensor else ONE_READ_THREADS_DP4A)
    if models <= _MOST_IN_TURN and columns <= (threads // 32 * 32 * SHARES if tensor else 4 * threads):
        for rows in (64, 32, 16, 8, 4):
            size = shared_bytes("descend_in_one_read", rows, columns, threads, 1, False, tensor)
            if size <= shared:
                blocks = min(processors, -(-m // rows))
                return Plan("descend_in_one_read", blocks, threads, rows, columns, False, size)
    for columns in (512, 256, 128, 64, 32, 16):
        for rows in (256, 128, 64, 32, 16, 8, 4):
            tile = (min(rows, _up(m, 4)), min(columns, _up(d, 16)))
            size = shared_bytes("descend_in_tiles", *tile, tiles_threads, models, False, tensor)
            if size <= shared:
                blocks = min(processors, -(-m // tile[0]) * -(-d // tile[1]))
                return Plan("descend_in_tiles", blocks, tiles_threads, *tile, False, size)
    raise InputError(f"{models:,} models are too many for the GPU's shared memory; train fewer at once.")


def _resident(m: int, d: int, models: int, processors: int, shared: int, threads: int, tensor: bool) -> Plan | None:
    """The quickest division, by estimate, into one tile a multiprocessor that stays in shared memory."""
    best, least = None, float("inf")
    for column_slabs in range(1, min(processors, _MOST_SPLITS, -(-d // 16)) + 1):
        columns = _up(-(-d // column_slabs), 16)
        for row_slabs in range(1, processors // column_slabs + 1):
            rows = _up(-(-m // row_slabs), 4)
            blocks = -(-m // rows) * -(-d // columns)
            # 32-bit sums hold so many terms.
            if max(rows, columns) > 65_536 or row_slabs != -(-m // rows) or column_slabs != -(-d // columns):
                continue
            size = shared_bytes("descend_in_tiles", rows, columns, threads, models, True, tensor)
            if size > shared:
                continue
            cycles = models * (
                (_tensor_cycles if tensor else _cycles)(rows, columns, threads)
                + 2 * (m * column_slabs + d * row_slabs) / _ADDS_PER_CYCLE
            )
            if cycles < least:
                best, least = Plan("descend_in_tiles", blocks, threads, rows, columns, True, size), cycles
    return best


def _cycles(rows: int, columns: int, threads: int) -> float:
    """Cycles of dp4a for a tile, forward and backward, with the threads that have nothing to do."""
    groups, words, quads = columns // 16, columns // 4, rows // 4
    parts = max(1, min(threads // rows, groups))
    forward = -(-parts * rows // threads) * -(-groups // parts)
    divided = max(1, min(threads // words, quads))
    backward = -(-divided * words // threads) * -(-quads // divided)
    return (forward + 1.3 * backward) * 4 * 8 * threads / 64


def _tensor_cycles(rows: int, columns: int, threads: int) -> float:
    """Cycles of the tensor cores' loops: those of shared memory, or those that the busiest warp waits for its own."""
    warps, row_blocks, pairs = max(1, threads // 32), -(-rows // 16), -(-columns // 32)
    parts = max(1, min(warps // row_blocks, pairs))
    forward = max(6 * row_blocks * pairs, 35 * -(-parts * row_blocks // warps) * -(-pairs // parts))
    chunks = -(-rows // 32)
    divided = max(1, min(warps // pairs, chunks))
    return forward + max(10 * pairs * chunks, 60 * -(-divided * pairs // warps) * -(-chunks // divided))


@functools.cache
def _module(xp: Any, device: int) -> Any:
    return xp.RawModule(code=source(), options=OPTIONS)


class FusedCUDA(Objective):
    """The objective by the fused kernels, on CuPy arrays of pixels; no sample weights and no penalty yet.

    Parameters
    ----------
    plan : how to divide the work, if not by `plan_for`

    Raises
    ------
    DeviceError
        The device cannot run the kernels, or its memory does not hold what they need beside the pixels.
    """

    name = "fused"

    def __init__(
        self, rows: Array, sign: Array, plan: Plan | None = None, *, sample_weight: Array | None = None,
        l2: Array | None = None, classes: int = 1,
    ) -> None:  # fmt: skip
        # `objective_for` asks for none of what is not supported.
        assert sample_weight is None
        assert l2 is None
        assert classes == 1
        check_arrays(rows, sign, None, None, pixels=True)
        xp = self._xp = namespace(rows, sign)
        # Kernels know nothing of strides.
        self.rows, self.sign = map(xp.ascontiguousarray, (rows, sign))
        m, d = rows.shape
        limits = self._limits = device_limits(xp)
        self._kernel: Any = None
        self.plan = plan or plan_for(m, d, len(sign), limits.processors, limits.shared, limits.tensor)
        self._pixels = self._aligned()
        self._allocate()

    def _aligned(self) -> Array:
        """The pixels, with rows that begin at multiples of 16 bytes if there is memory for it: far faster."""
        xp, (m, d) = self._xp, self.rows.shape
        pitch = _up(d, 16)
        if d == pitch or in_host_memory(self.rows) or not room_for(xp, m * pitch):
            return self.rows
        try:
            padded = xp.zeros((m, pitch), dtype=xp.uint8)
        except xp.cuda.memory.OutOfMemoryError:
            return self.rows
        padded[:, :d] = self.rows
        return padded

    def _allocate(self) -> None:
        xp, plan = self._xp, self.plan
        (m, d), models = self.rows.shape, len(self.sign)
        tiles = plan.kernel == "descend_in_tiles"
        # The barrier; two buffers of the gradient, of residuals and losses, of the largest weights and residuals;
        # three of z.
        words = _COUNTER_WORDS + 2 * 2 * models * d + 2 * models * 5 + 2 * models
        words += 2 * 3 * models * m if tiles else 0
        digits = models * m if tiles and not plan.resident else 1
        try:
            self._workspace = xp.zeros((words,), dtype=xp.int64)
            self._digits = xp.zeros((digits,), dtype=xp.int64)
            # Of each model's weights and residuals, as far as known: guesses that are mostly right.
            self._exponents = xp.zeros((models, 2), dtype=xp.int32)
        except xp.cuda.memory.OutOfMemoryError as error:
            raise self._full(8 * (words + digits)) from error

    def _full(self, size: int) -> DeviceError:
        return DeviceError(
            f"The memory of gpu:{self._xp.cuda.Device().id} has no room for {size / 1e9:.1f} GB of sums beside the "
            "pixels; train on fewer pictures, with fewer models at once or with --device cpu."
        )

    def prepare(self) -> None:
        """Compile, or load what was compiled before, and launch once: a training of no iterations."""
        if self._kernel is not None:
            return
        xp, plan = self._xp, self.plan
        kernel = _module(xp, xp.cuda.Device().id).get_function(plan.kernel)
        # All that there is, not this plan's share: other objectives use the same function of the driver.
        kernel.max_dynamic_shared_size_bytes = self._limits.shared
        each = xp.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.kernel.ptr, plan.threads, plan.shared)
        # CuPy cuts a cooperative grid that is too large, and says nothing.
        if plan.blocks > int(each) * self._limits.processors:
            raise RuntimeError(f"the GPU runs {each} blocks of {plan.kernel} on a multiprocessor at once")
        self._kernel = kernel
        try:
            models, d = len(self.sign), self.rows.shape[1]
            nothing = (xp.zeros(shape, dtype=xp.float64) for shape in ((models, d), (models,)))
            self._advance(standing(*nothing), 0)
        except BaseException:
            self._kernel = None
            raise
        xp.cuda.Device().synchronize()

    def evaluate(self, w: Array, b: Array) -> Gradient:
        """Cost and gradient at w, b: a descent of one iteration that goes nowhere."""
        costs, dw, db = self._advance(standing(w, b), 1)
        return Gradient(dw, db, costs[0])

    def descend(self, steps: Steps, iterations: int) -> Descended:
        """Advance by so many iterations; the costs are copied from the device once."""
        assert not steps.momentum
        costs, dw, db = self._advance(steps, iterations)
        return Descended(costs.get(), None, Gradient(dw, db, costs[-1]))

    def _advance(self, steps: Steps, iterations: int) -> tuple[Array, Array, Array]:
        xp = self._xp
        d, models = self.rows.shape[1], len(self.sign)
        in_turn = models > 1 and self.plan.kernel == "descend_in_one_read"
        shape = (max(1, iterations), models)
        try:
            # A cost that is not written is no number, and so an error.
            costs = xp.full(shape[::-1] if in_turn else shape, float("nan"), dtype=xp.float64)
            dw, db = xp.empty((models, d), dtype=xp.float64), xp.empty((models,), dtype=xp.float64)
            if not in_turn:
                self._launch(steps, iterations, slice(0, models), costs, dw, db)
                return costs, dw, db
            for model in range(models):
                one = slice(model, model + 1)
                self._launch(steps, iterations, one, costs[one], dw[one], db[one])
            return xp.ascontiguousarray(costs.T), dw, db
        except xp.cuda.memory.OutOfMemoryError as error:
            raise self._full(8 * (shape[0] + d) * models) from error

    def _launch(self, steps: Steps, iterations: int, part: slice, costs: Array, dw: Array, db: Array) -> None:
        plan, (m, d) = self.plan, self.rows.shape
        self._workspace.fill(0)
        arguments = (
            self._pixels, self.sign[part], steps.w[part], steps.b[part], steps.rates[part], costs, dw, db,
            self._exponents[part], self._digits, self._workspace, np.int64(m), np.int64(d),
            np.int64(self._pixels.shape[1]), np.int32(len(steps.b[part])), np.int32(iterations), np.int32(plan.rows),
            np.int32(plan.columns), np.int32(plan.resident),
        )  # fmt: skip
        # The grid barrier needs all blocks at once, which only a cooperative launch promises. (A RawModule that is told
        # so at compile time would be linked with a library for it that the kernels do not use.)
        self._kernel.kernel(
            (plan.blocks,), (plan.threads,), arguments, shared_mem=plan.shared, enable_cooperative_groups=True
        )


@dataclass(frozen=True)
class Limits:
    """processors : multiprocessors; shared : bytes of shared memory that a block may have; capability : 90 for 9.0."""

    processors: int
    shared: int
    capability: int
    cooperative: bool

    @property
    def tensor(self) -> bool:
        """Whether the kernels are compiled for tensor cores."""
        return self.capability >= TENSOR_CORES


def device_limits(xp: Any) -> Limits:
    """What the kernels may use of the current device."""
    device = xp.cuda.Device()
    attributes = device.attributes
    return Limits(
        processors=int(attributes["MultiProcessorCount"]),
        shared=int(attributes["MaxSharedMemoryPerBlockOptin"]),
        capability=int(device.compute_capability),
        cooperative=bool(attributes["CooperativeLaunch"]),
    )


def why_not(xp: Any) -> str:
    """Why the kernels cannot run on the current device; empty if nothing speaks against it."""
    limits = device_limits(xp)
    if limits.capability < OLDEST:
        return f"it needs a GPU of compute capability 7.5 or later, not {limits.capability / 10}"
    if not limits.cooperative:
        return "this GPU's driver has no cooperative launches"
    return ""
