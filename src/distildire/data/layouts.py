"""The field's dataset layouts, read as they are published, into one table of pictures.

Each layout is a pure function from the folders above a picture to what they say of it. A
layout reads a dataset if it understands every picture in it (a few strays apart) or means to
leave it out; the first in `LAYOUTS` that does is taken.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from distildire.data.lists import LISTS, LayoutError, read_list, read_lists
from distildire.data.manifest import FAKE, REAL, refuse_odd_names
from distildire.io.finding import is_litter_folder
from distildire.io.pictures import DEVELOPED_SUFFIXES

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Parts: TypeAlias = tuple[str, ...]
"""Folder names from the dataset's root down to a picture, as on disk, doubled ones once."""


@dataclass(frozen=True)
class Facts:
    """What a layout's folders say of one picture."""

    label: str
    split: str = ""
    generator: str = ""
    source: str = ""


class Derived:
    """A picture that the layout leaves out: a map computed from another picture."""


Reading: TypeAlias = Facts | Derived | None
"""None: the folders don't follow the layout."""


@dataclass(frozen=True)
class Layout:
    """A convention of folders."""

    name: str
    pattern: str
    """For people, in the error that lists what is known."""
    read: Callable[[Parts, str], Reading]
    """(folders below the root, the root's own name) -> what they say."""
    looks_up: bool = False
    """Folders above the root may complete the picture: unmistakable layouts alone."""


_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_WORDS = {
    **dict.fromkeys(("real", "reals", "0_real"), REAL),
    **dict.fromkeys(("fake", "fakes", "1_fake"), FAKE),
}
_DIFFUSION_FORENSICS = ("lsun_bedroom", "imagenet", "celebahq")
_UNIVERSAL_REAL = ("imagenet", "laion")
_UNIVERSAL_FAKE = (
    "guided", "ldm_200", "ldm_200_cfg", "ldm_100",
    "glide_100_27", "glide_50_27", "glide_100_10", "dalle",
)  # fmt: skip


def _find(parts: Parts, known: object) -> int | None:
    """Index of the last folder whose lower-case name is in `known`."""
    hits = [i for i, part in enumerate(parts) if part.lower() in known]  # type: ignore[operator]
    return hits[-1] if hits else None


def _split(parts: Parts, root: str = "") -> str:
    """The outermost folder that names a split, else the root if it does, else none."""
    return next((_SPLITS[p.lower()] for p in (*parts, root) if p.lower() in _SPLITS), "")


def _without(parts: Parts, known: object) -> Parts:
    return tuple(part for part in parts if part.lower() not in known)  # type: ignore[operator]


def _diffusion_forensics(parts: Parts, root: str) -> Reading:
    """{images,recons,dire}/{train,val,test}/{imagenet,...}/{real,adm,...}[/synset]."""
    lower = [part.lower() for part in parts]
    at = next((i for i, part in enumerate(lower) if part in _DIFFUSION_FORENSICS), None)
    if at is None or at + 1 >= len(parts) or not _split(parts[:at]):
        return None
    if any(part in {"recons", "dire"} for part in lower[:at]):
        return Derived()
    kind = parts[at + 1]
    if kind.lower() in _WORDS and _WORDS[kind.lower()] == REAL:
        return Facts(REAL, _split(parts[:at]), "", lower[at])
    return Facts(FAKE, _split(parts[:at]), kind, lower[at])


def _distildire(parts: Parts, root: str) -> Reading:
    """[{name}/][{train,val,test}/]{images,dire,eps}/{fakes,reals}."""
    at = _find(parts, ("images", "dire", "eps"))
    if at is None or at + 1 >= len(parts) or parts[at + 1].lower() not in _WORDS:
        return None
    if parts[at].lower() != "images":
        return Derived()
    name = "/".join(_without(parts[:at], _SPLITS))
    return Facts(_WORDS[parts[at + 1].lower()], _split(parts[:at], root), "", name)


def _genimage(parts: Parts, root: str) -> Reading:
    """{generator}/[imagenet_ai_.../]{train,val}/{ai,nature}."""
    at = _find(parts, ("ai", "nature"))
    if at is None:
        return None
    above = _without(parts[:at], _SPLITS) or _without((root,), _SPLITS)
    named = [part for part in above if not part.lower().startswith("imagenet_ai")]
    generator = (named or list(above) or [""])[-1]
    if parts[at].lower() == "nature":
        # Each generator brings its own half of ImageNet: kept apart by source, so that a
        # generator is measured against the photographs that belong to it.
        source = f"imagenet/{generator}".rstrip("/")
        return Facts(REAL, _split(parts[:at], root), "", source)
    return Facts(FAKE, _split(parts[:at], root), generator, generator)


