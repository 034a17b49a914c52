"""A task and options in, trained classifiers with their histories out; and the run folder that keeps them."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..arrays import Device, choose_device, on_its_device, to_host
from ..data.task import Task
from ..errors import DivergenceError, InputError
from ..images.features import PIXELS, Features, sha256_of
from ..logistic import accuracy, descend_many, forward
from ..models.classifier import Classifier
from ..models.evaluation import Judgement
from ..neuron.arguments import checked_rates
from ..neuron.exact import ARITHMETIC, LARGEST_WEIGHT
from ..neuron.options import DescentOptions
from ..neuron.reference import evaluate_rows
from ..neuron.state import State, check_array
from ..solvers.descent import ITERATIONS, Frame, Observer, history_sha256
from ..system.checks import is_whole, list_of, of_kind
from ..system.records import fields, many, measure, whole
from ..system.text import given, short_repr
from ..system.version import __version__
from .checkpoint import Checkpoint, Checkpoints, on_device

# The tutorial records the cost of every hundredth iteration.
RECORD_EVERY = 100
MAX_PATIENCE = 10**9
# Why a training ended that did fewer iterations than it was given, beside the words of `xlogreg.solvers.descent`.
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Validation:
    """How a model did on pictures held out of its training, after so many iterations: its cost (without weights and
    penalty) and the percentage of right predictions."""

    iteration: int
    cost: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Training:
    """One trained model and how it came about.

    history : (iterations,) float64, the cost of every iteration done; history_sha256 is its digest
    probability_train, probability_test : (m,) float64, of class 1; train_accuracy, test_accuracy : percent
    features_sha256 : digest of the features of all training and test pictures, in the order of training
    seconds : wall time of the iterations of all `models` that were trained together
    preparing_seconds : wall time from the call to the first iteration: features, way to the device, compilation
    options : of the descent; max_iterations : how many iterations it was given
    stopped_by : "iterations", where it did all of them, "gradient" or "cost", which met the options' tolerance,
        "validation", whose cost no longer fell, or "interrupted", where it was taken up only to be ended
    validation : after every 100th iteration and the last, where the task has pictures held out
    patience : where the training stops by the validation's cost: after so many of its records without a lower one; then
        the classifier is that of the lowest, `best`
    start : what it went on from, for the record; None is zeros
    note : the sentence that says that the cost rose and what to do, or nothing
    """

    classifier: Classifier
    task: Task
    history: np.ndarray
    probability_train: np.ndarray
    probability_test: np.ndarray
    train_accuracy: float
    test_accuracy: float
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

    __repr__ = short_repr

    @property
    def best(self) -> Validation | None:
        """The first of the validation's records with the lowest cost; None without validation."""
        return _lowest(self.validation) if self.validation else None

    @property
    def history_sha256(self) -> str:
        """SHA-256 over the little-endian float64 costs of all iterations: equal on every machine."""
        return self.classifier.history_sha256

    @property
    def prediction_train(self) -> np.ndarray:
        """1 where the probability is at least 0.5, else 0: (m,) int64."""
        return (self.probability_train >= 0.5).astype(np.int64)

    @property
    def prediction_test(self) -> np.ndarray:
        """1 where the probability is at least 0.5, else 0: (m,) int64."""
        return (self.probability_test >= 0.5).astype(np.int64)

    @property
    def judgement(self) -> Judgement:
        """The probabilities with their classifier and task: what measures and pictures are made from."""
        return Judgement(self.classifier, self.task, self.probability_train, self.probability_test)

    @property
    def cost_history(self) -> list[float]:
        """The cost of every 100th iteration."""
        return self.history[::RECORD_EVERY].tolist()


