"""The summary of a C2PA manifest."""

from __future__ import annotations

import io
import sys

import pytest
from PIL import Image

from distildire.provenance.credentials import c2pa_summary


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
        "declares_generated": True,
    }
