"""How well a classifier does on labelled pictures: counts, ranking and calibration, in plain NumPy.

Everything follows from labels y (n,) of 0 and 1 and probabilities p (n,) of class 1. A measure that has no value (the
precision where nothing was predicted positive, say) is None, and `Evaluation.undefined` says why in words.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..data.task import Task
from ..errors import InputError
from ..images.features import sha256_of
from ..logistic import accuracy, forward
from ..system.checks import array_of, is_whole, of_kind, texts
from ..system.text import given, short_repr
from .classifier import Classifier

BINS = 10
# A probability of exactly 0 or 1 that is wrong would make the log loss infinite; scikit-learn clips by the same.
_EPSILON = float(np.finfo(np.float64).eps)


class Measure(NamedTuple):
    """One measure as people read it: `unit` is "%" or "", `meaning` one line for those who do not know it."""

    key: str
    name: str
    unit: str
    meaning: str


MEASURES = (
    Measure("accuracy", "accuracy", "%", "share of pictures told right"),
    Measure("balanced_accuracy", "balanced accuracy", "%", "mean of the shares told right in either class"),
    Measure("precision", "precision", "%", "share of the predicted positives that are positive"),
    Measure("recall", "recall", "%", "share of the positives that are found"),
    Measure("f1", "F1", "%", "harmonic mean of precision and recall"),
    Measure("roc_auc", "area under the ROC curve", "", "chance that a positive scores above a negative; 0.5 is a coin"),
    Measure("log_loss", "log loss", "", "mean -log of the probability given to the truth; ln 2 = 0.6931 is a coin"),
    Measure("brier", "Brier score", "", "mean squared error of the probability; 0.25 is a coin"),
    Measure("calibration_error", "calibration error", "", "mean gap between probability and frequency, by bins"),
)


class Bin(NamedTuple):
    """Pictures whose probability p is in (low, high] (the first bin holds 0 too); shares are None in an empty bin."""

    low: float
    high: float
    pictures: int
    mean_probability: float | None
    share_positive: float | None


@dataclass(frozen=True)
class Evaluation:
    """Measures of predictions on labelled pictures; `MEASURES` names them.

    pictures, positives : how many
    accuracy, balanced_accuracy, precision, recall, f1 : percent, as the tutorial gives its accuracy
    roc_auc, log_loss, brier, calibration_error : as they are
    confusion : ((true 0 predicted 0, true 0 predicted 1), (true 1 predicted 0, true 1 predicted 1))
    calibration : the reliability bins; undefined : why a measure is None, by its key
    """

    pictures: int
    positives: int
    accuracy: float
    balanced_accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    roc_auc: float | None
    log_loss: float
    brier: float
    calibration_error: float
    confusion: tuple[tuple[int, int], tuple[int, int]]
    calibration: tuple[Bin, ...]
    undefined: dict[str, str]

    __repr__ = short_repr

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON, without a NaN anywhere."""
        confusion = [list(counts) for counts in self.confusion]
        return {**asdict(self), "confusion": confusion, "calibration": [bin._asdict() for bin in self.calibration]}


