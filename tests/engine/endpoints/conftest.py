"""Servers on loopback, engines that ask them, and no key but the test's own."""

import pytest
from loopback import Loopback

from pytest_llmprobe.engine.endpoints import EndpointBackend, EndpointEngine, connect
from pytest_llmprobe.models.registry import ModelSpec


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    """Start a server: ``server(answer)``."""
    started = []

    def start(answer, kind=Loopback, **options):
        started.append(kind(answer, **options))
        return started[-1]

    yield start
    for one in reversed(started):
        one.close()


@pytest.fixture
def ask():
    """An engine on a server: ``ask(server, protocol="openai", **options)``."""
    backends = []

    def engine(server, protocol="openai", spec=None, timeout_s=20.0, **options):
        base = server.url + ("/v1" if protocol == "openai" else "")
        spec = ModelSpec("m", f"{protocol}:m", base_url=base, **(spec or {}))
        backend = EndpointBackend(connect(spec, timeout_s), timeout_s=timeout_s, **options)
        backends.append(backend)
        return EndpointEngine(backend)

    yield engine
    for backend in backends:
        backend.close()
