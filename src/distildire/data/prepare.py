"""The two steps before training, as plain functions: a manifest, and the noise of its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distildire.data.cache import (
    CacheOptions,
    CacheReport,
    cache_settings,
    default_preparation,
    fill_cache,
)
from distildire.data.layouts import read_layout, read_pairs
from distildire.data.lists import is_grip
from distildire.data.manifest import ManifestError, read_manifest, rows_of_split
from distildire.io.progress import DoneOf
from distildire.io.writing import whole_file, write_json

if TYPE_CHECKING:
    import pandas as pd


def prepare(
    dataset: str | Path | None,
    out: str | Path,
    *,
    real: str | Path | None = None,
    fake: str | Path | None = None,
) -> pd.DataFrame:
    """Write the manifest of a dataset in any known layout, or of a real and a fake folder.

    Paths are relative to the manifest for pictures below its folder, else absolute.

    Args:
        dataset: folder or list; None if `real` and `fake` are given.
        out: .parquet or .csv to write.
        real: folder of real pictures.
        fake: folder of fake ones.

    Returns:
        The table as written; `attrs["layout"]` names the layout.

    Raises:
        ManifestError: unknown layout, no pictures, or neither a dataset nor both folders.
    """
    out = Path(out)
    if out.suffix not in {".parquet", ".csv"}:
        raise ManifestError(f"{out}: the manifest's name must end in .parquet or .csv")
    if out.suffix == ".csv" and is_grip(out):
        raise ManifestError(f"{out}: a dataset's list has this name: give the manifest another")
    if real is not None and fake is not None and dataset is None:
        table = read_pairs(real, fake)
    elif dataset is not None and real is None and fake is None:
        table = read_layout(dataset)
    else:
        raise ManifestError("give a dataset folder, or both a folder of real and one of fake ones")
    root = out.absolute().parent
    table["path"] = [_relative(Path(path), root) for path in table["path"]]
    root.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as file:
        if out.suffix == ".parquet":
            table.to_parquet(file, index=False)
        else:
            table.to_csv(file, index=False)
    return table


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


@dataclass(frozen=True)
class NoiseOptions(CacheOptions):
    """What is computed of a manifest's pictures, and how."""

    device: str = "cpu"
    dtype: str = "fp32"
    split: str = ""
    """Only rows of this split; an empty string: all."""


def noise(
    manifest: str | Path,
    source: str | Path,
    out: str | Path,
    options: NoiseOptions | None = None,
    *,
    progress: DoneOf | None = None,
) -> CacheReport:
    """Fill a cache with eps0, or DIRE if asked, of a manifest's pictures; resumable.

    `out`/noise.json sums up the run. See `fill_cache` and `load_noise_source`.

    Raises:
        ValueError: unusable manifest or source, DIRE asked of nano, or a full disk.
    """
    from distildire.noise import load_noise_source

    options = options or NoiseOptions()
    table = rows_of_split(read_manifest(manifest), options.split)
    network = load_noise_source(source, device=options.device, dtype=options.dtype)
    if options.dire and network.first_step_only:
        raise ValueError(
            f"the noise source {network.name!r} knows the first diffusion step alone and has no "
            "DIRE; give --source adm or a folder"
        )
    report = fill_cache(table["path"], network, out, options, progress=progress)
    about = {
        "settings": cache_settings(network, default_preparation(network)),
        "dire_steps": options.steps if options.dire else None,
        "pictures": report.done,
        "computed": report.computed,
        "present": report.present,
        "failed": [{"path": path, "error": error} for path, error in report.failed],
    }
    write_json(Path(out) / "noise.json", about, indent=2)
    return report
