"""Picture files of every kind, and everything that is none."""

import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import bomb, riff, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from xlogreg.errors import FileError, InputError, XlogregError
from xlogreg.images import decoding
from xlogreg.images.decoding import read_picture
from xlogreg.images.resizing import resize, to_pixels


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}), ("a.bmp", {}), ("a.webp", {"lossless": True}), ("a.tif", {}), ("a.jpg", {"quality": 100}),
        ("progressive.jpg", {"quality": 100, "progressive": True}),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, name: str, options: dict) -> None:
    Image.fromarray(sample()).save(tmp_path / name, **options)
    obtained = read_picture(tmp_path / name)
    assert (obtained.shape, obtained.dtype) == ((12, 20, 3), np.uint8)
    if name.endswith("jpg"):
        assert np.abs(obtained.astype(int) - sample()).mean() < 12
    else:
        assert np.array_equal(obtained, sample())


def test_wrong_ending_does_not_matter(tmp_path: Path) -> None:
    Image.fromarray(sample()).save(tmp_path / "photo.jpg", format="PNG")
    assert np.array_equal(read_picture(tmp_path / "photo.jpg"), sample())


def test_gif_shows_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read_picture(tmp_path / "a.gif") == (255, 0, 0)).all()


def test_grey_and_16_bit_and_one_bit(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 40).astype(np.uint8).reshape(4, 10)
    Image.fromarray(ramp).save(tmp_path / "l.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "i16.png")
    Image.fromarray((ramp / 255).astype(np.float32)).save(tmp_path / "f.tif")
    for name in ("l.png", "i16.png", "f.tif"):
        assert np.array_equal(read_picture(tmp_path / name), np.repeat(ramp[:, :, None], 3, axis=2)), name
    Image.fromarray(ramp > 100).save(tmp_path / "one.png")
    assert set(np.unique(read_picture(tmp_path / "one.png"))) == {0, 255}


def test_palette_and_cmyk(tmp_path: Path) -> None:
    palette = Image.fromarray(sample()).quantize(16)
    palette.save(tmp_path / "p.png")
    assert np.array_equal(read_picture(tmp_path / "p.png"), np.asarray(palette.convert("RGB")))
    Image.new("CMYK", (5, 5), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    assert (np.abs(read_picture(tmp_path / "cmyk.jpg").astype(int) - (255, 0, 0)) < 8).all()


def test_transparent_pixels_lie_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), dtype=np.uint8)
    rgba[:2] = (0, 0, 255, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    obtained = read_picture(tmp_path / "a.png")
    assert (obtained[:2] == (0, 0, 255)).all()
    assert (obtained[2:] == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "p.png", transparency=1)
    assert (read_picture(tmp_path / "p.png") == 255).all()
    Image.fromarray(np.array([[[9, 0], [9, 255]]], dtype=np.uint8)).save(tmp_path / "la.png")
    assert read_picture(tmp_path / "la.png")[0].tolist() == [[255] * 3, [9] * 3]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    # How a camera held that way stores the upright picture.
    stored = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }[orientation](sample())  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "a.png"), sample())


def test_orientation_survives_odd_exif(tmp_path: Path) -> None:
    # The maker is a fraction (type 5) and no text: Pillow reads it and cannot write it again.
    exif = (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHII", 0x010F, 5, 1, 38)
        + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4) + struct.pack(">II", 7, 2)
    )  # fmt: skip
    Image.fromarray(np.ascontiguousarray(np.rot90(sample(16, 24), 1))).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").shape == (16, 24, 3)


def test_broken_exif_is_one_sentence_or_the_picture_as_stored(tmp_path: Path) -> None:
    for exif in (
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",
    ):
        Image.fromarray(sample()).save(tmp_path / "a.jpg", exif=exif)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert read_picture(tmp_path / "a.jpg").shape == (12, 20, 3), exif
        try:  # here warnings are errors
            read_picture(tmp_path / "a.jpg")
        except InputError as error:
            assert "damaged" in str(error)  # noqa: PT017


