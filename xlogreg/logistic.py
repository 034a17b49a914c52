"""Logistic regression with a neural network mindset: the tutorial's functions, with exact sums.

Names, shapes and results are those of V. N. Sichkar, "Logistic Regression with Neural Network mindset in Python"
(2018, DOI 10.5281/zenodo.1317904). Samples are columns: x (d, m), y (1, m), w (d, 1), b a number.

The dtype decides. uint8 x are pixels: they are normalised by 1/255 inside and all sums are exact, so the results have
the same bits on every machine. Float x are features as they are (the tutorial's own ``x / 255``, say): the same
formulas through the array module's matmul, identical to rounding. NumPy arrays are trained on the CPU, CuPy arrays
on their GPU, and what comes back lives where x lives.

Every function validates its arguments and raises `InputError` (a ValueError) with one sentence.
"""

from typing import Any

import numpy as np

from .arrays import namespace, on_its_device, to_host
from .errors import InputError, RisingCostWarning
from .kernels import objective_for
from .neuron.elementary import sigmoid as _sigmoid
from .neuron.exact import LARGEST_WEIGHT, MAX_TERMS
from .neuron.options import LARGEST_SAMPLE_WEIGHT, DescentOptions
from .neuron.reference import Reference, forward_rows
from .solvers import solver_of
from .solvers.advice import Adviser, warn
from .solvers.descent import Descent, Monitor, Observer, descend, history_sha256
from .solvers.progress import Checkpointer, Progress
from .system.checks import array_of, check_callable, finite_number, is_whole, list_of, numeric, pixels_instead, unmasked
from .system.text import brief_dtype, given

Array = Any

# The cost of each is kept: 8 GB at most.
MAX_ITERATIONS = 10**9

__all__ = [
    "accuracy", "forward", "history_sha256", "initialize_with_zeros", "model", "optimize", "predict", "propagate",
    "sigmoid",
]  # fmt: skip


@on_its_device
def sigmoid(z: Array | float) -> Array:
    """1 / (1 + e^-z), elementwise, float64, the same bits everywhere; a number gives a number, and a list an array.

    Raises
    ------
    InputError
        z is masked, or not made of real numbers.
    """
    if hasattr(z, "__array_namespace__") and not isinstance(z, (np.ndarray, np.generic)):
        array: Any = z  # a GPU's, which NumPy must not see
        return _sigmoid(array.astype(namespace(z).float64, copy=False))
    array = array_of(z, "z").astype(np.float64, copy=False)
    with np.errstate(invalid="ignore"):  # NaN gives NaN
        outputs = _sigmoid(np.atleast_1d(array))
    return outputs if array.ndim else float(outputs[0])


def initialize_with_zeros(dim: int) -> tuple[np.ndarray, float]:
    """The tutorial's start: w = zeros (dim, 1) float64 and b = 0.

    Raises
    ------
    InputError
        dim is no whole number from 1 to 67,108,864.
    """
    if not is_whole(dim) or not 1 <= dim <= MAX_TERMS:
        raise InputError(f"The number of features must be a whole number from 1 to {MAX_TERMS:,}, not {given(dim)}.")
    return np.zeros((int(dim), 1)), 0.0


@on_its_device
def forward(w: Array, b: float, x: Array, *, chunk: int | None = None) -> Array:
    """The neuron's output A = sigmoid(w^T x + b), (1, m) float64: the probability of class 1 of each sample."""
    xp = namespace(w, x)
    _check_x(x, "x")
    bias = xp.full(1, _check_parameters(w, b, x), dtype=xp.float64)
    return _sigmoid(forward_rows(xp.ascontiguousarray(x.T), _as_row(w), bias, _check_chunk(chunk)))


