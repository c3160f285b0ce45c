"""Two machines made of one: network namespaces with a cable between them that can be cut."""

from __future__ import annotations

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
        self.environment = {
            **os.environ, **NOTICED, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled",
            "RAY_ADDRESS": f"{HEAD}:{PORT}",
        }  # fmt: skip

    def __enter__(self) -> TwoNodes:
        a, b = self._names
        cable = [f"v{os.getpid()}a", f"v{os.getpid()}b"]
        for name in self._names:
            _ip("netns", "add", name)
        _ip("link", "add", cable[0], "netns", a, "type", "veth", "peer", cable[1], "netns", b)
        for name, end, address in zip(self._names, cable, (HEAD, WORKER), strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        self._cable = cable[1]
        common = ["--num-cpus", "1", "--object-store-memory", str(150 * 2**20), "--block"]
        try:
            self._start(
                0,
                "--head",
                "--port",
                str(PORT),
                "--node-ip-address",
                HEAD,
                "--include-dashboard",
                "false",
                "--temp-dir",
                str(self._scratch),
                *common,
            )
            self._start(1, "--address", f"{HEAD}:{PORT}", "--node-ip-address", WORKER, *common)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

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
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        for name in self._names:
            found = subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
            )
            for pid in found.stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], check=False)
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
            while "Ray runtime started" not in log.read_text() and started.poll() is None:
                time.sleep(0.2)
            if started.poll() is None:
                self._nodes.append(started)
                return
            if "timed out" not in log.read_text():
                break
        raise RuntimeError(f"the node did not start:\n{log.read_text()[-2000:]}")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
