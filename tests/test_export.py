"""Models for other programs: onnxruntime gives the same labels, `.npz` needs no pickle, files are not overwritten."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers import Result, classifier

from xlogreg import load_birds, make_task, train
from xlogreg.errors import FileError, InputError
from xlogreg.images.features import Features
from xlogreg.models.classifier import Classifier
from xlogreg.models.export import export, to_npz, to_onnx


@pytest.fixture
def run(run: Callable[..., Result]) -> Callable[..., Result]:
    """The command line in a folder with a model in it."""
    classifier().save("model")
    return run


@pytest.fixture(scope="module")
def birds() -> Classifier:
    (training,) = train(make_task(load_birds()), [0.005], 200)
    return training.classifier


def model_of_hog(side: int) -> Classifier:
    hog, size = Features("hog"), (side, side, 3)
    return Classifier(np.ones((hog.length(size), 1)), 0.0, ("a", "b"), size, 0.1, 1, "", "", "", hog)


def answers(content: bytes, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    label, probability = session.run(["label", "probability"], {"pictures": pictures})
    return label, probability


def test_a_model_of_lbfgs_has_no_learning_rate(tmp_path: Path) -> None:
    model = dataclasses.replace(classifier(), learning_rate=None)
    assert Classifier.from_bytes(model.to_bytes()).learning_rate is None
    assert b"learning_rate" not in model.to_bytes()
    with np.load(export(model, tmp_path / "m.npz")) as arrays:
        assert "learning_rate" not in arrays.files
        assert arrays["number_of_iterations"] == 2000
    metadata = {entry.key for entry in onnx.load_from_string(to_onnx(model)).metadata_props}
    assert "number_of_iterations" in metadata
    assert "learning_rate" not in metadata
    # One that there was is kept as it was.
    assert Classifier.from_bytes(classifier().to_bytes()).learning_rate == 0.005
    with pytest.raises(InputError, match="learning rate"):
        dataclasses.replace(model, learning_rate=float("nan"))


def test_onnxruntime_agrees_on_all_the_birds(birds: Classifier) -> None:
    x = load_birds().x
    assert len(x) >= 2000
    label, probability = answers(to_onnx(birds), x)
    assert (label.dtype, probability.dtype) == (np.int64, np.float64)
    assert label.tolist() == birds.predict(x).tolist()
    assert np.abs(probability - birds.probability(x)).max() < 1e-14
    assert 0 < label.sum() < len(x)
    # Any number of pictures, none too.
    for count in (0, 1, 3):
        assert answers(to_onnx(birds), x[:count])[0].tolist() == label[:count].tolist()


def test_onnx_of_extreme_and_grey_models() -> None:
    x = np.random.RandomState(1).randint(0, 256, (20, 4, 5, 1)).astype(np.uint8)
    small = classifier((4, 5, 1))
    for scale in (1e-3, 1.0, 1e3):
        model = dataclasses.replace(small, w=small.w * scale)
        label, probability = answers(to_onnx(model), x)
        assert label.tolist() == model.predict(x).tolist()
        assert np.abs(probability - model.probability(x)).max() < 1e-12


def test_onnx_says_what_it_is(birds: Classifier) -> None:
    content = to_onnx(birds)
    assert content == to_onnx(birds)
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["class_names"]) == ["not bird", "bird"]
    assert json.loads(metadata["size"]) == [32, 32, 3]
    assert metadata["history_sha256"] == birds.history_sha256
    assert [value.name for value in model.graph.input] == ["pictures"]
    odd = dataclasses.replace(birds, class_names=("not \udcff", "<b>\udcff"), trained_on="\udce9")
    metadata = {entry.key: entry.value for entry in onnx.load_model_from_string(to_onnx(odd)).metadata_props}
    assert tuple(json.loads(metadata["class_names"])) == odd.class_names


def test_grey_features_are_exported_and_others_refused() -> None:
    rng = np.random.RandomState(2)
    x = rng.randint(0, 256, (50, 4, 5, 3)).astype(np.uint8)
    whole = classifier()
    model = dataclasses.replace(whole, w=whole.w[:20], features=Features("grey"))
    label, probability = answers(to_onnx(model), x)
    assert probability == pytest.approx(model.probability(x), abs=1e-14)
    assert label.tolist() == model.predict(x).tolist()
    hog = model_of_hog(32)
    for write, refused, name in ((to_onnx, hog, "hog"), (to_npz, hog, "hog"), (to_npz, model, "grey")):
        with pytest.raises(InputError, match=f"A model of {name} features cannot be exported") as caught:
            write(refused)
        assert "\n" not in str(caught.value)


def test_npz_has_plain_arrays(birds: Classifier, tmp_path: Path) -> None:
    path = export(birds, tmp_path / "model.npz")
    with np.load(path, allow_pickle=False) as arrays:
        assert np.array_equal(arrays["w"], birds.w)
        assert arrays["b"] == birds.b
        assert arrays["size"].tolist() == [32, 32, 3]
        assert arrays["class_names"].dtype.kind == "U"
        assert arrays["class_names"].tolist() == ["not bird", "bird"]
        assert str(arrays["history_sha256"]) == birds.history_sha256
        x = load_birds().x[:9]
        probability = 1 / (1 + np.exp(-(x.reshape(9, -1) / 255 @ arrays["w"] + arrays["b"])))
    assert probability[:, 0] == pytest.approx(birds.probability(x), abs=1e-14)
    assert to_npz(birds) == to_npz(birds)


def test_files_are_not_overwritten(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("export", "model", "m.onnx")
    assert (result.code, result.err) == (0, "")
    assert result.out == f"m.onnx: {Path('m.onnx').stat().st_size:,} bytes\n"
    content = Path("m.onnx").read_bytes()
    assert content == to_onnx(Classifier.load("model"))
    result = run("export", "model", "m.onnx")
    assert result.code == 2
    assert result.err == "Error: m.onnx is there already; choose another name, or replace it with --force.\n"
    assert run("export", "model", "m.onnx", "--force", "--format", "npz").code == 0
    with np.load("m.onnx", allow_pickle=False) as arrays:
        assert "w" in arrays
    before = sorted(tmp_path.iterdir())
    for out, words in (("m", "could be ONNX or npz"), ("no/where.npz", "Cannot write"), ("m.pkl", "ONNX or npz")):
        result = run("export", "model", out)
        assert result.code == 2
        assert words in result.err
        assert result.err.count("\n") == 1
    Path("folder.npz").mkdir()
    with pytest.raises(FileError, match="no regular file"):
        export(classifier(), "folder.npz", force=True)
    Path("folder.npz").rmdir()
    if hasattr(os, "mkfifo"):
        # Another program's, which would be gone.
        os.mkfifo("pipe.npz")
        with pytest.raises(FileError, match=r"pipe\.npz is no regular file; choose another name"):
            export(classifier(), "pipe.npz", force=True)
        Path("pipe.npz").unlink()
    assert sorted(tmp_path.iterdir()) == before


def test_without_onnx_one_sentence_says_so() -> None:
    code = """