@on_its_device
def propagate(w: Array, b: float, x: Array, y: Array, *, chunk: int | None = None) -> tuple[dict[str, Array], Array]:
    """Forward and backward propagation: the cost and its gradient.

    ``A = sigmoid(w^T x + b)``, ``cost = -(1/m) sum(y log A + (1 - y) log(1 - A))``, ``dw = (1/m) x (A - y)^T``,
    ``db = (1/m) sum(A - y)``, computed by `xlogreg.neuron.reference` without a Python loop over samples.

    Parameters
    ----------
    w, b : weights (d, 1) float64 and bias
    x, y : samples (d, m) uint8 or float, labels (1, m) of 0 and 1
    chunk : samples to work on at a time; changes the speed and, for pixels, no bit

    Returns
    -------
    grad : {'dw': (d, 1) float64, 'db': float64}
    cost : float64 (on a GPU, an array of no dimension that stays there)
    """
    xp = namespace(w, x, y)
    rows, sign = _check_samples(x, y)
    bias = xp.full(1, _check_parameters(w, b, x), dtype=xp.float64)
    with np.errstate(all="ignore"):
        gradient = Reference(rows, sign, chunk=_check_chunk(chunk)).evaluate(_as_row(w), bias)
    return {"dw": gradient.dw.T, "db": gradient.db[0]}, gradient.cost[0]


