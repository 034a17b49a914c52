"""What this machine can do at best: memory bandwidth and multiply-adds, measured with all threads."""

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np
from numba import njit, prange

from ..kernels.vector import DIGITS, LONGEST, SAMPLES_OF_ONE, STEP, WIDTH, dot_samples

# Of bytes read, far beyond any cache.
_BYTES = 2**30
_SAMPLES, _FEATURES = 32, min(1024, LONGEST) // STEP * STEP


@dataclass(frozen=True)
class Limits:
    """copy : GB/s read and written by a copy; read : GB/s of a sum over bytes; multiply_adds : 10^9 a second, of
    pixels with digits, 16 bits each, from the first-level cache; threads; width : bytes of a vector register."""

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
        """Seconds an iteration at best: one read of the pixels, and 2 x 4 multiply-adds a pixel."""
        pixels = pictures * features
        return pixels / (self.read * 1e9), 2 * DIGITS * pixels / (self.multiply_adds * 1e9)


@njit(parallel=True, cache=True)
def _copy(source: Any, target: Any) -> None:
    for i in prange(len(source)):
        target[i] = source[i]


@njit(parallel=True, cache=True)
def _read(source: Any) -> Any:
    total = np.uint64(0)
    for i in prange(len(source)):
        total += source[i]
    return total


@njit(parallel=True, cache=True)
def _multiply(pixels: Any, digits: Any, sums: Any, repeats: int) -> None:
    for thread in prange(len(sums)):
        for _ in range(repeats):
            for s in range(0, _SAMPLES, SAMPLES_OF_ONE):
                dot_samples(
                    np.int64(pixels.ctypes.data + s * _FEATURES), np.int64(_FEATURES), np.int64(digits.ctypes.data),
                    np.int64(2 * _FEATURES), np.int64(_FEATURES), np.int64(sums[thread].ctypes.data),
                )  # fmt: skip


def measure(rounds: int = 7) -> Limits:
    """Medians of so many rounds, after one that is not counted."""
    threads = numba.get_num_threads()
    source = np.ones(_BYTES // 8, dtype=np.uint64)
    target = np.zeros_like(source)
    copy = 2 * _BYTES / _median(partial(_copy, source, target), rounds)
    read = _BYTES / _median(partial(_read, source), rounds)
    pixels = np.ones((_SAMPLES, _FEATURES), dtype=np.uint8)
    digits = np.ones((DIGITS, _FEATURES), dtype=np.int16)
    sums = np.zeros((threads, max(64, SAMPLES_OF_ONE * DIGITS)), dtype=np.int64)
    repeats = 20_000
    seconds = _median(lambda: _multiply(pixels, digits, sums, repeats), rounds)
    done = math.prod((threads, repeats, _SAMPLES, _FEATURES, DIGITS))
    return Limits(copy / 1e9, read / 1e9, done / seconds / 1e9, threads, WIDTH)


def _median(work: Any, rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))
