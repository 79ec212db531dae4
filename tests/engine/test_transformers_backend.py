"""The batched path equals plain generate at batch 1, token for token, in fp32."""

import pytest
import torch
from architectures import plain_generate
from transformers import GenerationConfig

from pytest_llmprobe import Engine, GenerateConfig, Request
from pytest_llmprobe.engine.transformers_backend import TransformersBackend
from pytest_llmprobe.errors import InvalidLogitsError, PromptTooLongError, RequestError

SENTENCE = "a red fox went over the hill at noon and then it slept under an old tree by the sea"
PROMPTS = [SENTENCE[: 12 + 9 * i] for i in range(7)]
CONFIG = GenerateConfig(max_new_tokens=12)


def engine(loaded, **options):
    """An engine on this backend, whatever the model could do."""
    return Engine(TransformersBackend(loaded), **options)


def test_batched_equals_one_by_one_equals_plain_generate(tiny_model):
    expected = [plain_generate(tiny_model, prompt) for prompt in PROMPTS]
    batched = engine(tiny_model).generate(PROMPTS, CONFIG)
    alone = engine(tiny_model, batch_size=1).generate(PROMPTS, CONFIG)
    assert [c.token_ids for c in batched] == expected
    assert [c.token_ids for c in alone] == expected
    assert {c.timings.batch_size for c in alone} == {1}
    assert len(set(expected)) > 1  # the models do not all say the same


def test_rows_of_different_length_share_a_batch_where_padding_is_harmless(tiny_model):
    completions = engine(tiny_model).generate(PROMPTS, CONFIG)
    assert tiny_model.capabilities.left_padding
    assert {c.timings.batch_size for c in completions} == {len(PROMPTS)}


def test_where_padding_changes_answers_rows_go_one_by_one(llama):
    from dataclasses import replace

    spoiled = replace(llama, capabilities=replace(llama.capabilities, left_padding=False))
    completions = engine(spoiled).generate(PROMPTS, CONFIG)
    assert {c.timings.batch_size for c in completions} == {1}


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_a_sampled_row_depends_on_its_seed_only(tiny_model, temperature):
    config = GenerateConfig(max_new_tokens=10, temperature=temperature, top_k=50, top_p=0.95)
    requests = [Request(prompt, config, seed=i) for i, prompt in enumerate(PROMPTS)]
    together = engine(tiny_model).generate(requests)
    reordered = engine(tiny_model, batch_size=3).generate(requests[::-1])[::-1]
    alone = engine(tiny_model, batch_size=1).generate(requests)
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    assert [c.token_ids for c in reordered] == [c.token_ids for c in alone]
    other = engine(tiny_model).generate([Request(PROMPTS[0], config, seed=99)])
    assert other[0].token_ids != alone[0].token_ids


def test_configs_do_not_mix(llama):
    short, long = GenerateConfig(max_new_tokens=2), GenerateConfig(max_new_tokens=6)
    requests = [Request(p, long if i % 2 else short) for i, p in enumerate(PROMPTS)]
    completions = engine(llama).generate(requests)
    assert [len(c.token_ids) for c in completions] == [6 if i % 2 else 2 for i in range(7)]


def test_a_stop_string_ends_its_row_only(llama):
    free = engine(llama).generate(PROMPTS, CONFIG)
    stop = next(c.text[2:6] for c in free if len(c.text) > 8)
    stopped = engine(llama).generate(PROMPTS, GenerateConfig(max_new_tokens=12, stop=(stop,)))
    assert {"stop_string"} <= {c.finish_reason for c in stopped}
    for before, after in zip(free, stopped, strict=True):
        if stop in before.text:
            assert after.finish_reason == "stop_string"
            assert after.text == before.text[: before.text.index(stop)]
            assert after.token_ids == before.token_ids[: len(after.token_ids)]
            assert len(after.token_ids) <= len(before.token_ids)
        else:
            assert after.token_ids == before.token_ids


