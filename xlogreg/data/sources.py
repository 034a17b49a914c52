"""The words that name data on the command line: birds, cifar10, or a path."""

from pathlib import Path

from ..errors import FileError
from .birds import load_birds
from .pictures import Pictures

BUILT_IN = "birds"
CIFAR10 = "cifar10"


def load_source(source: str = BUILT_IN, data: Path | None = None) -> tuple[Pictures, Pictures | None]:
    """Pictures to train on, and pictures to test on where the source has its own.

    Parameters
    ----------
    source : "birds" (built in), "cifar10" (fetched before, or where `data` says), or the path of a CIFAR-10 archive,
        folder or single batch
    data : a local CIFAR-10 archive or folder to use instead of the fetched one

    Raises
    ------
    FileError, InputError
        There is no such data, or it cannot be read; the message says what to do.
    """
    from .cifar10 import read_batch, read_cifar10
    from .fetch import cached_cifar10

    if source == BUILT_IN:
        return load_birds(), None
    if source == CIFAR10:
        path = data or cached_cifar10()
        if path is None:
            raise FileError("CIFAR-10 is not on this machine yet; run `xlogreg fetch cifar10`, or name it with --data.")
    else:
        path = Path(source)
        if not path.exists():
            raise FileError(
                f"There is no data {source!r}; use birds, cifar10, or the path of a CIFAR-10 archive or folder."
            )
    if path.is_file() and path.suffix not in (".gz", ".tgz"):
        return read_batch(path), None
    return read_cifar10(path, "train"), read_cifar10(path, "test")


def run_name(source: str) -> str:
    """What runs on this source are called: "birds", "cifar10", or the file's own name without its endings."""
    return source if source in (BUILT_IN, CIFAR10) else Path(source).name.partition(".")[0] or "run"
