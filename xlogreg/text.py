"""Names that come from elsewhere (folders, files, models), made fit to be shown; they are text, never markup."""

import codecs
import csv
from collections.abc import Iterable, Sequence
from types import SimpleNamespace

# What would reorder a line, beside control characters, line ends and bytes that are no Unicode.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


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
    """A value as Python writes it, cut short, for a sentence about it."""
    try:
        return brief(repr(value), 80)
    except ValueError:  # Python writes no numbers of more than some thousands of digits
        return "a number of thousands of digits"


def brief(text: str, most: int = 40) -> str:
    """A word on one line; of one that is longer, the beginning and the end."""
    return plain(text if len(text) <= most else f"{text[: most - 12]}...{text[-6:]}")


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV, each ended by a newline; fields with a line end of either kind are quoted."""
    lines: list[str] = []
    # csv quotes what is in the line's own end: with \n alone as that end, a field's \r would end the line for readers.
    csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n").writerows(rows)
    return "".join(f"{line[:-2]}\n" for line in lines)


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
