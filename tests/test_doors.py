"""Odd values at every public door: what comes of them is a result, or one sentence in an error of xlogreg's."""

import dataclasses
import decimal
import fractions
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlogreg
from xlogreg import Classifier, DescentOptions, Features, FolderOptions, Pictures, Task
from xlogreg.errors import InputError, XlogregError
from xlogreg.estimator import ImageLogisticRegression
from xlogreg.models import evaluation

RNG = np.random.RandomState(0)
# Pictures of 2 x 2 and one channel, 6 of them: as columns (4, 6).
PICTURES = RNG.randint(0, 256, (6, 2, 2, 1)).astype(np.uint8)
LABELS = np.arange(6) % 2
X, Y = PICTURES.reshape(6, 4).T, LABELS.reshape(1, 6)
W, P = np.zeros((4, 1)), np.linspace(0, 1, 6)
DATA = Pictures(PICTURES, LABELS, ("a", "b"), np.arange(6), "made for a test")
TASK = Task(PICTURES[:4], LABELS[:4], PICTURES[4:], LABELS[4:], "b", "made for a test", {})
MODEL = dict(
    w=W, b=0.0, class_names=("a", "b"), size=(2, 2, 1), learning_rate=0.1, number_of_iterations=1, history_sha256="",
    trained_on="", xlogreg_version="",
)  # fmt: skip


class Rude:
    """Raises whatever is asked of it."""

    def _no(self, *_: object) -> Any:
        raise RuntimeError("no")

    __float__ = __len__ = __iter__ = __array__ = __repr__ = __str__ = __index__ = __fspath__ = _no


def masked(values: Any) -> np.ma.MaskedArray:
    """Values whose first is masked."""
    array = np.ma.MaskedArray(values)
    array[(0,) * array.ndim] = np.ma.masked
    return array


ODD: dict[str, Any] = {
    "None": None, "True": True, "0": 0, "-1": -1, "2**70": 2**70, "10**12": 10**12, "5000 digits": 10**5000, "1.5": 1.5,
    "NaN": float("nan"), "infinity": float("inf"), "1j": 1j, "Decimal": decimal.Decimal("0.1"),
    "Fraction": fractions.Fraction(1, 3), "signalling NaN": decimal.Decimal("sNaN"), "no text": "", "text": "fast",
    "number as text": "0.1", "long text": "x" * 5000, "NUL": "a\0b", "bytes": b"x", "[]": [], "[1.0]": [1.0],
    "[0, 2]": [0, 2], "ragged": [[1.0], [1.0, 2.0]], "deep": [[[[[[1]]]]]], "texts": ["a", "b"], "()": (), "{}": {},
    "dict": {"w": 1}, "set": {1, 2}, "object": object(), "rude": Rude(), "class": int, "function": len,
    "generator": (i for i in range(0)), "range": range(3), "path": Path("nowhere"), "memory": memoryview(b"abcd"),
    "masked constant": np.ma.masked,
}  # fmt: skip


def odd_arrays(like: np.ndarray) -> dict[str, Any]:
    """Arrays that are odd where one of this shape is wanted."""
    numbers, shape = like.astype(np.float64), like.shape
    records = np.zeros(shape, dtype=[("a", np.float64), ("b", np.int64, (3,))])
    return {
        "0-d": np.array(1.0), "uint8 scalar": np.uint8(1),
        "empty": np.zeros((0,) * like.ndim), "6-d": np.zeros((1,) * 6),
        "transposed": like.T, "one less": like[:-1], "one more axis": like[None], "flat": like.ravel(),
        "records": records, "objects": like.astype(object), "nothing but objects": np.full(shape, None),
        "complex": like.astype(complex), "array of texts": like.astype(str),
        "dates": like.astype(np.int64).astype("M8[s]"),
        "bool": like.astype(bool), "float16": like.astype(np.float16), "longdouble": like.astype(np.longdouble),
        "other byte order": numbers.astype(">f8"), "int8": like.astype(np.int8), "uint64": like.astype(np.uint64),
        "all NaN": np.full(shape, np.nan), "all infinite": np.full(shape, np.inf), "1e300": np.full(shape, 1e300),
        "denormal": np.full(shape, 5e-324), "list": like.tolist(),
        "no memory": np.broadcast_to(numbers.ravel()[:1], shape),
        "masked": masked(like), "masked floats": masked(numbers), "masked labels": masked(like.astype(np.int64)),
        "matrix": np.asmatrix(like) if like.ndim <= 2 else None,
    }  # fmt: skip


