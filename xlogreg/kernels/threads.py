"""How many threads to use: as many as are fastest at the time, which changes no bit.

Threads meet several times an iteration. Where other programs keep the processors busy, all wait for one that is not
running, and one thread alone can be many times faster than several; small problems have too little work for many.
"""

import time

# Iterations of a trial of another number of threads, and how much of the time trials may take.
_TRIAL = 2
_SHARE = 0.02
# Another number of threads must be this much faster to be taken.
_FASTER = 0.9
# Iterations that take longer than this (seconds) make the meetings cheap in comparison.
_LONG = 0.05


class Team:
    """Chooses the number of threads for the next iterations, from what the last ones took.

    most : the largest number there may be
    """

    def __init__(self, most: int) -> None:
        self.threads = self.most = most
        # Seconds an iteration, as last measured.
        self.seconds: dict[int, float] = {}
        self._tried: dict[int, float] = {}
        self._next_trial = 0.0

    def plan(self, iterations: int) -> tuple[int, int]:
        """(threads, iterations to do with them), at most so many."""
        other = self._other()
        if self.threads in self.seconds and other != self.threads and time.perf_counter() >= self._next_trial:
            return other, min(_TRIAL, iterations)
        return self.threads, iterations

    def note(self, threads: int, iterations: int, seconds: float) -> None:
        """What the planned iterations took."""
        self.seconds[threads] = seconds / iterations
        self._tried[threads] = time.perf_counter()
        if threads == self.threads:
            return
        if self.seconds[threads] < _FASTER * self.seconds[self.threads]:
            self.threads = threads
        self._next_trial = time.perf_counter() + seconds / _SHARE

    def _other(self) -> int:
        """The number to try next: half or twice the present one, whichever was tried longer ago."""
        if self.seconds.get(self.threads, 0.0) > _LONG:
            return self.threads
        neighbours = [n for n in (self.threads // 2, min(2 * self.threads, self.most)) if 1 <= n != self.threads]
        return min(neighbours, key=lambda n: self._tried.get(n, 0.0), default=self.threads)
