"""The service on a real socket, for tests that need one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
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
        assert thread.is_alive()
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


SERVE = """
import json, socket, sys, uvicorn
from distildire import Detector
from distildire.web.app import create_app
from distildire.web.settings import Settings
model, listener, settings, decoder = sys.argv[1:]
app = create_app(Detector(model), Settings(**json.loads(settings)), decoder=decoder or None)
server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
server.run([socket.socket(fileno=int(listener))])
"""


@contextmanager
def serving(model: str, *, decoder: str = "", **settings: int) -> Iterator[tuple[int, str]]:
    """Serve from a process of its own; gives its id and the base URL.

    `decoder` as for `create_app`, out of a module of these tests.
    """
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url, number = f"http://127.0.0.1:{listener.getsockname()[1]}", listener.fileno()
        command = [sys.executable, "-c", SERVE, model, str(number), json.dumps(settings), decoder]
        process = subprocess.Popen(command, env=env, pass_fds=[number])
    try:
        # The socket listens already: the request waits for the server, and fails if that ends.
        urllib.request.urlopen(f"{url}/healthz", timeout=600).close()
        yield process.pid, url
    finally:
        process.terminate()
        process.wait(120)
