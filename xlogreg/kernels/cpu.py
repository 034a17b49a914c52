"""The fused CPU kernel: gradient descent on uint8 pixels in integers, every pixel read from memory once an iteration.

The split of `xlogreg.exact` makes fixed-point numbers: weights and residuals are whole numbers of 52 bits below a power
of two. Here those are cut into digits of 8 or 13 bits, so that pixels times digits are small integers, which every
processor multiplies and adds many at a time (`quads`, `pairs`), several times as fast as float64. The integer sums are
the exact sums of the reference, and they are rounded in the same single place: the bits are the same.

One iteration, by all threads:

1. weights -> digits
2. for each block of samples that fits the cache: forward, sigmoid and loss, residuals -> digits, backward
3. add the threads' sums, update the weights, find their new exponents

Everything but the integer sums repeats the operations of `elementary`, `exact` and `reference` in the same order
(`steps`, `arithmetic`).
"""

import hashlib
import math
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import njit, prange

from ..engine import FEATURES, DescentOptions, Gradient, Models
from ..exact import LOSS_BITS, LOSS_EXPONENT, MAX_SQUARE_EXPONENT, bits_per_piece, exponent_above
from .arithmetic import CAN_CACHE, OPTIONS
from .steps import (
    add_squares,
    exponents_of,
    loops,
    of_square,
    residuals_of,
    update_bias,
    update_weights,
)
from .threads import Team

Array = Any

_FLUSH = loops.FLUSH
_together, _forward, _backward, _flush = loops.together, loops.forward, loops.backward, loops.flush
_cut_weights = loops.cut_weights

# Bytes of pixels that a block of samples may have: it is read from memory once and from the cache once more.
_BLOCK_BYTES = 196_608
_MAX_BLOCK = 512
# Up to so many bytes of pixels are copied if they do not start with a cache line.
_ALIGN_BYTES = 2**25
# Digits are laid out in rows of whole cache lines, which no two threads share.
_LINE = 64


@njit(**OPTIONS)
def _propagate(
    rows: Array,
    sign: Array,
    importance: Array,
    b: Array,
    exponents: Array,
    weights: Array,
    ceilings: Array,
    loss_constants: Array,
    first: int,
    last: int,
    low: Array,
    high: Array,
    totals: Array,
    sums: Array,
    residuals: Array,
    narrow: Array,
    spare: Array,
    numbers: Array,
    lower_: Array,
    upper_: Array,
) -> None:
    """Forward and backward propagation of a block: samples first .. last - 1, all models."""  # fmt: skip
    pixels = rows[first:last]
    models = len(b)
    model = 0
    while model < models:
        count = _together(models - model)
        _forward(pixels, weights[model : model + count], sums)
        for k in range(count):
            i = model + k
            # A slice of what is empty is empty.
            residuals_of(
                sums, k, count, sign[i, first:last], importance[i, first:last], math.ldexp(1.0, exponents[i] - 52),
                b[i], math.ldexp(1.0, -ceilings[i]), loss_constants[i], residuals[k], totals[i], numbers,
                lower_, upper_,
            )  # fmt: skip
        _backward(
            pixels, residuals[:count], narrow[model : model + count], spare,
            low[model : model + count, : rows.shape[1]], high[model : model + count, : rows.shape[1]],
        )  # fmt: skip
        model += count


@njit(**OPTIONS)
def _clear(low: Array, high: Array, totals: Array) -> None:
    """Zeros, for a thread's sums of an iteration."""
    low[:] = 0
    high[:] = 0
    totals[:] = 0.0


