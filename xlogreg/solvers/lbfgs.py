"""L-BFGS: quasi-Newton steps to the optimum, with the same bits everywhere.

The weights move along p = -H g, where H approximates the inverse Hessian by the last `PAIRS` steps s and changes y of
the gradient g (J. Nocedal, 1980; the two loops are algorithm 7.4 of Nocedal and Wright, "Numerical Optimization"). The
loops run over the dot products of these vectors, not over the vectors (W. Chen, Z. Wang, J. Zhou, "Large-scale L-BFGS
using MapReduce", 2014). Each dot product is exact (`exact.exact_dot`), and the few numbers that come of them are plain
floats on the host, in one fixed order of operations.

Pixels are never negative, so the bias and all weights pull together. Therefore the steps are those of a problem whose
features have the mean 0: with mu the means, z = w (x - mu) + (b + mu w), and its gradient is (dw - mu db, db). That is
only a change of variables; the optimum stays where it is, and there are about half as many steps to it.

One evaluation of the objective is one iteration: its cost is in the history, whether the step is taken or not.
"""

import math

import numpy as np

from ..arrays import namespace, to_host
from ..errors import InputError
from ..neuron.objective import Gradient, Objective
from ..neuron.options import DescentOptions
from ..neuron.reference import LARGEST_Z
from .line_search import LineSearch
from .solver import Array, Solver, State

# Steps and changes of the gradient that are remembered.
PAIRS = 20


