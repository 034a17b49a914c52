"""The command line: `xlogreg reproduce`, `train`, `predict` and the others, put together."""

import logging
import sys
import warnings
from typing import Annotated, Any

import typer

from ..errors import ConvergenceWarning, RisingCostWarning, XlogregError
from ..system.version import __version__
from . import terminal, usage
from .benchmark import benchmark
from .doctor import doctor
from .evaluate import evaluate
from .export import export
from .fetch import fetch
from .predict import predict
from .report import report
from .reproduce import reproduce
from .sweep import sweep
from .train import train

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


_COMMANDS = (reproduce, train, sweep, predict, evaluate, report, export, fetch, benchmark, doctor)
for command in _COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line: exit code 0, 1 for a result that is not as it should be, 2 for what the user can mend."""
    logging.getLogger("xlogreg").setLevel(logging.ERROR)  # progress says it
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # without a home it says where it keeps its fonts
    warnings.filterwarnings("ignore", category=RisingCostWarning)  # so does a note
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    # Pillow warns of odd tags in pictures that it reads all the same.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.showwarning = _note
    try:
        code = _run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        code = terminal.die_of_broken_pipe()
    except XlogregError as error:
        code = _complain(str(error))
    except OSError as error:  # standard output on a full disk, say; what xlogreg itself writes raises FileError
        from ..system.files import reason

        terminal.give_up_output()
        code = _complain(f"Something could not be written or read: {reason(error)}.")
    except MemoryError:
        code = _complain("The machine's memory is full; train on fewer pictures or iterations.")
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        # Of a library's: what works in threads here does with fewer.
        code = _complain("The system starts no more threads for this process; raise the limit of processes (ulimit).")
    sys.exit(terminal.exit_code(code))


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the code that it came from."""
    from . import console

    console.note((str(message).splitlines() or [""])[0])


def _run() -> int:
    """Do what the command says; the code to exit with."""
    try:
        return int(app(standalone_mode=False) or 0)
    except typer.Abort:
        return 130  # Ctrl-C, where a command has nothing to say about it
    except usage.UsageErrors as error:
        said = usage.sentence(error, [command.__name__ for command in _COMMANDS])
        return _complain(said) if said else 2
    except SystemExit as error:
        # What Typer and rich make of a pipe that nobody reads.
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__ from None
        raise


def _complain(message: str) -> int:
    from . import console

    try:
        sys.stdout.flush()
    except (OSError, AttributeError):
        terminal.give_up_output()
    console.complain(message)
    return 2
