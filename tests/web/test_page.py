"""The page in a real Chromium.

With DISTILDIRE_SCREENSHOTS=docs/images the pictures for the README are written there, and
the bundled model is used in place of the stand-in where there is one.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from live import running
from PIL import Image, PngImagePlugin

from distildire import Detector
from distildire.bundle import bundled
from distildire.io.finding import VIDEO_SUFFIXES
from distildire.io.pictures import PICTURE_SUFFIXES
from distildire.web.settings import Settings

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
skimage_data = pytest.importorskip("skimage.data")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

DROP = """([files]) => {
  const transfer = new DataTransfer();
  for (const [name, type, code] of files) {
    const bytes = Uint8Array.from(atob(code), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""

DEADLINE = 60_000
"""Milliseconds: test machines are often busy."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Free pictures (scikit-image's, public domain or CC0) and a computed one."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = {}
    for name in ("astronaut", "coffee", "chelsea"):
        paths[name] = folder / f"{name}.jpg"
        Image.fromarray(getattr(skimage_data, name)()).save(paths[name], quality=92)
    y, x = np.mgrid[0:480, 0:640] / 480
    waves = np.stack([128 + 90 * np.sin(3 * x + k + 2 * np.sin(2 * y + k)) for k in range(3)], 2)
    paths["rendered"] = folder / "rendered.png"
    Image.fromarray(waves.astype(np.uint8)).save(paths["rendered"])
    return paths


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = os.environ.get("DISTILDIRE_SCREENSHOTS")
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def url(detector: Detector) -> Iterator[str]:
    real = "DISTILDIRE_SCREENSHOTS" in os.environ and "nano" in bundled()
    with running(Detector("nano") if real else detector) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    context = browser.new_context(
        viewport={"width": 1280, "height": 860}, accept_downloads=True, color_scheme="light"
    )
    context.set_default_timeout(DEADLINE)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url)
    playwright.expect(page.locator("#limits")).to_contain_text("MiB", timeout=DEADLINE)
    yield page
    context.close()
    assert not faults


MEASURE = """() => {
  const loaded = performance.getEntriesByType("navigation")
    .concat(performance.getEntriesByType("resource"));
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return {
    paint: paint ? paint.startTime : null,
    bytes: loaded.reduce((sum, entry) => sum + entry.transferSize, 0),
    hosts: [...new Set(loaded.map((entry) => new URL(entry.name).host))],
  };
}"""


def test_first_paint_and_weight(browser: Any, url: str) -> None:
    paints = []
    for _ in range(4):
        context = browser.new_context()
        page = context.new_page()
        page.goto(url, wait_until="networkidle", timeout=DEADLINE)
        page.wait_for_function(
            "performance.getEntriesByName('first-contentful-paint').length", timeout=DEADLINE
        )
        measured = page.evaluate(MEASURE)
        context.close()
        assert measured["hosts"] == [url.removeprefix("http://")]
        assert 10_000 < measured["bytes"] < 300_000
        paints.append(measured["paint"])
    print(f"first paint {sorted(paints)} ms, {measured['bytes']} bytes")
    # The best of a few: what the page costs, not what else the machine was doing.
    assert min(paints) <= 500


def drop(page: Any, *paths: Path) -> None:
    kinds = {".jpg": "image/jpeg", ".png": "image/png", ".txt": "text/plain", ".mp4": "video/mp4"}
    files = [
        [path.name, kinds[path.suffix], base64.b64encode(path.read_bytes()).decode()]
        for path in paths
    ]
    page.evaluate(DROP, [files])


def wait_until_done(page: Any) -> None:
    playwright.expect(page.locator("#status")).to_contain_text("Done", timeout=DEADLINE)


def serious_faults(page: Any) -> list[str]:
    violations = axe.Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {v['help']} {[node['target'] for node in v['nodes']]}"
        for v in violations
        if v["impact"] in {"serious", "critical"}
    ]


def open_heat_map(page: Any) -> None:
    heat = page.get_by_role("radio", name="Heat map")
    playwright.expect(heat).to_be_enabled(timeout=DEADLINE)
    heat.check()


def test_two_files_from_drop_to_record(
    page: Any, pictures: dict[str, Path], screenshots: Path, tmp_path: Path
) -> None:
    page.screenshot(path=screenshots / "page-empty.png")
    assert serious_faults(page) == []
    drop(page, pictures["astronaut"], pictures["rendered"])
    wait_until_done(page)
    verdicts = page.locator("#rows .verdict").all_inner_texts()
    assert len(verdicts) == 2
    assert set(verdicts) <= {"Likely generated", "No sign found", "Unsure"}
    page.get_by_role("button", name="astronaut.jpg").click()
    open_heat_map(page)
    page.locator("#strength").fill("80")
    opacity = page.get_by_alt_text("Heat map over the picture").evaluate("e => e.style.opacity")
    assert opacity == "0.8"
    playwright.expect(page.locator(".caution")).to_contain_text("heat map")
    playwright.expect(page.locator(".bars dt").first).to_have_text("as it is")
    page.screenshot(path=screenshots / "page-heatmap.png")
    assert serious_faults(page) == []
    with page.expect_download() as html:
        page.get_by_role("button", name="Download record").click()
    text = Path(html.value.path()).read_text(encoding="utf-8")
    assert html.value.suggested_filename.endswith(".html")
    assert "Forensic record" in text
    with page.expect_download() as download:
        page.get_by_role("button", name="Record as JSON").click()
    record = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert record["input"]["name"] == "astronaut.jpg"


def test_record_that_fails(page: Any, pictures: dict[str, Path]) -> None:
    late = json.dumps({"detail": "no answer within 120 seconds"})
    page.route("**/v1/explain*", lambda route: None)
    page.route("**/v1/record*", lambda route: route.fulfill(status=503, body=late))
    drop(page, pictures["coffee"])
    button = page.get_by_role("button", name="Download record")
    button.click()
    words = page.locator("#detail [role=alert]")
    playwright.expect(words).to_have_text("No record: no answer within 120 seconds")
    playwright.expect(button).to_be_enabled()


def test_server_that_fails_at_first(page: Any, pictures: dict[str, Path]) -> None:
    page.route("**/v1/models", lambda route: route.fulfill(status=503))
    page.reload()
    alert = page.locator("#alert")
    playwright.expect(alert).to_contain_text("can't be reached")
    drop(page, pictures["coffee"])
    playwright.expect(alert).to_be_visible()
    page.unroute("**/v1/models")
    wait_until_done(page)
    playwright.expect(alert).to_be_hidden()


def test_key(browser: Any, detector: Detector) -> None:
    with running(detector, Settings(key="clé ñ")) as url:
        context = browser.new_context()
        context.set_default_timeout(DEADLINE)
        page = context.new_page()
        page.goto(url)
        label = page.get_by_label("This server asks for a key")
        label.fill("cle n")
        page.get_by_role("button", name="Use it").click()
        words = page.locator("#key-words")
        playwright.expect(words).to_have_text("The server refuses this key.", timeout=DEADLINE)
        label.fill(" clé ñ ")
        page.get_by_role("button", name="Use it").click()
        playwright.expect(page.locator("#limits")).to_contain_text("MiB", timeout=DEADLINE)
        playwright.expect(page.locator("#key-form")).to_be_hidden()
        context.close()


def test_table(page: Any, pictures: dict[str, Path], tmp_path: Path) -> None:
    note = tmp_path / "=note.txt"
    note.write_text("no picture")
    page.set_input_files("#pick", [*pictures.values(), note])
    wait_until_done(page)
    names = page.locator("#rows .name")
    page.get_by_role("columnheader", name="Probability").get_by_role("button").click()
    playwright.expect(page.locator("th[aria-sort=descending]")).to_have_count(1)
    playwright.expect(names.last).to_have_text("=note.txt")
    numbers = [float(t.strip("<>%")) for t in page.locator("#rows .scale-number").all_inner_texts()]
    assert numbers == sorted(numbers, reverse=True)
    page.locator("#filter").select_option("error")
    playwright.expect(names).to_have_text(["=note.txt"])
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("file,sha256,verdict,probability")
    assert lines[1].startswith("'=note.txt,")
    page.locator("#filter").select_option("all")
    page.get_by_label("Name").fill("coff")
    playwright.expect(names).to_have_text(["coffee.jpg"])


def test_folder(page: Any, tmp_path: Path) -> None:
    ours = {f"a{suffix.upper()}" for suffix in PICTURE_SUFFIXES | VIDEO_SUFFIXES}
    for name in (*ours, "notes.txt", "archive.zip", ".DS_Store", "._a.png"):
        (tmp_path / name).write_bytes(b"x")
    page.route("**/v1/detect*", lambda route: None)
    page.set_input_files("#folder", tmp_path)
    names = page.locator("#rows .name")
    playwright.expect(names).to_have_count(len(ours))
    assert set(names.all_inner_texts()) == ours
    left_out = page.locator("#left-out")
    playwright.expect(left_out).to_contain_text(f"2 of {len(ours) + 2} files")
    page.get_by_role("button", name="Clear").click()
    playwright.expect(left_out).to_be_empty()


def test_notes_and_declarations(page: Any, tmp_path: Path) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    Image.new("RGB", (200, 200)).save(tmp_path / "black.png", pnginfo=about)
    drop(page, tmp_path / "black.png")
    wait_until_done(page)
    playwright.expect(page.locator("#rows .verdict")).to_have_text("Unsure")
    playwright.expect(page.locator("#rows .why").first).to_contain_text("Nothing to judge")
    playwright.expect(page.locator("#detail .note")).to_contain_text("Nothing to judge")
    playwright.expect(page.locator("#detail .declares")).to_contain_text("Stable Diffusion")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    head, row = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert "note,declares,model_sha256" in head
    assert "nothing to judge" in row


def test_error_budget_moves_the_band(page: Any, pictures: dict[str, Path]) -> None:
    drop(page, pictures["coffee"])
    wait_until_done(page)
    band = page.locator("#rows .scale-band")
    before = band.evaluate("e => parseFloat(e.style.width)")
    page.get_by_label("Error budget").fill("0")
    playwright.expect(page.locator("#budget-words")).to_contain_text("0.1%")
    assert band.evaluate("e => parseFloat(e.style.width)") > before


def test_keyboard(page: Any, pictures: dict[str, Path]) -> None:
    drop(page, pictures["coffee"], pictures["chelsea"])
    wait_until_done(page)
    page.get_by_role("button", name="chelsea.jpg").focus()
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#detail-title")).to_be_focused()
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#detail")).to_be_hidden()
    playwright.expect(page.get_by_role("button", name="chelsea.jpg")).to_be_focused()


def test_dark_and_phone(page: Any, pictures: dict[str, Path], screenshots: Path) -> None:
    page.set_input_files("#pick", list(pictures.values()))
    wait_until_done(page)
    page.get_by_role("button", name="Dark").click()
    page.get_by_role("button", name="chelsea.jpg").click()
    open_heat_map(page)
    page.screenshot(path=screenshots / "page-dark.png")
    assert serious_faults(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Close").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=screenshots / "page-phone.png")
    assert serious_faults(page) == []


def test_video(page: Any, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from clips import write_clip

    frame = np.random.default_rng(1).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    frames = [frame.repeat(4, axis=0).repeat(4, axis=1)] * 20
    drop(page, write_clip(tmp_path / "clip.mp4", frames))
    wait_until_done(page)
    playwright.expect(page.locator(".timeline svg")).to_be_visible(timeout=DEADLINE)
    assert page.locator(".timeline circle").count() == 20
    # Its verdict stays one of the old budget until the server has judged it anew.
    page.route("**/v1/detect*", lambda route: None)
    page.get_by_label("Error budget").fill("0")
    playwright.expect(page.locator("#budget-words")).to_contain_text("0.1%")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    (row,) = csv.DictReader(Path(download.value.path()).read_text().splitlines())
    assert (row["file"], row["fpr"]) == ("clip.mp4", "0.01")


def fpr_of(route: Any) -> float:
    return float(parse_qs(urlsplit(route.request.url).query)["fpr"][0])


def judge(route: Any) -> None:
    """Answer as the server does: a video that is called generated from a budget of 5% on."""
    fpr = fpr_of(route)
    result = {
        **{"path": "clip.mp4", "sha256": "0" * 64, "probability": 0.6, "logit": 1.0},
        **{"verdict": "fake" if fpr >= 0.05 else "unsure", "model": "nano", "fpr": fpr},
        **{"width": 320, "height": 240, "error": None, "note": None, "declares": None},
        **{"scenes": 1, "suspicious": [0, 1]},
        "timeline": [{"time": 0, "probability": 0.6, "logit": 1.0, "scene": 0}],
    }
    route.fulfill(json={"model": "nano", "fpr": fpr, "results": [result]})


def move(page: Any, step: int) -> None:
    """Move the error budget, for longer than the page waits for the next move."""
    page.get_by_label("Error budget").fill(str(step))
    page.wait_for_timeout(400)


def wait_for(page: Any, routes: list[Any], count: int) -> None:
    for _ in range(DEADLINE // 20):
        if len(routes) >= count:
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"{len(routes)} requests in place of {count}")


def test_videos_are_judged_at_the_budget_shown(page: Any, tmp_path: Path) -> None:
    asked: list[Any] = []
    page.route("**/v1/detect*", lambda route: asked.append(route))
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"clip")
    verdict = page.locator("#rows .verdict")
    drop(page, clip)
    wait_for(page, asked, 1)
    move(page, 7)
    judge(asked[0])
    # The slider had been moved while the server was at it.
    playwright.expect(page.locator("#rows")).to_contain_text("Judged at an error budget of 1%")
    wait_for(page, asked, 2)
    for step in (6, 0, 7):
        move(page, step)
    assert [fpr_of(route) for route in asked] == [0.01, 0.2]
    judge(asked[1])
    wait_until_done(page)
    playwright.expect(verdict).to_have_text("Likely generated")
    playwright.expect(page.locator("#rows")).not_to_contain_text("Judged at")
    move(page, 0)
    wait_for(page, asked, 3)
    page.get_by_role("button", name="Stop").click()
    wait_until_done(page)
    playwright.expect(verdict).to_have_text("Likely generated")
    playwright.expect(page.locator("#rows")).to_contain_text("Judged at an error budget of 20%")
    playwright.expect(page.locator("#detail .judged")).to_contain_text("20%")
