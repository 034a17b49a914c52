"""Cost and gradient against 80 bits and more, over random trainings with costs from 1 down to 1e-15."""

from collections.abc import Iterator

import mpmath
import numpy as np
import pytest

from xlogreg.logistic import descend_many
from xlogreg.neuron.elementary import sigmoid
from xlogreg.neuron.reference import Reference

TRAININGS = 300


def true_gradient(
    rows: np.ndarray, sign: np.ndarray, w: np.ndarray, b: float
) -> tuple[mpmath.mpf, list[mpmath.mpf], mpmath.mpf]:
    """Cost, dw and db at these weights in 120 bits: the formulas as they stand, on weights that are taken as exact."""
    m, d = rows.shape
    w, b = [mpmath.mpf(float(weight)) for weight in w], mpmath.mpf(float(b))
    cost, dw, db = mpmath.mpf(0), [mpmath.mpf(0)] * d, mpmath.mpf(0)
    for row, side in zip(rows.tolist(), sign.astype(int).tolist(), strict=True):
        v = side * (mpmath.fdot(w, row) / 255 + b)
        cost += mpmath.log1p(mpmath.exp(v))
        r = side / (1 + mpmath.exp(-v))
        db += r
        dw = [total + r * pixel for total, pixel in zip(dw, row, strict=True)]
    return cost / m, [total / (255 * m) for total in dw], db / m


def trained(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, signs, weights and bias of a short training; those that separate the classes are made steeper."""
    rng = np.random.RandomState(seed)
    m, d = rng.randint(2, 25), int(2 ** rng.uniform(0, 6.5))
    y = rng.randint(0, 2, (1, m))
    y[0, :2] = 0, 1
    overlap = 256 if seed % 3 == 0 else 110
    rows = rng.randint(0, overlap, (m, d)) + (256 - overlap) * y[0][:, None]
    rows = rows.clip(0, 255).astype(np.uint8)
    result = descend_many(rows.T, y, [10 ** rng.uniform(-1, 0.5)], rng.randint(1, 200))
    sign = 1.0 - 2.0 * y
    w, b = result.w.copy(), result.b.copy()
    z = rows @ w[0] / 255 + b
    margin = -(sign * z).max()
    if margin > 0:
        steeper = max(1.0, min(rng.uniform(0, 34) / margin, 300 / np.abs(z).max()))
        w, b = w * steeper, b * steeper
    return rows, sign, w, b


@pytest.fixture
def precise() -> Iterator[None]:
    with mpmath.workprec(120):
        yield


def test_cost_and_gradient_of_random_trainings(precise: None) -> None:
    costs = []
    for seed in range(TRAININGS):
        rows, sign, w, b = trained(seed)
        obtained = Reference(rows, sign).evaluate(w, b)
        cost, dw, db = true_gradient(rows, sign[0], w[0], b[0])
        largest_z = np.abs(rows @ w[0] / 255 + b).max()
        error = float(abs(mpmath.mpf(float(obtained.cost[0])) - cost) / cost)
        assert error <= 4e-16 + 1.2e-16 * largest_z, (seed, error, largest_z)
        # The largest entry; where positive and negative residuals take most of it away, the larger of both.
        r = sigmoid(sign[0] * (rows @ w[0] / 255 + b))
        largest = max(r.mean(), (rows * r[:, None] / 255).mean(axis=0).max())
        for value, true in [*zip(obtained.dw[0], dw, strict=True), (obtained.db[0], db)]:
            assert abs(mpmath.mpf(float(value)) - true) <= 1e-14 * largest, seed
        costs.append(float(cost))
    # As small, and as many of them, as is claimed.
    assert min(costs) < 1e-14
    assert max(costs) > 0.1
    assert sum(cost < 1e-3 for cost in costs) > TRAININGS / 4


@pytest.mark.parametrize("steeper", [1, 30, 300])
def test_two_pictures_that_are_told_apart(precise: None, steeper: int) -> None:
    x, y = np.array([[0, 255]], np.uint8), np.array([[0, 1]])
    result = descend_many(x, y, [5.0], 3000)
    sign, w, b = 1.0 - 2.0 * y, result.w * steeper / 8, result.b * steeper / 8
    cost, *_ = true_gradient(x.T, sign[0], w[0], b[0])
    obtained = float(Reference(np.ascontiguousarray(x.T), sign).evaluate(w, b).cost[0])
    assert abs(mpmath.mpf(obtained) - cost) <= (4e-16 + 1.2e-16 * float(abs(w).max())) * cost
