"""Exact sums against Python's own integers and fractions: any order, any chunking, any size."""

import functools
import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlogreg.arrays import namespace, to_host
from xlogreg.errors import InputError
from xlogreg.neuron import exact, products
from xlogreg.neuron.exact import (
    FEW,
    LOSS_ABOVE,
    LOSS_BITS,
    MAX_TERMS,
    PIXEL_BITS,
    PRODUCT_BITS,
    WEIGHT_BITS,
    WEIGHT_BITS_OF_FEW,
    bits_per_piece,
    exact_sum,
    exponent_of,
    loss_bits,
    split,
)
from xlogreg.neuron.products import BLOCK_TERMS, over_samples, round_whole
from xlogreg.neuron.reference import Reference, Sums, gradient_of, propagate_backward, propagate_forward


def fraction_sum(values: np.ndarray) -> Fraction:
    return sum((Fraction(float(value)) for value in values.ravel()), Fraction(0))


def values(seed: int, n: int, exponent: int = 0) -> np.ndarray:
    """n numbers below 2^exponent, over many orders of magnitude."""
    rng = np.random.RandomState(seed)
    return np.ldexp(rng.uniform(-1, 1, n), exponent - rng.randint(0, 40, n))


sizes = st.integers(1, 3000)
seeds = st.integers(0, 2**31 - 1)


@given(seeds, sizes, st.integers(-30, 30), st.sampled_from([0, PIXEL_BITS]))
def test_every_piece_is_a_whole_multiple_of_its_grid(seed: int, n: int, exponent: int, q: int) -> None:
    v = values(seed, n, exponent)
    length = bits_per_piece(n, q)
    pieces = split(v, exponent, n, q)
    rest = v
    for k, piece in enumerate(pieces, start=1):
        units = piece / 2.0 ** (exponent - min(k * length, PRODUCT_BITS))
        assert np.array_equal(units, np.rint(units))
        # n of them times the largest integer stay exactly representable.
        assert n * 2**q * np.abs(units).max() <= 2**52
        rest = rest - piece
    assert np.abs(rest).max() <= 2.0 ** (exponent - PRODUCT_BITS - 1)
    # All pieces together are v rounded to fixed point, ties to even.
    assert np.array_equal(sum(pieces), np.rint(v * 2.0 ** (PRODUCT_BITS - exponent)) * 2.0 ** (exponent - PRODUCT_BITS))


@given(seeds, sizes, st.integers(1, 400), st.integers(-20, 20))
def test_sums_are_exact_in_any_order_and_chunking(seed: int, n: int, chunk: int, exponent: int) -> None:
    v = values(seed, n, exponent)
    order = np.random.RandomState(seed).permutation(n)
    for piece in split(v, exponent, n, 0):
        true = fraction_sum(piece)
        parts = [piece[i : i + chunk].sum() for i in range(0, n, chunk)]
        assert Fraction(float(piece.sum())) == true
        assert Fraction(float(sum(parts, np.float64(0)))) == true
        assert Fraction(float(np.cumsum(piece[order])[-1])) == true
    assert exact_sum(v, exponent) == exact_sum(v[order], exponent) == exact_sum(v[::-1], exponent)


