"""Picture files that would take minutes or gigabytes, and what legitimate ones like them must still give."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import chunk, riff, sample
from PIL import Image

from xlogreg.errors import InputError
from xlogreg.images import decoding, headers, resizing
from xlogreg.images.decoding import decode, read_picture
from xlogreg.images.resizing import resize

NO_TAGS = b"Exif\0\0II*\0\x08\0\0\0" + bytes(6)


def saved(kind: str, x: np.ndarray | None = None, **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(sample() if x is None else x).save(content, kind, **options)
    return content.getvalue()


def png(width: int, height: int, more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + 3 * width) * height) if width * height < 10**7 else b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def segment(mark: int, content: bytes) -> bytes:
    return bytes((255, mark)) + struct.pack(">H", len(content) + 2) + content


def with_segments(more: bytes) -> bytes:
    return b"\xff\xd8" + more + saved("JPEG")[2:]


def with_scans(count: int, side: int) -> bytes:
    whole = saved("JPEG", np.zeros((side, side), np.uint8), progressive=True)
    return whole[:-2] + whole[whole.rfind(b"\xff\xc4") : -2] * count + b"\xff\xd9"


def tiff(tags: list[tuple[int, int, int, int]], data: bytes = b"") -> bytes:
    """(tag, type, count, value or offset) each."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data


def strips(count: int) -> bytes:
    first = 8 + 2 + 12 * 8 + 4
    return tiff(
        [(256, 3, 1, 1), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, count, first),
         (278, 3, 1, 1), (279, 4, count, first + 4 * count)],
        struct.pack("<I", 8) * count + struct.pack("<I", 1) * count,
    )  # fmt: skip


