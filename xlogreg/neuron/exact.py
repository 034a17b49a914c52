"""Exact sums: error-free splitting, so that no order of summation can change a bit.

Floating-point sums depend on their order because every addition rounds. Cut each term into pieces that are whole
multiples of a power of two, short enough that every partial sum stays below 2^53 such units: then no addition
rounds, and any order, any BLAS, any number of threads and any device gives the same sum.

Words, here, in `products` and in `reference`: a *piece* is a slice of a number's bits; a *grid* the unit of a piece; a
*block* at most 131,072 terms; a *chunk* the samples that are converted to float64 at a time; a *part* any subset of the
samples. Twins of this file, with the same bits: `kernels/elementwise`, `kernels/arithmetic`, `kernels/cuda.cu`.

For n terms, each the product of an integer of q bits (8 for a pixel, 0 in a plain sum) and some v, |v| <= 2^e, of
which `bits` bits are wanted::

    L   = min(51, 53 - q - ceil(log2 n) - 1)       bits a piece
    g_k = 2^(e - min(k L, bits)),  k = 1, 2, ..    grid of piece k
    C_k = 1.5 * 2^52 g_k                           its rounding constant
    piece_k = (rest + C_k) - C_k;  rest = rest - piece_k

|sum of piece_1 times the integers| <= n * 2^q * 2^L = 2^52 units; the later pieces are smaller. All pieces together
are v rounded to a multiple of 2^(e - bits): a fixed-point number of `bits` bits, whose sums are known exactly (of
the numbers as cut: this is all that "exact" means here) and are rounded only after the last term, always in the same
order: two pieces once, three (of losses) twice. The grids depend on the size of the problem and its state alone,
never on how the work is divided.

An example with e = 0 and, to be short, 4 bits a piece and 8 in all: v = 0.7, -0.3, 0.1 has the first pieces 11, -5, 2
sixteenths, and of the rest 0.0125, 0.0125, -0.025 the second pieces 3, 3, -6 of 256. Times the pixels 200, 7, 255 they
sum up to 2200 - 35 + 510 = 2675 and 600 + 21 - 1530 = -909, in whatever order, for all are whole numbers; together they
are 2675 / 16 - 909 / 256 = 41891 / 256 = 163.63671875. The true sum is 163.4: with the 52 bits that are really kept,
the two agree but for their last bits.

Products keep 52 bits of residuals and 53 of weights in two pieces, enough while L >= 27, which is 131,072 terms. Larger
sums are cut into blocks of at most that many terms; the sums of the blocks are whole multiples of the grids and are
added as 64-bit integers.

Source: T. J. Dekker (1971) for the rounding constant; S. M. Rump, T. Ogita, S. Oishi, "Accurate floating-point
summation" (2008), for the extraction; K. Ozaki et al., "Error-free transformations of matrix multiplication" (2012).
"""

from typing import Any

from ..arrays import namespace
from ..errors import InputError

Array = Any

# Raise it whenever any bit of a result changes: a training that began with another one cannot go on.
ARITHMETIC_VERSION = 2
PIXEL_BITS = 8
PIXEL_SCALE = 255.0
# What a split keeps of its values, in bits below 2^e: of residuals, and in plain sums ...
PRODUCT_BITS = 52
# ... of weights (see `weight_bits`) ...
WEIGHT_BITS, WEIGHT_BITS_OF_FEW, FEW = 53, 55, 256
# ... and in the sum of the losses: below 2^(e + LOSS_ABOVE), where all residuals lie below 2^e.
# With p, the probability given to the wrong class, a loss is at most 2 p for p <= 1/2.
# For p > 1/2 it is below 2^20, as |z| <= 1e6, and so below 2^20 * 2 p.
LOSS_ABOVE = 21
# Mostly losses lie near 2^e; they are kept to 2^(e - 61) (see `loss_bits`).
LOSS_BITS = 82
# 67 million samples, or features: the 64-bit integers hold the sums of all blocks with room to spare.
MAX_TERMS = 2**26
# Values this small have no influence; a smaller exponent would push the grids below the smallest number.
MIN_EXPONENT = -900
# Weights from here on do not fit the grids of the sums.
LARGEST_EXPONENT = 900
LARGEST_WEIGHT = 2.0**LARGEST_EXPONENT
# Squares of larger values would bring the grids near the end of float64; no training that converges comes near.
MAX_SQUARE_EXPONENT = 450


def bits_per_piece(n: int, q: int) -> int:
    """L, the bits of one piece, when n terms with an integer factor of q bits are summed."""
    if not 1 <= n <= MAX_TERMS:
        raise InputError(f"Exact sums take 1 to {MAX_TERMS:,} terms, not {n:,}; train on fewer samples or features.")
    # v + C stays on the grid while |v| <= 2^51 units, a third of C; without the 51, one plain term would get 52 bits.
    return min(51, 53 - q - (n - 1).bit_length() - 1)


