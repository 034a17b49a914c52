"""The pixels of `images.resize`, many times faster, for pictures that become smaller.

Each new pixel is one weighted sum over a band of rows and columns (`resizing`). The weights are the same numbers to
rounding; so are the sums, to about 1e-13 of a grey level. Where a sum lies nearer than `MARGIN` to the edge between two
levels, rounding could decide, and scikit-image itself is asked for the picture. So the pixels are the same; tests
compare them.
"""

import functools
from typing import Any

import numpy as np

from .resizing import Resizer, bands, reduced, resize
from .zero_copy import rows_of

# The compiler takes a second or two at its first use: not for a handful of small pictures.
_FEW = 15
_LARGE_PIXELS = 1_000_000
_LONG_SIDE = 20_000
# Between its two sums the kernel keeps so many numbers at most, 256 MB; and a side becomes at most so many times
# smaller, for float32 says little of longer sums.
_MOST_BETWEEN, _MOST_TIMES = 2**26, 4096
MARGIN = 1e-9  # grey levels; thousands of times what the two ways can differ by


def resize_fast(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What `images.resize` gives for a picture x (h, w, c) uint8, in a fraction of its time if Numba works here."""
    if x.shape[:2] == size:
        return x
    kernel, whole = _kernel(), x
    x = reduced(x, size)
    height, width, channels = x.shape
    fits = all(0 < new <= side <= _MOST_TIMES * new for new, side in zip(size, x.shape, strict=False))
    fits = fits and channels * size[0] * width <= _MOST_BETWEEN
    if kernel is None or not fits:
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
    from ..kernels import why_no_fused

    if why_no_fused():
        return None
    try:
        from .resize_kernel import shrink
    except Exception:  # whatever Numba, LLVM or a full cache folder raise; scikit-image gives the same pixels
        return None
    return shrink


def _weights(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First pixel (target,) int64 and weights (target, taps) float64 of each new pixel along one side, and these in
    float32 with zeros behind them."""
    # Those of a long side take megabytes, of which no hundred are kept.
    return _kept_weights(source, target) if source <= _LONG_SIDE else _new_weights(source, target)


def _new_weights(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from .resize_kernel import WHOLE

    first, weights = bands(source, target, np.arange(target))
    coarse = np.zeros((target, -(-weights.shape[1] // WHOLE) * WHOLE), dtype=np.float32)
    coarse[:, : weights.shape[1]] = weights
    return first, weights, coarse


_kept_weights = functools.lru_cache(maxsize=128)(_new_weights)
