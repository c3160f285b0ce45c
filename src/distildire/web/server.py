"""Run the service under uvicorn."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable

from distildire.detector import Detector
from distildire.web.settings import KEY_VARIABLE, Settings

log = logging.getLogger(__name__)


def serve(
    detector: Detector,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: Settings | None = None,
    log_level: str = "warning",
    listening: Callable[[str], None] | None = None,
) -> None:
    """Serve until interrupted.

    Args:
        detector: the model.
        host: address to listen on; only loopback is safe without a key and TLS before it.
        port: TCP port; 0 for a free one.
        settings: limits; `Settings(key=key_from_environment())` where None.
        log_level: of uvicorn.
        listening: takes the address of the page, once it can be reached.

    Raises:
        ValueError: the settings are out of range.
        OSError: the address is none of this machine's, or taken.
    """
    try:
        import uvicorn

        from distildire.web.app import create_app
        from distildire.web.connections import Impatient
        from distildire.web.settings import key_from_environment
    except ImportError as error:
        raise ImportError(
            f"{error.name} is missing: pip install 'distildire[web]'", name=error.name
        ) from error
    settings = settings or Settings(key=key_from_environment())
    if settings.key is None and not _is_loopback(host):
        log.warning("%s is reachable from outside and asks for no key: set %s", host, KEY_VARIABLE)
    with listen(host, port) as listener, contextlib.suppress(KeyboardInterrupt):
        config = uvicorn.Config(
            create_app(detector, settings),
            http=Impatient,
            log_level=log_level,
            access_log=False,
            server_header=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=10,
        )
        if listening is not None:
            listening(page_of(listener))
        uvicorn.Server(config).run([listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        OSError: the address is none of this machine's, or taken.
    """
    try:
        # Of a name like localhost the address that every client tries.
        family, *_, address = min(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        words = getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen on {host!r}, port {port}: {words}") from None


def page_of(listener: socket.socket) -> str:
    """Where this machine finds the page."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
