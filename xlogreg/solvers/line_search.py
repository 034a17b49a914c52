"""How far to go along a direction: a point that fulfils the strong Wolfe conditions, from numbers on the host.

With f(t) the cost after a step t along the direction and f'(t) its slope, a step is taken where ::

    f(t) <= f(0) + 1e-4 t f'(0)      the cost fell by enough, or, where its fall drowns in rounding,
    f(t) <= f(0) + 1e-14 |f(0)|  and  f'(t) <= -0.9998 f'(0)
    |f'(t)| <= 0.9 |f'(0)|           the slope is flat enough

(J. Nocedal, S. Wright, "Numerical Optimization", 3.1; the second line is W. Hager's and H. Zhang's, 2005.) The cost is
convex, so a step with a falling slope is a lower end of a bracket, and one with a rising slope or a higher cost its
upper end; between them the minimum of the cubic that has both costs and slopes is tried, beyond them a multiple.
"""

import math
from dataclasses import astuple, dataclass

_FALL, _FLAT, _ROUNDING = 1e-4, 0.9, 1e-14
_MOST_TRIALS = 40
# The next trial stays so far from both ends of the bracket, and beyond it goes so many times as far.
_MARGIN, _NEAREST, _FARTHEST = 0.1, 1.5, 10.0


@dataclass
class LineSearch:
    """One model's.

    cost, slope : f(0) and f'(0)
    t : the step that is to be evaluated; most : the largest there may be
    low, high : the bracket, with cost and slope at both ends; high is 0 while there is none
    trials : so far
    last : whether t is taken whatever comes, for nothing better was found; stuck : whether there is none to take at all
    """

    cost: float = 0.0
    slope: float = 0.0
    t: float = 0.0
    most: float = 0.0
    low: float = 0.0
    low_cost: float = 0.0
    low_slope: float = 0.0
    high: float = 0.0
    high_cost: float = 0.0
    high_slope: float = 0.0
    trials: float = 0.0
    last: float = 0.0
    stuck: float = 0.0

    @classmethod
    def begun(cls, cost: float, slope: float, t: float, most: float) -> "LineSearch":
        return cls(cost, slope, min(t, most), most, low_cost=cost, low_slope=slope, stuck=float(not slope < 0.0 < most))

    def numbers(self) -> tuple[float, ...]:
        return astuple(self)

    @property
    def goes_on(self) -> bool:
        """Whether these can be the numbers of a search that has not come to its end."""
        if not self.slope:
            return self.t == 0.0 and bool(self.last) and not self.stuck  # the first point
        bracket = self.low <= self.t < self.high if self.high else self.low <= self.t <= self.most
        ends = self.low_slope < 0.0 <= self.low and (self.t > self.low or bool(self.last))
        return self.slope < 0.0 < self.t and bracket and ends and not self.stuck and 0.0 <= self.trials <= _MOST_TRIALS

    def takes(self, cost: float, slope: float) -> bool:
        """Whether the step t is taken, of which these are cost and slope; if not, t is the next to be evaluated."""
        below = cost <= self.cost + _FALL * self.t * self.slope or (
            cost <= self.cost + _ROUNDING * abs(self.cost) and slope <= (2.0 * _FALL - 1.0) * self.slope
        )
        if self.last or (below and abs(slope) <= -_FLAT * self.slope):
            return True
        self.trials += 1.0
        if below and slope < 0.0:
            self.low, self.low_cost, self.low_slope = self.t, cost, slope
        else:
            # Of a cost that is not finite nothing but its place is used.
            self.high, self.high_cost, self.high_slope = self.t, cost, slope
        t = self._farther() if not self.high else self._between()
        if self.trials >= _MOST_TRIALS or t == self.t or t in (self.low, self.high):
            # As far as is known to be lower, if anything is.
            t, self.last, self.stuck = self.low, 1.0, float(self.low == 0.0)
        self.t = t
        return False

    def _farther(self) -> float:
        """Where the slope would be 0 if it went on as from f'(0) to f'(t), or near there."""
        rise = self.low_slope - self.slope
        t = self.low * (self.slope / -rise) if rise > 0.0 else math.inf
        return min(max(t, _NEAREST * self.low), _FARTHEST * self.low, self.most)

    def _between(self) -> float:
        width = self.high - self.low
        t = math.nan
        if math.isfinite(self.high_cost):
            theta = 3.0 * (self.low_cost - self.high_cost) / width + self.low_slope + self.high_slope
            square = theta * theta - self.low_slope * self.high_slope
            if square >= 0.0:
                root = math.sqrt(square)
                divisor = self.high_slope - self.low_slope + 2.0 * root
                if divisor:
                    t = self.high - width * ((self.high_slope + root - theta) / divisor)
        if not self.low < t < self.high:
            return self.low + 0.5 * width
        return min(max(t, self.low + _MARGIN * width), self.high - _MARGIN * width)
