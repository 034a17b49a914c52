"""The fused CPU kernel: gradient descent on uint8 pixels in integers, every pixel read from memory once an iteration.

The split of `neuron.exact` makes fixed-point numbers: weights and residuals are whole numbers of 52 to 55 bits below a
power of two. Of those, differences to the iterations before are taken, which are small (`differences`), and cut into
digits of 8 or 16 bits, so that pixels times digits are small integers, which every processor multiplies and adds many
at a time (`digits`, `pixel_sums`). The integer sums are the exact sums of the reference, and they are rounded in the
same single place: the bits are the same.

One iteration, by all threads:

1. weights -> differences -> digits
2. for each block of samples that fits the cache: forward, sigmoid and loss, residuals -> differences -> digits,
   backward
3. add the threads' sums, update the weights, find their new exponents

Everything but the integer sums repeats the operations of `elementary`, `exact` and `reference` in the same order
(`elementwise`, `arithmetic`); `propagation` has the parts.
"""

import math
import os
import threading
import time
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ..errors import InputError
from ..neuron.exact import LARGEST_WEIGHT, PIXEL_SCALE, bits_per_piece, loss_above, loss_bits
from ..neuron.objective import Array, Descended, Gradient, Objective, Steps, check_arrays, standing
from ..neuron.reference import cost_of_models
from . import digits, pixel_sums
from . import dots as vectors
from .arguments import Kept, Own, Problem, Results, Shared, State
from .barrier import STOP, begin_share, memory_size, next_block, wait
from .differences import LARGEST, ORDER, ORDERS, PLAN, orders_for
from .elementwise import TOTALS, exponent_of, exponents_of, largest_residual, residuals_fit, update_bias
from .keeping import can_keep, is_kept, kept
from .pixel_sums import flush, rows_for
from .pool import allowed, giving_way, ready, run_all
from .propagation import (
    GROUP,
    LINE,
    NO_EXPONENT,
    OF_RESIDUALS,
    OF_WEIGHTS,
    clear,
    gather,
    plan,
    prepare_weights,
    propagate,
    share,
    update,
)
from .sources import digest_of
from .thread_count import ThreadCount

# Of all that use the kernel's threads.
_lock = threading.RLock()


def _after_fork() -> None:
    # A thread that held it was not forked and will not release it.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

# Bytes of pixels that a block of samples may have: it is read from memory once and from the cache once more.
_BLOCK_BYTES = 196_608
# 32-bit sums take so many samples times the largest digit, of 16 bits.
_MAX_BLOCK = 256
# Up to so many bytes of pixels are copied if they do not start with a cache line.
_ALIGN_BYTES = 2**25


