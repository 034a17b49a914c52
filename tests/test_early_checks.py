"""What is wrong with options, classes and --out is said before a picture is decoded, which may take long."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import Result
from PIL import Image

from xlogreg.data import folders, sources


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of a few pictures of noise."""
    path = tmp_path_factory.mktemp("own") / "photos"
    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "cow"):
        (path / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path / name / f"{number}.png")
    return path


@pytest.fixture
def photos(source: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on them, `model`, in this folder, and no picture is decoded from now on."""
    shutil.copytree(source, "photos")
    result = run("train", "photos", "--positive", "ant", "--size", 8, "--iterations", 2, "--out", "model", "--no-cache")
    assert result.code == 0, result.err

    def decoded(*_: object, **__: object) -> None:
        raise AssertionError("a picture was read")

    for module, name in ((folders, "decode"), (folders, "read_content"), (sources, "load_birds")):
        monkeypatch.setattr(module, name, decoded)
    monkeypatch.setattr("xlogreg.data.cifar10.read_cifar10_sets", decoded)
    return Path("photos")


TRAINING = [
    ((), "name the one to recognise with --positive"),
    (("--positive", "bees"), "Did you mean 'bee'?"),
    (("--positive", "7"), "There is no class '7'"),
    (("--positive", "ant", "--seed", -1), "The seed must be"),
    (("--positive", "ant", "--test-size", 400), "leaves nothing to train or to test on"),
    (("--positive", "ant", "--test-size", 1.5), "whole number of pictures or a share"),
    (("--positive", "ant", "--validation", 7), "leaves nothing to train or to validate on"),
    (("--positive", "ant", "--validation", "nan"), "leaves nothing to train or to validate on"),
    (("--positive", "ant", "--validation", 0.2, "--patience", 0), "The patience must be"),
    (("--positive", "ant", "--patience", 3), "hold some out"),
    (("--positive", "ant", "--max-unreadable", -1), "unreadable pictures must be"),
    (("--positive", "ant", "--size", "0x3"), "--size must be N or HxW"),
    (("--positive", "ant", "--size", 8, "--features", "hog"), "HOG needs pictures of at least 12 x 12"),
    (("--positive", "ant", "--size", 9, "--start", "model"), "The model to start from takes pictures of 8 x 8 x 3"),
    (("--positive", "ant", "--size", 8, "--features", "grey", "--start", "model"), "trained on the features pixels"),
    (("--positive", "ant", "--l2", -1), "The L2 penalty must be"),
    (("--positive", "ant", "--nesterov"), "needs a momentum above 0"),
    (("--positive", "ant", "--class-weight", "1"), "The class weights must be"),
    (("--positive", "ant", "--learning-rate", 0), "The learning rate must be"),
    (("--positive", "ant", "--iterations", 0), "The number of iterations must be"),
    (("--positive", "ant", "--device", "tpu"), "There is no device 'tpu'"),
    (("--positive", "ant", "--data", "model"), "--data goes with `cifar10`"),
    (("--positive", "ant", "--out", "model"), "The folder model already holds files"),
    (("--positive", "ant", "--out", "model/results.json"), "Cannot create the folder model/results.json"),
    (("--positive", "ant", "--out", "model/results.json/a/b"), "Cannot create the folder model/results.json/a/b"),
    (("--positive", "ant", "--out", "photos/new"), "The folder photos/new would be within that of the pictures"),
    (("--positive", "ant", "--out", "photos"), "The folder photos would be within that of the pictures"),
]  # fmt: skip


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_training_checks_first(run: Callable[..., Result], photos: Path, command: str) -> None:
    for options, words in TRAINING:
        result = run(command, photos, *options)
        assert result.refused(words), (options, result)
    if command == "sweep":
        for names, words in ((("ant", "0"), "A class is given twice"), (("ant", "elk"), "There is no class 'elk'")):
            result = run("sweep", photos, *(part for name in names for part in ("--positive", name)))
            assert words in result.err
    assert not Path("runs").exists()
    assert sorted(path.name for path in photos.iterdir()) == ["ant", "bee", "cow"]


def test_where_the_pictures_are_no_results_go_by_default(run: Callable[..., Result], photos: Path) -> None:
    os.chdir(photos)
    result = run("train", ".", "--positive", "ant")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "The folder runs would be within that of the pictures, .," in result.err
    assert not Path("runs").exists()


@pytest.mark.skipif(os.name == "nt" or getattr(os, "geteuid", lambda: 1)() == 0, reason="nothing binds who may all")
def test_a_folder_without_permission(run: Callable[..., Result], photos: Path) -> None:
    Path("mine").mkdir(mode=0o500)
    assert "Cannot write into the folder mine" in run("train", photos, "--positive", "ant", "--out", "mine/a").err


def test_cifar10_is_checked_by_its_names(run: Callable[..., Result], photos: Path) -> None:
    for options, words in (
        (("--positive", "brid"), "Did you mean 'bird'?"),
        (("--test-size", 5), "leave --test-size out"),
        (("--validation", 1), "leaves nothing"),
        (("--out", "model"), "already holds files"),
        (("--size", 9), "--size is for folders of your own pictures"),
    ):
        result = run("train", "cifar10", *options)
        assert result.refused(words), (options, result)


def test_evaluating_checks_first(run: Callable[..., Result], photos: Path) -> None:
    shutil.copytree(photos, "others")
    for arguments, words in (
        (("others", "--positive", "elk"), "There is no class 'elk'"),
        (("others", "--seed", -1), "The seed must be"),
        (("others", "--test-size", 99), "leaves nothing"),
        (("--positive", "elk",), "There is no class 'elk'"),
        (("--out", "model"), "already holds files"),
        (("--out", "photos/ant/x"), "would be within that of the pictures"),
        (("others", "--out", "others/x"), "would be within that of the pictures"),
    ):  # fmt: skip
        result = run("evaluate", "model", *arguments)
        assert result.refused(words), (arguments, result)
    # Another folder without the model's class.
    shutil.rmtree("others/ant")
    result = run("evaluate", "model", "others")
    assert "There is no class 'ant'" in result.err


def test_predicting_checks_first(run: Callable[..., Result], photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlogreg.predicting.batch.read_content", folders.read_content)
    Path("there.csv").touch()
    for arguments, words in (
        (("--threads", 0), "number of threads"),
        (("--csv", "--json"), "one format"),
        (("--out", "there.csv"), "is there already"),
        (("--out", "photos"), "photos does not say which format"),
        (("--out", "photos", "--csv"), "is no regular file"),
        (("--out", "nowhere/a.csv"), "create its folder first"),
        (("--out", "x.doc"), "does not say which format"),
    ):  # fmt: skip
        result = run("predict", "model", photos, *arguments)
        assert result.refused(words), (arguments, result)
