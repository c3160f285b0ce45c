"""Students: small networks that tell real from fake by an image and its first-step noise.

Extra `train`.

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

    `path` is a checkpoint of ours (`best.pt` of a training run), the authors' `.pth`, or the
    folder of a torch bundle.

    Raises:
        ValueError: nothing there, damaged, or of another form.
    """
    # torch takes a second to import: `import distildire.distill` stays cheap.
    from distildire.distill.official import read_official
    from distildire.noise.weights import WeightsError, read_checkpoint

    path = Path(path)
    if path.is_dir():
        from distildire.bundle import load_bundle
        from distildire.distill.torch_bundle import read_student

        bundle = load_bundle(path)
        if bundle.torch is None:
            raise WeightsError(
                f"{path}: an ONNX bundle; its student can't be taken out of the graph"
            )
        return read_student(bundle)
    content = read_checkpoint(path)
    if {"student", "config"} <= set(content):
        from distildire.distill.checkpoint import load_checkpoint

        return load_checkpoint(path)[0]
    return read_official(path)
