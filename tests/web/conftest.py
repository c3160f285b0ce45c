from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from distildire import Detector
from distildire.web.app import create_app
from distildire.web.settings import Settings

Client = Callable[..., TestClient]


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