def test_the_end_token_counts_and_is_not_in_the_text(llama):
    (free,) = engine(llama).generate(PROMPTS[:1], CONFIG)
    from dataclasses import replace

    ending = replace(llama, end_ids=(free.token_ids[4],))
    (ended,) = engine(ending).generate(PROMPTS[:1], CONFIG)
    first = free.token_ids.index(free.token_ids[4]) + 1
    assert ended.finish_reason == "stop"
    assert ended.token_ids == free.token_ids[:first]
    assert ended.usage.generated_tokens == first


def test_usage_counts_no_padding(llama):
    completions = engine(llama).generate(PROMPTS, CONFIG)
    backend = TransformersBackend(llama)
    assert [c.usage.prompt_tokens for c in completions] == [len(backend.encode(p)) for p in PROMPTS]


def test_a_prompt_string_and_its_chat_message_are_one_prompt(llama):
    as_string, as_chat = engine(llama).generate(
        ["hello there", [{"role": "user", "content": "hello there"}]], CONFIG
    )
    assert as_string.prompt_hash == as_chat.prompt_hash
    ids = TransformersBackend(llama).encode("hello there")
    assert ids.count(llama.tokenizer.bos_token_id) == 1


def test_chat_messages_need_a_template(llama):
    from dataclasses import replace

    bare = replace(llama, capabilities=replace(llama.capabilities, chat_template=False))
    (outcome,) = engine(bare).attempt([Request([{"role": "user", "content": "hi"}])])
    assert isinstance(outcome, RequestError)
    assert "no chat template" in str(outcome)


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(llama):
    requests = [Request("hello", CONFIG), Request("river " * 1200, CONFIG)]
    fine, refused = engine(llama).attempt(requests)
    assert fine.finish_reason in ("stop", "length")
    assert isinstance(refused, PromptTooLongError)
    assert "1024" in str(refused)


def test_nan_scores_are_an_error_of_the_row(llama, monkeypatch):
    forward = llama.model.forward
    encoded = [TransformersBackend(llama).encode(prompt) for prompt in PROMPTS]
    bad = next(token for token in encoded[-1] if token not in encoded[0])

    def poisoned(input_ids=None, **inputs):
        output = forward(input_ids=input_ids, **inputs)
        output.logits[(input_ids == bad).any(dim=1)] = float("nan")
        return output

    monkeypatch.setattr(llama.model, "forward", poisoned)
    rows = [i for i, ids in enumerate(encoded) if bad in ids]
    outcomes = engine(llama).attempt([Request(p, CONFIG) for p in PROMPTS])
    assert 0 < len(rows) < len(PROMPTS)
    assert [i for i, o in enumerate(outcomes) if isinstance(o, InvalidLogitsError)] == rows


def test_out_of_memory_halves_the_batch_and_keeps_what_is_done(llama, monkeypatch):
    expected = [c.token_ids for c in engine(llama).generate(PROMPTS, CONFIG)]
    generate, sizes = llama.model.generate, []

    def limited(ids, **options):
        sizes.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(ids, **options)

    monkeypatch.setattr(llama.model, "generate", limited)
    completions = engine(llama).generate(PROMPTS, CONFIG)
    assert [c.token_ids for c in completions] == expected
    assert sum(size for size in sizes if size <= 2) == len(PROMPTS)
    assert max(c.timings.batch_size for c in completions) <= 2


def test_a_checkpoints_own_settings_do_not_leak(llama, tmp_path):
    from pytest_llmprobe import load_model

    llama.model.save_pretrained(tmp_path)
    llama.tokenizer.save_pretrained(tmp_path)
    plain = engine(load_model(str(tmp_path))).generate(PROMPTS, CONFIG)
    settings = GenerationConfig(repetition_penalty=1.8, eos_token_id=2, pad_token_id=0)
    settings.save_pretrained(tmp_path)
    with_penalty = engine(load_model(str(tmp_path))).generate(PROMPTS, CONFIG)
    assert [c.token_ids for c in with_penalty] == [c.token_ids for c in plain]
