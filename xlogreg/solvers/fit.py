"""A whole training on rows of samples: the objective and the solver that the options ask for, from start to end."""

from typing import Any

from ..arrays import namespace, on_its_device
from ..errors import ConvergenceWarning, InputError, RisingCostWarning
from ..kernels import objective_for
from ..neuron.arguments import combined_weights
from ..neuron.options import DescentOptions
from ..system.checks import check_callable
from . import solver_of
from .advice import Adviser, warn
from .descent import Descent, Monitor, Observer, descend
from .resume import Checkpointer, Progress
from .solver import bias_shape

Array = Any


@on_its_device
def fit(
    rows: Array,
    sign: Array,
    rates: list[float] | None,
    iterations: int,
    *,
    w: Array | None = None,
    b: Array | None = None,
    observer: Observer | None = None,
    implementation: str = "auto",
    chunk: int | None = None,
    options: DescentOptions | None = None,
    sample_weight: Array | None = None,
    l2: list[float] | None = None,
    classes: int = 1,
    monitor: Monitor | None = None,
    checkpointer: Checkpointer | None = None,
    progress: Progress | None = None,
    warns: bool = True,
) -> Descent:
    """Train M models on the same samples; each has the bits of its own separate training.

    Parameters
    ----------
    rows : (m, d) uint8 pixels or finite float features
    sign : (M, m) float64, +1 where the label is 0 and -1 where it is 1; with K classes (M K, m), -1 in the row of the
        sample's class
    rates, iterations : M learning rates, which were checked, or None for a solver that needs none; how many iterations
    w, b : (M, d) and (M,) float64 to start from, with K classes (M, K d) and (M, K); zeros by default
    sample_weight : (1, m) or (m,) for all models, or (M, m); class weights come from the options
    l2 : M penalties, in the place of that of the options
    classes : K > 1 for the softmax of K neurons a model
    observer, implementation, chunk, options, monitor, checkpointer, progress : as in `xlogreg.descend_many`
    warns : whether to warn of what the notes say

    Raises
    ------
    InputError, DeviceError, DivergenceError
        Weights, options or arrays that cannot be used; a device that is full or gone; the only model diverged.

    Warns
    -----
    RisingCostWarning
        Costs rose: once for all models.
    ConvergenceWarning
        L-BFGS did not arrive: once for all models.
    """
    xp, options = namespace(rows, sign), options or DescentOptions()
    models = len(sign) // classes
    check_callable(observer, "observer")
    check_callable(monitor, "monitor")
    solver_class = solver_of(options)
    if solver_class.descends != (rates is not None):
        raise InputError(
            "Gradient descent needs a learning rate; give one, 0.005 say." if rates is None
            else "L-BFGS chooses its steps by itself; leave the learning rate out."
        )  # fmt: skip
    penalties = [options.penalty] * models if l2 is None else l2
    weights = combined_weights(sign, options, sample_weight, classes)
    needs = options.needs(weights is not None) | ({"l2"} if any(penalties) else set())
    objective = objective_for(
        implementation, rows, sign, sample_weight=weights, needs=needs, chunk=chunk,
        l2=xp.asarray([one for one in penalties for _ in range(classes)], dtype=xp.float64) if any(penalties) else None,
        classes=classes,
    )  # fmt: skip
    solver = solver_class(
        objective,
        xp.zeros((models, classes * rows.shape[1]), dtype=xp.float64) if w is None else w,
        xp.zeros((models, *bias_shape(classes)), dtype=xp.float64) if b is None else b,
        xp.asarray([1.0] * models if rates is None else rates, dtype=xp.float64),
        options,
    )
    result = descend(
        solver, iterations, observer, monitor=monitor, checkpointer=checkpointer, progress=progress,
        adviser=Adviser(rows, options, weights, classes, penalties),
    )  # fmt: skip
    notes = [note for note in result.notes if note]
    if notes and warns:
        more = f" So it is with {len(notes) - 1} more of the {models} models." if len(notes) > 1 else ""
        warn(notes[0] + more, RisingCostWarning if solver_class.descends else ConvergenceWarning)
    return result
