"""Plots as PNG files: the tutorial's (examples, cost histories, a test picture, an own one), evaluation, weights.

Every function writes one PNG file, whole or not at all. Matplotlib is loaded when the first picture is made, without a
window and without its global state.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..models.evaluation import Evaluation, Predictions, roc_curve
from ..models.weights import weight_views
from ..system import run_file_names
from ..system.files import whole_file
from ..system.text import plain, short
from .gallery import Tile, tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .training import Training

_INK = "#22313f"
_SOFT = "#5b6875"
_GRID = "#dfe4e8"
# After Okabe and Ito: told apart with any colour vision.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#4b4b4b")
_STYLES = ("-", "--", ":", "-.")
_DPI = 130


def plot_run(folder: Path, training: "Training") -> None:
    """The pictures of one training: the tutorial's three, and those of `plot_predictions`."""
    task, names = training.task, training.task.class_names
    pictures = zip(task.x_train[:5], task.y_train[:5].tolist(), strict=True)
    examples = [_Shown(picture, f"y = {y}: {_cut(names[y], 20)}") for picture, y in pictures]
    _plot_pictures(folder / run_file_names.EXAMPLES, examples, "Training pictures", len(examples), side=1.75)
    plot_cost_histories(folder / run_file_names.COST_HISTORY, [training], "Cost while training")
    # The tutorial shows test picture 10.
    index = min(10, len(task.y_test) - 1)
    true, predicted = int(task.y_test[index]), int(training.prediction_test[index])
    verdict = "right" if true == predicted else "wrong"
    caption = f"true: {_cut(names[true], 30)}\npredicted: {_cut(names[predicted], 30)} ({verdict})"
    tested = [_Shown(task.x_test[index], caption)]
    _plot_pictures(folder / run_file_names.TEST_PICTURE, tested, f"Test picture {index}", side=3.0)
    plot_predictions(folder, training.predictions)


def plot_predictions(folder: Path, predictions: Predictions) -> None:
    """evaluation.png, and most_wrong.png, most_certain.png and weights.png where there is something to show."""
    names, classifier = predictions.task.class_names, predictions.classifier
    _plot_evaluation(folder / run_file_names.CURVES, predictions)
    shown = [tile for tile in tiles(predictions) if tile.pixels.size]
    for file, title, groups in (
        (run_file_names.MOST_WRONG, "Most wrong test pictures", ("wrong",)),
        (run_file_names.MOST_CERTAIN, "Most certain test pictures", ("certain_1", "certain_0")),
    ):
        chosen = [_with_prediction(tile, names) for tile in shown if tile.group in groups]
        if chosen:
            _plot_pictures(folder / file, chosen, title, 6, side=1.6)
    views, sentence = weight_views(classifier)
    if views:
        weights = [_Shown(view.picture, _cut(view.caption, 34)) for view in views]
        path = folder / run_file_names.WEIGHTS
        _plot_pictures(path, weights, "What the neuron looks for", 3, side=2.4, note=sentence)


def plot_own_picture(path: Path, original: np.ndarray, resized: np.ndarray, caption: str) -> None:
    """An own picture before and after it was resized to what the model takes."""
    named = ((original, "own picture"), (resized, "resized"))
    shown = [_Shown(picture, f"{name}: {picture.shape[1]} x {picture.shape[0]}") for picture, name in named]
    _plot_pictures(path, shown, caption, 2, side=3.3)


