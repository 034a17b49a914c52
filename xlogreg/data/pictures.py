"""The one form in which labelled pictures travel through xlogreg."""

from dataclasses import dataclass

import numpy as np


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
