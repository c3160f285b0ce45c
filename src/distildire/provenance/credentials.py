"""Content credentials (C2PA): what a manifest comes to, validated where c2pa-python is there."""

from __future__ import annotations

import io
import json
from typing import Any, NamedTuple

from distildire.provenance.limits import MAX_VALUE, clean
from distildire.provenance.pieces import has_few_parts
from distildire.provenance.statements import (
    NEGATED,
    SOURCE_TYPES,
    Found,
    finding,
    generic,
    meaning,
    term_of,
)


def manifest_store(data: bytes) -> dict[str, Any] | str:
    """The C2PA manifests in a file as c2pa-python reports them, validated; or why there are none.

    The words: "unchecked" (the package is missing), "none", "unreadable". Manifests that lie
    elsewhere are not fetched.
    """
    try:
        from c2pa import C2paError, Context, Reader, Settings
    except ImportError:
        return "unchecked"
    offline = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    try:
        with Context(Settings.from_dict(offline)) as context:
            reader = Reader.try_create(io.BytesIO(data), context=context)
            if reader is None:
                return "none"
            with reader:
                store = json.loads(reader.json())
    except C2paError as error:
        return "none" if "NotSupported" in str(error) else "unreadable"
    # A library in another language on hostile bytes: whatever it raises, nothing was read.
    except Exception:
        return "unreadable"
    return store if isinstance(store, dict) else "unreadable"


def c2pa_summary(data: bytes) -> dict[str, Any]:
    """What a C2PA manifest in the file claims, checked by c2pa-python where it is installed.

    Returns `status`: the words of `manifest_store`, or the library's "Valid", "Trusted" or
    "Invalid"; with a manifest also `claim_generator` and `issuer`, and of it and those that it
    was made from `digital_source_types`, the `kind` and words (`says`) that they come to, as in
    `findings` apart from the signature, and `declares_generated`: that `kind` is "generated".
    """
    store = manifest_store(data) if has_few_parts(data) else "unreadable"
    if isinstance(store, str):
        return {"status": store}
    try:
        claim = _claim(store)
        generators = [
            " ".join(filter(None, (info.get("name"), info.get("version"))))
            for info in claim.active.get("claim_generator_info", [])
        ]
        return {
            "status": claim.state,
            "claim_generator": _text(claim.active.get("claim_generator") or ", ".join(generators)),
            "issuer": _text((claim.active.get("signature_info") or {}).get("issuer") or ""),
            "digital_source_types": sorted(set(filter(None, map(_source_type, claim.acts)))),
            "kind": claim.kind,
            "says": claim.says,
            "declares_generated": claim.kind == "generated",
        }
    except (AttributeError, KeyError, TypeError, ValueError):  # manifests of another shape
        return {"status": "unreadable"}


def _text(value: object) -> str:
    return clean(str(value), MAX_VALUE)


def statement_of_manifest(data: bytes | None, jumbf: bytes) -> Found:
    """What the manifests `jumbf` of a file come to; `data` is the whole file, or None."""
    store = "not whole" if data is None else manifest_store(data)
    if isinstance(store, dict):
        try:
            return _validated(store)
        except (KeyError, TypeError, AttributeError, ValueError):  # manifests of another shape
            pass
    why = {
        "unchecked": "the package c2pa-python is missing",
        "not whole": "the file is too long to check",
    }.get(store if isinstance(store, str) else "", "it is unreadable")
    named = [term for term in SOURCE_TYPES if b"digitalsourcetype/" + term.encode() in jumbf]
    kind, says = _unread(named, jumbf)
    names = f" that names {', '.join(named)}" if named else ""
    says = f"{says} (C2PA manifest{names}, not validated: {why})"
    value = ", ".join(named) or "no digital source type"
    return finding(kind, "C2PA manifest, not validated", value, says, "C2PA")


def _unread(named: list[str], jumbf: bytes) -> tuple[str, str]:
    """(kind, words) of source types, of which it isn't known what they belong to.

    One of a generator is the whole picture's where nothing was placed in it, nor edited alone.
    """
    meant = [SOURCE_TYPES[term] for term in named]
    kinds = {kind for kind, _ in meant}
    if not kinds & {"generated", "edited"}:
        return meant[0] if meant else ("other", "it was made or edited")
    whole = b"c2pa.placed" not in jumbf and (
        b"c2pa.created" in jumbf or b"c2pa.edited" not in jumbf
    )
    if len(meant) == 1 and (whole or "edited" in kinds):
        return meant[0]
    return "edited", "it, a part of it or a picture that it was made from was generated"


class _Claim(NamedTuple):
    """What a store of manifests says, whatever its signature is worth."""

    active: dict[str, Any]
    kind: str
    says: str
    acts: list[dict[str, Any]]
    """That it rests on, the deciding one first."""
    state: str
    failures: dict[str, str]


def _claim(store: dict[str, Any]) -> _Claim:
    """By the active manifest and those that it was made from."""
    manifests = store["manifests"]
    active = manifests[store["active_manifest"]]
    history = _history(manifests, active)
    acts = [act for manifest in history for act in _acts(manifest)]
    elsewhere = [
        act
        for manifest in list(manifests.values())[:32]
        if all(manifest is not own for own in history)
        for act in _acts(manifest)
    ]
    kind, says, decides = _verdict(acts, elsewhere)
    if tool := _agent(decides) or _generator(active):
        says += f' with "{clean(tool, 60)}"'
    failures = _failures(store)
    state = str(store.get("validation_state", "Invalid" if failures else "Valid"))
    return _Claim(active, kind, says, [decides, *acts], state, failures)


