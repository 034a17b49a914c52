"""The scikit-learn face: `ImageLogisticRegression`, rows are samples. The only module that imports scikit-learn."""

import functools
import inspect
from dataclasses import fields
from typing import Any

import numpy as np

from .arrays import choose_device, to_host
from .errors import InputError
from .neuron.arguments import checked_iterations, checked_learning_rate
from .neuron.elementary import sigmoid
from .neuron.options import DescentOptions
from .neuron.reference import forward_rows
from .solvers.advice import safe_rate, warn
from .solvers.descent import history_sha256
from .solvers.fit import fit
from .system.checks import pixels_instead, unmasked
from .system.text import given

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted
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
    """Logistic regression by the tutorial's gradient descent, as a scikit-learn classifier.

    The dtype decides, as everywhere in xlogreg. uint8 X are pixels: they are divided by 255 inside, summed exactly, and
    the training has the bits (and the digest) of the command line's on the same pictures. Float X are features as
    they are, identical to rounding; other numbers become float64, int32 and int64 too. Where they could be pixels
    (whole numbers up to 255, or n / 255) a warning says so, once, and what to do.
    Several classes are trained one against the rest, in one pass over the pixels an iteration.

    Parameters
    ----------
    learning_rate : a number above 0, or "auto": 0.005 for pixels, as in the tutorial; for float features
        ``4 / (mean |x|^2 + 1 + 4 l2)``, at which the cost never rises (the curvature of the cost is at most a quarter
        of ``mean |x|^2 + 1 + 4 l2``); it scales with the data, and is no search for the best rate
    number_of_iterations : steps of gradient descent, all of which are done
    device : "auto", "cpu", "gpu" or "gpu:N"
    implementation : "auto", "reference" or "fused"; all give the same bits
    l2, momentum, nesterov, .. : the options of `xlogreg.DescentOptions` but class weights and those that end a training
        early; none by default

    Attributes
    ----------
    classes_ : (K,) the labels, sorted
    coef_ : (1, d) for two classes, else (K, d), float64; for a model of pixels they belong to ``X / 255``
    intercept_ : (1,) or (K,) float64
    history_ : (iterations,) or (iterations, K) float64, the cost of every iteration
    history_sha256_ : the digest of the history; for more than two classes a tuple of one digest a class
    learning_rate_ : the rate that was used
    n_iter_, n_features_in_ : int
    pixels_ : whether the model was trained on uint8 pixels
    """

    def __init__(
        self,
        learning_rate: float | str = "auto",
        number_of_iterations: int = 2000,
        *,
        device: str = "auto",
        implementation: str = "auto",
        **options: Any,
    ) -> None:
        self.learning_rate = learning_rate
        self.number_of_iterations = number_of_iterations
        self.device = device
        self.implementation = implementation
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

    def fit(self, X: Any, y: Any) -> "ImageLogisticRegression":
        """Train from zeros on X (m, d), or pictures (m, height, width, channels) uint8, and labels y (m,).

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
        rate = self._rate(X)
        positives = np.arange(1, 2) if len(classes) == 2 else np.arange(len(classes))
        sign = 1.0 - 2.0 * (numbers.reshape(1, -1) == positives[:, None])
        device = choose_device(self.device)
        with device.current():
            result = fit(
                device.to_device(np.ascontiguousarray(X)), device.to_device(sign), [rate] * len(positives), iterations,
                implementation=self.implementation, options=self._options(),
            )  # fmt: skip
            # Of several models the descent drops those that diverge; a classifier cannot do without one of its classes.
            for error in result.errors:
                if error is not None:
                    raise error
            self.coef_ = np.array(to_host(result.w))
            self.intercept_ = np.array(to_host(result.b))
        digests = tuple(history_sha256(np.ascontiguousarray(costs)) for costs in result.history.T)
        binary = len(classes) == 2
        self.history_ = result.history[:, 0].copy() if binary else result.history
        self.history_sha256_ = digests[0] if binary else digests
        self.classes_ = classes
        self.learning_rate_ = rate
        self.n_iter_ = iterations
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
        return DescentOptions(**{option.name: getattr(self, option.name) for option in _OPTIONS})

    def _rate(self, X: np.ndarray) -> float:
        if not isinstance(self.learning_rate, str):
            return checked_learning_rate(self.learning_rate)
        if self.learning_rate != "auto":
            raise InputError(f"The learning rate must be a number above 0 or 'auto', not {given(self.learning_rate)}.")
        if X.dtype == np.uint8:
            return PIXEL_RATE
        return safe_rate(X, DescentOptions(l2=self._options().l2))


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
