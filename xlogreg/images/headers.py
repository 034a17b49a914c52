"""What a picture file asks of its decoder, counted in a walk over its headers before any decoder sees it.

The number of pixels does not bound the work: a JPEG may go over all of them thousands of times, and a file of any
format may consist of millions of parts that each take a moment, or name the same bytes thousands of times. The bounds
are far beyond what cameras and programs write. Where a file is damaged the walk ends, and the decoder says so.
"""

import math
import re
import struct
from typing import Literal

MAX_SEGMENTS = 10_000  # JPEG
MAX_EXIF_SEGMENTS = 64
MAX_JUNK = 65_536
MAX_SCANS = 1_000
# Scans times pixels: a picture of 100 million pixels may have 25 scans, where programs write 10 to 18.
MAX_SCANNED = 2_500_000_000
MAX_CHUNKS = 200_000  # PNG, WebP
MAX_BLOCKS = 10_000  # GIF, before the first frame
MAX_RUN_PIXELS = 32_000_000  # BMP with run lengths, whose decoder is Python code
MAX_RUN_BYTES = 16_000_000
MAX_STRIPS = 250_000  # TIFF
MAX_TILE_PIXELS = 2**24  # or twice the picture's
MAX_TAGS = 65_535
# What the tags of a file may say in all; more only if the file has as many bytes, which none of them says twice.
MAX_TAG_BYTES = 2**24

_MARKER = re.compile(rb"\xff[\x01-\xfe]")
# In pixels, 255 is followed by 0, and parts are told apart by numbered marks.
_MARKER_AFTER_PIXELS = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
# Marks that nothing belongs to, or that Pillow and libjpeg do not know.
_BARE = frozenset((*range(0x01, 0xC0), 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
_SCAN, _END, _EXIF = 0xDA, 0xD9, 0xE1
# Frames whose scan of all components is the only one: libjpeg refuses a second.
_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))

_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WIDTH, _HEIGHT, _STRIPS, _TILES, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 273, 324, 322, 323
_TIFF_START = re.compile(rb"II\*\0|MM\0\*")
# Tables of tags that tags of a TIFF file name: SubIFDs, EXIF, GPS, interoperability.
_TABLES = (330, 34665, 34853, 40965)
_MAX_TABLES = 64


class TooMuch(Exception):
    """A file asks for more than any picture needs; the message says for what, to follow the file's name."""


def check(kind: str, content: bytes) -> None:
    """Raise `TooMuch` if a file of this kind ("JPEG", "PNG", ..) asks its decoder for too much."""
    walk = _WALKS.get(kind)
    if walk is None:
        return
    try:
        walk(content)
    except (IndexError, struct.error):  # it ends early
        return


def _most(number: int, limit: int, what: str) -> None:
    if number > limit:
        raise TooMuch(f"has more than {limit:,} {what}")


def _jpeg(content: bytes) -> None:
    at, segments, junk, scans, pixels, whole = 2, 0, 0, 0, 0, -1
    exif: list[bytes] = []
    while found := (_MARKER_AFTER_PIXELS if scans else _MARKER).search(content, at):
        mark = content[found.end() - 1]
        if not scans:
            junk += found.start() - at + (mark in _BARE)
            _most(junk, MAX_JUNK, "bytes that belong to nothing")
        at = found.end()
        if mark == _END and scans:
            break
        if mark in _BARE:
            continue
        segments += 1
        _most(segments, MAX_SEGMENTS, "segments")
        length = max(2, int.from_bytes(content[at : at + 2], "big"))
        if mark in _FRAMES:
            height, width = struct.unpack_from(">HH", content, at + 3)
            pixels = max(pixels, height * width)
            # How many components a scan has that is the only one.
            whole = content[at + 7] if whole < 0 and mark in _SEQUENTIAL else 0
        elif mark == _EXIF and not scans and content.startswith(b"Exif\0\0", at + 2):
            exif.append(content[at + 8 : at + length])
            _most(len(exif), MAX_EXIF_SEGMENTS, "segments of EXIF")
        elif mark == _SCAN:
            if not scans:
                check_tags(b"".join(exif))
                if content[at + 2] == whole:
                    return
            scans += 1
            if scans > MAX_SCANS or scans * pixels > MAX_SCANNED:
                raise TooMuch(f"goes over its {pixels:,} pixels more than {scans - 1:,} times")
        at += length


def _png(content: bytes) -> None:
    _chunks(content, 8, "big", 4)


def _webp(content: bytes) -> None:
    _chunks(content, 12, "little", 0)


