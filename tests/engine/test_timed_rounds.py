"""What a round of generation took: every token computed, and the first one told apart."""

from dataclasses import replace

import pytest
from architectures import tiny

from pytest_llmprobe import Engine, GenerateConfig, ScriptedModel
from pytest_llmprobe.engine.completion_file import begin
from pytest_llmprobe.engine.completion_store import CompletionStore
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.speed import Round, timed
from pytest_llmprobe.errors import PromptTooLongError

PROMPTS = ["the red stone is here", "say the blue stone again and again", "why"]
NEW = 12


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
def test_every_answer_has_all_its_tokens_whatever_the_model_says(architecture, tmp_path):
    loaded = tiny(architecture)
    said = Engine(loaded).generate(PROMPTS, GenerateConfig(max_new_tokens=NEW))
    loaded = replace(loaded, end_ids=tuple({answer.token_ids[2] for answer in said}))
    backend = FastBackend(loaded)
    engine = Engine(backend)
    short = engine.generate(PROMPTS, GenerateConfig(max_new_tokens=NEW))
    assert max(len(answer.token_ids) for answer in short) <= 3
    begin(tmp_path / "kept", {})
    engine.store = CompletionStore(tmp_path / "kept", backend.info)
    kept = (tmp_path / "kept").read_bytes()
    found = timed(engine, PROMPTS, NEW)
    assert (found.rows, found.generated_tokens) == (len(PROMPTS), len(PROMPTS) * NEW)
    assert found.prompt_tokens == sum(len(backend.encode(prompt)) for prompt in PROMPTS)
    assert 0 < found.first_token_s < found.seconds
    assert found.memory > 2**20
    assert (tmp_path / "kept").read_bytes() == kept
    assert engine.store is not None
    first = timed(engine, PROMPTS[:1], 1)
    assert (first.generated_tokens, first.first_token_s) == (1, first.seconds)
    again = engine.generate(PROMPTS, GenerateConfig(max_new_tokens=NEW))
    assert [a.token_ids for a in again] == [s.token_ids for s in short]


def test_rates_are_of_the_tokens_before_and_after_the_first():
    found = Round(3.0, 1.0, 800, 5 * 9, 5, None)
    assert found.prefill_tokens_per_s == 800
    assert found.decode_tokens_per_s == (45 - 5) / 2.0
    assert replace(found, first_token_s=None).decode_tokens_per_s is None
    assert replace(found, prompt_tokens=None).prefill_tokens_per_s is None
    assert replace(found, generated_tokens=5).decode_tokens_per_s is None


def test_what_is_elsewhere_tells_no_memory_and_perhaps_no_first_token():
    found = timed(Engine(ScriptedModel(lambda prompt: "abcd")), PROMPTS, 4)
    assert (found.first_token_s, found.memory, found.generated_tokens) == (None, None, 12)
    one = timed(Engine(ScriptedModel(lambda prompt: "abcd")), PROMPTS, 1)
    assert one.first_token_s == one.seconds


def test_a_prompt_that_does_not_fit_is_an_error():
    with pytest.raises(PromptTooLongError):
        timed(Engine(ScriptedModel(str.upper, context_length=5)), PROMPTS, 1)
