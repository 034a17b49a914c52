"""A trained model: its parameters, its classes and the pictures it takes; save, load, predict."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FileError, InputError, XlogregError
from .files import reason, write_whole
from .images import to_pixels

FORMAT = "xlogreg"
FORMAT_VERSION = 1
MODEL_FILE = "model.safetensors"
# Far beyond any picture's number of features; a larger file is no model of xlogreg's.
_MAX_BYTES = 1 << 30
_MAX_HEADER = 1 << 20


@dataclass(frozen=True)
class Prediction:
    """What a picture file shows: `label` is the class's name, `number` 0 or 1, `probability` that of class 1."""

    path: Path
    label: str
    number: int
    probability: float


@dataclass(frozen=True)
class Failure:
    """A picture file that could not be predicted, and why, in one sentence."""

    path: Path
    message: str


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained neuron.

    Attributes
    ----------
    w, b : weights (height width channels, 1) float64 and bias
    class_names : names of class 0 and class 1
    size : (height, width, channels) of the pictures it takes
    learning_rate, number_of_iterations, history_sha256, trained_on, xlogreg_version : how it came about
    """

    w: np.ndarray
    b: float
    class_names: tuple[str, str]
    size: tuple[int, int, int]
    learning_rate: float
    number_of_iterations: int
    history_sha256: str
    trained_on: str
    xlogreg_version: str

    def probability(self, x: np.ndarray) -> np.ndarray:
        """sigmoid(w^T x + b) of pictures x (n, height, width, channels) uint8: (n,) float64, the same bits everywhere.

        Raises
        ------
        InputError
            The pictures have another shape or dtype than the model takes.
        """
        from .logistic import forward

        if x.ndim != 4 or x.shape[1:] != self.size or x.dtype != np.uint8:
            raise InputError(
                f"The model takes uint8 pictures (n, {', '.join(map(str, self.size))}), not {x.dtype} {x.shape}."
            )
        return forward(self.w, self.b, x.reshape(len(x), -1).T)[0] if len(x) else np.zeros(0)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """1 where the probability is at least 0.5, else 0: (n,) int64."""
        return (self.probability(x) >= 0.5).astype(np.int64)

    def predict_files(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Prediction | Failure]:
        """Predict picture files one after the other, in order; a bad one yields a `Failure` and the rest go on."""
        for path in map(Path, paths):
            try:
                probability = float(self.probability(to_pixels(path, self.size)[None])[0])
            except XlogregError as error:
                yield Failure(path, str(error))
            else:
                number = int(probability >= 0.5)
                yield Prediction(path, self.class_names[number], number, probability)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all; the same model gives the same bytes."""
        from safetensors.numpy import save

        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "class_names": json.dumps(self.class_names, ensure_ascii=False),
            "size": json.dumps(self.size),
            "learning_rate": repr(self.learning_rate),
            "number_of_iterations": str(self.number_of_iterations),
            "history_sha256": self.history_sha256,
            "trained_on": self.trained_on,
            "xlogreg_version": self.xlogreg_version,
        }
        # safetensors keeps metadata in a hash map of random order; one entry makes the bytes the same every time.
        content = save(
            {"b": np.array([self.b]), "w": np.ascontiguousarray(self.w, dtype=np.float64)},
            {"xlogreg": json.dumps(metadata, sort_keys=True, ensure_ascii=False)},
        )
        write_whole(path, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Classifier":
        """Read a model file, or the one in a run folder. Nothing in it is ever run.

        Raises
        ------
        FileError, InputError
            There is no such file, or it is anything but a model that xlogreg wrote.
        """
        path = Path(path)
        if path.is_dir():
            if not (path / MODEL_FILE).is_file():
                raise FileError(f"The folder {path} holds no {MODEL_FILE}; name a run folder or a model file.")
            path = path / MODEL_FILE
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise InputError(f"{path} is too large for a model; name a run folder or a model file.")
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise FileError(f"There is no model {path}; name a run folder or a model file.") from error
        except OSError as error:
            raise FileError(f"The model {path} cannot be read: {reason(error)}.") from error
        try:
            return cls(**_parse(content))
        except _NotAModel as error:
            raise InputError(
                f"{path} is not a model that this xlogreg can use: {error}; train one, or name another."
            ) from error


class _NotAModel(Exception):
    """Why a file is no model."""


def _parse(content: bytes) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(_MAX_HEADER, len(content) - 8):
        raise _NotAModel("it is no safetensors file, or cut short")
    try:
        header = json.loads(content[8 : 8 + length])
        outer = header["__metadata__"]
        metadata = json.loads(outer["xlogreg"])
        if metadata["format"] != FORMAT:
            raise KeyError
        version = int(metadata["format_version"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _NotAModel("it is no safetensors file written by xlogreg") from error
    if version != FORMAT_VERSION:
        raise _NotAModel(f"its format is version {version}, this xlogreg reads {FORMAT_VERSION}; upgrade xlogreg")
    if set(header) - {"__metadata__"} != {"w", "b"}:
        raise _NotAModel("its tensors are not w and b")
    try:
        tensors = load(content)
        names, size = json.loads(metadata["class_names"]), json.loads(metadata["size"])
        fields = {
            "learning_rate": float(metadata["learning_rate"]),
            "number_of_iterations": int(metadata["number_of_iterations"]),
            "history_sha256": str(metadata["history_sha256"]),
            "trained_on": str(metadata["trained_on"]),
            "xlogreg_version": str(metadata["xlogreg_version"]),
        }
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise _NotAModel(f"it is damaged ({type(error).__name__})") from error
    w, b = tensors["w"], tensors["b"]
    if not (
        isinstance(names, list) and len(names) == 2 and all(isinstance(n, str) for n in names) and names[0] != names[1]
    ):
        raise _NotAModel("it does not name two classes")
    if not (isinstance(size, list) and len(size) == 3 and all(type(n) is int and 0 < n < 2**20 for n in size)):
        raise _NotAModel("it gives no size of its pictures")
    if size[2] not in (1, 3) or w.shape != (size[0] * size[1] * size[2], 1) or b.shape != (1,):
        raise _NotAModel("its weights do not fit its pictures")
    if w.dtype != np.float64 or b.dtype != np.float64 or not (np.isfinite(w).all() and np.isfinite(b).all()):
        raise _NotAModel("its weights are not finite float64 numbers")
    # A copy: what safetensors gives may be a view of the file's bytes, which cannot be written to.
    return {"w": w.copy(), "b": float(b[0]), "class_names": tuple(names), "size": tuple(size), **fields}
