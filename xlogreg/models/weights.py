"""The learned weights as pictures: what the neuron looks for, in NumPy and Pillow alone.

Blue speaks for the wanted class and orange against it, on one scale around zero: two colours that people with any
colour vision tell apart.
"""

import math
from dataclasses import dataclass

import numpy as np

from .classifier import Classifier

FOR, AGAINST, ZERO = (0x0B, 0x5C, 0xA8), (0xC4, 0x5A, 0x05), (0xF6, 0xF5, 0xF1)
_CHANNELS = ("red", "green", "blue")
_CELL = 24  # side of a cell of edges when drawn


@dataclass(frozen=True, eq=False)
class WeightView:
    """One picture (h, w, 3) uint8 of the weights, a short caption, and what it shows in one sentence."""

    caption: str
    meaning: str
    picture: np.ndarray


def weight_views(classifier: Classifier) -> tuple[list[WeightView], str]:
    """Pictures of a classifier's weights, and one sentence about them, or about why there are none."""
    name, plane = classifier.class_names[1], _layout(classifier)
    if not classifier.w.any():
        return [], "All weights are zero: nothing was learned that could be shown."
    if classifier.features.kind.describes_edges:
        return _edge_views(plane, name)
    # A few large weights must not turn the rest grey.
    scale = float(np.quantile(np.abs(plane), 0.995)) or float(np.abs(plane).max())
    share = np.clip(plane / scale, -1, 1)
    if plane.shape[2] == 1:
        return [
            WeightView("weights", f"where bright pixels speak for {name} (blue) or against it (orange)",
                       diverging(share[..., 0]))
        ], "Blue: brightness there speaks for the class. Orange: against it. Pale: it hardly matters."  # fmt: skip
    views = [
        WeightView(f"for {name}", "the colours whose light raises the probability", _bytes(np.maximum(share, 0))),
        WeightView(f"against {name}", "the colours whose light lowers it", _bytes(np.maximum(-share, 0))),
        WeightView("both", "weights around grey: grey is zero", _bytes(0.5 + share / 2)),
    ]
    views += [
        WeightView(f"{colour} weights", f"{colour} light: blue raises, orange lowers", diverging(share[..., i]))
        for i, colour in enumerate(_CHANNELS)
    ]
    return views, "In the last three, blue: light there speaks for the class; orange: against it; pale: zero."


def summary_picture(classifier: Classifier) -> np.ndarray | None:
    """One small picture of the weights, for a table: their mean over the colours, or the first view."""
    views, _ = weight_views(classifier)
    if not views:
        return None
    if len(views) > 1 and not classifier.features.kind.describes_edges:
        mean = _layout(classifier).mean(axis=2)
        return diverging(np.clip(mean / (np.quantile(np.abs(mean), 0.995) or 1.0), -1, 1))
    return views[0].picture


def _layout(classifier: Classifier) -> np.ndarray:
    return classifier.features.kind.layout(classifier.w[:, 0], *classifier.size)


def diverging(share: np.ndarray) -> np.ndarray:
    """Numbers in [-1, 1] (...) as colours (..., 3) uint8: orange at -1, nearly white at 0, blue at 1."""
    zero = np.array(ZERO, dtype=np.float64)
    end = np.where(share[..., None] >= 0, np.array(FOR, dtype=np.float64), np.array(AGAINST, dtype=np.float64))
    # The square root shows small weights, which are most of them.
    return np.rint(zero + (end - zero) * np.sqrt(np.abs(share))[..., None]).astype(np.uint8)


def _bytes(share: np.ndarray) -> np.ndarray:
    return np.rint(share * 255).astype(np.uint8)


def _edge_views(cells: np.ndarray, name: str) -> tuple[list[WeightView], str]:
    """Edges that speak for and against: one stroke a cell and direction, as dark as its weight."""
    share = cells / np.abs(cells).max()
    return [
        WeightView(f"for {name}", "edges that raise the probability", _strokes(np.maximum(share, 0), FOR)),
        WeightView(f"against {name}", "edges that lower it", _strokes(np.maximum(-share, 0), AGAINST)),
    ], "Each stroke is an edge of that direction in that part of the picture; the stronger, the more it counts."


def _strokes(share: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    from PIL import Image, ImageDraw

    rows, columns, directions = share.shape
    picture = Image.new("RGB", (columns * _CELL, rows * _CELL), ZERO)
    draw = ImageDraw.Draw(picture)
    # Weak strokes first, so that the strong ones lie on top.
    for flat in np.argsort(share, axis=None, kind="stable"):
        strength = float(share.flat[flat])
        if strength <= 0.02:
            continue
        row, column, direction = np.unravel_index(flat, share.shape)
        # Direction k is a gradient of (k + 1/2) / directions of half a turn; its edge lies across it.
        angle = math.pi * (direction + 0.5) / directions + math.pi / 2
        x, y = (column + 0.5) * _CELL, (row + 0.5) * _CELL
        dx, dy = math.cos(angle) * _CELL * 0.45, math.sin(angle) * _CELL * 0.45
        ink = tuple(round(z + (c - z) * strength) for z, c in zip(ZERO, colour, strict=True))
        draw.line((x - dx, y - dy, x + dx, y + dy), fill=ink, width=2)
    return np.asarray(picture)
