"""Embedded colour profiles: what a picture's numbers mean, brought to sRGB."""

from __future__ import annotations

import io

from PIL import Image, ImageCms


def to_srgb(image: Image.Image) -> Image.Image:
    """The picture in sRGB through its embedded profile; as it is where it has none.

    Display P3, Adobe RGB, grey and CMYK profiles are applied (perceptual intent), alpha is
    kept. A profile that is damaged or doesn't fit the picture's mode is passed over.
    """
    embedded = image.info.get("icc_profile")
    if not isinstance(embedded, bytes) or not embedded:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        if ImageCms.getProfileDescription(profile).lower().startswith("srgb"):
            return image
        if image.mode in {"P", "PA"}:
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        if image.mode == "LA":
            grey, alpha = image.split()
            colour = _converted(grey, profile)
        elif image.mode == "RGBA":
            colour, alpha = _converted(image.convert("RGB"), profile), image.getchannel("A")
        elif image.mode in {"RGB", "L", "CMYK"}:
            return _converted(image, profile)
        else:
            return image
        colour.putalpha(alpha)
        return colour
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    assert converted is not None
    return converted
