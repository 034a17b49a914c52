"""What the processor can do at best: memory bandwidth and multiply-adds, measured with all threads."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import digits, pixel_sums
from ..kernels.cpu import aligned
from ..kernels.keeping import kept
from ..kernels.pool import allowed, ready, run_all
from ..system.machine import processor_name
from .limits import Limits, shortest

forward = pixel_sums.forward

# Of bytes read, far beyond any cache.
_BYTES = 2**30
# Pixels and digits that stay in the first-level cache: all samples are one and the same row.
_SAMPLES, _FEATURES, _REPEATS = 240, 2048, 1000
# Numbers of 64 bits in a row that is read: as long as those of the tutorial's pictures.
_ROW = 1536


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


def measure_cpu(rounds: int = 7) -> Limits:
    """copy_gb_s : read and written by a copy; read_gb_s : of a sum over bytes far beyond any cache; multiply_adds_g_s :
    10^9 a second, of pixels with one row of digits as the kernel cuts them, from the first-level cache; threads;
    vector_bytes : of a register."""
    threads = ready(allowed())
    source = np.ones((threads, _BYTES // 8 // threads), dtype=np.uint64)
    target = np.zeros_like(source)
    copy = 2 * source.nbytes / _seconds(lambda thread: _copy(source[thread], target[thread]), threads, rounds)
    pixels = np.broadcast_to(aligned((_FEATURES,), np.uint8), (_SAMPLES, _FEATURES))
    shapes = pixel_sums.shapes(1, 1, _FEATURES, _SAMPLES)
    # From the start of a cache line on, as the instructions want it.
    weights = aligned(*shapes["weights"])
    results = aligned((threads, *shapes["sums"][0]), shapes["sums"][1])
    places = np.arange(1)
    seconds = _seconds(lambda thread: _multiply(pixels, weights, places, results[thread], _REPEATS), threads, rounds)
    done = math.prod((threads, _REPEATS, _SAMPLES, _FEATURES))
    values = {
        "copy_gb_s": copy / 1e9, "read_gb_s": reading(_BYTES, rounds), "multiply_adds_g_s": done / seconds / 1e9,
        "threads": threads, "vector_bytes": digits.WIDTH,
    }  # fmt: skip
    return Limits(processor_name(), values, lambda pixels: bounds(pixels, values))


def bounds(pixels: int, values: dict[str, float]) -> dict[str, float]:
    """One read of the pixels, and two multiply-adds a pixel, of one digit each.

    The read is measured here, over as many bytes again and again, for a cache may hold them all.
    """
    return {
        "one read of the pixels": pixels / (reading(pixels) * 1e6),
        "multiply-adds": 2 * pixels / (values["multiply_adds_g_s"] * 1e6),
    }


def reading(size: int, rounds: int = 7) -> float:
    """GB/s of sums over the same so many bytes, a share for each thread, pass after pass."""
    threads = ready(allowed())
    parts = np.ones((threads, max(1, size // 8 // threads)), dtype=np.uint64)
    passes = max(1, _BYTES // parts.nbytes)
    return passes * parts.nbytes / _seconds(lambda thread: _read(parts[thread], passes), threads, rounds) / 1e9


def _seconds(work: Callable[[int], Any], threads: int, rounds: int) -> float:
    """Of the fastest round of work(thread) in so many threads at a time."""
    return shortest(lambda: run_all(work, threads, lambda: None), rounds)
