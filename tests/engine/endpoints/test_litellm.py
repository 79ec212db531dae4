"""LiteLLM's proxy before a server, in both of its protocols: where a program `litellm` is found.

python3 -m venv litellm && litellm/bin/pip install 'litellm[proxy]'
PATH=$PATH:$PWD/litellm/bin pytest tests/engine/endpoints/test_litellm.py -n 0
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from types import SimpleNamespace

import pytest
from loopback import Loopback, Reply, chat

from pytest_llmprobe import GenerateConfig, Request
from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
from pytest_llmprobe.engine.endpoints.connection import connect
from pytest_llmprobe.engine.endpoints.engine import EndpointEngine
from pytest_llmprobe.errors import OutageError, PromptTooLongError, RequestError, ServerError
from pytest_llmprobe.models.registry import ModelSpec

PATIENCE_S = 180


def upstream(asked):
    prompt = asked.prompt if isinstance(asked.prompt, str) else asked.prompt[0]["text"]
    if prompt == "too long":
        words = "This model's maximum context length is 10 tokens, and the prompt has 99"
        return Reply({"error": {"message": words, "code": 400}}, 400)
    if prompt == "too bold":
        return Reply({"error": {"message": "that is no prompt", "code": 400}}, 400)
    said = chat(prompt.split()[-1], "length" if prompt == "say much" else "stop")
    if not asked.body.get("stream"):
        return said
    choice = said["choices"][0]
    first = said | {"object": "chat.completion.chunk", "usage": None}
    delta = {"index": 0, "delta": choice["message"], "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    events = [first | {"choices": [delta]}, first | {"choices": [last]}]
    events.append(first | {"choices": [], "usage": said["usage"]})
    lines = [*map(json.dumps, events), "[DONE]"]
    body = "".join(f"data: {line}\n\n" for line in lines).encode()
    return Reply(body, headers={"content-type": "text/event-stream"})


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    """A proxy that knows one model, which a server on loopback answers for."""
    if (program := shutil.which("litellm")) is None:
        pytest.skip("no program `litellm` is found: see this module")
    server, folder = Loopback(upstream), tmp_path_factory.mktemp("litellm")
    behind = {"model": "hosted_vllm/m", "api_base": f"{server.url}/v1", "api_key": "none"}
    model = {"model_name": "m", "litellm_params": behind}
    (folder / "config.yaml").write_text(json.dumps({"model_list": [model]}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    }
    environment.pop("PYTHONPATH", None)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *options], cwd=folder, stdout=log, stderr=log, env=environment
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/health/liveliness", process, folder / "log")
        yield SimpleNamespace(url=url, asked=server.asked)
    finally:
        process.terminate()
        process.wait()
        server.close()


def _wait_for(url, process, log):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"the proxy did not start:\n{log.read_text()[-3000:]}")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_answers_pass_through(proxy, ask, protocol, stream):
    engine = ask(proxy, protocol, timeout_s=60.0, stream=stream)
    greedy = GenerateConfig(max_new_tokens=20)
    plain, much, cut = engine.generate(
        [
            Request([{"role": "system", "content": "Be brief."}, _user("say plain")], greedy),
            Request("say much", greedy),
            Request("say interesting", GenerateConfig(max_new_tokens=20, stop=("rest",))),
        ]
    )
    assert (plain.text, plain.finish_reason) == ("plain", "stop")
    assert (plain.usage.prompt_tokens, plain.usage.generated_tokens) == (3, 2)
    assert (much.text, much.finish_reason) == ("much", "length")
    assert (cut.text, cut.finish_reason) == ("inte", "stop_string")
    assert any("system" in str(asked.body["messages"]) for asked in proxy.asked)


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_errors_keep_the_servers_words(proxy, ask, protocol):
    before = len(proxy.asked)
    engine = ask(proxy, protocol, timeout_s=60.0, concurrency=1)
    long, bold, well = engine.attempt([Request(p) for p in ("too long", "too bold", "say well")])
    assert isinstance(long, PromptTooLongError)
    assert isinstance(bold, RequestError)
    assert "that is no prompt" in str(bold)
    assert well.text == "well"
    assert len(proxy.asked) - before == 3


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_a_model_that_it_does_not_know_ends_the_run(proxy, protocol):
    before = len(proxy.asked)
    base = f"{proxy.url}/v1" if protocol == "openai" else proxy.url
    backend = EndpointBackend(connect(ModelSpec("m", f"{protocol}:absent", base_url=base), 60.0))
    outcomes = EndpointEngine(backend).attempt([Request(f"say {n}") for n in range(5)])
    backend.close()
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [ServerError, ServerError, OutageError, OutageError, OutageError]  # a 400 each
    assert "absent" in str(outcomes[-1])
    assert len(proxy.asked) == before


def _user(text):
    return {"role": "user", "content": text}
