"""A task and options in, trained classifiers with their histories out.

The story is in `train_together`: features and labels go to the device, the descent starts from zeros, from a model or
from a checkpoint, and each model becomes a classifier with its probabilities.
"""

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..arrays import Device, choose_device, to_host
from ..data.task import Task
from ..errors import DivergenceError, InputError
from ..images.features import PIXELS, Features, sha256_of
from ..logistic import accuracy
from ..models.classifier import Classifier
from ..models.evaluation import Predictions
from ..neuron.arguments import checked_iterations, checked_penalties, checked_rates
from ..neuron.options import DescentOptions
from ..neuron.reference import output_rows
from ..solvers.cross_validation import Choice, choose_l2
from ..solvers.descent import Observer, history_sha256
from ..solvers.fit import fit
from ..solvers.resume import ITERATIONS, Frame
from ..system.checks import list_of, of_kind
from ..system.text import short_repr
from ..system.version import __version__
from .checkpoint import Checkpoints, on_device
from .fingerprint import data_sha256, fingerprint
from .validation import EVERY, Validation, Validator, check_patience, lowest

# Why a training ended that did fewer iterations than it was given, beside the words of `xlogreg.solvers.resume`.
INTERRUPTED = "interrupted"


@dataclass(frozen=True, eq=False)
class Training:
    """One trained model and how it came about.

    history : (iterations,) float64, the cost of every iteration done; history_sha256 is its digest
    probability_train, probability_test : (m,) float64, of class 1
    features_sha256 : digest of the features of all training and test pictures, in the order of training
    seconds : wall time of the iterations of all `models` that were trained together
    preparing_seconds : wall time from the call to the first iteration: features, way to the device, compilation
    options : of this model's descent, with its own l2; max_iterations : how many iterations it was given
    stopped_by : "iterations", where it did all of them, "gradient" or "cost", which met the options' tolerance,
        "validation", whose cost no longer fell, "stuck", where L-BFGS finds no lower cost, or "interrupted", where it
        was taken up only to be ended
    choice : how its l2 was chosen, where the options said "auto"
    last_cost : at the last weights, where that is not the last of the history (L-BFGS may try some and not take them)
    validation : after every 100th iteration and the last, where the task has pictures held out
    patience : where the training stops by the validation's cost: after so many of its records without a lower one; then
        the classifier is that of the lowest, `best`
    start : what it went on from, for the record; None is zeros
    note : the sentence that says that the cost rose, or that L-BFGS did not arrive, and what to do, or nothing
    """

    classifier: Classifier
    task: Task
    history: np.ndarray
    probability_train: np.ndarray
    probability_test: np.ndarray
    seconds: float
    models: int
    device: str
    implementation: str
    options: DescentOptions = field(default_factory=DescentOptions)
    max_iterations: int = 0
    stopped_by: str = ITERATIONS
    validation: tuple[Validation, ...] = ()
    start: dict[str, Any] | None = None
    features_sha256: str = ""
    preparing_seconds: float = 0.0
    note: str = ""
    patience: int | None = None
    last_cost: float | None = None
    choice: Choice | None = None

    __repr__ = short_repr

    @property
    def best(self) -> Validation | None:
        """The first of the validation's records with the lowest cost; None without validation."""
        return lowest(self.validation) if self.validation else None

    @property
    def history_sha256(self) -> str:
        """SHA-256 over the little-endian float64 costs of all iterations: equal on every machine."""
        return self.classifier.history_sha256

    @cached_property
    def predictions(self) -> Predictions:
        """The probabilities with their classifier and task: what measures and pictures are made from."""
        return Predictions(self.classifier, self.task, self.probability_train, self.probability_test)

    @property
    def prediction_test(self) -> np.ndarray:
        """1 where the probability is at least 0.5, else 0: (m,) int64."""
        return (self.probability_test >= 0.5).astype(np.int64)

    @property
    def train_accuracy(self) -> float:
        """Percent."""
        return accuracy(self.probability_train >= 0.5, self.task.y_train)

    @property
    def test_accuracy(self) -> float:
        """Percent."""
        return accuracy(self.probability_test >= 0.5, self.task.y_test)

    @property
    def final_cost(self) -> float:
        """The last of gradient descent's history; of L-BFGS that at the weights it ended with."""
        return float(self.history[-1]) if self.last_cost is None else self.last_cost

    @property
    def cost_history(self) -> list[float]:
        """The cost of every 100th iteration, as the tutorial records it."""
        return self.history[::EVERY].tolist()


