"""Run the service under uvicorn."""

from __future__ import annotations

import ipaddress
import logging

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
) -> None:
    """Serve until interrupted.

    Args:
        detector: the model.
        host: address to listen on; only loopback is safe without a key and TLS before it.
        port: TCP port; 0 for a free one.
        settings: limits; `Settings(key=key_from_environment())` where None.
        log_level: of uvicorn.

    Raises:
        ValueError: the settings are out of range, or the address is none.
    """
    try:
        import uvicorn

        from distildire.web.app import create_app
        from distildire.web.settings import key_from_environment
    except ImportError as error:
        raise ImportError(
            f"{error.name} is missing: pip install 'distildire[web]'", name=error.name
        ) from error
    settings = settings or Settings(key=key_from_environment())
    if settings.key is None and not _is_loopback(host):
        log.warning("%s is reachable from outside and asks for no key: set %s", host, KEY_VARIABLE)
    uvicorn.run(
        create_app(detector, settings),
        host=host,
        port=port,
        log_level=log_level,
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=10,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
