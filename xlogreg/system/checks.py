"""What the public functions ask of what they are given: plain arrays and numbers; and words for what is none."""

import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .text import brief_kind, given

Array = Any


def unmasked(value: Any, name: str) -> Any:
    """The value; of NumPy's kinds of arrays (`memmap`, `matrix`) the plain array.

    Raises
    ------
    InputError
        It is a masked array: nothing here heeds masks, and what is masked would be computed with.
    """
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
        if isinstance(value, np.ma.MaskedArray):
            raise InputError(
                f"{name} is a masked array, and its mask would be ignored; leave out what is masked, or fill it in "
                "(numpy.ma.filled)."
            )
        return np.asarray(value)
    return value


def of_kind(value: Any, kind: type, name: str) -> None:
    """An InputError, unless the value is an instance of the class."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        words = "text" if kind is str else f"{article} {kind.__module__.partition('.')[0]}.{kind.__name__}"
        raise InputError(f"{name} must be {words}, not {given(value)}.")


def check_callable(value: Any, name: str) -> None:
    """An InputError, unless the value is a function or None."""
    if value is not None and not callable(value):
        raise InputError(f"{name} must be a function, not {given(value)}.")


def list_of(values: Any, name: str, wanted: str = "a list") -> list[Any]:
    """The values in a list; text is no list of its letters."""
    try:
        if isinstance(values, (str, bytes)):
            raise TypeError
        return list(unmasked(values, name))
    except InputError:
        raise
    except Exception as error:  # numbers, and whatever a class of somebody else's raises
        raise InputError(f"{name} must be {wanted}, not {given(values)}.") from error


def texts(values: Any, name: str) -> tuple[str, ...]:
    """A tuple of texts."""
    found = tuple(list_of(values, name, "a list of names"))
    for value in found:
        of_kind(value, str, f"A name in {name}")
    return found


def sides(size: Any, names: str) -> tuple[int, ...]:
    """The sides of a picture, as many as `names` has and in that order, if they are whole numbers above 0."""
    try:
        found = tuple(size)
    except Exception:  # a number, or whatever a class of somebody else's raises
        found = ()
    if len(found) != names.count(",") + 1 or not all(is_whole(side) and side > 0 for side in found):
        raise InputError(f"The size of a picture must be ({names}), whole numbers above 0, not {given(size)}.")
    return tuple(map(int, found))


def path_of(value: Any, name: str) -> Path:
    """The path that text or a path-like object names."""
    try:
        if isinstance(value, (str, os.PathLike)):
            return Path(value)
    except Exception as error:  # a path of bytes, and whatever a class of somebody else's raises
        raise InputError(f"{name} must be a path, not {given(value)}.") from error
    raise InputError(f"{name} must be a path, not {given(value)}.")


def one_of(value: Any, words: Collection[str]) -> bool:
    """Whether it is one of these words; arrays are not asked."""
    return isinstance(value, str) and value in words


def uint8_pictures(x: Any, name: str) -> None:
    """An InputError, unless x are pictures (n, height, width, channels) uint8."""
    unmasked(x, name)
    if not isinstance(x, np.ndarray) or x.ndim != 4 or x.dtype != np.uint8:
        raise InputError(f"{name} must be pictures (n, height, width, channels) uint8, not {brief_kind(x)}.")


def whole_labels(y: Any, name: str, count: int, classes: int) -> None:
    """An InputError, unless y are so many whole numbers from 0 to below `classes`."""
    unmasked(y, name)
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "biu" or y.shape != (count,):
        raise InputError(f"{name} must be whole numbers ({count},), one a picture, not {brief_kind(y)}.")
    if not all(0 <= int(value) < classes for value in (y.min(initial=0), y.max(initial=0))):
        raise InputError(f"{name} must be from 0 to {classes - 1}; one is not.")


def array_of(value: Any, name: str, wanted: str = "numbers") -> np.ndarray:
    """What NumPy makes of an array, a list or a number, if it is made of numbers.

    Raises
    ------
    InputError
        It is masked, ragged, or holds anything else.
    """
    value = unmasked(value, name)
    try:
        array = np.asarray(value)
    except Exception as error:  # ragged lists, arrays of a GPU, and whatever __array__ of somebody else's raises
        raise InputError(f"{name} must be {wanted}, not {given(value)}.") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} must be {wanted}, not {given(value)}.")
    return array


def pixels_instead(values: np.ndarray, name: str) -> tuple[str, str]:
    """What numbers that are not uint8 may be, if they are pixels, and how to make pixels of them; twice nothing if not.

    Pixels are uint8, 255 is white, and they are divided by 255 where they are summed.
    """
    whole, divided, largest, partly = True, True, 0.0, False
    for start in range(0, len(values), 256):  # most numbers show in the first rows that they are none
        part = values[start : start + 256]
        if not (part >= 0).all():
            return "", ""
        whole = whole and bool(((part <= 255) & (part == np.floor(part))).all())
        if divided:
            levels = np.rint(part.astype(np.float64) * 255)
            divided = bool(((levels <= 255) & ((levels / 255).astype(part.dtype) == part)).all())
        partly = partly or bool(((part > 0) & (part < 1)).any())
        if not whole and not divided:
            return "", ""
        largest = max(largest, float(part.max()))
    if divided and partly:
        return "pixels divided by 255, it seems", f"give numpy.rint(255 * {name}).astype('uint8')"
    if largest > 127:
        return "whole numbers from 0 to 255 that are not uint8", f"if it holds pixels, give {name}.astype('uint8')"
    if largest > 1:
        scaled = f"numpy.rint({name} * (255 / {largest:g})).astype('uint8')"
        return (
            f"whole numbers from 0 to {largest:g}",
            f"if it holds pixels, whose white would be 255, scale them first: {scaled}",
        )
    return "", ""


def numeric(array: Array) -> bool:
    """Whether an array holds real numbers or truth values, in an array module's own dtype."""
    return getattr(array.dtype, "kind", "f") in "biuf"


def finite_number(value: Any) -> float | None:
    """The value as a float if it is one finite number; text and truth values are none."""
    if isinstance(value, (bool, np.bool_, str, bytes, bytearray, np.ma.MaskedArray)):
        return None
    if isinstance(value, np.ndarray) and (value.ndim or not numeric(value)):
        return None
    try:
        number = float(value)
    except Exception:  # whatever a class of somebody else's raises
        return None
    return number if math.isfinite(number) else None


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, of Python or NumPy; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