def test_32_bit_greys_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 2**30, 2**31 - 1]], dtype=np.int32)
    Image.fromarray(values).save(tmp_path / "i.tif")
    assert read_picture(tmp_path / "i.tif")[0, :, 0].tolist() == [0, 128, 255]


def test_every_16_bit_grey_is_rounded(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png")[:, :, 0], np.rint(values / 257))


def test_whole_numbers_of_other_types_are_told_what_to_become() -> None:
    x = sample().astype(np.int32)
    with pytest.raises(InputError, match=r"not int32 \(12, 20, 3\); its values are levels of 0 to 255, give x.astype"):
        resize(x, (4, 4))
    for other in (x + 1, x - 1, x.astype(float)):
        with pytest.raises(InputError, match=r"\(12, 20, 3\)\.$"):
            resize(other * (1 if other.min() < 0 else 2), (4, 4))


@pytest.mark.parametrize("side", [50_000, 12_000, 2**31 - 1])
def test_bombs_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"bomb\.png .*pixels"):
            read_picture(tmp_path / "bomb.png")
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    "content",
    [
        riff(b"VP8X", bytes(4) + b"\xff\xff\x00" * 2),
        riff(b"VP8L", b"\x2f" + struct.pack("<I", 16383 | 16383 << 14) + bytes(11)),
        riff(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(8)),
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 9, 9, 0)
        + b"\x02\0;",
        b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 50000, 50000, 1, 24, 0, 0, 0, 0, 0, 0),
    ],
    ids=["VP8X", "VP8L", "VP8", "GIF", "BMP"],
)
def test_bombs_of_other_formats(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bomb").write_bytes(content)
    with pytest.raises(InputError, match=r"bomb is [\d,]+ x [\d,]+ = [\d,]+ pixels; pictures may have up to"):
        read_picture(tmp_path / "bomb")


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"lossless": True, "exif": b"Exif\0\0MM\0*"}])
def test_the_size_of_webp_is_known_before_decoding(tmp_path: Path, options: dict) -> None:
    Image.fromarray(sample()).save(tmp_path / "a.webp", **options)
    assert decoding._webp_canvas((tmp_path / "a.webp").read_bytes()[:30]) == (20, 12)


def test_the_bound_is_exact(tmp_path: Path) -> None:
    Image.fromarray(sample()).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", max_pixels=240).shape == (12, 20, 3)
    with pytest.raises(InputError, match="20 x 12 = 240 pixels"):
        read_picture(tmp_path / "a.png", max_pixels=239)


def test_threads_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    Image.fromarray(sample()).save(tmp_path / "a.png")
    read_picture(tmp_path / "a.png")  # what is imported now may add filters of its own
    before, seen = list(warnings.filters), []

    def read() -> None:
        for _ in range(40):
            seen.append(np.array_equal(read_picture(tmp_path / "a.png"), sample()))

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 240
    assert warnings.filters == before


def test_no_memory_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(sample()).save(tmp_path / "a.png")

    def full(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoding, "_upright", full)
    with pytest.raises(InputError, match="needs more memory than there is"):
        read_picture(tmp_path / "a.png")


def test_large_pictures_within_the_bound_give_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(sample()).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(tmp_path / "a.png").shape == (12, 20, 3)


