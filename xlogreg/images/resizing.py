"""Pictures of any size to that of a model, as the tutorial does it: by scikit-image's resize.

It smooths by a Gaussian (sigma ``(f - 1) / 2`` for the factor f, cut off at 4 sigma, mirrored at the edges) and then
interpolates linearly at the centres of the new pixels. Both are sums of pixels with fixed weights, so each new pixel is
one weighted sum over a band of rows and columns. Pictures for which it would take long are resized by these sums in
linear time, and `resize_kernel` takes them, compiled, for all that become smaller.
"""

import functools
import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError
from ..system.checks import sides, unmasked
from ..system.text import brief_kind, given
from .decoding import MAX_PIXELS, decoded
from .zero_copy import rows_of

Resizer = Callable[[np.ndarray, tuple[int, int]], np.ndarray]

# Very large pictures are first reduced to about so many times the wanted size, so many pixels at a time.
_REDUCED = 8
_PIXELS_AT_ONCE = 2**22

# scikit-image smooths every pixel over as many as f makes one, both of which a thin picture has many of: 400,000 x 1
# pixels to 32 x 32 take 15 seconds, and ten times as many a hundred times as long. So many products are two or three
# seconds, and so many values (eight bytes each, several times) half a gigabyte.
_MOST_PRODUCTS = 1e10
_MOST_VALUES = 50_000_000
# Values that are turned into float64 at a time.
_AT_ONCE = 2**23

# The compiler takes a second or two at its first use: not for a handful of small pictures.
_FEW = 15
_LARGE_PIXELS = 1_000_000
_LONG_SIDE = 20_000
# Between its two sums the kernel keeps so many numbers at most, 256 MB; and a side becomes at most so many times
# smaller, for float32 says little of longer sums.
_MOST_BETWEEN, _MOST_TIMES = 2**26, 4096
MARGIN = 1e-9  # grey levels; thousands of times what the two ways can differ by


