"""Published checkpoints on disk, converted: ADM to a noise source, a student to a bundle."""

from __future__ import annotations

from pathlib import Path

from distildire.distill.official import is_official
from distildire.distill.torch_bundle import convert_student
from distildire.noise.conversion import convert_adm
from distildire.noise.weights import WeightsError, read_checkpoint


def convert(file: str | Path, out: str | Path, *, noise: str = "adm") -> str:
    """Convert a published checkpoint on disk: ADM to a noise source, a student to a bundle.

    `noise` is the source that a student's bundle will ask for.

    Returns:
        "adm" or "student", whichever the file turned out to be.

    Raises:
        ValueError: damaged, a pickle that wants to run code, or neither of the two.
    """
    content = read_checkpoint(file)
    if is_official(content):
        convert_student(file, out, noise=noise)
        return "student"
    if any(str(key).startswith(("input_blocks.", "time_embed.")) for key in content):
        convert_adm(file, out)
        return "adm"
    raise WeightsError(
        f"{file}: neither a guided-diffusion (ADM) checkpoint nor a DistilDIRE student; it "
        f"holds {', '.join(map(str, list(content)[:4])) or 'nothing'}"
    )
