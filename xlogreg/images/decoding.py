"""Picture files to pixels: bounded before they are decoded, turned upright, RGB."""

import contextlib
import ctypes
import functools
import io
import os
import stat
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from ..errors import FileError, InputError
from ..system.checks import is_whole, path_of
from ..system.files import open_regular, reason
from ..system.text import brief, given
from . import headers
from .zero_copy import rgb_pixels

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# A photograph of 100 million pixels is 300 MB of RGB; whatever claims more is a mistake or an attack.
MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20
# A row takes time and memory of its own, however short it is.
MAX_SIDE = 1_000_000

# How files of each format begin. Only the decoder that a file's first bytes call for ever sees it, and others
# (EPS, PSD, ...) never do.
_BEGINNINGS = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0", b"II\0*"),
}
# What files of boxes (ISO base media) call themselves.
_BRANDS = {
    "AVIF": frozenset((b"avif", b"avis")),
    "HEIC": frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")),
}
# What reads them: modules and classes.
_PLUGINS = {
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIC": ("pillow_heif.as_plugin", "HeifImageFile"),
}
_NEEDS = {
    "AVIF": "Pillow 11.3 or later with AVIF; install it with `pip install --upgrade pillow`",
    "HEIC": "pillow-heif (the extra heic); install it with `pip install pillow-heif`",
}
# What may be given, in words.
FORMATS = "JPEG, PNG, WebP, AVIF, HEIC, BMP, GIF or TIFF"
# So many bytes tell a format, and a WebP file's canvas.
_HEAD = 64
# Of larger pictures copies are made of so many pixels at a time.
_AT_ONCE = 2**22
# Changes whenever `resize` gives other bits.
_RESIZE_VERSION = 2
_ORIENTATION = 0x0112  # the EXIF tag
# Where Pillow finds it, beside a TIFF file's own tags.
_MAY_TURN = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}


