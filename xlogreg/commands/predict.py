"""`xlogreg predict`: what own pictures show, one or a hundred thousand."""

import contextlib
import functools
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated

import typer

from ..errors import FileError, InputError
from .options import ModelArgument
from .shared import stop_signals


class FormatOption(StrEnum):
    text = "text"
    csv = "csv"
    json = "json"


# So many seconds may go by with counting files before the first is predicted.
_COUNTING = 2.0
_SUFFIXES = {
    ".csv": FormatOption.csv, ".jsonl": FormatOption.json, ".ndjson": FormatOption.json, ".txt": FormatOption.text,
}  # fmt: skip


def predict(
    model: ModelArgument,
    pictures: Annotated[
        list[str],
        typer.Argument(
            help="JPEG, PNG, WebP, AVIF, HEIC, BMP, GIF or TIFF files; folders, for all pictures below them; quoted "
            "patterns such as 'photos/**/*.jpg'; - for paths on standard input, one a line."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a picture (JSON Lines).")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: path, label, number, probability, error.")] = False,
    output_format: Annotated[
        FormatOption | None, typer.Option("--format", help="The same choice: text, csv or json. [default: text]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write to this file, whole or not at all; .csv, .jsonl and .txt say its format."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out if it is there.")] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="Paths on standard input end with NUL (find -print0).")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Pictures decoded at a time. [default: one a processor]")] = None,
) -> None:
    """Say what own pictures show: label and probability, one line a picture, in the order they are named.

    A picture that cannot be read is reported and the others are still predicted; the exit code is 1 then, and 2 if
    there are no others. CSV and JSON have probabilities in full precision.
    """
    from ..images.decoding import quiet_libtiff
    from ..models.classifier import Classifier, Failure
    from ..predicting.batch import reuse_memory
    from ..predicting.bulk import predict_many
    from ..predicting.output import HEADERS, lines
    from ..predicting.paths import picture_paths
    from ..system.files import check_new
    from . import bars, console

    chosen = _format(as_json, as_csv, output_format, out)
    if out is not None:
        check_new(out, force)
    classifier = Classifier.load(model)
    reuse_memory()
    quiet_libtiff()
    batches = predict_many(classifier, picture_paths(pictures, null=null, pauses=True), threads=threads, processes=True)
    done = failures = 0
    try:
        with (
            stop_signals(),
            bars.predicting(functools.partial(_count, pictures)) as progress,
            _sink(out, chosen) as sink,
            contextlib.closing(batches),  # type: ignore[type-var]
        ):
            sink.write(HEADERS[chosen.value])
            for batch in batches:
                bad = [result for result in batch if isinstance(result, Failure)]
                done, failures = done + len(batch), failures + len(bad)
                sink.write(lines(batch, chosen.value, classifier.class_names[1]))
                # One write a batch, as soon as it is there: for `| head`, and for whoever watches.
                sink.flush()
                progress(len(batch))
                if chosen is FormatOption.text or out is not None:
                    for failure in bad:
                        console.complain(failure.message)
    except KeyboardInterrupt:
        left = f"; {out} was not written" if out is not None else ""
        console.note(f"Stopped after {done} pictures{left}.")
        raise typer.Exit(130) from None
    if out is not None:
        unread = f", {failures:,} of them not readable" if failures else ""
        console.err.print(f"{done:,} {'picture' if done == 1 else 'pictures'}{unread}: {out}", markup=False)
    if failures:
        raise typer.Exit(2 if failures == done else 1)


def _count(pictures: list[str]) -> int | None:
    """How many there are; None where that takes long, or comes on standard input."""
    from ..predicting.paths import picture_paths

    if "-" in pictures:
        return None
    end, count = time.monotonic() + _COUNTING, 0
    for _ in picture_paths(pictures):
        count += 1
        if time.monotonic() > end:
            return None
    return count


def _format(as_json: bool, as_csv: bool, output_format: FormatOption | None, out: Path | None) -> FormatOption:
    asked = {FormatOption.json: as_json, FormatOption.csv: as_csv}
    wanted = {form for form in FormatOption if asked.get(form) or form == output_format}
    if len(wanted) > 1:
        names = " and ".join(sorted(wanted))
        raise InputError(f"The output can have one format, not {names}; give --csv, --json or --format once.")
    if wanted:
        return wanted.pop()
    suffix = ".txt" if out is None else out.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"{out} does not say which format to write; end it with .csv, .jsonl or .txt, or give --format."
        )
    return _SUFFIXES[suffix]


@contextlib.contextmanager
def _sink(out: Path | None, chosen: FormatOption) -> Iterator[IO[str]]:
    """Where the lines go: standard output, or a file that appears when all is done."""
    import sys

    from ..system.files import whole_file
    from ..system.text import NAMES

    table = chosen is not FormatOption.text
    errors = NAMES if table else "backslashreplace"
    if out is None:
        if sys.stdout is None:
            raise FileError("Standard output is closed, where the lines go; open it, or name a file with --out.")
        if hasattr(sys.stdout, "reconfigure"):
            # Tables are for programs, and the same everywhere; text is in the terminal's encoding.
            sys.stdout.reconfigure(errors=errors, **({"encoding": "utf-8", "newline": "\n"} if table else {}))
        yield sys.stdout
        return
    with whole_file(out) as temporary, open(temporary, "w", encoding="utf-8", errors=errors, newline="") as file:
        yield file
