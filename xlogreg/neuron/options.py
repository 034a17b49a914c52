"""How a training goes beyond the tutorial's, and what that asks of an implementation.

An option is declared here and nowhere else: command line, plan, results, the words of the tables and the estimator's
parameters come from it. To add one is to declare it, and to heed it in `solvers/gradient_descent.py`. A fast kernel
that heeds it, too, says so in `kernels.CAPABLE_OF`; until then the reference trains with it.

The command line reads this before anything is computed, so NumPy is imported where a value is checked.
"""

import math
from collections.abc import Callable
from dataclasses import Field, asdict, dataclass, field, fields
from functools import partial
from typing import Any, Literal

from ..errors import InputError
from ..system.text import given

# Classes and samples may weigh this much; the grids of the exact sums stay inside float64 with room to spare.
LARGEST_SAMPLE_WEIGHT = 2.0**100
# By name, in the words of the command line; see `solvers.SOLVERS`.
SOLVERS = {"gd": "gradient descent", "lbfgs": "L-BFGS"}
# Where L-BFGS has arrived, if nothing else is said: scikit-learn's measure and number.
TOLERANCE = 1e-4


def _number(value: Any, what: str, wanted: str, below: float = math.inf) -> float:
    from ..system.checks import finite_number

    number = finite_number(value)
    if number is None or not 0 <= number < below:
        raise InputError(f"{what} must be {wanted}, not {given(value)}.")
    return number


def _penalty(value: Any) -> "float | Literal['auto']":
    if isinstance(value, str) and value == "auto":
        return "auto"
    return _number(value, "The L2 penalty", "finite and at least 0, 0.001 say, or 'auto'")


def _class_weight(value: Any) -> Any:
    if isinstance(value, str) and value == "balanced":
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


def _solver(value: Any) -> str:
    from ..system.checks import one_of

    if not one_of(value, SOLVERS):
        raise InputError(f"There is no solver {given(value)}; choose {' or '.join(SOLVERS)}.")
    return str(value)


def _flag(value: Any) -> bool:
    import numpy as np

    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"Nesterov's momentum is on or off, True or False, not {given(value)}.")
    return bool(value)


def _weights_in_words(options: "DescentOptions") -> str:
    if not isinstance(options.class_weight, tuple):
        return "balanced classes"
    rest, wanted = options.class_weight
    return f"class weights {rest:g} and {wanted:g}"


def option(
    default: Any, check: Callable[..., Any], *, help: str, words: "Callable[[DescentOptions], str]", needs: str,
    typed: str = "", also: str = "", metavar: str | None = None, estimator: bool = True, **keywords: Any,
) -> Any:  # fmt: skip
    """A field of `DescentOptions`: its default, the check of a value (with these keywords), its help, the words for it
    where it is not the default, and its name on the command line where that is another, another one that is taken
    there, too, and what is to be typed where that is not plain.

    needs : what an objective must be able to do for it, in words; nothing where it is none of its business
    estimator : whether it is a parameter of the scikit-learn estimator, too
    """
    return field(default=default, metadata={
        "check": partial(check, **keywords), "help": help, "words": words, "needs": needs, "typed": typed,
        "also": also, "metavar": metavar, "estimator": estimator,
    })  # fmt: skip


