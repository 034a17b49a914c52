"""Softmax over several classes: reference, fused kernel and a stand-in for CuPy have one answer, and the right one."""

from typing import Any

import mpmath
import numpy as np
import pytest
import strict

from xlogreg.arrays import to_host
from xlogreg.errors import InputError
from xlogreg.neuron.elementary import log1p_positive, softmax_and_loss
from xlogreg.neuron.objective import Objective
from xlogreg.neuron.reference import Reference

EVERY_VARIANT = pytest.mark.every_variant


def problem(m: int, d: int, classes: int, models: int = 1, seed: int = 0) -> tuple[Any, ...]:
    """Pixels, signs of K neurons a model, sample weights and penalties."""
    rng = np.random.RandomState(seed)
    rows = rng.randint(0, 256, (m, d)).astype(np.uint8)
    labels = rng.randint(0, classes, (models, m))
    sign = np.where(labels[:, None] == np.arange(classes)[:, None], -1.0, 1.0).reshape(models * classes, m)
    weight = np.repeat(rng.uniform(0, 3, (models, m)), classes, axis=0)
    return rows, sign, weight, np.repeat(rng.uniform(0, 1, models), classes)


def assert_equal(one: Objective, other: Objective, seed: int, convert: Any = np.asarray) -> None:
    rng = np.random.RandomState(seed)
    (neurons, _), d = one.sign.shape, one.rows.shape[1]
    for scale in (0.0, 1e-3, 0.1, 1.0, 300.0, 1e6):
        w, b = rng.normal(0, 1, (neurons, d)) * scale, rng.normal(0, 1, neurons) * (scale > 0)
        with np.errstate(all="ignore"):
            expected, obtained = one.evaluate(w, b), other.evaluate(convert(w), convert(b))
        for name in ("cost", "dw", "db") if np.isfinite(expected.cost).all() else ("cost",):
            values = to_host(getattr(obtained, name)), getattr(expected, name)
            assert np.array_equal(*values, equal_nan=True), (name, scale)


@EVERY_VARIANT
@pytest.mark.parametrize(
    ("m", "d", "classes", "models"),
    [(1, 1, 2, 1), (300, 70, 3, 2), (64, 33, 10, 1), (7, 130, 17, 2), (200, 5, 40, 1), (600, 65, 5, 1)],
)
def test_the_fused_kernel_has_the_bits_of_the_reference(m: int, d: int, classes: int, models: int) -> None:
    cpu = pytest.importorskip("xlogreg.kernels.cpu")
    for seed in range(3):
        rows, sign, weight, l2 = problem(m, d, classes, models, seed)
        given: dict[str, Any] = [{}, {"sample_weight": weight}, {"l2": l2}][seed]
        pair = (kind(rows, sign, classes=classes, **given) for kind in (Reference, cpu.FusedCPU))
        assert_equal(*pair, seed)


