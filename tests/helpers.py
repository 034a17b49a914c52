"""What several test files make and start: models, odd pictures, the command line's processes."""

import contextlib
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xlogreg.arrays import namespace
from xlogreg.data.birds import load_birds
from xlogreg.data.task import Task, make_task
from xlogreg.kernels import objective_for
from xlogreg.models.classifier import Classifier
from xlogreg.neuron.options import DescentOptions
from xlogreg.solvers.gradient_descent import GradientDescent
from xlogreg.system.files import own_temporary_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def few_pixels() -> Task:
    """One colour of every eighth line and column of some birds: quick to train on."""
    whole = make_task(load_birds(), "bird")
    return replace(
        whole,
        x_train=np.ascontiguousarray(whole.x_train[:400, ::8, ::8, :1]), y_train=whole.y_train[:400],
        x_test=np.ascontiguousarray(whole.x_test[:, ::8, ::8, :1]),
    )  # fmt: skip


def descent(
    kind: Any, rows: Any, sign: Any, w: Any, b: Any, rates: Any, *, sample_weight: Any = None,
    options: DescentOptions | None = None, **more: Any,
) -> GradientDescent:  # fmt: skip
    """Gradient descent on an objective: of this class, or as `objective_for` gives it for this name."""
    options = options or DescentOptions()
    if isinstance(kind, str):
        kind, more = partial(objective_for, kind), {**more, "needs": options.needs(sample_weight is not None)}
    l2 = namespace(rows).asarray([options.l2] * len(sign)) if options.l2 else None
    return GradientDescent(kind(rows, sign, sample_weight=sample_weight, l2=l2, **more), w, b, rates, options)


class Result(NamedTuple):
    """What a command left: its exit code, and what it wrote to both streams."""

    code: int
    out: str
    err: str

    def refused(self, words: str) -> bool:
        """Whether it was one sentence with these words, and nothing else."""
        one = self.err.startswith("Error: ") and self.err.count("\n") == 1
        return (self.code, self.out, one) == (2, "", True) and words in self.err


def environment(**more: str) -> dict[str, str]:
    """Of a Python of its own that imports this source tree."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **more}


def python(code: str, *arguments: str, cwd: Path | None = None, **more: str) -> str:
    """What such a Python prints that runs this code and ends well."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment(**more), capture_output=True, text=True, check=False,
        timeout=300, cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    return done.stdout


def folder(name: str) -> Path:
    """One that later runs of the tests find again."""
    path = Path(own_temporary_folder()) / "tests" / name
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.utime(path)
    return path


def forget_old(days: int = 5) -> None:
    """Removes what no run of the tests has asked for in so many days, as what older sources were compiled to."""
    for path in folder("").iterdir():
        # Another run of the tests may be at it too.
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > days * 86_400:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def made_once(text: str, make: Callable[[Path], None]) -> Path:
    """The file that `make` writes: what takes long to compile is compiled by one process, for all and for later.

    The text says everything that the file depends on: options and compiler too.
    """
    path = folder("") / hashlib.sha256(text.encode()).hexdigest()
    with open(f"{path}.lock", "w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            new = path.with_suffix(f".{os.getpid()}")
            make(new)
            os.replace(new, path)
        os.utime(path)
    return path


def classifier(size: tuple[int, int, int] = (4, 5, 3), seed: int = 0) -> Classifier:
    """A model that nobody trained."""
    rng = np.random.RandomState(seed)
    return Classifier(
        w=rng.normal(0, 0.3, (size[0] * size[1] * size[2], 1)), b=0.1, class_names=("not bird", "bird"), size=size,
        learning_rate=0.005, number_of_iterations=2000, history_sha256="ab" * 32, trained_on="Vögel <&>",
        xlogreg_version="0.1.0",
    )  # fmt: skip


def sample(height: int = 12, width: int = 20) -> np.ndarray:
    """A picture with a gradient and a mark in one corner."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 12, y * 20, (x + y) * 7], axis=2).astype(np.uint8)
    rgb[:3, :3] = (255, 0, 0)
    return rgb


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it is so large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def riff(kind: bytes, content: bytes) -> bytes:
    """A WebP of one part."""
    body = b"WEBP" + kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body
