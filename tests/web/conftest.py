from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from distildire import Detector
from distildire.web.app import create_app
from distildire.web.settings import Settings

Client = Callable[..., TestClient]


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


@pytest.fixture
def client(detector: Detector) -> Iterator[TestClient]:
    with TestClient(create_app(detector)) as client:
        yield client


@pytest.fixture
def client_with(detector: Detector) -> Iterator[Client]:
    """Make a client with settings of one's own."""
    opened: list[TestClient] = []

    def make(**settings: object) -> TestClient:
        client = TestClient(create_app(detector, Settings(**settings)))  # type: ignore[arg-type]
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)
