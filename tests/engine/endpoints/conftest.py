"""Servers on loopback, engines that ask them, and no key but the test's own."""

import json
from textwrap import dedent

import pytest
from loopback import SENTINEL, Loopback
from served_eval import EVAL

from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
from pytest_llmprobe.engine.endpoints.connection import connect
from pytest_llmprobe.engine.endpoints.engine import EndpointEngine
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


@pytest.fixture
def run(pytester, monkeypatch):
    """Run an eval on a server; gives the result, its text and the report."""
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)

    def run(server, *arguments, evaluation=EVAL, workers=0):
        pytester.makepyfile(test_eval=dedent(evaluation))
        options = (f"--llmprobe-base-url={server.url}/v1", "--llmprobe-json=r.json")
        model = () if any(a.startswith("--model") for a in arguments) else ("--model=openai:m",)
        # A process of its own takes seconds; workers are such processes anyway.
        start = pytester.runpytest_subprocess if workers else pytester.runpytest_inprocess
        result = start("-n", str(workers), *model, *options, *arguments)
        path = pytester.path / "r.json"
        report = json.loads(path.read_text()) if path.exists() else None
        text = result.stdout.str() + result.stderr.str()
        files = [f for f in pytester.path.rglob("*") if f.is_file() and f.suffix != ".pyc"]
        assert SENTINEL not in text + "".join(f.read_text(errors="replace") for f in files)
        return result, text, report

    return run
