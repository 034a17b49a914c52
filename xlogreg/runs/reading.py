"""What a run folder holds, read again: results, history, predictions, pictures, model; only the first must be there."""

import functools
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileError, InputError
from ..models.classifier import Classifier
from ..system import run_file_names
from ..system.records import Odd, amount, fields, many, measure, number, optional, row, text, whole, words
from .gallery import Tile, read_json, read_predictions, read_tiles, rows_of

_MAX_RUNS = 200
_some = functools.partial(fields, needed=frozenset())  # an object with some of these fields, or others
_bin = fields({"pictures": whole(0), "mean_probability": optional(measure), "share_positive": optional(measure)})
_metrics = _some({
    "pictures": whole(0), "positives": whole(0), "confusion": row(row(whole(0), whole(0)), row(whole(0), whole(0))),
    "calibration": many(_bin), "undefined": _some({}),
})  # fmt: skip
# What xlogreg reads of a run's results, wherever they are used.
_RESULTS = fields({
    "task": _some({
        "class_names": row(text, text), "positive": text, "balance": words, "seed": whole(0, 2**32 - 1),
        "test_size": optional(amount), "validation": optional(amount),
    }),
    "data": _some({"source": words, "size": many(whole(0))}),
    "features": optional(_some({"name": words, "sha256": words})),
    "asked": optional(_some({"source": optional(text), "data": optional(text), "started_in": optional(text)})),
    "options": _some({"solver": words, "l2": number(0.0), "gradient_tolerance": optional(number(0.0))}),
    "l2_choice": optional(fields({
        "values": many(number(0.0)), "scores": many(optional(number(0.0))), "folds": whole(2), "pictures": whole(1),
        "seconds": number(0.0),
    })),
    "start": optional(_some({})), "machine": _some({}),
    "history_sha256": words, "learning_rate": optional(number()), "iterations": whole(0), "max_iterations": whole(0),
    "stopped_by": optional(words), "patience": optional(whole(1)), "best_iteration": optional(whole(0)),
    "cost_history": many(measure), "final_cost": measure, "train_accuracy": measure, "test_accuracy": measure,
    "seconds": measure, "seconds_per_iteration": measure, "models_trained_together": whole(0),
    "device": words, "implementation": words, "command": optional(words), "xlogreg": words,
    "metrics": _some({"train": _metrics, "test": _metrics}),
    "validation": optional(_some({
        "pictures": whole(0), "positives": whole(0), "cost": measure, "accuracy": measure, "lowest_cost": measure,
        "lowest_cost_iteration": whole(0),
        "history": many(fields({"iteration": whole(0), "cost": measure, "accuracy": measure})),
    })),
}, needed=frozenset({"task"}))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Run:
    """What a run folder holds; only `results` is always there."""

    name: str
    results: dict[str, Any]
    history: np.ndarray | None = None
    predictions: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    tiles: list[Tile] = field(default_factory=list)
    classifier: Classifier | None = None
    comparison: dict[str, Any] | None = None
    others: list["Run"] = field(default_factory=list)

    @property
    def class_names(self) -> tuple[str, str]:
        names = self.results.get("task", {}).get("class_names") or ("class 0", "class 1")
        return str(names[0]), str(names[1])


def load_run(folder: Path, results: dict[str, Any] | None = None, *, brief: bool = False) -> Run:
    """Read a run folder; `brief` leaves out what only the run's own page shows.

    Raises
    ------
    FileError, InputError
        It is no run folder, or a file in it is damaged.
    """
    for name in (run_file_names.RESULTS, run_file_names.EVALUATION):
        results = results if results is not None else read_results(folder, name=name)
    if results is None:
        if folder.is_dir():
            raise FileError(
                run_file_names.unfinished(folder)
                or f"The folder {folder} holds no {run_file_names.RESULTS}; name the folder of a finished training."
            )
        raise FileError(f"There is no run folder {folder}; check its name.")
    model = folder / run_file_names.MODEL
    classifier = Classifier.load(model) if model.exists() else None
    history = _history(folder)
    if brief:
        return Run(folder_name(folder), results, history, classifier=classifier)
    comparison = read_json(folder / run_file_names.COMPARISON)
    return Run(
        name=folder_name(folder),
        results=results,
        history=history,
        predictions=read_predictions(folder),
        tiles=read_tiles(folder),
        classifier=classifier,
        comparison=comparison if isinstance(comparison, dict) else None,
        others=_runs_in(folder) if comparison else [],
    )


def read_results(folder: Path, of: str | None = None, *, name: str = run_file_names.RESULTS) -> dict[str, Any] | None:
    """The results in a run folder, checked whole, or None where there are none.

    of : the digest of the training that they must be of; of another one's there are none

    Raises
    ------
    FileError, InputError
        They cannot be read, or are not as xlogreg writes them.
    """
    found = read_json(folder / name)
    if found is None or (of is not None and not (isinstance(found, dict) and found.get("history_sha256") == of)):
        return None
    try:
        checked: dict[str, Any] = _RESULTS(found)
        solver = checked["options"].get("solver", "gd") if "options" in checked else "lbfgs"
        if checked.get("learning_rate", 0.0) is None and solver != "lbfgs":
            raise Odd("a number", "learning_rate")
    except (Odd, RecursionError) as error:
        raise no_results(folder, error) from error
    return checked


def load_runs(folder: Path) -> list[Run]:
    """The run of a folder, or all runs of a sweep's folder, as `write_comparison` takes them."""
    sweep = read_json(folder / run_file_names.SWEEP)
    return [load_run(folder, brief=True)] if sweep is None else sweep_runs(folder, sweep)


def no_results(folder: Path, why: Exception | None = None) -> InputError:
    """The error for a folder whose results are not as xlogreg writes them."""
    what = f" ({why})" if isinstance(why, Odd) else ""
    return InputError(
        f"The results in {folder} are not as xlogreg writes them{what}; train again, or name another run."
    )


def folder_name(folder: Path) -> str:
    """The name that a run is shown by."""
    return folder.resolve().name or str(folder)


def sweep_runs(folder: Path, sweep: Any) -> list[Run]:
    """The runs of a sweep, in the order in which they were asked for."""
    runs = _runs_in(folder)
    if not isinstance(sweep, dict) or not runs:
        raise no_results(folder)
    listed = sweep.get("runs")
    listed = listed if isinstance(listed, list) else []
    order = {str(item.get("history_sha256")): i for i, item in enumerate(listed) if isinstance(item, dict)}
    return sorted(runs, key=lambda run: order.get(str(run.results.get("history_sha256")), len(order)))


def _runs_in(folder: Path) -> list[Run]:
    found = sorted(folder.glob(f"*/{run_file_names.RESULTS}"))[:_MAX_RUNS]
    return [load_run(path.parent, brief=True) for path in found]


def _history(folder: Path) -> np.ndarray | None:
    costs = array("d")
    with rows_of(folder / run_file_names.HISTORY, "its curve") as lines:
        if next(lines, None) is None:
            return None
        for i, line in enumerate(lines):
            iteration, cost, *_ = line.split(",")
            if iteration != str(i):
                raise ValueError
            costs.append(float(cost))
    return np.frombuffer(costs, dtype=np.float64) if len(costs) else np.zeros(0)
