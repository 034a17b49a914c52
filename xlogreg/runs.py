"""What a run folder holds, read again: results, history, predictions, pictures, model; only the first must be there."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .classifier import MODEL_FILE, Classifier
from .errors import FileError, InputError
from .gallery import Tile, read_json, read_predictions, read_text, read_tiles
from .plan import unfinished

RESULTS, SWEEP, EVALUATION, COMPARISON, HISTORY = (
    "results.json", "sweep.json", "evaluation.json", "comparison.json", "history.csv",
)  # fmt: skip
_MAX_RUNS = 200


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
    for name in (RESULTS, EVALUATION):
        results = results if results is not None else read_json(folder / name)
    if results is None:
        if folder.is_dir():
            raise FileError(
                unfinished(folder) or f"The folder {folder} holds no {RESULTS}; name the folder of a finished training."
            )
        raise FileError(f"There is no run folder {folder}; check its name.")
    if not isinstance(results, dict) or "task" not in results:
        raise no_results(folder)
    model = folder / MODEL_FILE
    classifier = Classifier.load(model) if model.exists() else None
    history = _history(folder)
    if brief:
        return Run(folder_name(folder), results, history, classifier=classifier)
    comparison = read_json(folder / COMPARISON)
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


def load_runs(folder: Path) -> list[Run]:
    """The run of a folder, or all runs of a sweep's folder, as `write_comparison` takes them."""
    sweep = read_json(folder / SWEEP)
    return [load_run(folder, brief=True)] if sweep is None else sweep_runs(folder, sweep)


def no_results(folder: Path) -> InputError:
    """The error for a folder whose results are not as xlogreg writes them."""
    return InputError(f"The results in {folder} are not as xlogreg writes them; train again, or name another run.")


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
    return [load_run(path.parent, brief=True) for path in sorted(folder.glob(f"*/{RESULTS}"))[:_MAX_RUNS]]


def _history(folder: Path) -> np.ndarray | None:
    text = read_text(folder / HISTORY)
    if text is None:
        return None
    try:
        return np.array([float(line.split(",")[1]) for line in text.splitlines()[1:]])
    except (ValueError, IndexError) as error:
        raise InputError(f"{folder / HISTORY} is damaged; delete it, and the report leaves its curve out.") from error