def greedy_exif(size: int = 600_000) -> bytes:
    """Thousands of tags, each of which names all its bytes."""
    tags = tiff([(0x1000 + i, 7, size, 0) for i in range(size // 16)])
    return b"Exif\0\0" + tags.ljust(size, b"\0")


def in_segments(exif: bytes) -> bytes:
    return b"".join(segment(0xE1, b"Exif\0\0" + exif[6:][i : i + 65000]) for i in range(0, len(exif) - 6, 65000))


def gif(blocks: int) -> bytes:
    comment = b"!\xfe" + b"\x01a" * blocks + b"\0"
    return b"GIF89a" + struct.pack("<HHBBB", 5, 5, 0, 0, 0) + comment + saved("GIF")[saved("GIF").index(b",") :]


def runs(width: int, height: int, size: int) -> bytes:
    header = struct.pack("<IHHIIiiHHIIiiII", 9, 0, 0, 1078, 40, width, height, 1, 8, 1, 0, 0, 0, 0, 0)
    return b"BM" + header + bytes(size)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a side": (lambda: png(31, 3_200_000), "31 x 3,200,000 pixels; a side may have up to 1,000,000"),
    "strips": (lambda: strips(3_000_000), "more than 250,000 strips or tiles"),
    "a tile": (
        lambda: tiff([(256, 3, 1, 9), (257, 3, 1, 9), (322, 4, 1, 10**6), (323, 4, 1, 10**6)]), "tiles of 1,000,000 x"
    ),
    "scans": (lambda: with_scans(9_000, 64), "goes over its 4,096 pixels more than 1,000 times"),
    "scans of many pixels": (lambda: with_scans(700, 2_000), "goes over its 4,000,000 pixels more than 625 times"),
    "EXIF segments": (lambda: with_segments(segment(0xE1, b"Exif\0\0" + bytes(9)) * 3_000), "64 segments of EXIF"),
    "segments": (lambda: with_segments(b"\xff\xe5\0\2" * 20_000), "10,000 segments"),
    "fill": (lambda: with_segments(b"\xff" * 200_000), "65,536 bytes that belong to nothing"),
    "junk": (lambda: with_segments(b"\xff\xd8" + b"1" * 200_000), "65,536 bytes that belong to nothing"),
    "chunks": (lambda: png(5, 5, chunk(b"tEXt", b"") * 250_000), "200,000 chunks"),
    "WebP chunks": (lambda: riff(b"VP8X", bytes(10)) + b"abcd\0\0\0\0" * 250_000, "200,000 chunks"),
    "tags of a JPEG": (lambda: with_segments(in_segments(greedy_exif())), "tags of more than 16,777,216 bytes"),
    "tags of a PNG": (lambda: saved("PNG", exif=greedy_exif()), "tags of more than 16,777,216 bytes"),
    "tags of a WebP": (lambda: saved("WEBP", exif=greedy_exif()), "tags of more than 16,777,216 bytes"),
    "tags in text": (
        lambda: png(5, 5, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(
            b"\nexif\n99\n" + greedy_exif(240_000).hex().encode()))), "tags of more than 16,777,216 bytes"
    ),
    "tags of a TIFF": (
        lambda: tiff([(i, 7, 10**7, 0) for i in range(300, 700)], bytes(2 * 10**7)), "tags of more than 20,0"
    ),
    "comments": (lambda: gif(30_000), "10,000 blocks before its first frame"),
    "pixels in runs": (lambda: runs(10_000, 9_000, 9), "32,000,000 pixels in runs"),
    "runs": (lambda: runs(1_000, 1_000, 17_000_000), "16,000,000 bytes of runs"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_asks_for_too_much_is_refused_before_it_is_decoded(name: str) -> None:
    make, words = HOSTILE[name]
    with pytest.raises(InputError, match=words) as caught:
        decode(Path("odd.pic"), make())
    assert str(caught.value).startswith("odd.pic ")
    assert "\n" not in str(caught.value)


def test_an_avif_with_greedy_tags_is_refused() -> None:
    # Wherever its boxes put them.
    with pytest.raises(InputError, match=r"odd\.pic has tags of more than"):
        decode(Path("odd.pic"), b"\0\0\0\x14ftypavif\0\0\0\0avif" + greedy_exif())


def test_legitimate_pictures_pass() -> None:
    small = [
        with_scans(90, 64), with_segments(segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000)) * 255), strips(2_000),
        with_segments(b"\xff" * 100 + segment(0xE1, NO_TAGS) * 3), gif(5_000),
        png(5, 5, chunk(b"tEXt", b"a\0b") * 5_000), png(70_000, 2),
    ]  # fmt: skip
    for content in small:
        assert decode(Path("a"), content).dtype == np.uint8
    # A thumbnail has marks of its own, and so may what follows the picture.
    thumbnail = saved("JPEG", np.zeros((64, 64), np.uint8), progressive=True)
    assert decode(Path("a"), with_segments(segment(0xE1, NO_TAGS + thumbnail * 20)) + thumbnail * 2_000).size
    for kind, options in (
        ("JPEG", {"progressive": True, "quality": 95, "restart_marker_blocks": 1}), ("PNG", {"optimize": True}),
        ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}), ("GIF", {"comment": b"c" * 9_000}),
        ("WEBP", {"exif": NO_TAGS}), ("BMP", {}), ("TIFF", {"strip_size": 100}),
    ):  # fmt: skip
        headers.check(kind, saved(kind, sample(300, 400), **options))
        assert decode(Path("a"), saved(kind, sample(300, 400), **options)).shape == (300, 400, 3)


def test_the_only_scan_is_not_walked_over() -> None:
    # Nor does libjpeg read on behind it: a second one is an error.
    baseline = saved("JPEG")
    scan = baseline[baseline.rfind(b"\xff\xda") : -2]
    with pytest.raises(InputError, match="damaged picture"):
        decode(Path("a"), baseline[:-2] + scan * 2_000 + b"\xff\xd9")
    one_component = scan[:4] + b"\1" + scan[5:]
    with pytest.raises(InputError, match="more than 1,000 times"):
        decode(Path("a"), baseline.replace(scan[:5], one_component[:5])[:-2] + one_component * 2_000 + b"\xff\xd9")


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_walk_reads_both_orders_and_large_files(order: str) -> None:
    start = {"<": b"II", ">": b"MM"}[order]
    for many, passes in ((200_000, True), (300_000, False)):
        for big in (False, True):
            if big and order == ">":
                continue  # Pillow does not know these
            content = start + struct.pack(order + ("HHHQQ" if big else "HI"), *((43, 8, 0, 16, 1) if big else (42, 8)))
            content += struct.pack(order + ("HHQQ" if big else "HHHII"), *(() if big else (1,)), 273, 4, many, 0)
            content += bytes(4 * many)
            if passes:
                headers.check("TIFF", content)
            else:
                with pytest.raises(headers.TooMuch, match="strips"):
                    headers.check("TIFF", content)


