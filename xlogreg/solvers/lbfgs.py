"""L-BFGS: quasi-Newton steps to the optimum, with the same bits everywhere.

The weights move along p = -H g, where H approximates the inverse Hessian by the last `PAIRS` steps s and changes y of
the gradient g (J. Nocedal, 1980; the two loops are algorithm 7.4 of Nocedal and Wright, "Numerical Optimization"). The
loops run over the dot products of these vectors, not over the vectors (W. Chen, Z. Wang, J. Zhou, "Large-scale L-BFGS
using MapReduce", 2014). Each dot product is exact (`exact.exact_dot`), and the few numbers that come of them are plain
floats on the host, in one fixed order of operations.

Pixels are never negative, so the bias and all weights pull together. Therefore the steps are those of a problem whose
features have the mean 0: with mu the means, z = w (x - mu) + (b + mu w), and its gradient is (dw - mu db, db). That is
only a change of variables; the optimum stays where it is, and on the tutorial's pictures a third fewer evaluations lead
to it.

One evaluation of the objective is one iteration: its cost is in the history, whether the step is taken or not.
"""

import math
import sys

import numpy as np

from ..arrays import namespace, to_host
from ..errors import InputError
from ..neuron.objective import Gradient, Objective
from ..neuron.options import DescentOptions
from ..neuron.reference import LARGEST_Z
from .line_search import LineSearch
from .solver import Array, Solver, State, copy_of

