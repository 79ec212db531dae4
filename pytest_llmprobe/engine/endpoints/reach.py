"""Whether a server is there at all, before any case: a connection, and no request."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pytest_llmprobe.engine.endpoints.address import address_of
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.registry import ModelSpec

PATIENCE_S = 10.0
PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def check_server(spec: ModelSpec) -> None:
    """Connect to a model's server, or the proxy that stands before it, and hang up.

    Raises:
        ModelError: Nothing answers there; says what to do.
    """
    url = address_of(spec).url
    if (found := _proxy(url)) is not None:
        host, port, name = *_place(found[1]), found[0]
        remedy = f"it is the proxy of {name}: correct that, or name the server's host in NO_PROXY"
    else:
        host, port = _place(url)
        remedy = "start it, or name another one with --llmprobe-base-url"
    try:
        socket.create_connection((host, port), PATIENCE_S).close()
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise ModelError(f"no server answers at {host}:{port} ({why}): {remedy}") from None


def proxy_of(url: str) -> str | None:
    """The proxy between here and a URL, and the environment variable that names it; or None."""
    if (found := _proxy(url)) is None:
        return None
    parts = urlsplit(found[1])
    return f"the proxy {parts.scheme}://{parts.netloc.rpartition('@')[2]} ({found[0]})"


def _proxy(url: str) -> tuple[str, str] | None:
    """Name of the variable and URL of the proxy; a password in it is for the client alone."""
    parts, proxies = urlsplit(url), getproxies()
    scheme = parts.scheme if parts.scheme in proxies else "all"
    if scheme not in proxies or proxy_bypass(parts.hostname or ""):
        return None
    given, names = proxies[scheme], (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    name = next((name for name in names if name in os.environ), "the system's settings")
    return name, given if "://" in given else f"http://{given}"


def _place(url: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        ModelError: It is no URL.
    """
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or PORTS.get(parts.scheme, 80)
    except ValueError:
        raise ModelError(
            "the proxy of the environment is no URL such as http://host:3128"
        ) from None
