"""Make the built-in pictures, birds.png and birds.csv, from CIFAR-10's data_batch_1.

    python datasets/make_birds.py path/to/cifar-10-batches-py/data_batch_1 [folder]

Takes what the tutorial takes: every bird (label 2) and as many of the first pictures that are no birds, in file order.
The pictures become the tiles of one PNG sheet, losslessly; their row in the batch and their label become a CSV table.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from xlogreg.data.birds import COLUMNS, pixels_sha256
from xlogreg.data.cifar10 import read_batch
from xlogreg.system.files import make_folder, whole_file, write_whole

BIRD = 2


def make(batch: Path, folder: Path) -> str:
    """Write the two files into `folder`; returns the SHA-256 of the pixels, which `xlogreg.data.birds` expects."""
    pictures = read_batch(batch)
    birds = np.flatnonzero(pictures.labels == BIRD)
    others = np.flatnonzero(pictures.labels != BIRD)[: len(birds)]
    rows = np.sort(np.concatenate([birds, others]))
    x = pictures.x[rows]
    n, height, width, channels = x.shape
    if n % COLUMNS:
        raise SystemExit(f"{n} pictures do not fill rows of {COLUMNS} tiles: is this data_batch_1?")
    sheet = x.reshape(n // COLUMNS, COLUMNS, height, width, channels).swapaxes(1, 2)
    make_folder(folder)
    with whole_file(folder / "birds.png") as temporary:
        Image.fromarray(sheet.reshape(n // COLUMNS * height, COLUMNS * width, channels)).save(
            temporary, format="PNG", optimize=True
        )
    table = "".join(
        f"{row},{label},{pictures.class_names[label]}\n"
        for row, label in zip(rows, pictures.labels[rows], strict=False)
    )
    write_whole(folder / "birds.csv", "index,label,class\n" + table)
    return pixels_sha256(x)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    print(make(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent))
