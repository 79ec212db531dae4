"""llama.cpp's own server, with a real model: where xllamacpp (34 MB) is installed, as in CI.

pip install --no-deps xllamacpp && pytest tests/engine/endpoints/test_llama_cpp.py -n 0
"""

import importlib
import os
from types import SimpleNamespace

import pytest

from pytest_llmprobe import Engine, GenerateConfig, RawPrompt, Request
from pytest_llmprobe.engine.fidelity import answer_fidelity
from pytest_llmprobe.errors import UnsupportedError
from pytest_llmprobe.models.gguf import packaged_file


@pytest.fixture(scope="module")
def llama_cpp(smollm2_spec):
    try:
        xllamacpp = importlib.import_module("xllamacpp")
    except ImportError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{error}: see this module")
    params = xllamacpp.CommonParams()
    params.model.path = str(packaged_file(smollm2_spec.package))
    params.port, params.n_ctx, params.n_parallel, params.warmup = 0, 2048, 2, False
    # More would wait for one another in a loop, where other processes want the cores.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    yield SimpleNamespace(url=server.listening_address)
    del server


@pytest.mark.parametrize("stream", [False, True])
def test_a_real_server_answers_stops_and_counts(llama_cpp, ask, stream):
    engine = ask(llama_cpp, timeout_s=120.0, concurrency=2, stream=stream)
    question = "What is the capital of France? One word."
    whole, cut, raw = engine.generate(
        [
            Request(question, GenerateConfig(max_new_tokens=12)),
            Request(question, GenerateConfig(max_new_tokens=12, stop=("France",))),
            Request(RawPrompt("The capital of France is"), GenerateConfig(max_new_tokens=3)),
        ]
    )
    assert "Paris" in whole.text
    assert whole.finish_reason == "stop"
    assert whole.text.startswith(cut.text)
    # It cuts before the string and does not tell it from an end of the model's own.
    assert (cut.finish_reason, "France" in cut.text) == ("stop", False)
    assert "Paris" in raw.text
    assert (raw.finish_reason, raw.usage.generated_tokens) == ("length", 3)
    assert whole.usage.prompt_tokens > 10
    assert "SmolLM2" in engine.backend.info["served_model"]
    assert "adapted" not in engine.backend.info


def test_log_probabilities_that_it_cannot_give_are_a_skip_after_one_request(llama_cpp, ask):
    engine = ask(llama_cpp, timeout_s=120.0, concurrency=1)
    outcomes = engine.attempt(
        [Request(RawPrompt("Paris is"), continuation=f" {word}") for word in ("nice", "far", "on")]
    )
    assert {type(outcome) for outcome in outcomes} == {UnsupportedError}
    (text,) = engine.backend.log_probabilities([RawPrompt("Paris is nice")])
    assert isinstance(text, UnsupportedError)
    assert "repeats no prompt" in str(text)


def test_its_divergence_from_the_same_weights_in_this_process_is_that_of_its_arithmetic(
    llama_cpp, ask, smollm2
):
    config = GenerateConfig(max_new_tokens=8)
    asked = {
        "chat": Request("What is the capital of France? One word.", config),
        "text": Request(RawPrompt("The capital of France is"), config),
    }
    own = Engine(smollm2)
    answered = dict(zip(asked, own.generate(list(asked.values())), strict=True))
    looker = answer_fidelity(own)
    kept = {one.name: one for one in looker.keep({n: (asked[n], answered[n]) for n in asked})}
    served = answer_fidelity(ask(llama_cpp, timeout_s=120.0, concurrency=1))
    found = served.compare(looker.maker("smollm2"), kept, asked)
    for name, one in found.items():
        print(name, one["kl_mean"], one["kl_max"], one["remark"], one["pieces"])
        assert one["tokens"] == kept[name].text_tokens
        assert 0 < one["kl_mean"] < 0.1  # it multiplies by 8-bit activations
        assert "".join(one["pieces"]) == kept[name].text
    again = served.keep({name: (asked[name], answered[name]) for name in asked})
    found = served.compare(served.maker("m"), {one.name: one for one in again}, asked)
    assert all(one["kl_max"] < 1e-3 and not one["prompt_changed"] for one in found.values())
