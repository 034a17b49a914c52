"""`xlogreg report`: the page of a run folder, or one page that compares several."""
from pathlib import Path
from typing import Annotated

import typer

from ..system import run_file_names


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, of train, sweep or reproduce.")],
    out: Annotated[
        Path | None, typer.Option(help="The page's file. [default: RUN/report.html; of several runs comparison.html]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the page's file even if it is no report.")] = False,
) -> None:
    """Make the report page of a run again from the files in its folder, or one page that compares several runs.

    The page is one file that needs nothing else: it can be mailed, printed and opened without network access.
    """
    from ..runs.reading import load_runs
    from ..runs.report import is_report, write_comparison, write_report
    from ..system.files import check_new
    from . import console

    path = out or (runs[0] / run_file_names.PAGE if len(runs) == 1 else Path("comparison.html"))
    check_new(path, force or is_report(path))
    if len(runs) == 1:
        write_report(runs[0], path=path)
    else:
        write_comparison([run for folder in runs for run in load_runs(folder)], path, path.stem)
    console.out.print(str(path), markup=False)
