"""What this machine can do at best: memory bandwidth and multiply-adds, measured with all threads.

The best of some rounds counts, not their median: a bound that a kernel can beat would be none.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels import digits, sums
from ..kernels.cpu import aligned
from ..kernels.keeping import kept
from ..kernels.pool import allowed, ready, run_all

forward = sums.forward

# Of bytes read, far beyond any cache.
_BYTES = 2**30
# Pixels and digits that stay in the first-level cache: all samples are one and the same row.
_SAMPLES, _FEATURES, _REPEATS = 240, 2048, 1000
# Numbers of 64 bits in a row that is read: as long as those of the tutorial's pictures.
_ROW = 1536


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


@kept()
def _copy(source: Any, target: Any) -> None:
    for i in range(len(source)):
        target[i] = source[i]


@kept()
def _read(part: Any, passes: int) -> Any:
    """A sum over four rows at a time, which processors fetch ahead sooner than one, and over the rest."""
    a, b, c, d = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
    fours = len(part) // (4 * _ROW)
    rows = part[: 4 * _ROW * fours].reshape(fours, 4, _ROW)
    for number in range(passes):
        mask = np.uint64(number)  # so that no pass is left out as a repetition
        for four in range(fours):
            first, second, third, fourth = rows[four, 0], rows[four, 1], rows[four, 2], rows[four, 3]
            for i in range(_ROW):
                a += first[i] ^ mask
                b += second[i] ^ mask
                c += third[i] ^ mask
                d += fourth[i] ^ mask
        for i in range(4 * _ROW * fours, len(part)):
            a += part[i] ^ mask
    return a + b + c + d


@kept()
def _multiply(pixels: Any, weights: Any, places: Any, results: Any, repeats: int) -> None:
    for _ in range(repeats):
        forward(pixels, weights, places, len(places), 1, results)


def measure(rounds: int = 7) -> Limits:
    """The best of so many rounds, after one that is not counted."""
    threads = ready(allowed())
    source = np.ones((threads, _BYTES // 8 // threads), dtype=np.uint64)
    target = np.zeros_like(source)
    copy = 2 * source.nbytes / _shortest(lambda thread: _copy(source[thread], target[thread]), threads, rounds)
    read = reading(_BYTES, rounds)
    pixels = np.broadcast_to(aligned((_FEATURES,), np.uint8), (_SAMPLES, _FEATURES))
    shapes = sums.shapes(1, 1, _FEATURES, _SAMPLES)
    # From the start of a cache line on, as the instructions want it.
    weights = aligned(*shapes["weights"])
    results = aligned((threads, *shapes["sums"][0]), shapes["sums"][1])
    places = np.arange(1)
    seconds = _shortest(
        lambda thread: _multiply(pixels, weights, places, results[thread], _REPEATS), threads, rounds
    )  # fmt: skip
    done = math.prod((threads, _REPEATS, _SAMPLES, _FEATURES))
    return Limits(copy / 1e9, read, done / seconds / 1e9, threads, digits.WIDTH)


def reading(size: int, rounds: int = 7) -> float:
    """GB/s of sums over the same so many bytes, a share for each thread, pass after pass."""
    threads = ready(allowed())
    parts = np.ones((threads, max(1, size // 8 // threads)), dtype=np.uint64)
    passes = max(1, _BYTES // parts.nbytes)
    return passes * parts.nbytes / _shortest(lambda thread: _read(parts[thread], passes), threads, rounds) / 1e9


def _shortest(work: Callable[[int], Any], threads: int, rounds: int) -> float:
    """Seconds of the fastest round of work(thread) in so many threads at a time."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run_all(work, threads, lambda: None)
        times.append(time.perf_counter() - start)
    return min(times[1:])
