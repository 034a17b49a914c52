"""The command line: `xlogreg reproduce`, `train`, `predict` and the others, put together."""

import contextlib
import logging
import os
import sys
import warnings
from typing import Annotated

import typer

from . import __version__
from .commands.benchmark import benchmark
from .commands.doctor import doctor
from .commands.evaluate import evaluate
from .commands.export import export
from .commands.fetch import fetch
from .commands.predict import predict
from .commands.report import report
from .commands.reproduce import reproduce
from .commands.sweep import sweep
from .commands.train import train
from .errors import RisingCostWarning, XlogregError

app = typer.Typer(
    name="xlogreg",
    help="Logistic regression for images with a neural network mindset: the same bits on every machine.\n\n"
    "Start with `xlogreg reproduce`: it trains on built-in bird pictures and compares with the published result.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"xlogreg {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


for command in (reproduce, train, sweep, predict, evaluate, report, export, fetch, benchmark, doctor):
    app.command()(command)


def main() -> None:
    """Run the command line: exit code 0, 1 for a result that is not as it should be, 2 for what the user can mend."""
    logging.getLogger("xlogreg").setLevel(logging.ERROR)  # progress says it
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # without a home it says where it keeps its fonts
    warnings.filterwarnings("ignore", category=RisingCostWarning)  # so does a note
    # Pillow warns of odd tags in pictures that it reads all the same.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        app()
    except XlogregError as error:
        from . import console

        console.complain(str(error))
        sys.exit(2)
    except OSError as error:  # standard output on a full disk, say; what xlogreg itself writes raises FileError
        from . import console
        from .files import reason

        with contextlib.suppress(OSError, AttributeError):  # it may be closed, or None from the start
            sys.stdout.flush()
        # Nothing more can be written there, and nobody must try: neither what comes next nor Python at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        console.complain(f"Something could not be written or read: {reason(error)}.")
        sys.exit(2)
    except MemoryError:
        from . import console

        console.complain("The machine's memory is full; train on fewer pictures or iterations.")
        sys.exit(2)
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        from . import console

        # Of a library's: what works in threads here does with fewer.
        console.complain("The system starts no more threads for this process; raise the limit of processes (ulimit).")
        sys.exit(2)
