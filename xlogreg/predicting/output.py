"""Predictions as lines: text for people, CSV and JSON Lines for programs."""

import json
from collections.abc import Sequence

from ..models.classifier import Failure, Prediction
from ..system.text import csv_lines, plain

# What stands above the lines of each format.
HEADERS = {"text": "", "csv": "path,label,number,probability,error\n", "json": ""}


def lines(results: Sequence[Prediction | Failure], form: str, positive: str) -> str:
    """The results' lines in this format, text, csv or json, each ended by a newline.

    Text leaves failures out, which are told on standard error. csv and json have the probability in the shortest digits
    that give its bits back.

    positive : the name of class 1, whose probability it is
    """
    if form == "json":
        return "".join(json.dumps(_record(result)) + "\n" for result in results)
    if form == "csv":
        return csv_lines(
            (result.path, "", "", "", result.message)
            if isinstance(result, Failure)
            else (result.path, result.label, result.number, repr(result.probability), "")
            for result in results
        )
    return "".join(
        f"{plain(result.path)}: {plain(result.label)} (probability of {plain(positive)} {result.probability:.4f})\n"
        for result in results
        if isinstance(result, Prediction)
    )


def _record(result: Prediction | Failure) -> dict[str, object]:
    if isinstance(result, Failure):
        return {"path": str(result.path), "error": result.message}
    return {
        "path": str(result.path), "label": result.label, "number": result.number, "probability": result.probability,
    }  # fmt: skip
