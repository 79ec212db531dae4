"""Whether the Hugging Face hub can be reached, found out in seconds.

Its clients try for a minute or more where a network swallows what is sent to it.
"""

from __future__ import annotations

import socket
import threading
from functools import lru_cache
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 2.0
"""Seconds until a connection must stand, the look-up of the name included."""


def hub_is_reachable() -> bool:
    """Whether the hub may be asked and a connection to it, or to the proxy before it, stands."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and can_connect(constants.ENDPOINT)


@lru_cache
def can_connect(url: str) -> bool:
    """Whether a connection can be made to where a URL leads, or to the proxy; asked once."""
    target = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(target.hostname or ""):
        target = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    default = {"https": 443, "socks5": 1080, "socks5h": 1080}.get(target.scheme, 80)
    ends: SimpleQueue[bool] = SimpleQueue()
    address = (target.hostname or "", target.port or default)
    # No time limit holds for looking up a name: what does not come back is left behind.
    threading.Thread(target=_connect, args=(address, ends), daemon=True).start()
    try:
        return ends.get(timeout=PATIENCE)
    except Empty:
        return False


def _connect(address: tuple[str, int], ends: SimpleQueue[bool]) -> None:
    try:
        socket.create_connection(address, timeout=PATIENCE).close()
    except OSError:
        ends.put(False)
    else:
        ends.put(True)