def test_bad_files_get_one_clear_sentence(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.fromarray(sample(60, 80)).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:400])
    (tmp_path / "text.jpg").write_text("this is no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "drawing.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    for name, words in {
        "missing.png": "no file", "cut.jpg": "damaged", "text.jpg": "no picture", "empty.png": "is empty",
        "drawing.eps": "no picture", ".": "is a folder",
    }.items():  # fmt: skip
        with pytest.raises((InputError, FileError), match=words) as caught:
            read_picture(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="bytes; pictures may have up to 10"):
        read_picture(whole, max_bytes=10)


def test_names_that_no_file_can_have() -> None:
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(FileError, match=r"is no name of a file|cannot be read"):
            read_picture(name)


def test_errors_quote_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(sample()).save(tmp_path / "a.png")

    def quoting(_: object) -> None:
        raise SyntaxError("a header " + "\x1b[31m" * 400)

    monkeypatch.setattr(decoding, "_upright", quoting)
    for name in ("a.png", "x" * 4000, "x\0" * 2000):
        with pytest.raises(XlogregError) as caught:
            read_picture(tmp_path / name if name == "a.png" else name)
        assert len(str(caught.value).replace(str(tmp_path), "")) < 600
        assert "\x1b" not in str(caught.value)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(sample()).save(tmp_path / "a.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(decoding.os, "open", refuse)
    with pytest.raises(FileError, match="cannot be read: Permission denied"):
        read_picture(tmp_path / "a.png")


@settings(max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]), st.data())
def test_damaged_files_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    Image.fromarray(sample()).save(folder / "fuzz", format=kind)
    content = bytearray((folder / "fuzz").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "fuzz").write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    try:
        picture = read_picture(folder / "fuzz")
    except XlogregError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3


def test_resize() -> None:
    assert resize(sample(), (12, 20)) is not None
    assert np.array_equal(resize(sample(), (12, 20)), sample())
    assert resize(sample(), (5, 7)).shape == (5, 7, 3)
    from skimage.transform import resize as skimage_resize

    expected = np.rint(skimage_resize(sample(), (5, 7)) * 255)
    assert np.array_equal(resize(sample(), (5, 7)), expected)
    assert resize(sample()[:, :, :1], (24, 40)).shape == (24, 40, 1)
    flat = np.full((50, 40, 3), 77, dtype=np.uint8)
    assert (resize(flat, (32, 32)) == 77).all()


@pytest.mark.parametrize(
    ("x", "size"),
    [
        (sample() / 255, (4, 4)), (sample()[:, :, 0], (4, 4)), (sample()[:0], (4, 4)), ([[1]], (4, 4)),
        (sample(), (0, 4)), (sample(), (4, -1)), (sample(), (4.5, 4)), (sample(), (4, 4, 3)),
    ],
)  # fmt: skip
def test_resize_refuses_what_it_cannot_do(x: np.ndarray, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="must be"):
        resize(x, size)


def test_grey_models_take_luma(tmp_path: Path) -> None:
    Image.fromarray(sample()).save(tmp_path / "a.png")
    obtained = to_pixels(tmp_path / "a.png", (12, 20), 1)
    expected = sample() @ np.array([0.299, 0.587, 0.114])
    assert obtained.shape == (12, 20, 1)
    assert np.abs(obtained[:, :, 0] - expected).max() <= 1
    assert to_pixels(tmp_path / "a.png", (6, 5)).shape == (6, 5, 3)
    for channels in (0, 2, 4):
        with pytest.raises(InputError, match=f"not {channels};"):
            to_pixels(tmp_path / "a.png", (12, 20), channels)


def test_names_with_spaces_and_unicode(tmp_path: Path) -> None:
    path = tmp_path / "mein Vögelchen [1] 'x'.png"
    Image.fromarray(sample()).save(path)
    assert np.array_equal(read_picture(path), sample())


def test_the_authors_eagle(real_data: Path) -> None:
    eagle = read_picture(real_data / "eagle.jpeg")
    assert eagle.shape == (270, 480, 3)
    with Image.open(real_data / "eagle.jpeg") as picture:
        assert np.array_equal(eagle, np.asarray(picture.convert("RGB")))
    small = to_pixels(real_data / "eagle.jpeg", (32, 32))
    assert (small.shape, small.dtype) == ((32, 32, 3), np.uint8)
    # Resizing keeps the colours on average, and smoothing takes away extremes.
    assert np.abs(small.mean(axis=(0, 1)) - eagle.mean(axis=(0, 1))).max() < 2
    assert small.std() < eagle.std()


