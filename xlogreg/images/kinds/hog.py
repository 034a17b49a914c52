"""Histograms of oriented gradients (HOG): scikit-image's `hog` with L2-Hys blocks, times 255 and rounded.

For colours, the channel of the steepest gradient at each pixel (`channel_axis`). Written anew because arctan2 and sums
of floats have other bits on other machines; a level may differ by one from scikit-image's, rarely, where it lies at the
edge of two. With cells of c x c pixels in blocks of k x k cells, d = (h//c - k + 1) (w//c - k + 1) k^2 orientations.
"""

import functools
from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ...system.text import given
from .kind import Kind

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
class Hog(Kind):
    describes_edges = True

    orientations: int
    cell: int
    block: int

    def __post_init__(self) -> None:
        limits = {"orientations": 180, "cell": _MAX_BLOCK_SIDE, "block": _MAX_BLOCK_SIDE}
        for parameter, limit in limits.items():
            value = getattr(self, parameter)
            if type(value) is not int or not 1 <= value <= limit:
                raise InputError(f"HOG's {parameter} must be a whole number from 1 to {limit}, not {given(value)}.")
        if self.cell * self.block > _MAX_BLOCK_SIDE:
            raise InputError(
                f"HOG's blocks may have up to {_MAX_BLOCK_SIDE} pixels a side, not {self.cell} x {self.block}."
            )

    def length(self, height: int, width: int, channels: int) -> int:
        rows, columns = (side // self.cell - self.block + 1 for side in (height, width))
        if rows < 1 or columns < 1:
            raise InputError(
                f"HOG needs pictures of at least {self.cell * self.block} x {self.cell * self.block} pixels, "
                f"not {height} x {width}; give a larger --size."
            )
        return rows * columns * self.block**2 * self.orientations

    def compute(self, x: np.ndarray) -> np.ndarray:
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

    def layout(self, w: np.ndarray, height: int, width: int, channels: int) -> np.ndarray:
        rows, columns, block = height // self.cell, width // self.cell, self.block
        # Each cell is part of several blocks; its weight is their sum.
        cells = np.zeros((rows, columns, self.orientations))
        blocks = w.reshape(rows - block + 1, columns - block + 1, block, block, self.orientations)
        for i in range(block):
            for j in range(block):
                cells[i : rows - block + 1 + i, j : columns - block + 1 + j] += blocks[:, :, i, j]
        return cells


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