# Steps and changes of the gradient that are remembered: on the tutorial's pictures 10, 20, 30 and 40 take 168, 141, 98
# and 82 evaluations to 1e-4 at C = 1; each takes the memory of 16 pictures for each model.
PAIRS = 30
# No step takes a z beyond this share of what it may be.
_REACH = 0.99


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
        with np.errstate(all="ignore"):  # features too large for a sum are found by the first cost
            self._means, self._bounds = objective.means(), objective.bounds()
        self._l2 = [0.0] * len(self.b) if objective.l2 is None else to_host(objective.l2)[:: self.classes].tolist()
        self._pairs = [Pairs() for _ in self._l2]
        # The first point is accepted as it is.
        self._searches = [LineSearch(last=1.0) for _ in self._pairs]

    def prepare(self) -> None:
        super().prepare()
        nothing = namespace(self.w).zeros((1, 1), dtype=namespace(self.w).float64)
        self.objective.dots(nothing[0], nothing)
        self.objective.add_multiples(nothing[0], [0.0], nothing)

    @staticmethod
    def memory_shapes(options: DescentOptions, features: int, classes: int) -> dict[str, tuple[int, ...]]:
        n = classes * (features + 1)  # all weights, then all biases
        return {
            "gradient": (n,), "direction": (n,), "steps": (PAIRS, n), "changes": (PAIRS, n), "pairs": (Pairs.SIZE,),
            "search": (len(LineSearch().numbers()),),
        }  # fmt: skip

    @staticmethod
    def check_memory(memory: dict[str, Array]) -> None:
        for numbers in to_host(memory["pairs"]):
            if numbers[0] not in range(PAIRS + 1) or numbers[1] not in range(PAIRS):
                raise InputError(f"A state of L-BFGS has 0 to {PAIRS} pairs, and the newest in one of their places.")
            pairs = Pairs(numbers)
            if not all(pairs.sy[i, i] > 0.0 < pairs.yy[i, i] for i in pairs.places):
                raise InputError("A state of L-BFGS has no pairs but those along which the cost curves upwards.")
        if not all(LineSearch(*numbers).goes_on for numbers in to_host(memory["search"]).tolist()):
            raise InputError("A state of L-BFGS has a line search that goes on, with its next step inside its bracket.")

    def state(self) -> State:
        xp = namespace(self.w)
        self.memory["pairs"] = xp.asarray(np.stack([pairs.numbers for pairs in self._pairs]))
        self.memory["search"] = xp.asarray(np.array([search.numbers() for search in self._searches]))
        return super().state()

    def restore(self, state: State) -> None:
        super().restore(state)
        self._pairs = [Pairs(numbers) for numbers in to_host(self.memory["pairs"]).copy()]
        self._searches = [LineSearch(*numbers) for numbers in to_host(self.memory["search"]).tolist()]
        self.gradient = self._gradient() if self.iterations else None

    def keep(self, models: list[int]) -> None:
        super().keep(models)
        self._pairs = [self._pairs[j] for j in models]
        self._searches = [self._searches[j] for j in models]
        self._l2 = [self._l2[j] for j in models]

    def run(self, iterations: int) -> np.ndarray:
        """As in `Solver`, but no further than the first iteration in which a model arrives, is stuck or diverges."""
        models = len(self._searches)
        costs, largest = np.empty((2, iterations, models))
        stuck = np.zeros((iterations, models), dtype=bool)
        done, ended = 0, False
        # Where numbers leave their range a step is not taken, or ends the training: neither is news.
        with np.errstate(all="ignore"):
            while done < iterations and not ended:
                ended = self._evaluate(costs[done], largest[done], stuck[done])
                done += 1
        self.iterations += done
        self.largest, self.stuck, self.gradient = largest[:done], stuck[:done], self._gradient()
        return costs[:done]

    def _evaluate(self, costs: np.ndarray, largest: np.ndarray, stuck: np.ndarray) -> bool:
        """One iteration, into these numbers of each model; whether it is the last of any."""
        xp, models, tolerance = namespace(self.w), range(len(self._searches)), self.options.gradient_tolerance
        t, direction = xp.asarray([search.t for search in self._searches]), self.memory["direction"]
        w = self.w + t[:, None] * direction[:, : -self.classes]
        b = self.b + (t[:, None] * self._biases_of(direction)).reshape(*self.b.shape)
        found = self.evaluate(w, b)
        gradient = xp.concatenate([found.dw, found.db.reshape(-1, self.classes)], axis=1)
        centred = self._centred(gradient)
        slopes = xp.concatenate([self.objective.dots(centred[j], direction[j : j + 1]) for j in models])
        costs[:], largest[:], slopes = to_host(xp.stack([found.cost, found.largest, slopes]))
        arrived = np.zeros_like(stuck) if tolerance is None else largest <= tolerance
        for j in models:
            if arrived[j] or self._searches[j].takes(float(costs[j]), float(slopes[j])):
                self._accept(j, w[j], b[j], gradient[j], centred[j], float(costs[j]))
            stuck[j] = self._searches[j].stuck
        return bool((arrived | stuck | ~np.isfinite(costs)).any())

    def _gradient(self) -> Gradient:
        """Where the models are."""
        gradient = self.memory["gradient"]
        costs = namespace(gradient).asarray([search.cost for search in self._searches])
        dw, db = gradient[:, : -self.classes], gradient[:, -self.classes :]
        return Gradient(copy_of(dw), copy_of(db.reshape(*self.b.shape)), costs)

    def _centred(self, gradient: Array) -> Array:
        """Of features of mean 0: (dw - mu db, db) for each neuron."""
        dw, db = gradient[..., : -self.classes], gradient[..., -self.classes :]
        moved = dw.reshape(*db.shape, -1) - self._means * db[..., None]
        return namespace(gradient).concatenate([moved.reshape(*dw.shape), db], axis=-1)

    def _biases_of(self, direction: Array) -> Array:
        """What a direction of features of mean 0 moves the biases by: its biases - mu . its weights, (M, K)."""
        weights = direction[:, : -self.classes].reshape(len(direction) * self.classes, -1)
        return direction[:, -self.classes :] - self.objective.dots(self._means, weights).reshape(-1, self.classes)

    def _accept(self, j: int, w: Array, b: Array, gradient: Array, centred: Array, cost: float) -> None:
        """Go to this point of model j, remember the step to it, and choose the next direction."""
        pairs, search, dots = self._pairs[j], self._searches[j], self.objective.dots
        xp, memory = namespace(w), {name: self.memory[name][j] for name in ("gradient", "direction")}
        steps, changes = self.memory["steps"][j], self.memory["changes"][j]
        pair = xp.stack([search.t * memory["direction"], centred - self._centred(memory["gradient"])])
        self.w[j], self.b[j], self.memory["gradient"][j] = w, b, gradient
        # All at once: to wait for a GPU takes longer than its work.
        products = [dots(centred, steps), dots(centred, changes), dots(centred, pair), dots(pair[1], pair)]
        numbers = to_host(xp.concatenate(products))
        ys, yy = pairs.move(numbers[:PAIRS], numbers[PAIRS : 2 * PAIRS])
        gs, gy, own_sy, own_yy = numbers[2 * PAIRS :].tolist()
        # The first point has no step; a step that was taken for want of a better one may not curve upwards; and the
        # products of tiny numbers are 0.
        if own_sy > 2.0**-52 * -(search.t * search.slope) >= 0.0 < own_yy and search.slope:
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
            of_g, of_s, of_y = self.objective.two_loops(pairs.sy, pairs.yy, pairs.gs, pairs.gy, pairs.places)
            t, direction = 1.0, -of_g * gradient
            direction = add(direction, [-one for one in of_s], self.memory["steps"][j])
            direction = add(direction, [-one for one in of_y], self.memory["changes"][j])
        else:
            t, direction = 1.0, -gradient
        self.memory["direction"][j] = direction
        xp, k = namespace(direction), self.classes
        # Of each neuron: how far |w x| reaches, and how far along the direction.
        weights = xp.concatenate([self.w[j], direction[:-k]]).reshape(2 * k, -1)
        numbers = [
            dots(gradient, direction[None]), self._biases_of(direction[None]).reshape(-1), self.b[j].reshape(-1),
            dots(self._bounds, xp.abs(weights)),
        ]  # fmt: skip
        slope, *rest = to_host(xp.concatenate(numbers)).tolist()
        biases, b, sizes, reaches = rest[:k], rest[k : 2 * k], rest[2 * k : 3 * k], rest[3 * k :]
        if not pairs.places and slope < 0.0:
            # Not beyond what a penalty allows: it alone would take the weights to 0 by a step of 1 / lambda.
            t = 1.0 / max(1.0, math.sqrt(-slope), self._l2[j])
        # |z| <= |b| + the sum of |w x| stays in its range, with room for rounding.
        most = min(
            (_REACH * LARGEST_Z - abs(b[n]) - sizes[n]) / speed if (speed := abs(biases[n]) + reaches[n]) else math.inf
            for n in range(k)
        )
        return LineSearch.begun(cost, slope, t, min(most, sys.float_info.max))
