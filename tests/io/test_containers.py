"""What lies around the pixels never decides about them; what isn't read is named."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from distildire.io.containers import known_kind, without_ancillary, without_damaged_segments
from distildire.io.pictures import (
    RGB,
    ImageError,
    decode,
    decode_bytes,
    read_bytes,
    register_heif,
    register_jxl,
)


def picture() -> RGB:
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC))


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes, *, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunk(extra: bytes) -> bytes:
    png = saved(Image.fromarray(picture()))
    return png[:33] + extra + png[33:]  # after IHDR


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (chunk(b"tEXt", b"Comment\0x", crc=1), "wrong checksum"),
        (chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 5_000_000)), None),
        (chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * 5_000_000)), None),
        (chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"x" * 5_000_000)), "over 1 MiB"),
        (chunk(b"iCCP", b"icc\0\7" + zlib.compress(b"x")), "unknown method"),
        (chunk(b"iCCP", b"icc\0\0" + b"no stream"), "damaged"),
        (chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"no profile")), None),
        (chunk(b"eXIf", b"notatiff"), "no EXIF"),
        (chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 9\nzz")), None),
    ],
)
def test_ancillary_chunks_of_png_are_passed_over(extra: bytes, named: str | None) -> None:
    data = with_chunk(extra)
    assert np.array_equal(decode(data), picture())
    notes: list[str] = []
    without_ancillary(data, notes)
    assert len(notes) == (named is not None)
    assert all(named in note for note in notes if named)


def frame(number: int, *box: int) -> bytes:
    return chunk(b"fcTL", struct.pack(">5I2H2B", number, *box, 1, 10, 0, 0))


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"sRGB", b""),
        chunk(b"tRNS", b"\0"),
        chunk(b"tRNS", bytes(6), crc=1),
        chunk(b"PLTE", bytes(5), crc=1),
        chunk(b"acTL", b"\0"),
        chunk(b"acTL", struct.pack(">II", 1, 0), crc=1),
        chunk(b"acTL", struct.pack(">II", 3, 0)),
        chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", bytes(26), crc=1),
        chunk(b"acTL", struct.pack(">II", 1, 0)) + frame(7, 80, 60, 0, 0),
        chunk(b"acTL", struct.pack(">II", 1, 0)) + frame(0, 40, 30, 0, 0),
        chunk(b"fcTL", bytes(26)),
        chunk(b"fdAT", b"\0"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_damage_of_what_png_can_do_without(extra: bytes, mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    png = saved(image)
    for at in (33, png.index(b"IDAT") - 4, len(png) - 12):
        data = png[:at] + extra + png[at:]
        assert np.array_equal(decode(data), np.asarray(image.convert("RGB")))
    assert np.array_equal(decode(png[:-4] + b"abcd"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("default", [False, True])
def test_an_animation_without_a_whole_beginning_is_a_still_picture(default: bool) -> None:
    frames = [Image.fromarray(picture()).rotate(90 * turn) for turn in range(3)]
    still = Image.fromarray(picture())
    whole = saved(still, save_all=True, append_images=frames[0 if default else 1 :],
                  default_image=default)  # fmt: skip
    for kind, offset in ((b"acTL", 4), (b"fcTL", 4), (b"fcTL", 11), (b"fcTL", 19), (b"fdAT", 7)):
        data = bytearray(whole)
        at = data.index(kind)
        data[at + offset] ^= 0x41
        assert np.array_equal(decode(bytes(data)), picture())
        end = at + 4 + int.from_bytes(data[at - 4 : at])
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at:end]))
        assert np.array_equal(decode(bytes(data)), picture())


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE0, b"JFIF\0\1"),
        segment(0xE0, b"JFIF"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
        segment(0xEE, b"Adobe\0"),
        segment(0xE0, b"JFIF\0") + segment(0xEE, b"Adobe"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_segments_of_jpeg_that_are_cut_short(extra: bytes, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    jpeg = saved(Image.fromarray(picture()).convert(mode), "JPEG", exif=exif, icc_profile=profile)
    for at in (2, jpeg.index(b"\xff\xdb")):
        assert np.array_equal(decode(jpeg[:at] + extra + jpeg[at:]), decode(jpeg))
    notes: list[str] = []
    assert without_damaged_segments(jpeg, notes) == jpeg
    assert without_damaged_segments(jpeg[:2] + extra + jpeg[2:], notes) == jpeg
    assert notes
    assert all("is cut short and was passed over" in note for note in notes)


def test_critical_damage_of_png_is_told() -> None:
    png = saved(Image.fromarray(picture()))
    at = png.index(b"IDAT") + 20
    with pytest.raises(ImageError, match=r"damaged|known format"):
        decode(png[:at] + bytes([png[at] ^ 255]) + png[at + 1 :])
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode(png[: len(png) // 2])


def test_broken_exif_of_jpeg_is_passed_over_and_a_whole_one_turns() -> None:
    image = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(saved(image, "JPEG", exif=exif)).shape == (80, 60, 3)
    broken = b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 40
    assert decode(saved(image, "JPEG", exif=broken)).shape == (60, 80, 3)


def test_a_profile_is_applied_and_a_broken_one_passed_over() -> None:
    image = Image.fromarray(picture())
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decode(saved(image, icc_profile=srgb)), picture())
    assert np.array_equal(decode(saved(image, icc_profile=b"nonsense")), picture())
    # A profile whose red and blue are exchanged: applied, they change places.
    swapped = bytearray(srgb)
    red, blue = swapped.index(b"rXYZ"), swapped.index(b"bXYZ")
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "BGR!".encode("utf-16-be"))
    pure = np.zeros((40, 40, 3), np.uint8)
    pure[..., 0] = 255
    seen = decode(saved(Image.fromarray(pure), icc_profile=bytes(swapped)))[0, 0]
    assert seen[2] > 200
    assert seen[0] < 60


def deep(values: np.ndarray, **tags: int) -> bytes:
    """A little-endian TIFF of one strip, written by hand."""
    height, width = values.shape[:2]
    bits = values.dtype.itemsize * 8
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: height,
               279: values.nbytes, 339: 3 if values.dtype.kind == "f" else 1}  # fmt: skip
    entries |= {int(tag): value for tag, value in tags.items()}
    start = 8 + 2 + 12 * len(entries) + 4
    entries[273] = start
    body = b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + b"\0" * 4 + values.tobytes()


def test_deep_samples_keep_their_values() -> None:
    grey = np.array(Image.fromarray(picture()).convert("L"))
    sixteen = grey.astype(np.uint16) * 257
    unit = (grey / 255).astype(np.float32)
    bright = unit.copy()
    bright[:1, :4] = (8.0, np.inf, np.nan, 1.0)
    for values, tags in (
        (sixteen, {}),
        (65535 - sixteen, {"262": 0}),
        (np.rint(grey * (4095 / 255)).astype(np.uint16), {}),
        (grey.astype(np.uint32) * 16843009, {}),
        (unit, {}),
        (bright, {}),
    ):
        seen = decode(deep(values, **tags))[..., 0].astype(int)
        assert np.abs(seen - grey)[1:].max() <= 1, (values.dtype, tags)
    with pytest.raises(ImageError, match="range can't be told"):
        decode(deep(unit * 7.3))


@pytest.mark.parametrize(("bigtiff", "byteorder"), [(False, "<"), (False, ">"), (True, "<")])
@pytest.mark.parametrize("scale", [1, 257])
def test_a_page_that_is_a_smaller_version_of_a_later_one(
    bigtiff: bool, byteorder: str, scale: int
) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=bigtiff, byteorder=byteorder) as writer:
        for small in (picture()[::2, ::2], picture()[:40, :40]):
            writer.write(small, photometric="rgb", subfiletype=1)
        values = picture().astype(np.uint8 if scale == 1 else np.uint16) * scale
        writer.write(values, photometric="rgb")
        writer.write(picture()[::-1], photometric="rgb")
    assert np.array_equal(decode(file.getvalue()), picture())


@pytest.mark.parametrize(
    "tags",
    [{"subifds": 1}, {"extratags": [(50706, 1, 4, b"\1\4\0\0", True)]}, {"photometric": "cfa"}],
)
def test_a_raw_file_is_no_tiff_with_a_small_first_page(tags: dict[str, Any]) -> None:
    sensor = {"photometric": tags.pop("photometric", "minisblack")}
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(picture(), photometric="rgb", subfiletype=1, **tags)
        writer.write(picture()[..., 0].astype(np.uint16), **sensor)
    with pytest.raises(ImageError, match="raw file"):
        decode(file.getvalue())


def test_samples_of_very_many_sizes_are_one_short_sentence() -> None:
    data = deep((picture()[..., 0] / 255).astype(np.float32))
    entry, many = struct.pack("<HHII", 258, 4, 1, 32), np.arange(3000, dtype="<u2")
    assert entry in data
    data = data.replace(entry, struct.pack("<HHII", 258, 3, len(many), len(data)))
    with pytest.raises(ImageError, match="samples of format 3 with 0, 1, 2") as caught:
        decode(data + many.tobytes())
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (16, 32)},
        {"rowsperstrip": 7, "byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "tile": (16, 48)},
    ],
)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_deep_colours_in_every_layout(
    separate: bool, options: dict[str, object], orientation: int
) -> None:
    turn = {1: 0, 3: 2, 6: 3}[orientation]
    rgb, alpha = picture(), np.full((60, 80, 1), 51, np.uint8)
    cmyk = np.asarray(Image.fromarray(rgb).convert("CMYK"))
    laid = np.asarray(Image.alpha_composite(Image.new("RGBA", (80, 60), "white"),
                                            Image.fromarray(np.dstack([rgb, alpha]))))  # fmt: skip
    for values, kind, expected in (
        (rgb.astype(np.uint16) * 257, "rgb", rgb),
        (rgb.astype(np.uint32) * 16843009, "rgb", rgb),
        ((rgb / 255).astype(np.float16), "rgb", rgb),
        ((rgb / 255).astype(np.float32), "rgb", rgb),
        (np.rint(rgb * (4095 / 255)).astype(np.uint16), "rgb", rgb),
        (rgb.astype(np.int16), "rgb", rgb),
        (cmyk.astype(np.uint16) * 257, "separated", Image.fromarray(cmyk, "CMYK").convert("RGB")),
        (np.dstack([rgb, alpha]).astype(np.uint16) * 257, "rgb", laid[..., :3]),
    ):
        data = tiff(
            values.transpose(2, 0, 1) if separate else values, photometric=kind, **options,
            extrasamples=["unassalpha"] if laid[..., :3] is expected else None,
            planarconfig="separate" if separate else "contig",
            extratags=[(274, 3, 1, orientation, True)],
        )  # fmt: skip
        for source in (data, Image.open(io.BytesIO(data))) if openable(data) else (data,):
            difference = decode(source).astype(int) - np.rot90(np.asarray(expected), turn)
            assert np.abs(difference).max() <= 1, (values.dtype, kind)


def openable(data: bytes) -> bool:
    with contextlib.suppress(OSError), Image.open(io.BytesIO(data)):
        return True
    return False


def tiff(values: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def test_dark_pictures_of_sixteen_bits_stay_dark_where_the_file_tells() -> None:
    grey = picture()[..., 0].astype(np.uint16)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pnm = b"P5 80 60 65535\n" + (grey * 40).astype(">u2").tobytes()
    for data in (
        saved(Image.fromarray(grey * 40)),
        pnm,
        tiff(np.repeat(grey[..., None] * 40, 3, 2), photometric="rgb", iccprofile=srgb),
        tiff(grey * 40, photometric="minisblack", extratags=[(281, 3, 1, 65535, True)]),
    ):
        assert np.array_equal(decode(data)[..., 0], grey * 40 >> 8), data[:4]
    twelve = np.rint(picture() * (4095 / 255)).astype(np.uint16)
    assert np.array_equal(decode(twelve), picture())
    assert np.array_equal(decode(twelve[..., 0]), picture()[..., [0, 0, 0]])


def test_samples_below_zero_are_not_guessed_at() -> None:
    for kind in (np.int8, np.int16):
        with pytest.raises(ImageError, match=r"^samples below zero"):
            decode(tiff((picture()[..., 0].astype(int) - 128).astype(kind)))


def test_colours_multiplied_with_their_alpha() -> None:
    rgba = Image.fromarray(np.dstack([picture(), np.full((60, 80), 128, np.uint8)]))
    for mode in ("RGBA", "LA"):
        image = rgba.convert(mode)
        seen = decode(image.convert(mode.replace("A", "a"))).astype(int)
        assert np.abs(seen - decode(image)).max() <= 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (deep(np.zeros((40, 40), np.uint16), **{"254": 1}), "raw file"),
        (b"FUJIFILMCCD-RAW 0201", "Fujifilm"),
        (b"II*\0\x10\0\0\0CR\x02\0" + b"\0" * 90, "CR2"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "CR3"),
        (b"%PDF-1.7", "PDF"),
        (b"<?xml version='1.0'?><svg></svg>", "SVG"),
        (b"8BPS\0\1", "Photoshop"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\0\0\0\x20ftypisom", "video"),
        (b"P7\nWIDTH 80\nHEIGHT 60\n", "PAM"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"CgBI", b"\x50\0\x20\6") + with_chunk(b"")[8:], "iPhones"),
    ],
)
def test_other_kinds_are_named(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode_bytes(data)


@pytest.mark.parametrize("brand", [b"heic", b"heis", b"heim", b"mif1"])
def test_heic_is_told_as_heic(brand: bytes) -> None:
    assert "HEIC" in str(known_kind(b"\0\0\0\x18ftyp" + brand))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "AVIF", "WEBP", "BMP", "TIFF", "JPEG2000",
                                  "ICO", "HEIF", "JXL"])  # fmt: skip
def test_cut_files_are_told_as_cut_in_one_line(kind: str) -> None:
    if kind in {"HEIF", "JXL"}:
        pytest.importorskip({"HEIF": "pillow_heif", "JXL": "pillow_jxl"}[kind])
        register_heif()
        register_jxl()
    data = saved(Image.fromarray(picture()).resize((400, 300)), kind)
    for length in (16, 40, 100, len(data) // 2):
        with pytest.raises(ImageError, match=r"damaged or truncated picture[^\n]*$"):
            decode(data[:length])


@pytest.mark.parametrize("kind", ["JPEG2000", "PPM", "TGA", "ICO", "BMP", "WEBP", "MPO"])
def test_more_formats(kind: str) -> None:
    lossy = {"JPEG2000": {}, "WEBP": {"lossless": True}, "ICO": {"sizes": [(80, 60)]}}
    seen = decode(saved(Image.fromarray(picture()), kind, **lossy.get(kind, {})))
    assert np.abs(seen.astype(int) - picture()).mean() < (6 if kind == "MPO" else 0.5)


def test_alpha_of_nothing_is_no_alpha() -> None:
    rgba = np.dstack([picture(), np.zeros((60, 80), np.uint8)])
    assert np.array_equal(decode(saved(Image.fromarray(rgba))), picture())


def test_the_first_frame_that_shows_something_is_taken() -> None:
    blank, shown = Image.new("RGB", (80, 60), "white"), Image.fromarray(picture())
    data = saved(blank, "GIF", save_all=True, append_images=[blank, shown])
    assert decode(data).std() > 10
    assert decode(saved(blank, "GIF", save_all=True, append_images=[blank])).std() == 0


def test_a_damaged_animation_is_what_comes_before_the_damage() -> None:
    for first in (Image.fromarray(picture()), Image.new("RGB", (80, 60))):
        others = [Image.fromarray(picture()).rotate(90 * i) for i in (1, 2)]
        data = bytearray(saved(first, save_all=True, append_images=others))
        data[data.index(b"fdAT") + 30] ^= 255
        assert np.array_equal(decode(bytes(data)), np.asarray(first))
        notes: list[str] = []
        without_ancillary(bytes(data), notes)
        assert "frame of the animation" in notes[0]


def test_frames_are_looked_through_in_bounds() -> None:
    blank, shown = Image.new("RGB", (80, 60), "white"), Image.fromarray(picture())
    data = saved(blank, "TIFF", save_all=True, append_images=[blank, shown])
    assert decode(data).std() > 10
    assert decode(data, max_pixels=2 * 80 * 60).std() == 0
    small = Image.fromarray(picture()).resize((20, 20))
    data = saved(blank, "TIFF", save_all=True, append_images=[small, shown])
    assert decode(data).shape == (60, 80, 3)
    assert decode(data).std() == 0


def test_an_opened_image_that_is_given_often_is_the_same_each_time() -> None:
    frames = [Image.fromarray(picture()).resize((800, 600)).rotate(90 * i) for i in range(3)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "JPEG"):
        options = {} if kind == "JPEG" else {"save_all": True, "append_images": frames[1:]}
        data = saved(frames[0], kind, **options)
        image = Image.open(io.BytesIO(data))
        with ThreadPoolExecutor(8) as pool:
            for seen in pool.map(decode, [image] * 16):
                assert np.array_equal(seen, decode(data)), kind
        assert image.tell() == 0
        if kind != "JPEG":
            image.seek(2)
            expected = Image.open(io.BytesIO(data))
            expected.seek(2)
            assert np.array_equal(decode(image), np.asarray(expected.convert("RGB"))), kind
            assert image.tell() == 2
    cut = Image.open(io.BytesIO(saved(frames[0], "JPEG")[:-300]))
    for _ in range(2):
        with pytest.raises(ImageError, match="truncated"):
            decode(cut)


def test_what_is_no_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="pipe"):
        read_bytes(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="device"):
        read_bytes(Path("/dev/zero"))
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(600 * 2**20)
    with pytest.raises(ImageError, match="over the limit"):
        read_bytes(tmp_path / "huge.jpg")
    with pytest.raises(ImageError, match="nothing is fetched"):
        read_bytes(Path("https://example.org/a.jpg"))
    with pytest.raises(ImageError, match="null"):
        read_bytes(tmp_path / "a\0b.jpg")


def test_objects_that_are_pictures() -> None:
    data = saved(Image.fromarray(picture()))
    for source in (bytearray(data), memoryview(data), io.BytesIO(data)):
        assert np.array_equal(decode(source), picture())
    at_its_end = io.BytesIO()
    at_its_end.write(data)
    for _ in range(2):
        assert np.array_equal(decode(at_its_end), picture())
    with pytest.raises(TypeError, match="binary mode"):
        decode(io.StringIO("photo.jpg"))
    with pytest.raises(ImageError, match="as str or Path"):
        decode(b"photos/photo.jpg")
    torch = pytest.importorskip("torch")
    assert decode((torch.from_numpy(picture()) / 255).bfloat16()).shape == (60, 80, 3)
    tensor = torch.from_numpy(picture()).permute(2, 0, 1) / 255
    assert np.array_equal(decode(tensor), picture())
    with pytest.raises(ImageError, match="truncated"):
        decode(Image.open(io.BytesIO(saved(Image.fromarray(picture()), "JPEG")[:-300])))


def test_a_png_of_very_many_chunks_is_refused_at_once() -> None:
    data = saved(Image.fromarray(picture()), "PNG")
    many = b"\0\0\0\0prVt\0\0\0\0" * 2_000_000
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="more than 200,000 chunks"):
            decode(data[:33] + many + data[33:])
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()