@njit(**OPTIONS)
def _share(features: int, thread: int, threads: int) -> int:
    """Where a thread's share of the features begins: with a cache line, so that no two threads write to one."""
    return min(features, (features + _LINE - 1) // _LINE * thread // threads * _LINE)


def _sources() -> str:
    """A digest of everything that is compiled into the kernel."""
    here = Path(__file__).parent
    files = [here / f"{name}.py" for name in ("arithmetic", "vectors", "pairs", "quads", "steps", "cpu")]
    files += [here.parent / f"{name}.py" for name in ("elementary", "exact", "reference", "engine")]
    digest = hashlib.sha256(loops.MULTIPLY.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _compile(sources: str) -> Any:
    """The kernel. Numba looks at no file but this one to see whether what it keeps is still right, but at the values
    that a function takes from around it: `sources` is there for that."""

    @njit(parallel=True, cache=CAN_CACHE, **OPTIONS)
    def run(
        rows: Array,
        sign: Array,
        importance: Array,
        w: Array,
        b: Array,
        velocity_w: Array,
        velocity_b: Array,
        rates: Array,
        rule: Array,
        costs: Array,
        slopes: Array,
        dw: Array,
        db: Array,
        block: int,
        ceilings: Array,
        loss_constants: Array,
        exponents: Array,
        largest: Array,
        steepest: Array,
        weights: Array,
        low: Array,
        high: Array,
        totals: Array,
        sums: Array,
        residuals: Array,
        narrow: Array,
        spare: Array,
        numbers: Array,
        numbers32: Array,
    ) -> None:
        """len(costs) iterations of all models, in place; `largest` holds max|w| of each. For the rest see FusedCPU."""
        assert len(sources) > 0
        m, d = rows.shape
        blocks = (m + block - 1) // block
        threads = len(low)
        for iteration in range(len(costs)):
            exponents_of(largest, exponents)
            for thread in prange(threads):
                begin, end = _share(d, thread, threads), _share(d, thread + 1, threads)
                _clear(low[thread], high[thread], totals[thread])
                for model in range(len(w)):
                    _cut_weights(w[model], math.ldexp(1.0, -exponents[model]), weights[model], begin, end)
                    if rule[0] != 0.0 and exponents[model] <= MAX_SQUARE_EXPONENT:
                        down = math.ldexp(1.0, -of_square(exponents[model]))
                        add_squares(w[model], down, begin, end, totals[thread, model])
            for thread in prange(threads):
                pending = 0
                for i in range(thread * blocks // threads, (thread + 1) * blocks // threads):
                    if pending + block > _FLUSH:
                        _flush(narrow[thread], low[thread], high[thread], d)
                        pending = 0
                    pending += block
                    _propagate(
                        rows, sign, importance, b, exponents, weights, ceilings, loss_constants,
                        i * block, min((i + 1) * block, m), low[thread], high[thread], totals[thread], sums[thread],
                        residuals[thread], narrow[thread], spare[thread], numbers[thread],
                        numbers32[thread, 0], numbers32[thread, 1],
                    )  # fmt: skip
                _flush(narrow[thread], low[thread], high[thread], d)
            for thread in prange(threads):
                update_weights(
                    w, velocity_w, rates, rule, ceilings, dw, m, low, high, largest[thread], steepest[thread],
                    _share(d, thread, threads), _share(d, thread + 1, threads),
                )  # fmt: skip
            update_bias(
                b, velocity_b, rates, rule, ceilings, exponents, db, costs[iteration], slopes[iteration], m, totals,
                steepest,
            )  # fmt: skip

    return run


_run = _compile(_sources())


def compiled_before() -> bool:
    """Whether the kernel was compiled in this process, or compiled code of an earlier one lies in Numba's cache."""
    try:
        return bool(_run.signatures) or any(Path(_run._cache.cache_path).glob("cpu._compile.locals.run-*.nbi"))
    except AttributeError:  # no cache, or a Numba that keeps it elsewhere
        return False


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros from the start of a cache line on: vectors that cross lines take twice as long."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _LINE, np.uint8)
    offset = -memory.ctypes.data % _LINE
    return memory[offset : offset + size].view(dtype).reshape(shape)


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view in order of rows that cannot be written to.

    Numba compiles anew for each combination of writable and read-only arguments and of layouts: this makes it one.
    """
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _aligned_copy(rows: np.ndarray) -> np.ndarray:
    """The pixels from the start of a cache line on, copied there if they are few; many are limited by memory anyway."""
    if rows.ctypes.data % _LINE == 0 or rows.nbytes > _ALIGN_BYTES:
        return rows
    copy = aligned(rows.shape, np.uint8)
    copy[:] = rows
    return copy


def _loss_constants(samples: int, ceilings: np.ndarray) -> np.ndarray:
    """For each model the rounding constants of the losses' three pieces, and 1 or 0 for whether there is a third."""
    length = bits_per_piece(samples, 0)
    kept = [min(length, LOSS_BITS), min(2 * length, LOSS_BITS), LOSS_BITS]
    return np.array([
        [*(1.5 * 2.0 ** (52 + LOSS_EXPONENT + int(ceiling) - bits) for bits in kept), float(2 * length < LOSS_BITS)]
        for ceiling in ceilings
    ])  # fmt: skip


class FusedCPU(Models):
    """Gradient descent by the fused kernel on NumPy arrays of pixels; arguments as those of `reference.Reference`."""

    name = "fused"
    supports = frozenset(FEATURES)

    def __init__(
        self,
        rows: Array,
        sign: Array,
        w: Array,
        b: Array,
        rates: Array,
        *,
        weights: Array | None = None,
        options: DescentOptions | None = None,
    ) -> None:
        self.rows, self.sign, self.rates, self.weights = _aligned_copy(rows), sign, rates, weights
        self.w, self.b = w, b
        self.options = options or DescentOptions()
        self.gradient: Gradient | None = None
        if self.options.momentum:
            self.velocity, self.bias_velocity = np.zeros_like(w), np.zeros_like(b)
        m, d = rows.shape
        self._block = max(2, min(_MAX_BLOCK, _BLOCK_BYTES // d) // 4 * 4)
        # No more threads than blocks: a thread without work would still be waited for.
        self._team = Team(min(numba.get_num_threads(), -(-m // self._block)))

    def prepare(self) -> None:
        """Compile, or load what was compiled before: a training of no iterations."""
        self._advance(0, 1)

    def run(self, iterations: int) -> np.ndarray:
        """Advance by so many iterations; returns their costs (iterations, M)."""
        costs, slopes = np.empty((2, iterations, len(self.b)))
        done = 0
        while done < iterations:
            threads, count = self._team.plan(iterations - done)
            start = time.perf_counter()
            part = slice(done, done + count)
            costs[part], slopes[part], dw, db = self._advance(count, threads)
            self._team.note(threads, count, time.perf_counter() - start)
            done += count
        self.iterations += iterations
        self.slopes, self.gradient = slopes, Gradient(dw, db, costs[-1])
        return costs

    def _advance(self, iterations: int, threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        costs, slopes = np.empty((iterations, len(self.b))), np.empty((iterations, len(self.b)))
        dw, db = np.empty_like(self.w), np.empty_like(self.b)
        d, models, block = self.rows.shape[1], len(self.b), self._block
        padded = -(-d // _LINE) * _LINE
        of_all = {
            name: aligned(shape if name == "weights" else (threads, *shape), kind)
            for name, (shape, kind) in loops.shapes(models, d, block).items()
        }
        largest = aligned((threads, models), np.float64)
        largest[0] = np.abs(self.w).max(axis=1)
        nothing = np.empty((models, 0))
        importance = nothing if self.weights is None else self.weights
        velocity = nothing if self.velocity is None else self.velocity
        bias_velocity = np.empty(0) if self.bias_velocity is None else self.bias_velocity
        rule = self.options
        ceilings = np.zeros(models, np.int64)
        if self.weights is not None:
            ceilings[:] = exponent_above(self.weights)[:, 0]
        allowed = numba.get_num_threads()
        numba.set_num_threads(threads)
        _run(
            _read_only(self.rows), _read_only(self.sign), _read_only(importance), self.w, self.b,
            velocity, bias_velocity, _read_only(self.rates),
            np.array([rule.l2, 0.5 * rule.l2, rule.momentum, float(rule.nesterov)]),
            costs, slopes, dw, db, block, ceilings, _loss_constants(len(self.rows), ceilings),
            aligned((models,), np.int64),  # the exponents of the weights
            largest,
            aligned((threads, models), np.float64),  # the largest entry of each thread's share of the gradient
            of_all["weights"],
            aligned((threads, models, padded), np.int64),  # each thread's sums of the gradient: low halves
            aligned((threads, models, padded), np.int64),  # and high halves
            aligned((threads, models, 8), np.float64),  # its sums of residuals and losses
            of_all["sums"], of_all["residuals"], of_all["narrow"], of_all["spare"],
            aligned((threads, 3, _MAX_BLOCK), np.float64),  # its z, sigmoid and losses
            aligned((threads, 2, _MAX_BLOCK), np.int32),  # the halves of its residuals
        )  # fmt: skip
        numba.set_num_threads(allowed)
        return costs, slopes, dw, db