@on_its_device
def optimize(
    w: Array,
    b: float,
    x: Array,
    y: Array,
    number_of_iterations: int,
    learning_rate: float,
    print_cost: bool = False,
    *,
    record_every: int = 100,
    observer: Observer | None = None,
    implementation: str = "auto",
    chunk: int | None = None,
    options: DescentOptions | None = None,
    sample_weight: Array | None = None,
) -> tuple[dict[str, Any], dict[str, Any], list[float]]:
    """Gradient descent: ``w = w - learning_rate dw``, ``b = b - learning_rate db``, so many times.

    Parameters
    ----------
    w, b, x, y : as in `propagate`; w is not changed
    number_of_iterations, learning_rate : at least 1, and finite above 0
    print_cost : print the cost of every 100th iteration, as the tutorial does
    record_every : the cost of every so many iterations is returned; 1 gives all, which `history_sha256` digests
    observer : called a few times a second with (iterations done, costs (k, 1) since the last call)
    implementation : auto, reference or fused; all give the same bits
    chunk : samples the reference works on at a time
    options : L2, momentum, when to stop, class weights; by default the tutorial's, none of them
    sample_weight : (1, m) or (m,), at least 0: what each sample counts, 1 by default, beside its class's weight. A
        weight of 2 counts a sample twice, but m, by which the sums are divided, stays the number of samples

    Returns
    -------
    params : {'w': (d, 1) float64, 'b': float}
    grad : {'dw', 'db'} of the last iteration
    cost_history : list of float; shorter where a tolerance of the options ends the training

    Raises
    ------
    InputError, DeviceError
        Unusable arguments, arrays of different devices.
    DivergenceError
        The cost left the finite range: the message names the iteration.

    Warns
    -----
    RisingCostWarning
        The cost ended above its start or its lowest, or still rose at the end (with momentum, above its start): the
        message advises a learning rate.
    """
    if not is_whole(record_every) or record_every < 1:
        raise InputError(f"record_every must be a whole number of at least 1, not {given(record_every)}.")
    if not isinstance(print_cost, (int, np.bool_)):
        raise InputError(f"print_cost must be True or False, not {given(print_cost)}.")
    check_callable(observer, "observer")

    def tell(done: int, costs: np.ndarray) -> None:
        if print_cost:
            first = done - len(costs)
            for i in range(-(-first // 100) * 100, done, 100):
                print(f"Cost after iteration {i}: {costs[i - first, 0]:f}")
        if observer is not None:
            observer(done, costs)

    _check_x(x, "x")
    bias = _check_parameters(w, b, x)
    result = descend_many(
        x, y, [learning_rate], number_of_iterations, w=_as_row(w), b=[bias],
        observer=tell, implementation=implementation, chunk=chunk, options=options, sample_weight=sample_weight,
    )  # fmt: skip
    params = {"w": result.w.T, "b": float(to_host(result.b)[0])}
    grad = {"dw": result.gradient.dw.T, "db": result.gradient.db[0]}
    return params, grad, result.histories[0][::record_every].tolist()


@on_its_device
def descend_many(
    x: Array,
    y: Array,
    learning_rates: list[float],
    number_of_iterations: int,
    *,
    w: Array | None = None,
    b: list[float] | None = None,
    observer: Observer | None = None,
    implementation: str = "auto",
    chunk: int | None = None,
    options: DescentOptions | None = None,
    sample_weight: Array | None = None,
    monitor: Monitor | None = None,
    checkpointer: Checkpointer | None = None,
    progress: Progress | None = None,
) -> Descent:
    """Train one model a learning rate on the same samples; each has the bits of its own separate training.

    Each also ends by itself, by the options' tolerances or by divergence, as `Descent.reasons` says. Only where a
    single model is trained does divergence raise. One `RisingCostWarning` says it where costs rose.

    Parameters
    ----------
    x : (d, m), y : (1, m) for labels in common, or (M, m) for a row of labels a model
    learning_rates : M numbers
    w, b : (M, d) and M numbers to start from; zeros by default
    observer, implementation, chunk : as in `optimize`
    options : for all models; class weights follow each model's labels
    sample_weight : (1, m) or (m,) in common, or (M, m)
    monitor : sees the state at every 100th iteration and at the end, as in `xlogreg.solvers.descent.descend`
    checkpointer, progress : keep where the training stands, and go on from there, as there
    """
    xp = namespace(x, y) if w is None else namespace(x, y, w)
    rows, sign = _check_samples(x, y)
    numbers = [
        check_learning_rate(rate)
        for rate in list_of(learning_rates, "learning_rates", "a list of numbers, one a model")
    ]
    models = len(numbers)
    if not models:
        raise InputError("There is no learning rate to train at; give at least one.")
    rates = xp.asarray(numbers, dtype=xp.float64)
    iterations = check_iterations(number_of_iterations)
    if sign.shape[0] not in (1, models):
        raise InputError(f"y has {sign.shape[0]} rows of labels for {models} models; give one row, or one a model.")
    options = _check_options(options)
    sign = xp.ascontiguousarray(xp.broadcast_to(sign, (models, sign.shape[1])))
    sample_weights = _sample_weights(sign, options, sample_weight)
    check_callable(observer, "observer")
    check_callable(monitor, "monitor")
    bias = _check_start(w, b, models, x)
    weights = xp.zeros((models, x.shape[0]), dtype=xp.float64) if w is None else w
    objective = objective_for(
        implementation, rows, sign, sample_weight=sample_weights, l2=options.l2,
        needs=options.needs(sample_weights is not None), chunk=_check_chunk(chunk),
    )  # fmt: skip
    solver = solver_of(options)(objective, weights, xp.asarray(bias, dtype=xp.float64), rates, options)
    result = descend(
        solver, iterations, observer, monitor=monitor, checkpointer=checkpointer, progress=progress,
        adviser=Adviser(rows, options, sample_weights),
    )  # fmt: skip
    notes = [note for note in result.notes if note]
    if notes:
        more = f" So it is with {len(notes) - 1} more of the {models} models." if len(notes) > 1 else ""
        warn(notes[0] + more, RisingCostWarning)
    return result


@on_its_device
def predict(w: Array, b: float, x: Array) -> Array:
    """1 where the probability A = sigmoid(w^T x + b) is at least 0.5, else 0: (1, m) int64."""
    xp = namespace(w, x)
    return (forward(w, b, x) >= 0.5).astype(xp.int64)


def accuracy(prediction: Array, y: Array) -> float:
    """The tutorial's percentage of right predictions, ``100 - mean(|prediction - y|) * 100``.

    Raises
    ------
    InputError
        The two are not labels 0 and 1, as many of one as of the other.
    """
    found, true = (_labels(values, name) for values, name in ((prediction, "prediction"), (y, "y")))
    if np.squeeze(found).shape != np.squeeze(true).shape or not found.size:
        raise InputError(f"There are predictions {found.shape} and labels y {true.shape}; give one of each a sample.")
    return 100 - float(np.mean(found.ravel() != true.ravel())) * 100


@on_its_device
def model(
    x_train: Array,
    y_train: Array,
    x_test: Array,
    y_test: Array,
    number_of_iterations: int = 2000,
    learning_rate: float = 0.5,
    print_cost: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """The whole of the tutorial: start from zeros, train, predict both sets.

    `options` go to `optimize`. Returns a dict with cost_history, y_prediction_train, y_prediction_test, w, b,
    learning_rate and number_of_iterations.
    """
    xp = namespace(x_train, y_train, x_test, y_test)
    _check_x(x_train, "x_train")
    _check_samples(x_test, y_test, "_test")
    if x_test.shape[0] != x_train.shape[0]:
        raise InputError(f"x_test has {x_test.shape[0]} features a sample but x_train has {x_train.shape[0]}.")
    w, b = initialize_with_zeros(x_train.shape[0])
    params, _, cost_history = optimize(
        xp.asarray(w), b, x_train, y_train, number_of_iterations, learning_rate, print_cost, **options
    )
    return {
        "cost_history": cost_history,
        "y_prediction_train": predict(params["w"], params["b"], x_train),
        "y_prediction_test": predict(params["w"], params["b"], x_test),
        "w": params["w"],
        "b": params["b"],
        "learning_rate": learning_rate,
        "number_of_iterations": number_of_iterations,
    }


def check_learning_rate(rate: float) -> float:
    """The rate as a float, if it is one that can train."""
    value = finite_number(rate)
    if value is None or value <= 0:
        raise InputError(
            f"The learning rate must be a finite number above 0, not {given(rate)}; the tutorial uses 0.005."
        )
    return value


def check_iterations(iterations: int) -> int:
    """The number of iterations as an int, if it is one."""
    if not is_whole(iterations) or iterations < 1:
        raise InputError(f"The number of iterations must be a whole number of at least 1, not {given(iterations)}.")
    if iterations > MAX_ITERATIONS:
        raise InputError(f"The number of iterations may be up to {MAX_ITERATIONS:,}, not {given(iterations)}.")
    return int(iterations)


def _check_options(options: DescentOptions | None) -> DescentOptions:
    if options is not None and not isinstance(options, DescentOptions):
        raise InputError(f"options must be xlogreg.DescentOptions, not {type(options).__name__}.")
    return options or DescentOptions()


def _sample_weights(sign: Array, options: DescentOptions, sample_weight: Array | None) -> Array | None:
    """c (M, m): the class's weight times the sample's own; None where all are 1."""
    xp = namespace(sign)
    models, m = sign.shape
    weights = None
    if sample_weight is not None:
        xp = namespace(sign, sample_weight)
        if not numeric(sample_weight):
            raise InputError(f"sample_weight must hold numbers, not {given(sample_weight)}.")
        found = sample_weight.reshape(1, -1) if sample_weight.ndim == 1 else sample_weight
        if found.ndim != 2 or found.shape[0] not in (1, models) or found.shape[1] != m:
            raise InputError(
                f"sample_weight has the shape {sample_weight.shape}, but {m} samples need ({m},) or (1, {m}), or "
                f"({models}, {m}) for a row a model."
            )
        found = found.astype(xp.float64)
        # NaN fails the comparisons too.
        if not bool(((found >= 0.0) & (found <= LARGEST_SAMPLE_WEIGHT)).all()):
            raise InputError(f"The numbers in sample_weight must be from 0 to {LARGEST_SAMPLE_WEIGHT:.3g}; check them.")
        weights = xp.ascontiguousarray(xp.broadcast_to(found, (models, m)))
    if options.class_weight is not None:
        of_classes = _class_weights(sign, options.class_weight)
        weights = of_classes if weights is None else of_classes * weights
    if weights is not None and not bool((xp.max(weights, axis=-1) > 0.0).all()):
        raise InputError("All samples of a model have the weight 0, which leaves nothing to train on; raise some.")
    return weights


def _class_weights(sign: Array, class_weight: str | tuple[float, float]) -> Array:
    """(M, m): the weight of each sample's class."""
    xp = namespace(sign)
    models, m = sign.shape
    if not isinstance(class_weight, str):
        rest, wanted = ([weight] * models for weight in class_weight)
    else:
        positives = [int(count) for count in to_host((sign < 0.0).sum(axis=-1))]
        if any(count in (0, m) for count in positives):
            raise InputError(
                "The class weights cannot be balanced: all samples of a model have one label; give both classes."
            )
        rest, wanted = [m / (2 * (m - count)) for count in positives], [m / (2 * count) for count in positives]
    columns = (xp.asarray(weights, dtype=xp.float64)[:, None] for weights in (wanted, rest))
    return xp.where(sign < 0.0, *columns)


def _check_chunk(chunk: int | None) -> int | None:
    if chunk is not None and not (is_whole(chunk) and chunk >= 1):
        raise InputError(f"The chunk must be a whole number of samples of at least 1, not {given(chunk)}.")
    return chunk


def _labels(values: Array, name: str) -> np.ndarray:
    """Labels on the host, of any shape."""
    values = unmasked(values, name)
    if hasattr(values, "get") and hasattr(values, "dtype"):
        values = to_host(values)
    found = array_of(values, name, "labels 0 and 1")
    if not ((found == 0) | (found == 1)).all():
        raise InputError(f"The labels in {name} must be 0 or 1; use 1 for the wanted class and 0 for the rest.")
    return found


def _check_x(x: Array, name: str) -> None:
    xp = namespace(x)
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(f"{name} must have the shape (features, samples) with at least one of each, not {x.shape}.")
    if max(x.shape) > MAX_TERMS:
        raise InputError(f"{name} is {x.shape}, but there may be up to {MAX_TERMS:,} features and samples.")
    if x.dtype == xp.uint8:
        return
    if x.dtype not in (xp.float32, xp.float64):
        words = [f"{name} holds {brief_dtype(x)}", "give uint8 pixels, or float32 or float64 features"]
        if isinstance(x, np.ndarray) and numeric(x):
            words += filter(None, pixels_instead(x, name)[1:])
        raise InputError(f"{'; '.join(words)}.")
    finite = xp.isfinite(x)
    if not bool(finite.all()):
        feature, sample = (int(i) for i in np.argwhere(~to_host(finite))[0])
        raise InputError(f"{name} is NaN or infinite at feature {feature} of sample {sample}; clean the data first.")


def _check_samples(x: Array, y: Array, of: str = "") -> tuple[Array, Array]:
    """The samples as rows (m, d), contiguous, and the labels' signs (M, m): +1 for label 0, -1 for label 1."""
    xp = namespace(x, y)
    _check_x(x, f"x{of}")
    if not numeric(y):
        raise InputError(f"The labels in y{of} must be 0 or 1, but it holds {brief_dtype(y)}.")
    if y.ndim != 2 or not y.shape[0]:
        raise InputError(f"y{of} must have the shape (1, samples), not {y.shape}; y.reshape(1, -1) makes it so.")
    if y.shape[1] != x.shape[1]:
        raise InputError(f"x{of} has {x.shape[1]} samples (columns) but y{of} has {y.shape[1]} labels.")
    if not bool(((y == 0) | (y == 1)).all()):
        labels = to_host(y)
        row, column = np.argwhere(~((labels == 0) | (labels == 1)))[0]
        raise InputError(
            f"The labels in y{of} must be 0 or 1, but sample {column} has {labels[row, column]}; "
            "use 1 for the wanted class and 0 for the rest."
        )
    return xp.ascontiguousarray(x.T), 1.0 - 2.0 * y.astype(xp.float64)


def _check_parameters(w: Array, b: float, x: Array) -> float:
    """b as a float, if it and w are ones that x can go through."""
    xp = namespace(w, x)
    if w.shape != (x.shape[0], 1):
        raise InputError(f"w has the shape {w.shape}, but x with {x.shape[0]} features needs ({x.shape[0]}, 1).")
    if w.dtype != xp.float64:
        raise InputError(f"w holds {w.dtype}; give float64 weights.")
    # Beyond this the grids of the exact sums leave float64; NaN fails the comparison too.
    if not bool((xp.abs(w) < LARGEST_WEIGHT).all()):
        raise InputError("w has NaN, infinite or huge weights; start from initialize_with_zeros.")
    bias = finite_number(b)
    if bias is None:
        raise InputError(f"b must be a finite number, not {given(b)}.")
    return bias


def _check_start(w: Array | None, b: list[float] | None, models: int, x: Array) -> list[float]:
    """The same for `descend_many`: w (M, d) and M numbers b, where they are given."""
    if w is not None and w.shape != (models, x.shape[0]):
        raise InputError(f"w has the shape {w.shape}, but {models} models need ({models}, {x.shape[0]}).")
    biases = [0.0] * models if b is None else list_of(b, "b", "a list of numbers, one a model")
    if len(biases) != models:
        raise InputError(f"b has {len(biases)} numbers, but there are {models} models.")
    nothing = np.zeros((1, 1))
    return [
        _check_parameters(nothing, bias, nothing) if w is None else _check_parameters(w[model].reshape(-1, 1), bias, x)
        for model, bias in enumerate(biases)
    ]


def _as_row(w: Array) -> Array:
    return namespace(w).ascontiguousarray(w.T)