def plot_cost_histories(path: Path, trainings: Sequence["Training"], title: str) -> None:
    """Cost against iteration, one line a training, named by its learning rate, or L2 (and class, if there are
    several)."""
    several = len({training.task.positive for training in trainings}) > 1
    rates = any(training.classifier.learning_rate is not None for training in trainings)
    penalties = len({training.options.l2 for training in trainings}) > 1 or not rates
    by = ("learning rate" + " and L2" * penalties) if rates else "L-BFGS, L2"
    figure = _figure(7.2, 4.2)
    axes = figure.add_axes((0.125, 0.12, 0.84, 0.79))
    for i, training in enumerate(trainings):
        # More lines than colours: the next round of colours is dashed, and so on.
        colour, style = _COLOURS[i % len(_COLOURS)], _STYLES[i // len(_COLOURS) % len(_STYLES)]
        rate = training.classifier.learning_rate
        numbers = [*([rate] if rate is not None else []), *([training.options.l2] if penalties else [])]
        label = ", ".join(f"{number:g}" for number in numbers)
        label = f"{plain(short(training.task.positive))}, {label}" if several else label
        axes.plot(training.history, style, color=colour, linewidth=1.8, label=label)
        if len(trainings) == 1 and training.validation:
            at, costs = zip(*((record.iteration, record.cost) for record in training.validation), strict=True)
            # The training cost may hold a penalty and weights, which the cost on validation pictures never does.
            kind = " (plain cost)" if training.options.l2 or training.options.class_weight else ""
            axes.plot(at, costs, "--", color=_COLOURS[1], linewidth=1.4, label=f"{label}, validation{kind}")
    _finish(axes, title, 12, xlabel="iteration" if rates else "evaluation", ylabel="cost")
    axes.set_xlim(0, max(len(training.history) for training in trainings))
    legend = axes.legend(title=by, frameon=False, fontsize=8, ncols=1 + len(trainings) // 8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    _save(figure, path)


def _plot_evaluation(path: Path, predictions: Predictions) -> None:
    """ROC curve, calibration and the confusion matrix of the test pictures, side by side."""
    figure = _figure(11.4, 3.9)
    roc, reliability, matrix = (figure.add_axes((left, 0.14, 0.265, 0.775)) for left in (0.055, 0.39, 0.715))
    for part, evaluation in predictions.evaluations.items():
        line: dict[str, Any] = {"color": _COLOURS[part != "test"], "linewidth": 1.8}
        style = "-" if part == "test" else "--"
        if evaluation.roc_auc is not None:
            false, true, _ = roc_curve(*predictions.parts[part])
            roc.plot(false, true, style, label=f"{part}, area {evaluation.roc_auc:.3f}", **line)
        points = [(bin.mean_probability, bin.share_positive) for bin in evaluation.calibration if bin.pictures]
        label = f"{part}, error {evaluation.calibration_error:.3f}"
        reliability.plot(*np.array(points, dtype=np.float64).T, style, marker="o", markersize=4, label=label, **line)
    for axes, title, x, y in (
        (roc, "ROC curve", "false positive rate", "true positive rate"),
        (reliability, "Calibration", "predicted probability", "share that is positive"),
    ):
        axes.plot([0, 1], [0, 1], ":", color=_SOFT, linewidth=1)
        _finish(axes, title, 11, xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8, loc="lower right" if axes is roc else "upper left")
    _confusion(matrix, predictions.evaluations["test"], predictions.task.class_names)
    _save(figure, path)


def _finish(axes: "Axes", title: str, size: int, **properties: Any) -> None:
    axes.set(**properties)
    axes.set_title(title, color=_INK, fontsize=size)
    axes.grid(color=_GRID, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _with_prediction(tile: Tile, names: Sequence[str]) -> "_Shown":
    """A picture with its true and predicted class and the probability of the class predicted."""
    probability = tile.probability or 0.0
    guess = int(probability >= 0.5)
    sure = probability if guess else 1 - probability
    text = f"{_cut(names[guess])} {sure:.0%}\ntrue: {_cut(names[tile.true or 0])}"
    return _Shown(tile.pixels, text, _COLOURS[1] if guess != tile.true else _INK)


class _Shown(NamedTuple):
    """A picture (h, w, 1 or 3) with the lines below it."""

    pixels: np.ndarray
    caption: str
    colour: str = _INK


def _plot_pictures(
    path: Path, shown: Sequence[_Shown], title: str, columns: int = 1, *, side: float, note: str = ""
) -> None:
    """Pictures in rows, `side` inches long at their longer side, a title above and a note below.

    One axes for all, in inches: Matplotlib would take seconds to lay out a dozen of them.
    """
    gap, line, title_size, note_size = 0.16, 0.15, 12, 8
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    step = side + gap / 2 + line * (1 + max(picture.caption.count("\n") for picture in shown)) + gap
    top = 0.45
    # Titles and notes are no wider than the figure: about so many inches a point's size and letter.
    widest = max(0.0085 * title_size * len(title), 0.0085 * note_size * len(note)) + 2 * gap
    width, height = max(columns * (side + gap) + gap, widest), top + rows * step + (2 * line if note else 0.0)
    figure = _figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1), aspect="equal", frame_on=False)
    axes.set_axis_off()
    axes.text(width / 2, top / 2, plain(title), ha="center", va="center", color=_INK, fontsize=title_size,
              parse_math=False)  # fmt: skip
    margin = (width - columns * (side + gap) + gap) / 2
    for i, picture in enumerate(shown):
        x, y = margin + i % columns * (side + gap), top + i // columns * step
        # A class name is text, never a formula: dollar signs in it are not for Matplotlib to read.
        axes.text(x + side / 2, y + side + gap / 2, picture.caption, ha="center", va="top", color=picture.colour,
                  fontsize=8, parse_math=False)  # fmt: skip
        tall, wide = side * np.array(picture.pixels.shape[:2]) / max(picture.pixels.shape[:2])
        left, above = x + (side - wide) / 2, y + (side - tall) / 2
        grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.pixels.shape[-1] == 1 else {}
        pixels = picture.pixels.squeeze(-1) if grey else picture.pixels
        axes.imshow(pixels, extent=(left, left + wide, above + tall, above), interpolation="nearest", **grey)
    if note:
        axes.text(width / 2, height - line, plain(note), ha="center", va="center", color=_SOFT, fontsize=note_size,
                  parse_math=False)  # fmt: skip
    axes.set(xlim=(0, width), ylim=(height, 0))
    _save(figure, path)


def _confusion(axes: "Axes", evaluation: Evaluation, class_names: Sequence[str]) -> None:
    counts = np.array(evaluation.confusion)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1.25)
    for true, guess in np.ndindex(2, 2):
        ink = "white" if share[true, guess] > 0.7 else _INK
        text = f"{counts[true, guess]}\n{share[true, guess]:.0%}"
        axes.text(guess, true, text, ha="center", va="center", color=ink, fontsize=11)
    names = [_cut(name, 16) for name in class_names]
    axes.set_xticks((0, 1), names, parse_math=False)
    axes.set_yticks((0, 1), names, rotation=90, va="center", parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{evaluation.pictures} test pictures", color=_INK, fontsize=11)


def _cut(name: str, length: int = 14) -> str:
    text = plain(name)
    return text if len(text) <= length else text[: length - 1] + "…"


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def _save(figure: "Figure", path: Path) -> None:
    with whole_file(path) as temporary, warnings.catch_warnings():
        # Names in scripts that the font lacks show as boxes; nobody can do anything about it here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(temporary, format="png", dpi=_DPI)
