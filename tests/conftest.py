"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import standin
from distildire import Detector
from distildire.bench import gpu_works


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--none-skipped", action="store_true", help="Fail where a test was skipped, as CI does."
    )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--none-skipped") and reporter.stats.get("skipped"):
        for report in reporter.stats["skipped"]:
            reporter.write_line(f"skipped: {report.nodeid}: {report.longrepr[2]}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Weights are drawn alike in every run, whatever ran before in the same process."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stand-in detector."""
    return standin.make_bundle(tmp_path_factory.mktemp("bundle") / "standin")


@pytest.fixture(scope="session")
def detector(bundle: Path) -> Detector:
    """The stand-in detector, on one thread."""
    return Detector(bundle, threads=1)


def blotches(seed: int = 3) -> NDArray[np.float64]:
    """Soft random colours [200, 240, 3] of the scale of things in a photograph."""
    small = np.random.default_rng(seed).integers(60, 200, (25, 30, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((240, 200), Image.Resampling.BICUBIC), float)


@pytest.fixture(scope="session")
def flat() -> NDArray[np.uint8]:
    """Soft colours [200, 240, 3], which the stand-in calls fake."""
    return blotches().astype(np.uint8)


@pytest.fixture(scope="session")
def busy() -> NDArray[np.uint8]:
    """The same with grain [200, 240, 3], which the stand-in calls real."""
    grain = np.random.default_rng(7).normal(0, 25, (200, 240, 3))
    return np.clip(blotches() + grain, 0, 255).astype(np.uint8)


def encode(rgb: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def fake_png(flat: NDArray[np.uint8]) -> bytes:
    return encode(flat)


@pytest.fixture(scope="session")
def real_png(busy: NDArray[np.uint8]) -> bytes:
    return encode(busy)


@pytest.fixture(scope="session")
def long_png(busy: NDArray[np.uint8]) -> bytes:
    """66,000 x 64 pixels, more than a JPEG can hold on a side."""
    return encode(np.tile(busy[:64], (1, 275, 1)))


@pytest.fixture
def folder(tmp_path: Path, busy: NDArray[np.uint8], flat: NDArray[np.uint8]) -> Path:
    """A folder of two pictures, one in a folder below with a name that is not ASCII."""
    root = tmp_path / "pictures"
    (root / "sub folder").mkdir(parents=True)
    Image.fromarray(busy).save(root / "sub folder/Ärger über Öl.png")
    Image.fromarray(flat).save(root / "a.png")
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `cuda` are skipped, in words, where torch finds no GPU."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked and not gpu_works():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA here: torch finds no GPU"))
