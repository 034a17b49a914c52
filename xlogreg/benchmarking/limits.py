"""What a machine can do at best, and how it is timed.

The best of some rounds counts, not their median: a bound that a kernel can beat would be none.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """processor : the device in words; values : what was measured, by the names that saved results have; bounds :
    milliseconds that an iteration over so many pixels takes at best, by what binds it."""

    processor: str
    values: dict[str, float]
    bounds: Callable[[int], dict[str, float]]


def shortest(work: Callable[[], Any], rounds: int) -> float:
    """Seconds of the fastest of so many rounds, after one that is not counted."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])
