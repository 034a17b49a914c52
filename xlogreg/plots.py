"""The tutorial's pictures: example images, cost histories, a test picture with its prediction, an own picture.

Every function writes one PNG file, whole or not at all. Matplotlib is loaded when the first picture is made, without a
window and without its global state.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .files import whole_file
from .text import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .training import Training

_INK = "#22313f"
_COLOURS = ("#1f77b4", "#d1495b", "#2a9d8f", "#e9a03b", "#7b5ea7", "#5c6b73")
_STYLES = ("-", "--", ":", "-.")
_DPI = 130


def plot_run(folder: Path, training: "Training") -> None:
    """The pictures of one training: examples.png, cost_history.png and test_picture.png."""
    task = training.task
    plot_examples(folder / "examples.png", task.x_train, task.y_train, task.class_names)
    plot_cost_histories(folder / "cost_history.png", [training], "Cost while training")
    # The tutorial shows test picture 10.
    index = min(10, len(task.y_test) - 1)
    plot_test_picture(folder / "test_picture.png", training, index)


def plot_examples(path: Path, x: np.ndarray, y: np.ndarray, class_names: Sequence[str], count: int = 5) -> None:
    """The first `count` pictures (m, h, w, c) uint8 with their labels."""
    count = min(count, len(x))
    figure = _figure(1.9 * count, 2.5)
    for i in range(count):
        axes = figure.add_subplot(1, count, i + 1)
        _picture(axes, x[i], f"y = {y[i]}: {plain(class_names[y[i]])}")
    figure.suptitle("Training pictures", color=_INK)
    _save(figure, path)


def plot_cost_histories(path: Path, trainings: Sequence["Training"], title: str) -> None:
    """Cost against iteration, one line a training, named by its learning rate (and class, if there are several)."""
    several = len({training.task.positive for training in trainings}) > 1
    figure = _figure(7.2, 4.2)
    axes = figure.add_subplot()
    for i, training in enumerate(trainings):
        # More lines than colours: the next round of colours is dashed, and so on.
        colour, style = _COLOURS[i % len(_COLOURS)], _STYLES[i // len(_COLOURS) % len(_STYLES)]
        rate = training.classifier.learning_rate
        label = f"{plain(training.task.positive)}, {rate:g}" if several else f"{rate:g}"
        axes.plot(training.history, style, color=colour, linewidth=1.8, label=label)
    axes.set(xlabel="iteration", ylabel="cost")
    axes.set_title(title, color=_INK)
    axes.set_xlim(0, max(len(training.history) for training in trainings))
    axes.grid(color="#dfe4e8", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(title="learning rate", frameon=False, fontsize=8, ncols=1 + len(trainings) // 8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    _save(figure, path)


def plot_test_picture(path: Path, training: "Training", index: int) -> None:
    """Test picture `index` with its true and its predicted class."""
    task, names = training.task, [plain(name) for name in training.task.class_names]
    true, predicted = int(task.y_test[index]), int(training.prediction_test[index])
    figure = _figure(3.4, 3.9)
    axes = figure.add_subplot()
    verdict = "right" if true == predicted else "wrong"
    _picture(
        axes, task.x_test[index], f"Test picture {index}: true {names[true]},\npredicted {names[predicted]} ({verdict})"
    )
    _save(figure, path)


def plot_own_picture(path: Path, original: np.ndarray, resized: np.ndarray, caption: str) -> None:
    """An own picture before and after it was resized to what the model takes."""
    figure = _figure(7.6, 3.9)
    for i, (picture, name) in enumerate(((original, "own picture"), (resized, "resized"))):
        axes = figure.add_subplot(1, 2, i + 1)
        _picture(axes, picture, f"{name}: {picture.shape[0]} x {picture.shape[1]}")
    figure.suptitle(plain(caption), color=_INK, parse_math=False)
    _save(figure, path)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _picture(axes: "Axes", picture: np.ndarray, title: str) -> None:
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.shape[-1] == 1 else {}
    axes.imshow(picture.squeeze(-1) if grey else picture, interpolation="nearest", **grey)
    # A class name is text, never a formula: dollar signs in it are not for matplotlib to read.
    axes.set_title(title, fontsize=9.5, color=_INK, parse_math=False)
    axes.set_axis_off()


def _save(figure: "Figure", path: Path) -> None:
    with whole_file(path) as temporary, warnings.catch_warnings():
        # Names in scripts that the font lacks show as boxes; nobody can do anything about it here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(temporary, format="png", dpi=_DPI)
