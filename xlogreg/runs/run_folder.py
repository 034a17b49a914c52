"""The folder of a run: what it is called and what is written into it."""

import json
import os
import platform
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.task import Task
from ..errors import FileError
from ..models.evaluation import Predictions
from ..system import run_file_names
from ..system.files import leftovers, make_folder, reason, write_whole
from ..system.lock import LOCK
from ..system.machine import version_of
from ..system.text import shown
from ..system.version import __version__
from .training import Training

if TYPE_CHECKING:
    from .gallery import Tile


def results(training: Training) -> dict[str, Any]:
    """What `results.json` holds, in plain types."""
    task, classifier, iterations, best = training.task, training.classifier, len(training.history), training.best
    return {
        "xlogreg": __version__,
        **_about(task),
        "features": {
            **classifier.features.describe(), "length": len(classifier.w), "sha256": training.features_sha256
        },
        "learning_rate": classifier.learning_rate,
        "options": training.options.as_dict(),
        "l2_choice": None if training.choice is None else training.choice.as_dict(),
        "start": training.start,
        "max_iterations": training.max_iterations,
        "iterations": iterations,
        "stopped_by": training.stopped_by,
        "patience": training.patience,
        "best_iteration": None if training.patience is None or best is None else best.iteration,
        "cost_history": training.cost_history,
        "final_cost": training.final_cost,
        "history_sha256": training.history_sha256,
        "train_accuracy": training.train_accuracy,
        "test_accuracy": training.test_accuracy,
        "validation": _validation_results(training),
        "metrics": {part: evaluation.as_dict() for part, evaluation in training.predictions.evaluations.items()},
        "device": training.device,
        "implementation": training.implementation,
        "models_trained_together": training.models,
        "seconds": training.seconds,
        "seconds_per_iteration": training.seconds / iterations,
        "machine": machine(),
    }


def _about(task: Task) -> dict[str, Any]:
    return {
        "data": {
            "source": task.source,
            "train_pictures": len(task.y_train),
            "train_positives": int(task.y_train.sum()),
            "test_pictures": len(task.y_test),
            "test_positives": int(task.y_test.sum()),
            "size": list(task.size),
        },
        "task": {**task.options, "class_names": list(task.class_names)},
    }


def _validation_results(training: Training) -> dict[str, Any] | None:
    labels = training.task.y_validation
    best = training.best
    if best is None or labels is None:
        return None
    # As all other measures, those of the model that is kept.
    kept = training.validation[-1] if training.patience is None else best
    return {
        "pictures": len(labels),
        "positives": int(labels.sum()),
        "cost": kept.cost,
        "accuracy": kept.accuracy,
        "lowest_cost": best.cost,
        "lowest_cost_iteration": best.iteration,
        "history": [asdict(record) for record in training.validation],
    }


def machine() -> dict[str, Any]:
    """The machine and the versions that a result was obtained with."""
    return {
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in ("numpy", "numba", "scikit-image", "pillow")},
    }


def new_run_folder(
    name: str,
    parent: str | os.PathLike[str] = "runs",
    out: str | os.PathLike[str] | None = None,
    first: Callable[[Path], None] | None = None,
) -> Path:
    """Create the folder of a run: `out` if given, which must be new or empty, else the first free `parent/name-N`.

    first : what writes into a numbered folder before anybody sees it, so that it is never there without

    Raises
    ------
    FileError
        The folder cannot be created, is not writable or already holds something.
    """
    made = make_folder(parent if out is None else out)
    check_out(out, parent=made)
    if out is not None:
        return made
    taken = [
        int(found[1]) for path in _entries(made) if (found := re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name))
    ]
    number = max(taken, default=0) + 1
    while True:
        folder = made / f"{name}-{number}"
        try:
            if first is None:
                folder.mkdir()
                return folder
            if not os.path.lexists(folder) and _begin(folder, first):
                return folder
        except FileExistsError:
            pass
        except OSError as error:
            raise _cannot(f"create the folder {folder}", reason(error)) from error
        number += 1  # another process was faster


def check_out(
    out: str | os.PathLike[str] | None,
    source: str | os.PathLike[str] | None = None,
    parent: str | os.PathLike[str] = "runs",
) -> None:
    """Whether `new_run_folder` may be expected to make `out`, or a folder in `parent`, later; nothing is made now.

    source : a folder of pictures, which it may not be in

    Raises
    ------
    FileError
        It cannot.
    """
    folder = Path(parent if out is None else out)
    if source is not None and folder.resolve().is_relative_to(Path(source).resolve()):
        raise FileError(
            f"The folder {shown(folder)} would be within that of the pictures, {shown(source)}, and be read as one of "
            "its classes the next time; choose another with --out."
        )
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if there.is_dir():
        if not os.access(there, os.W_OK | os.X_OK):
            raise _cannot(f"write into the folder {there}", "Permission denied")
        if there == folder:
            _check_writable(folder)
            if out is not None:
                _check_empty(folder)
    elif there == folder and folder.is_symlink() and not folder.exists():
        pass  # what a link to nothing leads to is found out when it is made
    else:
        raise _cannot(f"create the folder {folder}", f"{there} is no folder")


