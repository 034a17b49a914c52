"""Which penalty: the L2 with the lowest log loss on samples held out, by cross-validation in one pass over the samples.

The samples are cut into k folds. For each fold and each L2 of a small grid one model trains on the other folds: all of
them are models of one training, in which the samples of a model's own fold have the weight 0. That a sum is exact holds
for these weights too, so the choice is the same on every machine, and for any implementation and number of threads.

The large penalties of the grid, which are quick, come first. A smaller one, which takes as long as all of those, is
tried only while the smallest so far is the best: beyond it models learn by heart more and more.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import namespace, on_its_device, to_host
from ..errors import DivergenceError, InputError
from ..neuron.arguments import combined_weights
from ..neuron.exact import exact_sum, exponent_of, loss_above, loss_bits
from ..neuron.options import LARGEST_SAMPLE_WEIGHT, DescentOptions
from ..neuron.reference import cost_of_models, propagate_forward
from .fit import fit
from .lbfgs import PAIRS

Array = Any
# Told how many evaluations are done, how many there will be at most, and how many models are trained.
Choosing = Callable[[int, int, int], object]

# Folds can hardly tell more than a decade; and how many of it, from the largest, are tried at first.
GRID = (1.0, 0.1, 0.01, 0.001, 1e-4, 1e-5)
FIRST = 3
FOLDS = 5
# More samples say hardly more about the penalty, and the choice is to take no longer than the training.
SAMPLES = 10_000
# Scikit-learn's. A coarser one ends before a small penalty has done its harm, and so praises it: at 1e-3 held-out
# pictures of faces had a log loss of 0.171 with the penalties that were chosen, at 1e-4 0.143, in a fifth more time.
TOLERANCE = 1e-4
EVALUATIONS = 500
# What the models of one training may take (bytes); those beyond are trained after them, with the same bits.
_BYTES = 1 << 29
_ARRAYS = 6


@dataclass(frozen=True)
class Choice:
    """A penalty and how it was chosen.

    l2 : that of the lowest score; of equals the largest
    values, scores : those of the grid that were tried, from the largest, and for each the mean over the folds of the
        log loss on the fold that was held out (in which samples count as in the training); None where a model diverged
    folds, samples : how many folds, of how many samples in all
    seconds : wall time of all of it
    """

    l2: float
    values: tuple[float, ...]
    scores: tuple[float | None, ...]
    folds: int
    samples: int
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The choice in plain types, as `results.json` has it."""
        return {
            "values": list(self.values), "scores": list(self.scores), "folds": self.folds, "pictures": self.samples,
            "seconds": self.seconds,
        }  # fmt: skip

    def in_words(self) -> str:
        """How it was chosen, and by how much."""
        at = self.values.index(self.l2)
        others = [
            f"{self.scores[i]:.4f} at {self.values[i]:g}" for i in (at - 1, at + 1)
            if 0 <= i < len(self.values) and self.scores[i] is not None
        ]  # fmt: skip
        against = f", against {' and '.join(others)}" if others else ""
        return f"chosen by {self.folds}-fold cross-validation: log loss {self.scores[at]:.4f}{against}"


