"""Model files: what is saved comes back to the bit, and nothing else is taken for a model."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from xlogreg.classifier import Classifier, Failure, Prediction
from xlogreg.errors import FileError, InputError, XlogregError


def classifier(size: tuple[int, int, int] = (4, 5, 3), seed: int = 0) -> Classifier:
    rng = np.random.RandomState(seed)
    return Classifier(
        w=rng.normal(0, 0.3, (size[0] * size[1] * size[2], 1)), b=0.1, class_names=("not bird", "bird"), size=size,
        learning_rate=0.005, number_of_iterations=2000, history_sha256="ab" * 32, trained_on="Vögel <&>",
        xlogreg_version="0.1.0",
    )  # fmt: skip


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


def test_probability() -> None:
    model = classifier()
    x = np.random.RandomState(1).randint(0, 256, (9, 4, 5, 3)).astype(np.uint8)
    expected = 1 / (1 + np.exp(-(x.reshape(9, -1) / 255 @ model.w[:, 0] + model.b)))
    assert model.probability(x) == pytest.approx(expected, abs=1e-14)
    assert model.predict(x).tolist() == (expected >= 0.5).astype(int).tolist()
    assert model.predict(x[:0]).tolist() == []
    for wrong in (x[0], x / 255, x[:, :3], x[..., :1]):
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
    {"format": "other"}, {"format": None}, {"format_version": "2"}, {"format_version": "x"}, {"class_names": "[]"},
    {"class_names": '["a", "a"]'}, {"class_names": "[1, 2]"}, {"class_names": "{"}, {"size": "[4, 5, 2]"},
    {"size": "[4, 5]"}, {"size": "[4, 6, 3]"}, {"size": "[-4, -5, 3]"}, {"size": "[4.0, 5, 3]"}, {"size": None},
    {"learning_rate": "fast"}, {"number_of_iterations": "1e400"}, {"trained_on": None},
]  # fmt: skip


@pytest.mark.parametrize("changes", BAD_METADATA, ids=str)
def test_bad_metadata(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(InputError, match="is not a model that this xlogreg can use") as caught:
        Classifier.load(write(tmp_path / "m.safetensors", classifier(), **changes))
    assert "\n" not in str(caught.value)
    if changes == {"format_version": "2"}:
        assert "upgrade xlogreg" in str(caught.value)


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
        assert model.w.shape == (60, 1)
        assert np.isfinite(model.w).all()
