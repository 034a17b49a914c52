"""The built-in pictures: the 1032 birds and the first 1032 other pictures of CIFAR-10's data_batch_1.

They are the tutorial's pictures, in file order, so that its own selection, shuffle and split run on them for real.
`datasets/README.md` tells their origin and asks for the citation; `datasets/make_birds.py` makes the files.
"""

import csv
import hashlib
from pathlib import Path

import numpy as np

from ..errors import FileError, InputError
from ..system.files import reason
from .pictures import CIFAR10_CLASSES, Pictures

# Tiles in a row of the sheet.
COLUMNS = 48
SHAPE = (2064, 32, 32, 3)
SHA256 = "663b0bcbd6998d4e85fd2846966084902f0c10e9e6feed5ffb61dd7e7e1daeab"

# Inside an installed package, or beside the package in the source tree.
_FOLDERS = (Path(__file__).parent / "builtin", Path(__file__).parents[2] / "datasets")


def load_birds() -> Pictures:
    """The 2064 built-in pictures, x (2064, 32, 32, 3) uint8, with their CIFAR-10 labels, in file order.

    Raises
    ------
    FileError, InputError
        The files are missing from the installation, or are not what they were when they were made.
    """
    from PIL import Image

    folder = next((folder for folder in _FOLDERS if (folder / "birds.png").is_file()), None)
    if folder is None:
        raise FileError(f"The built-in pictures (birds.png) are not in {_FOLDERS[0]}; install xlogreg again.")
    n, height, width, channels = SHAPE
    try:
        with Image.open(folder / "birds.png", formats=["PNG"]) as sheet:
            if sheet.size != (COLUMNS * width, n // COLUMNS * height) or sheet.mode != "RGB":
                raise InputError(
                    f"{folder / 'birds.png'} is not the built-in sheet of pictures; install xlogreg again."
                )
            tiles = np.asarray(sheet).reshape(n // COLUMNS, height, COLUMNS, width, channels)
        with open(folder / "birds.csv", newline="", encoding="ascii") as file:
            table = [(int(row["index"]), int(row["label"])) for row in csv.DictReader(file)]
    except OSError as error:
        raise FileError(
            f"The built-in pictures in {folder} cannot be read: {reason(error)}; install xlogreg again."
        ) from error
    x = np.ascontiguousarray(tiles.swapaxes(1, 2).reshape(SHAPE))
    if pixels_sha256(x) != SHA256 or len(table) != n:
        raise InputError(f"The built-in pictures in {folder} have changed; install xlogreg again.")
    index, labels = (np.array(column, dtype=np.int64) for column in zip(*table, strict=True))
    return Pictures(x, labels, CIFAR10_CLASSES, index, "built-in birds (CIFAR-10 data_batch_1)")


def pixels_sha256(x: np.ndarray) -> str:
    """SHA-256 of the pixels' bytes."""
    return hashlib.sha256(np.ascontiguousarray(x, dtype=np.uint8).tobytes()).hexdigest()