def _forensynths(parts: Parts, root: str) -> Reading:
    """[{train,val,test}/]{generator}[/{class}]/{0_real,1_fake}."""
    at = _find(parts, ("0_real", "1_fake"))
    if at is None:
        return None
    label = _WORDS[parts[at].lower()]
    # One of ProGAN's classes is "train" (the railway's): only the first folder is a split.
    split = _split(parts[:1], root)
    above = parts[1:at] if _split(parts[:1]) else parts[:at]
    above = above or _without((root,), _SPLITS)
    generator = above[0] if above else ""
    return Facts(label, split, generator if label == FAKE else "", "/".join(above))


def _universal(parts: Parts, root: str) -> Reading:
    """UniversalFakeDetect's diffusion_datasets without the 0_real and 1_fake below."""
    kinds = [part for part in parts if part.lower() in (*_UNIVERSAL_REAL, *_UNIVERSAL_FAKE)]
    if len(kinds) != 1:
        return None
    kind = kinds[0].lower()
    if kind in _UNIVERSAL_REAL:
        return Facts(REAL, _split(parts, root), "", kind)
    return Facts(FAKE, _split(parts, root), kind, kind)


def _pairs(parts: Parts, root: str) -> Reading:
    """[{train,val,test}/][{generator or dataset}/]{real,fake}."""
    at = _find(parts, _WORDS)
    if at is None:
        return None
    label = _WORDS[parts[at].lower()]
    around = _without((*parts[:at], *parts[at + 1 :]), _SPLITS)
    above = _without(parts[:at], _SPLITS)
    # Folders below the label name a generator for fakes (fake/stylegan), a source for reals.
    generator = (above or around)[0] if around and label == FAKE else ""
    return Facts(label, _split(parts, root), generator, "/".join(around))


LAYOUTS = (
    Layout(
        "DiffusionForensics",
        "{images,recons,dire}/{train,val,test}/{lsun_bedroom,imagenet,celebahq}/{real,adm,...}",
        _diffusion_forensics,
        looks_up=True,
    ),
    Layout("GenImage", "{generator}/[imagenet_ai_.../]{train,val}/{ai,nature}", _genimage),
    Layout("DistilDIRE", "[{train,val,test}/]{images,dire,eps}/{fakes,reals}", _distildire),
    Layout(
        "ForenSynths or CNNDetection",
        "[{train,val,test}/]{generator}[/{class}]/{0_real,1_fake}",
        _forensynths,
    ),
    Layout(
        "UniversalFakeDetect",
        "{imagenet,laion} beside {guided,ldm_200,glide_100_27,dalle,...}",
        _universal,
    ),
    Layout(
        "Community Forensics or plain pairs",
        "[{train,val,test}/][{generator}/]{real,fake}",
        _pairs,
    ),
)


PARENTS = 3
"""Folders above the one given that are read too: for a part of a dataset (imagenet/adm)."""


def read_layout(dataset: str | Path) -> pd.DataFrame:
    """Read a dataset in any known layout.

    Args:
        dataset: a folder, or a list that a dataset comes with (ForensicHub .json, GRIP .csv).

    Returns:
        One row per picture, in order of path: `path` (absolute), `label`, `split`, `generator`,
        `source` (empty where the layout doesn't say). `attrs["layout"]` is the layout's name,
        `attrs["left_out"]` the number of derived pictures (DIRE maps, reconstructions).

    Raises:
        LayoutError: no pictures, or none of the layouts; it lists those known and what was
            seen.
    """
    path = Path(dataset)
    if path.is_file():
        return read_list(path)
    if not path.is_dir():
        raise LayoutError(f"{path}: no such dataset folder or list")
    pictures = [(file, file.parent.relative_to(path).parts) for file in find_pictures(path)]
    if (table := read_lists(path)) is not None:
        return table
    if not pictures:
        raise LayoutError(f"{path}: no pictures in it ({_seen(path, [])}). {_known()}")
    for layout in LAYOUTS:
        for prefix in _prefixes(path) if layout.looks_up else [()]:
            readings = _read_all(layout, prefix, pictures, path.resolve().name)
            if readings is not None:
                return _table(layout.name, [file for file, _ in pictures], readings)
    raise LayoutError(f"{path}: in none of the known layouts. {_known()} {_seen(path, pictures)}")


def _prefixes(path: Path) -> list[Parts]:
    """No folder above the root, then one, two, three: a part of a dataset may be given."""
    above = path.resolve().parts[1:]
    return [above[len(above) - depth :] for depth in range(min(PARENTS, len(above)) + 1)]


