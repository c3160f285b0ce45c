"""Could the class be told without looking at the pixels?

A detector trained on photographs in JPEG and generated pictures in PNG learns the format,
and its benchmark figures mean nothing. The audit reads what each file says about itself and
asks a classifier to tell the classes by that alone.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distildire.data.audit_words import difference, sentence, shares
from distildire.data.duplicates import Duplicate, find_duplicates
from distildire.data.file_facts import AuditFacts, read_facts
from distildire.data.giveaways import KINDS, kind_auc, overall_auc
from distildire.data.manifest import FAKE, group_names
from distildire.io.pictures import ImageError, read_bytes
from distildire.io.progress import DoneOf

if TYPE_CHECKING:
    import pandas as pd

LEAK_LIMIT = 0.60
"""AUC of the metadata-only classifier over which a data set is refused."""

EXAMPLES = 20
"""Duplicate pairs and unreadable files that are named in `audit.json`."""


class LeakError(ValueError):
    """The class shows in the files themselves; the message says how, and what to do."""


@dataclass(frozen=True)
class Leak:
    """One way in which the files give the class away."""

    kind: str
    """format, size, quality, metadata or duplicate."""
    detail: str


@dataclass(frozen=True)
class Audit:
    """What `audit` found; `to_dict` is the content of audit.json."""

    n_real: int
    n_fake: int
    leak_auc: float | None
    """AUC (0..1) of the metadata-only classifier, mean over folds; None without both classes."""
    leaks: list[Leak]
    verdict: str
    kind_auc: dict[str, float]
    """The same classifier on one kind of facts each; kinds that can't be tested are absent."""
    folds: str
    """How the folds were cut, in words."""
    by_source: list[dict[str, Any]]
    by_class: list[dict[str, Any]]
    duplicates: dict[str, Any]
    unreadable: dict[str, Any]
    limit: float = LEAK_LIMIT
    chance: float = 0.5
    """AUC that scores knowing nothing stay under in 99 of 100 sets of this size."""
    facts: Any = field(default=None, repr=False, compare=False)
    """The table behind it, one row per readable file (pandas); not written to audit.json."""

    @property
    def leaky(self) -> bool:
        """Whether the leak AUC is over the limit, and over what chance makes of few pictures."""
        return self.leak_auc is not None and self.leak_auc > max(self.limit, self.chance)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        skip = {"facts", "leaks"}
        tree = {k: v for k, v in vars(self).items() if k not in skip}
        tree["leaks"] = [vars(leak) for leak in self.leaks]
        return tree


def audit(
    table: pd.DataFrame,
    *,
    limit: float = LEAK_LIMIT,
    seed: int = 0,
    progress: DoneOf | None = None,
) -> Audit:
    """Audit a manifest as `read_manifest` gives it.

    Only file facts go into the classifier (format, size, aspect, JPEG quality and chroma
    subsampling, EXIF, ICC, XMP, C2PA, text; bytes per pixel only where the format tells no
    quality, because at one quality they are a property of what the picture shows). Traces
    of resampling are reported by source but not counted: a generator's own upsampling
    leaves them too.

    A leak is named where the AUC of its kind is over `limit` and higher than chance would
    make it with this many pictures (99%, one-sided). Files are read as a stream.

    Raises:
        ValueError: not one file can be read.
    """
    facts = _read_all(table["path"].to_list(), progress)
    about = _table_of(table, facts)
    fake = (about["label"] == FAKE).to_numpy()
    n_real, n_fake = int((~fake).sum()), int(fake.sum())
    chance = 0.5 + 2.33 * auc_error_by_chance(n_real, n_fake)
    total, folds = overall_auc(about, seed)
    kinds = {kind: kind_auc(about, kind, seed) for kind in KINDS}
    tested = {kind: round(value, 4) for kind, value in kinds.items() if value is not None}
    leaks = [
        Leak(kind, difference(about, kind) + f" (AUC {value:.2f} by this alone)")
        for kind, value in tested.items()
        if value > max(limit, chance)
    ]
    duplicates = _duplicates(table, find_duplicates(facts))
    leaks += [Leak("duplicate", line) for line in duplicates["leaks"]]
    named = list(dict.fromkeys(leak.kind for leak in leaks))
    return Audit(
        n_real=n_real,
        n_fake=n_fake,
        leak_auc=None if total is None else round(total, 4),
        leaks=leaks,
        verdict=sentence(total, limit, chance, named, (n_real, n_fake)),
        kind_auc=tested,
        folds=folds,
        by_source=_summaries(about, ["source", "label"]),
        by_class=_summaries(about, ["label"]),
        duplicates=duplicates,
        unreadable=_unreadable(table, facts),
        limit=limit,
        chance=round(min(1.0, chance), 4),
        facts=about,
    )