@on_its_device
def choose_l2(
    rows: Array,
    sign: Array,
    *,
    options: DescentOptions | None = None,
    classes: int = 1,
    sample_weight: Array | None = None,
    values: Sequence[float] = GRID,
    implementation: str = "auto",
    tell: Choosing | None = None,
) -> Choice:
    """Choose the penalty of one model, which L-BFGS is to train on these samples.

    Folds follow from the order of the samples: the first, the (k+1)th .. of a class are held out together. There are as
    many as the rarest class has samples, up to 5. Of more than 10,000 samples the first of each class are taken, so
    many that all classes have their share.

    Parameters
    ----------
    rows, sign, classes, implementation : as in `fit`, for one model
    options : of the training; class weights are heeded
    sample_weight : (m,) or (1, m); samples of weight 0 take no part
    values : penalties to choose among
    tell : told how far it is

    Raises
    ------
    InputError
        A class has fewer than two samples; no penalty gives a model.
    DeviceError
        The device is full or gone.
    """
    began = time.perf_counter()
    options = options or DescentOptions(solver="lbfgs")
    weights = combined_weights(sign, options, sample_weight, classes)
    own = np.ones(sign.shape[1]) if weights is None else to_host(weights)[0]
    signs = to_host(sign)
    labels = (signs < 0.0).argmax(axis=0) if classes > 1 else (signs[0] < 0.0).astype(np.int64)
    taken = _taken(labels, own)
    fold, count = folds_of(labels[taken], max(2, classes))
    if len(taken) < len(labels):
        rows, signs, own = _at(rows, taken), signs[:, taken], own[taken]
    values = sorted(values, reverse=True)
    # The cost of a model is the mean over the samples of its own training.
    weights_of_fold = [
        np.where(fold == k, 0.0, np.minimum(own * (len(own) / (fold != k).sum()), LARGEST_SAMPLE_WEIGHT))
        for k in range(count)
    ]  # fmt: skip
    coarse = replace(
        options, class_weight=None, l2=0.0, cost_tolerance=None,
        gradient_tolerance=max(TOLERANCE, options.gradient_tolerance or 0.0),
    )  # fmt: skip
    m, d = rows.shape
    step = max(1, _BYTES // (8 * classes * (_ARRAYS * m + (2 * PAIRS + _ARRAYS) * d)))
    scores: list[float] = []
    best = -1
    while len(scores) < len(values) and best == len(scores) - 1:
        more = values[len(scores) :][: 1 if scores else FIRST]
        models = [(k, value) for value in more for k in range(count)]
        losses: list[float] = []
        for first in range(0, len(models), step):
            some = models[first : first + step]
            losses += _losses(rows, signs, some, weights_of_fold, fold, own, coarse, classes, implementation, tell)
        parts = (losses[i : i + count] for i in range(0, len(losses), count))
        scores += [math.fsum(one) / count if all(map(math.isfinite, one)) else math.inf for one in parts]
        best = min(range(len(scores)), key=scores.__getitem__)  # of equals the first, which is the largest
    if not math.isfinite(scores[best]):
        raise InputError("No L2 can be chosen: at each some training diverged; scale the features down, or give one.")
    finite = tuple(score if math.isfinite(score) else None for score in scores)
    return Choice(
        values[best], tuple(values[: len(scores)]), finite, count, len(own), time.perf_counter() - began
    )  # fmt: skip


def folds_of(labels: np.ndarray, classes: int = 2) -> tuple[np.ndarray, int]:
    """The number of each sample's fold, (m,), and how many there are: each has its share of each class.

    Raises
    ------
    InputError
        A class has fewer than two samples.
    """
    rarest = int(np.bincount(labels, minlength=classes).min())
    count = min(FOLDS, rarest)
    if count < 2:
        raise InputError(
            f"To choose an L2 takes at least 2 training samples of each class, and one class has {rarest}; add some, "
            "or give a number, 0.01 say."
        )
    fold = np.empty(len(labels), dtype=np.int64)
    # Class after class, so that folds are as large as each other, too.
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % count
    return fold, count


def fewest(labels: np.ndarray, options: DescentOptions) -> int:
    """How many samples the rarest of two classes has that its weight lets take part."""
    weights = options.class_weight if isinstance(options.class_weight, tuple) else (1.0, 1.0)
    counts = np.bincount(labels, minlength=2)
    return min(int(count) if weight > 0.0 else 0 for count, weight in zip(counts, weights, strict=True))


def _taken(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Which samples take part, ascending: the first of each class, all if they are not too many; none of weight 0."""
    there = np.flatnonzero(weights > 0.0)
    if len(there) <= SAMPLES:
        return there
    parts = (there[labels[there] == one] for one in np.unique(labels[there]))
    return np.sort(np.concatenate([part[: max(FOLDS, len(part) * SAMPLES // len(there))] for part in parts]))


def _at(array: Array, rows: np.ndarray) -> Array:
    return namespace(array).ascontiguousarray(array[rows.tolist()])


def _losses(
    rows: Array, signs: np.ndarray, models: list[tuple[int, float]], weights_of_fold: list[np.ndarray],
    fold: np.ndarray, own: np.ndarray, options: DescentOptions, classes: int, implementation: str,
    tell: Choosing | None,
) -> list[float]:  # fmt: skip
    """Of each model, which holds this fold out and has this penalty, the mean log loss on that fold; infinite where it
    diverged."""
    xp = namespace(rows)

    def observer(done: int, _: np.ndarray) -> None:
        if tell is not None:
            tell(done, EVALUATIONS, len(models))

    try:
        result = fit(
            rows, xp.asarray(np.tile(signs, (len(models), 1))), None, EVALUATIONS, options=options,
            sample_weight=xp.asarray(np.stack([weights_of_fold[k] for k, _ in models])),
            l2=[value for _, value in models], classes=classes, implementation=implementation, observer=observer,
            warns=False,
        )  # fmt: skip
    except DivergenceError:  # of the only model
        return [math.inf]
    found = [math.inf] * len(models)
    for k in dict.fromkeys(k for k, _ in models):
        held = np.flatnonzero(fold == k)
        numbers = [j for j, (of, _) in enumerate(models) if of == k and result.errors[j] is None]
        if not numbers:
            continue
        total = math.fsum(own[held].tolist())
        costs = _sums_of_losses(
            _at(rows, held), xp.asarray(np.tile(signs[:, held], (len(numbers), 1))),
            result.w[numbers].reshape(len(numbers) * classes, -1), result.b[numbers].reshape(-1),
            xp.asarray(np.tile(own[held], (len(numbers) * classes, 1))), classes,
        )  # fmt: skip
        for j, cost in zip(numbers, to_host(costs).tolist(), strict=True):
            found[j] = cost / total if math.isfinite(cost) else math.inf
    return found


def _sums_of_losses(rows: Array, sign: Array, w: Array, b: Array, sample_weight: Array, classes: int) -> Array:
    """The sum of the losses times their weights, of each model, (M,); NaN where some z is out of range."""
    xp = namespace(rows, w)
    output = propagate_forward(rows, sign, w, b, None, sample_weight, classes)
    exponent = exponent_of(output.largest(classes)) + loss_above(classes)
    sums = exact_sum(output.losses, exponent, loss_bits(len(rows)))
    return cost_of_models(xp.where(output.in_range, sums, xp.nan), classes)
