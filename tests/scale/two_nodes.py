"""Two machines made of one: network namespaces with a cable between them that can be cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

HEAD, WORKER = "10.213.0.1", "10.213.0.2"
PORT = 6399

# A node that is gone is noticed within ten seconds, not within a minute.
NOTICED = {
    "RAY_health_check_initial_delay_ms": "5000", "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "3000", "RAY_health_check_failure_threshold": "3",
}  # fmt: skip


def can_make_namespaces() -> bool:
    """Whether this user may, on this machine."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"dd{os.getpid()}try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made.returncode == 0


class TwoNodes:
    """A Ray cluster of two nodes with a core each; what runs in `head` is on the first."""

    def __init__(self) -> None:
        self._names = [f"dd{os.getpid()}{side}" for side in "ab"]
        self._scratch = Path(tempfile.mkdtemp(prefix="dd"))  # sockets need a short path
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._cable = f"v{os.getpid()}b"
        self.environment = {
            **os.environ, **NOTICED, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled",
            "RAY_ADDRESS": f"{HEAD}:{PORT}",
        }  # fmt: skip

    def __enter__(self) -> TwoNodes:
        common = ["--num-cpus", "1", "--object-store-memory", str(150 * 2**20), "--block"]
        head = [
            "--head", "--port", str(PORT), "--node-ip-address", HEAD,
            "--include-dashboard", "false", "--temp-dir", str(self._scratch),
        ]  # fmt: skip
        try:
            self._lay_cable()
            self._start(0, *head, *common)
            self._start(1, "--address", f"{HEAD}:{PORT}", "--node-ip-address", WORKER, *common)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _lay_cable(self) -> None:
        a, b = self._names
        for name in self._names:
            _ip("netns", "add", name)
        ends = [f"v{os.getpid()}a", self._cable]
        _ip("link", "add", ends[0], "netns", a, "type", "veth", "peer", ends[1], "netns", b)
        for name, end, address in zip(self._names, ends, (HEAD, WORKER), strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def head(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command on the first node."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self._names[0], *command], env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def cut(self) -> None:
        """Pull the cable: the second node is still at work, and nobody hears of it."""
        _ip("-n", self._names[1], "link", "set", self._cable, "down")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for node in self._nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        for name in self._names:
            found = subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
            )
            for pid in found.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self, node: int, *options: str) -> None:
        log = self._scratch / f"node{node}.log"
        for _ in range(5):  # it waits for 30 seconds, which a busy machine may take
            with log.open("wb") as out:
                started = subprocess.Popen(
                    ["ip", "netns", "exec", self._names[node], sys.executable, "-m",
                     "ray.scripts.scripts", "start", *options],
                    env={k: v for k, v in self.environment.items() if k != "RAY_ADDRESS"},
                    stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            self._nodes.append(started)
            until = time.monotonic() + 120
            while started.poll() is None and time.monotonic() < until:
                if "Ray runtime started" in log.read_text():
                    return
                time.sleep(0.2)
            if "timed out" not in log.read_text():
                break
        raise RuntimeError(f"the node did not start:\n{log.read_text()[-2000:]}")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
