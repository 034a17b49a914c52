"""Gradient descent: w = w - rate dw, plain, with momentum, or with Nesterov's."""

import numpy as np

from ..arrays import namespace, to_host
from ..neuron.objective import Gradient, Steps
from ..neuron.options import DescentOptions
from .solver import Array, Solver, bias_shape


class GradientDescent(Solver):
    """One evaluation an iteration, and a step; an objective that has a fast path does both by itself, to the same bits.

    u = (mu u) + g, ub = (mu ub) + gb with momentum;  w = w - rate step;  b = b - rate step of b, each rounded
    separately, as `neuron.reference` says.
    """

    @staticmethod
    def memory_shapes(options: DescentOptions, features: int, classes: int) -> dict[str, tuple[int, ...]]:
        return {"velocity": (classes * features,), "bias_velocity": bias_shape(classes)} if options.momentum else {}

    def run(self, iterations: int) -> np.ndarray:
        self.iterations += iterations  # those of this block count from here on
        if self.objective.descend is None:
            return self._run_plainly(iterations)
        # A row a neuron, in the same memory.
        d, kept = self.objective.rows.shape[1], self.memory
        rates = self.rates if self.classes == 1 else self.rates.repeat(self.classes)
        velocity = kept["velocity"].reshape(-1, d) if kept else None
        steps = Steps(
            self.w.reshape(-1, d), self.b.reshape(-1), velocity, kept["bias_velocity"].reshape(-1) if kept else None,
            rates, self.options.momentum, self.options.nesterov,
        )  # fmt: skip
        costs, self.largest, found = self.objective.descend(steps, iterations)
        self.gradient = Gradient(found.dw.reshape(*self.w.shape), found.db.reshape(*self.b.shape), found.cost)
        return costs

    def _run_plainly(self, iterations: int) -> np.ndarray:
        xp = namespace(self.w)
        costs, largest = (xp.empty((iterations, len(self.b)), dtype=xp.float64) for _ in range(2))
        # A diverged model works on with infinities until the caller looks at the costs; that is no news by then.
        with np.errstate(all="ignore"):
            for i in range(iterations):
                gradient = self.gradient = self.evaluate(self.w, self.b)
                costs[i] = gradient.cost
                if self.options.gradient_tolerance is not None:
                    largest[i] = gradient.largest
                step, bias_step = self._step(gradient.dw, "velocity"), self._step(gradient.db, "bias_velocity")
                self.w = self.w - self.rates[:, None] * step
                self.b = self.b - self.rates.reshape(-1, *[1] * (self.b.ndim - 1)) * bias_step
        self.largest = None if self.options.gradient_tolerance is None else to_host(largest)
        return to_host(costs)

    def _step(self, gradient: Array, name: str) -> Array:
        momentum = self.options.momentum
        if not momentum:
            return gradient
        velocity = self.memory[name] = momentum * self.memory[name] + gradient
        return gradient + momentum * velocity if self.options.nesterov else velocity
