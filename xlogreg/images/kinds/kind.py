"""What a kind of features is asked for; its parameters are the fields of its class, checked when it is made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...system.parallel import Threads, in_order, processors

# (pictures done, pictures in all)
Progress = Callable[[int, int], None]
# A part of an ONNX graph: the name of what comes out (N, ..), its nodes, its constants.
Graph = tuple[str, list[Any], dict[str, np.ndarray]]
# Pictures that a thread works on at a time: their gradients stay in the second-level cache.
_BLOCK = 64


@dataclass(frozen=True)
class Kind:
    """A kind of features with its parameters; `formats` are those of `models/export` that can hold it.

    With `describes_edges`, a weight is of an edge and its picture a stroke; without, it is of light.
    """

    formats: ClassVar[tuple[str, ...]] = ()
    describes_edges: ClassVar[bool] = False

    def length(self, height: int, width: int, channels: int) -> int:
        """The number d of features of a picture; an InputError if it is too small."""
        raise NotImplementedError

    def compute(self, x: np.ndarray) -> np.ndarray:
        """Features of a few pictures x (m, h, w, c) uint8: (m, d) uint8."""
        raise NotImplementedError

    def rows(self, x: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Features of pictures x (m, h, w, c) uint8: (m, d) uint8, C order, computed in threads."""
        out = np.empty((len(x), self.length(*x.shape[1:])), dtype=np.uint8)

        def compute(start: int) -> int:
            part = x[start : start + _BLOCK]
            out[start : start + _BLOCK] = self.compute(part)
            return start + len(part)

        with Threads(processors()) as threads:
            for done in in_order(threads, compute, range(0, len(x), _BLOCK)):
                if progress is not None:
                    progress(done, len(x))
        return out

    def layout(self, w: np.ndarray, height: int, width: int, channels: int) -> np.ndarray:
        """Weights w (d,) as they lie in the picture: (rows, columns, 1 or 3 colours); of edges, directions instead."""
        return w.reshape(height, width, -1)

    def onnx(self, onnx: Any) -> Graph:
        """From the graph's `pictures` to the features, made with the package `onnx`; here, none."""
        return "pictures", [], {}
