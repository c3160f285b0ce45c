"""The service on a real socket, for tests that need one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from distildire import Detector
from distildire.web.app import create_app
from distildire.web.settings import Settings


@contextmanager
def running(detector: Detector, settings: Settings | None = None) -> Iterator[str]:
    """Serve on a free loopback port; gives the base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(detector, settings), log_level="error", access_log=False)
    )
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


SERVE = """
import json, sys
from distildire import Detector
from distildire.web.server import serve
from distildire.web.settings import Settings
model, port, settings = sys.argv[1:]
serve(Detector(model), port=int(port), settings=Settings(**json.loads(settings)))
"""


@contextmanager
def serving(model: str, **settings: int) -> Iterator[tuple[int, str]]:
    """Serve from a process of its own; gives its id and the base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-c", SERVE, model, str(port), json.dumps(settings)]
    process = subprocess.Popen(command)
    try:
        for _ in range(600):
            assert process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process.pid, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
