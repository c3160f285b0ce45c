"""Students: small networks that tell real from fake by an image and its first-step noise.

>>> from distildire.distill import load_student
>>> logits = load_student("imagenet-distil-dire-11e.pth")(x0, eps0)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load_student"]


def load_student(path: str | Path) -> nn.Module:
    """Load a student as a module (x0, eps0 [B, 3, H, W]) -> logits [B], in eval mode.

    `path` is a checkpoint of ours (`best.pt` of a training run), the authors' `.pth`, or a
    folder made from that by `convert_student`.

    Raises:
        ValueError: nothing there, damaged, or of another form.
    """
    # torch takes a second to import: `import distildire.distill` stays cheap.
    from distildire.distill.official import ABOUT_FILE, read_converted, read_official
    from distildire.weights import WeightsError, read_checkpoint

    path = Path(path)
    if path.is_dir():
        if (path / ABOUT_FILE).is_file():
            return read_converted(path)
        raise WeightsError(f"{path}: no student in this folder ({ABOUT_FILE} is missing)")
    content = read_checkpoint(path)
    if {"student", "config"} <= set(content):
        from distildire.distill.export import load_checkpoint

        return load_checkpoint(path)[0]
    return read_official(path)
