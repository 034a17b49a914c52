"""Picture files to pixels: bounded before they are decoded, turned upright, RGB, resized as the tutorial does it."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import FileError, InputError
from .files import reason

if TYPE_CHECKING:
    from PIL.Image import Image

# Only these decoders ever see a file; others (EPS, PSD, ...) are never tried.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# A photograph of 100 million pixels is 300 MB of RGB; whatever claims more is a mistake or an attack.
MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20


def read_picture(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> np.ndarray:
    """The picture in a JPEG, PNG, WebP, BMP, GIF (first frame) or TIFF file, upright, (height, width, 3) uint8 RGB.

    EXIF orientation is applied; transparent pixels are laid over white; grey, 16-bit, palette and CMYK become RGB.
    Size of the file and number of pixels are bounded before anything is decoded.

    Raises
    ------
    FileError
        The file is missing, a folder, or cannot be read.
    InputError
        It is no picture of these formats, damaged, or too large.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise FileError(f"{path} is a folder; name picture files.")
        if size > max_bytes:
            raise InputError(f"{path} has {size:,} bytes; pictures may have up to {max_bytes:,}.")
        if size == 0:
            raise InputError(f"{path} is empty; give a picture file.")
        with open(path, "rb") as file, warnings.catch_warnings():
            # Pillow warns about large pictures and odd metadata; the bounds below are what counts here.
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    raise _too_large(path, width, height, max_pixels)
                # A smaller JPEG is decoded at a fraction of its size only if asked; here every pixel counts.
                picture.load()
                return _upright_rgb(ImageOps.exif_transpose(picture))
    except (FileError, InputError):
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has too many pixels; pictures may have up to {max_pixels:,}.") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{path} is no picture that xlogreg reads; give JPEG, PNG, WebP, BMP, GIF or TIFF.") from error
    except FileNotFoundError as error:
        raise FileError(f"There is no file {path}; check its name.") from error
    except OSError as error:
        if error.errno is not None:
            raise FileError(f"{path} cannot be read: {reason(error)}; check the file.") from error
        raise _damaged(path, error) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on damaged files: SyntaxError, struct.error, ValueError, ...
        raise _damaged(path, error) from error


def _too_large(path: Path, width: int, height: int, max_pixels: int) -> InputError:
    return InputError(
        f"{path} is {width:,} x {height:,} = {width * height:,} pixels; pictures may have up to {max_pixels:,}; "
        "make it smaller first."
    )


def _damaged(path: Path, error: Exception) -> InputError:
    detail = (str(error).splitlines() or [""])[0] or type(error).__name__
    return InputError(f"{path} is a damaged picture ({detail}); open it in an editor and save it again.")


def _upright_rgb(picture: "Image") -> np.ndarray:
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":
        return np.repeat(_eight_bits(np.asarray(picture))[:, :, None], 3, axis=2)
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, rgba)
    return np.array(picture.convert("RGB"))


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """16-bit (0..65535) and float (0..1, or 0..255) greys as 0..255; Pillow would clip them."""
    numbers = np.nan_to_num(values.astype(np.float64))
    largest = numbers.max(initial=0.0)
    full = 65535.0 if values.dtype.kind in "ui" or largest > 255 else 255.0 if largest > 1 else 1.0
    return np.rint(np.clip(numbers / full, 0, 1) * 255).astype(np.uint8)


def resize(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (h, w, c) uint8 resized to `size` (height, width) by scikit-image's `resize`, as the tutorial does.

    scikit-image interpolates linearly and smooths first where it makes smaller; its 0..1 are rounded to 0..255.
    """
    from skimage.transform import resize as skimage_resize

    if x.shape[:2] == tuple(size):
        return x
    return np.rint(np.clip(skimage_resize(x, tuple(size)), 0, 1) * 255).astype(np.uint8)


def to_pixels(path: str | os.PathLike[str], size: tuple[int, int, int]) -> np.ndarray:
    """The file's picture as a model of `size` (height, width, channels) takes it, uint8; grey by ITU-R 601 luma."""
    picture = read_picture(path)
    if size[2] == 1:
        from PIL import Image

        picture = np.asarray(Image.fromarray(picture).convert("L"))[:, :, None]
    return resize(picture, size[:2])