@dataclass(frozen=True, eq=False)
class Predictions:
    """A classifier's probabilities of class 1 on the pictures of a task: (m,) float64 each.

    features_sha256 : digest of the pictures' features, as a run records it; empty where it was not computed
    """

    classifier: Classifier
    task: Task
    probability_train: np.ndarray
    probability_test: np.ndarray
    features_sha256: str = ""

    __repr__ = short_repr

    @property
    def parts(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """ "train", where there are any, and "test": labels and probabilities (m,) each."""
        task = self.task
        parts = {"train": (task.y_train, self.probability_train), "test": (task.y_test, self.probability_test)}
        return {name: part for name, part in parts.items() if len(part[1])}

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """The measures of these parts."""
        return {name: measure(y, p, self.task.class_names) for name, (y, p) in self.parts.items()}


def predict_task(classifier: Classifier, task: Task, rows: int = 4096) -> Predictions:
    """Predict all pictures of a task, `rows` at a time, so that no float copy of them all is made.

    Raises
    ------
    InputError
        The pictures have another size than the model takes.
    """
    of_kind(classifier, Classifier, "classifier")
    Task.check(task)
    if task.size != classifier.size:
        raise InputError(
            f"The model takes pictures of {' x '.join(map(str, classifier.size))} but {task.source} has "
            f"{' x '.join(map(str, task.size))}; evaluate on data of the same size."
        )

    def probability(x: np.ndarray) -> np.ndarray:
        parts = (x[i : i + rows].T for i in range(0, len(x), rows))
        return np.concatenate([np.zeros(0), *(forward(classifier.w, classifier.b, part)[0] for part in parts)])

    train, test = (classifier.features.rows(x) for x in (task.x_train, task.x_test))
    return Predictions(classifier, task, probability(train), probability(test), sha256_of(train, test))


def evaluate(classifier: Classifier, x: np.ndarray, y: np.ndarray) -> Evaluation:
    """Predict pictures x (n, h, w, c) uint8 and compare with their labels y (n,) of 0 and 1."""
    return measure(y, classifier.probability(x), classifier.class_names)


def measure(y: np.ndarray, p: np.ndarray, class_names: tuple[str, str] = ("0", "1")) -> Evaluation:
    """All measures of probabilities p (n,) against labels y (n,) of 0 and 1; predicted positive is p >= 0.5.

    Raises
    ------
    InputError
        There are no pictures, the shapes differ, a label is not 0 or 1, or a probability not in [0, 1].
    """
    y, p = _checked(y, p)
    names = texts(class_names, "class_names")
    if len(names) != 2:
        raise InputError(f"Two classes have two names, not {given(class_names)}.")
    class_names = names[0], names[1]
    prediction = (p >= 0.5).astype(np.int64)
    counts = [[int(((y == true) & (prediction == guess)).sum()) for guess in (0, 1)] for true in (0, 1)]
    (tn, fp), (fn, tp) = counts
    undefined: dict[str, str] = {}

    def ratio(key: str, part: int, whole: int, why: str) -> float | None:
        if whole:
            return part / whole * 100
        undefined[key] = why
        return None

    none_of = {label: f"no picture is of class {class_names[label]!r}" for label in (0, 1)}
    precision = ratio("precision", tp, tp + fp, f"no picture was predicted {class_names[1]!r}")
    recall = ratio("recall", tp, tp + fn, none_of[1])
    f1 = ratio("f1", 2 * tp, 2 * tp + fp + fn, f"no picture is {class_names[1]!r} or was predicted so")
    balanced = area = None
    if tp + fn and tn + fp:
        balanced = (tp / (tp + fn) + tn / (tn + fp)) / 2 * 100
        area = roc_area(y, p)
    else:
        undefined["balanced_accuracy"] = undefined["roc_auc"] = none_of[0 if tp + fn else 1]
    bins = calibration(y, p)
    return Evaluation(
        pictures=len(y),
        positives=tp + fn,
        accuracy=accuracy(prediction, y),
        balanced_accuracy=balanced,
        precision=precision,
        recall=recall,
        f1=f1,
        roc_auc=area,
        log_loss=log_loss(y, p),
        brier=brier_score(y, p),
        calibration_error=calibration_error(bins),
        confusion=((tn, fp), (fn, tp)),
        calibration=bins,
        undefined=undefined,
    )


def roc_curve(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False positive rate, true positive rate and threshold, from (0, 0, inf) to (1, 1, min p): float64 each.

    One point a distinct probability: pictures that tie are crossed together, so their order does not matter.

    Raises
    ------
    InputError
        As `measure`, or one class has no pictures.
    """
    y, p = _checked(y, p)
    positives = int(y.sum())
    negatives = len(y) - positives
    if not (positives and negatives):
        raise InputError("A ROC curve needs pictures of both classes; evaluate on data that has both.")
    order = np.argsort(-p, kind="stable")
    ranked = p[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(y) - 1)  # the last picture of each tie
    found = np.cumsum(y[order])[last]
    false = last + 1 - found
    zero = np.zeros(1)
    thresholds = np.concatenate([[np.inf], ranked[last]])
    return np.concatenate([zero, false / negatives]), np.concatenate([zero, found / positives]), thresholds


def roc_area(y: np.ndarray, p: np.ndarray) -> float:
    """Area under the ROC curve by trapezoids: P(p of a positive > p of a negative) + P(equal) / 2."""
    false, true, _ = roc_curve(y, p)
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1])) / 2)


def log_loss(y: np.ndarray, p: np.ndarray) -> float:
    """-(1/n) sum(y log p + (1-y) log(1-p)), with p kept 2.2e-16 away from 0 and 1 so that it is finite."""
    y, p = _checked(y, p)
    p = np.clip(p, _EPSILON, 1 - _EPSILON)
    return float(-np.mean(np.where(y == 1, np.log(p), np.log1p(-p))))


def brier_score(y: np.ndarray, p: np.ndarray) -> float:
    """(1/n) sum((p - y)^2)."""
    y, p = _checked(y, p)
    return float(np.mean((p - y) ** 2))


def calibration(y: np.ndarray, p: np.ndarray, bins: int = BINS) -> tuple[Bin, ...]:
    """Reliability bins of equal width over [0, 1]: mean probability against the share that is positive."""
    y, p = _checked(y, p)
    if not is_whole(bins) or not 1 <= bins <= 2**20:
        raise InputError(f"The number of bins must be a whole number from 1 to {2**20:,}, not {given(bins)}.")
    edges = np.linspace(0, 1, bins + 1)
    which = np.searchsorted(edges[1:-1], p)
    count = np.bincount(which, minlength=bins)
    total, positive = np.bincount(which, p, bins), np.bincount(which, y, bins)

    def mean(sums: np.ndarray, i: int) -> float | None:
        return float(sums[i] / count[i]) if count[i] else None

    return tuple(
        Bin(float(edges[i]), float(edges[i + 1]), int(count[i]), mean(total, i), mean(positive, i)) for i in range(bins)
    )


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Expected calibration error: sum over bins of (pictures / n) |mean probability - share positive|."""
    gaps = [
        bin.pictures * abs(bin.mean_probability - bin.share_positive)
        for bin in bins
        if bin.mean_probability is not None and bin.share_positive is not None
    ]
    return sum(gaps) / sum(bin.pictures for bin in bins)


def _checked(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, p = array_of(y, "y", "labels 0 and 1"), array_of(p, "p", "probabilities").astype(np.float64, copy=False)
    if y.ndim != 1 or y.shape != p.shape:
        raise InputError(f"Labels {y.shape} and probabilities {p.shape} must both be (n,); give one of each a picture.")
    if not len(y):
        raise InputError("There are no pictures to evaluate on; give some.")
    if not np.isin(y, (0, 1)).all():
        raise InputError("A label is neither 0 nor 1; give 1 for the wanted class and 0 for the rest.")
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("A probability is not between 0 and 1; give what the classifier's `probability` returns.")
    return y.astype(np.int64), p
