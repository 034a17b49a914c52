"""The built-in birds and the task made of them: the tutorial's exact arrays, and every other class."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xlogreg.data import birds
from xlogreg.data.birds import load_birds
from xlogreg.data.pictures import CIFAR10_CLASSES, Pictures, class_number
from xlogreg.data.task import as_columns, make_task, make_tasks
from xlogreg.errors import FileError, InputError


@pytest.fixture(scope="module")
def built_in() -> Pictures:
    return load_birds()


def small(labels: list[int]) -> Pictures:
    x = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), dtype=np.uint8)
    return Pictures(x, np.array(labels), ("a", "b", "c"), np.arange(len(labels)), "test")


def tutorial_arrays(batch: Path) -> tuple[np.ndarray, ...]:
    """The tutorial's own steps, on a batch that the tests trust."""
    with open(batch, "rb") as file:
        content = pickle.load(file, encoding="latin1")
    x = np.array(content["data"]).reshape(10000, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.array(content["labels"])
    x_birds, x_rest = x[labels == 2], x[labels != 2][:1032]
    x, y = np.concatenate([x_birds, x_rest]), np.concatenate([np.ones(1032, dtype=int), np.zeros(1032, dtype=int)])
    np.random.seed(0)
    np.random.shuffle(x)
    np.random.seed(0)
    np.random.shuffle(y)
    return (
        x[:1900].reshape(1900, -1).T, y[:1900].reshape(1, -1), x[1900:].reshape(164, -1).T, y[1900:].reshape(1, -1)
    )  # fmt: skip


def test_the_tutorials_exact_arrays(built_in: Pictures, real_data: Path) -> None:
    expected = tutorial_arrays(real_data / "cifar-10-batches-py" / "data_batch_1")
    task = make_task(built_in, "bird")
    obtained = (*as_columns(task.x_train, task.y_train), *as_columns(task.x_test, task.y_test))
    for one, other in zip(obtained, expected, strict=True):
        assert np.array_equal(one, other)
    assert [array.shape for array in obtained] == [(3072, 1900), (1, 1900), (3072, 164), (1, 164)]


def test_the_script_makes_the_built_in_files_again(tmp_path: Path, real_data: Path) -> None:
    script = Path(__file__).parents[1] / "datasets" / "make_birds.py"
    batch = real_data / "cifar-10-batches-py" / "data_batch_1"
    done = subprocess.run(
        [sys.executable, str(script), str(batch), str(tmp_path)], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(script.parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == birds.SHA256
    assert (tmp_path / "birds.csv").read_bytes() == (script.parent / "birds.csv").read_bytes()
    from PIL import Image

    with Image.open(tmp_path / "birds.png") as made, Image.open(script.parent / "birds.png") as committed:
        assert np.array_equal(np.asarray(made), np.asarray(committed))


def test_built_in_pictures(built_in: Pictures) -> None:
    assert built_in.x.shape == (2064, 32, 32, 3)
    assert built_in.x.dtype == np.uint8
    assert (built_in.labels == 2).sum() == 1032
    assert (np.diff(built_in.index) > 0).all()
    assert set(built_in.labels.tolist()) == set(range(10))


def test_missing_and_changed_built_in_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(birds, "_FOLDERS", (tmp_path,))
    with pytest.raises(FileError, match="install xlogreg again"):
        load_birds()
    (tmp_path / "birds.png").write_bytes(b"not a picture")
    with pytest.raises(FileError, match="install xlogreg again"):
        load_birds()
    monkeypatch.undo()
    monkeypatch.setattr(birds, "SHA256", "0" * 64)
    with pytest.raises(InputError, match="have changed"):
        load_birds()


@pytest.mark.parametrize("positive", ["cat", "3", 3, "Ship", "airplane"])
def test_any_class_by_name_or_number(built_in: Pictures, positive: str | int) -> None:
    task = make_task(built_in, positive)
    number = class_number(positive, CIFAR10_CLASSES)
    count = int((built_in.labels == number).sum())
    assert len(task.y_train) + len(task.y_test) == 2 * count
    assert task.y_train.sum() + task.y_test.sum() == count
    assert task.class_names == (f"not {CIFAR10_CLASSES[number]}", CIFAR10_CLASSES[number])


def test_unknown_class_suggests_the_near_miss() -> None:
    with pytest.raises(InputError, match=r"no class 'birdd'.*plane, car.*mean 'bird'"):
        class_number("birdd", CIFAR10_CLASSES)
    for wrong in ("10", "-1", "", "2.0", "²"):
        with pytest.raises(InputError, match="There is no class"):
            class_number(wrong, CIFAR10_CLASSES)


def test_balance() -> None:
    pictures = small([0, 1, 1, 2, 1, 0, 2, 2, 1, 2])
    first = make_task(pictures, "a", test_size=1)
    assert sorted(np.concatenate([first.x_train, first.x_test])[:, 0, 0, 0].tolist()) == [0, 1, 2, 5]
    drawn = [make_task(pictures, "a", balance="random", seed=seed, test_size=1) for seed in (0, 0, 1, 2, 3)]
    chosen = [sorted(np.concatenate([task.x_train, task.x_test])[:, 0, 0, 0].tolist()) for task in drawn]
    assert chosen[0] == chosen[1]
    assert len({tuple(rows) for rows in chosen}) > 1
    assert all({0, 5} < set(rows) and len(rows) == 4 for rows in chosen)
    everything = make_task(pictures, "a", balance="none", test_size=1)
    assert len(everything.y_train) == 9
    # More wanted pictures than others: both are cut to the same number.
    assert len(make_task(small([0, 0, 0, 1, 2]), "a", test_size=1).y_train) == 3


def test_several_classes_share_their_pictures() -> None:
    pictures = small([0, 1, 1, 2, 1, 0, 2, 2, 1, 2])
    tasks = make_tasks(pictures, ["b", "c"], test_size=3)
    for task, positive in zip(tasks, "bc", strict=True):
        alone = make_task(pictures, positive, balance="none", test_size=3)
        for name in ("x_train", "y_train", "x_test", "y_test"):
            assert np.array_equal(getattr(task, name), getattr(alone, name))
        assert task.x_train is tasks[0].x_train


def test_separate_test_pictures() -> None:
    task = make_task(small([0, 1, 2, 0]), "a", test=small([1, 1, 0]))
    assert (len(task.y_train), len(task.y_test), int(task.y_test.sum())) == (4, 2, 1)
    with pytest.raises(InputError, match="test pictures of its own"):
        make_task(small([0, 1]), "a", test=small([0, 1]), test_size=1)


def test_test_size(built_in: Pictures) -> None:
    assert len(make_task(built_in, "bird").y_test) == 164
    assert len(make_task(built_in, "bird", test_size=0.25).y_test) == 516
    assert len(make_task(built_in, "bird", test_size=100.0).y_test) == 100


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        ([0, 0], {}, "All pictures .* training needs both"),
        ([1, 2], {}, "no picture of class 'a'"),
        ([0, 1], {"test_size": 1}, "one label"),
        ([0, 1, 0, 1], {"test_size": 4}, "leaves nothing"),
        ([0, 1, 0, 1], {"test_size": 0}, "leaves nothing"),
        ([0, 1, 0, 1], {"test_size": 1.5}, "whole number of pictures or a share"),
        ([0, 1, 0, 1], {"test_size": float("nan")}, "whole number of pictures or a share"),
        ([0, 1, 0, 1], {"test_size": float("inf")}, "whole number of pictures or a share"),
        ([0, 1, 0, 1], {"balance": "some"}, "no balance"),
        ([0, 1, 0, 1], {"seed": -1}, "seed"),
    ],
)
def test_bad_tasks_get_one_clear_sentence(labels: list[int], options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_task(small(labels), "a", **options)