def train(
    task: Task, learning_rates: Sequence[float] | None, number_of_iterations: int, **keywords: Any
) -> list[Training]:
    """Train one model a learning rate and l2, together; each has the bits of its own separate training.

    `keywords` are those of `train_together`, which does it for several tasks, and says what they are.

    Raises
    ------
    InputError, DeviceError, DivergenceError
        Unusable options; the device is missing or full; a rate is too large.
    """
    return train_together([task], learning_rates, number_of_iterations, **keywords)


def train_together(
    tasks: Sequence[Task],
    learning_rates: Sequence[float] | None,
    number_of_iterations: int,
    *,
    l2: Sequence[float] | None = None,
    device: Device | None = None,
    implementation: str = "auto",
    observer: Observer | None = None,
    options: DescentOptions | None = None,
    start: Classifier | None = None,
    diverged: list[tuple[Task, DivergenceError]] | None = None,
    features: Features = PIXELS,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    checkpoints: Checkpoints | None = None,
    patience: int | None = None,
) -> list[Training]:
    """Train one model a task, learning rate and l2, reading the pixels once an iteration for all; l2 changes first,
    then the rate.

    The pixels go to the device once and the results come back once.

    Parameters
    ----------
    tasks : that share their pictures (`xlogreg.data.task.make_tasks`)
    learning_rates : one or more; None for L-BFGS, which has none
    l2 : one or more penalties, in the place of that of the options
    device, implementation : where and by what; all give the same bits
    observer : as in `optimize`; its `validated`, if it has one, is called with each `Validation`, and its `choosing`
        while an l2 is chosen, as `tell` of `choose_l2`
    options : solver, L2, momentum, when to stop, class weights; by default none of them. With l2 "auto" it is chosen by
        cross-validation within the training pictures, from zeros, for one task
    start : a trained model to go on from; by default zeros
    diverged : takes those models that diverge, which are then missing in what is returned; without it they raise
    features : what of the pictures the models look at
    rows : the features of the training and of the test pictures where they have been computed before (`Features.rows`)
    checkpoints : keeps where the training stands, and goes on from there
    patience : early stopping, where the tasks have pictures held out: after so many checks (one after every 100
        iterations) without a lower cost on them a model stops, and each is returned as it was at its lowest

    Raises
    ------
    InputError, DeviceError, DivergenceError
        As `train`.
    """
    began = time.perf_counter()
    tasks, planned = _checked(tasks), checked_iterations(number_of_iterations)
    rates = None if learning_rates is None else checked_rates(learning_rates)
    of_kind(features, Features, "features")
    for value, kind, name in ((device, Device, "device"), (start, Classifier, "start"), (diverged, list, "diverged"),
                              (checkpoints, Checkpoints, "checkpoints"), (options, DescentOptions, "options"),
                              (rows, tuple, "rows")):  # fmt: skip
        if value is not None:
            of_kind(value, kind, name)
    shapes = [(len(x), features.length(tasks[0].size)) for x in (tasks[0].x_train, tasks[0].x_test)]
    found = [(type(part), getattr(part, "shape", ()), getattr(part, "dtype", None)) for part in rows or ()]
    if rows is not None and found != [(np.ndarray, shape, np.uint8) for shape in shapes]:
        raise InputError(f"rows must be two uint8 arrays {shapes}, the features of the training and the test pictures.")
    patience = check_patience(patience, tasks[0].x_validation is not None)
    if start is not None:
        check_start(start, tasks[0].size, tasks[0].source, features)
    device, options = device or choose_device("auto"), options or DescentOptions()
    automatic = l2 is None and options.l2 == "auto"
    if automatic and (rates is not None or len(tasks) > 1):
        raise InputError(
            "L-BFGS chooses its steps by itself; leave the learning rate out." if rates is not None
            else "L2 'auto' is chosen for one class against the rest; train the classes one by one, or give a number."
        )  # fmt: skip
    penalties = [] if automatic else [options.penalty] if l2 is None else checked_penalties(l2)
    rows_train, rows_test = rows or (features.rows(tasks[0].x_train), features.rows(tasks[0].x_test))
    digest = sha256_of(rows_train, rows_test)
    with device.current():
        train_rows, test_rows = device.to_device(rows_train), device.to_device(rows_test)
        choice = None
        if automatic:
            # Also where it is taken up: it is soon made, and always the same.
            choice = choose_l2(
                train_rows, device.to_device(1.0 - 2.0 * tasks[0].y_train[None]), options=options,
                implementation=implementation, tell=getattr(observer, "choosing", None),
            )  # fmt: skip
            penalties = [choice.l2]
        several = penalties if len(penalties) > 1 else None
        options = replace(options, l2=penalties[0])
        each: list[float | None] = [None] if rates is None else [*rates]
        models = [(task, rate, one) for task in tasks for rate in each for one in penalties]
        validator = Validator(
            device, [task for task, *_ in models], features, patience, getattr(observer, "validated", None)
        )
        progress, iterations = None, planned
        if checkpoints is not None:
            # Of the data once, however many numbers of iterations there are.
            data = data_sha256(digest, tasks, start)
            numbers = (planned, *checkpoints.before)
            kept = checkpoints.begin(
                [fingerprint(data, rates, number, options, start, patience, several) for number in numbers],
                validator.kept,
                Frame(len(models), rows_train.shape[1], max(numbers), options), validator.check, planned,
            )  # fmt: skip
            if kept is not None:
                validator.restore(kept.extra)
                progress = on_device(kept.progress, device)
                iterations = progress.state.iterations if checkpoints.finish else planned
        sign = device.to_device(np.stack([1.0 - 2.0 * task.y_train for task, *_ in models]))
        result = fit(
            train_rows, sign, [rate for _, rate, _ in models if rate is not None] or None, iterations,
            l2=[one for *_, one in models],
            w=None if start is None else device.to_device(np.repeat(start.w.T, len(models), axis=0)),
            b=None if start is None else device.to_device(np.full(len(models), start.b)),
            observer=observer, implementation=implementation, options=options,
            monitor=validator if validator.checks else None, checkpointer=checkpoints, progress=progress,
        )  # fmt: skip
        preparing = max(0.0, time.perf_counter() - began - result.seconds)
        # Of gradient descent it is the last of the history.
        costs = to_host(result.gradient.cost).tolist() if rates is None else [None] * len(models)
        trainings = []
        for model, (task, rate, penalty) in enumerate(models):
            error = result.errors[model]
            if error is not None:
                if several:
                    error = DivergenceError(f"L2 {penalty:g}: {error}", error.iteration, error.learning_rate)
                if diverged is None:
                    raise error
                diverged.append((task, error))
                continue
            w, b = validator.best(model) or (result.w[model : model + 1], result.b[model : model + 1])
            history, bias = result.histories[model], float(to_host(b)[0])
            classifier = Classifier(
                w=np.ascontiguousarray(to_host(w).T),
                b=bias,
                class_names=task.class_names,
                size=task.size,
                learning_rate=rate,
                number_of_iterations=len(history),
                history_sha256=history_sha256(history),
                trained_on=task.source,
                xlogreg_version=__version__,
                features=features,
            )
            training = Training(
                classifier=classifier,
                task=task,
                history=history,
                probability_train=to_host(output_rows(train_rows, w, b))[0],
                probability_test=to_host(output_rows(test_rows, w, b))[0],
                seconds=result.seconds,
                models=len(models),
                device=str(device),
                implementation=result.implementation,
                options=replace(options, l2=penalty),
                max_iterations=planned,
                stopped_by=INTERRUPTED if len(history) == iterations < planned else result.reasons[model],
                validation=tuple(validator.records[model]),
                patience=patience,
                start=None if start is None else _origin(start),
                features_sha256=digest,
                preparing_seconds=preparing,
                note=result.notes[model],
                last_cost=costs[model],
                choice=choice,
            )
            trainings.append(training)
    return trainings


