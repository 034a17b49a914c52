"""What the files of a run must hold, said as kinds of values: a file is checked whole before any of it is used.

A kind is a function. It gives a value of parsed JSON back as it is to be used, or raises `Odd`, which says what it must
be. Kinds are made of kinds: ``fields({"seed": whole(0, 99), "size": optional(text)})``.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .files import read_regular
from .text import plain

Kind = Callable[[Any], Any]

LARGEST_WHOLE = 2**63 - 1


class Odd(ValueError):
    """A value that is not of its kind: where in the file, and what it must be."""

    def __init__(self, words: str, place: str = "") -> None:
        super().__init__(f"{plain(place)[:100] or 'it'} must be {words}")
        self.words, self.place = words, place


def as_it_is(value: Any) -> Any:
    """Whatever JSON can say."""
    return value


def words(value: Any) -> str:
    """A text, which may be empty."""
    if not isinstance(value, str):
        raise Odd("a text")
    return value


def text(value: Any) -> str:
    """A text that can be a name: not empty, and without NUL."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise Odd("a name")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Odd("true or false")
    return value


def whole(low: int, high: int = LARGEST_WHOLE) -> Kind:
    """A whole number in this range."""

    def kind(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Odd(f"a whole number from {low} to {high}")
        return value

    return kind


def number(low: float = -math.inf, high: float = math.inf) -> Callable[[Any], float]:
    """A finite number in this range, as a float."""
    limits = [f"{word} {limit:g}" for word, limit in (("from", low), ("to", high)) if math.isfinite(limit)]
    wanted = " ".join(["a number", *limits])

    def kind(value: Any) -> float:
        # Whole numbers of any length are compared as they are.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise Odd(wanted)
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if not math.isfinite(found):
            raise Odd("a finite number")
        return found

    return kind


def measure(value: Any) -> float:
    """What was measured: a float, which need not be finite."""
    return value if isinstance(value, float) else number()(value)


def amount(value: Any) -> int | float:
    """A number of things, or a share of them: as it was, whole or not."""
    if isinstance(value, int):
        count: int = whole(0)(value)
        return count
    return number(0.0)(value)


def any_of(*values: str) -> Kind:
    """One of these texts."""

    def kind(value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            raise Odd(f"one of {', '.join(values)}")
        return value

    return kind


def optional(kind: Kind) -> Kind:
    """Null, or what the kind takes."""
    return lambda value: None if value is None else kind(value)


def made(kind: Kind, make: Callable[[Any], Any]) -> Kind:
    """What `make` makes of a value of this kind."""
    return lambda value: make(kind(value))


def many(kind: Kind) -> Kind:
    """A list of these, of any length."""

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise Odd("a list")
        return [_within(str(i), kind, item) for i, item in enumerate(value)]

    return check


def row(*kinds: Kind) -> Kind:
    """A list of one value of each kind."""

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) != len(kinds):
            raise Odd(f"a list of {len(kinds)}")
        return [_within(str(i), kind, item) for i, (kind, item) in enumerate(zip(kinds, value, strict=True))]

    return check


def fields(kinds: dict[str, Kind], needed: frozenset[str] | None = None) -> Kind:
    """An object with these fields; others are as they are. `needed` must be there, by default all of them."""
    wanted = frozenset(kinds) if needed is None else needed

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Odd("an object")
        for name in sorted(wanted - set(value)):
            raise Odd("there", name)
        return {name: _within(name, kinds[name], item) if name in kinds else item for name, item in value.items()}

    return check


def _within(name: str, kind: Kind, value: Any) -> Any:
    try:
        return kind(value)
    except Odd as error:
        raise Odd(error.words, f"{name}.{error.place}" if error.place else name) from None


def read_record(path: Path, limit: int, kind: Kind) -> Any:
    """What a JSON file of at most so many bytes holds, checked.

    Raises
    ------
    OSError
        It is not there or cannot be read.
    InputError
        It is no regular file, or too large.
    ValueError
        It is no JSON, or not of this kind: in words that follow the file's name.
    """
    content = read_regular(path, limit)
    try:
        return kind(json.loads(content))
    except Odd:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError("it is no JSON") from error
