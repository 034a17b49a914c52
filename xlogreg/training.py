"""A task and options in, trained classifiers with their histories out; and the run folder that keeps them."""

import json
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .backend import Device, choose_device, to_host
from .classifier import Classifier
from .data.task import Task
from .descent import Observer, history_sha256
from .errors import FileError, InputError
from .features import PIXELS, Features, sha256_of
from .files import make_folder, reason, write_whole
from .logistic import accuracy, descend_many, predict

# The tutorial records the cost of every hundredth iteration.
RECORD_EVERY = 100


@dataclass(frozen=True, eq=False)
class Training:
    """One trained model and how it came about.

    history : (iterations,) float64, the cost of every iteration; history_sha256 is its digest
    prediction_train, prediction_test : (m,) int64; train_accuracy, test_accuracy : percent
    features_sha256 : digest of the features of all training and test pictures, in the order of training
    seconds : wall time of the iterations of all `models` that were trained together
    """

    classifier: Classifier
    task: Task
    history: np.ndarray
    prediction_train: np.ndarray
    prediction_test: np.ndarray
    train_accuracy: float
    test_accuracy: float
    seconds: float
    models: int
    device: str
    implementation: str
    features_sha256: str = ""

    @property
    def history_sha256(self) -> str:
        """SHA-256 over the little-endian float64 costs of all iterations: equal on every machine."""
        return self.classifier.history_sha256

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
    features: Features = PIXELS,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Training]:
    """Train one model a learning rate, together, from zeros; each has the bits of its own separate training.

    The pixels go to the device once and the results come back once.

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
        features=features,
        rows=rows,
    )


def train_together(
    tasks: Sequence[Task],
    learning_rates: Sequence[float],
    number_of_iterations: int,
    *,
    device: Device | None = None,
    implementation: str = "auto",
    observer: Observer | None = None,
    features: Features = PIXELS,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Training]:
    """Train one model a task and learning rate, reading the pixels once an iteration for all; rates change first.

    The tasks must share their pictures (`xlogreg.data.task.make_tasks`). `rows` are the `features` of the training and
    of the test pictures where they have been computed before (`Features.rows`). Otherwise as `train`.
    """
    if any(task.x_train is not tasks[0].x_train or task.x_test is not tasks[0].x_test for task in tasks):
        raise InputError("Tasks that are trained together must share their pictures; make them with make_tasks.")
    device = device or choose_device("auto")
    models = [(task, float(rate)) for task in tasks for rate in learning_rates]
    rows_train, rows_test = rows or (features.rows(tasks[0].x_train), features.rows(tasks[0].x_test))
    x, x_test, digest = rows_train.T, rows_test.T, sha256_of(rows_train, rows_test)
    labels = np.stack([task.y_train for task, _ in models])
    with device.current():
        x_device, x_test_device = device.to_device(x), device.to_device(x_test)
        result = descend_many(
            x_device, device.to_device(labels), [rate for _, rate in models], number_of_iterations,
            observer=observer, implementation=implementation,
        )  # fmt: skip
        weights, biases = to_host(result.w), to_host(result.b)
        trainings = []
        for model, (task, rate) in enumerate(models):
            w, b = result.w[model : model + 1].T, float(biases[model])
            on_train = to_host(predict(w, b, x_device))[0]
            on_test = to_host(predict(w, b, x_test_device))[0]
            history = np.ascontiguousarray(result.history[:, model])
            classifier = Classifier(
                w=np.ascontiguousarray(weights[model : model + 1].T),
                b=b,
                class_names=task.class_names,
                size=task.size,
                learning_rate=rate,
                number_of_iterations=int(number_of_iterations),
                history_sha256=history_sha256(history),
                trained_on=task.source,
                xlogreg_version=__version__,
                features=features,
            )
            training = Training(
                classifier=classifier,
                task=task,
                history=history,
                prediction_train=on_train,
                prediction_test=on_test,
                train_accuracy=accuracy(on_train, task.y_train),
                test_accuracy=accuracy(on_test, task.y_test),
                seconds=result.seconds,
                models=len(models),
                device=str(device),
                implementation=result.implementation,
                features_sha256=digest,
            )
            trainings.append(training)
    return trainings


def results(training: Training) -> dict[str, Any]:
    """What `results.json` holds, in plain types."""
    task, iterations = training.task, len(training.history)
    return {
        "xlogreg": __version__,
        "data": {
            "source": task.source,
            "train_pictures": len(task.y_train),
            "train_positives": int(task.y_train.sum()),
            "test_pictures": len(task.y_test),
            "test_positives": int(task.y_test.sum()),
            "size": list(task.size),
        },
        "features": {
            **training.classifier.features.describe(),
            "length": len(training.classifier.w),
            "sha256": training.features_sha256,
        },
        "task": {**task.options, "class_names": list(task.class_names)},
        "learning_rate": training.classifier.learning_rate,
        "iterations": iterations,
        "cost_history": training.cost_history,
        "final_cost": float(training.history[-1]),
        "history_sha256": training.history_sha256,
        "train_accuracy": training.train_accuracy,
        "test_accuracy": training.test_accuracy,
        "device": training.device,
        "implementation": training.implementation,
        "models_trained_together": training.models,
        "seconds": training.seconds,
        "seconds_per_iteration": training.seconds / iterations,
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """The machine and the versions that a result was obtained with."""
    return {
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("numpy", "numba", "scikit-image", "pillow")},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def new_run_folder(
    name: str, parent: str | os.PathLike[str] = "runs", out: str | os.PathLike[str] | None = None
) -> Path:
    """Create the folder of a run: `out` if given, which must be new or empty, else the first free `parent/name-N`.

    Raises
    ------
    FileError
        The folder cannot be created, is not writable or already holds something.
    """
    if out is not None:
        folder = make_folder(out)
        _check_writable(folder)
        if _entries(folder):
            raise FileError(f"The folder {folder} already holds files; choose an empty or new one with --out.")
        return folder
    parent = make_folder(parent)
    _check_writable(parent)
    taken = [
        int(found[1]) for path in _entries(parent) if (found := re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name))
    ]
    number = max(taken, default=0) + 1
    while True:
        folder = parent / f"{name}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:  # another process was faster
            number += 1
        except OSError as error:
            raise FileError(
                f"Cannot create the folder {folder}: {reason(error)}; choose another with --out."
            ) from error
        else:
            return folder


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise FileError(f"Cannot read the folder {folder}: {reason(error)}; choose another with --out.") from error


def _check_writable(folder: Path) -> None:
    # Training takes long; that its results cannot be kept must show before it begins.
    probe = folder / ".xlogreg-probe"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise FileError(
            f"Cannot write into the folder {folder}: {reason(error)}; choose another with --out."
        ) from error


def write_run(folder: Path, training: Training, plots: Callable[[Path, Training], None] | None = None) -> None:
    """Write `model.safetensors`, `history.csv` and `results.json` into `folder`, each whole or not at all.

    `results.json` comes last: a folder that has it is complete.
    """
    training.classifier.save(folder / "model.safetensors")
    lines = [f"{iteration},{cost:.17g}\n" for iteration, cost in enumerate(training.history.tolist())]
    write_whole(folder / "history.csv", "iteration,cost\n" + "".join(lines))
    if plots is not None:
        plots(folder, training)
    write_json(folder / "results.json", {**results(training), "command": command_line()})


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_whole(path, json.dumps(content, indent=2) + "\n")


def command_line() -> str:
    """The command that runs now, as it can be typed again."""
    import shlex

    return shlex.join(["xlogreg", *sys.argv[1:]]) if Path(sys.argv[0]).stem in ("xlogreg", "__main__") else ""
