"""Exact sums over pixels, forward over the features and backward over the samples: pieces, blocks and chunks.

The pieces of `exact` are multiplied with pixels by the array module's own matmul, in chunks of samples that are
converted to float64 one at a time. No block and no chunk changes a bit.
"""

from collections.abc import Iterator
from typing import Any

from ..arrays import namespace
from .exact import PIXEL_BITS, PRODUCT_BITS, exponent_of, power_of_two, split, two_sum, weight_bits

Array = Any

# A chunk of this many float64 stays in a core's second-level cache on the CPU and gives a GPU enough to do.
_CHUNK_ELEMENTS = {"numpy": 32 * 3072}
_CHUNK_ELEMENTS_GPU = 2**26
# So many products sum exactly in two float64 pieces; more are summed in blocks.
BLOCK_TERMS = 2**17


def split_for_products(v: Array, exponent: Array | int, n: int, bits: int) -> Array:
    """The two pieces of v (M, n) for exact products with n pixels, one below the other: (2 M, n).

    With more than `BLOCK_TERMS` terms the pieces are those of that many: the caller sums in blocks.
    """
    return namespace(v).concatenate(split(v, exponent, min(n, BLOCK_TERMS), PIXEL_BITS, bits))


def add_products(blocks: list[Array], exponent: Array | int, bits: int) -> tuple[Array, Array]:
    """The exact sum of products from the sums of its blocks, as two numbers: the sum rounded once, and the rest.

    Parameters
    ----------
    blocks : for each block of at most `BLOCK_TERMS` terms the sums of the two pieces, (2 M, columns) float64
    exponent, bits : of the values that were split: a number, or (M, 1), and a number

    Returns
    -------
    total, rest : (M, columns) float64 each; total + rest is the exact sum, |rest| at most half a unit of total's last
        place
    """
    xp = namespace(*blocks)
    models = blocks[0].shape[0] // 2
    if len(blocks) == 1:
        return two_sum(blocks[0][:models], blocks[0][models:])
    # With L = 27 bits, in units of the grids: first pieces 2^(e - 27), second pieces 2^(e - bits).
    to_units = 1.0 / power_of_two(xp, exponent)
    first: Any = 0
    second: Any = 0
    finite: Any = True
    for block in blocks:
        # Infinities and NaN have no integer, and must not be lost.
        finite = finite & xp.isfinite(block[:models]) & xp.isfinite(block[models:])
        whole = xp.where(xp.isfinite(block), block, 0.0)
        first = first + (whole[:models] * to_units * 2.0**27).astype(xp.int64)
        second = second + (whole[models:] * to_units * 2.0**bits).astype(xp.int64)
    # Two halves that float64 holds exactly: 2^36 high + low.
    carry = bits - 27
    first = first + (second >> carry)
    high = first >> (36 - carry)
    low = ((first & (2 ** (36 - carry) - 1)) << carry) | (second & (2**carry - 1))
    unit = power_of_two(xp, exponent) * 2.0**-bits
    total, rest = two_sum(high.astype(xp.float64) * 2.0**36 * unit, low.astype(xp.float64) * unit)
    return xp.where(finite, total, xp.nan), rest


def over_features(rows: Array, w: Array, chunk: int | None = None) -> tuple[Array, Array]:
    """P . w for all samples and models, (M, m), as the exact sum rounded once and its rest (see `add_products`).

    rows : (m, d) uint8; w : (M, d) float64; chunk : samples converted at a time
    """
    xp = namespace(rows, w)
    m, d = rows.shape
    exponent, bits = exponent_of(w), weight_bits(d)
    pieces = split_for_products(w, exponent, d, bits)
    blocks = [xp.empty((len(pieces), m), dtype=xp.float64) for _ in range(0, d, BLOCK_TERMS)]
    for start, samples in float_chunks(rows, chunk):
        for i, block in enumerate(blocks):
            part = slice(i * BLOCK_TERMS, (i + 1) * BLOCK_TERMS)
            block[:, start : start + len(samples)] = pieces[:, part] @ samples[:, part].T
    return add_products(blocks, exponent, bits)


def over_samples(rows: Array, r: Array, exponent: Array, chunk: int | None = None) -> Array:
    """r . P for all features and models, (M, d): the exact sum rounded once.

    rows : (m, d) uint8; r : (M, m) float64, |r| < 2^exponent, (M, 1); chunk : samples converted at a time
    """
    xp = namespace(rows, r)
    m, d = rows.shape
    pieces = split_for_products(r, exponent, m, PRODUCT_BITS)
    blocks = []
    for first in range(0, m, BLOCK_TERMS):
        sums = xp.zeros((len(pieces), d), dtype=xp.float64)
        for start, samples in float_chunks(rows[first : first + BLOCK_TERMS], chunk):
            sums += pieces[:, first + start : first + start + len(samples)] @ samples
        blocks.append(sums)
    return add_products(blocks, exponent, PRODUCT_BITS)[0]


def float_chunks(rows: Array, chunk: int | None) -> Iterator[tuple[int, Array]]:
    """(start, samples as float64) for each chunk of rows; the samples are valid until the next are asked for."""
    xp = namespace(rows)
    if rows.dtype == xp.float64:
        step = chunk or len(rows)
        for start in range(0, len(rows), step):
            yield start, rows[start : start + step]
        return
    step = min(len(rows), chunk or max(1, _CHUNK_ELEMENTS.get(xp.__name__, _CHUNK_ELEMENTS_GPU) // rows.shape[1]))
    # One buffer for all chunks: fresh memory for each would cost more in page faults than the conversion itself.
    buffer = None
    while buffer is None:
        try:
            buffer = xp.empty((step, rows.shape[1]), dtype=xp.float64)
        except MemoryError:  # CuPy's is one, too
            if step == 1:
                raise
            step //= 2
    for start in range(0, len(rows), step):
        samples = rows[start : start + step]
        buffer[: len(samples)] = samples
        yield start, buffer[: len(samples)]
