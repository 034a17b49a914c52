"""Gradient descent: w = w - rate dw, plain, with momentum, or with Nesterov's."""

import numpy as np

from ..arrays import namespace, to_host
from ..neuron.objective import Steps
from ..neuron.options import DescentOptions
from .solver import Array, Solver


class GradientDescent(Solver):
    """One evaluation an iteration, and a step; an objective that has a fast path does both by itself, to the same bits.

    u = (mu u) + g, ub = (mu ub) + gb with momentum;  w = w - rate step;  b = b - rate step of b, each rounded
    separately, as `neuron.reference` says.
    """

    @staticmethod
    def memory_shapes(options: DescentOptions, features: int) -> dict[str, tuple[int, ...]]:
        return {"velocity": (features,), "bias_velocity": ()} if options.momentum else {}

    def run(self, iterations: int) -> np.ndarray:
        self.iterations += iterations  # those of this block count from here on
        if self.objective.descend is None:
            return self._run_plainly(iterations)
        steps = Steps(
            self.w, self.b, self.memory.get("velocity"), self.memory.get("bias_velocity"), self.rates,
            self.options.momentum, self.options.nesterov,
        )  # fmt: skip
        costs, self.largest, self.gradient = self.objective.descend(steps, iterations)
        return costs

    def _run_plainly(self, iterations: int) -> np.ndarray:
        xp = namespace(self.w)
        costs, largest = (xp.empty((iterations, len(self.b)), dtype=xp.float64) for _ in range(2))
        # A diverged model works on with infinities until the caller looks at the costs; that is no news by then.
        with np.errstate(all="ignore"):
            for i in range(iterations):
                gradient = self.gradient = self.objective.evaluate(self.w, self.b)
                costs[i] = gradient.cost
                if self.options.gradient_tolerance is not None:
                    largest[i] = gradient.largest
                step, bias_step = self._step(gradient.dw, "velocity"), self._step(gradient.db, "bias_velocity")
                self.w = self.w - self.rates[:, None] * step
                self.b = self.b - self.rates * bias_step
        self.largest = None if self.options.gradient_tolerance is None else to_host(largest)
        return to_host(costs)

    def _step(self, gradient: Array, name: str) -> Array:
        momentum = self.options.momentum
        if not momentum:
            return gradient
        velocity = self.memory[name] = momentum * self.memory[name] + gradient
        return gradient + momentum * velocity if self.options.nesterov else velocity
