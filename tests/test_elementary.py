"""exp and log1p against mpmath, to the ulp, and the same bits on every array module."""

from collections.abc import Callable

import mpmath
import numpy as np
import pytest

from xlogreg.arrays import to_host
from xlogreg.neuron import elementary


def ulps(values: np.ndarray, arguments: np.ndarray, true: Callable) -> float:
    """The largest distance to the true function, in units in the last place."""
    with mpmath.workprec(160):
        return max(
            float(
                abs(mpmath.mpf(float(value)) - true(mpmath.mpf(float(argument)))) / mpmath.mpf(float(np.spacing(value)))
            )
            for value, argument in zip(values, arguments, strict=True)
        )


def exp_arguments() -> np.ndarray:
    rng = np.random.RandomState(1)
    near_halves = -(np.arange(1, 400) + 0.5) * np.log(2)
    return np.concatenate([
        -rng.exponential(1, 1500), -rng.uniform(0, 708, 800), near_halves, np.nextafter(near_halves, 0),
        -(10.0 ** -rng.uniform(0, 300, 200)), [0.0, -0.0, -1.0, -708.0, -5e-324],
    ])  # fmt: skip


def log_arguments() -> np.ndarray:
    rng = np.random.RandomState(2)
    return np.concatenate([
        rng.uniform(0, 1, 2000), 10.0 ** -rng.uniform(0, 300, 500), 0.5 + rng.uniform(-1, 1, 300) * 1e-15,
        [0.0, 0.5, np.nextafter(0.5, 0), np.nextafter(0.5, 1), 1.0, np.nextafter(1, 0), 5e-324],
    ])  # fmt: skip


def test_exp_is_within_one_ulp() -> None:
    x = exp_arguments()
    assert ulps(elementary.exp_negative(x), x, mpmath.exp) < 1


def test_log1p_is_within_one_ulp() -> None:
    t = log_arguments()
    assert ulps(elementary.log1p_unit(t), t, lambda t: mpmath.log1p(t)) < 1


def test_sigmoid_and_softplus_are_accurate() -> None:
    v = np.concatenate([exp_arguments(), -exp_arguments()])
    p, loss = elementary.sigmoid_and_softplus(v)
    assert np.array_equal(p, elementary.sigmoid(v))
    clamped = np.maximum(v, -708)
    assert ulps(p, clamped, lambda v: 1 / (1 + mpmath.exp(-v))) < 2.5
    assert ulps(loss, clamped, lambda v: mpmath.log1p(mpmath.exp(v))) < 2.5


def test_known_values() -> None:
    assert elementary.exp_negative(np.array([0.0]))[0] == 1.0
    assert elementary.log1p_unit(np.array([0.0, 1.0])).tolist() == [0.0, np.log(2)]
    assert elementary.sigmoid(np.array([0.0]))[0] == 0.5


def test_beyond_the_normal_numbers() -> None:
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        p, loss = elementary.sigmoid_and_softplus(np.array([-1e6, -709.0, 709.0, 1e6, -np.inf]))
    assert np.isfinite(p).all()
    assert loss[3] == 1e6
    assert 0 < loss[0] < 1e-300
    assert p[[2, 3]].tolist() == [1.0, 1.0]


def test_nan_stays_nan() -> None:
    p, loss = elementary.sigmoid_and_softplus(np.array([np.nan]))
    assert np.isnan(p[0])
    assert np.isnan(loss[0])


@pytest.mark.parametrize("function", [elementary.exp_negative, elementary.sigmoid])
def test_same_bits_on_every_array_module(to_xp: Callable, function: Callable) -> None:
    x = exp_arguments()
    assert np.array_equal(to_host(function(to_xp(x))), function(x))


def test_arguments_are_not_changed() -> None:
    x = exp_arguments()
    before = x.copy()
    elementary.sigmoid_and_softplus(x)
    assert np.array_equal(x, before)


def test_neighbouring_arguments_keep_their_order() -> None:
    # Monotony where a reduction changes from one k to the next, and where log1p changes its branch.
    t = 0.5 + np.arange(-200, 200) * 2.0**-53
    assert (np.diff(elementary.log1p_unit(t)) >= 0).all()