def _read_all(
    layout: Layout, prefix: Parts, pictures: list[tuple[Path, Parts]], root: str
) -> list[Reading] | None:
    """The layout's reading of every picture; None if it doesn't understand the dataset."""
    # A figure beside the README, or one stray in a hundred, makes no other layout.
    strays, allowed = 0, len(pictures) // 100
    readings = []
    for _, parts in pictures:
        reading = layout.read(_once((*prefix, *parts)), root)
        if reading is None and parts:
            strays += 1
            if strays > allowed:
                return None
        readings.append(reading)
    return readings if any(isinstance(reading, Facts) for reading in readings) else None


def read_pairs(real: str | Path, fake: str | Path) -> pd.DataFrame:
    """Read one folder of real and one of fake pictures, whatever is below them.

    The folders below name the generator (fakes) and the source (both); see `read_layout` for
    the columns.

    Raises:
        LayoutError: a folder that isn't there or has no pictures; one inside the other.
    """
    files: list[Path] = []
    readings: list[Reading] = []
    roots = {REAL: Path(real), FAKE: Path(fake)}
    first, second = (root.resolve() for root in roots.values())
    if first == second or first in second.parents or second in first.parents:
        raise LayoutError(f"{real} and {fake}: one folder holds the other; give two apart")
    for label, root in roots.items():
        if not root.is_dir():
            raise LayoutError(f"{root}: no such folder of {label} pictures")
        found = find_pictures(root)
        if not found:
            raise LayoutError(f"{root}: no pictures in the folder of {label} ones")
        for file in found:
            below = _without(file.parent.relative_to(root).parts, _SPLITS)
            generator = below[0] if below and label == FAKE else ""
            split = _split(file.parent.relative_to(root).parts)
            files.append(file)
            readings.append(Facts(label, split, generator, "/".join((root.name, *below))))
    return _table("real and fake folders", files, readings)


def find_pictures(root: Path) -> list[Path]:
    """Pictures below `root` by the ends of their names, links included, in order; no raw files."""
    found = []
    for folder, folders, names in os.walk(root, followlinks=True):
        # Hidden folders hold thumbnails and the like; a link upwards would never end.
        folders[:] = sorted(d for d in folders if not _hidden(d) and not _loops(folder, d))
        found += [
            Path(folder, name)
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in DEVELOPED_SUFFIXES
        ]
    return sorted(found)


def _hidden(folder: str) -> bool:
    return folder.startswith(".") or is_litter_folder(folder)


def _loops(folder: str, name: str) -> bool:
    path = Path(folder, name)
    return path.is_symlink() and path.resolve() in Path(folder).resolve().parents


def _once(parts: Parts) -> Parts:
    """Doubled folders (adm/adm, as archives unpack) once."""
    return tuple(p for i, p in enumerate(parts) if i == 0 or p.lower() != parts[i - 1].lower())


def _table(name: str, files: list[Path], readings: list[Reading]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        (str(file.absolute()), r.label, r.split, r.generator, r.source)
        for file, r in zip(files, readings, strict=True)
        if isinstance(r, Facts)
    ]
    refuse_odd_names((path for path, *_ in rows), name)
    table = pd.DataFrame(rows, columns=["path", "label", "split", "generator", "source"])
    table.attrs = {"layout": name, "left_out": len(files) - len(rows)}
    if strays := readings.count(None):
        log.warning("layout %s: %d pictures outside of it left out", name, strays)
    for label in (REAL, FAKE):
        if not (table["label"] == label).any():
            log.warning("layout %s: no %s pictures found", name, label)
    return table


def _known() -> str:
    layouts = [f"{layout.name} ({layout.pattern})" for layout in LAYOUTS]
    return f"Known: {'; '.join([*layouts, *LISTS])}; or name the folders: --real DIR --fake DIR."


def _seen(root: Path, pictures: list[tuple[Path, Parts]]) -> str:
    """What is there: the folders that hold pictures, or else what the root holds."""
    if not pictures:
        names = sorted(entry.name for entry in _entries(root))
        return f"seen: {', '.join(names[:8]) or 'nothing'}{', ...' if len(names) > 8 else ''}"
    counts = Counter("/".join(parts) or "." for _, parts in pictures)
    shown = [f"{folder} ({count})" for folder, count in counts.most_common(6)]
    more = f" and {len(counts) - 6} more folders" if len(counts) > 6 else ""
    return f"Seen: {len(pictures)} pictures in {', '.join(shown)}{more}."


def _entries(root: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(root) as entries:
        yield from entries
