"""Features: grey and HOG in exact arithmetic, the same bits everywhere, and models that remember what they look at."""

import ast
import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from skimage.feature import hog as skimage_hog

from xlogreg import load_birds, make_task, train
from xlogreg.errors import InputError
from xlogreg.images import kinds
from xlogreg.images.features import PIXELS, Features, sha256_of
from xlogreg.images.kinds.pixels import Pixels
from xlogreg.models.classifier import Classifier
from xlogreg.models.export import to_onnx
from xlogreg.models.weights import summary_picture, weight_views
from xlogreg.runs.run_folder import results

# Of the 2064 built-in pictures; equal on every machine.
GOLDEN = {
    Features("grey"): "a00b808c99d33c1d8916014a473282dafd5af7aa2258b19eaffdb8f060b2aaa3",
    Features("hog"): "bbd59d630872015801bfe86c164e7014d2d001b9ce500f413696ad4c355795e7",
    Features("hog", 8, 8, 2): "57e22378223999ea52957b8bda794505ffdfca1435057ca621975fe0109a986e",
}
BIRDS = load_birds().x


def random_pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("features", GOLDEN, ids=str)
def test_golden_digests(features: Features) -> None:
    assert sha256_of(features.rows(BIRDS)) == GOLDEN[features]


def test_pixels_are_a_view() -> None:
    x = random_pictures(5, 4, 6, 3)
    rows = PIXELS.rows(x)
    assert np.shares_memory(rows, x)
    assert np.array_equal(rows, x.reshape(5, -1))


