"""What the neuron sees of a picture: its pixels, its grey values, or histograms of oriented gradients (HOG).

All features are uint8, so training on them is as exact as on pixels. They are computed from whole numbers, with
``+ - * / sqrt rint`` of IEEE float64 alone and with sums of whole numbers below 2^53, which are exact in any order: the
same pictures give the same features, to the bit, on every machine, for any number of threads. How each kind is computed
stands in a module of its own in `kinds`.
"""

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ..errors import InputError
from ..system.checks import one_of, sides, unmasked
from ..system.text import brief_kind, given
from .kinds import DEFAULT, KINDS, kind_class
from .kinds.kind import Kind, Progress


@dataclass(frozen=True)
class Features:
    """A kind of features and its parameters; equal ones give equal bits.

    Attributes
    ----------
    name : "pixels", "grey" or "hog"
    orientations, cell, block : of "hog": directions in half a turn, pixels along a cell, cells along a block

    Raises
    ------
    InputError
        There are no such features, or parameters out of range.
    """

    name: str = DEFAULT
    orientations: int = 9
    cell: int = 4
    block: int = 3

    def __post_init__(self) -> None:
        if not one_of(self.name, KINDS):
            raise InputError(f"There are no features {given(self.name)}; choose {', '.join(KINDS)}.")
        for name in KINDS:  # parameters are checked even where another kind's are not used
            self._made(name)

    def _made(self, name: str) -> Kind:
        kind = kind_class(name)
        return kind(**{field.name: getattr(self, field.name) for field in fields(kind)})

    @property
    def kind(self) -> Kind:
        return self._made(self.name)

    @property
    def parameters(self) -> dict[str, int]:
        """What the features depend on besides their name."""
        return asdict(self.kind)

    def describe(self) -> dict[str, Any]:
        """Name and parameters in plain types, for a record; `Features(**described)` is the same again."""
        return {"name": self.name, **self.parameters}

    def length(self, size: tuple[int, int, int]) -> int:
        """The number d of features of a picture of `size` (height, width, channels).

        Raises
        ------
        InputError
            The picture is too small for one block.
        """
        return self.kind.length(*sides(size, "height, width, channels"))

    def rows(self, x: np.ndarray, *, progress: Progress | None = None) -> np.ndarray:
        """Features of pictures x (m, h, w, c) uint8: (m, d) uint8, C order; pixels are a view of x where they can be.

        Computed in threads (NumPy works outside Python's lock), `progress` called from this one. Nothing is kept on
        disk: HOG of 12,000 pictures of 32 x 32 takes about as long as reading and checking a kept copy would.

        Raises
        ------
        InputError
            x are no such pictures, or the features cannot be had of their size.
        """
        x = unmasked(x, "x")
        if not isinstance(x, np.ndarray) or x.ndim != 4 or x.dtype != np.uint8 or x.shape[3] not in (1, 3):
            raise InputError(f"Features are of uint8 pictures (n, height, width, 1 or 3), not {brief_kind(x)}.")
        self.length(x.shape[1:])
        return self.kind.rows(x, progress)


def sha256_of(*rows: np.ndarray) -> str:
    """SHA-256 over the bytes of arrays of features, one after the other: what a training started from."""
    digest = hashlib.sha256()
    for part in rows:
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


PIXELS = Features()
