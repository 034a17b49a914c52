"""Exact sums: error-free splitting, so that no order of summation can change a bit.

Floating-point sums depend on their order because every addition rounds. Cut each term into pieces that are whole
multiples of a power of two, short enough that every partial sum stays below 2^53 such units: then no addition
rounds, and any order, any BLAS, any number of threads and any device gives the same sum.

For n products of an integer of q bits (8 for pixels, 0 in a plain sum) with v, |v| <= 2^e::

    L   = 53 - q - ceil(log2 n) - 1            bits a piece
    g_k = 2^(e - k L),  C_k = 1.5 * 2^52 g_k   grid and rounding constant of piece k = 1, 2, ..
    piece_k = (rest + C_k) - C_k;  rest = rest - piece_k

|sum of piece_1 times the integers| <= n * 2^q * 2^L = 2^52 units; the later pieces are smaller. As many pieces are
taken as the wanted number of bits needs: ceil(bits / L), two for up to 262,144 terms of a product, three beyond.
The grids depend on the size of the problem and its state alone, never on how the work is divided.

Source: T. J. Dekker (1971) for the rounding constant; S. M. Rump, T. Ogita, S. Oishi, "Accurate floating-point
summation" (2008), for the extraction; K. Ozaki et al., "Error-free transformations of matrix multiplication" (2012).
"""

from typing import Any

from .backend import namespace
from .errors import InputError

Array = Any

PIXEL_BITS = 8
# What a split keeps of its values, in bits below 2^e: full double precision in products ...
PRODUCT_BITS = 52
# ... and in the sum of the losses, which lie below 2^20 and are wanted to 2^-56.
LOSS_EXPONENT = 20
LOSS_BITS = 76
# Up to here, a piece has at least 18 bits and three pieces do; 67 million samples, or features.
MAX_TERMS = 2**26
# Weights this small have no influence; a smaller exponent would push the grids below the smallest number.
MIN_EXPONENT = -900


def bits_per_piece(n: int, q: int) -> int:
    """L, the bits of one piece, when n terms with an integer factor of q bits are summed."""
    if not 1 <= n <= MAX_TERMS:
        raise InputError(f"Exact sums take 1 to {MAX_TERMS:,} terms, not {n:,}; train on fewer samples or features.")
    return 53 - q - (n - 1).bit_length() - 1


def number_of_pieces(n: int, q: int, bits: int = PRODUCT_BITS) -> int:
    """Pieces needed to keep `bits` bits of each value: ceil(bits / L)."""
    return -(-bits // bits_per_piece(n, q))


def split(v: Array, exponent: Array | int, n: int, q: int, bits: int = PRODUCT_BITS) -> list[Array]:
    """Cut v into pieces whose sums over n terms with q-bit integers are exact in float64, in any order.

    Parameters
    ----------
    v : array, float64
        The values, |v| <= 2^exponent.
    exponent : int, or integer array that broadcasts against v
        One exponent for all values, or one a row.
    n, q, bits : int
        Terms to be summed, bits of their integer factor, bits of v to keep.

    Returns
    -------
    list of arrays like v, the largest piece first; their sum is v to within 2^(exponent - pieces * L - 1).
    """
    xp = namespace(v)
    length = bits_per_piece(n, q)
    if isinstance(exponent, int):
        grid: Any = 2.0 ** (exponent - length)
    else:
        grid = xp.ldexp(xp.ones(exponent.shape, dtype=xp.float64), exponent - length)
    pieces: list[Array] = []
    rest = v
    for k in range(number_of_pieces(n, q, bits)):
        if k:
            grid = grid * 2.0**-length
            rest = rest - pieces[-1]
        constant = grid * (1.5 * 2.0**52)
        piece = rest + constant
        piece -= constant
        pieces.append(piece)
    return pieces


def exponent_of(v: Array) -> Array:
    """The smallest e with max|v| < 2^e along the last axis (kept, int32): 0 for zeros, at least -900."""
    xp = namespace(v)
    largest = xp.max(xp.abs(v), axis=-1, keepdims=True)
    return xp.maximum(xp.frexp(largest)[1], MIN_EXPONENT).astype(xp.int32)


def add_up(pieces: list[Array]) -> Array:
    """The sum of the pieces' sums, largest first: the one place where an exact sum is rounded."""
    total = pieces[0]
    for piece in pieces[1:]:
        total = total + piece
    return total


def exact_sum(v: Array, exponent: int, bits: int = PRODUCT_BITS) -> Array:
    """Sum along the last axis, |v| <= 2^exponent, with the same bits in any order of the terms."""
    return add_up([piece.sum(axis=-1) for piece in split(v, exponent, v.shape[-1], 0, bits)])
