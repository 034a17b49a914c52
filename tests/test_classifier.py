"""Model files: what is saved comes back to the bit, and nothing else is taken for a model."""

import dataclasses
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers import classifier
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from xlogreg.errors import FileError, InputError, XlogregError
from xlogreg.models import classifier as module
from xlogreg.models.classifier import Classifier, Failure, Prediction
from xlogreg.neuron.exact import LARGEST_WEIGHT


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    model = classifier()
    model.save(tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        loaded = Classifier.load(place)
        for field in dataclasses.fields(Classifier):
            assert np.array_equal(getattr(loaded, field.name), getattr(model, field.name)), field.name
    model.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.safetensors", "model.safetensors"]


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": np.float64(0.005)}, {"b": 0}, {"b": np.float64(2)}, {"size": tuple(np.array([4, 5, 3]))},
        {"w": np.ones((60, 1), dtype=np.float32)}, {"w": np.asfortranarray(np.ones((120, 2)))[::2, :1]},
        {"class_names": ("not \udcff", "\udcff")}, {"trained_on": "/data/\udce9t\u00e9"},
        {"number_of_iterations": np.int64(7)},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_whatever_is_a_model_comes_back(tmp_path: Path, changes: dict) -> None:
    model = dataclasses.replace(classifier(), **changes)
    model.save(tmp_path / "m")
    loaded = Classifier.load(tmp_path / "m")
    for field in dataclasses.fields(Classifier):
        obtained = getattr(loaded, field.name)
        assert type(obtained) is type(getattr(model, field.name))
        assert np.array_equal(obtained, changes.get(field.name, getattr(model, field.name))), field.name


@pytest.mark.parametrize(
    "changes",
    [
        {"w": np.full((60, 1), np.nan)}, {"w": np.zeros((59, 1))}, {"w": np.zeros(60)}, {"w": "text"}, {"b": np.inf},
        {"w": np.full((60, 1), -LARGEST_WEIGHT)},
        {"b": None}, {"class_names": ("a", "a")}, {"class_names": ("a",)}, {"class_names": ("", "a")},
        {"class_names": (0, 1)}, {"size": (4, 5)}, {"size": (4, 5, 2)}, {"size": (4.0, 5, 3)}, {"size": (-4, -5, 3)},
        {"learning_rate": np.nan}, {"number_of_iterations": -1}, {"number_of_iterations": 1.5}, {"trained_on": None},
    ],
    ids=str,
)  # fmt: skip
def test_what_could_not_be_loaded_cannot_be_made(changes: dict) -> None:
    with pytest.raises(InputError, match="No model can be made of this: ") as caught:
        dataclasses.replace(classifier(), **changes)
    assert "\n" not in str(caught.value)


def test_probability() -> None:
    model = classifier()
    x = np.random.RandomState(1).randint(0, 256, (9, 4, 5, 3)).astype(np.uint8)
    expected = 1 / (1 + np.exp(-(x.reshape(9, -1) / 255 @ model.w[:, 0] + model.b)))
    assert model.probability(x) == pytest.approx(expected, abs=1e-14)
    assert model.predict(x).tolist() == (expected >= 0.5).astype(int).tolist()
    assert model.predict(x[:0]).tolist() == []
    one = model.probability(x[4])
    assert (type(one), one, model.predict(x[4])) == (float, model.probability(x)[4], int(one >= 0.5))
    for wrong in (x[0, 0], x[0] / 255, x / 255, x[:, :3], x[..., :1], x.tolist()):
        with pytest.raises(InputError, match=r"takes uint8 pictures \(n, 4, 5, 3\)"):
            model.probability(wrong)


def test_predict_files_goes_on_after_a_bad_one(tmp_path: Path) -> None:
    x = np.random.RandomState(2).randint(0, 256, (4, 5, 3)).astype(np.uint8)
    Image.fromarray(x).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    model = classifier()
    results = list(
        model.predict_files([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png", tmp_path / "a.png"])
    )
    assert [type(result) for result in results] == [Prediction, Failure, Failure, Prediction]
    first = results[0]
    assert isinstance(first, Prediction)
    assert first.probability == model.probability(x[None])[0]
    assert (first.number, first.label) == (int(first.probability >= 0.5), model.class_names[first.number])
    assert results[3] == first
    assert list(model.predict_files([tmp_path / "a.png"])) == [first]
    # One path is no list of paths: its letters are not files.
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        with pytest.raises(InputError, match="Give a list of picture files"):
            model.predict_files(path)


def test_grey_models_predict_coloured_files(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8, 3), (255, 0, 0), dtype=np.uint8)).save(tmp_path / "a.png")
    model = classifier((4, 5, 1))
    (result,) = model.predict_files([tmp_path / "a.png"])
    assert isinstance(result, Prediction)
    assert result.probability == model.probability(np.full((1, 4, 5, 1), 76, dtype=np.uint8))[0]


def write(path: Path, model: Classifier, tensors: dict | None = None, **changes: object) -> Path:
    """A model file with some of its metadata or tensors changed; None takes an entry away."""
    metadata = {
        "format": "xlogreg", "format_version": "1", "class_names": json.dumps(model.class_names),
        "size": json.dumps(model.size), "learning_rate": "0.005", "number_of_iterations": "2000",
        "history_sha256": "", "trained_on": "", "xlogreg_version": "", **changes,
    }  # fmt: skip
    metadata = {key: value for key, value in metadata.items() if value is not None}
    save_file(tensors or {"w": model.w, "b": np.array([model.b])}, path, {"xlogreg": json.dumps(metadata)})
    return path


BAD_METADATA = [
    {"format": "other"}, {"format": None}, {"format_version": "3"}, {"format_version": "x"}, {"class_names": "[]"},
    {"class_names": '["a", "a"]'}, {"class_names": "[1, 2]"}, {"class_names": "{"}, {"size": "[4, 5, 2]"},
    {"size": "[4, 5]"}, {"size": "[4, 6, 3]"}, {"size": "[-4, -5, 3]"}, {"size": "[4.0, 5, 3]"}, {"size": None},
    {"learning_rate": "fast"}, {"number_of_iterations": "1e400"}, {"trained_on": None}, {"learning_rate": "nan"},
    {"learning_rate": "inf"}, {"number_of_iterations": "-5"}, {"number_of_iterations": "9" * 5000},
    {"format_version": float("inf")}, {"format_version": 1.9}, {"format_version": "0"}, {"format_version": "9" * 5000},
    {"class_names": '["", "a"]'}, {"class_names": '"ab"'}, {"size": "[true, 20, 3]"}, {"trained_on": 3},
    {"size": "[1000000, 1000000, 3]"},
]  # fmt: skip


@pytest.mark.parametrize("changes", BAD_METADATA, ids=str)
def test_bad_metadata(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(InputError, match="is not a model that this xlogreg can use") as caught:
        Classifier.load(write(tmp_path / "m.safetensors", classifier(), **changes))
    assert "\n" not in str(caught.value)
    if changes == {"format_version": "3"}:
        assert "made by a newer xlogreg" in str(caught.value)
        assert "upgrade xlogreg" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_bad_tensors(tmp_path: Path) -> None:
    model, b = classifier(), np.array([0.0])
    broken = model.w.copy()
    broken[3] = np.nan
    for tensors in (
        {"w": model.w}, {"w": model.w, "b": b, "c": b}, {"w": np.float32(model.w), "b": b}, {"w": broken, "b": b},
        {"w": model.w[:-1], "b": b}, {"w": model.w.ravel(), "b": b}, {"w": model.w, "b": np.array([np.inf])},
        {"w": model.w, "b": np.zeros(2)},
    ):  # fmt: skip
        with pytest.raises(InputError, match="is not a model"):
            Classifier.load(write(tmp_path / "m.safetensors", model, tensors))


def test_files_that_are_no_models(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    contents = {
        "empty": b"", "text": b"hello, this is text and no model", "pickle": pickle.dumps(Bomb()),
        "long header": (2**60).to_bytes(8, "little") + b"{}", "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "nested": (50_000).to_bytes(8, "little") + b"[" * 50_000,
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="is not a model"):
            Classifier.load(tmp_path / name)
    save_file({"w": np.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(InputError, match="is not a model"):
        Classifier.load(tmp_path / "foreign")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(FileError, match="There is no model"):
        Classifier.load(tmp_path / "missing")
    with pytest.raises(FileError, match="holds no model"):
        Classifier.load(tmp_path)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    classifier().save(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    for length in [*range(0, len(content), 37), len(content) - 1]:
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(InputError, match="is not a model"):
            Classifier.load(tmp_path / "cut")
    (tmp_path / "longer").write_bytes(content + b"\0")
    with pytest.raises(InputError, match="is not a model"):
        Classifier.load(tmp_path / "longer")


def test_size_is_bounded_before_reading(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(module._MAX_BYTES + 1)  # a hole, no bytes on the disk
    with pytest.raises(InputError, match="too large for a model"):
        Classifier.load(tmp_path / "large")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(InputError, match="no regular file"):
            Classifier.load(path)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(FileError, match=r"is no name of a model|cannot be read"):
            Classifier.load(name)
    classifier().save(tmp_path / "m")
    with pytest.raises(FileError, match=r"cannot be read: Not a directory|There is no model"):
        Classifier.load(tmp_path / "m" / "below")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "read_regular", refuse)
    with pytest.raises(FileError, match="cannot be read: Permission denied"):
        Classifier.load(tmp_path / "m")
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(FileError, match="cannot be read: Permission denied"):
        Classifier.load(tmp_path / "m")


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="Cannot write"):
        classifier().save(tmp_path / "no folder" / "m")
    assert list(tmp_path.iterdir()) == []


def test_loading_lets_go_of_the_file(tmp_path: Path) -> None:
    classifier().save(tmp_path / "m")
    loaded = Classifier.load(tmp_path / "m")
    expected = loaded.w.copy()
    (tmp_path / "m").write_bytes(bytes(2000))  # a mapped file would change the weights
    assert np.array_equal(loaded.w, expected)
    assert loaded.w.flags.writeable


@settings(max_examples=200)
@given(st.data())
def test_mutated_files_never_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    classifier().save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        model = Classifier.load(path)
    except XlogregError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert np.isfinite(model.w).all()
        assert model.w.shape == (np.prod(model.size), 1)
        model.save(path)
        assert np.array_equal(Classifier.load(path).w, model.w)