@EVERY_VARIANT
def test_a_neuron_without_residuals_has_its_models_grid() -> None:
    """Probabilities of e^-708 times small weights are 0: the exponent is that of the model's other neurons."""
    cpu = pytest.importorskip("xlogreg.kernels.cpu")
    rows, sign, _, _ = problem(40, 70, 3)
    sign[2], sign[0] = 1.0, np.where(sign[2] < 0.0, -1.0, sign[0])
    w, b = np.random.RandomState(1).normal(0, 1, (3, 70)), np.array([0.0, 0.0, -1e5])
    one, other = (
        kind(rows, sign, classes=3, sample_weight=np.full((3, 40), 1e-30)).evaluate(w, b)
        for kind in (Reference, cpu.FusedCPU)
    )
    assert one.cost[0] > 0.0
    assert not one.dw[2].any()
    for name in ("cost", "dw", "db"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_device_arrays_have_the_bits_of_numpy() -> None:
    rows, sign, weight, l2 = problem(40, 9, 4, 2)
    plain = Reference(rows, sign, sample_weight=weight, l2=l2, classes=4)
    rows, sign, weight, l2 = map(strict.array, (rows, sign, weight, l2))
    assert_equal(plain, Reference(rows, sign, sample_weight=weight, l2=l2, classes=4), 0, strict.array)


def test_any_order_of_the_samples_and_the_features() -> None:
    rows, sign, _, _ = problem(150, 40, 6)
    rng = np.random.RandomState(1)
    w, b = rng.normal(0, 1, (6, 40)), rng.normal(0, 1, 6)
    expected = Reference(rows, sign, classes=6).evaluate(w, b)
    order, features = rng.permutation(150), rng.permutation(40)
    found = Reference(np.ascontiguousarray(rows[order]), np.ascontiguousarray(sign[:, order]), classes=6).evaluate(w, b)
    assert found.dw.tolist() == expected.dw.tolist()
    assert found.cost.tolist() == expected.cost.tolist()
    found = Reference(np.ascontiguousarray(rows[:, features]), sign, classes=6).evaluate(w[:, features], b)
    assert found.dw.tolist() == expected.dw[:, features].tolist()
    assert found.largest.tolist() == expected.largest.tolist()


def test_models_together_have_the_bits_of_each() -> None:
    rows, sign, weight, l2 = problem(90, 30, 3, 4)
    rng = np.random.RandomState(2)
    w, b = rng.normal(0, 1, (12, 30)), rng.normal(0, 1, 12)
    together = Reference(rows, sign, sample_weight=weight, l2=l2, classes=3).evaluate(w, b)
    for model in range(4):
        own = slice(3 * model, 3 * model + 3)
        alone = Reference(rows, sign[own], sample_weight=weight[own], l2=l2[own], classes=3).evaluate(w[own], b[own])
        assert alone.dw.tolist() == together.dw[own].tolist()
        assert alone.cost.tolist() == together.cost[model : model + 1].tolist()


@pytest.mark.parametrize("seed", range(8))
def test_residuals_and_losses_are_accurate_to_their_last_bits(seed: int) -> None:
    rng = np.random.RandomState(seed)
    classes, n = int(rng.choice([2, 3, 10, 50])), 20
    z = rng.normal(0, 1, (classes, n)) * 10.0 ** rng.uniform(-3, 2.5)
    z[:, :3] = z[:1, :3]  # ties: the first of them is the top
    wanted = rng.randint(0, classes, n) == np.arange(classes)[:, None]
    residuals, losses = softmax_and_loss(z, wanted)
    with mpmath.workprec(200):
        for s in range(n):
            powers = [mpmath.exp(mpmath.mpf(float(value))) for value in z[:, s]]
            total = sum(powers)
            y = int(wanted[:, s].argmax())
            for k in range(classes):
                others = sum(power for other, power in enumerate(powers) if other != y)
                true = -others / total if k == y else powers[k] / total
                # A difference of two z is rounded, and its exponential with it.
                apart = float(np.ptp(z[:, s]))
                assert abs(residuals[k, s] - true) <= (8 + classes + apart) * 2.0**-53 * abs(true) + 1e-300
            true = mpmath.log1p(sum(power for k, power in enumerate(powers) if k != y) / powers[y])
            assert abs(losses[s] - true) <= (8 * classes + apart) * 2.0**-53 * true + 1e-300


def test_the_gradient_is_that_of_the_cost() -> None:
    rows, sign, weight, l2 = problem(60, 12, 4)
    objective = Reference(rows, sign, sample_weight=weight, l2=l2, classes=4)
    rng = np.random.RandomState(3)
    w, b = rng.normal(0, 1, (4, 12)), rng.normal(0, 1, 4)
    found = objective.evaluate(w, b)
    for k, j in ((0, 0), (1, 5), (3, 11)):
        step = np.zeros_like(w)
        step[k, j] = 1e-6
        rise = objective.evaluate(w + step, b).cost[0] - objective.evaluate(w - step, b).cost[0]
        assert rise / 2e-6 == pytest.approx(found.dw[k, j], rel=1e-6, abs=1e-9)
        step = np.zeros_like(b)
        step[k] = 1e-6
        rise = objective.evaluate(w, b + step).cost[0] - objective.evaluate(w, b - step).cost[0]
        assert rise / 2e-6 == pytest.approx(found.db[k], rel=1e-6, abs=1e-9)


def test_log1p_of_more_than_one() -> None:
    edges = [0.0, 1.0, np.nextafter(1, 2), 3.0, 7.0, 999.0]
    t = np.concatenate([edges, np.random.RandomState(0).uniform(0, 1000, 300)])
    with mpmath.workprec(120):
        for value, log in zip(t.tolist(), log1p_positive(t).tolist(), strict=True):
            true = mpmath.log(1 + mpmath.mpf(value))
            assert abs(log - true) <= 1.5 * np.spacing(float(true))


def test_neurons_that_are_no_whole_models() -> None:
    rows, sign, _, _ = problem(10, 4, 3)
    with pytest.raises(InputError, match="sign"):
        Reference(rows, sign[:2], classes=3)