class Pairs:
    """The dot products of one model's pairs (s, y), on the host, in the order of their places, which they take in turn.

    sy, yy : (PAIRS, PAIRS), s_i . y_j where pair j is not older than i, and y_i . y_j
    gs, gy : (PAIRS,), g . s_i and g . y_i at the last point that was accepted
    """

    SIZE = 2 + 2 * PAIRS * PAIRS + 2 * PAIRS

    def __init__(self, numbers: np.ndarray | None = None) -> None:
        self.numbers = np.zeros(self.SIZE) if numbers is None else numbers
        square = PAIRS * PAIRS
        self._place, sy, yy, self.gs, self.gy = np.split(self.numbers, np.cumsum([2, square, square, PAIRS]))
        self.sy, self.yy = sy.reshape(PAIRS, PAIRS), yy.reshape(PAIRS, PAIRS)

    @property
    def newest(self) -> int:
        return int(self._place[1])

    @property
    def places(self) -> list[int]:
        """From the oldest to the newest."""
        return [(self.newest - age) % PAIRS for age in range(int(self._place[0]) - 1, -1, -1)]

    def forget(self) -> None:
        self._place[0] = 0.0

    def move(self, gs: np.ndarray, gy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """To another gradient, of which these are the products: y . s_i and y . y_i of its change y."""
        change = gs - self.gs, gy - self.gy
        self.gs[:], self.gy[:] = gs, gy
        return change

    def add(self, ys: np.ndarray, yy: np.ndarray, gs: float, gy: float, own_sy: float, own_yy: float) -> int:
        """Take a new pair in place of the oldest; its place."""
        self._place[:] = min(self._place[0] + 1.0, PAIRS), (self.newest + 1) % PAIRS
        i = self.newest
        self.sy[:, i], self.yy[:, i], self.yy[i, :] = ys, yy, yy
        self.sy[i, i], self.yy[i, i], self.gs[i], self.gy[i] = own_sy, own_yy, gs, gy
        return i

    def coefficients(self) -> tuple[float, list[float], list[float]]:
        """H g as a multiple of g and multiples of the steps s and of the changes y (the two loops)."""
        sy, yy, gs, gy, places = self.sy.tolist(), self.yy.tolist(), self.gs.tolist(), self.gy.tolist(), self.places
        of_s, of_y = [0.0] * PAIRS, [0.0] * PAIRS
        for k in range(len(places) - 1, -1, -1):
            i = places[k]
            product = gs[i]
            for j in places[k + 1 :]:
                product = product - of_y[j] * sy[i][j]
            of_y[i] = product / sy[i][i]
        scale = sy[places[-1]][places[-1]] / yy[places[-1]][places[-1]]
        for k, i in enumerate(places):
            product = gy[i]
            for j in places:
                product = product - of_y[j] * yy[i][j]
            product = scale * product
            for j in places[:k]:
                product = product + of_s[j] * sy[j][i]
            of_s[i] = of_y[i] - product / sy[i][i]
        return scale, of_s, [-scale * one for one in of_y]


class LBFGS(Solver):
    """`w`, `b` are the last point that was accepted; `memory` has the gradient there, the direction from there as if
    features had the mean 0, the pairs, and what `Pairs` and `LineSearch` hold.

    stuck : of the last `run`, (iterations, M), where a model finds no lower cost any more
    """

    descends = False

    def __init__(
        self, objective: Objective, w: Array, b: Array, rates: Array, options: DescentOptions | None = None
    ) -> None:
        super().__init__(objective, w, b, rates, options)
        self._means = objective.means()
        self._pairs = [Pairs() for _ in self.b.tolist()]
        # The first point is accepted as it is.
        self._searches = [LineSearch(last=1.0) for _ in self._pairs]

    @staticmethod
    def memory_shapes(options: DescentOptions, features: int) -> dict[str, tuple[int, ...]]:
        n = features + 1
        return {
            "gradient": (n,), "direction": (n,), "steps": (PAIRS, n), "changes": (PAIRS, n), "pairs": (Pairs.SIZE,),
            "search": (len(LineSearch().numbers()),),
        }  # fmt: skip

    @staticmethod
    def check_memory(memory: dict[str, Array]) -> None:
        for count, newest in to_host(memory["pairs"])[:, :2].tolist():
            if count not in range(PAIRS + 1) or newest not in range(PAIRS):
                raise InputError(f"A state of L-BFGS has 0 to {PAIRS} pairs, and the newest in one of their places.")

    def state(self) -> State:
        xp = namespace(self.w)
        self.memory["pairs"] = xp.asarray(np.stack([pairs.numbers for pairs in self._pairs]))
        self.memory["search"] = xp.asarray(np.array([search.numbers() for search in self._searches]))
        return super().state()

    def restore(self, state: State) -> None:
        super().restore(state)
        self._pairs = [Pairs(numbers) for numbers in to_host(self.memory["pairs"]).copy()]
        self._searches = [LineSearch(*numbers) for numbers in to_host(self.memory["search"]).tolist()]
        # Also of a training that is taken up only to be ended.
        self.gradient = self._accepted()

    def keep(self, models: list[int]) -> None:
        super().keep(models)
        self._pairs = [self._pairs[j] for j in models]
        self._searches = [self._searches[j] for j in models]

    def run(self, iterations: int) -> np.ndarray:
        xp, models = namespace(self.w), range(len(self._pairs))
        costs, largest = np.empty((2, iterations, len(models)))
        self.stuck = np.zeros((iterations, len(models)), dtype=bool)
        tolerance = self.options.gradient_tolerance
        for i in range(iterations):
            t, direction = xp.asarray([search.t for search in self._searches]), self.memory["direction"]
            w, b = self.w + t[:, None] * direction[:, :-1], self.b + t * self._bias_of(direction)
            found = self.objective.evaluate(w, b)
            gradient = xp.concatenate([found.dw, found.db[:, None]], axis=1)
            centred = self._centred(gradient)
            slopes = xp.concatenate([self.objective.dots(centred[j], direction[j : j + 1]) for j in models])
            numbers = to_host(xp.stack([found.cost, found.largest, slopes]))
            costs[i], largest[i] = numbers[0], numbers[1]
            for j, (cost, size, slope) in enumerate(numbers.T.tolist()):
                if self._searches[j].takes(cost, slope) or (tolerance is not None and size <= tolerance):
                    self._accept(j, w[j], b[j], gradient[j], centred[j], cost)
                self.stuck[i, j] = self._searches[j].stuck
        self.iterations += iterations
        self.largest = largest
        self.gradient = self._accepted()
        return costs

    def _accepted(self) -> Gradient:
        """Cost and gradient at the last points that were accepted."""
        gradient, cost = self.memory["gradient"], [search.cost for search in self._searches]
        return Gradient(gradient[:, :-1].copy(), gradient[:, -1].copy(), namespace(gradient).asarray(cost))

    def _centred(self, gradient: Array) -> Array:
        """Of features of mean 0: (dw - mu db, db)."""
        dw, db = gradient[..., :-1], gradient[..., -1:]
        return namespace(gradient).concatenate([dw - self._means * db, db], axis=-1)

    def _bias_of(self, direction: Array) -> Array:
        """What a direction of features of mean 0 moves the bias by: its bias - mu . its weights, (M,)."""
        moved = [self.objective.dots(self._means, direction[j : j + 1, :-1]) for j in range(len(direction))]
        return direction[:, -1] - namespace(direction).concatenate(moved)

    def _accept(self, j: int, w: Array, b: Array, gradient: Array, centred: Array, cost: float) -> None:
        """Go to this point of model j, remember the step to it, and choose the next direction."""
        pairs, search, dots = self._pairs[j], self._searches[j], self.objective.dots
        xp, memory = namespace(w), {name: self.memory[name][j] for name in ("gradient", "direction")}
        steps, changes = self.memory["steps"][j], self.memory["changes"][j]
        pair = xp.stack([search.t * memory["direction"], centred - self._centred(memory["gradient"])])
        self.w[j], self.b[j], self.memory["gradient"][j] = w, b, gradient
        ys, yy = pairs.move(to_host(dots(centred, steps)), to_host(dots(centred, changes)))
        (gs, gy), (own_sy, own_yy) = (to_host(dots(one, pair)).tolist() for one in (centred, pair[1]))
        # The first point has no step; and a step that was taken for want of a better one may not curve upwards.
        if own_sy > 2.0**-52 * -(search.t * search.slope) and search.slope:
            i = pairs.add(ys, yy, gs, gy, own_sy, own_yy)
            steps[i], changes[i] = pair[0], pair[1]
        self._searches[j] = self._along(j, centred, cost)
        if self._searches[j].stuck and pairs.places:
            pairs.forget()
            self._searches[j] = self._along(j, centred, cost)

    def _along(self, j: int, gradient: Array, cost: float) -> LineSearch:
        """The search from where model j is, along -H g."""
        pairs, dots, add = self._pairs[j], self.objective.dots, self.objective.add_multiples
        if pairs.places:
            of_g, of_s, of_y = pairs.coefficients()
            t, direction = 1.0, -of_g * gradient
            direction = add(direction, [-one for one in of_s], self.memory["steps"][j])
            direction = add(direction, [-one for one in of_y], self.memory["changes"][j])
        else:
            t, direction = 1.0, -gradient
        self.memory["direction"][j] = direction
        xp, d = namespace(direction), len(self._means)
        sizes = [xp.max(xp.abs(values)) for values in (self.w[j], direction[:-1])]
        numbers = [dots(gradient, direction[None]), self._bias_of(direction[None]), xp.stack([self.b[j], *sizes])]
        slope, bias, b, w_size, size = to_host(xp.concatenate(numbers)).tolist()
        if not pairs.places and slope < 0.0:
            t = min(1.0, 1.0 / math.sqrt(-slope))
        # |z| <= |b| + the sum of |w| stays in its range.
        speed = abs(bias) + d * size
        most = (LARGEST_Z - abs(b) - d * w_size) / speed if speed else 0.0
        return LineSearch.begun(cost, slope, t, most)
