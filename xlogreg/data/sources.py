"""The words that name data on the command line: birds, cifar10, or a path."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileError, InputError
from ..images.decoding import is_picture
from ..system.text import given, shown
from .birds import load_birds
from .pictures import Pictures

if TYPE_CHECKING:
    from .folders import FolderOptions

BUILT_IN = "birds"
CIFAR10 = "cifar10"


def load_source(
    source: str = BUILT_IN, data: Path | None = None, folder: "FolderOptions | None" = None
) -> tuple[Pictures, Pictures | None]:
    """Pictures to train on, and pictures to test on where the source has its own.

    Parameters
    ----------
    source : "birds" (built in), "cifar10" (fetched before, or where `data` says), the path of a CIFAR-10 archive,
        folder or single batch, or of a folder with one sub-folder of pictures per class
    data : a local CIFAR-10 archive or folder to use instead of the fetched one
    folder : how to read a folder of pictures

    Raises
    ------
    FileError, InputError
        There is no such data, or it cannot be read; the message says what to do.
    """
    from .cifar10 import read_batch, read_cifar10_sets
    from .fetch import cached_cifar10

    if not source:
        raise InputError("The name of the data is empty; use birds, cifar10 or a path, . for this very folder.")
    if source == BUILT_IN:
        return load_birds(), None
    if source == CIFAR10:
        path = data or cached_cifar10()
        if path is None:
            raise FileError("CIFAR-10 is not on this machine yet; run `xlogreg fetch cifar10`, or name it with --data.")
    elif data is not None:
        raise InputError(f"--data goes with `cifar10`; {shown(source)} says where its pictures are.")
    else:
        path = Path(source)
        if not os.path.exists(path):
            raise FileError(
                f"There is no data {given(source)}; use birds, cifar10, the path of a folder with one sub-folder of "
                "pictures per class, or of a CIFAR-10 archive or folder."
            )
        if is_picture_folder(source):
            from .folders import read_folder

            return read_folder(path, folder), None
    if path.is_file() and is_picture(path):
        raise InputError(
            f"{shown(source)} is a picture; train on a folder with one sub-folder of pictures per class, or let a "
            "trained model say what the picture shows with `xlogreg predict MODEL PICTURE`."
        )
    if path.is_file() and path.suffix not in (".gz", ".tgz"):
        return read_batch(path), None
    return read_cifar10_sets(path)


def is_picture_folder(source: str) -> bool:
    """Whether the source is a folder of own pictures: any folder without files named like CIFAR-10's."""
    from .cifar10 import looks_like_cifar10

    return source not in ("", BUILT_IN, CIFAR10) and Path(source).is_dir() and not looks_like_cifar10(source)


def is_whole_cifar10(source: str) -> bool:
    """Whether the source is to be the whole of CIFAR-10: by its name, or an archive or folder of it."""
    if source == CIFAR10:
        return True
    path = Path(source)
    return (
        source != BUILT_IN
        and (path.is_dir() or (path.is_file() and path.suffix in (".gz", ".tgz")))
        and (not is_picture_folder(source))
    )


def run_name(source: str) -> str:
    """What runs on this source are called: "birds", "cifar10", or the file's own name without its endings."""
    if source in (BUILT_IN, CIFAR10):
        return source
    # The folder itself may be named by "." or "..".
    return Path(source).resolve().name.partition(".")[0] or "run"
