"""The pictures that a run is shown by: examples, the most wrong, the most certain; kept small in the run folder.

`pictures.png` holds them side by side, `pictures.json` says what each is, `predictions.csv` the label and probability
of every picture, and its file where it has one: with these the report can be made again without the data.
"""

import contextlib
import csv
import io
import itertools
import json
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.task import Task
from ..errors import FileError, InputError, XlogregError
from ..models.evaluation import Predictions
from ..system import run_file_names
from ..system.files import open_regular, read_regular, reason, write_whole
from ..system.records import Kind, any_of, fields, many, measure, optional, row, whole, words
from ..system.text import NAMES, csv_lines, csv_rows

EXAMPLES, WRONG, CERTAIN = 12, 12, 6
GROUPS = ("example", "wrong", "certain_1", "certain_0", "own")
_SIDE = 96  # the longest side that is kept
_PER_ROW = 8
# Of a table of as many lines as a training has iterations or pictures, which is read line by line, and of JSON.
_MAX_BYTES, _MAX_JSON = 256 << 20, 64 << 20
_MAX_LINE = 1 << 16
_MAX_LIST = 1000
_TILE: dict[str, Kind] = {
    "group": any_of(*GROUPS), "index": whole(0), "true": optional(whole(0, 1)), "predicted": optional(whole(0, 1)),
    "probability": optional(measure), "file": words,
}  # fmt: skip
_box = row(whole(0), whole(0), whole(0), whole(0))
# Older lists name no files.
_LIST = many(fields({**_TILE, "box": _box}, needed=frozenset(_TILE) - {"file"} | {"box"}))


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture (h, w, 3) uint8 of a group, its number in its part, labels, probability of class 1, and file."""

    group: str
    index: int
    true: int | None
    predicted: int | None
    probability: float | None
    pixels: np.ndarray
    file: str = ""


def tiles(predictions: Predictions) -> list[Tile]:
    """The first training pictures, the test pictures that are most wrong, and the most certain ones of either class.

    Most wrong: wrongly predicted, by the probability given to the wrong class. Most certain: by probability alone,
    right or wrong. Ties keep the order of the pictures.
    """
    task = predictions.task
    chosen = [
        _tile("example", shown(task, "train"), i, int(task.y_train[i]), None, task.files_train)
        for i in range(min(EXAMPLES, len(task.y_train)))
    ]
    y, p = task.y_test, predictions.probability_test
    order = np.argsort(-p, kind="stable")
    wrong = np.flatnonzero((p >= 0.5) != (y == 1))
    wrong = wrong[np.argsort(-np.abs(p[wrong] - 0.5), kind="stable")]
    groups: dict[str, Iterable[int]] = {
        "wrong": wrong[:WRONG],
        "certain_1": [i for i in order[:CERTAIN] if p[i] >= 0.5],
        "certain_0": [i for i in np.argsort(p, kind="stable")[:CERTAIN] if p[i] < 0.5],
    }
    pictures = shown(task, "test")
    return chosen + [
        _tile(group, pictures, int(i), int(y[i]), float(p[i]), task.files_test)
        for group, rows in groups.items()
        for i in rows
    ]


def shown(task: Task, part: str) -> np.ndarray | None:
    """The pictures (m, h, w, c) uint8 of "train" or "test" as people see them; None where a task has features only."""
    x = getattr(task, f"pictures_{part}", None)
    x = getattr(task, f"x_{part}") if x is None else x
    return x if x.ndim == 4 and x.shape[-1] in (1, 3) and x.dtype == np.uint8 and min(x.shape[1:3]) > 1 else None


def own_tiles(original: np.ndarray, resized: np.ndarray, probability: float) -> list[Tile]:
    """An own picture before and after its resize, with what was predicted."""
    predicted = int(probability >= 0.5)
    return [Tile("own", i, None, predicted, probability, _small(x)) for i, x in enumerate((original, resized))]


def write_gallery(folder: Path, predictions: Predictions, extra: Sequence[Tile] = ()) -> list[Tile]:
    """Write `pictures.png`, `pictures.json` and `predictions.csv`, each whole or not at all; returns the tiles."""
    kept = [tile for tile in tiles(predictions) if tile.pixels.size] + list(extra)
    write_tiles(folder, kept)
    rows: list[Sequence[object]] = [("part", "index", "label", "probability", "file")]
    for part, (y, p) in predictions.parts.items():
        files = getattr(predictions.task, f"files_{part}") or itertools.repeat("")
        rows.extend(
            (part, i, a, f"{b:.17g}", file)
            for i, (a, b, file) in enumerate(zip(y.tolist(), p.tolist(), files, strict=False))
        )
    write_whole(folder / run_file_names.PREDICTIONS, csv_lines(rows).encode("utf-8", NAMES))
    return kept


def write_tiles(folder: Path, kept: Sequence[Tile]) -> None:
    """All tiles on one sheet, row after row, and their list."""
    from PIL import Image

    boxes, x, y, row = [], 0, 0, 0
    for i, tile in enumerate(kept):
        if i and (tile.group != kept[i - 1].group or x >= _PER_ROW * _SIDE):
            x, y, row = 0, y + row, 0
        height, width = tile.pixels.shape[:2]
        boxes.append((x, y, width, height))
        x, row = x + width, max(row, height)
    sheet = np.zeros((y + row, max((bx + bw for bx, _, bw, _ in boxes), default=0), 3), dtype=np.uint8)
    for tile, (bx, by, bw, bh) in zip(kept, boxes, strict=True):
        sheet[by : by + bh, bx : bx + bw] = tile.pixels
    if sheet.size:
        buffer = io.BytesIO()
        Image.fromarray(sheet).save(buffer, "PNG")
        write_whole(folder / run_file_names.SHEET, buffer.getvalue())
    listed = [
        {**{name: getattr(tile, name) for name in _TILE}, "box": list(box)}
        for tile, box in zip(kept, boxes, strict=True)
    ]
    write_whole(folder / run_file_names.SHEET_LIST, json.dumps(listed, indent=1) + "\n")


def read_tiles(folder: Path) -> list[Tile]:
    """The tiles of a run folder; none where it keeps none.

    Raises
    ------
    FileError, InputError
        The files cannot be read, or do not fit together.
    """
    from ..images.decoding import read_picture

    listed = read_json(folder / run_file_names.SHEET_LIST)
    if not listed:
        return []
    try:
        listed = _LIST(listed)
        if len(listed) > _MAX_LIST:
            raise ValueError("too many")
        sheet, found = read_picture(folder / run_file_names.SHEET), []
        for item in listed:
            x, y, width, height = item.pop("box")
            pixels = sheet[y : y + height, x : x + width]
            if pixels.shape != (height, width, 3):
                raise ValueError("a box outside the sheet")
            found.append(Tile(**{name: item[name] for name in _TILE if name in item}, pixels=pixels))
        return found
    except XlogregError:
        raise
    except ValueError as error:
        raise InputError(
            f"{folder / run_file_names.SHEET_LIST} does not fit {run_file_names.SHEET} beside it; delete both, and the "
            "report leaves the pictures out."
        ) from error


def read_predictions(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labels (n,) int64 and probabilities (n,) float64 of "train" and "test" from `predictions.csv`; {} without one."""
    parts: dict[str, tuple[array[int], array[float]]] = {}
    with rows_of(folder / run_file_names.PREDICTIONS, "its curves") as rows:
        for part, _, label, probability, *_ in itertools.islice(csv_rows(rows), 1, None):
            labels, probabilities = parts.setdefault(part, (array("q"), array("d")))
            labels.append(int(label))
            probabilities.append(float(probability))
    return {part: (np.array(y, dtype=np.int64), np.array(p)) for part, (y, p) in parts.items()}


