"""Line charts as inline SVG: text, strokes and classes only, so that a page's style colours them, light or dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..system.text import plain

WIDTH, HEIGHT = 420, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 24, 12, 46
# More points than this are not seen on a line 350 units wide.
_POINTS = 240
STYLES = 6  # classes s0 .. s5: a colour and a dash each


@dataclass(frozen=True, eq=False)
class Line:
    """One line: its name, its points, its style's number, and the radius of a dot at each point, if any."""

    name: str
    x: np.ndarray
    y: np.ndarray
    style: int = 0
    dots: np.ndarray | None = None


def chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    description: str,
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[tuple[float, str]] = (),
    diagonal: bool = False,
) -> str:
    """An <svg> of the lines with axes, grid and labels; all names and labels are escaped.

    x_ticks : where the axis is marked and what is written there; by default round numbers

    Raises nothing: points that are not finite are left out.
    """
    finite = [_finite(line) for line in lines]
    x0, x1 = x_range or _range([line.x for line in finite], tight=True)
    y0, y1 = y_range or _range([line.y for line in finite])
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def px(x: float) -> str:
        return f"{_LEFT + (x - x0) / (x1 - x0) * (right - _LEFT):.1f}"

    def py(y: float) -> str:
        return f"{bottom - (y - y0) / (y1 - y0) * (bottom - _TOP):.1f}"

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_shown(description)}">']
    for value in ticks(y0, y1):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{py(value)}" y2="{py(value)}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{py(value)}" dy="0.33em" text-anchor="end">{_tick(value)}</text>')
    for value, text in x_ticks or [(value, _tick(value)) for value in ticks(x0, x1)]:
        parts.append(f'<text x="{px(value)}" y="{bottom + 18}" text-anchor="middle">{_shown(text)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    if diagonal:
        parts.append(f'<line class="diagonal" x1="{px(x0)}" y1="{py(y0)}" x2="{px(x1)}" y2="{py(y1)}"/>')
    for line in finite:
        x, y = thin(line.x, line.y)
        points = " ".join(f"{px(a)},{py(b)}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
        style = f"s{line.style % STYLES}"
        parts.append(f'<g class="{style}"><title>{_shown(line.name)}</title><polyline points="{points}"/>')
        if line.dots is not None:
            parts += [
                f'<circle cx="{px(a)}" cy="{py(b)}" r="{r:.1f}"/>'
                for a, b, r in zip(line.x.tolist(), line.y.tolist(), line.dots.tolist(), strict=True)
            ]
        parts.append("</g>")
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{_shown(x_label)}</text>')
    turned = f"translate(13 {(_TOP + bottom) / 2}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{_shown(y_label)}</text>')
    return "".join(parts) + "</svg>"


def dumbbell(train: float, test: float, low: float, high: float, description: str) -> str:
    """Two percentages on a line from `low` to `high`: a ring for training, a dot for test."""
    a, b = (8 + (min(max(value, low), high) - low) / (high - low) * 104 for value in (train, test))
    return (
        f'<svg class="dumbbell" viewBox="0 0 120 20" role="img" aria-label="{_shown(description)}">'
        '<line class="grid" x1="8" x2="112" y1="10" y2="10"/>'
        f'<line class="link" x1="{a:.1f}" x2="{b:.1f}" y1="10" y2="10"/>'
        f'<g class="s1"><circle class="ring" cx="{a:.1f}" cy="10" r="4.5"/></g>'
        f'<g class="s0"><circle cx="{b:.1f}" cy="10" r="5"/></g></svg>'
    )


def _shown(text: str) -> str:
    """Text as XML, without characters that no page may hold or that reorder a line."""
    from markupsafe import escape

    return escape(plain(text))


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about _POINTS points that draw the same line: first, last, lowest and highest of each stretch."""
    if len(x) <= _POINTS:
        return x, y
    kept = {0, len(x) - 1}
    for rows in np.array_split(np.arange(len(x)), _POINTS // 2):
        kept |= {int(rows[np.argmin(y[rows])]), int(rows[np.argmax(y[rows])])}
    rows = np.array(sorted(kept))
    return x[rows], y[rows]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high]: multiples of 1, 2, 2.5 or 5 times a power of ten, about so many."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 2.5, 5, 10)), key=lambda step: abs(math.log(step / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _finite(line: Line) -> Line:
    good = np.isfinite(line.x) & np.isfinite(line.y)
    return Line(line.name, line.x[good], line.y[good], line.style, None if line.dots is None else line.dots[good])


def _range(values: list[np.ndarray], *, tight: bool = False) -> tuple[float, float]:
    every = np.concatenate([*values, np.zeros(0)])
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    if not high - low > abs(high) * 1e-9:
        pad = abs(high) * 0.1 or 1.0
        return low - (0 if tight else pad), high + pad
    pad = 0.0 if tight else (high - low) * 0.06
    return low - pad, high + pad


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