def _checked(tasks: Sequence[Task]) -> list[Task]:
    """Tasks, one or more, of the same pictures."""
    found = list_of(tasks, "tasks", "a list of tasks")
    for task in found:
        Task.check(task)
    if not found:
        raise InputError("There is no task to train; give at least one.")
    if any(task.x_train is not found[0].x_train or task.x_test is not found[0].x_test for task in found):
        raise InputError("Tasks that are trained together must share their pictures; make them with make_tasks.")
    return found


def check_start(start: Classifier, size: tuple[int, int, int], source: str, features: Features) -> None:
    """Whether a training on pictures of this size and these features can go on from a model.

    Raises
    ------
    InputError
        It cannot.
    """
    if start.size != size:
        raise InputError(
            f"The model to start from takes pictures of {' x '.join(map(str, start.size))} but {source} has "
            f"{' x '.join(map(str, size))}; start from one that was trained on pictures of the same size."
        )
    if start.features != features:
        raise InputError(
            f"The model to start from was trained on the features {start.features.name}, not {features.name}; choose "
            "the same ones with --features."
        )


def _origin(start: Classifier) -> dict[str, Any]:
    return {
        "class_names": list(start.class_names),
        "trained_on": start.trained_on,
        "learning_rate": start.learning_rate,
        "iterations": start.number_of_iterations,
        "history_sha256": start.history_sha256,
    }


# So that help and editors show the keywords of `train`.
train.__signature__ = inspect.signature(train).replace(parameters=[  # type: ignore[attr-defined]
    *list(inspect.signature(train).parameters.values())[:3],
    *list(inspect.signature(train_together).parameters.values())[3:],
])  # fmt: skip
