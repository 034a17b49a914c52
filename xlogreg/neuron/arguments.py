"""What the tutorial's functions ask of their arguments: samples x (d, m), labels y (1, m), weights w (d, 1), bias b.

`check_x` raises `InputError`, one sentence, or returns nothing; `checked_x` returns x as it is computed with, too.
"""

from functools import partial
from typing import Any

import numpy as np

from ..arrays import namespace, to_host
from ..errors import InputError
from ..system.checks import array_of, finite_number, is_whole, list_of, numeric, pixels_instead, unmasked
from ..system.text import brief_dtype, given
from .exact import LARGEST_WEIGHT, MAX_TERMS
from .options import LARGEST_SAMPLE_WEIGHT, DescentOptions

Array = Any

# One float64 cost an iteration is kept: 8 GB at most.
MAX_ITERATIONS = 10**9


def check_samples(x: Array, name: str) -> None:
    """x must be (d, m) uint8, or finite float32 or float64."""
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


def rows_and_signs(x: Array, y: Array, of: str = "") -> tuple[Array, Array]:
    """The samples as rows (m, d), contiguous, and the labels' signs (M, m): +1 for label 0, -1 for label 1."""
    xp = namespace(x, y)
    check_samples(x, f"x{of}")
    if not numeric(y):
        raise InputError(f"The labels in y{of} must be 0 or 1, but it holds {brief_dtype(y)}.")
    if y.ndim != 2 or not y.shape[0]:
        raise InputError(f"y{of} must have the shape (1, samples), not {y.shape}; y.reshape(1, -1) makes it so.")
    if y.shape[1] != x.shape[1]:
        raise InputError(f"x{of} has {x.shape[1]} samples (columns) but y{of} has {y.shape[1]} labels.")
    _check_labels(y, f"y{of}")
    return xp.ascontiguousarray(x.T), 1.0 - 2.0 * y.astype(xp.float64)


def labels_of(values: Array, name: str) -> np.ndarray:
    """Labels of any shape, at least one, on the host."""
    values = unmasked(values, name)
    if hasattr(values, "get") and hasattr(values, "dtype"):
        values = to_host(values)
    found = np.atleast_1d(array_of(values, name, "labels 0 and 1"))
    _check_labels(found, name)
    return found


def _check_labels(y: Array, name: str) -> None:
    if not bool(((y == 0) | (y == 1)).all()):
        labels = to_host(y)
        place = np.argwhere(~((labels == 0) | (labels == 1)))[0]
        raise InputError(
            f"The labels in {name} must be 0 or 1, but sample {place[-1]} has {labels[tuple(place)]}; "
            "use 1 for the wanted class and 0 for the rest."
        )


def check_weights(w: Array, shape: tuple[int, ...], who: str) -> None:
    """w must have the shape that `who` (in words) need, and numbers that sums can hold."""
    xp = namespace(w)
    if w.shape != shape:
        raise InputError(f"w has the shape {w.shape}, but {who} {shape}.")
    if w.dtype != xp.float64:
        raise InputError(f"w holds {w.dtype}; give float64 weights.")
    # Beyond this the grids of the exact sums leave float64; NaN fails the comparison too.
    if not bool((xp.abs(w) < LARGEST_WEIGHT).all()):
        raise InputError("w has NaN, infinite or huge weights; start from initialize_with_zeros.")


def checked_bias(b: float) -> float:
    """b as a float."""
    bias = finite_number(b)
    if bias is None:
        raise InputError(f"b must be a finite number, not {given(b)}.")
    return bias


def row_of_weights(w: Array, x: Array) -> Array:
    """w (d, 1) for samples x (d, m), which were checked, as a row (1, d)."""
    check_weights(w, (x.shape[0], 1), f"x with {x.shape[0]} features needs")
    return namespace(w, x).ascontiguousarray(w.T)


def checked_rates(rates: Any) -> list[float]:
    """Learning rates, one or more, as floats."""
    found = [
        checked_learning_rate(rate) for rate in list_of(rates, "learning_rates", "a list of numbers, one a model")
    ]
    if not found:
        raise InputError("There is no learning rate to train at; give at least one.")
    return found


def checked_penalties(l2: Any) -> list[float]:
    """Penalties, one or more, as floats."""
    found = [DescentOptions(l2=one).penalty for one in list_of(l2, "l2", "a list of numbers, one a model")]
    if not found:
        raise InputError("There is no L2 penalty to train with; give at least one, or leave l2 out.")
    return found


def checked_learning_rate(rate: float) -> float:
    """The rate as a float, if it is one that can train."""
    value = finite_number(rate)
    if value is None or value <= 0:
        raise InputError(
            f"The learning rate must be a finite number above 0, not {given(rate)}; the tutorial uses 0.005."
        )
    return value


def checked_iterations(iterations: int) -> int:
    """The number of iterations as an int, if it is one."""
    if not is_whole(iterations) or iterations < 1:
        raise InputError(f"The number of iterations must be a whole number of at least 1, not {given(iterations)}.")
    if iterations > MAX_ITERATIONS:
        raise InputError(f"The number of iterations may be up to {MAX_ITERATIONS:,}, not {given(iterations)}.")
    return int(iterations)


def checked_chunk(chunk: int | None) -> int | None:
    """How many samples to work on at a time; None is as many as are quick."""
    if chunk is not None and not (is_whole(chunk) and chunk >= 1):
        raise InputError(f"The chunk must be a whole number of samples of at least 1, not {given(chunk)}.")
    return chunk


def combined_weights(
    sign: Array, options: DescentOptions, sample_weight: Array | None, classes: int = 1
) -> Array | None:
    """c for labels' signs, (M, m) or (M K, m): the class's weight times the sample's own; None where all are 1."""
    xp = namespace(sign)
    neurons, m = sign.shape
    models = neurons // classes
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
        found = xp.broadcast_to(found, (models, m))[:, None]
        weights = xp.ascontiguousarray(xp.broadcast_to(found, (models, classes, m))).reshape(neurons, m)
    if options.class_weight is not None:
        of_classes = (_class_weights if classes == 1 else partial(_balanced, classes))(sign, options.class_weight)
        weights = of_classes if weights is None else of_classes * weights
    if weights is not None and not bool((xp.max(weights, axis=-1) > 0.0).all()):
        raise InputError("All samples of a model have the weight 0, which leaves nothing to train on; raise some.")
    return weights


def _balanced(classes: int, sign: Array, class_weight: str | tuple[float, float]) -> Array:
    """(M K, m): m / (K count) of each sample's class, in the rows of all K neurons."""
    xp = namespace(sign)
    if not isinstance(class_weight, str):
        raise InputError("Two class weights are for one neuron; of several classes the weights are 'balanced' or None.")
    counts = to_host((sign < 0.0).sum(axis=-1))
    if not counts.all():
        raise InputError("The class weights cannot be balanced: a class has no samples; give some of each.")
    weights = xp.asarray(sign.shape[1] / (classes * counts), dtype=xp.float64)[:, None]
    of_samples = xp.where(sign < 0.0, weights, 0.0).reshape(-1, classes, sign.shape[1])
    chosen = xp.max(of_samples, axis=1)[:, None]
    return xp.ascontiguousarray(xp.broadcast_to(chosen, of_samples.shape)).reshape(*sign.shape)


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
