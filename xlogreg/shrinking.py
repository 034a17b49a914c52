"""The pixels of `images.resize`, many times faster, for pictures that become smaller.

scikit-image smooths by a Gaussian (sigma ``(f - 1) / 2`` for the factor f, cut off at 4 sigma, mirrored at the edges)
and then interpolates linearly at the centres of the new pixels. Both are sums of pixels with fixed weights, so each
new pixel is one weighted sum over a band of rows and columns; the rest of the smoothed picture is never computed.
The weights are the same numbers to rounding; so are the sums, to about 1e-13 of a grey level. Where a sum lies
nearer than `MARGIN` to the edge between two levels, rounding could decide, and scikit-image itself is asked for the
picture. So the pixels are the same; tests compare them.
"""

import functools
from typing import Any

import numpy as np

from .borrowing import rows_of
from .images import Resizer, reduced, resize

# The compiler takes a second or two at its first use: not for a handful of small pictures.
_FEW = 15
_LARGE_PIXELS = 1_000_000
MARGIN = 1e-9  # grey levels; thousands of times what the two ways can differ by


def resize_fast(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What `images.resize` gives for a picture x (h, w, c) uint8, in a fraction of its time if Numba works here."""
    if x.shape[:2] == size:
        return x
    kernel, whole = _kernel(), x
    x = reduced(x, size)
    height, width, channels = x.shape
    if kernel is None or not (0 < size[0] <= height and 0 < size[1] <= width):
        return resize(whole, size)
    out = np.empty((*size, channels), dtype=np.uint8)
    rows, stored = rows_of(x)
    if kernel(rows, stored, *_weights(height, size[0]), *_weights(width, size[1]), MARGIN, out):
        return out
    return resize(whole, size)


def resizer_for(number: int) -> Resizer:
    """What resizes a picture sooner, `number` being how many came before it: `resize` or `resize_fast`."""
    return resize_fast if number >= _FEW else _resize_few


def _resize_few(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return (resize_fast if x.shape[0] * x.shape[1] >= _LARGE_PIXELS else resize)(x, size)


@functools.cache
def _kernel() -> Any:
    from .kernels import why_no_fused

    if why_no_fused():
        return None
    try:
        from .kernels.shrink import shrink
    except Exception:  # whatever Numba, LLVM or a full cache folder raise; scikit-image gives the same pixels
        return None
    return shrink


@functools.lru_cache(maxsize=128)
def _weights(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First pixel (target,) int64 and weights (target, taps) float64 of each new pixel along one side, and these in
    float32 with zeros behind them."""
    from .kernels.shrink import WHOLE

    factor = source / target
    sigma = (factor - 1) / 2
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    gauss = np.exp(-0.5 / sigma**2 * offsets**2) if radius else np.ones(1)
    gauss = gauss / gauss.sum()
    centres = (np.arange(target) + 0.5) * factor - 0.5
    before = np.floor(centres).astype(np.int64)
    share = centres - before
    # Interpolation between two neighbours, each of them a weighted mean around itself.
    taps = np.zeros((target, len(gauss) + 1))
    taps[:, :-1] += (1 - share)[:, None] * gauss
    taps[:, 1:] += share[:, None] * gauss
    pixels = _mirrored(before[:, None] + np.arange(-radius, radius + 2), source)
    first = pixels.min(axis=1)
    width = int((pixels.max(axis=1) - first).max()) + 1
    first = np.minimum(first, source - width)
    weights = np.zeros((target, width))
    np.add.at(weights, (np.arange(target)[:, None], pixels - first[:, None]), taps)
    coarse = np.zeros((target, -(-width // WHOLE) * WHOLE), dtype=np.float32)
    coarse[:, :width] = weights
    return first, weights, coarse


def _mirrored(pixels: np.ndarray, source: int) -> np.ndarray:
    """Numbers of pixels beyond the edges as those of their mirror images; the edge itself is there once."""
    if source == 1:
        return np.zeros_like(pixels)
    period = 2 * (source - 1)
    pixels = np.mod(pixels, period)
    return np.where(pixels < source, pixels, period - pixels)