def test_grey_is_rounded_luma() -> None:
    x = random_pictures(50, 6, 7, 3)
    exact = x.astype(object) @ np.array([299, 587, 114], dtype=object)
    assert np.array_equal(Features("grey").rows(x), ((exact + 500) // 1000).astype(np.uint8).reshape(50, -1))
    assert set(Features("grey").rows(np.full((1, 2, 2, 3), 255, dtype=np.uint8))[0]) == {255}
    one = random_pictures(3, 5, 5, 1)
    assert np.array_equal(Features("grey").rows(one), one.reshape(3, -1))


@pytest.mark.parametrize(
    ("orientations", "cell", "block"), [(9, 4, 3), (8, 8, 2), (12, 5, 1), (1, 3, 2), (18, 7, 4)], ids=str
)
def test_hog_is_scikit_images(orientations: int, cell: int, block: int) -> None:
    pictures = [(BIRDS[:60], -1), (random_pictures(20, 37, 45, 3), -1), (random_pictures(20, 32, 33, 1), None)]
    features = Features("hog", orientations, cell, block)
    for x, channels in pictures:
        expected = np.array([
            skimage_hog(
                picture if channels else picture[:, :, 0], orientations, (cell, cell), (block, block), "L2-Hys",
                channel_axis=channels,
            )
            for picture in x
        ])  # fmt: skip
        obtained = features.rows(x)
        assert obtained.shape == (len(x), features.length(x.shape[1:])) == expected.shape
        difference = np.abs(obtained - np.rint(255 * expected))
        assert difference.max() <= 1
        # Levels at the edge of two, and nothing else.
        assert (difference > 0).mean() < 2e-3
        assert np.abs(obtained - 255 * expected).max() < 0.6


def test_hog_of_plain_and_tiny_pictures() -> None:
    plain = np.full((2, 32, 32, 3), 77, dtype=np.uint8)
    assert not Features("hog").rows(plain).any()
    assert Features("hog", 9, 1, 1).rows(random_pictures(2, 1, 2, 3)).shape == (2, 18)
    with pytest.raises(InputError, match="at least 12 x 12 pixels, not 11 x 40; give a larger --size"):
        Features("hog").rows(random_pictures(2, 11, 40, 3))


def test_largest_blocks_stay_exact() -> None:
    # The steepest gradients there can be, in the largest block: sums of squares still are whole numbers.
    from xlogreg.images.kinds.hog import _gradient_tables

    magnitudes = _gradient_tables(9)[1]
    assert (32 * 32 * magnitudes.max()) ** 2 < 2**53
    for orientations in (*range(1, 25), 36, 60, 90, 180):
        # No angle near a border but those on it, so that the last bits of arctan2 do not matter.
        down, across = np.mgrid[-255:256, -255:256]
        position = np.rad2deg(np.arctan2(down, across)) % 180 * orientations / 180
        distance = np.abs(position - np.rint(position)) * 180 / orientations
        assert distance[distance > 1e-10].min() > 5e-6


@settings(max_examples=20)
@given(st.integers(1, 200), st.integers(0, 2**31))
def test_a_picture_has_the_same_features_in_any_company(n: int, seed: int) -> None:
    x = random_pictures(n, 13, 12, 3, seed=seed)
    features = Features("hog", 7, 4, 2)
    together = features.rows(x)
    assert np.array_equal(features.rows(x[n // 2 :]), together[n // 2 :])
    order = np.random.RandomState(seed).permutation(n)
    assert np.array_equal(features.rows(x[order]), together[order])
    assert np.array_equal(features.rows(np.asfortranarray(x)), together)


def test_progress_counts_all() -> None:
    seen: list[tuple[int, int]] = []
    Features("hog").rows(BIRDS[:150], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (150, 150)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    "wrong",
    [{"name": "sift"}, {"cell": 0}, {"cell": 2.0}, {"orientations": True}, {"cell": 16, "block": 3}, {"block": 33}],
    ids=str,
)
def test_wrong_parameters(wrong: dict) -> None:
    with pytest.raises(InputError) as caught:
        Features(**{"name": "hog", **wrong})
    assert "\n" not in str(caught.value)
    for x in (random_pictures(4, 5, 3), random_pictures(1, 4, 5, 2), BIRDS[:2] / 255, [[1]]):
        with pytest.raises(InputError, match="Features are of uint8 pictures"):
            PIXELS.rows(x)


@pytest.mark.parametrize("features", [Features("hog"), Features("hog", 8, 8, 2), Features("grey"), PIXELS], ids=str)
def test_a_model_remembers_its_features(features: Features, tmp_path: Path) -> None:
    task = make_task(load_birds(), "bird")
    (training,) = train(task, [0.05], 3, features=features)
    model = training.classifier
    # What was trained on is what new pictures become.
    assert np.array_equal(model.predict(task.x_test), training.prediction_test)
    model.save(tmp_path / "model.safetensors")
    loaded = Classifier.load(tmp_path)
    assert loaded.features == features
    assert np.array_equal(loaded.probability(task.x_test), model.probability(task.x_test))
    record = results(training)["features"]
    rows = features.rows(task.x_train), features.rows(task.x_test)
    assert record["sha256"] == sha256_of(*rows)
    assert (record["name"], record["length"]) == (features.name, rows[0].shape[1])
    (again,) = train(task, [0.05], 3, features=features, rows=rows, implementation="reference")
    assert again.history_sha256 == training.history_sha256


def test_features_that_do_not_fit_the_model() -> None:
    task = make_task(load_birds(), "bird")
    (training,) = train(task, [0.05], 1, features=Features("hog"))
    for changes in ({"features": PIXELS}, {"features": "hog"}, {"size": (8, 8, 3)}):
        with pytest.raises(InputError, match="No model can be made of this"):
            dataclasses.replace(training.classifier, **changes)


def test_files_of_format_1_and_odd_features(tmp_path: Path) -> None:
    metadata = {
        "format": "xlogreg", "format_version": "1", "class_names": '["a", "b"]', "size": "[12, 12, 3]",
        "learning_rate": "0.1", "number_of_iterations": "1", "history_sha256": "", "trained_on": "",
        "xlogreg_version": "",
    }  # fmt: skip
    path = tmp_path / "model.safetensors"

    def write(d: int = 432, **changes: str) -> Path:
        outer = {"xlogreg": json.dumps({**metadata, **changes})}
        save_file({"w": np.zeros((d, 1)), "b": np.zeros(1)}, path, outer)
        return path

    assert Classifier.load(write()).features == PIXELS
    good = '{"name": "hog", "orientations": 9, "cell": 4, "block": 3}'
    assert Classifier.load(write(81, format_version="2", features=good)).features == Features("hog")
    for bad in (
        "", "{}", "[]", "null", '"hog"', '{"name": "hog"}', '{"name": "sift"}', '{"name": ["hog"]}',
        good.replace("4", "4.0"),
        good.replace("4", "1e999"), good.replace("block", "blocks"), '{"name": "pixels", "cell": 4}', "[" * 5000,
    ):  # fmt: skip
        with pytest.raises(InputError, match="is not a model that this xlogreg can use") as caught:
            Classifier.load(write(81, format_version="2", features=bad))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="weights do not fit"):
        Classifier.load(write(80, format_version="2", features=good))
    with pytest.raises(InputError, match="damaged"):
        Classifier.load(write(format_version="2"))


class Halved(Pixels):
    """Every second pixel down and across, in a module as a newcomer would write it."""

    formats = ()

    def length(self, height: int, width: int, channels: int) -> int:
        return (height // 2) * (width // 2) * channels

    def rows(self, x: np.ndarray, progress: object = None) -> np.ndarray:
        return np.ascontiguousarray(x[:, 1::2, 1::2]).reshape(len(x), -1)

    def layout(self, w: np.ndarray, height: int, width: int, channels: int) -> np.ndarray:
        return w.reshape(height // 2, width // 2, channels)


def test_a_kind_is_a_module_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xlogreg.images.kinds.halved", SimpleNamespace(Halved=Halved))
    monkeypatch.setitem(kinds.KINDS, "halved", ("Halved", "every second pixel"))
    task = make_task(load_birds(), "bird")
    (training,) = train(task, [0.005], 3, features=Features("halved"))
    training.classifier.save(tmp_path / "model.safetensors")
    model = Classifier.load(tmp_path)
    assert model.features.describe() == {"name": "halved"}
    assert np.array_equal(model.predict(task.x_test), training.prediction_test)
    assert [view.picture.shape for view in weight_views(model)[0]] == [(16, 16, 3)] * 6
    assert summary_picture(model).shape == (16, 16, 3)
    with pytest.raises(InputError, match="A model of halved features cannot be exported"):
        to_onnx(model)


def test_nothing_but_the_table_names_a_kind() -> None:
    package = Path(kinds.__file__).parents[2]
    names = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        # "pixels" is a word of everyday, too: a table of the cache.
        if isinstance(node, ast.Constant) and node.value in {*kinds.KINDS} - {"pixels"}
    }
    # In grey.py it is what comes out of the graph.
    assert names == {"images/kinds/__init__.py", "images/kinds/grey.py"}
