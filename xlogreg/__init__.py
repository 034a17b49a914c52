"""xlogreg: logistic regression for images with a neural network mindset, the same bits on every machine.

The tutorial's functions on arrays, NumPy or CuPy, samples as columns::

    from xlogreg import model
    d = model(x_train, y_train, x_test, y_test, number_of_iterations=2000, learning_rate=0.005)

The built-in birds and the whole experiment::

    from xlogreg import load_birds, make_task, train
    training, = train(make_task(load_birds(), "bird"), [0.005], 2000)
    training.test_accuracy, training.history_sha256

A trained model on pictures::

    from xlogreg import Classifier
    Classifier.load("runs/birds-1").predict_files(["photo.jpg"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .system.version import __version__

# Where each public name lives; modules load when a name is first asked for, so that `import xlogreg` stays light.
_HOMES = {
    "logistic": (
        "accuracy", "descend_many", "forward", "history_sha256", "initialize_with_zeros", "model", "optimize",
        "predict", "propagate", "sigmoid",
    ),
    "neuron.options": ("DescentOptions",),
    "errors": (
        "ConvergenceWarning", "DeviceError", "DivergenceError", "DownloadError", "FileError", "InputError",
        "RisingCostWarning",
        "XlogregError",
    ),
    "arrays": ("Device", "choose_device"),
    "data.birds": ("load_birds",),
    "data.cifar10": ("read_cifar10",),
    "data.folders": ("FolderOptions", "read_folder"),
    "data.pictures": ("Pictures",),
    "data.task": ("Task", "as_columns", "hold_out", "make_task", "make_tasks"),
    "runs.training": ("Training", "train", "train_together"),
    "models.classifier": ("Classifier",),
    "images.features": ("Features",),
    "images.decoding": ("read_picture",),
    "images.resizing": ("resize",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]

if TYPE_CHECKING:
    from .arrays import Device as Device
    from .arrays import choose_device as choose_device
    from .data.birds import load_birds as load_birds
    from .data.cifar10 import read_cifar10 as read_cifar10
    from .data.folders import FolderOptions as FolderOptions
    from .data.folders import read_folder as read_folder
    from .data.pictures import Pictures as Pictures
    from .data.task import Task as Task
    from .data.task import as_columns as as_columns
    from .data.task import hold_out as hold_out
    from .data.task import make_task as make_task
    from .data.task import make_tasks as make_tasks
    from .errors import ConvergenceWarning as ConvergenceWarning
    from .errors import DeviceError as DeviceError
    from .errors import DivergenceError as DivergenceError
    from .errors import DownloadError as DownloadError
    from .errors import FileError as FileError
    from .errors import InputError as InputError
    from .errors import RisingCostWarning as RisingCostWarning
    from .errors import XlogregError as XlogregError
    from .images.decoding import read_picture as read_picture
    from .images.features import Features as Features
    from .images.resizing import resize as resize
    from .logistic import accuracy as accuracy
    from .logistic import descend_many as descend_many
    from .logistic import forward as forward
    from .logistic import history_sha256 as history_sha256
    from .logistic import initialize_with_zeros as initialize_with_zeros
    from .logistic import model as model
    from .logistic import optimize as optimize
    from .logistic import predict as predict
    from .logistic import propagate as propagate
    from .logistic import sigmoid as sigmoid
    from .models.classifier import Classifier as Classifier
    from .neuron.options import DescentOptions as DescentOptions
    from .runs.training import Training as Training
    from .runs.training import train as train
    from .runs.training import train_together as train_together


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