@contextlib.contextmanager
def rows_of(path: Path, what: str) -> Iterator[Iterator[str]]:
    """The lines of a table; what is damaged in it is one sentence, which says `what` the page leaves out without it."""
    try:
        with contextlib.closing(_lines(path)) as lines:
            yield lines
    except InputError:
        raise
    except (ValueError, OverflowError, csv.Error) as error:
        raise InputError(f"{path} is damaged; delete it, and the report leaves {what} out.") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds, or None where there is none."""
    try:
        return json.loads(read_regular(path, _MAX_JSON).decode("utf-8", "replace"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    except InputError as error:
        raise InputError(f"{str(error).removesuffix('.')}; name the folder of another run.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON; name the folder of another run, or train again.") from error


def _lines(path: Path) -> Generator[str, None, None]:
    """The lines of a file of bounded size, one after the other; none where there is no file."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        size = 0
        try:
            while line := file.readline(_MAX_LINE):
                size += len(line)
                if size > _MAX_BYTES or len(line) == _MAX_LINE:
                    raise InputError(f"{path} is too large for a report; name the folder of another run.")
                yield line.decode("utf-8", "replace")
        except OSError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> FileError:
    return FileError(f"{path} cannot be read: {reason(error)}; check it, or name another run.")


def _tile(
    group: str, pictures: np.ndarray | None, index: int, true: int, probability: float | None, files: Sequence[str]
) -> Tile:
    predicted = None if probability is None else int(probability >= 0.5)
    pixels = np.zeros((0, 0, 3), dtype=np.uint8) if pictures is None else _small(pictures[index])
    return Tile(group, index, true, predicted, probability, pixels, files[index] if files else "")


def _small(picture: np.ndarray) -> np.ndarray:
    """At most _SIDE pixels a side, three channels."""
    from ..images.resizing import resize

    # A large photo is thinned first: anti-aliasing all of its pixels takes seconds.
    stride = max(1, max(picture.shape[:2]) // (4 * _SIDE))
    picture = picture[::stride, ::stride]
    height, width = picture.shape[:2]
    if max(height, width) > _SIDE:
        shrink = _SIDE / max(height, width)
        picture = resize(picture, (max(1, round(height * shrink)), max(1, round(width * shrink))))
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))
