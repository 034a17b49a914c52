"""`xlogreg predict`: what own pictures show."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..options import ModelArgument


def predict(
    model: ModelArgument,
    pictures: Annotated[list[Path], typer.Argument(help="JPEG, PNG, WebP, BMP, GIF or TIFF files.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a picture.")] = False,
) -> None:
    """Say what own pictures show: label and probability, one line a picture.

    A picture that cannot be read is reported and the others are still predicted; the exit code is 1 then.
    """
    from .. import console
    from ..classifier import Classifier, Failure
    from ..text import plain

    classifier = Classifier.load(model)
    failures = 0
    for result in classifier.predict_files(pictures):
        if isinstance(result, Failure):
            failures += 1
            if as_json:
                print(json.dumps({"path": str(result.path), "error": result.message}), flush=True)
            else:
                console.complain(result.message)
        elif as_json:
            print(json.dumps({
                "path": str(result.path), "label": result.label, "number": result.number,
                "probability": result.probability,
            }), flush=True)  # fmt: skip
        else:
            name = plain(classifier.class_names[1])
            print(f"{plain(result.path)}: {plain(result.label)} (probability of {name} {result.probability:.4f})")
    if failures:
        raise typer.Exit(1)
