"""A trained model: its parameters, its classes and the pictures it takes; save, load, predict."""

import json
import math
import operator
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileError, InputError, XlogregError
from ..images.features import PIXELS, Features
from ..images.resizing import to_pixels
from ..logistic import forward
from ..neuron.exact import LARGEST_WEIGHT
from ..system import run_file_names
from ..system.checks import path_of, unmasked
from ..system.files import read_regular, reason, write_whole
from ..system.records import Odd, any_of, fields, made, row, whole, words
from ..system.text import brief, brief_kind, given, short_repr

FORMAT = "xlogreg"
# 2 has features; files of format 1, whose features are the pixels, are read too.
FORMAT_VERSION = 2
# 134 million features, far beyond any picture that is trained on; a larger file is no model of xlogreg's.
_MAX_BYTES = 1 << 30
_MAX_HEADER = 1 << 20


class _NotAModel(InputError):
    """Parts or a file of which no model can be made; `why` in words that follow a colon."""

    def __init__(self, why: str) -> None:
        super().__init__(f"No model can be made of this: {why}; give what a training gave.")
        self.why = why


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
    w, b : weights (d, 1) float64 and bias, d the number of features, height width channels where they are the pixels
    class_names : names of class 0 and class 1
    size : (height, width, channels) of the pictures it takes
    learning_rate, number_of_iterations, history_sha256, trained_on, xlogreg_version : how it came about; L-BFGS has no
        learning rate, None
    features : what of a picture it looks at; new pictures are treated in the same way

    Raises
    ------
    InputError
        The parts do not fit together, so that every model there is can be saved and comes back.
    """

    w: np.ndarray
    b: float
    class_names: tuple[str, str]
    size: tuple[int, int, int]
    learning_rate: float | None
    number_of_iterations: int
    history_sha256: str
    trained_on: str
    xlogreg_version: str
    features: Features = PIXELS

    def __post_init__(self) -> None:
        try:
            _set(
                self,
                w=np.ascontiguousarray(unmasked(self.w, "w"), dtype=np.float64),
                b=float(self.b),
                class_names=tuple(self.class_names),
                size=tuple(operator.index(side) for side in self.size),
                learning_rate=None if self.learning_rate is None else float(self.learning_rate),
                number_of_iterations=operator.index(self.number_of_iterations),
            )
        except Exception as error:  # other types, and whatever a class of somebody else's raises
            raise _NotAModel(f"its parts are of other types ({brief(str(error), 60)})") from error
        wrong = _wrong(self)
        if wrong:
            raise _NotAModel(wrong)

    __repr__ = short_repr

    def probability(self, x: np.ndarray) -> Any:
        """sigmoid(w^T f + b), f the features of pictures x (n, height, width, channels) uint8: (n,) float64.

        Of one picture (height, width, channels) it is a float. The same bits everywhere.

        Raises
        ------
        InputError
            The pictures have another shape or dtype than the model takes.
        """
        x = unmasked(x, "x")
        if isinstance(x, np.ndarray) and x.shape == self.size:
            return float(self.probability(x[None])[0])
        if not isinstance(x, np.ndarray) or x.ndim != 4 or x.shape[1:] != self.size or x.dtype != np.uint8:
            size = ", ".join(map(str, self.size))
            raise InputError(f"The model takes uint8 pictures (n, {size}), or one ({size}), not {brief_kind(x)}.")
        return forward(self.w, self.b, self.features.rows(x).T)[0] if len(x) else np.zeros(0)

    def predict(self, x: np.ndarray) -> Any:
        """1 where the probability is at least 0.5, else 0: (n,) int64, and an int of one picture."""
        probability = self.probability(x)
        return int(probability >= 0.5) if isinstance(probability, float) else (probability >= 0.5).astype(np.int64)

    def predict_files(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Prediction | Failure]:
        """Predict picture files one after the other, in order; a bad one yields a `Failure` and the rest go on.

        Raises
        ------
        InputError
            `paths` is one path; a list of one is wanted then.
        """
        return (self._predict_file(path_of(name, "A picture file")) for name in one_by_one(paths))

    def _predict_file(self, path: Path) -> Prediction | Failure:
        height, width, channels = self.size
        try:
            probability = self.probability(to_pixels(path, (height, width), channels))
        except XlogregError as error:
            return Failure(path, str(error))
        number = int(probability >= 0.5)
        return Prediction(path, self.class_names[number], number, probability)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all; the same model gives the same bytes.

        Tensors `w` (d, 1) and `b` (1,), float64; the rest is metadata.

        Raises
        ------
        FileError
            The file cannot be written.
        """
        write_whole(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        from safetensors.numpy import save

        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "class_names": json.dumps(self.class_names),
            "size": json.dumps(self.size),
            "features": json.dumps(self.features.describe(), sort_keys=True),
            **({} if self.learning_rate is None else {"learning_rate": repr(self.learning_rate)}),
            "number_of_iterations": str(self.number_of_iterations),
            "history_sha256": self.history_sha256,
            "trained_on": self.trained_on,
            "xlogreg_version": self.xlogreg_version,
        }
        # safetensors keeps metadata in a hash map of random order; one entry makes the bytes the same every time.
        # In ASCII, as a name may come from a folder whose own name is no valid Unicode.
        return save(
            {"b": np.array([self.b]), "w": self.w},
            {"xlogreg": json.dumps(metadata, sort_keys=True)},
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Classifier":
        """Read a model file, or the one in a run folder. Nothing in it is ever run.

        Raises
        ------
        FileError, InputError
            There is no such file, or it is anything but a model that xlogreg wrote.
        """
        path, content = _read(path_of(path, "path"))
        return cls.from_bytes(content, path)

    @classmethod
    def from_bytes(cls, content: bytes, name: str | os.PathLike[str] = "This") -> "Classifier":
        """The model in the content of a model file; `name` is for the message of the InputError, as that of `load`."""
        if not isinstance(content, bytes):
            raise InputError(f"The content of a model file is bytes, not {given(content)}.")
        try:
            return cls(**_parse(content))
        except _NotAModel as error:
            raise InputError(
                f"{name} is not a model that this xlogreg can use: {error.why}; train one, or name another."
            ) from error


def one_by_one(paths: Iterable[Any]) -> Iterator[Any]:
    """The items of what should be a list of picture files; one path is none."""
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise InputError(f"Give a list of picture files, [{given(paths)}], not one path.")
    try:
        return iter(paths if not isinstance(paths, np.ndarray) else paths.tolist())
    except Exception as error:  # a number, or whatever a class of somebody else's raises
        raise InputError(f"Give a list of picture files, not {given(paths)}.") from error


def _set(model: Classifier, **fields: Any) -> None:
    for name, value in fields.items():
        object.__setattr__(model, name, value)  # the dataclass is frozen


def _wrong(model: Classifier) -> str:
    """What does not fit in a model's parts, or nothing."""
    names, size = model.class_names, model.size
    if len(names) != 2 or not all(isinstance(name, str) and name for name in names) or names[0] == names[1]:
        return "it does not name two classes"
    if len(size) != 3 or not all(0 < side < 2**20 for side in size) or size[2] not in (1, 3):
        return "it gives no size (height, width, 1 or 3 channels) of its pictures"
    if not isinstance(model.features, Features):
        return "it does not say what of a picture it looks at"
    try:
        length = model.features.length((size[0], size[1], size[2]))
    except InputError:
        return "its pictures are too small for its features"
    if model.w.shape != (length, 1):
        return "its weights do not fit its pictures"
    if not (np.isfinite(model.w).all() and math.isfinite(model.b)):
        return "its weights are not finite float64 numbers"
    if not (np.abs(model.w) < LARGEST_WEIGHT).all():
        return f"it has weights beyond {LARGEST_WEIGHT:.1g}, which no sum can hold"
    if not math.isfinite(model.learning_rate or 0.0) or model.number_of_iterations < 0:
        return "its learning rate or number of iterations is none"
    texts = (model.history_sha256, model.trained_on, model.xlogreg_version)
    return "" if all(isinstance(text, str) for text in texts) else "its origin is not given in words"


def _read(path: Path) -> tuple[Path, bytes]:
    """The content of a model file, or of the one in a run folder, and its path."""
    folder = path
    try:
        if os.path.isdir(folder):
            path = folder / run_file_names.MODEL
        return path, read_regular(path, _MAX_BYTES)
    except InputError as error:  # a pipe would be waited for, and a device be read for ever
        what = "too large for a model" if os.path.isfile(path) else "no regular file"
        raise InputError(f"{path} is {what}; name a run folder or a model file.") from error
    except FileNotFoundError as error:
        if path is not folder:
            raise FileError(
                run_file_names.unfinished(folder)
                or f"The folder {folder} holds no {run_file_names.MODEL}; name a run folder or a model file."
            ) from None
        raise FileError(f"There is no model {path}; name a run folder or a model file.") from error
    except OSError as error:
        raise FileError(
            f"The model {path} cannot be read: {reason(error)}; name another, or check this one."
        ) from error
    except ValueError as error:  # a name that no file can have, with a NUL in it
        raise FileError(f"{str(path)!r} is no name of a model ({error}); check it.") from error


def _whole_number(text: str) -> int:
    # int() alone would take " 1_0 " and digits of other scripts, and print thousands of digits in a message.
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ValueError("not a whole number")
    return int(text)


_digits, _json = made(words, _whole_number), made(words, json.loads)
_KIND = fields({"format": any_of(FORMAT), "format_version": _digits})
_METADATA = {
    "class_names": made(_json, row(words, words)), "size": made(_json, row(whole(1), whole(1), whole(1))),
    "learning_rate": made(words, float), "number_of_iterations": _digits, "history_sha256": words, "trained_on": words,
    "xlogreg_version": words,
}  # fmt: skip


def _parse(content: bytes) -> dict[str, Any]:
    """The arguments of `Classifier` that a model file holds."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(_MAX_HEADER, len(content) - 8):
        raise _NotAModel("it is no safetensors file, or cut short")
    try:
        metadata = _KIND(json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["xlogreg"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _NotAModel("it is no safetensors file written by xlogreg") from error
    version = metadata.pop("format_version")
    if version > FORMAT_VERSION:
        raise _NotAModel(
            f"it was made by a newer xlogreg (format {version}, this one reads {FORMAT_VERSION}); upgrade xlogreg"
        )
    if version < 1:
        raise _NotAModel(f"there is no format {version}")
    try:
        tensors, found = load(content), fields(_METADATA, frozenset(_METADATA) - {"learning_rate"})(metadata)
        described = PIXELS.describe() if version == 1 else json.loads(metadata["features"])
        features = Features(**described)
        if features.describe() != described:
            raise ValueError
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise _NotAModel(f"it is damaged ({error if isinstance(error, Odd) else type(error).__name__})") from error
    if set(tensors) != {"w", "b"}:
        raise _NotAModel("its tensors are not w and b")
    w, b = tensors["w"], tensors["b"]
    if w.dtype != np.float64 or b.dtype != np.float64 or b.shape != (1,):
        raise _NotAModel("its weights are not finite float64 numbers")
    # A copy: what safetensors gives may be a view of the file's bytes, which cannot be written to.
    return {**{name: found.get(name) for name in _METADATA}, "w": w.copy(), "b": float(b[0]), "features": features}
