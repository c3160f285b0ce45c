import tracemalloc
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from distildire.io.pictures import MIN_SIDE, ImageError, decode
from made_pictures import huge_png, picture, saved


@pytest.mark.parametrize(
    ("format", "tolerance"),
    [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("JPEG", 12), ("WEBP", 16), ("AVIF", 16)],
)
def test_formats_keep_pixels_and_channel_order(format: str, tolerance: int) -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[..., 0], rgb[:32, :, 2] = 200, 90
    options = {} if tolerance == 0 else {"quality": 95}
    decoded = decode(saved(Image.fromarray(rgb), format, **options))
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - rgb).mean() <= tolerance


def test_first_frame_of_an_animation() -> None:
    red, blue = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))
    data = saved(red, "GIF", save_all=True, append_images=[blue])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


def test_exif_orientation_turns_the_picture() -> None:
    rgb = np.zeros((40, 80, 3), np.uint8)
    rgb[:, :40] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    decoded = decode(saved(Image.fromarray(rgb), "PNG", exif=exif))
    assert decoded.shape == (80, 40, 3)
    assert decoded[10, 20].tolist() == [255, 255, 255]
    assert decoded[70, 20].tolist() == [0, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(picture())
    upright = np.asarray(
        ImageOps.exif_transpose(Image.open(BytesIO(saved(image, "PNG", exif=exif))))
    )
    packed = {"compression": "tiff_lzw"}
    for format, options in (
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", packed),
    ):
        assert np.array_equal(decode(saved(image, format, exif=exif, **options)), upright), format
    if orientation == 1:
        assert np.array_equal(upright, picture())


def test_alpha_is_laid_over_white() -> None:
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[..., 3] = 51
    assert decode(saved(Image.fromarray(rgba), "PNG"))[0, 0].tolist() == [204, 204, 204]
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    palette.putpixel((39, 39), 1)
    assert decode(saved(palette, "PNG", transparency=0))[0, 0].tolist() == [255, 255, 255]
    assert decode(saved(palette, "PNG"))[0, 0].tolist() == [10, 20, 30]


def test_grey_sixteen_bit_float_and_cmyk() -> None:
    grey = np.full((40, 40), 77, np.uint8)
    assert decode(saved(Image.fromarray(grey), "PNG"))[3, 3].tolist() == [77, 77, 77]
    deep = np.full((40, 40), 77 * 257, np.uint16)
    assert decode(saved(Image.fromarray(deep), "PNG"))[3, 3].tolist() == [77, 77, 77]
    unit = np.full((40, 40), 0.5, np.float32)
    assert decode(saved(Image.fromarray(unit), "TIFF"))[3, 3].tolist() == [128, 128, 128]
    cmyk = Image.new("CMYK", (40, 40), (0, 255, 255, 0))
    red = decode(saved(cmyk, "TIFF"))[3, 3]
    assert red[0] > 200
    assert red[1:].max() < 60


def test_arrays_and_pil_images() -> None:
    rgb = picture()
    assert np.array_equal(decode(rgb), rgb)
    assert np.array_equal(decode(Image.fromarray(rgb)), rgb)
    assert decode(rgb[..., 0]).shape == (60, 80, 3)
    for same in (rgb / 255.0, rgb.astype(np.uint16) * 257, rgb.transpose(2, 0, 1)):
        assert np.array_equal(decode(same), rgb)
    for numbers in (rgb.astype(float), rgb / 255.0 - 0.5):
        with pytest.raises(TypeError, match="divide by 255"):
            decode(numbers)
    with pytest.raises(TypeError, match="int64"):
        decode(rgb.astype(np.int64))
    with pytest.raises(ValueError, match="shape"):
        decode(np.zeros((5, 60, 80), np.uint8))
    with pytest.raises(TypeError, match="int"):
        decode(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_large_picture_is_in_memory_once_beside_its_rgb(mode: str, orientation: int) -> None:
    """Of what Pillow doesn't hold itself."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.new(mode, (3000, 4000), "gray"), "PNG", exif=exif)
    tracemalloc.start()
    try:
        rgb = decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (rgb == 128).all()
    assert peak < 1.5 * rgb.nbytes


@pytest.mark.parametrize("side", [10_001, 13_000, 40_000])
def test_bombs_are_refused_before_they_are_decoded(side: int) -> None:
    with pytest.raises(ImageError, match=r"too many pixels.*100 megapixels"):
        decode(huge_png(side))


def test_bad_files_say_what_is_wrong(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(picture(200, 200)), "JPEG")
    cases = {
        "text.jpg": (b"no picture at all", "not a picture"),
        "empty.jpg": (b"", "empty"),
        "cut.jpg": (whole[: len(whole) // 2], "truncated"),
        "tiny.png": (saved(Image.new("RGB", (3, 1)), "PNG"), "too small"),
        "thin.png": (saved(Image.new("RGB", (500, MIN_SIDE - 1)), "PNG"), "too small"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=message):
            decode(tmp_path / name)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(ImageError, match="dangling link"):
        decode(tmp_path / "dangling.jpg")
    with pytest.raises(ImageError, match="no such file"):
        decode(tmp_path / "absent.jpg")
    with pytest.raises(ImageError, match="it is a folder"):
        decode(tmp_path)
    with pytest.raises(ImageError, match="an empty name"):
        decode("")
