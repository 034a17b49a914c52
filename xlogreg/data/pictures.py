"""The one form in which labelled pictures travel through xlogreg."""

import difflib
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

# CIFAR-10's classes 0..9 under the tutorial's names, and the two that CIFAR-10 itself spells otherwise.
CIFAR10_CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_ALIASES = {"airplane": "plane", "automobile": "car"}


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled pictures of one size, in file order.

    Attributes
    ----------
    x : ndarray (n, height, width, channels), uint8
        The pixels, 0..255.
    labels : ndarray (n,), int64
        The class of each picture, an index into `class_names`.
    class_names : tuple of str
        Name of class 0, 1, ...
    index : ndarray (n,), int64
        Where each picture stood in its source (row of the CIFAR-10 batch, say).
    source : str
        Where the pictures came from, in words that a person can check.
    """

    x: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    index: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.x)


def class_number(wanted: str | int, class_names: tuple[str, ...]) -> int:
    """The number of a class given by its number ("2") or its name ("bird", and "airplane" for "plane").

    Raises
    ------
    InputError
        There is no such class; the message lists them and suggests the nearest name.
    """
    text = str(wanted).strip()
    if text in class_names:
        return class_names.index(text)
    if text.isascii() and text.isdecimal() and int(text) < len(class_names):
        return int(text)
    spelled = _ALIASES.get(text.lower(), text.lower())
    lowered = [name.lower() for name in class_names]
    if spelled in lowered:
        return lowered.index(spelled)
    near = difflib.get_close_matches(spelled, lowered, n=1)
    suggestion = f" Did you mean {class_names[lowered.index(near[0])]!r}?" if near else ""
    raise InputError(f"There is no class {text!r}; the classes are {', '.join(class_names)}.{suggestion}")
