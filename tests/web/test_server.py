"""Where the service listens, and what it says of it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from distildire.web.server import listen, page_of


def test_the_address_that_is_said_answers(bundle: Path) -> None:
    command = [sys.executable, "-m", "distildire", "serve", "--model", str(bundle)]
    options = ["--host", "0.0.0.0", "--port", "0"]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = next(line for line in process.stderr if "http://" in line)
            found = re.fullmatch(r"distildire: (http://127\.0\.0\.1:[1-9]\d+/)\n", said)
            assert found, said
            assert urllib.request.urlopen(found[1] + "healthz", timeout=60).status == 200
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0


def test_addresses_that_can_not_be_had_are_one_sentence() -> None:
    with listen("localhost", 0) as taken:
        port = taken.getsockname()[1]
        assert page_of(taken) == f"http://127.0.0.1:{port}/"
        for host, number, words in (
            ("127.0.0.1", port, "in use"),
            ("no.such.host.invalid", 80, "no.such.host.invalid"),
            ("192.0.2.1", 0, "192.0.2.1"),
        ):
            with pytest.raises(OSError, match=f"cannot listen on .*{words}"):
                listen(host, number)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_addresses_of_ipv6_are_in_brackets(host: str) -> None:
    try:
        listener = listen(host, 0)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener:
        assert page_of(listener) == f"http://[::1]:{listener.getsockname()[1]}/"
