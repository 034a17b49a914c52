"""A whole training on rows of samples: the objective and the solver that the options ask for, from start to end."""

from typing import Any

from ..arrays import namespace, on_its_device
from ..errors import RisingCostWarning
from ..kernels import objective_for
from ..neuron.arguments import combined_weights
from ..neuron.options import DescentOptions
from . import solver_of
from .advice import Adviser, warn
from .descent import Descent, Monitor, Observer, descend
from .resume import Checkpointer, Progress

Array = Any


@on_its_device
def fit(
    rows: Array,
    sign: Array,
    rates: list[float],
    iterations: int,
    *,
    w: Array | None = None,
    b: Array | None = None,
    observer: Observer | None = None,
    implementation: str = "auto",
    chunk: int | None = None,
    options: DescentOptions | None = None,
    sample_weight: Array | None = None,
    monitor: Monitor | None = None,
    checkpointer: Checkpointer | None = None,
    progress: Progress | None = None,
) -> Descent:
    """Train M models on the same samples; each has the bits of its own separate training.

    Parameters
    ----------
    rows : (m, d) uint8 pixels or finite float features
    sign : (M, m) float64, +1 where the label is 0 and -1 where it is 1
    rates, iterations : M learning rates, which were checked, and how many iterations
    w, b : (M, d) and (M,) float64 to start from; zeros by default
    sample_weight : (1, m) or (m,) for all models, or (M, m); class weights come from the options
    observer, implementation, chunk, options, monitor, checkpointer, progress : as in `xlogreg.descend_many`

    Raises
    ------
    InputError, DeviceError, DivergenceError
        Weights, options or arrays that cannot be used; a device that is full or gone; the only model diverged.

    Warns
    -----
    RisingCostWarning
        Costs rose: once for all models.
    """
    xp, options = namespace(rows, sign), options or DescentOptions()
    models = len(sign)
    weights = combined_weights(sign, options, sample_weight)
    objective = objective_for(
        implementation, rows, sign, sample_weight=weights, l2=options.l2, needs=options.needs(weights is not None),
        chunk=chunk,
    )  # fmt: skip
    solver = solver_of(options)(
        objective,
        xp.zeros((models, rows.shape[1]), dtype=xp.float64) if w is None else w,
        xp.zeros((models,), dtype=xp.float64) if b is None else b,
        xp.asarray(rates, dtype=xp.float64),
        options,
    )
    result = descend(
        solver, iterations, observer, monitor=monitor, checkpointer=checkpointer, progress=progress,
        adviser=Adviser(rows, options, weights),
    )  # fmt: skip
    notes = [note for note in result.notes if note]
    if notes:
        more = f" So it is with {len(notes) - 1} more of the {models} models." if len(notes) > 1 else ""
        warn(notes[0] + more, RisingCostWarning)
    return result
