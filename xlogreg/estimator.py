"""The scikit-learn face: `ImageLogisticRegression`, rows are samples. The only module that imports scikit-learn."""

import functools
import inspect
import math
from dataclasses import fields
from typing import Any

import numpy as np

from .arrays import choose_device, to_host
from .errors import InputError
from .neuron.arguments import checked_iterations, checked_learning_rate
from .neuron.elementary import sigmoid
from .neuron.options import LARGEST_SAMPLE_WEIGHT, DescentOptions
from .neuron.reference import forward_rows
from .solvers.advice import safe_rate, warn
from .solvers.cross_validation import choose_l2
from .solvers.descent import history_sha256
from .solvers.fit import fit
from .system.checks import pixels_instead, unmasked
from .system.text import given

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted
except ImportError as error:
    raise ImportError(
        "xlogreg.estimator needs scikit-learn, which is not installed; pip install scikit-learn."
    ) from error

# The tutorial's rate, for pixels.
PIXEL_RATE = 0.005
# uint8 stays what it is, pixels; all else becomes features in floating point.
_DTYPES = (np.float64, np.float32, np.uint8)
_OPTIONS = [option for option in fields(DescentOptions) if option.metadata["estimator"]]


class ImageLogisticRegression(ClassifierMixin, BaseEstimator):
    """Logistic regression by the tutorial's gradient descent, or by L-BFGS to the optimum, as a scikit-learn one.

    The dtype decides, as everywhere in xlogreg. uint8 X are pixels: they are divided by 255 inside, summed exactly, and
    the training has the bits (and the digest) of the command line's on the same pictures. Float X are features as
    they are, identical to rounding; other numbers become float64, int32 and int64 too. Where they could be pixels
    (whole numbers up to 255, or n / 255) a warning says so, once, and what to do.
    Several classes are trained one against the rest, in one pass over the pixels an iteration.

    Parameters
    ----------
    learning_rate : a number above 0, or "auto": 0.005 for pixels, as in the tutorial; for float features
        ``4 / (mean |x|^2 + 1 + 4 l2)``, at which the cost never rises (the curvature of the cost is at most a quarter
        of ``mean |x|^2 + 1 + 4 l2``); it scales with the data, and is no search for the best rate. L-BFGS has none:
        leave it "auto"
    number_of_iterations : steps of gradient descent, or evaluations of the cost by L-BFGS, at most
    device : "auto", "cpu", "gpu" or "gpu:N"
    implementation : "auto", "reference" or "fused"; all give the same bits
    tol : scikit-learn's name for the gradient tolerance: stop once no part of the gradient is larger than this. None is
        1e-4 for L-BFGS, as in scikit-learn, and never for gradient descent
    class_weight : None, "balanced" or a dict of label and weight, as in scikit-learn
    solver, l2, momentum, nesterov, .. : the options of `xlogreg.DescentOptions` but that which ends a training by its
        cost; the tutorial's gradient descent by default. l2 is 1 / (C m) of scikit-learn's LogisticRegression; "auto",
        for L-BFGS, is chosen by cross-validation within X, for each class against the rest by itself

    Attributes
    ----------
    classes_ : (K,) the labels, sorted
    coef_ : (1, d) for two classes, else (K, d), float64; for a model of pixels they belong to ``X / 255``
    intercept_ : (1,) or (K,) float64
    history_ : (iterations,) or (iterations, K) float64, the cost of every iteration; NaN after the end of a class that
        ended before another
    history_sha256_ : the digest of the history; for more than two classes a tuple of one digest a class
    learning_rate_ : the rate that was used; None of L-BFGS
    l2_ : the l2 that was used: a float; where it was chosen for more than two classes, (K,)
    n_iter_ : how many iterations, or evaluations by L-BFGS, were done: an int; for more than two classes (K,) where
        they can end one before another (L-BFGS, or with a `tol`)
    n_features_in_ : int
    pixels_ : whether the model was trained on uint8 pixels
    """

    def __init__(
        self,
        learning_rate: float | str = "auto",
        number_of_iterations: int = 2000,
        *,
        device: str = "auto",
        implementation: str = "auto",
        tol: float | None = None,
        class_weight: Any = None,
        **options: Any,
    ) -> None:
        self.learning_rate = learning_rate
        self.number_of_iterations = number_of_iterations
        self.device = device
        self.implementation = implementation
        self.tol = tol
        self.class_weight = class_weight
        for option in _OPTIONS:
            setattr(self, option.name, options.pop(option.name, option.default))
        if options:
            wrong = next(iter(options))
            raise TypeError(f"ImageLogisticRegression.__init__() got an unexpected keyword argument {wrong!r}")

    # Where scikit-learn, and whoever asks for help, finds the names of the options.
    _declared = inspect.signature(__init__)
    __init__.__signature__ = _declared.replace(parameters=[  # type: ignore[attr-defined]
        *(one for one in _declared.parameters.values() if one.kind is not one.VAR_KEYWORD),
        *(inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type)
          for option in _OPTIONS),
    ])  # fmt: skip

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "ImageLogisticRegression":
        """Train from zeros on X (m, d), or pictures (m, height, width, channels) uint8, and labels y (m,).

        `sample_weight` (m,), from 0 on, is what each sample counts beside another: a weight of 2 is a sample twice, and
        only their proportions matter, for they are divided by their mean.

        Raises
        ------
        InputError, ValueError
            Unusable data or parameters, or fewer than two classes.
        DeviceError, DivergenceError
            The device is missing; the learning rate is too large.

        Warns
        -----
        RisingCostWarning
            The cost rose: see `xlogreg.optimize`.
        ConvergenceWarning
            L-BFGS did not arrive: see there.
        """
        X, y = _validated(self, _rows_of_pictures(X), y=unmasked(y, "y"))
        check_classification_targets(y)
        classes, numbers = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise InputError(f"All {len(y)} samples are of one class, {classes[0]!r}; training needs two or more.")
        kind, instead = ("", "") if X.dtype == np.uint8 else pixels_instead(X, "X")
        if kind:
            _warn_once(
                f"X holds {kind}, and is trained on as features, not as pixels (which are uint8, and are divided by "
                f"255 and summed exactly); {instead}."
            )
        iterations = checked_iterations(self.number_of_iterations)
        options = self._options()
        weights = self._weights(X, classes, numbers.ravel(), sample_weight)
        rate = self._rate(X, options, weights)
        positives = np.arange(1, 2) if len(classes) == 2 else np.arange(len(classes))
        sign = 1.0 - 2.0 * (numbers.reshape(1, -1) == positives[:, None])
        device = choose_device(self.device)
        with device.current():
            rows, signs = device.to_device(np.ascontiguousarray(X)), device.to_device(sign)
            own = None if weights is None else device.to_device(weights)
            l2 = None
            if options.l2 == "auto":
                l2 = [
                    choose_l2(
                        rows, signs[k : k + 1], options=options, sample_weight=own, implementation=self.implementation
                    ).l2
                    for k in range(len(positives))
                ]  # fmt: skip
            result = fit(
                rows, signs, None if rate is None else [rate] * len(positives), iterations,
                implementation=self.implementation, options=options, sample_weight=own, l2=l2,
            )  # fmt: skip
            # Of several models the descent drops those that diverge; a classifier cannot do without one of its classes.
            for error in result.errors:
                if error is not None:
                    raise error
            self.coef_ = np.array(to_host(result.w))
            self.intercept_ = np.array(to_host(result.b))
        digests = tuple(map(history_sha256, result.histories))
        binary = len(classes) == 2
        self.history_ = result.history[:, 0].copy() if binary else result.history
        self.history_sha256_ = digests[0] if binary else digests
        self.classes_ = classes
        self.learning_rate_ = rate
        self.l2_ = options.l2 if l2 is None else l2[0] if binary else np.array(l2)
        done = [len(history) for history in result.histories]
        self.n_iter_ = np.array(done) if options.stops and not binary else done[0]
        self.pixels_ = X.dtype == np.uint8
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """z = w^T x + b: (m,) for two classes, else (m, K), float64; above 0 for the class."""
        z = self._forward(X)
        return z[0] if len(z) == 1 else z.T

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, (m, K) float64; those of several neurons are divided by their sum."""
        z = self._forward(X)
        a = sigmoid(z)
        if len(z) == 1:
            return np.stack([1 - a[0], a[0]], axis=1)
        # Where all neurons say no so firmly that float64 has no such probabilities, their ratios are those of e^z.
        none = z.max(axis=0) < -700
        a[:, none] = np.exp(z[:, none] - z[:, none].max(axis=0))
        return (a / a.sum(axis=0)).T

    def predict(self, X: Any) -> np.ndarray:
        """The class of each sample, (m,): with a probability of at least 0.5, or of several the most probable."""
        z = self._forward(X)
        number = (sigmoid(z)[0] >= 0.5).astype(np.int64) if len(z) == 1 else z.argmax(axis=0)
        return self.classes_[number]

    def _forward(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = _validated(self, _rows_of_pictures(X), reset=False, dtype=None if self.pixels_ else _DTYPES[:2])
        if self.pixels_ and X.dtype != np.uint8:
            # A list of pixels comes as int64. Floats may be anything, pixels divided by 255 above all.
            if X.dtype.kind not in "iu" or X.min() < 0 or X.max() > 255:
                kind, instead = pixels_instead(X, "X") if X.dtype.kind == "f" else ("", "")
                raise InputError(
                    f"This model was trained on uint8 pixels and X holds {X.dtype}; "
                    f"{instead if kind.startswith('pixels') else 'give uint8 pixels, undivided'}."
                )
            X = X.astype(np.uint8)
        return forward_rows(np.ascontiguousarray(X), self.coef_, self.intercept_)

    def _options(self) -> DescentOptions:
        declared = {option.name: getattr(self, option.name) for option in _OPTIONS}
        return DescentOptions(**declared, gradient_tolerance=self.tol)

    def _weights(self, X: np.ndarray, classes: np.ndarray, numbers: np.ndarray, own: Any) -> np.ndarray | None:
        """What each sample counts, (m,) float64, by its own weight and its class's; None is 1."""
        weights = None
        if own is not None:
            try:
                weights = _check_sample_weight(unmasked(own, "sample_weight"), X, dtype=np.float64)
            except OverflowError as error:  # a whole number beyond all floats
                raise InputError(f"sample_weight must hold numbers that float64 can hold ({error}).") from error
            if weights.min() < 0 or not weights.any():
                raise InputError("The sample weights must be numbers from 0 on, and not all of them 0.")
            if weights.min() == weights.max():
                weights = None
            else:
                # By a power of two, so that no sum overflows; and a mean that no order of the samples changes.
                weights = np.ldexp(weights, -int(np.frexp(weights.max())[1]))
                weights = weights / (math.fsum(weights) / len(weights))
        if self.class_weight is not None:
            of_classes = self._of_classes(classes, classes[numbers])[numbers]
            weights = of_classes if weights is None else of_classes * weights
        return weights

    def _of_classes(self, classes: np.ndarray, y: np.ndarray) -> np.ndarray:
        wanted = self.class_weight
        if not isinstance(wanted, dict) and not (isinstance(wanted, str) and wanted == "balanced"):
            raise InputError(
                f"class_weight must be None, 'balanced' or a dict of label and weight, not {given(wanted)}."
            )
        try:
            found = np.asarray(compute_class_weight(wanted, classes=classes, y=y), dtype=np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            why = " ".join(str(error).split()).rstrip(".")
            raise InputError(f"class_weight must be a dict of label and weight: {why[:200]}.") from error
        # NaN fails the comparisons, too.
        if not ((found >= 0.0) & (found <= LARGEST_SAMPLE_WEIGHT)).all():
            raise InputError(f"The weights in class_weight must be from 0 to {LARGEST_SAMPLE_WEIGHT:.3g}; check them.")
        return found

    def _rate(self, X: np.ndarray, options: DescentOptions, weights: np.ndarray | None) -> float | None:
        if options.solver == "lbfgs":
            if not (isinstance(self.learning_rate, str) and self.learning_rate == "auto"):
                raise InputError("L-BFGS chooses its steps by itself; leave the learning rate 'auto'.")
            return None
        if not isinstance(self.learning_rate, str):
            return checked_learning_rate(self.learning_rate)
        if self.learning_rate != "auto":
            raise InputError(f"The learning rate must be a number above 0 or 'auto', not {given(self.learning_rate)}.")
        if X.dtype == np.uint8:
            return PIXEL_RATE
        return safe_rate(X, DescentOptions(l2=options.penalty), weights)


def _rows_of_pictures(X: Any) -> Any:
    """Pictures (m, height, width, channels) uint8 as rows; anything else as it is, for scikit-learn to check."""
    X = unmasked(X, "X")
    if isinstance(X, np.ndarray) and X.ndim == 4 and X.dtype == np.uint8:
        return X.reshape(len(X), -1)
    return X


def _validated(estimator: ImageLogisticRegression, X: Any, *, dtype: Any = _DTYPES, **options: Any) -> Any:
    """X (and y) as scikit-learn checks them: 2-D, finite, not empty, as many features and the names as before."""
    dtype = list(dtype) if isinstance(dtype, tuple) else dtype
    try:
        from sklearn.utils.validation import validate_data
    except ImportError:  # before scikit-learn 1.6
        return estimator._validate_data(X, dtype=dtype, **options)
    try:
        return validate_data(estimator, X, dtype=dtype, **options)
    except OverflowError as error:  # a whole number beyond all floats
        raise InputError(f"X must hold numbers that float64 can hold ({error}).") from error


@functools.cache
def _warn_once(message: str) -> None:
    warn(message, UserWarning)
