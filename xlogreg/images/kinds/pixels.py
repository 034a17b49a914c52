"""The picture as it is, d = h w c."""

import numpy as np

from .kind import Kind, Progress


class Pixels(Kind):
    formats = ("onnx", "npz")

    def length(self, height: int, width: int, channels: int) -> int:
        return height * width * channels

    def rows(self, x: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        return x.reshape(len(x), self.length(*x.shape[1:]))  # a view where it can be
