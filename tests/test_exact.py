"""Exact sums against Python's own integers and fractions: any order, any chunking, any size."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlogreg.backend import to_host
from xlogreg.errors import InputError
from xlogreg.exact import (
    LOSS_BITS,
    LOSS_EXPONENT,
    MAX_TERMS,
    PIXEL_BITS,
    PRODUCT_BITS,
    add_up,
    bits_per_piece,
    exact_sum,
    exponent_of,
    number_of_pieces,
    split,
)


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
        units = piece / 2.0 ** (exponent - k * length)
        assert np.array_equal(units, np.rint(units))
        # n of them times the largest integer stay exactly representable.
        assert n * 2**q * np.abs(units).max() <= 2**52
        rest = rest - piece
    assert np.abs(rest).max() <= 2.0 ** (exponent - len(pieces) * length - 1)


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
            true = sum((Fraction(float(a)) * int(p) for a, p in zip(piece, pixels[:, column], strict=True)), Fraction(0))
            assert Fraction(float(product[column])) == true


@pytest.mark.parametrize("n", [1, 2, 3, 1900, 2**18, 2**18 + 1, 1_000_003])
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


def test_a_million_samples_of_a_few_features() -> None:
    n = 1_000_003
    assert number_of_pieces(n, PIXEL_BITS) == 3
    rng = np.random.RandomState(5)
    v = rng.uniform(-1, 1, n)
    pixels = rng.randint(0, 256, (n, 3)).astype(np.float64)
    order = rng.permutation(n)
    pieces = split(v, 0, n, PIXEL_BITS)
    one = add_up([piece @ pixels for piece in pieces])
    other = add_up([piece[order] @ pixels[order] for piece in pieces])
    chunked = add_up([sum(piece[i : i + 777] @ pixels[i : i + 777] for i in range(0, n, 777)) for piece in pieces])
    assert one.tolist() == other.tolist() == chunked.tolist()
    # Three pieces keep 54 bits, so the sum is off by less than the true values' own last bits together.
    true = [fraction_sum(np.ldexp(v, 60)[:1000] * pixels[:1000, j]) for j in range(3)]
    first = add_up([piece[:1000] @ pixels[:1000] for piece in pieces])
    for a, b in zip(first, true, strict=True):
        assert abs(Fraction(float(a)) * 2**60 - b) < abs(b) * Fraction(1, 2**40)


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
    bound = n * Fraction(1, 2 ** (LOSS_BITS - LOSS_EXPONENT + 1)) + true * Fraction(3, 2**54)
    assert abs(Fraction(float(exact_sum(loss, LOSS_EXPONENT, LOSS_BITS))) - true) <= bound


def test_exponents() -> None:
    v = np.array([[0.0, 0.0], [0.5, -0.9], [1.0, 0.3], [-2.0**-1000, 0.0], [3e5, 1.0]])
    assert exponent_of(v).ravel().tolist() == [0, 0, 1, -900, 19]


def test_rows_have_their_own_grids(to_xp: Callable) -> None:
    v = np.stack([values(1, 50), values(2, 50, 12), np.zeros(50)])
    together = split(to_xp(v), exponent_of(to_xp(v)), 50, PIXEL_BITS)
    for row in range(3):
        alone = split(v[row : row + 1], exponent_of(v[row : row + 1]), 50, PIXEL_BITS)
        assert [to_host(piece)[row].tolist() for piece in together] == [piece[0].tolist() for piece in alone]


def test_sizes() -> None:
    assert (bits_per_piece(1, 0), bits_per_piece(1, PIXEL_BITS), bits_per_piece(1900, PIXEL_BITS)) == (52, 44, 33)
    assert [number_of_pieces(n, PIXEL_BITS) for n in (1, 1900, 2**18, 2**18 + 1, MAX_TERMS)] == [2, 2, 2, 3, 3]
    assert [number_of_pieces(n, 0, LOSS_BITS) for n in (1, 2**14, 2**14 + 1, MAX_TERMS)] == [2, 2, 3, 3]
    for n in (0, MAX_TERMS + 1):
        with pytest.raises(InputError, match="terms"):
            bits_per_piece(n, 0)
