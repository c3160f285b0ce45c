"""A decoded frame as a player shows it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distildire.io.pictures import RGB

_HDR = {16: "PQ", 18: "HLG"}
"""Transfer characteristics (ITU-T H.273) whose values are no picture before tone mapping."""


class VideoError(ValueError):
    """A video that can't be scored; the message is one sentence for its owner."""


def refuse_hdr(carrier: Any) -> None:
    """Raise where a codec context or a frame says that its values are HDR."""
    transfer = _HDR.get(int(getattr(carrier, "color_trc", None) or 0))
    if transfer is not None:
        raise VideoError(
            f"an HDR video ({transfer}), whose values are no picture before tone mapping: "
            "convert it to SDR first"
        )


def upright_frame(frame: Any) -> RGB:
    """RGB [H, W, 3] as a player shows it: turned and mirrored by the display matrix."""
    rgb: RGB = frame.to_ndarray(format="rgb24")
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX" and len(bytes(side_data)) == 36:
            return _displayed(rgb, np.frombuffer(bytes(side_data), np.int32).reshape(3, 3))
    return rgb


def _displayed(rgb: RGB, matrix: NDArray[np.int32]) -> RGB:
    """Apply a display matrix, rounded to quarter turns and mirrorings.

    ISO/IEC 14496-12, 6.2.2: [x' y' 1] = [x y 1] M.
    """
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):  # x' follows y, and y' follows x
        rgb = rgb.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