def refuse_leak(result: Audit, *, accept: bool = False, equalized: bool = False) -> None:
    """Stop work on leaking data.

    Raises:
        LeakError: the audit is `leaky`, and that was neither accepted nor are the pictures
            equalised.
    """
    if result.leaky and not accept and not equalized:
        raise LeakError(
            f"{result.verdict} Bring both classes through one procedure (`evaluate` does with "
            "--equalize, for a model), or use --accept-leak to go on all the same."
        )


def auc_error_by_chance(n_real: int, n_fake: int) -> float:
    """Standard deviation of the AUC of scores that know nothing (Mann and Whitney 1947)."""
    if not n_real or not n_fake:
        return float("inf")
    return float(np.sqrt((n_real + n_fake + 1) / (12 * n_real * n_fake)))


def _read_all(paths: Sequence[str], progress: DoneOf | None) -> list[AuditFacts]:
    """Facts in the order of `paths`, read by a few threads."""
    facts: list[AuditFacts] = []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for fact in pool.map(_facts_of, paths):
            facts.append(fact)
            if progress is not None:
                progress(len(facts), len(paths))
    return facts


def _facts_of(path: str) -> AuditFacts:
    try:
        return read_facts(read_bytes(Path(path)))
    except ImageError as error:
        return AuditFacts(error=str(error))


def _table_of(table: pd.DataFrame, facts: Sequence[AuditFacts]) -> pd.DataFrame:
    """One row per readable file: its facts, beside what the manifest says of it."""
    import pandas as pd

    readable = np.array([fact.error is None for fact in facts])
    if not readable.any():
        raise ValueError(
            f"none of the {len(table)} files can be read: {table['path'].iloc[0]}: {facts[0].error}"
        )
    about = pd.DataFrame([_row(fact) for fact in facts])
    for column in ("path", "label", "split", "source", "generator"):
        about[column] = table[column].to_numpy()
    about["group"] = group_names(table)
    return about[readable].reset_index(drop=True)


def _row(fact: AuditFacts) -> dict[str, Any]:
    row = {k: v for k, v in vars(fact).items() if k not in {"dhash", "thumbnail", "error"}}
    pixels = max(1, fact.width * fact.height)
    row["aspect"] = fact.width / max(1, fact.height)
    row["bytes_a_pixel"] = fact.size / pixels
    return row


def _unreadable(table: pd.DataFrame, facts: Sequence[AuditFacts]) -> dict[str, Any]:
    bad = [(p, f.error) for p, f in zip(table["path"], facts, strict=True) if f.error]
    return {"count": len(bad), "examples": [{"path": p, "error": e} for p, e in bad[:EXAMPLES]]}


def _duplicates(table: pd.DataFrame, pairs: Sequence[Duplicate]) -> dict[str, Any]:
    """Counts, examples and, for pairs across splits or labels, the sentences of the leak."""
    paths, splits, labels = (table[name].to_list() for name in ("path", "split", "label"))
    counts: Counter[str] = Counter()
    leaking: dict[str, list[str]] = {}
    examples: list[dict[str, str]] = []
    for pair in pairs:
        kind = "exact" if pair.exact else "near"
        a, b = pair.first, pair.second
        counts[f"{kind}_{'within' if splits[a] == splits[b] else 'across'}_splits"] += 1
        crossing = []
        if splits[a] != splits[b]:
            crossing.append(f"in the splits {' and '.join(sorted((splits[a], splits[b])))}")
        if labels[a] != labels[b]:
            crossing.append("under both labels")
        for words in crossing:
            leaking.setdefault(words, []).append(f"{Path(paths[a]).name} and {Path(paths[b]).name}")
        if len(examples) < EXAMPLES:
            examples.append({"kind": kind, "first": paths[a], "second": paths[b]})
    leaks = [
        f"{len(names)} pair{'s' * (len(names) > 1)} of (nearly) the same picture {words}, for "
        f"instance {names[0]}"
        for words, names in leaking.items()
    ]
    names = ("exact_within_splits", "exact_across_splits", "near_within_splits",
             "near_across_splits")  # fmt: skip
    return {**{name: counts[name] for name in names}, "examples": examples, "leaks": leaks}


def _summaries(about: pd.DataFrame, by: list[str]) -> list[dict[str, Any]]:
    """Shares and medians of the facts for each group."""
    rows = []
    for key, part in about.groupby(by, sort=True):
        row: dict[str, Any] = dict(zip(by, key, strict=True))
        row["count"] = len(part)
        row["formats"] = shares(part["format"])
        row["subsampling"] = shares(part["subsampling"][part["subsampling"] != ""])
        for name in ("width", "height", "aspect", "size", "bytes_a_pixel", "quality",
                     "resampling", "jpeg_grid", "detail"):  # fmt: skip
            middle = part[name].median()
            row[f"median_{name}"] = None if np.isnan(middle) else round(float(middle), 4)
        for name in ("exif", "camera", "icc", "xmp", "c2pa", "text"):
            row[f"share_{name}"] = round(float(part[name].mean()), 4)
        rows.append(row)
    return rows