@dataclass(frozen=True)
class DescentOptions:
    """How a training goes beyond the tutorial's; the default is the tutorial's gradient descent, bit for bit.

    Attributes
    ----------
    solver : "gd", gradient descent with a learning rate, or "lbfgs", which goes to the optimum by itself: learning
        rates are not for it, an iteration is an evaluation of cost and gradient, and it stops at a gradient tolerance
    l2 : lambda >= 0 of the penalty (lambda / 2) |w|^2, which is part of the cost; the bias is not penalised.
        scikit-learn's LogisticRegression has the same minimum with C = 1 / (m lambda). "auto", for L-BFGS: `train` and
        the estimator choose it by cross-validation
    momentum : mu, from 0 to below 1: the velocity u = mu u + gradient takes the gradient's place
    nesterov : step by gradient + mu u instead of u (PyTorch's and scikit-learn's form); needs a momentum
    gradient_tolerance : stop after the first iteration whose largest |gradient| (of the weights and the bias, with
        the penalty's part) is at most this; None never stops gradient descent, and is 1e-4 for L-BFGS
    cost_tolerance : stop after the first iteration k >= 1 with |cost[k-1] - cost[k]| at most this times
        max(|cost[k-1]|, |cost[k]|, 1); None never stops
    class_weight : weights of class 0 and class 1 in cost and gradient; "balanced" is m / (2 count of the class), which
        lets both classes count alike; None is 1 and 1

    Raises
    ------
    InputError
        A value is none of these.
    """

    solver: str = option(
        "gd", _solver, metavar="gd|lbfgs", needs="", words=lambda options: SOLVERS[options.solver],
        help="gd, the tutorial's gradient descent; or lbfgs, which goes to the optimum, in far less time, and needs no "
        "learning rate (give it an --l2, 0.001 say).",
    )  # fmt: skip
    l2: float | Literal["auto"] = option(
        0.0, _penalty, metavar="FLOAT|auto",
        help="Penalty for large weights, (L2 / 2) times the sum of their squares: steadier on few pictures. Try 0.01; "
        "or auto, for lbfgs: chosen by cross-validation within the training pictures.",
        words=lambda options: f"L2 {options.l2}" if options.l2 == "auto" else f"L2 {options.l2:g}", needs="L2",
    )  # fmt: skip
    momentum: float = option(
        0.0, _number, what="The momentum", wanted="at least 0 and below 1, 0.9 say", below=1.0,
        help="From 0 to below 1: keep this share of the last step's direction, to arrive sooner. Try 0.9.",
        words=lambda options: f"{'Nesterov ' * options.nesterov}momentum {options.momentum:g}", needs="momentum",
    )  # fmt: skip
    nesterov: bool = option(
        False, _flag, help="Nesterov's form of the momentum, often steadier.", words=lambda options: "",
        needs="Nesterov's momentum",
    )  # fmt: skip
    gradient_tolerance: float | None = option(
        None, _number, what="The gradient to stop at", wanted="finite and at least 0, 1e-6 say", typed="stop_gradient",
        also="--tol", help="Stop once no part of the gradient is larger than this. [default: never; 1e-4 for lbfgs]",
        words=lambda options: f"stop at gradient {options.gradient_tolerance:g}", needs="stopping by the gradient",
        estimator=False,
    )  # fmt: skip
    cost_tolerance: float | None = option(
        None, _number, what="The change of the cost to stop at", wanted="finite and at least 0, 1e-6 say",
        typed="stop_cost",
        help="Stop early once an iteration changes the cost by no more than this, 1e-5 say. [default: never]",
        words=lambda options: f"stop at cost change {options.cost_tolerance:g}", needs="", estimator=False,
    )  # fmt: skip
    class_weight: Literal["balanced"] | tuple[float, float] | None = option(
        None, _class_weight, words=_weights_in_words, needs="class or sample weights", estimator=False,
        help="What a picture counts: all alike; both classes alike, however many pictures they have; or A for one of "
        "the rest and B for one of the wanted class.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None or one.default is not None:
                object.__setattr__(self, one.name, one.metadata["check"](value))  # the dataclass is frozen
        if self.solver == "lbfgs":
            if self.momentum or self.nesterov:
                raise InputError("L-BFGS has no momentum, nor Nesterov's; leave it out, or choose the solver gd.")
            if self.gradient_tolerance is None:
                object.__setattr__(self, "gradient_tolerance", TOLERANCE)
        elif self.l2 == "auto":
            raise InputError("L2 'auto' is for L-BFGS; choose the solver lbfgs, or give a number, 0.01 say.")
        if self.nesterov and not self.momentum:
            raise InputError("Nesterov's form needs a momentum above 0; give one, 0.9 say, or leave nesterov out.")

    @property
    def penalty(self) -> float:
        """l2 as a number.

        Raises
        ------
        InputError
            It is still to be chosen.
        """
        if isinstance(self.l2, str):
            raise InputError("L2 'auto' is chosen by `train`, for one class, and by the estimator; give a number here.")
        return self.l2

    @property
    def stops(self) -> bool:
        """Whether a training may end before its last iteration."""
        return self.gradient_tolerance is not None or self.cost_tolerance is not None

    def needs(self, weights: bool = False) -> frozenset[str]:
        """The names in `CAPABILITIES` that an objective needs; `weights`: whether samples have weights of their own."""
        changed = {one.name for one in self._changed()} | ({"class_weight"} if weights else set())
        return frozenset(changed & CAPABILITIES.keys())

    def _changed(self) -> list[Field[Any]]:
        return [one for one in fields(self) if getattr(self, one.name) != one.default]

    def in_words(self) -> list[str]:
        """What differs from the tutorial's; what stops it comes last."""
        changed = sorted(self._changed(), key=lambda one: one.name.endswith("_tolerance"))
        return [words for one in changed if (words := one.metadata["words"](self))]

    def as_dict(self) -> dict[str, Any]:
        """The options in plain types, as `results.json` has them."""
        weight = self.class_weight
        return {**asdict(self), "class_weight": list(weight) if isinstance(weight, tuple) else weight}


# What a training may need of an objective beyond the tutorial's, by the option's name, and the words for it.
CAPABILITIES: dict[str, str] = {one.name: words for one in fields(DescentOptions) if (words := one.metadata["needs"])}
CAPABILITIES["classes"] = "several classes"
