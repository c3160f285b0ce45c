"""What C2PA manifests say, validated or not, and the summary of one."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from distildire.provenance import Declaration, findings
from distildire.provenance.credentials import c2pa_summary
from provenance.made_files import TERMS, box, chunk, first, jpeg, jumbf, mp4, picture, png, segment


def empty(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, kind)
    return buffer.getvalue()


def test_files_without_credentials() -> None:
    pytest.importorskip("c2pa")
    for kind in ("JPEG", "PNG", "BMP"):
        assert c2pa_summary(empty(kind)) == {"status": "none"}


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert c2pa_summary(b"") == {"status": "unchecked"}


@pytest.mark.parametrize(
    "store", [{"manifests": []}, {"manifests": {"m": 3}, "active_manifest": "m"}, {}]
)
def test_manifests_of_another_shape(
    store: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distildire.provenance.credentials.manifest_store", lambda data: store)
    assert c2pa_summary(b"")["status"] == "unreadable"


def test_signed_claim_is_summarised(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    action = {"action": "c2pa.created", "digitalSourceType": source}
    store = {
        "active_manifest": "m",
        "validation_state": "Valid",
        "manifests": {
            "m": {
                "claim_generator_info": [{"name": "Maker", "version": "2"}],
                "signature_info": {"issuer": "Some CA"},
                "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
            }
        },
    }
    monkeypatch.setattr("distildire.provenance.credentials.manifest_store", lambda data: store)
    assert c2pa_summary(b"") == {
        "status": "Valid",
        "claim_generator": "Maker 2",
        "issuer": "Some CA",
        "digital_source_types": ["trainedAlgorithmicMedia"],
        "kind": "generated",
        "says": 'it was generated with "Maker"',
        "declares_generated": True,
    }


CONTAINERS: list[Callable[[bytes], bytes]] = [
    lambda manifest: jpeg(segment(0xEB, b"JP\0\1\0\0\0\1" + manifest)),
    lambda manifest: jpeg(
        segment(0xEB, b"JP\0\1\0\0\0\1" + manifest[:70]),
        segment(0xEB, b"JP\0\1\0\0\0\2" + manifest[:8] + manifest[70:]),
    ),
    lambda manifest: png(chunk(b"caBX", manifest)),
    lambda manifest: picture("WEBP") + b"C2PA" + struct.pack("<I", len(manifest)) + manifest,
    lambda manifest: mp4(box(b"uuid", bytes(16), manifest)),
    lambda manifest: picture("TIFF", tiffinfo={0xCD41: manifest}),
    lambda manifest: picture("GIF")[:-1] + b"!\xff\x0bC2PA_GIF\1\0\0" + manifest + b"\0;",
]


@pytest.mark.parametrize("container", CONTAINERS)
def test_manifests_without_the_package(
    container: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    (found,) = findings(container(jumbf("trainedAlgorithmicMedia")))
    assert (found.kind, found.source) == ("generated", "C2PA manifest, not validated")
    assert "names trainedAlgorithmicMedia, not validated" in found.says
    composite = container(jumbf("compositeWithTrainedAlgorithmicMedia"))
    assert first(composite).kind == "edited"
    assert "C2PA manifest, not validated" in first(container(jumbf())).says


@pytest.mark.parametrize(
    "terms",
    [
        ("digitalCapture", "trainedAlgorithmicMedia"),
        ("digitalCapture", "compositeWithTrainedAlgorithmicMedia"),
        ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"),
    ],
)
def test_several_source_types_without_the_package(
    terms: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    (found,) = findings(png(chunk(b"caBX", jumbf(*terms))))
    assert found.kind == "edited"
    assert found.says.startswith(
        "it, a part of it or a picture that it was made from was generated (C2PA manifest that "
    )
    assert all(term in found.says for term in terms)


def test_one_source_type_and_its_action_without_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    for actions, kind in ((b"c2pa.created", "generated"), (b"c2pa.edited", "edited"),
                          (b"c2pa.created c2pa.edited", "generated"),
                          (b"c2pa.created c2pa.placed", "edited")):  # fmt: skip
        store = jumbf("trainedAlgorithmicMedia") + box(b"cbor", actions)
        size = struct.pack(">I", len(store))
        assert first(png(chunk(b"caBX", size + store[4:]))).kind == kind
    captured = first(png(chunk(b"caBX", jumbf("digitalCapture", "negativeFilm"))))
    assert captured.kind == "captured"


def act(action: str = "created", term: str = "", agent: object = None) -> dict[str, object]:
    made: dict[str, object] = {"action": f"c2pa.{action}", "softwareAgent": agent}
    return made | ({"digitalSourceType": TERMS + term} if term else {})


def manifest(*acts: dict[str, object], **more: object) -> dict[str, object]:
    return {
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": list(acts)}}],
        "signature_info": {"issuer": "Some CA"},
        "claim_generator_info": [{"name": "Tool"}],
    } | more


def store(
    state: str, active: dict[str, object], *failed: str, **others: object
) -> dict[str, object]:
    failures = [{"code": code, "explanation": f"{code} in words"} for code in failed]
    return {
        "active_manifest": "a",
        "manifests": {"a": active} | others,
        "validation_state": state,
        "validation_results": {"activeManifest": {"failure": failures}},
    }


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], tuple[Declaration, ...]]:
    """Findings where c2pa-python would report this store."""

    def find(answer: object) -> tuple[Declaration, ...]:
        class Context(io.BytesIO):
            json = staticmethod(lambda: json.dumps(answer))

        class Reader:
            try_create = staticmethod(lambda stream, context: None if answer is None else Context())

        stub = types.ModuleType("c2pa")
        settings = types.SimpleNamespace(from_dict=lambda tree: tree)
        vars(stub).update(C2paError=RuntimeError, Context=Context, Reader=Reader, Settings=settings)
        stub.Context = lambda tree: Context()
        monkeypatch.setitem(sys.modules, "c2pa", stub)
        return findings(png(chunk(b"tEXt", b"Software\0NovelAI"), chunk(b"caBX", jumbf())))

    return find


Report = Callable[[object], tuple[Declaration, ...]]


def test_validated_manifests_stand_first(reported: Report) -> None:
    created = manifest(act("created", "trainedAlgorithmicMedia", {"name": "Model 4"}))
    found, second = reported(store("Valid", created, "signingCredential.untrusted"))
    assert found.source == "C2PA manifest, validated"
    assert found.kind == "generated"
    assert found.says == (
        'it was generated with "Model 4" (C2PA manifest of "Some CA"; signature valid, issuer '
        "not checked against any list; trainedAlgorithmicMedia)"
    )
    assert "NovelAI" in second.says
    captured = manifest(act("created", "digitalCapture", "Camera X"))
    found, second = reported(store("Trusted", captured))
    assert found.kind == "captured"
    assert "issuer trusted" in found.says
    assert second.kind == "generated"


def test_edits_and_ingredients(reported: Report) -> None:
    edited = manifest(
        act("created", "digitalCapture"),
        act("edited", "compositeWithTrainedAlgorithmicMedia", "Fill"),
    )
    found = reported(store("Valid", edited))[0]
    assert (found.kind, "parts of it were generated" in found.says) == ("edited", True)
    placed = manifest(act("placed", "trainedAlgorithmicMedia"))
    assert reported(store("Valid", placed))[0].kind == "edited"
    created = manifest(act("created", "trainedAlgorithmicMedia", "Model 4"))
    parent = {"relationship": "parentOf", "active_manifest": "b"}
    resaved = manifest(act("opened"), ingredients=[parent])
    assert reported(store("Valid", resaved, b=created))[0].kind == "generated"
    part = {"relationship": "componentOf", "active_manifest": "b"}
    collage = manifest(act("created", "digitalCapture"), ingredients=[part])
    found = reported(store("Valid", collage, b=created))[0]
    assert found.kind == "edited"
    assert "a picture that went into it was generated" in found.says


def test_the_summary_says_what_the_findings_say(reported: Report) -> None:
    created = manifest(act("created", "trainedAlgorithmicMedia", "Model 4"))
    parent = {"relationship": "parentOf", "active_manifest": "b"}
    for answer, kind, says in (
        (store("Valid", manifest(act("created", "digitalCapture"),
                                 act("edited", "trainedAlgorithmicMedia", "Fill"))),
         "edited", 'parts of it were generated with "Fill"'),
        (store("Valid", manifest(act("opened"), ingredients=[parent]), b=created),
         "generated", 'it was generated with "Model 4"'),
        (store("Trusted", manifest(act("created", "digitalCapture", "Camera X"))),
         "captured", 'it was captured by a camera with "Camera X"'),
    ):  # fmt: skip
        found, summary = reported(answer)[0], c2pa_summary(b"")
        assert (found.kind, summary["kind"], summary["says"]) == (kind, kind, says)
        assert found.says.startswith(f"{says} (")
        assert summary["declares_generated"] is (kind == "generated")


def test_manifests_before_source_types(reported: Report) -> None:
    bing = act("created", agent="Bing Image Creator") | {"description": "AI Generated Image"}
    for label, content in (("actions", [bing]), ("c2pa.actions", {"actions": [bing]})):
        made = manifest() | {"assertions": [{"label": label, "data": content}]}
        assert 'generated with "Bing Image Creator"' in reported(store("Valid", made))[0].says
    note = {"label": "com.adobe.generative-ai", "data": {"description": "Model 4"}}
    found = reported(store("Valid", manifest() | {"assertions": [note]}))[0]
    assert found.kind == "edited"
    assert found.says.startswith('generative AI was used in it with "Model 4"')


def test_broken_and_lapsed_manifests(reported: Report) -> None:
    captured = manifest(act("created", "digitalCapture"))
    second = reported(store("Invalid", captured, "assertion.dataHash.mismatch"))[1]
    assert second.kind == "broken"
    assert second.source == "C2PA manifest, signature broken"
    assert "the signature is broken" in second.says
    created = manifest(act("created", "trainedAlgorithmicMedia"))
    found = reported(store("Invalid", created, "signingCredential.expired"))[0]
    assert (found.kind, found.source) == ("generated", "C2PA manifest, not valid")
    assert "it does not validate: signingCredential.expired in words" in found.says


@pytest.mark.parametrize(
    "answer",
    [None, [], 7, {}, {"manifests": []}, {"active_manifest": "a", "manifests": {"a": None}},
     store("Valid", {"assertions": [None]}), store("Valid", {"ingredients": 3})],
)  # fmt: skip
def test_reports_of_another_shape(reported: Report, answer: object) -> None:
    assert any(one.source == "C2PA manifest, not validated" for one in reported(answer))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A JPEG signed by c2pa-python with a chain of certificates made for the purpose."""
    c2pa = pytest.importorskip("c2pa")
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("chain")
    leaf = "keyUsage=critical,digitalSignature\nextendedKeyUsage=critical,emailProtection\n"
    leaf += "basicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\n"
    (folder / "leaf.ext").write_text(leaf)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    _openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30",
             "-subj", "/O=Test Root/CN=root")  # fmt: skip
    _openssl(folder, "req", *curve, "-keyout", "leaf.key", "-out", "leaf.csr",
             "-subj", "/O=Test Issuer/CN=leaf")  # fmt: skip
    _openssl(folder, "x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
             "-CAcreateserial", "-days", "20", "-extfile", "leaf.ext",
             "-out", "leaf.pem")  # fmt: skip
    _openssl(folder, "pkcs8", "-topk8", "-nocrypt", "-in", "leaf.key", "-out", "leaf.p8")
    chain = (folder / "leaf.pem").read_bytes() + (folder / "ca.pem").read_bytes()
    info = c2pa.C2paSignerInfo(b"es256", chain, (folder / "leaf.p8").read_bytes(), b"")
    info.ta_url = None
    action = {
        "action": "c2pa.created",
        "softwareAgent": {"name": "Model 4"},
        "digitalSourceType": TERMS + "trainedAlgorithmicMedia",
    }
    about = {
        "claim_generator_info": [{"name": "Tool", "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    target = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(about)) as builder:
        builder.sign(signer, "image/jpeg", io.BytesIO(picture("JPEG", (64, 64))), target)
    return target.getvalue()


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def test_a_signed_file(signed: bytes) -> None:
    (found,) = findings(signed)
    assert (found.kind, found.source) == ("generated", "C2PA manifest, validated")
    assert 'generated with "Model 4" (C2PA manifest of "Test Issuer"; signature valid' in found.says


def test_a_signed_file_changed_afterwards(signed: bytes) -> None:
    (found,) = findings(signed[:-20] + bytes([signed[-20] ^ 1]) + signed[-19:])
    assert found.kind == "broken"
    assert "the signature is broken" in found.says