def _chunks(content: bytes, at: int, order: Literal["big", "little"], check: int) -> None:
    """Chunks with a length and a name of four bytes, in either order, and so many bytes behind them."""
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(content):
            return
        first = at if order == "big" else at + 4
        length = int.from_bytes(content[first : first + 4], order)
        at += 8 + length + (check or length % 2)
    raise TooMuch(f"has more than {MAX_CHUNKS:,} chunks")


def _gif(content: bytes) -> None:
    at, blocks = 13, 0
    if content[10] & 128:
        at += 3 << (content[10] & 7) + 1
    # What is none of these is passed over, byte by byte.
    while content[at] not in b",;":
        blocks += 1
        extension = content[at] == ord("!")
        at += 2 if extension else 1
        while extension and (length := content[at]):
            blocks += 1
            at += 1 + length
            _most(blocks, MAX_BLOCKS, "blocks before its first frame")
        at += extension
        _most(blocks, MAX_BLOCKS, "blocks before its first frame")


def _bmp(content: bytes) -> None:
    header, width, height, _, _, compression = struct.unpack_from("<IiiHHI", content, 14)
    if header >= 40 and compression in (1, 2):
        _most(abs(width * height), MAX_RUN_PIXELS, "pixels in runs; save it without compression")
        _most(len(content), MAX_RUN_BYTES, "bytes of runs; save it without compression")


def _tiff(content: bytes) -> None:
    check_tags(content, file=True)


def _boxes(content: bytes) -> None:
    """AVIF and HEIC: wherever tags may begin."""
    for number, found in enumerate(_TIFF_START.finditer(content)):
        _most(number, _MAX_TABLES, "beginnings of EXIF")
        check_tags(content[found.start() :])


_WALKS = {
    "JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "GIF": _gif, "BMP": _bmp, "TIFF": _tiff, "AVIF": _boxes, "HEIC": _boxes,
}  # fmt: skip


def check_tags(content: bytes, file: bool = False) -> None:
    """Check the tags of a TIFF file, or of EXIF, which is one: Pillow copies what each says, for itself."""
    while not file and content.startswith(b"Exif\0\0"):
        content = content[6:]
    if len(content) < 16:
        return
    order = "<" if content[:2] == b"II" else ">"
    big = content[2] == 43
    at_count, entry, value, inside = ("Q", "HHQ", "Q", 8) if big else ("H", "HHI", "I", 4)
    most_bytes, total, pixels = max(MAX_TAG_BYTES, len(content)), 0, {_WIDTH: 1, _HEIGHT: 1}
    tile = {_TILE_WIDTH: 1, _TILE_HEIGHT: 1}
    tables = list(struct.unpack_from(order + value, content, 8 if big else 4))
    for number, table in enumerate(tables):  # which grow meanwhile
        _most(number, _MAX_TABLES, "tables of tags")
        try:
            (count,) = struct.unpack_from(order + at_count, content, table)
            _most(count, MAX_TAGS, "tags")
            for i in range(count):
                at = table + struct.calcsize(order + at_count) + i * (inside + struct.calcsize(order + entry))
                tag, kind, many = struct.unpack_from(order + entry, content, at)
                at += struct.calcsize(order + entry)
                size = many * _TIFF_SIZES.get(kind, 0)
                where = at if size <= inside else struct.unpack_from(order + value, content, at)[0]
                total += min(size, max(0, len(content) - where))
                if total > most_bytes:
                    raise TooMuch(f"has tags of more than {most_bytes:,} bytes")
                if not file:
                    continue
                if tag in (_STRIPS, _TILES):
                    _most(many, MAX_STRIPS, "strips or tiles")
                for sides in (pixels, tile):
                    if tag in sides and size:
                        sides[tag] = _number(content, where, kind, order)
                if tag in _TABLES and kind in (4, 13, 16, 18):
                    step = _TIFF_SIZES[kind]
                    tables += [_number(content, where + step * i, kind, order) for i in range(min(many, _MAX_TABLES))]
        except (struct.error, OverflowError):  # beyond the end
            continue
    if math.prod(tile.values()) > max(MAX_TILE_PIXELS, 2 * math.prod(pixels.values())):
        raise TooMuch(f"has tiles of {tile[_TILE_WIDTH]:,} x {tile[_TILE_HEIGHT]:,} pixels")


def _number(content: bytes, at: int, kind: int, order: str) -> int:
    """A whole number of a tag's; 0 if it is something else."""
    code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
    return 0 if code is None else int(struct.unpack_from(order + code, content, at)[0])