# A door: a function, the arguments that it takes gladly, and of which of them arrays are wanted.
MANY: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "sigmoid": (xlogreg.sigmoid, {"z": P}),
    "initialize_with_zeros": (xlogreg.initialize_with_zeros, {"dim": 3}),
    "forward": (xlogreg.forward, {"w": W, "b": 0.0, "x": X, "chunk": None}),
    "propagate": (xlogreg.propagate, {"w": W, "b": 0.0, "x": X, "y": Y, "chunk": None}),
    "optimize": (
        xlogreg.optimize,
        {"w": W, "b": 0.0, "x": X, "y": Y, "number_of_iterations": 2, "learning_rate": 0.1, "print_cost": False,
         "record_every": 1, "observer": None, "implementation": "reference", "chunk": None, "options": None,
         "sample_weight": np.ones(6)},
    ),
    "optimize floats": (
        xlogreg.optimize, {"w": W, "b": 0.0, "x": X / 255, "y": Y, "number_of_iterations": 2, "learning_rate": 0.1}
    ),
    "descend_many": (
        xlogreg.descend_many,
        {"x": X, "y": Y, "learning_rates": np.array([0.1, 0.2]), "number_of_iterations": 2, "w": np.zeros((2, 4)),
         "b": np.zeros(2), "observer": None, "implementation": "auto", "options": None,
         "sample_weight": np.ones((1, 6)),
         "monitor": None},
    ),
    "descend_many by L-BFGS": (
        xlogreg.descend_many,
        {"x": X, "y": Y, "learning_rates": None, "number_of_iterations": 2, "l2": np.array([0.1, 0.2]),
         "options": DescentOptions(solver="lbfgs"), "w": np.zeros((2, 4)), "b": np.zeros(2)},
    ),
    "predict": (xlogreg.predict, {"w": W, "b": 0.0, "x": X}),
    "accuracy": (xlogreg.accuracy, {"prediction": Y, "y": Y}),
    "model": (
        xlogreg.model,
        {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y, "number_of_iterations": 2, "learning_rate": 0.1},
    ),
    "history_sha256": (xlogreg.history_sha256, {"history": P}),
    "DescentOptions": (
        DescentOptions,
        {"solver": "gd", "l2": 0.1, "momentum": 0.5, "nesterov": True, "gradient_tolerance": 0.1, "cost_tolerance": 0.1,
         "class_weight": np.ones(2)},
    ),
    "choose_device": (xlogreg.choose_device, {"wanted": "cpu"}),
    "Pictures": (Pictures, {"x": PICTURES, "labels": LABELS, "class_names": ("a", "b"), "index": LABELS, "source": ""}),
    "Task": (
        Task,
        {"x_train": PICTURES, "y_train": LABELS, "x_test": PICTURES, "y_test": LABELS, "positive": "b", "source": "",
         "options": {}, "x_validation": PICTURES, "y_validation": LABELS, "negative": "", "files_train": ()},
    ),
    "make_task": (
        xlogreg.make_task,
        {"pictures": DATA, "positive": "b", "test": None, "balance": "none", "seed": 0, "test_size": 2},
    ),
    "make_task of odd pictures": (
        lambda **parts: xlogreg.make_task(dataclasses.replace(DATA, **parts), "b", balance="none", test_size=2),
        {"x": PICTURES, "labels": LABELS, "class_names": ("a", "b"), "index": LABELS, "source": "", "files": ()},
    ),
    "make_tasks": (xlogreg.make_tasks, {"pictures": DATA, "positives": ["a", "b"], "seed": 0, "test_size": 2}),
    "hold_out": (xlogreg.hold_out, {"tasks": [TASK], "share": 1}),
    "as_columns": (xlogreg.as_columns, {"x": PICTURES, "y": LABELS}),
    "train": (
        xlogreg.train,
        {"task": TASK, "learning_rates": np.array([0.1]), "number_of_iterations": 2, "device": None,
         "implementation": "auto", "observer": None, "options": None, "start": None, "diverged": None,
         "features": Features(), "rows": None, "checkpoints": None},
    ),
    "train by L-BFGS": (
        xlogreg.train,
        {"task": TASK, "learning_rates": None, "number_of_iterations": 2, "l2": np.array([0.1, 0.2]),
         "options": DescentOptions(solver="lbfgs"), "start": None},
    ),
    "train on odd pictures": (
        lambda **parts: xlogreg.train(dataclasses.replace(TASK, **parts), [0.1], 2),
        {"x_train": TASK.x_train, "y_train": TASK.y_train, "x_test": TASK.x_test, "y_test": TASK.y_test,
         "x_validation": PICTURES, "y_validation": LABELS, "positive": "b", "source": "s", "negative": ""},
    ),
    "train_together": (
        xlogreg.train_together, {"tasks": [TASK], "learning_rates": [0.1], "number_of_iterations": 2}
    ),
    "Classifier": (Classifier, MODEL),
    "Classifier.probability": (Classifier(**MODEL).probability, {"x": PICTURES}),
    "Classifier.predict": (Classifier(**MODEL).predict, {"x": PICTURES}),
    "Classifier.predict_files": (
        lambda paths: list(Classifier(**MODEL).predict_files(paths)), {"paths": ["nowhere"]}
    ),
    "Classifier.load": (Classifier.load, {"path": "nowhere"}),
    "Classifier.from_bytes": (Classifier.from_bytes, {"content": Classifier(**MODEL).to_bytes()}),
    "Features": (Features, {"name": "hog", "orientations": 9, "cell": 4, "block": 3}),
    "Features.rows": (Features("grey").rows, {"x": PICTURES}),
    "Features.length": (Features("hog").length, {"size": (32, 32, 3)}),
    "read_picture": (xlogreg.read_picture, {"path": "nowhere", "max_pixels": 10, "max_bytes": 10}),
    "resize": (xlogreg.resize, {"x": PICTURES[0], "size": (2, 2)}),
    "read_cifar10": (xlogreg.read_cifar10, {"path": "nowhere", "part": "train"}),
    "FolderOptions": (FolderOptions, {"size": (2, 2), "max_unreadable": 1}),
    "read_folder": (xlogreg.read_folder, {"path": "nowhere", "options": None}),
    "evaluate": (partial(evaluation.evaluate, Classifier(**MODEL)), {"x": PICTURES, "y": LABELS}),
    "measure": (evaluation.measure, {"y": LABELS, "p": P, "class_names": ("a", "b")}),
    "roc_curve": (evaluation.roc_curve, {"y": LABELS, "p": P}),
    "roc_area": (evaluation.roc_area, {"y": LABELS, "p": P}),
    "log_loss": (evaluation.log_loss, {"y": LABELS, "p": P}),
    "brier_score": (evaluation.brier_score, {"y": LABELS, "p": P}),
    "calibration": (evaluation.calibration, {"y": LABELS, "p": P, "bins": 10}),
    "predict_task": (evaluation.predict_task, {"classifier": Classifier(**MODEL), "task": TASK}),
    "predict_task of odd pictures": (
        lambda **parts: evaluation.predict_task(Classifier(**MODEL), dataclasses.replace(TASK, **parts)),
        {"x_train": TASK.x_train, "x_test": TASK.x_test},
    ),
}  # fmt: skip

