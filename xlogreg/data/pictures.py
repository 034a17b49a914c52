"""The one form in which labelled pictures travel through xlogreg."""

import difflib
import re
import unicodedata
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..system.checks import is_whole, of_kind, texts, uint8_pictures, whole_labels
from ..system.text import brief, given, listed, plain, short_repr

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
    files : tuple of str
        The file of each picture, where each has one: its path inside the folder `source` names.

    Raises
    ------
    InputError
        The parts are none of these, or do not fit together.
    """

    x: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    index: np.ndarray
    source: str
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        uint8_pictures(self.x, "x")
        names, files = texts(self.class_names, "class_names"), texts(self.files, "files")
        whole_labels(self.labels, "labels", len(self.x), len(names))
        whole_labels(self.index, "index", len(self.x), 2**63)
        of_kind(self.source, str, "source")
        if len(files) not in (0, len(self.x)):
            raise InputError(f"There are {len(files)} files of {len(self.x)} pictures; name the file of each, or none.")
        object.__setattr__(self, "class_names", names)  # the dataclass is frozen
        object.__setattr__(self, "files", files)

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.x)


# Names that say "not the other one".
_NEGATIVES = frozenset({
    "no", "not", "non", "none", "other", "others", "rest", "background", "negative", "negatives", "neg", "false",
})  # fmt: skip


def default_class(class_names: tuple[str, ...]) -> str:
    """The class to recognise where none was named: the bird of CIFAR-10, the second of two.

    Of two classes it is the first if only the second's name says that it is the rest ("other", "not_face", ..).

    Raises
    ------
    InputError
        There are more than two, and one must be named.
    """
    if class_names == CIFAR10_CLASSES:
        return "bird"
    if len(class_names) != 2:
        raise InputError(
            f"There are {len(class_names)} classes ({listed(class_names)}); name the one to recognise with --positive."
        )
    first, second = (re.split(r"[\W_]+", name.lower()) for name in class_names)
    return class_names[0] if second[0] in _NEGATIVES and first[0] not in _NEGATIVES else class_names[1]


def class_number(wanted: str | int, class_names: tuple[str, ...]) -> int:
    """The number of a class given by its number ("2") or its name ("bird", and "airplane" for "plane").

    Raises
    ------
    InputError
        There is no such class; the message lists them and suggests the nearest name.
    """
    if not isinstance(wanted, str) and not is_whole(wanted):
        raise InputError(f"A class is named by its name or its number, not by {given(wanted)}.")
    name = wanted if isinstance(wanted, str) else given(wanted)
    if name in class_names:
        return class_names.index(name)
    text = name.strip()
    if text in class_names:
        return class_names.index(text)
    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(class_names):
        return int(text)
    # File systems and keyboards write an accented letter in one character or in two.
    spelled = unicodedata.normalize("NFC", text).lower()
    spelled = _ALIASES.get(spelled, spelled)
    lowered = [unicodedata.normalize("NFC", name).lower() for name in class_names]
    if spelled in lowered:
        return lowered.index(spelled)
    near = difflib.get_close_matches(spelled, lowered, n=1)
    suggestion = f" Did you mean '{plain(class_names[lowered.index(near[0])])}'?" if near else ""
    raise InputError(f"There is no class '{brief(text, 300)}'; the classes are {listed(class_names)}.{suggestion}")