# --------------------------------------------------------------------------------------------------- formats of boxes


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif(tmp_path: Path) -> None:
    soft = np.asarray(Image.fromarray(sample()).resize((120, 80)))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(soft).save(tmp_path / "a.avif", quality=98)
    Image.fromarray(np.ascontiguousarray(np.rot90(soft, 1))).save(tmp_path / "turned.avif", quality=98, exif=exif)
    Image.fromarray(np.dstack([soft, soft[:, :, 0] * 0])).save(tmp_path / "clear.avif")
    for name in ("a.avif", "turned.avif"):
        obtained = read_picture(tmp_path / name)
        assert obtained.shape == (80, 120, 3)
        assert np.abs(obtained.astype(int) - soft).mean() < 6
    assert (read_picture(tmp_path / "clear.avif") == 255).all()
    with pytest.raises(InputError, match="120 x 80 = 9,600 pixels"):
        read_picture(tmp_path / "a.avif", max_pixels=9_599)
    for damage in (slice(0, 200), slice(0, 64)):
        (tmp_path / "cut.avif").write_bytes((tmp_path / "a.avif").read_bytes()[damage])
        with pytest.raises(InputError, match="damaged"):
            read_picture(tmp_path / "cut.avif")


def test_heic(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    soft = np.asarray(Image.fromarray(sample()).resize((120, 80)))
    pillow_heif.from_pillow(Image.fromarray(soft)).save(tmp_path / "a.heic", quality=98)
    obtained = read_picture(tmp_path / "a.heic")
    assert obtained.shape == (80, 120, 3)
    assert np.abs(obtained.astype(int) - soft).mean() < 6


def box(*brands: bytes) -> bytes:
    return struct.pack(">I", 12 + 4 * len(brands)) + b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:]) + bytes(50)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (box(b"avif"), r"a is a picture in AVIF, which needs Pillow 11\.3 or later with AVIF; install it with"),
        (box(b"mif1", b"miaf", b"avif"), r"in AVIF, which needs Pillow"),
        (box(b"heic"), r"a is a picture in HEIC, which needs pillow-heif \(the extra heic\); install it with"),
        (box(b"mif1", b"heic"), r"in HEIC, which needs pillow-heif"),
        (box(b"isom", b"mp42"), r"a is no picture that xlogreg reads; give JPEG, .*"),
    ],
)  # fmt: skip
def test_what_a_format_needs_is_said(monkeypatch: pytest.MonkeyPatch, content: bytes, words: str) -> None:
    monkeypatch.setattr(decoding, "_plugin", lambda kind: None)
    with pytest.raises(InputError, match=words) as caught:
        decoding.decode(Path("a"), content)
    assert str(caught.value).count("\n") == 0


def test_readers_are_asked_for_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a Pillow without AVIF, and without pillow-heif.
    monkeypatch.setitem(sys.modules, "PIL.AvifImagePlugin", None)
    monkeypatch.delattr("PIL.AvifImagePlugin", raising=False)
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    assert decoding._plugin.__wrapped__("AVIF") is None
    assert decoding._plugin.__wrapped__("HEIC") is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere libtiff may lie within Pillow")
def test_libtiff_can_be_quiet(tmp_path: Path) -> None:
    Image.fromarray(sample(40, 40)).save(tmp_path / "a.tif", compression="tiff_lzw")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[8:60] = bytes(52)
    (tmp_path / "a.tif").write_bytes(content)
    code = (
        "import sys; from xlogreg.images.decoding import quiet_libtiff, read_picture\n"
        "if sys.argv[2] == 'quiet': quiet_libtiff()\n"
        "try: read_picture(sys.argv[1])\nexcept Exception as error: print(error)"
    )
    for how, lines in (("loud", 1), ("quiet", 0)):
        command = [sys.executable, "-c", code, str(tmp_path / "a.tif"), how]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.stderr.count("\n"), "damaged" in done.stdout) == (lines, True)
