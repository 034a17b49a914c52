"""How many threads to use: as many as are fastest at the time, which changes no bit.

Threads wait for each other several times an iteration. Where other programs keep the processors busy, all wait for one
that is not running, and one thread alone can be many times faster than several; small problems have too little work for
many.
"""

import time

# Iterations of a trial of another number of threads, at most: the first wake the threads and fill their caches, the
# others are measured. Of iterations that take longer than this (seconds) one each is enough.
_WARM, _MEASURED = 3, 5
_ENOUGH = 0.01
# Another number of threads must be this much faster to be taken.
_FASTER = 0.9
# The next trial begins after this many times the time that the last one took: soon after a change, ever later while
# trials find nothing better.
_SOON, _FIRST, _LATE = 3.0, 20.0, 50.0
# Iterations that take longer than this (seconds) make the barriers cheap in comparison.
_LONG = 0.05


class ThreadCount:
    """Chooses the number of threads for the next iterations, from what the last ones took.

    A trial goes to another number and, if that was faster, back to the present one: only if that is slower still, and
    was not just disturbed for a moment, is the other number taken.

    most : the largest number there may be
    """

    def __init__(self, most: int) -> None:
        self.threads = self.most = most
        # Seconds an iteration, as last measured.
        self.seconds: dict[int, float] = {}
        self._tried: dict[int, float] = {}
        self._next_trial, self._wait = 0.0, _FIRST / 2.0
        # What a trial still has to do, (threads, iterations), the number it is about, and the seconds it has taken.
        self._steps: list[tuple[int, int]] = []
        self._candidate, self._spent = most, 0.0

    def plan(self, iterations: int) -> tuple[int, int]:
        """(threads, iterations to do with them), at most so many."""
        if not self._steps and self.threads in self.seconds and time.perf_counter() >= self._next_trial:
            other = self._other()
            if other != self.threads:
                self._candidate, self._spent = other, 0.0
                self._steps = self._trial(other)
        if not self._steps:
            return self.threads, iterations
        threads, count = self._steps[0]
        return threads, min(count, iterations)

    def note(self, threads: int, iterations: int, seconds: float) -> None:
        """What the planned iterations took."""
        self._spent += seconds
        if len(self._steps) != 2:  # the first step only warms up
            self.seconds[threads] = seconds / iterations
        if not self._steps:
            return
        self._steps.pop(0)
        if self._steps:
            return
        better = self.seconds[self._candidate] < _FASTER * self.seconds[self.threads]
        if better and threads == self._candidate:
            self._steps = self._trial(self.threads)
            return
        now = time.perf_counter()
        self._tried[self._candidate] = now
        if better:
            self.threads = self._candidate
        self._wait = _SOON if better else min(2.0 * self._wait, _LATE)
        self._next_trial = now + self._wait * self._spent

    def _trial(self, threads: int) -> list[tuple[int, int]]:
        enough = 1 + int(_ENOUGH / max(self.seconds[self.threads], 1e-9))
        return [(threads, min(_WARM, enough)), (threads, min(_MEASURED, enough))]

    def _other(self) -> int:
        """The number to try next: half or twice the present one, whichever was tried longer ago."""
        if self.seconds.get(self.threads, 0.0) > _LONG:
            return self.threads
        neighbours = [n for n in (self.threads // 2, min(2 * self.threads, self.most)) if 1 <= n != self.threads]
        return min(neighbours, key=lambda n: self._tried.get(n, 0.0), default=self.threads)
