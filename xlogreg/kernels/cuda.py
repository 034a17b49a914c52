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

from .. import elementary
from ..backend import namespace
from ..engine import DescentOptions, Gradient, Models
from ..errors import DeviceError, InputError
from ..exact import LOSS_BITS, LOSS_EXPONENT, MIN_EXPONENT
from ..reference import LARGEST_Z, PIXEL_SCALE

Array = Any

SOURCE = Path(__file__).with_name("cuda.cu")
# No product may be contracted with a sum: the elementary functions must have the bits of the reference.
OPTIONS = ("--fmad=false", "--std=c++17")
TILES_THREADS, ONE_READ_THREADS = 512, 768
# dp4a is there from compute capability 6.1 on, what CuPy and its compiler support from 7.5.
OLDEST = 75

_DIGITS = 7
# Estimates of the hardware for the choice of tiles, in cycles; a bad estimate costs time and nothing else.
_ADDS_PER_CYCLE = 200.0
_MOST_SPLITS = 64


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
        "LOSS_BITS": LOSS_BITS, "LOSS_EXPONENT": LOSS_EXPONENT, "MIN_EXPONENT": MIN_EXPONENT,
        "TILES_THREADS": TILES_THREADS, "ONE_READ_THREADS": ONE_READ_THREADS,
    }  # fmt: skip
    lines += [f"#define {name} ({value})" for name, value in numbers.items()]
    return "\n".join(lines) + "\n" + SOURCE.read_text(encoding="utf-8")


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def _stride(columns: int) -> int:
    return (columns // 16 | 1) * 16


def shared_bytes(kernel: str, rows: int, columns: int, threads: int, models: int, resident: bool) -> int:
    """Shared memory of a block, as the kernel lays it out."""
    tiles, parts = (2, threads) if kernel == "descend_in_one_read" else (1, 4 * threads)
    size = tiles * rows * _stride(columns)  # pixels
    size += columns // 16 * _DIGITS * 16 + rows // 4 * 32  # digits of weights and of residuals
    size += max(parts, rows) * 16 + models * (8 + 4)  # parts of sums; bias and exponents
    return size + (models * columns * 8 if resident else 0)


def plan_for(
    m: int, d: int, models: int, processors: int, shared: int,
    tiles_threads: int = TILES_THREADS, one_read_threads: int = ONE_READ_THREADS,
) -> Plan:  # fmt: skip
    """The plan for m samples of d features on a device of so many multiprocessors, with `shared` bytes a block.

    Tiles that stay in shared memory if they fit; else one read of the pixels an iteration if whole samples fit (one
    model only); else tiles that are read twice an iteration.

    Raises
    ------
    InputError
        Not even the smallest tile fits: too many models.
    """
    best = _resident(m, d, models, processors, shared, tiles_threads)
    if best is not None:
        return best
    columns = _up(d, 16)
    if models == 1 and columns // 4 <= one_read_threads:
        for rows in (64, 32, 16, 8, 4):
            size = shared_bytes("descend_in_one_read", rows, columns, one_read_threads, 1, False)
            if size <= shared:
                blocks = min(processors, -(-m // rows))
                return Plan("descend_in_one_read", blocks, one_read_threads, rows, columns, False, size)
    for columns in (512, 256, 128, 64, 32, 16):
        for rows in (256, 128, 64, 32, 16, 8, 4):
            tile = (min(rows, _up(m, 4)), min(columns, _up(d, 16)))
            size = shared_bytes("descend_in_tiles", *tile, tiles_threads, models, False)
            if size <= shared:
                blocks = min(processors, -(-m // tile[0]) * -(-d // tile[1]))
                return Plan("descend_in_tiles", blocks, tiles_threads, *tile, False, size)
    raise InputError(f"{models:,} models are too many for the GPU's shared memory; train fewer at once.")


def _resident(m: int, d: int, models: int, processors: int, shared: int, threads: int) -> Plan | None:
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
            size = shared_bytes("descend_in_tiles", rows, columns, threads, models, True)
            if size > shared:
                continue
            cycles = models * (
                _cycles(rows, columns, threads) + 2 * (m * column_slabs + d * row_slabs) / _ADDS_PER_CYCLE
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
    return (forward + 1.3 * backward) * 4 * _DIGITS * threads / 64


@functools.cache
def _module(xp: Any, device: int) -> Any:
    return xp.RawModule(code=source(), options=OPTIONS)


class FusedCUDA(Models):
    """Gradient descent by the fused kernels on CuPy arrays of pixels; arguments as those of `reference.Reference`.

    Parameters
    ----------
    plan : how to divide the work, if not by `plan_for`

    Raises
    ------
    DeviceError
        The device cannot run the kernels, or its memory does not hold what they need beside the pixels.
    """

    name = "fused"
    supports: frozenset[str] = frozenset()

    def __init__(
        self,
        rows: Array,
        sign: Array,
        w: Array,
        b: Array,
        rates: Array,
        plan: Plan | None = None,
        *,
        weights: Array | None = None,
        options: DescentOptions | None = None,
    ) -> None:
        # `engine_for` asks for none of what is not supported.
        assert not (options or DescentOptions()).needs(weights is not None)
        xp = self._xp = namespace(rows, sign, w, b, rates)
        # Kernels know nothing of strides.
        self.rows, self.sign, self.rates = map(xp.ascontiguousarray, (rows, sign, rates))
        self.w, self.b = map(xp.ascontiguousarray, (w, b))
        self.gradient: Gradient | None = None
        m, d = rows.shape
        models = len(b)
        limits = self._limits = device_limits(xp)
        self.plan = plan or plan_for(m, d, models, limits.processors, limits.shared)
        # Sums of z (three buffers), of the gradient, of residuals and losses (two), the largest weights, the barrier.
        words = 2 * (3 * models * m + 2 * models * d) + 2 * models * (6 + 1) + 1
        keeps_digits = self.plan.kernel == "descend_in_tiles" and not self.plan.resident
        digits = models * _up(m, 4) * 8 if keeps_digits else 16
        try:
            self._workspace = xp.zeros((words,), dtype=xp.int64)
            self._digits = xp.zeros((digits,), dtype=xp.uint8)
            self._exponents = xp.zeros((models,), dtype=xp.int32)
        except xp.cuda.memory.OutOfMemoryError as error:
            raise DeviceError(
                f"The GPU's memory has no room for {(8 * words + digits) / 1e9:.1f} GB of sums beside the pixels; "
                "train on fewer pictures, with fewer models at once or with --device cpu."
            ) from error

    def prepare(self) -> None:
        """Compile, or load what was compiled before, and launch once: a training of no iterations."""
        module = _module(self._xp, self._xp.cuda.Device().id)
        self._kernel = module.get_function(self.plan.kernel)
        # All that there is, not this plan's share: other engines use the same function of the driver.
        self._kernel.max_dynamic_shared_size_bytes = self._limits.shared
        self._advance(0)
        self._xp.cuda.Device().synchronize()

    def run(self, iterations: int) -> np.ndarray:
        """Advance by so many iterations; returns their costs (iterations, M), copied from the device once."""
        costs, dw, db = self._advance(iterations)
        self.gradient = Gradient(dw, db, costs[-1])
        self.iterations += iterations
        return costs.get()

    def _advance(self, iterations: int) -> tuple[Array, Array, Array]:
        xp, plan = self._xp, self.plan
        (m, d), models = self.rows.shape, len(self.b)
        # A cost that is not written is no number, and so an error.
        costs = xp.full((max(1, iterations), models), float("nan"), dtype=xp.float64)
        dw, db = xp.empty((models, d), dtype=xp.float64), xp.empty((models,), dtype=xp.float64)
        self._workspace.fill(0)
        arguments = (
            self.rows, self.sign, self.w, self.b, self.rates, costs, dw, db, self._exponents, self._digits,
            self._workspace, np.int64(m), np.int64(d), np.int32(models), np.int32(iterations), np.int32(plan.rows),
            np.int32(plan.columns), np.int32(plan.resident),
        )  # fmt: skip
        # The grid barrier needs all blocks at once, which only a cooperative launch promises. (A RawModule that is told
        # so at compile time would be linked with a library for it that the kernels do not use.)
        self._kernel.kernel(
            (plan.blocks,), (plan.threads,), arguments, shared_mem=plan.shared, enable_cooperative_groups=True
        )
        return costs, dw, db


@dataclass(frozen=True)
class Limits:
    """processors : multiprocessors; shared : bytes of shared memory that a block may have; capability : 90 for 9.0."""

    processors: int
    shared: int
    capability: int
    cooperative: bool


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
