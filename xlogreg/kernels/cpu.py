"""The fused CPU kernel: gradient descent on uint8 pixels in integers, every pixel read from memory once an iteration.

The split of `xlogreg.exact` makes fixed-point numbers: weights and residuals are whole numbers of 52 bits below a power
of two. Here those are cut into four digits of 13 bits, so that pixels times digits are small integers, which every
processor multiplies and adds many at a time (`xlogreg.kernels.vector`), twice to four times as fast as float64. The
integer sums are the exact sums of the reference, and they are rounded in the same single place: the bits are the same.

One iteration, by all threads:

1. weights -> digits
2. for each block of samples that fits the cache: forward, sigmoid and loss, residuals -> digits, backward
3. add the threads' sums, update the weights, find their new exponents

Everything but the integer sums repeats the operations of `elementary`, `exact` and `reference` in the same order
(`xlogreg.kernels.arithmetic`).
"""

import hashlib
import math
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import njit, prange

from ..exact import LOSS_BITS, LOSS_EXPONENT, MIN_EXPONENT, bits_per_piece
from ..reference import LARGEST_Z, PIXEL_SCALE, Gradient
from .arithmetic import CAN_CACHE, OPTIONS, digits_of, exp_negative, log1p_unit, total_of
from .vector import (
    DIGITS,
    LONGEST,
    MODELS,
    MULTIPLY,
    SAMPLES_OF_MODELS,
    SAMPLES_OF_ONE,
    STEP,
    TILE,
    add_samples,
    add_samples_of_models,
    dot_samples,
    dot_samples_of_models,
)

Array = Any

# Bytes of pixels that a block of samples may have: it is read from memory once and from the cache once more.
_BLOCK_BYTES = 196_608
_MAX_BLOCK = 512
# Bytes of the weights' digits that stay in the first-level cache beside the pixels.
_DIGIT_BYTES = 24_576
# Up to so many bytes of pixels are copied if they do not start with a cache line.
_ALIGN_BYTES = 2**25
# Digits are laid out in rows of whole cache lines, which no two threads share.
_LINE = 64