# ---------------------------------------------------------------------------------------------------------- resizing


def test_direct_sums_are_those_of_scikit_image() -> None:
    from skimage.transform import resize as skimage_resize

    rng = np.random.RandomState(4)
    for number in range(60):
        height, width, new_height, new_width = rng.randint(1, (90, 200, 50, 50))
        if number % 3 == 0:
            height = 1
        x = rng.randint(0, 256, (height, width, (1, 3)[number % 2])).astype(np.uint8)
        expected = 255 * skimage_resize(x, (new_height, new_width))
        obtained = resizing.weighted(x if number % 4 else np.asfortranarray(x), (new_height, new_width))
        # Where it lies in the middle of two levels either may be given.
        clear = np.abs(expected - np.floor(expected) - 0.5) > 1e-9
        assert np.array_equal(obtained[clear], np.rint(np.clip(expected, 0, 255))[clear]), (x.shape, new_height)
        assert np.abs(obtained - expected).max() < 0.5 + 1e-9


def test_thin_pictures_take_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import skimage.transform

    def slow(*_: object) -> None:
        raise AssertionError("scikit-image would take minutes")

    x = decode(Path("thin.png"), png(400_000, 1))
    x = x | (np.arange(400_000) // 2_000 % 256).astype(np.uint8)[None, :, None]
    monkeypatch.setattr(skimage.transform, "resize", slow)
    for picture in (x, x.swapaxes(0, 1), np.repeat(x, 31, axis=0)):
        obtained = resize(picture, (32, 32))
        assert np.array_equal(obtained, resizing.resize_fast(picture, (32, 32)))
        assert obtained.max() > 190
        assert obtained.std(axis=(0, 1)).min() > 50


@pytest.mark.parametrize("times", [10, 50])
def test_panoramas_are_resized_as_ever(times: int) -> None:
    from skimage.transform import resize as skimage_resize

    x = np.random.RandomState(times).randint(0, 256, (60, 60 * times, 3)).astype(np.uint8)
    assert not resizing.takes_long(x.shape, (32, 32))
    expected = np.rint(255 * skimage_resize(x, (32, 32)))
    assert np.array_equal(resize(x, (32, 32)), expected)
    assert np.array_equal(resizing.resize_fast(x, (32, 32)), expected)


def test_large_pictures_are_taken_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.RandomState(1)
    rgba = rng.randint(0, 256, (50, 40, 4)).astype(np.uint8)
    pictures = [
        Image.fromarray(rgba), Image.fromarray(rgba[:, :, :3]), Image.fromarray(rgba[:, :, :3]).quantize(9),
        Image.fromarray(rgba[:, :, 0]), Image.fromarray(rgba[:, :, 0].astype(np.uint16) * 250),
        Image.fromarray(rgba[:, :, 0].astype(np.float32) / 255), Image.fromarray(rgba[:, :, 1].astype(np.int32) << 22),
    ]  # fmt: skip
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.tif")
    large = rng.randint(0, 256, (700, 640, 3)).astype(np.uint8)
    expected = [read_picture(tmp_path / f"{number}.tif") for number in range(len(pictures))]
    blocks = resizing.reduced(large, (20, 20))
    monkeypatch.setattr(decoding, "_AT_ONCE", 700)
    monkeypatch.setattr(resizing, "_PIXELS_AT_ONCE", 700)
    for number in range(len(pictures)):
        assert np.array_equal(read_picture(tmp_path / f"{number}.tif"), expected[number]), number
    assert np.array_equal(resizing.reduced(large, (20, 20)), blocks)
