"""How many threads to use: as many as are fastest at the time, which changes no bit.

Threads meet several times an iteration. Where other programs keep the processors busy, all wait for one that is not
running, and one thread alone can be many times faster than several; small problems have too little work for many.
"""

import time

# Iterations of a trial of another number of threads: the first wake the threads and fill their caches, the others are
# measured. And how much of the time trials may take.
_WARM, _MEASURED = 3, 5
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
        # The number on trial, whether it is warm, and the seconds that the trial has taken.
        self._trial: tuple[int, bool, float] | None = None

    def plan(self, iterations: int) -> tuple[int, int]:
        """(threads, iterations to do with them), at most so many."""
        other = self._other()
        due = self.threads in self.seconds and other != self.threads and time.perf_counter() >= self._next_trial
        if self._trial is None and due:
            self._trial = (other, False, 0.0)
        if self._trial is None:
            return self.threads, iterations
        threads, warm, _ = self._trial
        return threads, min(_MEASURED if warm else _WARM, iterations)

    def note(self, threads: int, iterations: int, seconds: float) -> None:
        """What the planned iterations took."""
        if self._trial is None:
            self.seconds[threads] = seconds / iterations
            return
        _, warm, taken = self._trial
        if not warm:
            self._trial = (threads, True, seconds)
            return
        self._trial = None
        self.seconds[threads] = seconds / iterations
        self._tried[threads] = time.perf_counter()
        if self.seconds[threads] < _FASTER * self.seconds[self.threads]:
            self.threads = threads
        self._next_trial = time.perf_counter() + (taken + seconds) / _SHARE

    def _other(self) -> int:
        """The number to try next: half or twice the present one, whichever was tried longer ago."""
        if self.seconds.get(self.threads, 0.0) > _LONG:
            return self.threads
        neighbours = [n for n in (self.threads // 2, min(2 * self.threads, self.most)) if 1 <= n != self.threads]
        return min(neighbours, key=lambda n: self._tried.get(n, 0.0), default=self.threads)