import sys; sys.modules["onnx"] = None
from helpers import classifier
from xlogreg.models.export import to_npz, to_onnx
from xlogreg.errors import InputError
to_npz(classifier())
try: to_onnx(classifier())
except InputError as error: print(error)
"""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]{code}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("ONNX needs the package onnx, which is not installed; pip install onnx,"), done.stderr


def test_models_of_hog_are_refused_before_a_file_is_asked_for(run: Callable[..., Result], tmp_path: Path) -> None:
    model = model_of_hog(16)
    model.save("hog")
    Path("there.onnx").write_text("mine")
    sentence = "Error: A model of hog features cannot be exported: neither ONNX nor npz can hold how they are computed;"
    for rest in ((), ("there.onnx",), ("there.onnx", "--force"), ("no/where.npz",), ("what",)):
        result = run("export", "hog", *rest)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        assert result.err.startswith(sentence)
    assert Path("there.onnx").read_text() == "mine"
    grey = dataclasses.replace(model, w=np.ones((256, 1)), features=Features("grey"))
    words = r"of grey features cannot be exported to npz, .*; export it to onnx instead\."
    with pytest.raises(InputError, match=words):
        export(grey, "there.npz")
    result = run("export", "model")
    assert result.code == 2
    assert result.err == "Error: Name the file to write, .onnx or .npz: xlogreg export model model.onnx.\n"
