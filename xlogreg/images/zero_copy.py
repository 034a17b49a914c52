"""The pixels of a Pillow picture where they lie, without a copy.

NumPy's own way, `np.asarray(picture)`, has Pillow copy the pixels while it holds Python's lock, for a sixth of the time
that decoding a JPEG of 256 x 256 pixels takes. Pillow lends its memory by the Arrow C data interface
(https://arrow.apache.org/docs/format/CDataInterface.html): four bytes a pixel, of which RGB uses three.
"""

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

# Smaller pictures are copied sooner than borrowed.
_FEW_PIXELS = 4096


class _Schema(ctypes.Structure):
    """The beginning of an ArrowSchema."""

    _fields_ = (("format", ctypes.c_char_p),)


class _Array(ctypes.Structure):
    """An ArrowArray."""


_Array._fields_ = (
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
)

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


class _Loan:
    """What NumPy makes an array of; keeps Pillow's memory for as long as there is one."""

    def __init__(self, capsule: Any, address: int, shape: tuple[int, int, int]) -> None:
        self.capsule = capsule
        self.__array_interface__ = {"shape": shape, "typestr": "|u1", "data": (address, True), "version": 3}


def rgb_pixels(picture: "Image") -> np.ndarray:
    """The pixels of a picture of mode RGB, (height, width, 3) uint8, which may be read-only and not contiguous."""
    width, height = picture.size
    if width * height >= _FEW_PIXELS:
        try:
            schema, capsule = picture.__arrow_c_array__()
            array = _Array.from_address(_pointer(capsule, b"arrow_array"))
            kind = _Schema.from_address(_pointer(schema, b"arrow_schema")).format
        except (AttributeError, ValueError):  # Pillow before 11.3; a large picture, which lies in several pieces
            return np.asarray(picture)
        if kind == b"+w:4" and (array.length, array.offset, array.n_children) == (width * height, 0, 1):
            child = array.children[0].contents
            if (child.length, child.offset, child.n_buffers) == (4 * width * height, 0, 2):
                return np.asarray(_Loan(capsule, child.buffers[1], (height, width, 4)))[:, :, :3]
    return np.asarray(picture)


def rows_of(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """The bytes of a picture (h, w, c) row by row, (h, w s), and s: how many a pixel has, c or, of a loan, four."""
    height, width, channels = pixels.shape
    whole = pixels.base
    # A view of a loan in order of its bytes is the one that `rgb_pixels` gave.
    if isinstance(whole, np.ndarray) and type(whole.base) is _Loan and pixels.strides == (4 * width, 4, 1):
        return whole.reshape(height, 4 * width), 4
    return np.ascontiguousarray(pixels).reshape(height, width * channels), channels
