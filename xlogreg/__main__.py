"""The command line: `xlogreg`, or `python -m xlogreg`."""

import sys


def main() -> None:
    """Load and run it; Ctrl-C while it loads is no error to look at."""
    try:
        from .commands import terminal

        terminal.prepare()
        from .commands.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