@njit(**OPTIONS)
def _forward(pixels: Array, weights: Array, sums: Array) -> None:
    """sums[s, i, k] = sum over j of pixels[s, j] weights[i, k, j] for a block's samples s, one or MODELS models i."""
    samples, features = pixels.shape
    models = len(weights)
    together = SAMPLES_OF_ONE if models == 1 else SAMPLES_OF_MODELS
    whole_samples = samples // together * together
    whole_features = features // STEP * STEP
    sums[:samples] = 0
    stride, weight_stride = np.int64(pixels.strides[0]), np.int64(weights.strides[1])
    # The digits that go with a stretch of features stay in the first-level cache while all samples pass.
    longest = min(LONGEST, _DIGIT_BYTES // (2 * DIGITS * models) // STEP * STEP)
    for j in range(0, whole_features, longest):
        digits = np.int64(weights.ctypes.data + 2 * j)
        count = np.int64(min(longest, whole_features - j))
        for s in range(0, whole_samples, together):
            first = np.int64(pixels.ctypes.data + s * stride + j)
            into = np.int64(sums.ctypes.data + s * sums.strides[0])
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
                    sums[s, i, k] += pixel * weights[i, k, j]


@njit(**OPTIONS)
def _backward(pixels: Array, residuals: Array, low: Array, high: Array) -> None:
    """Add to low[i], high[i] the sums over a block's samples s of pixels[s, j] times the digits residuals[i, :, s]."""
    samples, features = pixels.shape
    models = len(residuals)
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
def _residuals(
    sums: Array,
    sign: Array,
    scale: float,
    bias: float,
    loss_constants: Array,
    residuals: Array,
    totals: Array,
    v_: Array,
    p_: Array,
    loss_: Array,
) -> None:
    """From the forward sums of a block to the digits of its residuals; adds to the totals of residuals and losses.

    totals : the sums of the residuals' low and high halves and of the losses' three pieces, and how many z were bad
    """  # fmt: skip
    samples = len(sign)
    for s in range(samples):
        low = sums[s, 0] + (sums[s, 1] << 13)
        high = sums[s, 2] + (sums[s, 3] << 13)
        v_[s] = sign[s] * ((total_of(low, high) * scale) / PIXEL_SCALE + bias)
    for s in range(samples):
        v = v_[s]
        t = exp_negative(-abs(v))
        inverse = 1.0 / (t + 1.0)
        p_[s] = inverse if v >= 0.0 else t * inverse
        loss_[s] = (v if v > 0.0 else 0.0) + log1p_unit(t)
    c1, c2, c3 = loss_constants[0], loss_constants[1], loss_constants[2]
    has_third = loss_constants[3]
    low_sum, high_sum, bad = np.int64(0), np.int64(0), np.int64(0)
    for s in range(samples):
        bad += np.int64(not abs(v_[s]) <= LARGEST_Z)
        d0, d1, d2, d3 = digits_of(sign[s] * p_[s])
        residuals[0, s] = d0
        residuals[1, s] = d1
        residuals[2, s] = d2
        residuals[3, s] = d3
        low_sum += d0 + (d1 << 13)
        high_sum += d2 + (d3 << 13)
    for s in range(samples):
        # v is no longer needed, nor is p: their places take the pieces.
        loss = loss_[s]
        first = (loss + c1) - c1
        rest = loss - first
        second = (rest + c2) - c2
        rest = rest - second
        v_[s] = first
        p_[s] = second
        loss_[s] = ((rest + c3) - c3) * has_third
    totals[0] += low_sum
    totals[1] += high_sum
    totals[2] += _sum(v_[:samples])
    totals[3] += _sum(p_[:samples])
    totals[4] += _sum(loss_[:samples])
    totals[5] += bad


@njit(fastmath={"reassoc"}, **OPTIONS)
def _sum(pieces: Array) -> float:
    """The sum of pieces, which is exact in any order; nothing else may be compiled with this option."""
    total = 0.0
    for s in range(len(pieces)):
        total += pieces[s]
    return total


@njit(**OPTIONS)
def _cut_weights(w: Array, exponents: Array, weights: Array, first: int, last: int) -> None:
    """The digits of the weights of features first .. last - 1."""
    for model in range(len(w)):
        down = math.ldexp(1.0, -exponents[model])
        for j in range(first, last):
            d0, d1, d2, d3 = digits_of(w[model, j] * down)
            weights[model, 0, j] = d0
            weights[model, 1, j] = d1
            weights[model, 2, j] = d2
            weights[model, 3, j] = d3


@njit(**OPTIONS)
def _propagate(
    rows: Array,
    sign: Array,
    b: Array,
    exponents: Array,
    weights: Array,
    loss_constants: Array,
    first: int,
    last: int,
    low: Array,
    high: Array,
    totals: Array,
    sums: Array,
    residuals: Array,
    losses: Array,
) -> None:
    """Forward and backward propagation of a block: samples first .. last - 1, all models."""  # fmt: skip
    pixels = rows[first:last]
    models = len(b)
    model = 0
    while model < models:
        count = MODELS if model + MODELS <= models else 1
        # The scratch holds the sums of one model, or of MODELS models side by side.
        into = sums[: (last - first) * count].reshape(last - first, count, DIGITS)
        _forward(pixels, weights[model : model + count], into)
        for k in range(count):
            _residuals(
                into[:, k], sign[model + k, first:last], math.ldexp(1.0, exponents[model + k] - 52), b[model + k],
                loss_constants, residuals[k], totals[model + k], losses[0], losses[1], losses[2],
            )  # fmt: skip
        _backward(pixels, residuals[:count], low[model : model + count], high[model : model + count])
        model += count


@njit(**OPTIONS)
def _update(
    w: Array, rates: Array, dw: Array, samples: int, low: Array, high: Array, largest: Array, first: int, last: int
) -> None:
    """Gradient and new weights of features first .. last - 1, and the largest of these weights, of all models."""
    for model in range(len(w)):
        maximum = 0.0
        for j in range(first, last):
            lower, upper = low[0, model, j], high[0, model, j]
            for thread in range(1, len(low)):
                lower += low[thread, model, j]
                upper += high[thread, model, j]
            gradient = (total_of(lower, upper) * 2.0**-52) / (PIXEL_SCALE * samples)
            dw[model, j] = gradient
            w[model, j] = w[model, j] - rates[model] * gradient
            maximum = max(maximum, abs(w[model, j]))
        largest[model] = maximum


@njit(**OPTIONS)
def _update_bias(b: Array, rates: Array, db: Array, costs: Array, samples: int, totals: Array) -> None:
    """Cost, gradient and new bias of all models."""
    for model in range(len(b)):
        lower, upper = np.int64(0), np.int64(0)
        first, second, third, bad = 0.0, 0.0, 0.0, 0.0
        for thread in range(len(totals)):
            lower += np.int64(totals[thread, model, 0])
            upper += np.int64(totals[thread, model, 1])
            first += totals[thread, model, 2]
            second += totals[thread, model, 3]
            third += totals[thread, model, 4]
            bad += totals[thread, model, 5]
        db[model] = (total_of(lower, upper) * 2.0**-52) / samples
        costs[model] = ((first + second) + third) / samples if bad == 0.0 else math.nan
        b[model] = b[model] - rates[model] * db[model]


@njit(**OPTIONS)
def _exponents_of(largest: Array, exponents: Array) -> None:
    """The exponents of the weights, from the largest that each thread saw."""
    for model in range(len(exponents)):
        maximum = 0.0
        for thread in range(len(largest)):
            maximum = max(maximum, largest[thread, model])
        exponents[model] = max(math.frexp(maximum)[1], MIN_EXPONENT)


@njit(**OPTIONS)
def _clear(low: Array, high: Array, totals: Array) -> None:
    """Zeros, for a thread's sums of an iteration."""
    low[:] = 0
    high[:] = 0
    totals[:] = 0.0


def _sources() -> str:
    """A digest of everything that is compiled into the kernel."""
    here = Path(__file__).parent
    files = [here / "arithmetic.py", here / "vector.py", here / "cpu.py"]
    files += [here.parent / f"{name}.py" for name in ("elementary", "exact", "reference")]
    digest = hashlib.sha256(MULTIPLY.encode())
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
        w: Array,
        b: Array,
        rates: Array,
        costs: Array,
        dw: Array,
        db: Array,
        block: int,
        loss_constants: Array,
        exponents: Array,
        largest: Array,
        weights: Array,
        low: Array,
        high: Array,
        totals: Array,
        sums: Array,
        residuals: Array,
        losses: Array,
    ) -> None:
        """len(costs) iterations of all models, in place; `largest` holds max|w| of each. For the rest see FusedCPU."""
        assert len(sources) > 0
        m, d = rows.shape
        blocks = (m + block - 1) // block
        threads = len(low)
        for iteration in range(len(costs)):
            _exponents_of(largest, exponents)
            for thread in prange(threads):
                _cut_weights(w, exponents, weights, thread * d // threads, (thread + 1) * d // threads)
            for thread in prange(threads):
                _clear(low[thread], high[thread], totals[thread])
                for i in range(thread * blocks // threads, (thread + 1) * blocks // threads):
                    _propagate(
                        rows, sign, b, exponents, weights, loss_constants, i * block, min((i + 1) * block, m),
                        low[thread], high[thread], totals[thread], sums[thread], residuals[thread], losses[thread],
                    )  # fmt: skip
            for thread in prange(threads):
                _update(
                    w, rates, dw, m, low, high, largest[thread],
                    thread * d // threads, (thread + 1) * d // threads,
                )  # fmt: skip
            _update_bias(b, rates, db, costs[iteration], m, totals)

    return run


_run = _compile(_sources())


def compiled_before() -> bool:
    """Whether compiled code of an earlier process lies in Numba's cache."""
    try:
        return any(Path(_run._cache.cache_path).glob("cpu._compile.locals.run-*.nbi"))
    except AttributeError:  # no cache, or a Numba that keeps it elsewhere
        return False


def _aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros from the start of a cache line on: vectors that cross lines take twice as long."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _LINE, np.uint8)
    offset = -memory.ctypes.data % _LINE
    return memory[offset : offset + size].view(dtype).reshape(shape)


def _aligned_copy(rows: np.ndarray) -> np.ndarray:
    """The pixels from the start of a cache line on, copied there if they are few; many are limited by memory anyway."""
    if rows.ctypes.data % _LINE == 0 or rows.nbytes > _ALIGN_BYTES:
        return rows
    copy = _aligned(rows.shape, np.uint8)
    copy[:] = rows
    return copy


class FusedCPU:
    """Gradient descent by the fused kernel on NumPy arrays of pixels; arguments as those of `reference.Reference`."""

    name = "fused"

    def __init__(self, rows: Array, sign: Array, w: Array, b: Array, rates: Array) -> None:
        self.rows, self.sign, self.rates = _aligned_copy(rows), sign, rates
        self.w, self.b = w, b
        self.gradient: Gradient | None = None
        m, d = rows.shape
        self._block = max(2, min(_MAX_BLOCK, _BLOCK_BYTES // d) // 4 * 4)
        length = bits_per_piece(m, 0)
        kept = [min(length, LOSS_BITS), min(2 * length, LOSS_BITS), LOSS_BITS]
        constants = [1.5 * 2.0 ** (52 + LOSS_EXPONENT - bits) for bits in kept]
        self._loss_constants = np.array([*constants, float(2 * length < LOSS_BITS)])

    def prepare(self) -> None:
        """Compile, or load what was compiled before: a training of no iterations."""
        self._advance(0)

    def run(self, iterations: int) -> np.ndarray:
        """Advance by so many iterations; returns their costs (iterations, M)."""
        costs, dw, db = self._advance(iterations)
        self.gradient = Gradient(dw, db, costs[-1])
        return costs

    def _advance(self, iterations: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        costs = np.empty((iterations, len(self.b)))
        dw, db = np.empty_like(self.w), np.empty_like(self.b)
        (m, d), models, block = self.rows.shape, len(self.b), self._block
        # No more threads than blocks: a thread without work would still be waited for.
        threads = min(numba.get_num_threads(), -(-m // block))
        padded = -(-d // _LINE) * _LINE
        largest = _aligned((threads, models), np.float64)
        largest[0] = np.abs(self.w).max(axis=1)
        _run(
            self.rows, self.sign, self.w, self.b, self.rates, costs, dw, db, block, self._loss_constants,
            _aligned((models,), np.int64),  # the exponents of the weights
            largest,
            _aligned((models, DIGITS, padded), np.int16),  # the weights' digits
            _aligned((threads, models, padded), np.int64),  # each thread's sums of the gradient: low halves
            _aligned((threads, models, padded), np.int64),  # and high halves
            _aligned((threads, models, 8), np.float64),  # its sums of residuals and losses
            _aligned((threads, block * MODELS, DIGITS), np.int64),  # the forward sums of a block
            _aligned((threads, MODELS, DIGITS, _MAX_BLOCK), np.int16),  # the digits of its residuals
            _aligned((threads, 3, _MAX_BLOCK), np.float64),  # its z, sigmoid and losses
        )  # fmt: skip
        return costs, dw, db
