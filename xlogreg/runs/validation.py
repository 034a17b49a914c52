"""How models do on the pictures held out while they are trained, and when that is reason enough to stop."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Device, on_its_device, to_host
from ..data.task import Task
from ..errors import InputError
from ..images.features import Features
from ..neuron.exact import LARGEST_WEIGHT
from ..neuron.objective import check_array
from ..neuron.reference import evaluate_rows
from ..solvers.solver import State
from ..system.checks import is_whole
from ..system.records import fields, many, measure, whole
from ..system.text import given
from .checkpoint import Checkpoint

# Models are looked at after so many iterations, of which the tutorial records the cost too.
EVERY = 100
MAX_PATIENCE = 10**9

_RECORDS = fields({
    "validations": many(many(fields({"iteration": whole(0), "cost": measure, "accuracy": measure})))
})  # fmt: skip


@dataclass(frozen=True)
class Validation:
    """How a model did on pictures held out of its training, after so many iterations: its cost (without weights and
    penalty) and the percentage of right predictions."""

    iteration: int
    cost: float
    accuracy: float


class _Kept(NamedTuple):
    """A model as it was at one of its records: parameters (1, d) and (1,) on the device."""

    record: Validation
    w: Any
    b: Any


def lowest(records: Sequence[Validation]) -> Validation:
    """The first of the records with the lowest cost."""
    return min(records, key=lambda record: math.inf if math.isnan(record.cost) else record.cost)


class Validator:
    """Notes how each model does on the pictures held out, which must be the same for all: a `Monitor`.

    With patience it keeps each model as it was at its lowest cost, and stops those that have had enough.
    """

    def __init__(
        self,
        device: Device,
        tasks: Sequence[Task],
        features: Features,
        patience: int | None,
        told: Callable[[Validation], None] | None,
    ) -> None:
        x, held = tasks[0].x_validation, [task.y_validation for task in tasks]
        self.checks = x is not None
        self.records: list[list[Validation]] = [[] for _ in tasks]
        self._device, self._patience, self._told = device, patience, told
        # Each model at its two last records that were the lowest so far: one may be noted after the last state that a
        # checkpoint can keep.
        self._best: list[list[_Kept]] = [[] for _ in tasks]
        if x is None:
            return
        if any(task.x_validation is not x for task in tasks) or any(y is None for y in held):
            raise InputError(
                "Tasks that are trained together must share their validation pictures; use hold_out on all."
            )
        self._rows = device.to_device(np.ascontiguousarray(features.rows(x)))
        self._signs = [1.0 - 2.0 * y for y in held if y is not None]

    def __call__(self, models: list[int], state: State) -> set[int]:
        """Note how these models do, the rows of `state`; the numbers of those that stop."""
        sign = self._device.to_device(np.stack([self._signs[model] for model in models]))
        with np.errstate(all="ignore"):
            costs, wrong = map(to_host, on_its_device(evaluate_rows)(self._rows, sign, state.w, state.b))
        stop = set()
        for row, (model, cost, mistakes) in enumerate(zip(models, costs.tolist(), wrong.tolist(), strict=True)):
            record = Validation(state.iterations, cost, 100 - mistakes / sign.shape[1] * 100)
            found = self.records[model]
            found.append(record)
            if self._told is not None:
                self._told(record)
            if self._patience is None:
                continue
            best, of_model = lowest(found), slice(row, row + 1)
            if best is record:
                self._best[model] = [*self._best[model][-1:], _Kept(record, state.w[of_model], state.b[of_model])]
            # Not at the last iteration of all, which more iterations would not have as their last.
            elif state.iterations % EVERY == 0 and sum(r.iteration > best.iteration for r in found) >= self._patience:
                stop.add(model)
        return stop

    def best(self, model: int) -> tuple[Any, Any] | None:
        """The parameters (1, d) and (1,) that the model is kept with, if not its last."""
        return self._best[model][-1][1:] if self._patience is not None else None

    def kept(self, iterations: int) -> dict[str, Any]:
        """What a checkpoint keeps beside the state: what was noted in the first so many iterations.

        A training may be interrupted between a record and the next state.
        """
        content: dict[str, Any] = {
            "validations": [
                [asdict(record) for record in found if record.iteration <= iterations] for found in self.records
            ]
        }
        if self._patience is not None:
            best = [[kept for kept in found if kept.record.iteration <= iterations][-1] for found in self._best]
            content["best_w"] = np.concatenate([to_host(kept.w) for kept in best])
            content["best_b"] = np.concatenate([to_host(kept.b) for kept in best])
        return content

    def check(self, checkpoint: Checkpoint) -> None:
        """Whether a checkpoint has records of each model, of its iterations one after the other, and no others, and the
        models of the lowest cost, where they are wanted.

        Raises
        ------
        InputError, ValueError
            It has not.
        """
        validations = _RECORDS(checkpoint.extra)["validations"]
        done, models = checkpoint.progress.state.iterations, len(checkpoint.progress.costs)
        for records in validations:
            at = [record["iteration"] for record in records]
            if at != sorted(set(at)) or max(at, default=0) > done or any(len(record) != 3 for record in records):
                raise InputError("Its records of the validation are not one after the other.")
        if len(validations) != models:
            raise InputError(f"It has records of the validation of {len(validations)} models, not of {models}.")
        if self._patience is not None:
            w: Any = checkpoint.extra.get("best_w")
            b: Any = checkpoint.extra.get("best_b")
            check_array("The weights of the lowest validation cost", w, (models, checkpoint.progress.state.w.shape[1]))
            check_array("Their biases", b, (models,))
            # NaN fails the comparison.
            if not all(validations) or not ((np.abs(w) < LARGEST_WEIGHT).all() and np.isfinite(b).all()):
                raise InputError("It lacks the models of the lowest validation cost.")

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from what was kept and checked."""
        self.records = [[Validation(**record) for record in records] for records in content["validations"]]
        if self._patience is not None:
            w, b = (self._device.to_device(content[name]) for name in ("best_w", "best_b"))
            self._best = [
                [_Kept(lowest(found), w[model : model + 1], b[model : model + 1])]
                for model, found in enumerate(self.records)
            ]


def check_patience(patience: int | None, validation: bool) -> int | None:
    """The patience as an int, if a training can stop so, with or without pictures held out.

    Raises
    ------
    InputError
        It cannot.
    """
    if patience is None:
        return None
    if not is_whole(patience) or not 1 <= patience <= MAX_PATIENCE:
        raise InputError(
            f"The patience must be a whole number of checks from 1 to {MAX_PATIENCE:,}, not {given(patience)}; 3, say."
        )
    if not validation:
        raise InputError(
            "Patience is for the cost on pictures held out; hold some out with --validation (hold_out), 0.2 say."
        )
    return int(patience)
