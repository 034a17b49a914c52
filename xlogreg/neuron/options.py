"""How gradient descent goes beyond the tutorial's, and what that asks of an implementation."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..system.checks import finite_number
from ..system.text import given

# Classes and samples may weigh this much; the grids of the exact sums stay inside float64 with room to spare.
LARGEST_SAMPLE_WEIGHT = 2.0**100
# What a training may need beyond the tutorial's, and the words for it.
CAPABILITIES = {
    "weights": "class or sample weights",
    "l2": "L2",
    "momentum": "momentum",
    "nesterov": "Nesterov's momentum",
    "slopes": "stopping by the gradient",
}


@dataclass(frozen=True)
class DescentOptions:
    """How gradient descent goes beyond the tutorial's; the default is the tutorial's, bit for bit.

    Attributes
    ----------
    l2 : lambda >= 0 of the penalty (lambda / 2) |w|^2, which is part of the cost; the bias is not penalised.
        scikit-learn's LogisticRegression has the same minimum with C = 1 / (m lambda).
    momentum : mu, from 0 to below 1: the velocity v = mu v + gradient takes the gradient's place
    nesterov : step by gradient + mu v instead of v (PyTorch's and scikit-learn's form); needs a momentum
    gradient_tolerance : stop after the first iteration whose largest |gradient| (of the weights and the bias, with
        the penalty's part) is at most this; None never stops
    cost_tolerance : stop after the first iteration k >= 1 with |cost[k-1] - cost[k]| at most this times
        max(|cost[k-1]|, |cost[k]|, 1); None never stops
    class_weight : weights of class 0 and class 1 in cost and gradient; "balanced" is m / (2 count of the class), which
        lets both classes count alike; None is 1 and 1

    Raises
    ------
    InputError
        A value is none of these.
    """

    l2: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    gradient_tolerance: float | None = None
    cost_tolerance: float | None = None
    class_weight: Literal["balanced"] | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        momentum = _number(self.momentum, "The momentum", "at least 0 and below 1, 0.9 say", below=1.0)
        if not isinstance(self.nesterov, (bool, np.bool_)):
            raise InputError(f"Nesterov's momentum is on or off, True or False, not {given(self.nesterov)}.")
        if self.nesterov and not momentum:
            raise InputError("Nesterov's form needs a momentum above 0; give one, 0.9 say, or leave nesterov out.")
        fields: dict[str, Any] = {
            "l2": _number(self.l2, "The L2 penalty", "finite and at least 0, 0.001 say"),
            "momentum": momentum,
            "nesterov": bool(self.nesterov),
            "class_weight": _class_weight(self.class_weight),
        }
        for name, words in (("gradient_tolerance", "gradient"), ("cost_tolerance", "change of the cost")):
            value = getattr(self, name)
            if value is not None:
                fields[name] = _number(value, f"The {words} to stop at", "finite and at least 0, 1e-6 say")
        for name, value in fields.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    @property
    def stops(self) -> bool:
        """Whether a training may end before its last iteration."""
        return self.gradient_tolerance is not None or self.cost_tolerance is not None

    def needs(self, weights: bool = False) -> frozenset[str]:
        """The names in `CAPABILITIES` that an engine needs; `weights`: whether samples have weights of their own."""
        wanted = {
            "weights": weights or self.class_weight is not None,
            "l2": self.l2 > 0,
            "momentum": self.momentum > 0,
            "nesterov": self.nesterov,
            "slopes": self.gradient_tolerance is not None,
        }
        return frozenset(name for name, is_wanted in wanted.items() if is_wanted)

    def as_dict(self) -> dict[str, Any]:
        """The options in plain types, as `results.json` has them."""
        weight = self.class_weight
        return {**asdict(self), "class_weight": list(weight) if isinstance(weight, tuple) else weight}


def _number(value: Any, what: str, wanted: str, below: float = math.inf) -> float:
    number = finite_number(value)
    if number is None or not 0 <= number < below:
        raise InputError(f"{what} must be {wanted}, not {given(value)}.")
    return number


def _class_weight(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value == "balanced"):
        return value
    try:
        weights = () if isinstance(value, (str, dict, set)) else tuple(value)
    except Exception:  # no numbers, or whatever a class of somebody else's raises
        weights = ()
    if len(weights) != 2:
        raise InputError(
            "The class weights must be None, 'balanced' or two numbers, those of class 0 and class 1, "
            f"not {given(value)}."
        )
    words = f"from 0 to {LARGEST_SAMPLE_WEIGHT:.3g}"
    first, second = (_number(weight, "A class weight", words, math.nextafter(LARGEST_SAMPLE_WEIGHT, math.inf))
                     for weight in weights)  # fmt: skip
    if not first and not second:
        raise InputError("Both class weights are 0, which leaves nothing to train on; give at least one above 0.")
    return first, second
