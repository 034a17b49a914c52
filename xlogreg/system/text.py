"""Names that come from elsewhere (folders, files, models), made fit to be shown; they are text, never markup."""

import codecs
import csv
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

# What would reorder a line, beside control characters, line ends and bytes that are no Unicode.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80

# What spreadsheets compute, in the wide letters of East Asia too, and such text with apostrophes before it, so that
# one can be added and taken away.
_FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")


def plain(text: object) -> str:
    """The text on one line, with what a terminal or a page cannot show as it is escaped as in Python."""
    return "".join(
        ascii(c)[1:-1] if c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" or c in _REORDERING else c
        for c in str(text)
    )


def shown(name: object) -> str:
    """A name within a sentence: quoted where it could be taken for more than one word of it."""
    text = plain(name)
    simple = text and text == str(name) and not set(text) & set(" '\"\\,;")
    return text if simple else f"'{text}'"


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names with commas between them, the first so many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more


def short(name: str) -> str:
    """The beginning of a long name, for where it would push everything else away."""
    return name if len(name) <= 36 else name[:35] + "…"


def given(value: object) -> str:
    """A value as Python writes it, cut short, for a sentence about it; of an array the dtype and the shape."""
    if is_array(value):
        return f"an array, {brief_kind(value)}"
    try:
        return brief(" ".join(repr(value).split()), 80)
    except Exception:  # whole numbers of thousands of digits, and whatever a class of somebody else's raises
        return "a number of thousands of digits" if isinstance(value, int) else f"a {type(value).__name__}"


def is_array(value: Any) -> bool:
    """Whether it is an array, of whatever module."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


def brief_dtype(array: Any) -> str:
    """An array's dtype; those of records are long."""
    return brief(str(array.dtype), 60)


def brief_kind(value: Any) -> str:
    """The dtype and the shape of an array, and of all else the name of its type."""
    return f"{brief_dtype(value)} {tuple(value.shape)}" if is_array(value) else type(value).__name__


def brief(text: str, most: int = 40) -> str:
    """A word on one line; of one that is longer, the beginning and the end."""
    return plain(text if len(text) <= most else f"{text[: most - 12]}...{text[-6:]}")


def short_repr(self: Any) -> str:
    """A dataclass on one line: arrays by dtype and shape, records in it by name, and the beginning of what is long."""
    parts = []
    for field in fields(self):
        value = getattr(self, field.name)
        if is_array(value):
            text = brief_kind(value)
        elif is_dataclass(value) and len(fields(value)) > 3:
            text = f"{type(value).__name__}(..)"
        else:
            text = _SHORT.repr(value)
        parts.append(f"{field.name}={text}")
    return f"{type(self).__name__}({', '.join(parts)})"


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV, each ended by a newline; fields with a line end of either kind are quoted.

    A field that a spreadsheet would take for a formula gets an apostrophe before it, as people type such text there:
    the names of files and classes are text. `csv_rows` takes it away again.
    """
    lines: list[str] = []
    # csv quotes what is in the line's own end: with \n alone as that end, a field's \r would end the line for readers.
    csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n").writerows(
        [f"'{cell}" if _FORMULA.match(cell) else cell for cell in map(str, row)] for row in rows
    )
    return "".join(f"{line[:-2]}\n" for line in lines)


def csv_rows(lines: Iterable[str]) -> Iterator[list[str]]:
    """The rows of CSV that `csv_lines` wrote, line by line; `csv.Error` where it is none."""
    for row in csv.reader(lines):
        yield [cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell for cell in row]


def _encode(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return b"".join(
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else ascii(c)[1:-1].encode()
        for c in error.object[error.start : error.end]
    ), error.end


# How names are encoded in tables: those of files are bytes, not always UTF-8, and come out as they are; what cannot be
# encoded at all is escaped.
NAMES = "xlogreg-names"
codecs.register_error(NAMES, _encode)
