from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from distildire import Detector
from distildire.bundle import load_bundle
from distildire.cli.detect import Asked, _examined
from distildire.explain.explanation import heat_summary
from distildire.explain.record import make_record, schema
from distildire.explain.words import paragraph, percent
from distildire.io.pictures import ImageError, decode_bytes
from distildire.provenance import declares
from provenance.made_files import chunk, jumbf

RGB = NDArray[np.uint8]


@pytest.fixture(scope="module")
def photo(busy: RGB) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker <b>", "Model"
    buffer = io.BytesIO()
    Image.fromarray(busy).save(buffer, "JPEG", quality=95, exif=exif, comment=b"a note")
    return buffer.getvalue()


@pytest.mark.parametrize("extras", [True, False])
@pytest.mark.parametrize("picture", ["flat", "busy"])
def test_follows_its_schema(
    detector: Detector, picture: str, extras: bool, request: pytest.FixtureRequest
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(request.getfixturevalue(picture)).save(buffer, "PNG")
    record = make_record(detector, buffer.getvalue(), stability=extras, heatmap=extras)
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    validator.validate(json.loads(record.to_json()))


def red_less_blue(heat: Image.Image) -> float:
    pixels = np.asarray(heat.convert("RGBA"), float)
    return float(((pixels[..., 0] - pixels[..., 2]) * pixels[..., 3]).mean())


def test_the_heat_map_is_clear_at_even_odds(bundle: Path, flat: RGB, tmp_path: Path) -> None:
    """By the stand-in's calibration the picture is fake; where even odds lie higher, it is real."""
    overlays, values = [], []
    for neutral in (0.0, 20.0):
        detector = Detector(bundle, threads=1)
        calibration = detector.bundle.calibration
        assert calibration is not None
        moved = replace(calibration, temperature=2.0, bias=-neutral / 2)
        detector.bundle = replace(detector.bundle, calibration=moved)
        heat = heat_summary(detector, flat)
        assert heat is not None
        values.append(heat["values"])
        drawn = Image.open(io.BytesIO(base64.b64decode(heat["overlay"].partition(",")[2])))
        Image.fromarray(flat).save(tmp_path / "a.png")
        row = _examined(detector, str(tmp_path / "a.png"), Asked(0.05, False, tmp_path / "heat"))
        assert row["logit"] > 1
        with Image.open(row["heatmap"]) as written:
            overlays.append((red_less_blue(drawn), red_less_blue(written)))
    assert values[0] == values[1]
    (red, also_red), (blue, also_blue) = overlays
    assert min(red, also_red) > 0 > max(blue, also_blue)


def test_agrees_with_the_detector(detector: Detector, photo: bytes) -> None:
    tree = make_record(detector, photo, name="a.jpg", fpr=0.05).tree
    verdict = detector.predict([photo], fpr=0.05)[0]
    assert tree["result"]["probability"] == verdict.probability
    assert tree["result"]["logit"] == verdict.logit
    assert tree["result"]["verdict"] == verdict.verdict
    assert tree["input"]["sha256"] == verdict.sha256
    assert tree["model"]["sha256"] == detector.bundle.sha256


def test_same_bytes_in_another_process(
    detector: Detector, bundle: Path, photo: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(photo)
    code = (
        "import sys; from distildire import Detector\n"
        "from distildire.explain.record import make_record\n"
        "r = make_record(Detector(sys.argv[1], threads=2), sys.argv[2])\n"
        "sys.stdout.buffer.write((r.to_json() + r.to_html()).encode())"
    )
    command = [sys.executable, "-c", code, str(bundle), str(path)]
    other = subprocess.run(command, check=True, capture_output=True).stdout
    record = make_record(detector, path)
    assert (record.to_json() + record.to_html()).encode() == other


def test_a_time_stands_only_where_given(detector: Detector, photo: bytes) -> None:
    assert make_record(detector, photo).tree["made_at"] is None
    record = make_record(detector, photo, made_at="2030-01-02T03:04:05Z")
    assert "2030-01-02T03:04:05Z" in record.to_json()
    assert "2030-01-02T03:04:05Z" in record.to_html()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_html_needs_nothing_else_and_escapes(
    detector: Detector, photo: bytes, tmp_path: Path
) -> None:
    record = make_record(detector, photo, name='<script>alert("x")</script>.jpg')
    text = record.save(tmp_path / "r.html").read_text()
    page = _Page()
    page.feed(text)
    assert "script" not in page.tags
    assert "Maker &lt;b&gt;" in text
    assert page.links
    assert all(link.startswith("data:image/") for link in page.links)


def test_what_the_file_declares(detector: Detector, busy: RGB) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    buffer = io.BytesIO()
    Image.fromarray(busy).save(buffer, "PNG", pnginfo=about)
    record = make_record(detector, buffer.getvalue(), stability=False, heatmap=False)
    told = record.tree["provenance"]
    assert told["declares"] == declares(buffer.getvalue())
    (finding,) = told["findings"]
    assert finding["kind"] == "generated"
    assert finding["source"] == 'PNG text "parameters"'
    assert "Steps: 20, Sampler" in finding["value"]
    page = record.to_html()
    for words in (told["declares"], finding["source"], finding["value"]):
        assert escape(words) in page
    jsonschema.Draft202012Validator(schema()).validate(json.loads(record.to_json()))


@pytest.mark.parametrize(
    ("acts", "parents", "says"),
    [
        ((("created", "digitalCapture"), ("edited", "compositeWithTrainedAlgorithmicMedia")), [],
         'parts of it were generated with "Tool"'),
        ((("opened", ""),), [{"relationship": "parentOf", "active_manifest": "b"}],
         'it was generated with "Tool"'),
    ],
)  # fmt: skip
def test_credentials_say_one_thing_throughout(
    detector: Detector,
    busy: RGB,
    monkeypatch: pytest.MonkeyPatch,
    acts: tuple[tuple[str, str], ...],
    parents: list[dict[str, str]],
    says: str,
) -> None:
    def manifest(*acts: tuple[str, str]) -> dict[str, object]:
        done = [{"action": f"c2pa.{act}", "digitalSourceType": term} for act, term in acts]
        label = "c2pa.actions.v2"
        return {
            "assertions": [{"label": label, "data": {"actions": done}}],
            "claim_generator_info": [{"name": "Tool"}],
        }

    made = manifest(("created", "trainedAlgorithmicMedia"))
    manifests = {"a": manifest(*acts) | {"ingredients": parents}} | ({"b": made} if parents else {})
    store = {"active_manifest": "a", "manifests": manifests, "validation_state": "Valid"}
    monkeypatch.setattr("distildire.provenance.credentials.manifest_store", lambda data: store)
    buffer = io.BytesIO()
    Image.fromarray(busy).save(buffer, "PNG")
    data = buffer.getvalue()[:-12] + chunk(b"caBX", jumbf()) + buffer.getvalue()[-12:]
    record = make_record(detector, data, stability=False, heatmap=False)
    assert f"The file says that {says} (" in record.tree["provenance"]["declares"]
    assert record.tree["summary"].endswith(f"a signed statement (C2PA) that {says}.")
    assert f"Valid; says that {escape(says)}; by Tool" in record.to_html()
    jsonschema.Draft202012Validator(schema()).validate(json.loads(record.to_json()))


def test_nothing_to_judge(detector: Detector) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (200, 200)).save(buffer, "PNG")
    record = make_record(detector, buffer.getvalue())
    result = record.tree["result"]
    assert (result["verdict"], result["probability"]) == ("unsure", 0.5)
    assert result["note"] == detector.predict([buffer.getvalue()])[0].note
    assert record.tree["stability"] is record.tree["heatmap"] is None
    assert "nothing to judge" in record.tree["summary"].lower()
    assert escape(result["note"]) in record.to_html()
    jsonschema.Draft202012Validator(schema()).validate(json.loads(record.to_json()))


def test_one_picture_is_decoded_and_scored_once(
    detector: Detector, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[bytes] = []
    score = detector.score_crops

    def counted(crops: RGB, *, alone: bool = True) -> NDArray[np.float32]:
        scored.append(crops.tobytes())
        return score(crops, alone=alone)

    monkeypatch.setattr(detector, "score_crops", counted)
    pixels = decode_bytes(photo)
    monkeypatch.setattr("distildire.explain.record.decode_bytes", None)
    record = make_record(detector, photo, rgb=pixels)
    own = detector.bundle.preprocessing(pixels).tobytes()
    assert scored.count(own) == 1
    as_it_is = record.tree["stability"]["scores"]["as it is"]
    assert as_it_is == record.tree["result"]["probability"]


def test_the_headline_is_no_surer_than_the_stability_check(
    detector: Detector, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    shaky = {"stable": False, "verdict": "unsure", "scores": {"as it is": 0.9}, "verdicts": {}}
    monkeypatch.setattr("distildire.explain.record.stability_of", lambda *args: shaky)
    monkeypatch.setattr(detector, "verdict_of", lambda *args: (0.9, "fake"))
    record = make_record(detector, photo, heatmap=False)
    assert record.tree["result"]["verdict"] == "fake"
    page = record.to_html()
    assert f'<h1 class="unsure">{escape(record.tree["headline"])}</h1>' in page
    assert record.tree["headline"].startswith("Unsure")
    assert escape(detector.bundle.preprocessing.in_words()) in page
    alone = make_record(detector, photo, stability=False, heatmap=False)
    assert alone.tree["headline"] == "Likely AI-generated"


def test_no_score_no_record(detector: Detector) -> None:
    with pytest.raises(ImageError, match="not a picture"):
        make_record(detector, b"hello")


def test_the_summary_is_no_finer_than_the_calibration(bundle: Path) -> None:
    calibration = load_bundle(bundle).calibration
    assert calibration is not None
    fake = {"verdict": "fake", "probability": 0.9952, "fpr": 0.0001}
    real = {"verdict": "real", "probability": 0.0041, "fpr": 0.0001}
    remark = str(calibration.remark(0.0001))
    for result, score, of in (
        (fake, "over 99%", "500 camera pictures that it was calibrated on, none scores as high."),
        (real, "under 1%", "500 generated pictures that it was calibrated on, none scores as low;"),
    ):
        text = paragraph(result, None, {"status": "none"}, calibration)
        assert f"{score})." in text
        assert of in text
        assert f" {remark}." in text
        text = paragraph(result | {"fpr": 0.01}, None, {"status": "none"}, calibration)
        assert of.replace("none scores", "at most 1% score") in text
        assert "less than one" not in text


def test_no_share_of_a_page_is_0_or_100_percent() -> None:
    shown = [percent(p, digits) for p in (0.0, 1.0, 0.5) for digits in (0, 1)]
    assert shown == ["under 1%", "under 0.1%", "over 99%", "over 99.9%", "50%", "50.0%"]


def test_a_signed_claim_is_told_apart_from_the_score() -> None:
    result = {"verdict": "real", "probability": 0.1, "fpr": 0.01}
    claim = {"status": "Valid", "kind": "generated", "says": "it was generated"}
    assert "C2PA" in paragraph(result, None, claim, None)
    assert "C2PA" not in paragraph(result, None, claim | {"status": "Invalid"}, None)
    assert "C2PA" not in paragraph(result, None, claim | {"kind": "captured"}, None)
    shaky = paragraph(result, {"stable": False}, {"status": "none"}, None)
    assert "weak" in shaky