def weight_bits(features: int) -> int:
    """What is kept of weights: every bit of the largest; with at most 256 features two more, since few rounding errors
    do not average out."""
    return WEIGHT_BITS_OF_FEW if features <= FEW else WEIGHT_BITS


def loss_above(classes: int) -> int:
    """The losses lie below 2^(e + this): one more for softmax, whose z differ by up to 2e6."""
    return LOSS_ABOVE if classes == 1 else LOSS_ABOVE + 1


def loss_bits(samples: int) -> int:
    """What is kept of losses: as much as three pieces hold, which is less than LOSS_BITS beyond 2^24 samples."""
    return min(LOSS_BITS, 3 * bits_per_piece(samples, 0))


def split(v: Array, exponent: Array | int, n: int, q: int, bits: int = PRODUCT_BITS) -> list[Array]:
    """Cut v into pieces whose sums over n terms with q-bit integers are exact in float64, in any order.

    Parameters
    ----------
    v : array, float64
        The values, |v| <= 2^exponent; `exponent_of` gives the strict bound, <.
    exponent : int, or integer array that broadcasts against v
        One exponent for all values, or one a row.
    n, q, bits : int
        Terms to be summed, bits of their integer factor, bits of v to keep.

    Returns
    -------
    list of arrays like v, the largest piece first; their sum is v rounded to a multiple of 2^(exponent - bits).
    """
    xp = namespace(v)
    length = bits_per_piece(n, q)
    unit = power_of_two(xp, exponent)
    pieces: list[Array] = []
    rest = v
    for kept in range(length, bits + length, length):
        if pieces:
            rest = rest - pieces[-1]
        constant = unit * (1.5 * 2.0 ** (52 - min(kept, bits)))
        piece = rest + constant
        piece -= constant
        pieces.append(piece)
    return pieces


def power_of_two(xp: Any, exponent: Array | int) -> Any:
    """2^exponent, exactly: a number for a number, an array for an array."""
    if isinstance(exponent, int):
        return 2.0**exponent
    return xp.ldexp(xp.ones(exponent.shape, dtype=xp.float64), exponent)


def exponent_of(v: Array) -> Array:
    """The smallest e with max|v| < 2^e along the last axis (kept, int32): 0 for zeros, at least -900."""
    xp = namespace(v)
    largest = xp.max(xp.abs(v), axis=-1, keepdims=True)
    return xp.maximum(xp.frexp(largest)[1], MIN_EXPONENT).astype(xp.int32)


def sum_of_squares(v: Array) -> Array:
    """Sum of v_j v_j along the last axis; as `exact_dot`."""
    return exact_dot(v, v)


def exact_dot(u: Array, v: Array) -> Array:
    """Sum of u_j v_j along the last axis, with the same bits in any order; NaN where a largest |.| is >= 2^450.

    Each product is rounded once. The exact sum of the products has the exponent max(e + f, -900), of which e and f are
    those of u and v (`exponent_of`).
    """
    xp = namespace(u, v)
    e, f = exponent_of(u), exponent_of(v)
    total = exact_sum(u * v, xp.maximum(e + f, MIN_EXPONENT))
    return xp.where(xp.maximum(e, f)[..., 0] <= MAX_SQUARE_EXPONENT, total, xp.nan)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b as two numbers: rounded, and what the rounding left, exactly (D. E. Knuth, TAOCP 2, 4.2.2)."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def scale_and_shift(total: Array, rest: Array, shift: Array) -> Array:
    """(total + rest) / 255 + shift, correctly rounded but for cases within 2^-50 of a tie, or where q and shift cancel.

    With q = total / 255 rounded, total - 255 q = (total - 256 q) + q without any rounding.
    """
    q = total / PIXEL_SCALE
    remainder = ((total - q * 256.0) + q) + rest
    z, error = two_sum(q, shift)
    return z + (error + remainder / PIXEL_SCALE)


def piece_sums(v: Array, exponent: Array | int, n: int, bits: int = PRODUCT_BITS) -> Array:
    """The sums of the pieces of v along the last axis, (pieces, ..): added to those of others, to n terms in all, they
    stay exact. |v| <= 2^exponent (a number, or one a row)."""
    return namespace(v).stack([piece.sum(axis=-1) for piece in split(v, exponent, n, 0, bits)])


def round_pieces(sums: Array) -> Array:
    """What `piece_sums` stand for: the largest first, each addition rounded."""
    total = sums[0]
    for number in range(1, len(sums)):
        total = total + sums[number]
    return total


def exact_sum(v: Array, exponent: Array | int, bits: int = PRODUCT_BITS) -> Array:
    """Sum along the last axis, |v| <= 2^exponent (a number, or one a row), with the same bits in any order."""
    return round_pieces(piece_sums(v, exponent, v.shape[-1], bits))
