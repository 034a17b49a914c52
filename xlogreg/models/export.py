"""A trained model for other programs: an ONNX graph, or plain arrays in an `.npz`."""

import io
import json
import os
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..system.checks import of_kind, one_of, path_of
from ..system.files import check_new, write_whole
from ..system.version import __version__
from .classifier import Classifier

# The formats, and the features that each can hold.
FORMATS = {"onnx": ("pixels", "grey"), "npz": ("pixels",)}
# The oldest operators with which all of this can be said (ReduceSum takes its axes as an input since 13), and the file
# format that came with them: newer runtimes read older files, never the other way round.
OPSET, IR_VERSION = 13, 7
# ITU-R 601 luma in whole numbers: (299 R + 587 G + 114 B + 500) // 1000.
_LUMA, _LUMA_SCALE = (299, 587, 114), 1000


def export(
    classifier: Classifier, path: str | os.PathLike[str], form: str | None = None, *, force: bool = False
) -> Path:
    """Write the model as ONNX or `.npz`, whole or not at all; the same model gives the same bytes.

    Parameters
    ----------
    form : "onnx" or "npz"; by default what the file's name ends with
    force : replace a file that is there

    Raises
    ------
    InputError
        No such format, or a model whose features the format cannot hold.
    FileError
        The file is there already, or cannot be written.
    """
    check_exportable(classifier)
    path = path_of(path, "path")
    form = form or path.suffix.lower().removeprefix(".")
    if not one_of(form, FORMATS):
        raise InputError(f"{path} could be ONNX or npz: name it .onnx or .npz, or choose with --format.")
    _features(classifier, form)
    check_new(path, force)
    write_whole(path, to_onnx(classifier) if form == "onnx" else to_npz(classifier))
    return path


def check_exportable(classifier: Classifier) -> None:
    """An InputError if no format can hold the model's features, before anybody chooses one, or a file."""
    of_kind(classifier, Classifier, "classifier")
    if not any(classifier.features.name in possible for possible in FORMATS.values()):
        raise InputError(
            f"A model of {classifier.features.name} features cannot be exported: neither ONNX nor npz can hold how "
            "they are computed; predict with xlogreg instead, or train on --features pixels or grey."
        )


def to_npz(classifier: Classifier) -> bytes:
    """The bytes of an `.npz` file, for ``numpy.load(path)`` without pickles.

    w (d, 1) float64 and b () float64; size (3,) int64, the height, width and channels; class_names (2,), of fixed-width
    Unicode; the rest, as text or numbers: features, learning_rate, number_of_iterations, history_sha256, trained_on,
    xlogreg_version. The probability is ``1 / (1 + exp(-(x / 255 @ w + b)))`` for pictures x (n, d) uint8.

    Raises
    ------
    InputError
        The model does not take pixels.
    """
    _features(classifier, "npz")
    arrays = {
        "w": classifier.w,
        "b": np.float64(classifier.b),
        "size": np.array(classifier.size, dtype=np.int64),
        "class_names": np.array(classifier.class_names, dtype=np.str_),
        "features": np.str_("pixels"),
        "learning_rate": np.float64(classifier.learning_rate),
        "number_of_iterations": np.int64(classifier.number_of_iterations),
        "history_sha256": np.str_(classifier.history_sha256),
        "trained_on": np.str_(classifier.trained_on),
        "xlogreg_version": np.str_(classifier.xlogreg_version),
    }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def to_onnx(classifier: Classifier) -> bytes:
    """The bytes of an ONNX model: `pictures` (N, height, width, channels) uint8 -> `label`, `probability`.

    label : (N,) int64, 0 or 1; probability : (N,) float64, that of class 1. All is computed in float64, as
    ``sigmoid(pixels @ w / 255 + b)``: equal to xlogreg's to rounding, about 1e-15, not to the bit. The metadata have
    class_names and size as JSON, threshold, features and the digest of the training.

    Raises
    ------
    InputError
        The package onnx is missing, or ONNX has no operators for the model's features.
    """
    features = _features(classifier, "onnx")
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as error:
        raise InputError(
            "ONNX needs the package onnx, which is not installed; pip install onnx, or export .npz instead."
        ) from error

    height, width, channels = classifier.size
    constants: dict[str, np.ndarray] = {
        "w": classifier.w[:, 0].copy(),
        "scale": np.array(255.0),
        "b": np.array(classifier.b),
        "half": np.array(0.5),
    }
    nodes, pixels = [], "pictures"
    if features == "grey":
        constants |= {
            "luma": np.array(_LUMA, dtype=np.int32),
            "axes": np.array([3], dtype=np.int64),
            "rounding": np.array(_LUMA_SCALE // 2, dtype=np.int32),
            "unit": np.array(_LUMA_SCALE, dtype=np.int32),
        }
        nodes += [
            helper.make_node("Cast", ["pictures"], ["colours"], to=TensorProto.INT32),
            helper.make_node("Mul", ["colours", "luma"], ["parts"]),
            helper.make_node("ReduceSum", ["parts", "axes"], ["luma_sum"], keepdims=0),
            helper.make_node("Add", ["luma_sum", "rounding"], ["luma_rounded"]),
            helper.make_node("Div", ["luma_rounded", "unit"], ["grey"]),
        ]
        pixels = "grey"
    nodes += [
        helper.make_node("Flatten", [pixels], ["rows"], axis=1),
        helper.make_node("Cast", ["rows"], ["numbers"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["numbers", "w"], ["sums"]),
        helper.make_node("Div", ["sums", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "b"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["probability"]),
        helper.make_node("GreaterOrEqual", ["probability", "half"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["label"], to=TensorProto.INT64),
    ]
    graph = helper.make_graph(
        nodes,
        "xlogreg",
        [helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["N", height, width, channels])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probability", TensorProto.DOUBLE, ["N"]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        doc_string=_plain(f"{classifier.class_names[1]} (label 1) or {classifier.class_names[0]} (label 0)"),
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="xlogreg",
        producer_version=__version__,
    )
    helper.set_model_props(model, _metadata(classifier, features))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _metadata(classifier: Classifier, features: str) -> dict[str, str]:
    return {
        "class_names": json.dumps(classifier.class_names),
        "size": json.dumps(classifier.size),
        "features": features,
        "threshold": "0.5",
        "learning_rate": repr(classifier.learning_rate),
        "number_of_iterations": str(classifier.number_of_iterations),
        "history_sha256": _plain(classifier.history_sha256),
        "trained_on": _plain(classifier.trained_on),
        "xlogreg_version": _plain(classifier.xlogreg_version),
    }


def _plain(text: str) -> str:
    # ONNX holds valid Unicode only; a name from a folder may be none.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _features(classifier: Classifier, form: str) -> str:
    """The features' name, if the format can hold them."""
    check_exportable(classifier)
    name, possible = classifier.features.name, FORMATS[form]
    if name not in possible:
        others = " or ".join(other for other, names in FORMATS.items() if name in names)
        raise InputError(
            f"A model of {name} features cannot be exported to {form}, only one of {' or '.join(possible)}; export it "
            f"to {others} instead."
        )
    return name
