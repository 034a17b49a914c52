"""What the neuron sees of a picture: its pixels, its grey values, or histograms of oriented gradients (HOG).

All features are uint8, so training on them is as exact as on pixels. They are computed from whole numbers, with
``+ - * / sqrt rint`` of IEEE float64 alone and with sums of whole numbers below 2^53, which are exact in any order: the
same pictures give the same features, to the bit, on every machine, for any number of threads.

* ``pixels``: the picture as it is, d = h w c.
* ``grey``: ITU-R 601 luma in whole numbers, ``(299 R + 587 G + 114 B + 500) // 1000``, d = h w.
* ``hog``: scikit-image's `hog` with L2-Hys blocks and, for colours, the channel of the steepest gradient at each pixel
  (`channel_axis`), times 255 and rounded. Written anew because arctan2 and sums of floats have other bits on other
  machines; a level may differ by one from scikit-image's, rarely, where it lies at the edge of two.
  With cells of c x c pixels in blocks of k x k cells, d = (h//c - k + 1) (w//c - k + 1) k^2 orientations.
"""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..system.checks import one_of, sides, unmasked
from ..system.parallel import Threads, in_order, processors
from ..system.text import brief_kind, given

Name = Literal["pixels", "grey", "hog"]
NAMES: tuple[Name, ...] = ("pixels", "grey", "hog")

# (pictures done, pictures in all)
Progress = Callable[[int, int], None]

# Pictures that a thread works on at a time: their gradients stay in the second-level cache.
_BLOCK = 64
# Magnitudes, up to 361, are whole multiples of 1/256 and clipped shares of 2^-24. The magnitudes of a block of 32 x 32
# pixels have a sum below 2^26.5, so sums of squares stay below 2^53, where whole numbers are exact.
_MAGNITUDE = 256.0
_MAX_BLOCK_SIDE = 32
_SHARE = 2.0**24
# L2-Hys clips at this share before it normalises again.
_CLIP = 0.2
# scikit-image adds 1e-5 squared to the sum of squares; it decides ties such as 127.5.
_EPSILON = float(round(1e-10 * 2**48))