def _validated(store: dict[str, Any]) -> Found:
    """What a store of manifests comes to, and what its signature is worth."""
    active, kind, says, (decides, *acts), state, failures = _claim(store)
    named = "".join(f"; {source}" for source in [_source_type(decides)] if source)
    issuer = clean(str((active.get("signature_info") or {}).get("issuer") or "not named"), 80)
    steps = dict.fromkeys(f"{act.get('action')} {_source_type(act)}".strip() for act in acts)
    value = "; ".join([f"issuer {issuer}", state, *steps, *failures])

    broken = [code for code in failures
              if code.endswith("mismatch") and not code.startswith(_INGREDIENT)]  # fmt: skip
    if broken:
        rank = kind = "broken"
        source = "C2PA manifest, signature broken"
        check = f"the signature is broken, file or manifest were changed after signing: {broken[0]}"
    elif state in {"Valid", "Trusted"}:
        rank, source = "validated", "C2PA manifest, validated"
        check = "signature valid, issuer "
        check += "trusted" if state == "Trusted" else "not checked against any list"
    else:
        rank, source = kind, "C2PA manifest, not valid"
        check = "it does not validate: " + ", ".join(list(failures.values())[:2] or [state])
    says += f' (C2PA manifest of "{issuer}"; {check}{named})'
    return finding(kind, source, value, says, "C2PA", rank)


def _history(manifests: dict[str, Any], active: dict[str, Any]) -> list[dict[str, Any]]:
    """The active manifest and those of the pictures that it was made from, one after the other.

    A manifest that states no source type and has one ingredient only passes that one on.
    """
    chain = [active]
    for _ in range(16):
        ingredients = chain[-1].get("ingredients") or []
        only = len(ingredients) == 1 and not any(map(_source_type, _acts(chain[-1])))
        parents = (
            manifests.get(ingredient.get("active_manifest"))
            for ingredient in ingredients
            if only or ingredient.get("relationship") == "parentOf"
        )
        parent = next((manifest for manifest in parents if manifest), None)
        if parent is None:
            break
        chain.append(parent)
    return chain


def _acts(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Actions of a manifest, of old ones as well; Adobe's note of generative AI counts as one."""
    acts: list[dict[str, Any]] = []
    for assertion in manifest.get("assertions") or []:
        label, content = str(assertion.get("label", "")), assertion.get("data") or {}
        if label == _ADOBE_NOTE:
            acts.append({"action": label, "softwareAgent": content.get("description")})
        elif label.removeprefix("c2pa.").startswith("actions"):
            acts += content if isinstance(content, list) else content.get("actions") or []
    return acts[:64]


_ADOBE_NOTE = "com.adobe.generative-ai"


def _means(act: dict[str, Any]) -> tuple[str, str]:
    """What one action comes to; Bing's manifests have words instead of a source type."""
    if act.get("action") == _ADOBE_NOTE:
        return "edited", "generative AI was used in it"
    described = str(act.get("description") or "")[:200]
    if generic(described) and not NEGATED.search(described.lower()):
        return "generated", "it was generated"
    return meaning(_source_type(act))


def _source_type(act: dict[str, Any]) -> str:
    return term_of(str(act.get("digitalSourceType") or ""))


def _agent(act: dict[str, Any]) -> str:
    agent = act.get("softwareAgent") or ""
    return str(agent.get("name") or "") if isinstance(agent, dict) else str(agent)


def _generator(manifest: dict[str, Any]) -> str:
    names = (str(info.get("name") or "") for info in manifest.get("claim_generator_info") or [])
    return str(manifest.get("claim_generator") or "") or next(names, "")


def _verdict(
    acts: list[dict[str, Any]], elsewhere: list[dict[str, Any]]
) -> tuple[str, str, dict[str, Any]]:
    """What a history of actions comes to: its kind, in words, and the action that says so.

    A generator's source type makes a picture generated where it was created with it, and
    edited where it came to a picture that was there.
    """
    meant = [(*_means(act), act) for act in acts]
    for kind, says, act in meant:
        if kind == "generated" and act.get("action") == "c2pa.created":
            return kind, says, act
    for kind, says, act in meant:
        if kind in {"generated", "edited"}:
            return "edited", says if kind == "edited" else "parts of it were generated", act
    for act in elsewhere:
        if _means(act)[0] in {"generated", "edited"}:
            return "edited", "a picture that went into it was generated", act
    for kind, says, act in meant:
        if kind == "captured":
            return kind, says, act
    return "other", "it was made or edited", {}


def _failures(store: dict[str, Any]) -> dict[str, str]:
    """Codes with words of what failed in the active manifest; if nothing, in its ingredients."""
    results = store.get("validation_results")
    reported = _failed(store.get("validation_status"))
    if results is None:
        return reported
    active = _failed((results.get("activeManifest") or {}).get("failure"))
    return active or {
        f"{_INGREDIENT}{code}": f"{_INGREDIENT}{words}" for code, words in reported.items()
    }


_INGREDIENT = "ingredient: "


def _failed(statuses: list[dict[str, Any]] | None) -> dict[str, str]:
    # That the issuer is on no list of trusted ones is no failure: no such list is given.
    return {
        clean(str(one.get("code")), 80): clean(str(one.get("explanation") or one.get("code")), 80)
        for one in (statuses or [])[:32]
        if one.get("code") != "signingCredential.untrusted"
    }