_CALLED = {"observer", "monitor"}
# Of these there is nothing to call with odd values.
NO_DOORS = {"__version__", "Device", "Training", "load_birds"}


def odd_calls(arguments: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, good in arguments.items():
        odd = ODD | (odd_arrays(good) if isinstance(good, np.ndarray) else odd_arrays(LABELS))
        for words, value in odd.items():
            if name in _CALLED and callable(value):
                continue  # it raises what it likes
            yield f"{name}: {words}", {**arguments, name: value}


def test_every_public_name_is_a_door_here() -> None:
    errors = {name for name in xlogreg.__all__ if inspect.isclass(kind := getattr(xlogreg, name))
              and issubclass(kind, (Exception, Warning))}  # fmt: skip
    assert set(xlogreg.__all__) - errors - NO_DOORS <= set(MANY)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("door", MANY)
def test_odd_values_give_a_result_or_a_sentence(
    door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    function, arguments = MANY[door]
    foreign = []
    for words, odd in odd_calls(arguments):
        try:
            function(**odd)
        except XlogregError as error:
            message = str(error)
            if "\n" in message or (len(message) > 600 and "long text" not in words):
                foreign.append(f"{words} -> a message of {len(message)} characters: {message[:100]!r}")
        except Exception as error:
            foreign.append(f"{words} -> {type(error).__name__}: {str(error)[:100]}")
        else:
            # Who masks something does not want it used.
            if any(isinstance(value, np.ma.MaskedArray) for value in odd.values()):
                foreign.append(f"{words} -> taken")
    assert not foreign, "\n".join(foreign)


# scikit-learn's own checks come before ours, and raise its words for data.
ESTIMATOR: dict[str, tuple[Any, tuple[type[Exception], ...]]] = {
    "sample_weight": (np.ones(6), (XlogregError, ValueError, TypeError)),
    **dict.fromkeys(("X", "y", "predict_proba"), (PICTURES.reshape(6, 4), (XlogregError, ValueError, TypeError))),
    **dict.fromkeys(
        ("learning_rate", "number_of_iterations", "device", "implementation", "solver", "l2", "momentum", "nesterov",
         "tol", "class_weight"),
        (LABELS, (XlogregError,)),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("door", ESTIMATOR)
def test_odd_values_give_the_estimator_no_foreign_exception(door: str) -> None:
    data: dict[str, Any] = {"X": PICTURES.reshape(6, 4), "y": LABELS}
    fitted = ImageLogisticRegression(number_of_iterations=2).fit(**data)
    like, errors = ESTIMATOR[door]
    for words, value in (ODD | odd_arrays(LABELS if door == "y" else like)).items():
        if isinstance(value, Rude) and ValueError in errors:
            continue  # scikit-learn lets its errors through
        try:
            if door == "predict_proba":
                fitted.predict_proba(value)
            elif door in (*data, "sample_weight"):
                ImageLogisticRegression(number_of_iterations=2).fit(**data | {door: value})
            else:
                ImageLogisticRegression(**{"number_of_iterations": 2} | {door: value}).fit(**data)
        except errors:
            continue
        assert not isinstance(value, np.ma.MaskedArray), words


def test_what_is_masked_is_never_used() -> None:
    y = np.ma.MaskedArray(Y.copy())
    y.data[0, 1], y[0, 1] = 7, np.ma.masked
    for x, labels in ((X, y), (np.ma.MaskedArray(X / 255, mask=X > 250), Y), (np.ma.MaskedArray(X), y)):
        with pytest.raises(InputError, match="is a masked array, and its mask would be ignored; leave out"):
            xlogreg.model(x, labels, X, Y, 2, 0.1)
    with pytest.raises(InputError, match=r"^y is a masked array"):
        xlogreg.propagate(W, 0.0, X, y)
    # Other kinds of NumPy's arrays are plain arrays here.
    plain, matrix = (xlogreg.propagate(W, 0.0, X, labels)[1] for labels in (Y, np.asmatrix(Y)))
    assert plain == matrix


def test_sigmoid_takes_what_numpy_takes() -> None:
    expected = xlogreg.sigmoid(np.array([0.0, 2.0]))
    assert expected[0] == 0.5
    for z in ([0, 2], (0.0, 2.0), np.array([0, 2]), np.array([0, 2], np.uint8), np.float32([0, 2]), range(0, 3, 2)):
        assert xlogreg.sigmoid(z).tolist() == expected.tolist()
    for number in (2, 2.0, np.float32(2), np.int8(2), np.array(2), np.array(2.0)):
        assert (type(xlogreg.sigmoid(number)), xlogreg.sigmoid(number)) == (float, expected[1])
    assert xlogreg.sigmoid([[1.0]]).shape == (1, 1)
    assert xlogreg.sigmoid([]).shape == (0,)
    for wrong in ("2", None, [1, [2]], 1j):
        with pytest.raises(InputError, match=r"^z must be numbers, not "):
            xlogreg.sigmoid(wrong)


def test_dimensions_that_no_memory_holds_are_refused() -> None:
    for dim in (10**12, 0, -1, True, 2.0, None, 10**5000):
        with pytest.raises(
            InputError, match=r"^The number of features must be a whole number from 1 to 67,108,864, not"
        ):
            xlogreg.initialize_with_zeros(dim)  # type: ignore[arg-type]


def test_records_of_arrays_are_short() -> None:
    pictures = xlogreg.load_birds()
    task = xlogreg.make_task(pictures, "bird")
    (training,) = xlogreg.train(task, [0.005], 3)
    assert repr(pictures).startswith("Pictures(x=uint8 (2064, 32, 32, 3), labels=int64 (2064,), class_names=('plane', ")
    assert "task=Task(..)" in repr(training)
    result = xlogreg.descend_many(X, Y, [0.1], 3)
    for record in (pictures, task, training, training.classifier, training.predictions, result,
                   *training.predictions.evaluations.values(), result.gradient):  # fmt: skip
        assert "\n" not in repr(record)
        assert len(repr(record)) < 900, repr(record)


def test_rows_that_were_computed_before_fit_the_task() -> None:
    train = TASK.x_train.reshape(4, 4), TASK.x_test.reshape(2, 4)
    assert (
        xlogreg.train(TASK, [0.1], 2, rows=train)[0].history_sha256 == xlogreg.train(TASK, [0.1], 2)[0].history_sha256
    )
    for rows in ((), (1, 2), train[:1], (train[0], None), (masked(train[0]), train[1]), train[::-1], (train[0], X)):
        with pytest.raises(InputError):
            xlogreg.train(TASK, [0.1], 2, rows=rows)  # type: ignore[arg-type]
