"""ITU-R 601 luma in whole numbers, ``(299 R + 587 G + 114 B + 500) // 1000``, d = h w."""

from typing import Any

import numpy as np

from .kind import Graph, Kind

_LUMA, _HALF, _UNIT = (299, 587, 114), 500, 1000


class Grey(Kind):
    formats = ("onnx",)

    def length(self, height: int, width: int, channels: int) -> int:
        return height * width

    def compute(self, x: np.ndarray) -> np.ndarray:
        if x.shape[3] == 1:
            return x.reshape(len(x), -1)
        red, green, blue = (share * x[..., channel].astype(np.uint32) for channel, share in enumerate(_LUMA))
        return ((red + green + blue + _HALF) // _UNIT).astype(np.uint8).reshape(len(x), -1)

    def onnx(self, onnx: Any) -> Graph:
        node = onnx.helper.make_node
        nodes = [
            node("Cast", ["pictures"], ["colours"], to=onnx.TensorProto.INT32),
            node("Mul", ["colours", "luma"], ["parts"]),
            node("ReduceSum", ["parts", "axes"], ["luma_sum"], keepdims=0),
            node("Add", ["luma_sum", "rounding"], ["luma_rounded"]),
            node("Div", ["luma_rounded", "unit"], ["grey"]),
        ]
        constants: dict[str, np.ndarray] = {
            "luma": np.array(_LUMA, np.int32), "axes": np.array([3], np.int64),
            "rounding": np.array(_HALF, np.int32), "unit": np.array(_UNIT, np.int32),
        }  # fmt: skip
        return "grey", nodes, constants