def _check_empty(folder: Path) -> None:
    # A process that was killed as it began may have left its lock, or a part of its plan: nothing to go on from.
    ignored = {folder / LOCK, *leftovers(folder, (run_file_names.PLAN,))}
    if not ignored.issuperset(_entries(folder)):
        stopped = run_file_names.unfinished(folder)
        if stopped:
            raise FileError(f"{stopped}, or choose an empty or new folder with --out.")
        raise FileError(f"The folder {folder} already holds files; choose an empty or new one with --out.")


def _begin(folder: Path, first: Callable[[Path], None]) -> bool:
    """Whether the folder came to be, with what `first` writes in it; False if it was there before."""
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    temporary.mkdir()
    try:
        first(temporary)
        os.rename(temporary, folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and os.path.lexists(folder):
            return False
        raise
    return True


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise _cannot(f"read the folder {folder}", reason(error)) from error


def _check_writable(folder: Path) -> None:
    # Training takes long; that its results cannot be kept must show before it begins.
    probe = folder / ".xlogreg-probe"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise _cannot(f"write into the folder {folder}", reason(error)) from error


def _cannot(do: str, why: str) -> FileError:
    return FileError(f"Cannot {do}: {why}; choose another with --out.")


def write_run(
    folder: Path,
    training: Training,
    plots: Callable[[Path, Training], None] | None = None,
    extra: "Sequence[Tile]" = (),
    *,
    asked: dict[str, Any] | None = None,
    command: str | None = None,
) -> None:
    """Write model, history, predictions, pictures, report and results into `folder`, each file whole or not at all.

    `extra` pictures are kept and shown beside the task's. `asked` and `command` say where the data are and what
    repeats the run, by default the command that runs now. `results.json` comes last: a folder that has it is complete.
    """
    training.classifier.save(folder / run_file_names.MODEL)
    write_whole(folder / run_file_names.HISTORY, _history_lines(training))
    if plots is not None:
        plots(folder, training)
    content = {**results(training), "asked": asked, "command": command_line() if command is None else command}
    _write(folder, run_file_names.RESULTS, content, training.predictions, extra)


def _write(
    folder: Path, name: str, content: dict[str, Any], predictions: Predictions, extra: "Sequence[Tile]" = ()
) -> None:
    """What a page shows beside the results, the page, and the results, which make the folder complete."""
    from .gallery import write_gallery
    from .report import write_report

    write_gallery(folder, predictions, extra)
    write_report(folder, content)
    write_json(folder / name, content)


def _history_lines(training: Training) -> str:
    """The cost of every iteration, and the validation's after so many, where it was measured; with every bit."""
    held_out = {record.iteration: f",{record.cost:.17g}" for record in training.validation}
    head, nothing = ("iteration,cost,validation_cost\n", ",") if held_out else ("iteration,cost\n", "")
    rows = enumerate(training.history.tolist())
    return head + "".join(f"{i},{cost:.17g}{held_out.get(i, nothing)}\n" for i, cost in rows)


def write_evaluation(
    folder: Path, predictions: Predictions, model: str, plots: Callable[[Path, Predictions], None] | None = None
) -> None:
    """Write an evaluation of a model that was trained before, as `write_run`; `evaluation.json` comes last."""
    classifier, parts = predictions.classifier, predictions.evaluations
    classifier.save(folder / run_file_names.MODEL)
    if plots is not None:
        plots(folder, predictions)
    content = {
        "xlogreg": __version__,
        "model": model,
        **_about(predictions.task),
        "learning_rate": classifier.learning_rate,
        "iterations": classifier.number_of_iterations,
        "history_sha256": classifier.history_sha256,
        "trained_on": classifier.trained_on,
        **{f"{part}_accuracy": evaluation.accuracy for part, evaluation in parts.items()},
        "metrics": {name: part.as_dict() for name, part in parts.items()},
        "machine": machine(),
        "command": command_line(),
    }
    _write(folder, run_file_names.EVALUATION, content, predictions)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_whole(path, json.dumps(content, indent=2) + "\n")


def command_line() -> str:
    """The command that runs now, as it can be typed again."""
    import shlex

    return shlex.join(["xlogreg", *sys.argv[1:]]) if Path(sys.argv[0]).stem in ("xlogreg", "__main__") else ""
