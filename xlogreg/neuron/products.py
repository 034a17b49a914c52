"""Exact sums over pixels, forward over the features and backward over the samples: pieces, blocks and chunks.

The pieces of `exact` are multiplied with pixels by the array module's own matmul, in chunks of samples that are
converted to float64 one at a time. For uint8 pixels no block and no chunk changes a bit. (Float features, of which
`reference` uses only `float_chunks`, are identical to rounding.)
"""

from collections.abc import Iterator
from typing import Any

from ..arrays import namespace
from .exact import PIXEL_BITS, PRODUCT_BITS, exponent_of, power_of_two, split, two_sum, weight_bits

Array = Any

# A chunk of this many float64 stays in a core's second-level cache on the CPU and gives a GPU enough to do.
_CHUNK_ELEMENTS = {"numpy": 32 * 3072}
_CHUNK_ELEMENTS_GPU = 2**26
# Terms of a block: so many products sum exactly in two float64 pieces.
BLOCK_TERMS = 2**17


def whole_sums(first: Array, second: Array, exponent: Array | int, bits: int) -> Array:
    """The exact sums of two pieces' products as whole numbers, (2, ..) int64: those of blocks are added as they are.

    sums[0] counts units of 2^(e - 27), sums[1] units of 2^(e - bits).
    """
    xp = namespace(first)
    to_units = 1.0 / power_of_two(xp, exponent)
    return xp.stack([(first * to_units * 2.0**27).astype(xp.int64), (second * to_units * 2.0**bits).astype(xp.int64)])


def round_whole(sums: Array, exponent: Array | int, bits: int) -> tuple[Array, Array]:
    """What `whole_sums` stand for, as two numbers: rounded once, and the rest, at most half its last place's unit."""
    xp = namespace(sums)
    # Two halves that float64 holds exactly: 2^36 high + low.
    carry = bits - 27
    first = sums[0] + (sums[1] >> carry)
    high = first >> (36 - carry)
    low = ((first & (2 ** (36 - carry) - 1)) << carry) | (sums[1] & (2**carry - 1))
    unit = power_of_two(xp, exponent) * 2.0**-bits
    return two_sum(high.astype(xp.float64) * 2.0**36 * unit, low.astype(xp.float64) * unit)


def over_features(rows: Array, w: Array, chunk: int | None = None) -> tuple[Array, Array]:
    """P . w for all samples and models, (M, m), as the exact sum rounded once and its rest (see `round_whole`).

    rows : (m, d) uint8; w : (M, d) float64, |w| < 2^900; chunk : samples converted at a time
    """
    xp = namespace(rows, w)
    (m, d), models = rows.shape, len(w)
    exponent, bits = exponent_of(w), weight_bits(d)
    pieces = xp.concatenate(split(w, exponent, min(d, BLOCK_TERMS), PIXEL_BITS, bits))
    blocks = [xp.empty((len(pieces), m), dtype=xp.float64) for _ in range(0, d, BLOCK_TERMS)]
    for start, samples in float_chunks(rows, chunk):
        for i, block in enumerate(blocks):
            terms = slice(i * BLOCK_TERMS, (i + 1) * BLOCK_TERMS)
            block[:, start : start + len(samples)] = pieces[:, terms] @ samples[:, terms].T
    if len(blocks) == 1:  # the same result in fewer steps
        return two_sum(blocks[0][:models], blocks[0][models:])
    whole = sum(whole_sums(block[:models], block[models:], exponent, bits) for block in blocks)
    return round_whole(whole, exponent, bits)


def over_samples(rows: Array, r: Array, exponent: Array, chunk: int | None = None) -> Array:
    """r . P for all features and models: `whole_sums` of `PRODUCT_BITS`, (2, M, d) int64.

    rows : (m, d) uint8, m at most `BLOCK_TERMS`; r : (M, m) float64, |r| < 2^exponent, (M, 1); chunk : as above
    """
    xp = namespace(rows, r)
    models = len(r)
    # Grids for a full block even if this part is shorter, so that parts share them.
    pieces = xp.concatenate(split(r, exponent, BLOCK_TERMS, PIXEL_BITS, PRODUCT_BITS))
    sums = xp.zeros((len(pieces), rows.shape[1]), dtype=xp.float64)
    for start, samples in float_chunks(rows, chunk):
        sums += pieces[:, start : start + len(samples)] @ samples
    return whole_sums(sums[:models], sums[models:], exponent, PRODUCT_BITS)


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
