"""`xlogreg doctor`: the machine, and the proof of the same bits on it."""

from dataclasses import asdict

import typer

from .options import JsonOption
from .shared import print_json


def doctor(as_json: JsonOption = False) -> None:
    """Show the machine as xlogreg sees it and prove on it that every implementation gives the same bits.

    Trains shortly by every solver, on every implementation and device there is; exit code 1 unless all digests are the
    golden one of their solver.
    """
    from ..proof.doctor import examine
    from . import bars, console

    with bars.working("training shortly on every implementation (the first time the kernel is compiled)"):
        report = examine()
    if as_json:
        print_json(asdict(report) | {"healthy": report.healthy})
    else:
        console.show_examination(report)
    if not report.healthy:
        raise typer.Exit(1)
