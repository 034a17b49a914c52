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
from .errors import InputError
from .neuron.arguments import (
    check_samples,
    check_weights,
    checked_bias,
    checked_chunk,
    checked_iterations,
    checked_penalties,
    checked_rates,
    labels_of,
    row_of_weights,
    rows_and_signs,
)
from .neuron.elementary import sigmoid as _sigmoid
from .neuron.exact import MAX_TERMS
from .neuron.options import DescentOptions
from .neuron.reference import Reference, output_rows
from .solvers.descent import Descent, Monitor, Observer, history_sha256
from .solvers.fit import fit
from .solvers.resume import Checkpointer, Progress
from .system.checks import array_of, check_callable, is_whole, list_of
from .system.text import given

Array = Any

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
    check_samples(x, "x")
    row = row_of_weights(w, x)
    bias = xp.full(1, checked_bias(b), dtype=xp.float64)
    return output_rows(xp.ascontiguousarray(x.T), row, bias, checked_chunk(chunk))


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
    rows, sign = rows_and_signs(x, y)
    row = row_of_weights(w, x)
    bias = xp.full(1, checked_bias(b), dtype=xp.float64)
    with np.errstate(all="ignore"):
        gradient = Reference(rows, sign, chunk=checked_chunk(chunk)).evaluate(row, bias)
    return {"dw": gradient.dw.T, "db": gradient.db[0]}, gradient.cost[0]


@on_its_device
def optimize(
    w: Array,
    b: float,
    x: Array,
    y: Array,
    number_of_iterations: int,
    learning_rate: float | None = None,
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

    With ``options=DescentOptions(solver="lbfgs")`` it is L-BFGS, which needs no learning rate and stops at the optimum;
    an iteration is an evaluation of the cost then.

    Parameters
    ----------
    w, b, x, y : as in `propagate`; w is not changed
    number_of_iterations, learning_rate : at least 1, and finite above 0, or None for L-BFGS
    print_cost : print the cost of every 100th iteration, as the tutorial does
    record_every : the cost of every so many iterations is returned; 1 gives all, which `history_sha256` digests
    observer : called a few times a second with (iterations done, costs (k, 1) since the last call)
    implementation : auto, reference or fused; all give the same bits
    chunk : samples the reference works on at a time
    options : solver, L2, momentum, when to stop, class weights; by default the tutorial's, none of them
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
    ConvergenceWarning
        L-BFGS did not come to the optimum: the message says how far it came.
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

    check_samples(x, "x")
    result = descend_many(
        x, y, None if learning_rate is None else [learning_rate], number_of_iterations, w=row_of_weights(w, x), b=[b],
        observer=tell, implementation=implementation, chunk=chunk, options=options, sample_weight=sample_weight,
    )  # fmt: skip
    params = {"w": result.w.T, "b": float(to_host(result.b)[0])}
    grad = {"dw": result.gradient.dw.T, "db": result.gradient.db[0]}
    return params, grad, result.histories[0][::record_every].tolist()


@on_its_device
def descend_many(
    x: Array,
    y: Array,
    learning_rates: list[float] | None,
    number_of_iterations: int,
    *,
    l2: list[float] | None = None,
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
    """Train several models on the same samples; each has the bits of its own separate training.

    Each also ends by itself, by the options' tolerances or by divergence, as `Descent.reasons` says. Only where a
    single model is trained does divergence raise. One `RisingCostWarning` says it where costs rose, one
    `ConvergenceWarning` where L-BFGS did not arrive.

    Parameters
    ----------
    x : (d, m), y : (1, m) for labels in common, or (M, m) for a row of labels a model
    learning_rates : M numbers, or None for L-BFGS, which has none: one model an l2, or a row of labels
    l2 : M penalties, in the place of that of the options
    w, b : (M, d) and M numbers to start from; zeros by default
    observer, implementation, chunk : as in `optimize`
    options : for all models; class weights follow each model's labels
    sample_weight : (1, m) or (m,) in common, or (M, m)
    monitor : sees the state at every 100th iteration and at the end, as in `xlogreg.solvers.descent.descend`
    checkpointer, progress : keep where the training stands, and go on from there, as there
    """
    xp = namespace(x, y) if w is None else namespace(x, y, w)
    rows, sign = rows_and_signs(x, y)
    rates = None if learning_rates is None else checked_rates(learning_rates)
    penalties = None if l2 is None else checked_penalties(l2)
    models, features = len(rates or penalties or sign), x.shape[0]
    iterations = checked_iterations(number_of_iterations)
    if sign.shape[0] not in (1, models):
        raise InputError(f"y has {sign.shape[0]} rows of labels for {models} models; give one row, or one a model.")
    if penalties is not None and len(penalties) != models:
        raise InputError(f"l2 has {len(penalties)} penalties for {models} models; give one a model, or leave l2 out.")
    if options is not None and not isinstance(options, DescentOptions):
        raise InputError(f"options must be xlogreg.DescentOptions, not {type(options).__name__}.")
    sign = xp.ascontiguousarray(xp.broadcast_to(sign, (models, sign.shape[1])))
    if w is not None:
        check_weights(w, (models, features), f"{models} models need")
    biases = [0.0] * models if b is None else list_of(b, "b", "a list of numbers, one a model")
    if len(biases) != models:
        raise InputError(f"b has {len(biases)} numbers, but there are {models} models.")
    return fit(
        rows, sign, rates, iterations, w=w, b=xp.asarray([checked_bias(one) for one in biases], dtype=xp.float64),
        observer=observer, implementation=implementation, chunk=checked_chunk(chunk), options=options,
        l2=penalties, sample_weight=sample_weight, monitor=monitor, checkpointer=checkpointer, progress=progress,
    )  # fmt: skip


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
    found, true = labels_of(prediction, "prediction"), labels_of(y, "y")
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
    learning_rate: float | None = None,
    print_cost: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """The whole of the tutorial: start from zeros, train, predict both sets.

    Without a learning rate it is the tutorial's 0.5; L-BFGS has none. `options` go to `optimize`. Returns a dict with
    cost_history, y_prediction_train, y_prediction_test, w, b, learning_rate and number_of_iterations.
    """
    xp = namespace(x_train, y_train, x_test, y_test)
    check_samples(x_train, "x_train")
    rows_and_signs(x_test, y_test, "_test")
    if x_test.shape[0] != x_train.shape[0]:
        raise InputError(f"x_test has {x_test.shape[0]} features a sample but x_train has {x_train.shape[0]}.")
    how = options.get("options")
    if learning_rate is None and not (isinstance(how, DescentOptions) and how.solver == "lbfgs"):
        learning_rate = 0.5
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