def _compile(sources: str) -> Any:
    """The kernel; `sources` is a key for Numba's cache."""

    @kept()
    def run(
        thread: int,
        threads: int,
        memory: Array,
        give_way: int,
        problem: Problem,
        state: State,
        results: Results,
        past: Kept,
        shared: Shared,
        own: Own,
    ) -> None:
        """One thread's part of len(results.costs) iterations of all models, in place.

        All threads come here at a time. They wait for each other by `memory`, and the first of them does what is not
        shared. `shared.largest` holds max|w| of each model; for the rest see `arguments`.
        """
        assert len(sources) > 0
        rows, _, _, rates, rule, _, block, orders, classes = problem
        w, b, velocity_w, velocity_b, exponents, residual_exponents = state
        costs, largest_entries, dw, db, work = results
        base, residual_base, plans, _, _, _, _ = past
        largest, steepest, seen, weights, low, high, totals, split = shared
        narrow, pending, tile = own.narrow, own.pending, own.tile
        m, d = rows.shape
        blocks = (m + block - 1) // block
        begin, end = share(d, thread, threads), share(d, thread + 1, threads)
        iteration = 0
        while iteration < len(costs):
            if thread == 0:
                exponents_of(largest, exponents)
                plan(plans, base, residual_base, exponents, residual_exponents, orders)
            # Only now: the first thread needs all totals until here.
            if not wait(memory, threads, give_way):
                return
            clear(low[thread], high[thread], totals[thread])
            begin_share(memory, thread, thread * blocks // threads)
            prepare_weights(
                w, exponents, base, plans, past.weights, weights, split, seen[thread], rule, totals[thread], begin, end
            )  # fmt: skip
            if not wait(memory, threads, give_way):
                return
            if thread == 0:
                gather(plans, seen, OF_WEIGHTS)
            if not wait(memory, threads, give_way):
                return
            # The blocks of this thread's own share, which its cache may hold, and then what others have left.
            for turn in range(threads):
                owner = (thread + turn) % threads
                while True:
                    i = next_block(memory, owner, (owner + 1) * blocks // threads)
                    if i < 0:
                        break
                    propagate(problem, state, past, shared, own, thread, i * block, min((i + 1) * block, m))
            for model in range(len(w)):
                flush(
                    narrow[thread], model, pending[thread, model, 0], low[thread, model, :d], high[thread, model, :d],
                    tile[thread],
                )  # fmt: skip
                pending[thread, model] = 0
            if not wait(memory, threads, give_way):
                return
            if not residuals_fit(totals, residual_exponents, classes):
                # Seldom: the largest residual has passed a power of two. The same iteration again, on the grid that it
                # asks for; the weights do not change, so the pixels are hardly multiplied by their differences.
                if not wait(memory, threads, give_way):
                    return
                if thread == 0:
                    gather(plans, seen, OF_RESIDUALS)
                    for model in range(len(w)):
                        residual_exponents[model] = exponent_of(largest_residual(totals, model, classes))
                        # All begin anew: they were kept without their sums.
                        residual_base[model] = NO_EXPONENT
                continue
            update(
                w, velocity_w, rates, rule, residual_exponents, dw, m, low, high, plans, past.gradients, split,
                largest[thread], steepest[thread], begin, end,
            )  # fmt: skip
            if not wait(memory, threads, give_way):
                return
            if thread == 0:
                gather(plans, seen, OF_RESIDUALS)
                for model in range(len(w)):
                    for side in range(2):
                        work[side] += rows_for(plans[model, side, LARGEST + plans[model, side, ORDER]])
                update_bias(
                    b, velocity_b, rates, rule, exponents, residual_exponents, db, costs[iteration],
                    largest_entries[iteration], m, totals, steepest,
                )  # fmt: skip
            iteration += 1

    return run


_MODULES = (
    *(f"kernels/{name}" for name in ("digits", "pixel_sums", "differences", "elementwise", "barrier", "propagation")),
    *("kernels/arguments", "kernels/cpu", "neuron/exact", "neuron/reference"),
)
_run = _compile(digest_of(*_MODULES, extra=f"{digits.MULTIPLY} {digits.WIDTH} {digits.BITS}"))


def compiled_before() -> bool:
    """Whether the kernel was compiled in this process, or compiled code of an earlier one is kept."""
    return is_kept(_run)


def kept_for_later() -> bool:
    """Whether there is a folder to keep compiled code in."""
    return can_keep(_run)


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros from the start of a cache line on: vectors that cross lines take twice as long."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + LINE, np.uint8)
    offset = -memory.ctypes.data % LINE
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
    if rows.ctypes.data % LINE == 0 or rows.nbytes > _ALIGN_BYTES:
        return rows
    copy = aligned(rows.shape, np.uint8)
    copy[:] = rows
    return copy


def _loss_constants(samples: int, classes: int = 1) -> np.ndarray:
    """The rounding constants of the losses' three pieces, of losses below 2^`loss_above`, and 1 or 0 for whether there
    is a third."""
    length, most = bits_per_piece(samples, 0), loss_bits(samples)
    kept = [min(length, most), min(2 * length, most), most]
    return np.array([*(1.5 * 2.0 ** (52 + loss_above(classes) - bits) for bits in kept), float(2 * length < most)])


class FusedCPU(Objective):
    """The objective by the fused kernel, on NumPy arrays of pixels; one evaluation is a descent of one iteration that
    goes nowhere.

    Raises
    ------
    InputError
        The arrays do not fit, or hold what no grid of the digits holds.
    """

    name = "fused"

    def __init__(
        self, rows: Array, sign: Array, *, sample_weight: Array | None = None, l2: Array | None = None,
        classes: int = 1,
    ) -> None:  # fmt: skip
        check_arrays(rows, sign, sample_weight, l2, classes, pixels=True)
        self.classes = classes
        # NaN fails the comparisons too.
        heavy = sample_weight is not None and not ((sample_weight >= 0.0) & (sample_weight < np.inf)).all()
        if heavy or not (np.abs(sign) == 1.0).all():
            raise InputError("The objective's sign must hold 1 and -1, and its sample_weight finite numbers from 0 on.")
        self.rows, self.sign, self.sample_weight, self.l2 = _aligned_copy(rows), sign, sample_weight, l2
        m, d = rows.shape
        self._block = max(4, min(_MAX_BLOCK, _BLOCK_BYTES // d) // 4 * 4)
        # No more threads than blocks: a thread without work would still be waited for.
        self._thread_count = ThreadCount(min(allowed(), -(-m // self._block)))
        self._give_way = giving_way()
        # Digits that each iteration multiplied, of all models together: of weights, and of residuals at most.
        self.work = np.zeros(2, np.int64)
        self._forget()

    def _forget(self) -> None:
        """Keep nothing of the iterations before, from which differences are taken."""
        self._scratch: dict[int, tuple[Shared, Own]] = {}
        self._kept: dict[int, Kept] = {}
        # A guess: those of the iteration before, mostly right.
        self._residual_exponents = np.zeros(len(self.sign), np.int64)

    def _kept_of(self, orders: int) -> Kept:
        """What is kept of so many orders of differences."""
        (m, d), models = self.rows.shape, len(self.sign)
        if orders not in self._kept:
            base, residual_base = np.zeros((2, models), np.int64)
            plans = np.zeros((models, 2, PLAN), np.int64)
            shapes = (orders, d), (2, orders, m), (orders, m), (2, orders, d)
            self._kept[orders] = Kept(
                base, residual_base, plans, *(np.zeros((models, *shape), np.int64) for shape in shapes)
            )
        return self._kept[orders]

    def keep(self, models: list[int]) -> None:
        """Go on with these models only."""
        super().keep(models)
        self._forget()

    def alone(self) -> AbstractContextManager[Any]:
        """Two trainings at a time would be in each other's way on all processors, the threads of each waiting for its
        others."""
        return _lock

    def prepare(self) -> None:
        """Compile, or load what was compiled before: a training of no iterations."""
        self._advance(standing(np.zeros((len(self.sign), self.rows.shape[1])), np.zeros(len(self.sign))), 0, 1, 0)

    def means(self) -> Array:
        """As in `Objective`."""
        totals = np.zeros(self.rows.shape[1], np.int64)
        vectors.add_rows(_read_only(self.rows), totals)
        return totals / (len(self.rows) * PIXEL_SCALE)

    def dots(self, u: Array, others: Array) -> Array:
        """As in `Objective`."""
        results = np.empty(len(others))
        vectors.dots(_read_only(u), _read_only(others), results)
        return results

    def add_multiples(self, v: Array, factors: list[float], others: Array) -> Array:
        """As in `Objective`."""
        v = v.copy()
        vectors.add_multiples(v, np.array(factors), _read_only(others))
        return v

    def two_loops(
        self, sy: np.ndarray, yy: np.ndarray, gs: np.ndarray, gy: np.ndarray, places: list[int]
    ) -> tuple[float, list[float], list[float]]:
        """As in `Objective`."""
        of_s, of_y = np.zeros((2, len(gs)))
        scale = vectors.two_loops(*map(_read_only, (sy, yy, gs, gy)), np.array(places), of_s, of_y)
        return scale, of_s.tolist(), (-scale * of_y).tolist()

    def evaluate(self, w: Array, b: Array) -> Gradient:
        """Cost and gradient at w, b."""
        # Weights that follow no path have no small differences.
        return self._run(standing(w, b), 1, 0).gradient

    def descend(self, steps: Steps, iterations: int) -> Descended:
        """Advance by so many iterations."""
        m, d = self.rows.shape
        return self._run(steps, iterations, orders_for(m, d, len(self.sign)))

    def _run(self, steps: Steps, iterations: int, orders: int) -> Descended:
        """Advance by so many iterations, with so many orders of differences."""
        costs, largest = np.empty((2, iterations, len(self.sign)))
        done = 0
        while done < iterations:
            threads, count = self._thread_count.plan(iterations - done)
            start = time.perf_counter()
            part = slice(done, done + count)
            costs[part], largest[part], dw, db = self._advance(steps, count, threads, orders)
            self._thread_count.note(threads, count, time.perf_counter() - start)
            done += count
        if self.classes > 1:
            costs = cost_of_models(costs, self.classes)
            largest = largest.reshape(iterations, -1, self.classes).max(axis=2)
        return Descended(costs, largest, Gradient(dw, db, costs[-1]))

    def _advance(
        self, steps: Steps, iterations: int, threads: int, orders: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        threads = ready(threads)
        (m, d), models, block = self.rows.shape, len(self.sign), self._block
        costs, largest_entries = np.empty((iterations, models)), np.empty((iterations, models))
        dw, db = np.empty((models, d)), np.empty(models)
        # Taken while it is used: what an error leaves behind is not zeros.
        scratch, self._scratch = self._scratch, {}
        shared, own = scratch.get(threads) or self._new_scratch(threads)
        sizes = np.abs(steps.w)
        shared.largest[:] = 0.0
        shared.largest[0] = np.where((sizes < LARGEST_WEIGHT).all(axis=1), sizes.max(axis=1), np.inf)
        nothing = np.empty((models, 0))
        penalties = [0.0] * models if self.l2 is None else self.l2.tolist()
        memory = aligned((memory_size(threads),), np.int64)  # by which the threads meet
        problem = Problem(
            rows=_read_only(self.rows), sign=_read_only(self.sign),
            sample_weight=_read_only(nothing if self.sample_weight is None else self.sample_weight),
            rates=_read_only(steps.rates),
            rule=np.array([[l2, 0.5 * l2, steps.momentum, float(steps.nesterov)] for l2 in penalties]),
            loss_constants=_loss_constants(m, self.classes), block=block, orders=orders, classes=self.classes,
        )  # fmt: skip
        state = State(
            steps.w, steps.b, nothing if steps.velocity is None else steps.velocity,
            np.empty(0) if steps.bias_velocity is None else steps.bias_velocity, aligned((models,), np.int64),
            self._residual_exponents,
        )  # fmt: skip
        results = Results(costs, largest_entries, dw, db, self.work)
        arguments = (problem, state, results, self._kept_of(orders), shared, own)

        def stop() -> None:
            memory[STOP] = 1

        try:
            run_all(lambda thread: _run(thread, threads, memory, self._give_way, *arguments), threads, stop)
        except BaseException:
            # What is kept is of two iterations by now: whoever catches this may evaluate again.
            self._forget()
            raise
        self._scratch = {threads: (shared, own)}
        return costs, largest_entries, dw, db

    def _new_scratch(self, threads: int) -> tuple[Shared, Own]:
        """Arrays to work in for so many threads, zeros; the kernel leaves zeros where it needs them."""
        d, models = self.rows.shape[1], len(self.sign)
        padded = -(-d // LINE) * LINE
        of_all = {
            name: aligned(shape if name == "weights" else (threads, *shape), kind)
            for name, (shape, kind) in pixel_sums.shapes(models, min(models, GROUP), d, self._block).items()
        }
        shared = Shared(
            largest=aligned((threads, models), np.float64),
            steepest=aligned((threads, models), np.float64),
            seen=aligned((threads, models, 2, 2 * ORDERS), np.int64),
            digits=of_all["weights"],
            low=aligned((threads, models, padded), np.int64),
            high=aligned((threads, models, padded), np.int64),
            totals=aligned((threads, models, TOTALS), np.float64),
            split=aligned((2, models, padded), np.int64),
        )
        own = Own(
            products=of_all["sums"],
            cut=of_all["residuals"],
            narrow=of_all["narrow"],
            pending=aligned((threads, models, 2), np.int64),
            tile=of_all["tile"],
            numbers=aligned((threads, 7, _MAX_BLOCK), np.float64),
            outputs=aligned((threads, models, _MAX_BLOCK), np.float64),
            whole=aligned((threads, 6, _MAX_BLOCK), np.int64),
        )
        return shared, own