def resize(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (h, w, c) uint8 resized to `size` (height, width) by scikit-image's `resize`, as the tutorial does.

    scikit-image interpolates linearly and smooths first where it makes smaller; its 0..1 become ``rint(255 v)``, uint8.
    A picture that has the size already is given back as it is. Of a picture that is 16 times as high and as wide, or
    more, means of whole blocks are taken first (in whole numbers, 8 times the size stays): scikit-image would turn a
    photograph of 12 million pixels into 300 MB of floats, and take seconds. Where it would take long all the same, for
    a very thin picture say, its sums are taken directly (`weighted`).

    Raises
    ------
    InputError
        `x` is no such picture, or `size` is not two whole numbers above 0.
    """
    from skimage.transform import resize as skimage_resize

    x = unmasked(x, "x")
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 3 or 0 in x.shape:
        # Whole numbers of another type are not converted: whether 0..255 is their range is not for us to say.
        levels = isinstance(x, np.ndarray) and x.dtype.kind in "iu" and x.size and x.min() >= 0 and x.max() <= 255
        advice = "; its values are levels of 0 to 255, give x.astype('uint8')" if levels and x.dtype != np.uint8 else ""
        raise InputError(f"A picture to resize must be uint8 (height, width, channels), not {brief_kind(x)}{advice}.")
    height, width = sides(size, "height, width")
    if height * width > MAX_PIXELS:
        raise InputError(f"A picture may have up to {MAX_PIXELS:,} pixels, not {given(height)} x {given(width)}.")
    size = height, width
    if x.shape[:2] == size:
        return x
    x = reduced(x, size)
    if takes_long(x.shape, size):
        return weighted(x, size)
    return np.rint(np.clip(skimage_resize(x, size), 0, 1) * 255).astype(np.uint8)


def reduced(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The first step of `resize`: means of whole blocks of a very large picture, any other as it is."""
    times = min(x.shape[0] // size[0], x.shape[1] // size[1])
    if times < 2 * _REDUCED or x.shape[2] not in (1, 3):
        return x
    from PIL import Image

    by = times // _REDUCED
    # Whole blocks at a time, for Pillow copies what it is given.
    rows = by * max(1, _PIXELS_AT_ONCE // (by * x.shape[1]))
    parts = (x[top : top + rows] for top in range(0, len(x), rows))
    means = [np.asarray(Image.fromarray(part if x.shape[2] == 3 else part[:, :, 0]).reduce(by)) for part in parts]
    whole = np.concatenate(means) if len(means) > 1 else means[0]
    return whole.reshape(*whole.shape[:2], x.shape[2])


def resize_fast(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What `resize` gives for a picture x (h, w, c) uint8, many times faster if it becomes smaller and Numba works.

    The weights are scikit-image's to rounding; so are the sums, to about 1e-13 of a grey level. Where a sum lies nearer
    than `MARGIN` to the edge between two levels, rounding could decide, and scikit-image itself is asked for the
    picture. So the pixels are the same; tests compare them.
    """
    if x.shape[:2] == size:
        return x
    kernel, whole = _kernel(), x
    x = reduced(x, size)
    height, width, channels = x.shape
    fits = all(0 < new <= side <= _MOST_TIMES * new for new, side in zip(size, x.shape, strict=False))
    fits = fits and channels * size[0] * width <= _MOST_BETWEEN
    if kernel is None or not fits:
        return resize(whole, size)
    # Weights of a long side take megabytes, of which no hundred are kept.
    down, across = (
        (_weights if side <= _LONG_SIDE else _weights.__wrapped__)(side, new)
        for side, new in zip((height, width), size, strict=True)
    )
    out = np.empty((*size, channels), dtype=np.uint8)
    done = kernel(*rows_of(x), *down, *across, MARGIN, out)
    return out if done else resize(whole, size)


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


@functools.lru_cache(maxsize=128)
def _weights(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First pixel (target,) int64 and weights (target, taps) float64 of each new pixel along one side, and these in
    float32 with zeros behind them."""
    from .resize_kernel import WHOLE

    first, weights = bands(source, target, np.arange(target))
    coarse = np.zeros((target, -(-weights.shape[1] // WHOLE) * WHOLE), dtype=np.float32)
    coarse[:, : weights.shape[1]] = weights
    return first, weights, coarse


def to_pixels(path: str | os.PathLike[str], size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """The file's picture as a model takes it, (height, width, channels) uint8 of `size` (height, width).

    channels : 3 for RGB, 1 for grey, which is ITU-R 601 luma, ``0.299 R + 0.587 G + 0.114 B``

    Raises
    ------
    FileError, InputError
        What `read_picture` and `resize` raise, or another number of channels.
    """
    if channels not in (1, 3):
        raise InputError(f"Pictures have 1 channel (grey) or 3 (RGB), not {channels}; change the number of channels.")
    return fit(decoded(path), size, channels, resize)


def fit(picture: np.ndarray, size: tuple[int, int], channels: int, resizer: Resizer) -> np.ndarray:
    """A picture (h, w, 3) uint8 as a model takes it: grey if `channels` is 1, then resized; it may be read-only.

    resizer : `resize`, or a faster way to the same pixels
    """
    if channels == 1:
        from PIL import Image

        picture = np.asarray(Image.fromarray(picture).convert("L"))[:, :, None]
    return resizer(picture, size)


def takes_long(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether scikit-image would take long, or much memory, to resize a picture (h, w, c)."""
    values = shape[0] * shape[1] * shape[2]
    taps = sum(max(0.0, 4 * (side / new - 1)) for side, new in zip(shape, size, strict=False))
    return values > _MOST_VALUES or values * taps > _MOST_PRODUCTS


def weighted(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """scikit-image's resize of a picture x (h, w, c) uint8, rounded, its sums taken directly.

    The sums are the same to about 1e-12 of a grey level; what lies in the middle of two levels to that is taken as
    lying there, and so rounded alike everywhere.
    """
    height, width = size
    # First the side that shrinks more, so that little is kept in between.
    if x.shape[1] * height >= x.shape[0] * width:
        sums = _sums(_sums(x.swapaxes(0, 1), width).swapaxes(0, 1), height)
    else:
        sums = _sums(_sums(x, height).swapaxes(0, 1), width).swapaxes(0, 1)
    return np.clip(np.rint(np.round(sums, 10)), 0, 255).astype(np.uint8)


def _sums(x: np.ndarray, target: int) -> np.ndarray:
    """The weighted sums of the rows of x (n, m, c), (target, m, c) float64."""
    n, m, channels = x.shape
    out = np.zeros((target, m, channels))
    one_by_one = [bands(n, target, np.array([row])) for row in range(target)]
    # Pieces that lie in one piece of memory: rows, or columns of a picture that was turned.
    by_rows = x.strides[0] >= x.strides[1]
    step = max(1, _AT_ONCE // ((m if by_rows else n) * channels))
    high, wide = (step, m) if by_rows else (n, step)
    for top, left in itertools.product(range(0, n, high), range(0, m, wide)):
        part = x[top : top + high, left : left + wide].astype(np.float64, order="C")
        rows, columns = part.shape[:2]
        part = part.reshape(rows, -1)
        for row, ((first,), (weights,)) in enumerate(one_by_one):
            start, stop = max(top, first), min(top + rows, first + len(weights))
            if start < stop:
                sums = weights[start - first : stop - first] @ part[start - top : stop - top]
                out[row, left : left + columns] += sums.reshape(columns, channels)
    return out


def bands(source: int, target: int, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First pixel (n,) int64 and weights (n, taps) float64 of some of the `target` new pixels along one side."""
    factor = source / target
    sigma = max(0.0, (factor - 1) / 2)
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    gauss = np.exp(-0.5 / sigma**2 * offsets**2) if radius else np.ones(1)
    gauss = gauss / gauss.sum()
    centres = (which + 0.5) * factor - 0.5
    before = np.floor(centres).astype(np.int64)
    share = centres - before
    # Interpolation between two neighbours, each of them a weighted mean around itself.
    taps = np.zeros((len(which), len(gauss) + 1))
    taps[:, :-1] += (1 - share)[:, None] * gauss
    taps[:, 1:] += share[:, None] * gauss
    pixels = _mirrored(before[:, None] + np.arange(-radius, radius + 2), source)
    first = pixels.min(axis=1)
    width = int((pixels.max(axis=1) - first).max()) + 1
    first = np.minimum(first, source - width)
    weights = np.zeros((len(which), width))
    np.add.at(weights, (np.arange(len(which))[:, None], pixels - first[:, None]), taps)
    return first, weights


def _mirrored(pixels: np.ndarray, source: int) -> np.ndarray:
    """Numbers of pixels beyond the edges as those of their mirror images; the edge itself is there once."""
    if source == 1:
        return np.zeros_like(pixels)
    period = 2 * (source - 1)
    pixels = np.mod(pixels, period)
    return np.where(pixels < source, pixels, period - pixels)