def read_picture(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> np.ndarray:
    """The picture in a JPEG, PNG, WebP, BMP, GIF (first frame), TIFF, AVIF or HEIC file, upright, (height, width, 3)
    uint8 RGB.

    EXIF orientation is applied; transparent pixels are laid over white; grey, 16-bit, palette and CMYK become RGB.
    16-bit grey is scaled, ``rint(v / 257)``, and so are 32-bit whole numbers up to 65535, 0..255 among them; with a
    larger one they are scaled from 0..2^31 - 1, and floats from 0..1, 0..255 or 0..65535, whichever holds them. Size of
    the file, number of pixels, and what else a file asks of its decoder (`headers`) are bounded before anything is
    decoded. No state of Pillow or of `warnings` is changed, so pictures may be read in many threads.

    Raises
    ------
    FileError
        The file is missing, a folder, or cannot be read.
    InputError
        It is no picture of these formats, damaged, or too large.
    """
    x = decoded(path, max_pixels=max_pixels, max_bytes=max_bytes)
    return x if x.flags.writeable else x.copy()


def decoded(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """`read_picture` without its last copies: the array may be read-only, and need not be contiguous."""
    path = path_of(path, "path")
    for limit in (max_pixels, max_bytes):
        if not is_whole(limit):
            raise InputError(f"max_pixels and max_bytes must be whole numbers, not {given(limit)}.")
    return decode(path, read_content(path, max_bytes), max_pixels)


def read_content(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a picture file, bounded; the errors of `read_picture`."""
    try:
        # Nothing waits here for somebody to write into a named pipe.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(handle)
            if stat.S_ISDIR(status.st_mode):
                raise FileError(f"{path} is a folder; name picture files.")
            if not stat.S_ISREG(status.st_mode):
                raise FileError(f"{path} is no file with a content of its own; name picture files.")
            if status.st_size > max_bytes:
                raise InputError(f"{path} has {status.st_size:,} bytes; pictures may have up to {max_bytes:,}.")
            if status.st_size == 0:
                raise InputError(f"{path} is empty; give a picture file.")
            content = os.read(handle, status.st_size)
            # Network file systems give less at a time.
            while len(content) < status.st_size and (more := os.read(handle, status.st_size - len(content))):
                content += more
            return content
        finally:
            os.close(handle)
    except (FileError, InputError):
        raise
    except FileNotFoundError as error:
        raise FileError(f"There is no file {path}; check its name.") from error
    except OSError as error:
        raise FileError(f"{brief(str(path), 300)} cannot be read: {reason(error)}; check the file.") from error
    except ValueError as error:  # a name that no file can have, with a NUL in it
        raise FileError(f"{given(str(path))} is no name of a file ({error}); check it.") from error


def decode(path: Path, content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture in a file's content, (height, width, 3) uint8 RGB, as `decoded`; `path` is for messages."""
    from PIL import Image

    head = content[:_HEAD]
    kind = _kind(head)
    if kind is None:
        raise InputError(f"{path} is no picture that xlogreg reads; give {FORMATS}.")
    canvas = _webp_canvas(head)
    # libwebp sets its canvas aside as soon as it sees the file; the other decoders wait until they are asked to load.
    if canvas:
        _check_size(path, *canvas, max_pixels)
    reader = _reader(kind, path)
    try:
        headers.check(kind, content)
        with reader(io.BytesIO(content)) as picture:
            width, height = picture.size
            _check_size(path, width, height, max_pixels)
            # Pixels first: some formats keep their EXIF behind them.
            picture.load()
            return _rgb(_upright(picture))
    except InputError:
        raise
    except headers.TooMuch as error:
        raise InputError(f"{path} {error}, which no picture needs; open it in an editor and save it again.") from None
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path} has more pixels than Pillow accepts, and pictures may have up to {max_pixels:,}; "
            "make it smaller first."
        ) from error
    except MemoryError as error:
        raise InputError(f"{path} needs more memory than there is; make it smaller first.") from error
    except Exception as error:  # decoders raise anything on damaged files: SyntaxError, struct.error, ValueError, ...
        raise _damaged(path, error) from error


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as one of the formats does; False for what cannot be read."""
    try:
        with open_regular(path) as file:
            return _kind(file.read(_HEAD)) is not None
    except (OSError, InputError):
        return False


def _webp_canvas(head: bytes) -> tuple[int, int] | None:
    """Width and height that the first 30 bytes of a WebP file claim; None if they are no such bytes."""
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def _kind(head: bytes) -> str | None:
    """The format of a file that begins like this; None for all that is none of the formats."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        length = min(int.from_bytes(head[:4], "big"), len(head))
        # The main brand, and those that the file goes by as well.
        for brand in (head[8:12], *(head[at : at + 4] for at in range(16, length, 4))):
            for name, brands in _BRANDS.items():
                if brand in brands:
                    return name
        return None
    return next((name for name, beginnings in _BEGINNINGS.items() if head.startswith(beginnings)), None)


def _reader(kind: str, path: Path) -> "Callable[[IO[bytes]], ImageFile]":
    """Pillow's reader for files of a format.

    Not `Image.open`: it warns about large pictures before they can be refused, and warnings cannot be silenced
    without changing the filters of all threads. (A camera's MPO file begins with its main picture, a plain JPEG.)
    """
    reader = _plugin(kind)
    if reader is None:
        needs = _NEEDS.get(kind, f"Pillow with {kind}; install it with `pip install --upgrade pillow`")
        raise InputError(f"{path} is a picture in {kind}, which needs {needs}, or save the picture as JPEG or PNG.")
    return reader


@functools.cache
def _plugin(kind: str) -> "Callable[[IO[bytes]], ImageFile] | None":
    """The class that reads a format; None if it is not installed."""
    module, name = _PLUGINS[kind]
    try:
        plugin = import_module(module)
    except ImportError:
        return None
    reader: Callable[[IO[bytes]], ImageFile] = getattr(plugin, name)
    return reader if getattr(plugin, "SUPPORTED", True) else None


def quiet_libtiff() -> None:
    """Have libtiff, which writes to standard error what it finds odd, keep it to itself; errors are raised as ever.

    For programs that do nothing else: it holds for the whole process. Without libtiff as a library it does nothing.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):
        from PIL import _imaging

        # The library that Pillow has loaded already, found through Pillow's own.
        loaded = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(loaded, name)
            handler.argtypes, handler.restype = (ctypes.c_void_p,), ctypes.c_void_p
            handler(None)


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise InputError(
            f"{path} is {width:,} x {height:,} = {width * height:,} pixels; pictures may have up to {max_pixels:,}; "
            "make it smaller first."
        )
    if max(width, height) > MAX_SIDE:
        raise InputError(
            f"{path} is {width:,} x {height:,} pixels; a side may have up to {MAX_SIDE:,}; make it smaller first."
        )


def _damaged(path: Path, error: Exception) -> InputError:
    detail = (str(error).splitlines() or [""])[0]
    if not any(map(str.isalpha, detail)):  # some decoders give a number only
        detail = type(error).__name__
    return InputError(f"{path} is a damaged picture ({brief(detail, 120)}); open it in an editor and save it again.")


def _upright(picture: "Image") -> "Image":
    # Pillow's own exif_transpose writes all EXIF anew, and so fails on a sound picture whose other tags are odd.
    if picture.format != "TIFF" and not _MAY_TURN & picture.info.keys():
        return picture  # reading no EXIF takes as long as reading a small picture
    exif = picture.info.get("exif") or b""
    if not exif and "Raw profile type exif" in picture.info:
        exif = bytes.fromhex("".join(picture.info["Raw profile type exif"].split("\n")[3:]))
    headers.check_tags(exif)
    orientation = picture.getexif().get(_ORIENTATION, 1)
    if orientation == 1:
        return picture
    from PIL.Image import Transpose

    method = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }.get(orientation)  # fmt: skip
    return picture if method is None else picture.transpose(method)


def _rgb(picture: "Image") -> np.ndarray:
    if picture.mode.startswith("I") or picture.mode == "F":
        return _eight_bits(picture)
    width, height = picture.size
    if width * height <= _AT_ONCE:
        plain = picture.mode == "RGB" and "transparency" not in picture.info
        return rgb_pixels(picture if plain else _flat(picture))
    out = np.empty((height, width, 3), dtype=np.uint8)
    for rows, part in _bands(picture):
        out[rows] = np.asarray(_flat(part))
    return out


def _bands(picture: "Image") -> "Iterator[tuple[slice, Image]]":
    """So many rows of the picture at a time that copies of them take little memory; a small picture is one band."""
    width, height = picture.size
    step = max(1, _AT_ONCE // width)
    for top in range(0, height, step):
        bottom = min(height, top + step)
        yield slice(top, bottom), picture if bottom - top == height else picture.crop((0, top, width, bottom))


def _flat(picture: "Image") -> "Image":
    """The picture in RGB, over white."""
    from PIL import Image

    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, rgba)
    return picture.convert("RGB")


def _eight_bits(picture: "Image") -> np.ndarray:
    """16-bit (0..65535), 32-bit and float (0..1, 0..255 or 0..65535) greys as 0..255; Pillow would clip them."""
    whole = picture.mode != "F"
    largest = max(
        values.max(initial=0, where=True if whole else np.isfinite(values))
        for values in (np.asarray(part) for _, part in _bands(picture))
    )
    full = float(2**31 - 1) if whole else 65535.0 if largest > 255 else 255.0 if largest > 1 else 1.0
    out = np.empty((picture.height, picture.width, 3), dtype=np.uint8)
    for rows, part in _bands(picture):
        values = np.asarray(part)
        if whole and largest <= 65535:
            levels = (np.maximum(values, 0).astype(np.uint32) + 128) // 257  # = rint(v / 257)
        else:
            values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
            levels = np.rint(np.clip(values.astype(np.float64) / full, 0, 1) * 255)
        out[rows] = levels[:, :, None]
    return out


@functools.cache
def decoder() -> str:
    """What turns files into pixels here, in words: equal on two machines, the pixels are expected to be equal.

    Lossless formats have one decoding. JPEG's has some freedom, of which libjpeg-turbo makes the same use with and
    without SIMD instructions. `resize` is float arithmetic of scikit-image and SciPy, rounded to whole levels.
    """
    from importlib.metadata import PackageNotFoundError, version

    from PIL import features

    parts = [f"xlogreg {_RESIZE_VERSION}"]
    parts += [f"{name} {version(name)}" for name in ("numpy", "pillow", "scikit-image", "scipy")]
    parts += [f"{name} {features.version(name)}" for name in ("libjpeg_turbo", "jpg", "webp", "libtiff")]
    if _plugin("AVIF") is not None:
        parts.append(f"avif {features.version('avif')}")
    with contextlib.suppress(PackageNotFoundError):
        parts.append(f"pillow-heif {version('pillow-heif')}")
    return ", ".join(parts)