def train(
    task: Task,
    learning_rates: Sequence[float],
    number_of_iterations: int,
    *,
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
    """Train one model a learning rate, together; each has the bits of its own separate training.

    The pixels go to the device once and the results come back once.

    Parameters
    ----------
    options : L2, momentum, when to stop, class weights; by default none of them
    start : a trained model to go on from; by default zeros
    diverged : takes those models that diverge, which are then missing in what is returned; without it they raise
    checkpoints : keeps where the training stands, and goes on from there
    patience : early stopping, where the task has pictures held out: after so many checks (one after every 100
        iterations) without a lower cost on them a model stops, and each is returned as it was at its lowest
    observer : as in `optimize`; its `validated`, if it has one, is called with each `Validation`

    Raises
    ------
    InputError, DeviceError, DivergenceError
        Unusable options; the device is missing or full; a rate is too large.
    """
    return train_together(
        [task],
        learning_rates,
        number_of_iterations,
        device=device,
        implementation=implementation,
        observer=observer,
        options=options,
        start=start,
        diverged=diverged,
        features=features,
        rows=rows,
        checkpoints=checkpoints,
        patience=patience,
    )


def train_together(
    tasks: Sequence[Task],
    learning_rates: Sequence[float],
    number_of_iterations: int,
    *,
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
    """Train one model a task and learning rate, reading the pixels once an iteration for all; rates change first.

    The tasks must share their pictures (`xlogreg.data.task.make_tasks`). `rows` are the `features` of the training and
    of the test pictures where they have been computed before (`Features.rows`). Otherwise as `train`.
    """
    began = time.perf_counter()
    tasks = list_of(tasks, "tasks", "a list of tasks")
    for task in tasks:
        Task.check(task)
    if not tasks:
        raise InputError("There is no task to train; give at least one.")
    of_kind(features, Features, "features")
    for value, kind, name in ((device, Device, "device"), (start, Classifier, "start"), (diverged, list, "diverged"),
                              (checkpoints, Checkpoints, "checkpoints"), (options, DescentOptions, "options"),
                              (rows, tuple, "rows")):  # fmt: skip
        if value is not None:
            of_kind(value, kind, name)
    if rows is not None and not (len(rows) == 2 and all(isinstance(part, np.ndarray) for part in rows)):
        raise InputError("rows must be two arrays, the features of the training and of the test pictures.")
    rates = checked_rates(learning_rates)
    if any(task.x_train is not tasks[0].x_train or task.x_test is not tasks[0].x_test for task in tasks):
        raise InputError("Tasks that are trained together must share their pictures; make them with make_tasks.")
    patience = check_patience(patience, tasks[0].x_validation is not None)
    device = device or choose_device("auto")
    models = [(task, rate) for task in tasks for rate in rates]
    rows_train, rows_test = rows or (features.rows(tasks[0].x_train), features.rows(tasks[0].x_test))
    x, x_test, digest = rows_train.T, rows_test.T, sha256_of(rows_train, rows_test)
    labels = np.stack([task.y_train for task, _ in models])
    options = options or DescentOptions()
    with device.current():
        x_device, x_test_device = device.to_device(x), device.to_device(x_test)
        validator = _Validator(
            device, [task for task, _ in models], features, patience, getattr(observer, "validated", None)
        )
        progress, planned = None, number_of_iterations
        if checkpoints is not None:
            # Once, however many numbers of iterations there are.
            data = _data_sha256(digest, tasks, start)
            mark, *checkpoints.others = (
                _fingerprint(data, rates, iterations, options, start, patience)
                for iterations in (planned, *checkpoints.before)
            )
            frame = Frame(len(models), len(x), max(int(planned), *checkpoints.before, 0), options)
            kept = checkpoints.begin(mark, validator.kept, frame, validator.check, int(planned))
            if kept is not None:
                progress = on_device(kept.progress, device)
                validator.restore(kept.extra)
                if checkpoints.finish:
                    number_of_iterations = progress.state.iterations
        result = descend_many(
            x_device, device.to_device(labels), [rate for _, rate in models], number_of_iterations,
            observer=observer, implementation=implementation, options=options,
            visitor=validator if validator.checks else None,
            keeper=checkpoints, progress=progress,
            **_start(device, start, tasks[0], features, len(models)),
        )  # fmt: skip
        preparing = max(0.0, time.perf_counter() - began - result.seconds)
        trainings = []
        for model, (task, rate) in enumerate(models):
            error = result.errors[model]
            if error is not None:
                if diverged is None:
                    raise error
                diverged.append((task, error))
                continue
            rows_of = slice(model, model + 1)
            w_row, b_row = validator.best(model) or (result.w[rows_of], result.b[rows_of])
            w, b = w_row.T, float(to_host(b_row)[0])
            on_train = to_host(forward(w, b, x_device))[0]
            on_test = to_host(forward(w, b, x_test_device))[0]
            history = result.histories[model]
            classifier = Classifier(
                w=np.ascontiguousarray(to_host(w_row).T),
                b=b,
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
                probability_train=on_train,
                probability_test=on_test,
                train_accuracy=accuracy(on_train >= 0.5, task.y_train),
                test_accuracy=accuracy(on_test >= 0.5, task.y_test),
                seconds=result.seconds,
                models=len(models),
                device=str(device),
                implementation=result.implementation,
                options=options,
                max_iterations=int(planned),
                stopped_by=INTERRUPTED if len(history) == number_of_iterations < planned else result.reasons[model],
                validation=tuple(validator.records[model]),
                patience=patience,
                start=None if start is None else _origin(start),
                features_sha256=digest,
                preparing_seconds=preparing,
                note=result.notes[model],
            )
            trainings.append(training)
    return trainings


def _start(device: Device, start: Classifier | None, task: Task, features: Features, models: int) -> dict[str, Any]:
    """The keywords of `descend_many` that let all models go on from a trained one."""
    if start is None:
        return {}
    check_start(start, task.size, task.source, features)
    return {"w": device.to_device(np.repeat(start.w.T, models, axis=0)), "b": [start.b] * models}


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


def _data_sha256(features_sha256: str, tasks: Sequence[Task], start: Classifier | None) -> str:
    """SHA-256 of the pictures and labels of a training, and of the weights it starts from."""
    digest = hashlib.sha256(features_sha256.encode())
    for task in tasks:
        for values in (task.y_train, task.y_test, task.y_validation, task.x_validation):
            if values is not None:
                digest.update(f"{values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    if start is not None:
        digest.update(start.w.tobytes())
    return digest.hexdigest()


# The options of the descent that every fingerprint names.
_FIRST = ("l2", "momentum", "nesterov", "gradient_tolerance", "cost_tolerance", "class_weight")


def _fingerprint(
    data_sha256: str,
    rates: Sequence[float],
    iterations: int,
    options: DescentOptions,
    start: Classifier | None,
    patience: int | None,
) -> str:
    """SHA-256 of all that the bits of a training depend on."""
    # Options that came later are named where they change something, so that checkpoints from before stay of use.
    default = DescentOptions().as_dict()
    changed = {name: value for name, value in options.as_dict().items() if name in _FIRST or value != default[name]}
    plan = {
        "arithmetic": ARITHMETIC, "data": data_sha256, "rates": [float(rate) for rate in rates],
        "iterations": int(iterations),
        "options": changed, "start": None if start is None else [start.history_sha256, float(start.b).hex()],
    }  # fmt: skip
    if patience is not None:
        plan["patience"] = patience
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def _origin(start: Classifier) -> dict[str, Any]:
    return {
        "class_names": list(start.class_names),
        "trained_on": start.trained_on,
        "learning_rate": start.learning_rate,
        "iterations": start.number_of_iterations,
        "history_sha256": start.history_sha256,
    }


_VALIDATION = fields({"iteration": whole(0), "cost": measure, "accuracy": measure})
_KEPT = fields({"validations": many(many(_VALIDATION))})


def _lowest(records: Sequence[Validation]) -> Validation:
    return min(records, key=lambda record: math.inf if math.isnan(record.cost) else record.cost)


class _Validator:
    """Notes how each model does on the pictures held out, which must be the same for all; a `Visitor`.

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
        # Of each model its two last records that were the lowest so far, with its parameters (1, d) and (1,): one may
        # be noted after the last state that a checkpoint can keep.
        self._best: list[list[tuple[Validation, Any, Any]]] = [[] for _ in tasks]
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
            lowest = _lowest(found)
            if lowest is record:
                rows = slice(row, row + 1)
                self._best[model] = [*self._best[model][-1:], (record, state.w[rows], state.b[rows])]
            elif state.iterations % RECORD_EVERY == 0:
                # Not at the last iteration of all, which more iterations would not have as their last.
                since = sum(other.iteration > lowest.iteration for other in found)
                stop |= {model} if since >= self._patience else set()
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
            best = [[one for one in found if one[0].iteration <= iterations][-1] for found in self._best]
            for name, place in (("best_w", 1), ("best_b", 2)):
                content[name] = np.concatenate([to_host(one[place]) for one in best])
        return content

    def check(self, checkpoint: Checkpoint) -> None:
        """Whether a checkpoint has records of each model, of its iterations one after the other, and no others, and the
        models of the lowest cost, where they are wanted.

        Raises
        ------
        InputError, ValueError
            It has not.
        """
        validations = _KEPT(checkpoint.extra)["validations"]
        done, models = checkpoint.progress.state.iterations, len(checkpoint.progress.costs)
        for records in validations:
            at = [record["iteration"] for record in records]
            if at != sorted(set(at)) or max(at, default=0) > done or any(len(record) != 3 for record in records):
                raise InputError("Its records of the validation are not one after the other.")
        if len(validations) != models:
            raise InputError(f"It has records of the validation of {len(validations)} models, not of {models}.")
        if self._patience is not None:
            features = checkpoint.progress.state.w.shape[1]
            check_array("The weights of the lowest validation cost", checkpoint.extra.get("best_w"), (models, features))
            check_array("Their biases", checkpoint.extra.get("best_b"), (models,))
            w, b = (checkpoint.extra[name] for name in ("best_w", "best_b"))
            # NaN fails the comparison.
            if not all(validations) or not ((np.abs(w) < LARGEST_WEIGHT).all() and np.isfinite(b).all()):
                raise InputError("It lacks the models of the lowest validation cost.")

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from what was kept and checked."""
        for found, records in zip(self.records, content["validations"], strict=True):
            found += [Validation(**record) for record in records]
        if self._patience is not None:
            w, b = (self._device.to_device(content[name]) for name in ("best_w", "best_b"))
            self._best = [
                [(_lowest(found), w[model : model + 1], b[model : model + 1])]
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
