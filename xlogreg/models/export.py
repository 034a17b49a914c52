"""A trained model for other programs: an ONNX graph, or plain arrays in an `.npz`."""

import io
import json
import os
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..images.kinds import KINDS, kind_class
from ..system.checks import of_kind, one_of, path_of
from ..system.files import check_new, write_whole
from ..system.version import __version__
from .classifier import Classifier

# Which features a format can hold, their kinds say.
FORMATS = ("onnx", "npz")
# The oldest operators with which all of this can be said (ReduceSum takes its axes as an input since 13), and the file
# format that came with them: newer runtimes read older files, never the other way round.
OPSET, IR_VERSION = 13, 7
# What both formats say of where a model came from.
_ORIGIN = ("history_sha256", "trained_on", "xlogreg_version")


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
    content = to_onnx(classifier) if form == "onnx" else to_npz(classifier)
    check_new(path, force)
    write_whole(path, content)
    return path


def check_exportable(classifier: Classifier, form: str | None = None) -> None:
    """An InputError if this format, or without one any, cannot hold the model's features."""
    of_kind(classifier, Classifier, "classifier")
    name, possible = classifier.features.name, classifier.features.kind.formats
    if not possible:
        raise InputError(
            f"A model of {name} features cannot be exported: neither ONNX nor npz can hold how they are computed; "
            f"predict with xlogreg instead, or train on --features {_kinds_for(*FORMATS)}."
        )
    if form is not None and form not in possible:
        raise InputError(
            f"A model of {name} features cannot be exported to {form}, only one of {_kinds_for(form)}; export it to "
            f"{' or '.join(possible)} instead."
        )


def to_npz(classifier: Classifier) -> bytes:
    """The bytes of an `.npz` file, for ``numpy.load(path)`` without pickles.

    w (d, 1) float64 and b () float64; size (3,) int64, the height, width and channels; class_names (2,), of fixed-width
    Unicode; the rest, as text or numbers: features, learning_rate (where there was one), number_of_iterations,
    history_sha256, trained_on, xlogreg_version. The probability is ``1 / (1 + exp(-(x / 255 @ w + b)))`` for pictures
    x (n, d) uint8.

    Raises
    ------
    InputError
        The model does not take pixels.
    """
    check_exportable(classifier, "npz")
    arrays = {
        "w": classifier.w,
        "b": np.float64(classifier.b),
        "size": np.array(classifier.size, dtype=np.int64),
        "class_names": np.array(classifier.class_names, dtype=np.str_),
        "features": np.str_(classifier.features.name),
        **({} if classifier.learning_rate is None else {"learning_rate": np.float64(classifier.learning_rate)}),
        "number_of_iterations": np.int64(classifier.number_of_iterations),
        **{name: np.str_(getattr(classifier, name)) for name in _ORIGIN},
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
    check_exportable(classifier, "onnx")
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
    features, nodes, more = classifier.features.kind.onnx(onnx)
    nodes += [
        helper.make_node("Flatten", [features], ["rows"], axis=1),
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
        [onnx.numpy_helper.from_array(value, name) for name, value in (constants | more).items()],
        doc_string=_plain(f"{classifier.class_names[1]} (label 1) or {classifier.class_names[0]} (label 0)"),
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="xlogreg",
        producer_version=__version__,
    )
    helper.set_model_props(model, {
        "class_names": json.dumps(classifier.class_names),
        "size": json.dumps(classifier.size),
        "features": classifier.features.name,
        "threshold": "0.5",
        **({} if classifier.learning_rate is None else {"learning_rate": repr(classifier.learning_rate)}),
        "number_of_iterations": str(classifier.number_of_iterations),
        **{name: _plain(getattr(classifier, name)) for name in _ORIGIN},
    })  # fmt: skip
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _plain(text: str) -> str:
    # ONNX holds valid Unicode only; a name from a folder may be none.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _kinds_for(*forms: str) -> str:
    return " or ".join(name for name in KINDS if set(forms) & set(kind_class(name).formats))
