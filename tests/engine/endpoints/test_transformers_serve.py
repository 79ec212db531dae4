"""A real server: `transformers serve` with the reference model, against the model in this process.

Both compute in float32 and decode greedily, so every answer must be the same.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pytest_llmprobe import Engine, GenerateConfig, RawPrompt, Request, load_model
from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
from pytest_llmprobe.engine.endpoints.connection import connect
from pytest_llmprobe.errors import UnsupportedError
from pytest_llmprobe.models.registry import REFERENCE, ModelSpec

PATIENCE_S = 120


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A running server with the reference model; its port is the system's choice."""
    log = tmp_path_factory.mktemp("serve") / "log"
    options = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", "0"]
    program = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(REFERENCE)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            program + options, stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    try:
        yield _url_when_ready(process, log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _url_when_ready(process, log):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text())
        if found:
            with urllib.request.urlopen(f"{found[1]}/health", timeout=10) as answer:
                assert answer.status == 200
            return found[1]
        time.sleep(0.1)
    pytest.fail(f"the server did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def here():
    return Engine(load_model("reference", threads=1))


@pytest.fixture(scope="module")
def there(url):
    spec = ModelSpec("served", f"openai:{REFERENCE}", base_url=f"{url}/v1")
    backend = EndpointBackend(connect(spec, 60.0), concurrency=2)
    yield Engine(backend)
    backend.close()


def same(here, there, prompts, **config):
    config = GenerateConfig(**config)
    ours, theirs = here.generate(prompts, config), there.generate(prompts, config)
    assert [c.text for c in theirs] == [c.text for c in ours]
    assert [c.usage.prompt_tokens for c in theirs] == [c.usage.prompt_tokens for c in ours]
    return ours, theirs


def test_needles_and_json_are_answered_alike_in_an_evaluation(url, pytester):
    """The same cases: the server's tokenizer is named, so that sizes in tokens agree."""
    root = Path(__file__).parents[3]
    entry = f'source = "openai:{REFERENCE}"\nbase_url = "{url}/v1"\ntokenizer = "reference"\n'
    (pytester.path / "llmprobe.toml").write_text(f"[models.served]\n{entry}")
    tests = {}
    for model in ("reference", "served"):
        options = ("--llmprobe-profile=smoke", "--llmprobe-limit=1", "--llmprobe-gate=none")
        result = pytester.runpytest_subprocess(
            *("-p", "no:cacheprovider", "-n", "0", f"--rootdir={root}", f"--model={model}"),
            *(*options, "--llmprobe-config=llmprobe.toml", f"--llmprobe-json={model}.json"),
            root / "evals" / "needle" / "test_single_needle.py",
            root / "evals" / "needle" / "test_threading.py",
            root / "evals" / "json_format" / "test_json_format.py",
        )
        assert result.ret == 0
        report = json.loads((pytester.path / f"{model}.json").read_text())
        tests[model] = report["tests"]
    assert len(tests["served"]) >= 3
    for ours, theirs in zip(tests["reference"], tests["served"], strict=True):
        for field in ("id", "outcome", "received", "explanation", "scores", "prompt_tokens"):
            assert theirs[field] == ours[field], (ours["id"], field)
        assert theirs["latency_s"] > 0


def test_a_raw_text_is_continued_alike(here, there):
    same(here, there, [RawPrompt("When John pulled"), RawPrompt("The key")], max_new_tokens=8)


def test_chat_messages_a_stop_string_and_a_limit_mean_the_same(here, there):
    prompts = [[{"role": "user", "content": "Repeat: one two three"}]]
    ours, theirs = same(here, there, prompts, max_new_tokens=6)
    assert [c.finish_reason for c in theirs] == [c.finish_reason for c in ours]


def test_a_server_that_ignores_logprobs_is_told_of(there):
    (error,) = there.backend.log_probabilities([RawPrompt("When John pulled")])
    assert isinstance(error, UnsupportedError)
    assert "echo and logprobs" in str(error)


def test_an_unknown_model_is_the_servers_own_words(url, there):
    spec = ModelSpec("other", "openai:other", base_url=f"{url}/v1")
    backend = EndpointBackend(connect(spec, 60.0), retries=0)
    try:
        (error,) = Engine(backend).attempt([Request("hello")])
    finally:
        backend.close()
    assert "answers 400" in str(error)
