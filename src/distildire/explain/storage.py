"""How a picture was stored: format, EXIF, texts.

None of it enters the score: metadata is easily removed and easily forged.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ExifTags, Image

from distildire.io.colour import is_profile
from distildire.io.containers import (
    PNG_SIGNATURE,
    without_ancillary,
    without_damaged_segments,
)
from distildire.io.pictures import open_picture
from distildire.io.tiff import deep_pages, deep_picture
from distildire.provenance.fields import exif_is_damaged, user_comment

_EXIF_FIELDS = (
    ("Make", ExifTags.Base.Make),
    ("Model", ExifTags.Base.Model),
    ("Software", ExifTags.Base.Software),
    ("DateTime", ExifTags.Base.DateTime),
    ("Artist", ExifTags.Base.Artist),
    ("ImageDescription", ExifTags.Base.ImageDescription),
    ("Orientation", ExifTags.Base.Orientation),
)
_EXIF_SHOT_FIELDS = (
    ("DateTimeOriginal", ExifTags.Base.DateTimeOriginal),
    ("LensModel", ExifTags.Base.LensModel),
    ("ExposureTime", ExifTags.Base.ExposureTime),
    ("FNumber", ExifTags.Base.FNumber),
    ("ISOSpeedRatings", ExifTags.Base.ISOSpeedRatings),
    ("FocalLength", ExifTags.Base.FocalLength),
    ("UserComment", ExifTags.Base.UserComment),
)

TEXT_LIMIT = 4_000
"""Characters kept of one metadata field; generators store prompts and settings there."""

XMP_LIMIT = 64_000
"""Characters kept of an XMP packet, whose header alone takes hundreds."""


@dataclass(frozen=True)
class Storage:
    """How a picture was stored."""

    format: str
    """Pillow's name, for instance JPEG."""
    mode: str
    width: int
    """Pixels as stored, before EXIF orientation."""
    height: int
    exif: dict[str, str]
    """The fields that name a device, a program or a time; empty where there are none."""
    gps: bool
    """Whether a position is stored; the position itself is not copied."""
    text: dict[str, str]
    """PNG text chunks, comments and the XMP packet; cut to `TEXT_LIMIT` and `XMP_LIMIT`."""
    passed_over: tuple[str, ...] = ()
    """What is damaged or oversized in the file beside its pixels, a sentence each."""


def storage_of(data: bytes) -> Storage:
    """Read the header of a picture file that `pictures.decode` accepts; never its pixels."""
    passed_over: list[str] = []
    image = _opened(data, passed_over)
    with image:
        exif, gps = _exif(image)
        if exif_is_damaged(image.info.get("exif") or b""):
            passed_over.append("the EXIF is damaged, and what can't be read of it passed over")
        profile = image.info.get("icc_profile")
        if isinstance(profile, bytes) and profile and not is_profile(profile):
            passed_over.append("the colour profile is damaged and was passed over")
        text = {
            _clean(key, 80): _clean(value, XMP_LIMIT if key == _PNG_XMP else TEXT_LIMIT)
            for key, value in sorted(image.info.items(), key=lambda item: str(item[0]))
            if isinstance(value, str | bytes) and key in _text_keys(image)
        }
        xmp = image.info.get("xmp")
        if isinstance(xmp, str | bytes) and _PNG_XMP not in text:
            text["XMP"] = _clean(xmp, XMP_LIMIT)
        return Storage(
            image.format or "unknown", image.mode, image.width, image.height, exif, gps, text,
            tuple(passed_over),
        )  # fmt: skip


_PNG_XMP = "XML:com.adobe.xmp"


def _opened(data: bytes, passed_over: list[str]) -> Image.Image:
    """A picture with its metadata, or without where they can't be read."""
    whole = data
    if data[:8] == PNG_SIGNATURE:
        whole = without_ancillary(data, passed_over, texts=True)
    elif data[:2] == b"\xff\xd8":
        whole = without_damaged_segments(data, passed_over)
    try:
        image = open_picture(whole, metadata=True)
        getattr(image, "text", None)  # of a PNG it may stand behind the pixels
        return image
    # Pillow raises many types on damaged metadata; a record without them is still a record.
    except Exception:
        if (tags := next(deep_pages(data), None)) is not None:
            return deep_picture(data, tags)
        passed_over.append("the file's texts are damaged or oversized and were passed over")
        return open_picture(data)


def _exif(image: Image.Image) -> tuple[dict[str, str], bool]:
    try:
        exif = image.getexif()
        shot = exif.get_ifd(ExifTags.IFD.Exif)
        gps = bool(exif.get_ifd(ExifTags.IFD.GPSInfo))
    # Pillow raises many types on damaged EXIF; a record without it is still a record.
    except Exception:
        return {}, False
    found = {name: exif.get(tag) for name, tag in _EXIF_FIELDS}
    found |= {name: shot.get(tag) for name, tag in _EXIF_SHOT_FIELDS}
    comment = found["UserComment"]
    if isinstance(comment, bytes):
        found["UserComment"] = user_comment(comment, exif.endian or "<")
    return {name: _clean(value) for name, value in found.items() if value not in (None, "")}, gps


def _text_keys(image: Image.Image) -> set[str]:
    return set(getattr(image, "text", {})) | {"comment", "parameters", "Software", "prompt"}


def _clean(value: object, limit: int = TEXT_LIMIT) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * limit]).strip()
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"
