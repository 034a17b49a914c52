"""Some picture files to as many answers, by one thread: what threads and processes do with a batch."""

import contextlib
import ctypes
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import XlogregError
from ..images.decoding import decode, read_content
from ..images.resizing import Resizer, fit
from ..models.classifier import Classifier, Failure, Prediction

# Bytes of a file that is decoded sooner than the GIL goes from one thread to another and back. Such files are Python's
# own work for the most part, as reading is; threads that all want the GIL, for a few microseconds each time, take
# several times as long as one alone. So they do it in turns.
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
    paths: Sequence[Path | Failure],
    resizer: Resizer,
    stop: threading.Event,
    turn: threading.Lock,
) -> list[Result]:
    """Predict some files, or none once `stop` is set. Threads read, and decode small files, in turns: see `_SMALL`."""
    height, width, channels = classifier.size
    pixels = np.empty((len(paths), height, width, channels), dtype=np.uint8)
    results: dict[int, Result] = {number: path for number, path in enumerate(paths) if isinstance(path, Failure)}
    files = {number: path for number, path in enumerate(paths) if isinstance(path, Path)}
    waiting = deque(files.items())

    def decode_into(number: int, path: Path, content: bytes) -> None:
        try:
            pixels[number] = fit(decode(path, content), (height, width), channels, resizer)
        except XlogregError as error:
            results[number] = Failure(path, str(error))

    while waiting:
        large: deque[tuple[int, Path, bytes]] = deque()
        room = _AT_ONCE
        with turn:
            while waiting and room > 0:
                if stop.is_set():
                    return []
                number, path = waiting.popleft()
                try:
                    content = read_content(path)
                except XlogregError as error:
                    results[number] = Failure(path, str(error))
                    continue
                room -= len(content)
                if len(content) > _SMALL:
                    large.append((number, path, content))
                else:
                    decode_into(number, path, content)
        while large:
            if stop.is_set():
                return []
            decode_into(*large.popleft())
    good = [number for number in files if number not in results]
    probabilities = classifier.probability(pixels[good] if results else pixels).tolist()
    for number, probability in zip(good, probabilities, strict=True):
        label = int(probability >= 0.5)
        results[number] = Prediction(files[number], classifier.class_names[label], label, probability)
    return [results[number] for number in range(len(paths))]
