"""The engines of gradient descent: the plain one, written as its formulas, and which one a training takes.

An engine holds the state of M models and advances it: this one by `neuron.reference`, the fused ones of `kernels` many
iterations at a time. All give the same bits.
"""

import logging
from typing import Any

import numpy as np

from .. import kernels
from ..arrays import namespace, to_host
from ..errors import DeviceError, InputError
from ..neuron.options import CAPABILITIES, DescentOptions
from ..neuron.reference import propagate_rows
from ..neuron.state import Engine, Gradient, Models, alone, check_arrays
from ..system.checks import one_of
from ..system.text import given

Array = Any

_log = logging.getLogger("xlogreg")

IMPLEMENTATIONS = ("auto", "reference", "fused")


def engine_for(
    implementation: str,
    rows: Array,
    sign: Array,
    w: Array,
    b: Array,
    rates: Array,
    chunk: int | None = None,
    *,
    weights: Array | None = None,
    options: DescentOptions | None = None,
) -> Engine:
    """The engine of that name, ready to run; `auto` takes the fastest that can do the work.

    NumPy arrays of pixels take the fused CPU kernel, CuPy arrays the fused CUDA kernels. `auto` falls back to the
    reference where the fused kernel cannot run (float features, another array module, an option that it lacks, Numba
    missing or broken, a GPU that is too old or does not take the kernels); only where it should have run, it warns,
    once. Arguments as those of `Reference`.

    Raises
    ------
    InputError
        There is no such implementation, or it was asked for by name and cannot do this work.
    DeviceError
        The GPU's memory does not hold what the fused kernels need.
    """
    if not one_of(implementation, IMPLEMENTATIONS):
        raise InputError(f"There is no implementation {given(implementation)}; choose {', '.join(IMPLEMENTATIONS)}.")
    xp = namespace(rows)
    options = options or DescentOptions()
    needs = options.needs(weights is not None)
    lacks = needs - kernels.CAPABLE_OF.get(xp.__name__, frozenset())
    unable = ""
    if rows.dtype != xp.uint8:
        unable = f"it takes uint8 pixels, not {rows.dtype} features"
    elif not kernels.has_kernels(xp):
        unable = f"it takes NumPy or CuPy arrays, not {xp.__name__} arrays"
    elif lacks:
        unable = f"it has no {' and no '.join(words for name, words in CAPABILITIES.items() if name in lacks)} yet"
    elif implementation != "reference":
        unable = kernels.why_no_fused(xp)
        if unable and implementation == "auto":
            kernels.warn_once(unable)
    if implementation == "reference" or (implementation == "auto" and (unable or chunk is not None)):
        return Reference(rows, sign, w, b, rates, chunk, weights=weights, options=options)
    if unable:
        raise InputError(_cannot(unable))
    if chunk is not None:
        raise InputError("The fused kernel chooses its own chunks; leave chunk out, or choose the reference.")
    try:
        if xp.__name__ == "numpy" and not kernels.is_compiled():
            # Heard by default; the command line, which has words of its own for it, turns it off.
            _log.warning("xlogreg is %s: some twenty seconds", kernels.compiling())
        engine: Engine = kernels.fused(xp)(rows, sign, w, b, rates, weights=weights, options=options)
        with alone(engine):
            engine.prepare()
    except (DeviceError, MemoryError):
        raise
    except Exception as error:  # whatever compilers, drivers or a full cache folder raise when a kernel is compiled
        unable = f"it does not compile or start here ({(str(error).splitlines() or [''])[0] or type(error).__name__})"
        if implementation == "auto":
            kernels.warn_once(unable)
            return Reference(rows, sign, w, b, rates, weights=weights, options=options)
        raise InputError(_cannot(unable)) from error
    return engine


def _cannot(unable: str) -> str:
    return f"The fused kernel cannot be used: {unable}; choose reference or auto, which give the same bits."


class Reference(Models):
    """Gradient descent by `propagate_rows`: the state of M models and how it advances.

    Parameters
    ----------
    rows, sign, w, b, chunk, weights : as in `propagate_rows`
    rates : (M,) float64, the learning rates
    options : of which the penalty, the momentum and the wish for slopes are read here
    """

    name = "reference"

    def __init__(
        self,
        rows: Array,
        sign: Array,
        w: Array,
        b: Array,
        rates: Array,
        chunk: int | None = None,
        *,
        weights: Array | None = None,
        options: DescentOptions | None = None,
    ) -> None:
        check_arrays(rows, sign, w, b, rates, weights)
        self.rows, self.sign, self.rates, self.chunk = rows, sign, rates, chunk
        self.w, self.b, self.weights = w, b, weights
        self.options = options or DescentOptions()
        self.gradient: Gradient | None = None
        if self.options.momentum:
            xp = namespace(rows)
            self.velocity = xp.zeros(w.shape, dtype=xp.float64)
            self.bias_velocity = xp.zeros(b.shape, dtype=xp.float64)

    def prepare(self) -> None:
        """Nothing to compile."""

    def run(self, iterations: int) -> np.ndarray:
        """Advance by so many iterations; returns their costs (iterations, M), copied from the device once."""
        xp = namespace(self.rows)
        costs = xp.empty((iterations, len(self.b)), dtype=xp.float64)
        with_slopes = self.options.gradient_tolerance is not None
        slopes = xp.empty((iterations, len(self.b)), dtype=xp.float64) if with_slopes else None
        # A diverged model works on with infinities until the caller looks at the costs; that is no news by then.
        with np.errstate(all="ignore"):
            for i in range(iterations):
                gradient = propagate_rows(
                    self.rows, self.sign, self.w, self.b, self.chunk, weights=self.weights, l2=self.options.l2
                )
                costs[i] = gradient.cost
                if slopes is not None:
                    slopes[i] = xp.maximum(xp.max(xp.abs(gradient.dw), axis=-1), xp.abs(gradient.db))
                step, bias_step = self._step(gradient)
                self.w = self.w - self.rates[:, None] * step
                self.b = self.b - self.rates * bias_step
                self.gradient = gradient
        self.iterations += iterations
        self.slopes = None if slopes is None else to_host(slopes)
        return to_host(costs)

    def _step(self, gradient: Gradient) -> tuple[Array, Array]:
        momentum = self.options.momentum
        if not momentum:
            return gradient.dw, gradient.db
        velocity: Array = momentum * self.velocity + gradient.dw
        bias_velocity: Array = momentum * self.bias_velocity + gradient.db
        self.velocity, self.bias_velocity = velocity, bias_velocity
        if not self.options.nesterov:
            return velocity, bias_velocity
        return gradient.dw + momentum * velocity, gradient.db + momentum * bias_velocity