@given(seeds, sizes, st.integers(1, 8))
def test_products_with_pixels_are_exact(seed: int, n: int, columns: int) -> None:
    v = values(seed, n)
    pixels = np.random.RandomState(seed + 1).randint(0, 256, (n, columns))
    pixels[: n // 2] = 255
    for piece in split(v, 0, n, PIXEL_BITS):
        product = piece @ pixels.astype(np.float64)
        for column in range(columns):
            true = sum(
                (Fraction(float(a)) * int(p) for a, p in zip(piece, pixels[:, column], strict=True)), Fraction(0)
            )
            assert Fraction(float(product[column])) == true


@pytest.mark.parametrize("n", [1, 2, 3, 1900, 2**17, 2**18])
def test_the_worst_case_stays_exact(n: int) -> None:
    # All values at the bound, all pixels 255: the largest partial sums there can be.
    v = np.full(n, np.nextafter(1.0, 0))
    v[1::3] *= 0.75
    pixels = np.full(n, 255.0)
    for piece in split(v, 0, n, PIXEL_BITS):
        # Equal values: count them instead of adding a million fractions.
        numbers, counts = np.unique(piece, return_counts=True)
        true = sum((Fraction(float(a)) * 255 * int(c) for a, c in zip(numbers, counts, strict=True)), Fraction(0))
        assert Fraction(float(piece @ pixels)) == true
        assert Fraction(float((piece * pixels).sum())) == true
        assert Fraction(float(np.cumsum(piece * pixels)[-1])) == true


def fixed_point(v: np.ndarray, exponent: int) -> list[int]:
    """v as whole numbers of 2^(exponent - 52), as the split keeps it."""
    return np.rint(v * 2.0 ** (PRODUCT_BITS - exponent)).astype(np.int64).tolist()


def blockwise(v: np.ndarray, exponent: int, pixels: np.ndarray, chunk: int) -> np.ndarray:
    """The product as the reference computes it: whole sums of BLOCK_TERMS terms, each in chunks, added."""
    rows, at = pixels.astype(np.uint8), np.array([[exponent]], np.int32)
    blocks = [slice(i, i + products.BLOCK_TERMS) for i in range(0, len(v), products.BLOCK_TERMS)]
    sums: Any = sum(over_samples(rows[block], v[None, block], at, chunk) for block in blocks)
    return round_whole(sums, at, PRODUCT_BITS)[0][0]


def test_a_million_samples_of_a_few_features() -> None:
    n = 1_000_003
    rng = np.random.RandomState(5)
    v = rng.uniform(-1, 1, n)
    v[:1000] = 1.0
    pixels = rng.randint(0, 256, (n, 3)).astype(np.float64)
    order = rng.permutation(n)
    obtained = blockwise(v, 0, pixels, 100_000)
    assert obtained.tolist() == blockwise(v[order], 0, pixels[order], 77_777).tolist()
    whole = fixed_point(v, 0)
    for column in range(3):
        true = sum(a * b for a, b in zip(whole, pixels[:, column].astype(int).tolist(), strict=True))
        # The exact sum, rounded once: Python rounds the quotient of integers correctly.
        assert obtained[column] == true / 2**PRODUCT_BITS


@given(seeds, st.integers(1, 900), st.integers(1, 64), st.integers(-40, 40))
def test_products_are_rounded_once(seed: int, n: int, chunk: int, exponent: int) -> None:
    # Blocks of 64 terms instead of 131,072, so that many are added; the pieces are cut as for the real ones.
    v = values(seed, n, exponent)
    v[::7] = 2.0**exponent
    pixels = np.random.RandomState(seed).randint(0, 256, (n, 2)).astype(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "bits_per_piece", lambda n, q: bits_per_piece(BLOCK_TERMS, q))
        patch.setattr(products, "BLOCK_TERMS", 64)
        obtained = blockwise(v, exponent, pixels, chunk)
    one_block = blockwise(v, exponent, pixels, n)
    whole = fixed_point(v, exponent)
    for column in range(2):
        true = sum(a * b for a, b in zip(whole, pixels[:, column].astype(int).tolist(), strict=True))
        assert obtained[column] == one_block[column] == float(Fraction(true) * Fraction(2) ** (exponent - PRODUCT_BITS))


@given(seeds, sizes)
def test_the_sum_is_nearly_the_true_sum(seed: int, n: int) -> None:
    v = np.abs(values(seed, n))
    true = fraction_sum(v)
    bound = n * Fraction(1, 2 ** (PRODUCT_BITS + 1)) + true * Fraction(2, 2**53)
    assert abs(Fraction(float(exact_sum(v, 0))) - true) <= bound


@given(seeds, sizes, st.floats(0, 1e6))
def test_sums_of_losses_are_accurate(seed: int, n: int, largest: float) -> None:
    loss = np.random.RandomState(seed).uniform(0, 1, n) * largest
    true = fraction_sum(loss)
    bound = n * Fraction(1, 2 ** (LOSS_BITS - LOSS_ABOVE + 1)) + true * Fraction(3, 2**54)
    assert abs(Fraction(float(exact_sum(loss, LOSS_ABOVE, LOSS_BITS))) - true) <= bound


@pytest.mark.parametrize("n", [1, 3, 1900, 2**24, 2**24 + 1, 2**25, 2**25 + 1, MAX_TERMS])
def test_losses_of_any_number_of_samples_have_three_pieces(n: int) -> None:
    # The kernels have no more, and the grids of theirs.
    loss = np.random.RandomState(0).uniform(0, 1, 500) ** 9 * 2.0**LOSS_ABOVE
    pieces = split(loss, LOSS_ABOVE, n, 0, loss_bits(n))
    assert 2 <= len(pieces) <= 3
    length = bits_per_piece(n, 0)
    for k, piece in enumerate(pieces, start=1):
        units = piece / 2.0 ** (LOSS_ABOVE - min(k * length, loss_bits(n)))
        assert np.array_equal(units, np.rint(units))
        assert n * np.abs(units).max() <= 2**53
    cpu = pytest.importorskip("xlogreg.kernels.cpu")
    rest = loss
    *constants, third = cpu._loss_constants(n)
    assert third == (len(pieces) == 3)
    for constant, piece in zip(constants, pieces, strict=False):
        assert np.array_equal((rest + constant) - constant, piece)
        rest = rest - piece


def test_the_example_of_the_docstring() -> None:
    # So many bits of the integer factor that 4 are left for a piece.
    first, second = split(np.array([0.7, -0.3, 0.1]), 0, 3, 46, 8)
    assert (first * 16).tolist() == [11, -5, 2]
    assert (second * 256).tolist() == [3, 3, -6]
    pixels = np.array([200, 7, 255])
    assert (first @ pixels * 16, second @ pixels * 256) == (2675, -909)
    assert 2675 * 16 - 909 == 41891


def test_a_single_term_at_its_bound() -> None:
    for value in (1.0, -1.0, 0.85, -np.nextafter(1, 0)):
        for piece in split(np.array([value]), 0, 1, 0):
            assert float(piece[0] * 2.0**PRODUCT_BITS).is_integer()
        assert exact_sum(np.array([value]), 0) == np.rint(value * 2.0**52) * 2.0**-52


def test_exponents() -> None:
    v = np.array([[0.0, 0.0], [0.5, -0.9], [1.0, 0.3], [-(2.0**-1000), 0.0], [3e5, 1.0]])
    assert exponent_of(v).ravel().tolist() == [0, 0, 1, -900, 19]


def test_rows_have_their_own_grids(to_xp: Callable) -> None:
    v = np.stack([values(1, 50), values(2, 50, 12), np.zeros(50)])
    together = split(to_xp(v), exponent_of(to_xp(v)), 50, PIXEL_BITS)
    for row in range(3):
        alone = split(v[row : row + 1], exponent_of(v[row : row + 1]), 50, PIXEL_BITS)
        assert [to_host(piece)[row].tolist() for piece in together] == [piece[0].tolist() for piece in alone]


@pytest.mark.parametrize("seed", range(6))
def test_parts_of_the_samples_add_up_in_any_order(to_xp: Callable, seed: int) -> None:
    """However the samples are divided, on however many machines: whole numbers are added, and rounded once."""
    rng = np.random.RandomState(seed)
    m, d, models = 500, 30, 2
    rows = rng.randint(0, 256, (m, d)).astype(np.uint8)
    sign = np.where(rng.uniform(size=(models, m)) < 0.5, 1.0, -1.0)
    w, b = rng.normal(0, 1, (models, d)) * 10.0 ** rng.randint(-9, 1), rng.normal(0, 1, models)
    c, l2 = rng.uniform(0, 3, (models, m)), np.array([0.1, 0.0])
    expected = Reference(rows, sign, sample_weight=c, l2=l2).evaluate(w, b)
    rows, sign, c, w, b, l2 = map(to_xp, (rows, sign, c, w, b, l2))
    ends = [0, 1, *sorted(rng.choice(np.arange(2, m), 5, replace=False).tolist()), m]
    parts = [slice(*pair) for pair in itertools.pairwise(ends)]
    rng.shuffle(parts)
    outputs = [propagate_forward(rows[part], sign[:, part], w, b, None, c[:, part]) for part in parts]
    exponent = functools.reduce(namespace(w).maximum, [exponent_of(output.residuals) for output in outputs])
    sums = [
        propagate_backward(rows[part], output, exponent, m) for part, output in zip(parts, outputs, strict=True)
    ]
    obtained = gradient_of(functools.reduce(Sums.plus, sums), exponent, m, w, l2)
    for name in ("dw", "db", "cost"):
        assert to_host(getattr(obtained, name)).tolist() == getattr(expected, name).tolist()


def test_sizes() -> None:
    assert (bits_per_piece(1, 0), bits_per_piece(1, PIXEL_BITS), bits_per_piece(1900, PIXEL_BITS)) == (51, 44, 33)
    assert 2 * bits_per_piece(BLOCK_TERMS, PIXEL_BITS) == WEIGHT_BITS + 1
    assert 2 * bits_per_piece(FEW, PIXEL_BITS) >= WEIGHT_BITS_OF_FEW
    for n in (0, MAX_TERMS + 1):
        with pytest.raises(InputError, match="terms"):
            bits_per_piece(n, 0)
