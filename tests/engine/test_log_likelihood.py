"""Given continuations: the shared passes give what plain forward passes of each text give."""

from dataclasses import replace

import pytest
import torch

from pytest_llmprobe import Engine, RawPrompt, Request
from pytest_llmprobe.engine.log_likelihood import rolling_windows
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.errors import PromptTooLongError, RequestError
from pytest_llmprobe.generation import GenerateConfig

SHOTS = "a b c d e f g h. " * 12
REQUESTS = [
    Request(RawPrompt(context), continuation=continuation)
    for context in (SHOTS + "one of", SHOTS + "two of", "short", "ends in a space ")
    for continuation in (" A", " B", " many more words than one", " many")
]


def by_hand(loaded, context, continuation):
    """As lm-evaluation-harness: the tokens of both, less those of the context without its end."""
    kept = context.rstrip()
    moved = context[len(kept) :] + continuation
    whole = loaded.tokenizer(kept + moved)["input_ids"]
    first = len(loaded.tokenizer(kept)["input_ids"])
    with torch.no_grad():
        logits = loaded.model(torch.tensor([whole[:-1]])).logits[0].float().log_softmax(-1)
    ids, logits = torch.tensor(whole[first:]), logits[first - 1 :]
    value = logits.gather(-1, ids[:, None]).sum().item()
    return value, torch.equal(logits.argmax(-1), ids)


def test_every_architecture_scores_what_its_own_forward_pass_does(tiny_model):
    answers = Engine(tiny_model).generate(REQUESTS)
    for request, answer in zip(REQUESTS, answers, strict=True):
        value, most_likely = by_hand(tiny_model, request.prompt.text, request.continuation)
        assert answer.log_likelihood == pytest.approx(value, abs=1e-4)
        assert answer.most_likely == most_likely
        assert answer.usage.generated_tokens == 0


def test_what_greedy_decoding_says_is_most_likely(llama):
    engine = Engine(llama)
    (said,) = engine.generate([RawPrompt("the cat")], GenerateConfig(max_new_tokens=3))
    ids = tuple(llama.tokenizer("the cat")["input_ids"])
    row = Row(0, ids, GenerateConfig(), continuation=said.token_ids)
    other = Row(1, ids, GenerateConfig(), continuation=(*said.token_ids[:-1], 7))
    right, wrong = engine.backend.generate([row, other], lambda _: None)
    assert right.most_likely
    assert right.log_likelihood > wrong.log_likelihood
    assert wrong.most_likely == (said.token_ids[-1] == 7)


def test_a_prompt_of_many_choices_is_computed_once(llama):
    engine, fed = Engine(llama), []
    hook = llama.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: fed.append(given[0].numel())
    )
    try:
        engine.generate([Request(RawPrompt(SHOTS), continuation=f" {c}") for c in "ABCD"])
    finally:
        hook.remove()
    context = len(llama.tokenizer(SHOTS.rstrip())["input_ids"])
    assert sum(fed) < context + 40


def windows_of_lm_eval(tokens, prefix, longest):
    """Its get_rolling_token_windows with a context of one token, then make_disjoint_window."""
    first = min(longest, len(tokens))
    found = [([prefix, *tokens[: first - 1]], tokens[:first])]
    predicted = first
    while predicted < len(tokens):
        count = min(len(tokens) - predicted, longest)
        end = predicted + count
        found.append((tokens[end - longest - 1 : end - 1], tokens[end - count : end]))
        predicted += count
    return [(a[: len(a) - (len(b) - 1)], b) for a, b in found]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 17, 40])
def test_long_texts_are_measured_in_the_windows_of_lm_evaluation_harness(count):
    tokens = list(range(100, 100 + count))
    row = Row(0, (1,), GenerateConfig(), continuation=tuple(tokens))
    found = [(list(a), list(b)) for a, b in rolling_windows(row, 8)]
    assert found == windows_of_lm_eval(tokens, 1, 8)
    assert [token for _, following in found for token in following] == tokens


def test_a_prompt_with_a_choice_that_is_too_long_is_refused_and_a_text_is_not(llama):
    engine = Engine(llama)
    engine.backend.context_length = 64
    long = Request(RawPrompt("a b c " * 40), continuation=" d")
    (outcome,) = engine.attempt([long])
    assert isinstance(outcome, PromptTooLongError)
    (empty,) = engine.attempt([Request(RawPrompt("a"), continuation="")])
    assert isinstance(empty, RequestError)
    assert "no tokens" in str(empty)


def test_a_short_text_that_the_context_does_not_hold_is_measured_in_windows(llama):
    small = replace(llama, capabilities=replace(llama.capabilities, context_length=16))
    (answer,) = Engine(small).generate([Request(RawPrompt(""), continuation="a b c d e " * 8)])
    first = llama.tokenizer.bos_token_id
    first = llama.tokenizer.eos_token_id if first is None else first
    ids = list(answer.token_ids)
    total = 0.0
    for context, following in windows_of_lm_eval(ids, first, 16):
        with torch.no_grad():
            logits = llama.model(torch.tensor([[*context, *following[:-1]]])).logits[0]
        logits = logits.float().log_softmax(-1)[len(context) - 1 :]
        total += logits.gather(-1, torch.tensor(following)[:, None]).sum().item()
    assert len(ids) > 16
    assert answer.log_likelihood == pytest.approx(total, abs=1e-3)
