"""What scikit-image's resize does to one side of a picture, as weights, and pictures resized by these in linear time.

scikit-image smooths by a Gaussian (sigma ``(f - 1) / 2`` for the factor f, cut off at 4 sigma, mirrored at the edges)
and then interpolates linearly at the centres of the new pixels. Both are sums of pixels with fixed weights, so each
new pixel is one weighted sum over a band of rows and columns; the rest of the smoothed picture is never computed.
"""

import itertools

import numpy as np

# scikit-image smooths every pixel over as many as f makes one, both of which a thin picture has many of: 400,000 x 1
# pixels to 32 x 32 take 15 seconds, and ten times as many a hundred times as long. So many products are two or three
# seconds, and so many values (eight bytes each, several times) half a gigabyte.
_MOST_PRODUCTS = 1e10
_MOST_VALUES = 50_000_000
# Values that are turned into float64 at a time.
_AT_ONCE = 2**23


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
