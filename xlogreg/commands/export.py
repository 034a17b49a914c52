"""`xlogreg export`: a trained model for other programs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import ModelArgument


class ExportFormat(StrEnum):
    onnx = "onnx"
    npz = "npz"


def export(
    model: ModelArgument,
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="The file to write, .onnx or .npz.")] = None,
    form: Annotated[
        ExportFormat | None, typer.Option("--format", help="The format. [default: what OUT ends with]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
) -> None:
    """Write a trained model for other programs: ONNX (onnxruntime and others), or plain NumPy arrays."""
    from ..errors import InputError
    from ..models.classifier import Classifier
    from ..models.export import check_exportable
    from ..models.export import export as export_to
    from . import console

    classifier = Classifier.load(model)
    check_exportable(classifier)
    if out is None:
        raise InputError(f"Name the file to write, .onnx or .npz: xlogreg export {model} model.onnx.")
    path = export_to(classifier, out, form.value if form else None, force=force)
    console.out.print(f"{path}: {path.stat().st_size:,} bytes", markup=False)
