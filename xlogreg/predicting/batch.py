"""Some picture files to as many answers, by one thread: what threads and processes do with a batch."""

import contextlib
import ctypes
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import XlogregError
from ..images.decoding import decode, read_content
from ..images.resizing import Resizer, fit
from ..models.classifier import Classifier, Failure, Prediction

# Bytes of a file that is decoded sooner than Python's lock goes from one thread to another and back. Such files are
# Python's own work for the most part, as reading is; threads that all want its lock, for a few microseconds each time,
# take several times as long as one alone. So they do it in turns.
_SMALL = 6_000
# Bytes that a thread reads in its turn before it decodes them, or one file more.
_AT_ONCE = 4 * 2**20
Result = Prediction | Failure


def reuse_memory() -> None:
    """Have glibc keep the memory of pictures for the next ones: to get it anew takes a tenth of a picture's time.

    For programs that do nothing else: it holds for the whole process, which keeps up to 64 MB more.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mmap_threshold, trim_threshold = -3, -1
        mallopt(mmap_threshold, 16 * 2**20)
        mallopt(trim_threshold, 64 * 2**20)


def predict_batch(
    classifier: Classifier,
    paths: Sequence[str | os.PathLike[str] | Failure],
    resizer: Resizer,
    stop: threading.Event,
    turn: threading.Lock,
) -> list[Result]:
    """Predict some files. Threads read, and decode small files, one at a time: see `_SMALL`."""
    height, width, channels = classifier.size
    pixels = np.empty((len(paths), height, width, channels), dtype=np.uint8)
    results: list[Path | Failure] = []

    def decode_into(number: int, content: bytes) -> None:
        path = results[number]
        assert isinstance(path, Path)
        try:
            pixels[number] = fit(decode(path, content), (height, width), channels, resizer)
        except XlogregError as error:
            results[number] = Failure(path, str(error))

    while len(results) < len(paths):
        large: list[tuple[int, bytes]] = []
        room = _AT_ONCE
        with turn:
            while len(results) < len(paths) and room > 0:
                if stop.is_set():
                    return []
                path = paths[len(results)]
                results.append(path if isinstance(path, Failure) else Path(path))
                content = _read_into(results)
                room -= len(content)
                if len(content) > _SMALL:
                    large.append((len(results) - 1, content))
                elif content:
                    decode_into(len(results) - 1, content)
        while large:
            if stop.is_set():
                return []
            decode_into(*large.pop(0))
    good = [number for number, result in enumerate(results) if isinstance(result, Path)]
    probabilities = iter(classifier.probability(pixels if len(good) == len(paths) else pixels[good]).tolist())
    return [
        result if isinstance(result, Failure) else prediction_of(classifier, result, next(probabilities))
        for result in results
    ]


def _read_into(results: list[Path | Failure]) -> bytes:
    """What the file of the last result holds; nothing if it failed, which the result says then."""
    path = results[-1]
    if isinstance(path, Path):
        try:
            return read_content(path)
        except XlogregError as error:
            results[-1] = Failure(path, str(error))
    return b""


def prediction_of(classifier: Classifier, path: Path, probability: float) -> Prediction:
    number = int(probability >= 0.5)
    return Prediction(path, classifier.class_names[number], number, probability)
