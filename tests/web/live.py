"""The service on a real socket, for tests that need one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
import json, sys, uvicorn
from distildire import Detector
from distildire.web.app import create_app
from distildire.web.settings import Settings
model, port, settings, decoder = sys.argv[1:]
app = create_app(Detector(model), Settings(**json.loads(settings)), decoder=decoder or None)
uvicorn.run(app, port=int(port), log_level="warning", access_log=False)
"""


@contextmanager
def serving(model: str, *, decoder: str = "", **settings: int) -> Iterator[tuple[int, str]]:
    """Serve from a process of its own; gives its id and the base URL.

    `decoder` as for `create_app`, out of a module of these tests.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-c", SERVE, model, str(port), json.dumps(settings), decoder]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    process = subprocess.Popen(command, env=env)
    try:
        for _ in range(1200):
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
