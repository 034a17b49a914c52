"""What this machine can do at best: memory bandwidth and multiply-adds, measured with all threads.

The best of some rounds counts, not their median: a bound that a kernel can beat would be none.
"""

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np
from numba import njit, prange

from ..kernels import digits, sums
from ..kernels.cpu import aligned

forward = sums.forward

# Of bytes read, far beyond any cache.
_BYTES = 2**30
# Pixels and digits that stay in the first-level cache: all samples are one and the same row.
_SAMPLES, _FEATURES, _REPEATS = 240, 2048, 1000


@dataclass(frozen=True)
class Limits:
    """copy : GB/s read and written by a copy; read : GB/s of a sum over bytes far beyond any cache; multiply_adds :
    10^9 a second, of pixels with one row of digits as the kernel cuts them, from the first-level cache; threads;
    width : bytes of a register."""

    copy: float
    read: float
    multiply_adds: float
    threads: int
    width: int

    names = ("one read of the pixels", "multiply-adds")

    def as_json(self) -> dict[str, float]:
        """For the saved results."""
        return {
            "copy_gb_s": self.copy, "read_gb_s": self.read, "multiply_adds_g_s": self.multiply_adds,
            "threads": self.threads, "vector_bytes": self.width,
        }  # fmt: skip

    def bounds(self, pictures: int, features: int) -> tuple[float, float]:
        """Seconds an iteration at best: one read of the pixels, and two multiply-adds a pixel, of one digit each.

        The read is measured here, over as many bytes again and again, for a cache may hold them all.
        """
        pixels = pictures * features
        return pixels / (reading(pixels) * 1e9), 2 * pixels / (self.multiply_adds * 1e9)


@njit(parallel=True, cache=True)
def _copy(source: Any, target: Any) -> None:
    for i in prange(len(source)):
        target[i] = source[i]


@njit(parallel=True, cache=True)
def _read(parts: Any, passes: int) -> Any:
    sums = np.zeros(len(parts), np.uint64)
    for thread in prange(len(parts)):
        total, part = np.uint64(0), parts[thread]
        for number in range(passes):
            mask = np.uint64(number)  # so that no pass is left out as a repetition
            for i in range(len(part)):
                total += part[i] ^ mask
        sums[thread] = total
    return sums


@njit(parallel=True, cache=True)
def _multiply(pixels: Any, weights: Any, places: Any, results: Any, repeats: int) -> None:
    for thread in prange(len(results)):
        for _ in range(repeats):
            forward(pixels, weights, places, len(places), 1, results[thread])


def measure(rounds: int = 7) -> Limits:
    """The best of so many rounds, after one that is not counted."""
    threads = numba.get_num_threads()
    source = np.ones(_BYTES // 8, dtype=np.uint64)
    target = np.zeros_like(source)
    copy = 2 * _BYTES / _shortest(partial(_copy, source, target), rounds)
    read = reading(_BYTES, rounds)
    pixels = np.broadcast_to(aligned((_FEATURES,), np.uint8), (_SAMPLES, _FEATURES))
    shapes = sums.shapes(1, 1, _FEATURES, _SAMPLES)
    # From the start of a cache line on, as the instructions want it.
    weights = aligned(*shapes["weights"])
    results = aligned((threads, *shapes["sums"][0]), shapes["sums"][1])
    seconds = _shortest(partial(_multiply, pixels, weights, np.arange(1), results, _REPEATS), rounds)
    done = math.prod((threads, _REPEATS, _SAMPLES, _FEATURES))
    return Limits(copy / 1e9, read, done / seconds / 1e9, threads, digits.WIDTH)


def reading(size: int, rounds: int = 7) -> float:
    """GB/s of sums over the same so many bytes, a share for each thread, pass after pass."""
    threads = numba.get_num_threads()
    parts = np.ones((threads, max(1, size // 8 // threads)), dtype=np.uint64)
    passes = max(1, _BYTES // parts.nbytes)
    return passes * parts.nbytes / _shortest(partial(_read, parts, passes), rounds) / 1e9


def _shortest(work: Any, rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])
