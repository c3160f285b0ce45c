"""What a file says of its own origin, read from its metadata; none of it enters the score.

C2PA manifests, the IPTC digital source type, what image generators write into text chunks, EXIF
and XMP, credits, and the camera's make. The bytes are walked here, without an image library, so
that damage costs the part it lies in and nothing else. Every loop and every copy has a limit:
the time doesn't grow with what a hostile file claims.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distildire.provenance.credentials import statement_of_manifest
from distildire.provenance.fields import fields_of
from distildire.provenance.limits import MAX_FINDINGS, MAX_PIECES, MAX_TEXTS
from distildire.provenance.pieces import has_few_parts, pieces_of
from distildire.provenance.statements import Declaration, Found, statement_of


@dataclass(frozen=True)
class Origin:
    """What a file says of its own origin."""

    declares: str | None
    """One sentence, that of `declares`."""
    findings: tuple[Declaration, ...]
    """All statements, in the order of `findings`."""


def read_origin(data: bytes, *, whole: bool = True) -> Origin:
    """What `declares` and `findings` give, from one walk through the file. Never raises.

    Where `data` is not the `whole` file but its beginning, manifests are not validated; nor are
    those of a file that consists of very many parts.
    """
    ranked = _ranked(data, whole)
    return Origin(_sentence(ranked), tuple(found.declaration for found in ranked))


def declares(data: bytes, *, whole: bool = True) -> str | None:
    """One sentence on what a picture or video file says of its own origin; None: nothing.

    At most two statements are named, in the order of `findings`. `whole` as in `read_origin`.
    Never raises.
    """
    return read_origin(data, whole=whole).declares


def findings(data: bytes) -> tuple[Declaration, ...]:
    """All statements of a file about its origin.

    A validated C2PA manifest stands first, then what declares generation, wholly or in part,
    a broken manifest, a capture, anything else, and the camera's make last. Never raises.
    """
    return read_origin(data).findings


def _sentence(ranked: Sequence[Found]) -> str | None:
    if not ranked:
        return None
    first = ranked[0]
    second = next((found for found in ranked if found.subject != first.subject), None)
    clauses = [found.declaration.says for found in (first, second) if found is not None]
    return (
        f"The file says that {', and that '.join(clauses)}; this is its own statement, which can "
        "be removed or forged and is no part of the score, and a file without one may be either."
    )


def _ranked(data: bytes, whole: bool) -> list[Found]:
    found: dict[tuple[str, str, str], Found] = {}
    for one in _all_found(data, whole):
        about = one.declaration
        found.setdefault((about.kind, about.source, about.value), one)
        if len(found) >= MAX_FINDINGS:
            break
    return sorted(found.values(), key=lambda one: (one.rank, one.subject != "C2PA"))


def _all_found(data: bytes, whole: bool) -> Iterator[Found]:
    texts = 0
    types: list[str] = []
    for number, piece in enumerate(pieces_of(data)):
        if number >= MAX_PIECES:
            return
        if piece.where == "C2PA":
            validated = data if whole and has_few_parts(data) else None
            yield statement_of_manifest(validated, piece.data)
            continue
        for field in fields_of(piece):
            one = statement_of(field, types)
            if one is not None:
                types += [one.declaration.kind] if field.key == "digitalsourcetype" else []
                yield one
            texts += len(field.text)
            if texts > MAX_TEXTS:
                return
