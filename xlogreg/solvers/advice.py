"""What to say of a training whose cost rose or left its range: what happened, and a learning rate that is safe."""

import math
import sys
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import namespace, to_host
from ..errors import DivergenceError
from ..neuron.options import DescentOptions
from ..neuron.reference import PIXEL_SCALE
from .resume import STUCK, Part

Array = Any

# A rise by less than this share of the cost is none: float features round.
_RISE = 1e-6
# Samples converted to float64 at a time.
_CHUNK = 256


def safe_rate(
    rows: Array, options: DescentOptions | None = None, weights: Array | None = None, classes: int = 1
) -> float:
    """A learning rate at which the cost never rises: ``(1 - momentum) / (mean c (|x|^2 + 1) / 4 + l2)``; with several
    classes 2 takes the place of 4 (D. Boehning, 1992).

    The divisor bounds the curvature of the cost in every direction. With momentum the cost may rise now and then, but
    not above its start.

    Parameters
    ----------
    rows : (m, d) uint8 pixels, which count divided by 255, or float features
    weights : (m,) what each sample counts, c; None is 1
    """
    xp, options = namespace(rows), options or DescentOptions()
    scale = PIXEL_SCALE if rows.dtype == xp.uint8 else 1.0
    parts = []
    with np.errstate(all="ignore"):
        for start in range(0, len(rows), _CHUNK):
            samples = rows[start : start + _CHUNK].astype(xp.float64)
            parts.append(to_host((samples * samples).sum(axis=1)))
        lengths = np.concatenate(parts) / scale**2
        mean = float(lengths.mean()) + 1.0 if weights is None else float(((lengths + 1.0) * to_host(weights)).mean())
    return (1.0 - options.momentum) / (mean / (4.0 if classes == 1 else 2.0) + options.penalty)


@dataclass(frozen=True, eq=False)
class Adviser:
    """Knows what several models are trained on, and so what to say of each; without rows, nothing in particular.

    rows : (m, d), what they see; weights : (M K, m), what each sample counts for each model's K neurons; l2 : each
    model's penalty, in the place of that of the options
    """

    rows: Array | None = None
    options: DescentOptions | None = None
    weights: Array | None = None
    classes: int = 1
    l2: list[float] | None = None

    def divergence(self, model: int, iteration: int, rate: float, descends: bool = True) -> DivergenceError:
        """The error of a model whose cost was no longer finite at this iteration."""
        if not descends:
            when = "no longer finite" if iteration else "not finite before the first step"
            what = f"the cost is {when}; start from smaller weights, or scale the features down"
        elif iteration == 0:
            what = "the cost is not finite before the first step; start from smaller weights, or from zeros"
        else:
            what = (
                f"with learning rate {rate:g} the cost is no longer finite; "
                f"{self._choose(model, rate, 'choose a smaller learning rate, {} say')}"
            )
        return DivergenceError(f"Training diverged at iteration {iteration}: {what}.", iteration, rate)

    def note(self, model: int, history: np.ndarray, rate: float) -> str:
        """The sentence that says that a cost ended above its start or its lowest, or still rose in its last tenth.

        Else nothing. With momentum a cost swings before it settles, and only its start counts.
        """
        first, last = float(history[0]), float(history[-1])
        if last > (1 + _RISE) * first:
            what = f"The cost rose from {first:.6g} to {last:.6g}"
        elif not (self.options and self.options.momentum) and _rose(history):
            what = f"The cost fell from {first:.6g} to {last:.6g}, but rose on the way"
        else:
            return ""
        these = "features" if self.rows is not None and self.rows.dtype.kind == "f" else "pictures"
        advice = self._choose(model, rate, "try {}")
        return f"{what}: the learning rate {rate:g} is too large for these {these}; {advice}."

    def _choose(self, model: int, rate: float, words: str) -> str:
        safe = math.inf
        if self.rows is not None:
            options = self.options or DescentOptions()
            options = options if self.l2 is None else replace(options, l2=self.l2[model])
            weights = None if self.weights is None else self.weights[model * self.classes]
            safe = safe_rate(self.rows, options, weights, self.classes)
        # Whatever else it is, a smaller one than this.
        advised = safe if safe < rate else rate / 10
        if not advised > sys.float_info.min:  # NaN, too
            return "no learning rate suits features so large, so scale them down first"
        return words.format(f"{advised:.1g}")


def unconverged(part: Part, tolerance: float | None) -> str:
    """The sentence that says that a solver did not come to the optimum."""
    largest = float(part.gradient.largest[0])
    if part.reason == STUCK:
        return (
            f"L-BFGS finds no lower cost after {part.iterations:,} evaluations: the largest entry of the gradient is "
            f"{largest:.2g}, above the tolerance {tolerance:g}, and no nearer for rounding, or for weights that are "
            "too large; choose a larger tolerance, or start from smaller weights."
        )
    return (
        f"L-BFGS did not arrive in {part.iterations:,} evaluations: the largest entry of the gradient is "
        f"{largest:.2g}, above the tolerance {tolerance:g}; give it more iterations, a larger L2 or a larger tolerance."
    )


def _rose(history: np.ndarray) -> bool:
    """Whether a cost that fell in the end is above its lowest, or goes up and down."""
    tail = history[-max(2, len(history) // 10) :]
    return bool(history[-1] > (1 + _RISE) * history.min() or (np.diff(tail) > _RISE * tail[:-1]).any())


def warn(message: str, category: type[Warning]) -> None:
    """`warnings.warn` at the line that called xlogreg, however deep inside it this is."""
    level, frame, package = 1, sys._getframe(), __name__.partition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
