"""Whether a server is there at all, before any case: a connection, and no request."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pytest_llmprobe.engine.endpoints.address import address_of
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.registry import ModelSpec

PATIENCE_S = 10.0


def check_server(spec: ModelSpec) -> None:
    """Connect to a model's server and hang up; what a proxy stands before is left to the proxy.

    Raises:
        ModelError: Nothing answers there; says what to do.
    """
    parts = urlsplit(address_of(spec).url)
    host = parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return
    try:
        socket.create_connection((host, port), PATIENCE_S).close()
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise ModelError(
            f"no server answers at {host}:{port} ({why}): start it, or name another one with "
            "--llmprobe-base-url"
        ) from None
