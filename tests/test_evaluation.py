"""Measures against scikit-learn and against cases worked by hand."""

import json
import math

import numpy as np
import pytest

from xlogreg.errors import InputError
from xlogreg.models.evaluation import (
    MEASURES,
    Bin,
    calibration,
    calibration_error,
    log_loss,
    measure,
    roc_area,
    roc_curve,
)

NAMES = ("no", "yes")


def cases() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.RandomState(3)
    found = []
    for n in (2, 3, 10, 57, 400):
        y = random.randint(0, 2, n)
        y[:2] = 0, 1
        p = random.rand(n)
        # Plain; many ties; ties at the bins' edges, 0, 1 and the threshold.
        found += [(y, p), (y, np.round(p, 1)), (y, random.choice([0.0, 0.5, 1.0], n)), (y, np.full(n, 0.3))]
    return found


@pytest.mark.parametrize(("y", "p"), cases())
def test_equal_to_scikit_learn(y: np.ndarray, p: np.ndarray) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    from sklearn.calibration import calibration_curve

    found, guess = measure(y, p, NAMES), (p >= 0.5).astype(int)
    expected = {
        "accuracy": 100 * metrics.accuracy_score(y, guess),
        "balanced_accuracy": 100 * metrics.balanced_accuracy_score(y, guess),
        "recall": 100 * metrics.recall_score(y, guess),
        "f1": 100 * metrics.f1_score(y, guess),
        "roc_auc": metrics.roc_auc_score(y, p),
        "log_loss": metrics.log_loss(y, p),
        "brier": metrics.brier_score_loss(y, p),
    }
    if guess.any():
        expected["precision"] = 100 * metrics.precision_score(y, guess)
    else:
        assert found.precision is None
        assert found.undefined == {"precision": "no picture was predicted 'yes'"}
    for key, value in expected.items():
        assert getattr(found, key) == pytest.approx(value, rel=1e-12, abs=1e-12), key
    assert np.array(found.confusion).tolist() == metrics.confusion_matrix(y, guess).tolist()
    false, true, thresholds = roc_curve(y, p)
    for ours, theirs in zip((false, true, thresholds), metrics.roc_curve(y, p, drop_intermediate=False), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    share, mean = calibration_curve(y, p, n_bins=10)
    bins = [bin for bin in found.calibration if bin.pictures]
    np.testing.assert_allclose([bin.share_positive for bin in bins], share, rtol=1e-13)
    np.testing.assert_allclose([bin.mean_probability for bin in bins], mean, rtol=1e-13)


def test_by_hand() -> None:
    found = measure(np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.6, 0.4, 0.6, 0.2]), NAMES)
    assert found.confusion == ((1, 1), (1, 2))
    assert (found.pictures, found.positives) == (5, 3)
    assert found.accuracy == pytest.approx(60)
    assert found.precision == pytest.approx(200 / 3)
    assert found.recall == pytest.approx(200 / 3)
    assert found.f1 == pytest.approx(200 / 3)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2 * 100)
    # Pairs (positive, negative): 0.9 wins both, 0.6 ties once and wins once, 0.4 loses once and wins once.
    assert found.roc_auc == pytest.approx((2 + 1.5 + 1) / 6)
    assert found.brier == pytest.approx((0.01 + 0.16 + 0.36 + 0.36 + 0.04) / 5)
    assert found.log_loss == pytest.approx(-sum(map(math.log, (0.9, 0.6, 0.4, 0.4, 0.8))) / 5)
    # Bins (0.1, 0.2], (0.3, 0.4], (0.5, 0.6], (0.8, 0.9] hold 1, 1, 2 and 1.
    assert found.calibration_error == pytest.approx((0.2 + 0.6 + 2 * 0.1 + 0.1) / 5)
    assert found.calibration[5] == Bin(0.5, pytest.approx(0.6), 2, pytest.approx(0.6), 0.5)
    assert found.undefined == {}


def test_perfect_inverted_and_coin() -> None:
    y = np.array([0, 0, 1, 1])
    assert roc_area(y, np.array([0.1, 0.2, 0.8, 0.9])) == 1
    assert roc_area(y, np.array([0.9, 0.8, 0.2, 0.1])) == 0
    assert roc_area(y, np.full(4, 0.5)) == 0.5
    assert log_loss(y, np.full(4, 0.5)) == pytest.approx(math.log(2))
    assert measure(y, np.full(4, 0.5)).brier == 0.25
    # Certain and wrong: large, finite.
    assert 30 < log_loss(y, np.array([1.0, 1.0, 0.0, 0.0])) < 40


def test_order_does_not_matter() -> None:
    random = np.random.RandomState(1)
    y, p = random.randint(0, 2, 300), np.round(random.rand(300), 2)
    rows = random.permutation(300)
    assert roc_area(y, p) == roc_area(y[rows], p[rows])


@pytest.mark.parametrize(
    ("y", "p", "undefined"),
    [
        ([0, 0], [0.1, 0.2], {"precision", "recall", "f1", "balanced_accuracy", "roc_auc"}),
        ([0, 0], [0.1, 0.7], {"recall", "balanced_accuracy", "roc_auc"}),
        ([1, 1], [0.9, 0.7], {"balanced_accuracy", "roc_auc"}),
        ([1, 1], [0.1, 0.2], {"precision", "balanced_accuracy", "roc_auc"}),
        ([1, 0], [0.1, 0.2], {"precision"}),
    ],
)
def test_what_is_undefined_is_none_and_says_why(y: list[int], p: list[float], undefined: set[str]) -> None:
    found = measure(np.array(y), np.array(p), NAMES)
    assert set(found.undefined) == undefined
    assert {m.key for m in MEASURES if getattr(found, m.key) is None} == undefined
    for why in found.undefined.values():
        assert why.startswith("no picture")
        assert "'yes'" in why or "'no'" in why
    text = json.dumps(found.as_dict(), allow_nan=False)
    assert json.loads(text)["confusion"] == [list(row) for row in found.confusion]


def test_bins_cover_everything() -> None:
    p = np.linspace(0, 1, 101)
    bins = calibration(np.zeros(101, dtype=int), p)
    assert sum(bin.pictures for bin in bins) == 101
    assert [bin.pictures for bin in bins] == [11, *[10] * 9]
    assert calibration_error(bins) == pytest.approx(p.mean())


@pytest.mark.parametrize(
    ("y", "p", "words"),
    [
        ([], [], "no pictures"),
        ([0, 1], [0.5], "both be"),
        ([[0], [1]], [[0.5], [0.5]], "both be"),
        ([0, 2], [0.5, 0.5], "neither 0 nor 1"),
        ([0, 1], [0.5, 1.5], "between 0 and 1"),
        ([0, 1], [0.5, np.nan], "between 0 and 1"),
    ],
)
def test_bad_input(y: list, p: list, words: str) -> None:
    with pytest.raises(InputError, match=words):
        measure(np.array(y, dtype=int), np.array(p))
    with pytest.raises(InputError, match="both classes"):
        roc_curve(np.array([1, 1]), np.array([0.5, 0.4]))
