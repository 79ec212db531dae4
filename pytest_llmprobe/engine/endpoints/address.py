"""Where a server is and which key it takes; the key never leaves this module but to a client."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.models.thinking import marks_of

PUBLIC = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
BASE_URLS = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL"}

NO_KEY = "none"
"""What a server is sent that needs no key."""


@dataclass(frozen=True)
class Address:
    """A base URL without its query, which every request carries and nobody is shown.

    ``public`` is the protocol's own service.
    """

    url: str
    query: tuple[tuple[str, str], ...] = ()
    public: bool = False


def address_of(spec: ModelSpec) -> Address:
    """The base URL of a spec: its own, or the environment's, or the protocol's own service.

    Raises:
        ModelError: It is no http(s) URL, or holds a user name or a password.
    """
    protocol = _protocol(spec)
    given = spec.base_url or os.environ.get(BASE_URLS[protocol]) or PUBLIC[protocol]
    try:
        parts = urlsplit(given)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("no URL to ask")
    except ValueError:
        raise ModelError(
            f"the base URL of {spec.name!r} is no http(s) URL such as http://localhost:8000/v1"
        ) from None
    if "@" in parts.netloc:
        raise ModelError(
            f"the base URL of {spec.name!r} holds a user name or a password: leave them out, and "
            f"give the key in the environment variable {KEYS[protocol]}"
        )
    url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    return Address(url, tuple(parse_qsl(parts.query)), url == PUBLIC[protocol])


def key_of(spec: ModelSpec) -> str:
    """The key from the environment; a server of one's own may need none.

    Raises:
        ModelError: The service needs a key and there is none.
    """
    protocol = _protocol(spec)
    if key := os.environ.get(KEYS[protocol], "").strip():
        return key
    if address_of(spec).public:
        raise ModelError(
            f"{spec.name!r} needs a key: set the environment variable {KEYS[protocol]}"
            + (", or name a server with --llmprobe-base-url" if protocol == "openai" else "")
        )
    return NO_KEY


def check_endpoint(spec: ModelSpec) -> None:
    """Find out without a request whether a server can be asked: client, base URL, key.

    Raises:
        ModelError: Something is missing; says what to do.
    """
    protocol = _protocol(spec)
    if find_spec(protocol) is None:
        raise ModelError(
            f"{spec.name!r} needs the package {protocol}: pip install 'pytest-llmprobe[{protocol}]'"
        )
    key_of(spec)
    marks_of(spec.thought)
    if spec.template and (protocol == "anthropic" or address_of(spec).public):
        raise ModelError(
            f"--llmprobe-template {next(iter(spec.template))}: {spec.name!r} takes no arguments of "
            "a chat template; a server of one's own does"
        )
    if protocol == "openai" and spec.thinking in ("on", "off") and address_of(spec).public:
        raise ModelError(
            f"--llmprobe-thinking {spec.thinking}: OpenAI's own service has no such switch; leave "
            "it out, or give auto for room of a thought"
        )


def _protocol(spec: ModelSpec) -> str:
    if spec.protocol is None:
        raise ModelError(f"{spec.name!r} is no model behind a server: openai:NAME, anthropic:NAME")
    return spec.protocol