@dataclass(frozen=True)
class Features:
    """A kind of features and its parameters; equal ones give equal bits.

    Attributes
    ----------
    name : "pixels", "grey" or "hog"
    orientations, cell, block : of "hog": directions in half a turn, pixels along a cell, cells along a block

    Raises
    ------
    InputError
        There are no such features, or parameters out of range.
    """

    name: str = "pixels"
    orientations: int = 9
    cell: int = 4
    block: int = 3

    def __post_init__(self) -> None:
        if not one_of(self.name, NAMES):
            raise InputError(f"There are no features {given(self.name)}; choose {', '.join(NAMES)}.")
        limits = {"orientations": 180, "cell": _MAX_BLOCK_SIDE, "block": _MAX_BLOCK_SIDE}
        for parameter, limit in limits.items():
            value = getattr(self, parameter)
            if type(value) is not int or not 1 <= value <= limit:
                raise InputError(f"HOG's {parameter} must be a whole number from 1 to {limit}, not {given(value)}.")
        if self.cell * self.block > _MAX_BLOCK_SIDE:
            raise InputError(
                f"HOG's blocks may have up to {_MAX_BLOCK_SIDE} pixels a side, not {self.cell} x {self.block}."
            )

    @property
    def parameters(self) -> dict[str, int]:
        """What the features depend on besides their name."""
        if self.name != "hog":
            return {}
        return {"orientations": self.orientations, "cell": self.cell, "block": self.block}

    def describe(self) -> dict[str, Any]:
        """Name and parameters in plain types, for a record; `Features(**described)` is the same again."""
        return {"name": self.name, **self.parameters}

    def length(self, size: tuple[int, int, int]) -> int:
        """The number d of features of a picture of `size` (height, width, channels).

        Raises
        ------
        InputError
            The picture is too small for one block.
        """
        height, width, channels = sides(size, "height, width, channels")
        if self.name == "pixels":
            return height * width * channels
        if self.name == "grey":
            return height * width
        rows, columns = (side // self.cell - self.block + 1 for side in (height, width))
        if rows < 1 or columns < 1:
            raise InputError(
                f"HOG needs pictures of at least {self.cell * self.block} x {self.cell * self.block} pixels, "
                f"not {height} x {width}; give a larger --size."
            )
        return rows * columns * self.block**2 * self.orientations

    def rows(self, x: np.ndarray, *, progress: Progress | None = None) -> np.ndarray:
        """Features of pictures x (m, h, w, c) uint8: (m, d) uint8, C order; pixels are a view of x where they can be.

        Computed in threads (NumPy works outside Python's lock), `progress` called from this one. Nothing is kept on
        disk: HOG of 12,000 pictures of 32 x 32 takes about as long as reading and checking a kept copy would.

        Raises
        ------
        InputError
            x are no such pictures, or the features cannot be had of their size.
        """
        x = unmasked(x, "x")
        if not isinstance(x, np.ndarray) or x.ndim != 4 or x.dtype != np.uint8 or x.shape[3] not in (1, 3):
            raise InputError(f"Features are of uint8 pictures (n, height, width, 1 or 3), not {brief_kind(x)}.")
        height, width, channels = x.shape[1:]
        length = self.length((height, width, channels))
        if self.name == "pixels":
            return x.reshape(len(x), length)
        out = np.empty((len(x), length), dtype=np.uint8)

        def compute(start: int) -> int:
            part = x[start : start + _BLOCK]
            out[start : start + _BLOCK] = _grey(part) if self.name == "grey" else self._hog(part)
            return len(part)

        with Threads(processors()) as threads:
            done = 0
            for count in in_order(threads, compute, range(0, len(x), _BLOCK)):
                done += count
                if progress is not None:
                    progress(done, len(x))
        return out

    def _hog(self, x: np.ndarray) -> np.ndarray:
        m, height, width, channels = x.shape
        n, cell, block = self.orientations, self.cell, self.block
        directions, magnitudes = _gradient_tables(n)
        # The gradient of the channel where it is steepest; of equal ones the first, as in scikit-image.
        gradient = _gradient(x[..., 0])
        for channel in range(1, channels):
            other = _gradient(x[..., channel])
            gradient = np.where(magnitudes[other] > magnitudes[gradient], other, gradient)
        # Sums over each cell and direction; whole numbers, so the order is free.
        down, across = height // cell, width // cell
        gradient = gradient[:, : down * cell, : across * cell]
        cells = np.arange(m * down * across, dtype=np.int64).reshape(m, down, 1, across, 1) * n
        bins = directions[gradient].reshape(m, down, cell, across, cell) + cells
        sums = np.bincount(bins.ravel(), magnitudes[gradient].ravel(), minlength=m * down * across * n)
        sums = sums.reshape(m, down, across, n)
        # Blocks of neighbouring cells, normalised, clipped and normalised again.
        shape = (m, down - block + 1, across - block + 1, block, block, n)
        blocks = np.empty(shape)
        for i in range(block):
            for j in range(block):
                blocks[:, :, :, i, j] = sums[:, i : i + shape[1], j : j + shape[2]]
        shares = blocks / _norm(blocks)
        shares = np.rint(np.minimum(shares, _CLIP) * _SHARE)
        return np.rint(shares / _norm(shares, _EPSILON) * 255).astype(np.uint8).reshape(m, -1)


def features(name: str) -> Features:
    """The features of this name, with the parameters that suit 32 x 32 pictures."""
    return Features(name)


def sha256_of(*rows: np.ndarray) -> str:
    """SHA-256 over the bytes of arrays of features, one after the other: what a training started from."""
    digest = hashlib.sha256()
    for part in rows:
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _grey(x: np.ndarray) -> np.ndarray:
    if x.shape[3] == 1:
        return x.reshape(len(x), -1)
    red, green, blue = (x[..., channel].astype(np.uint32) for channel in range(3))
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8).reshape(len(x), -1)


def _gradient(x: np.ndarray) -> np.ndarray:
    """Differences of neighbours down and across, (m, h, w), each pair as one index into the tables; 0 at the edges."""
    values = x.astype(np.int32)
    index = np.full(x.shape, 255 * 511 + 255, dtype=np.int32)
    if x.shape[1] > 2:
        index[:, 1:-1] += 511 * (values[:, 2:] - values[:, :-2])
    if x.shape[2] > 2:
        index[:, :, 1:-1] += values[:, :, 2:] - values[:, :, :-2]
    return index


@functools.cache
def _gradient_tables(orientations: int) -> tuple[np.ndarray, np.ndarray]:
    """Direction (0 .. orientations - 1) and magnitude (whole multiples of 1/256) of every gradient of uint8 pixels.

    Differences of -255 .. 255 have few angles: but for those on a border (0, 45, 90 degrees, ..) none comes within
    5e-6 degrees of one, so the nudge makes the direction independent of the last bits of the machine's arctan2.
    """
    down, across = np.mgrid[-255:256, -255:256].astype(np.float64)
    angle = (np.rad2deg(np.arctan2(down, across)) + 1e-8) % 180
    direction = np.minimum((angle * orientations / 180).astype(np.int64), orientations - 1)
    magnitude = np.rint(np.sqrt(down * down + across * across) * _MAGNITUDE)
    return direction.ravel(), magnitude.ravel()


def _norm(blocks: np.ndarray, epsilon: float = 0.0) -> np.ndarray:
    """Root of the sum of squares of each block, exact but for the root's rounding; 1 where all are 0."""
    squares = np.einsum("...ijk,...ijk->...", blocks, blocks) + epsilon
    return np.sqrt(np.where(squares > 0, squares, 1.0))[..., None, None, None]


PIXELS = Features()
