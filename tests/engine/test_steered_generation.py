"""Steered rows of any batch give the tokens of `steer` and plain generate at batch 1, in fp32."""

from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import pytest
import torch
from architectures import END, PAD, plain_generate, tiny
from test_fast_backend import ALONE, HAYSTACK, QUESTIONS, SHARED, count_forwards
from transformers import GenerationConfig

from pytest_llmprobe import Engine, GenerateConfig, Request, ScriptedModel, Span, Steer, steer
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.errors import RequestError, SteeringError
from pytest_llmprobe.whitebox.spans import locate

FAST = ["llama", "gpt2", "gpt_neox", "qwen3", "olmo2", "opt"]
FAST += ["mistral", "gemma2", "gemma3_text", "cohere2"]
SLOW = ["falcon_h1", "lfm2"]
BEFORE, INSIDE = "the red stone is here", "the grey stone is far"
CONFIG = GenerateConfig(max_new_tokens=10)
# Spans before, inside and after what the prompts share; levels; several spans; no steering.
STEERED = [
    (SHARED[0], Steer(BEFORE, 2)),
    (SHARED[1], Steer(BEFORE, 2)),
    (SHARED[2], Steer(BEFORE, -3)),
    (SHARED[3], Steer(INSIDE, 2)),
    (SHARED[4], Steer(INSIDE, 2)),
    (SHARED[5], Steer(INSIDE, 4)),
    (SHARED[0], Steer(QUESTIONS[0], 3)),
    (SHARED[1], Steer(QUESTIONS[1], 1)),
    (SHARED[2], Steer([Span(INSIDE, 0.5), Span(QUESTIONS[2], 2)], 2)),
    (SHARED[3], None),
    (SHARED[4], Steer(BEFORE, 0)),
    (ALONE[0], Steer("red", 3)),
    (ALONE[2], Steer("river", -2)),
    (ALONE[3], Steer(Span("the", occurrence=1), 5)),
    (ALONE[1], None),
]


def requests_of(steered=STEERED, config=CONFIG, drafts=None, **how):
    """Requests, all of them in the layers and the phase of ``how``; answers are steered, too."""
    drafts, how = drafts or [None] * len(steered), {"phase": "all"} | how
    return [
        Request(p, config, 0, d, s and Steer(s.spans, s.delta, **how))
        for (p, s), d in zip(steered, drafts, strict=True)
    ]


@cache
def alone(architecture, prompt, steering, tokens=10):
    """The oracle: the prompt by itself, by the white-box context and transformers' own generate."""
    model = tiny(architecture)
    if steering is None:
        return plain_generate(model, prompt, tokens)
    row = locate(model, prompt, steering.spans)
    settings = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, eos_token_id=[END], pad_token_id=PAD
    )
    ids = torch.tensor([row.ids])
    with steer(model, row, delta=steering.delta, layers=steering.layers, phase=steering.phase):
        output = model.model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=settings
        )
    return tuple(output[0, ids.shape[1] :].tolist())


def expected(architecture, requests):
    return [alone(architecture, request.prompt, request.steer) for request in requests]


def tokens(engine, requests):
    return [completion.token_ids for completion in engine.generate(requests)]


@pytest.mark.parametrize("architecture", FAST + SLOW)
def test_every_path_steers_each_row_as_if_it_were_alone(architecture):
    model, requests = tiny(architecture), requests_of()
    assert FastBackend(model).shares_prefixes == (architecture in FAST)
    answers = expected(architecture, requests)
    unsteered = expected(architecture, requests_of([(p, None) for p, _ in STEERED]))
    assert sum(a != b for a, b in zip(answers, unsteered, strict=True)) >= 4
    assert tokens(Engine(model), requests) == answers
    assert tokens(Engine(model, batch_size=3), requests[::-1])[::-1] == answers
    assert tokens(Engine(model, batch_size=1), requests) == answers


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_drafts_right_or_wrong_change_no_steered_token(architecture):
    model = tiny(architecture)
    answers = expected(architecture, requests_of())
    said = [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
    for drafts in (
        answers,
        said[1:] + said[:1],
        [text[: len(text) // 2] + " no" for text in said],
        ["x " * 99] * len(said),
    ):
        assert tokens(Engine(model), requests_of(drafts=drafts)) == answers
    assert tokens(Engine(model, drafts=False), requests_of()) == answers


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text"])
@pytest.mark.parametrize(
    "how",
    [{"phase": "prefill"}, {"layers": "first"}, {"layers": (0, 2), "phase": "prefill"}],
    ids=str,
)
def test_phases_and_layers_are_those_of_the_white_box(architecture, how):
    model, requests = tiny(architecture), requests_of(**how)
    answers = expected(architecture, requests)
    assert answers != expected(architecture, requests_of())
    assert tokens(Engine(model), requests) == answers
    drafts = requests_of(drafts=[ids[:6] for ids in answers], **how)
    assert tokens(Engine(model), drafts) == answers


def test_one_call_may_mix_layers_phases_and_configs(llama):
    requests = [
        Request(p, GenerateConfig(n), 0, None, s and Steer(s.spans, s.delta, layers, phase))
        for p, s in STEERED[:9:2]
        for n, layers, phase in [(10, "all", "all"), (10, "last", "all"), (4, "last", "prefill")]
    ]
    answers = [
        alone("llama", request.prompt, request.steer)[: request.config.max_new_tokens]
        for request in requests
    ]
    assert tokens(Engine(llama), requests) == answers


def test_sampling_of_a_steered_row_depends_on_the_row_only(llama):
    config = GenerateConfig(max_new_tokens=8, temperature=0.9, top_k=40)
    requests = requests_of(config=config)
    one_by_one = tokens(Engine(llama, batch_size=1), requests)
    assert tokens(Engine(llama), requests) == one_by_one


@pytest.mark.parametrize("phase", ["all", "prefill"])
def test_rows_that_are_redone_alone_are_steered_too(llama, monkeypatch, phase):
    requests = [replace(r, steer=r.steer and replace(r.steer, phase=phase)) for r in requests_of()]
    answers = expected("llama", requests)
    monkeypatch.setattr("pytest_llmprobe.engine.fast_backend.CLOSE_CALL", float("inf"))
    for tie in (0, float("inf")):
        monkeypatch.setattr("pytest_llmprobe.engine.fast_backend.TIE", tie)
        completions = Engine(llama).generate(requests)
        assert [completion.token_ids for completion in completions] == answers
        assert sum(completion.redone for completion in completions) > 10


def test_rows_leave_a_steered_batch_at_different_times(llama):
    requests = [request for request in requests_of() if request.prompt in ALONE]
    answers = expected("llama", requests)
    ending = replace(llama, end_ids=(answers[0][3], answers[2][7]))
    slow = tokens(Engine(ending, batch_size=1), requests)
    assert tokens(Engine(ending), requests) == slow
    assert len(set(map(len, slow))) > 1


# Delta 0


def passes(model, monkeypatch, requests):
    """The logits of every pass, and the attention that each went through."""
    forward, seen = model.model.forward, []

    def watched(*args, **inputs):
        output = forward(*args, **inputs)
        seen.append((model.model.config._attn_implementation, output.logits.clone()))
        return output

    with monkeypatch.context() as patch:
        patch.setattr(model.model, "forward", watched)
        Engine(model).generate(requests)
    return seen


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text"])
@pytest.mark.parametrize("prompts", [SHARED, ALONE])
def test_delta_0_is_the_unsteered_computation_bit_for_bit(architecture, prompts, monkeypatch):
    model = tiny(architecture)
    plain = passes(model, monkeypatch, [Request(p, CONFIG) for p in prompts])
    steers = [Steer(p[:5], 0, phase=("all", "prefill")[n % 2]) for n, p in enumerate(prompts)]
    zero = [
        Request(p, CONFIG, steer=s and Steer([Span(p[:5], occurrence=0)], 0, phase=s.phase))
        for p, s in zip(prompts, steers, strict=True)
    ]
    same = passes(model, monkeypatch, zero)
    assert len(plain) == len(same)
    for (kind, logits), (same_kind, same_logits) in zip(plain, same, strict=True):
        assert kind == same_kind
        assert torch.equal(logits, same_logits)


def test_unsteered_rows_are_computed_apart_from_steered_ones(llama, monkeypatch):
    unsteered = [Request(p, CONFIG) for p in SHARED]
    plain = passes(llama, monkeypatch, unsteered)
    mixed = passes(llama, monkeypatch, [*requests_of(STEERED[:9]), *unsteered])
    assert len(mixed) > len(plain)
    assert all(any(torch.equal(a, b) for _, b in mixed) for _, a in plain)


# Sharing and memory


@pytest.mark.parametrize(
    ("steers", "shared"),
    [
        ([Steer(f"{q}?", n + 1) for n, q in enumerate(QUESTIONS)], "all"),
        ([Steer(BEFORE, 2)] * 6, "all"),
        ([Steer(BEFORE, n + 1) for n in range(6)], "nothing"),
        ([Steer(INSIDE, n + 1) for n in range(6)], "half"),
    ],
    ids=["after", "before, one Delta", "before, six Deltas", "inside, six Deltas"],
)
def test_steered_rows_share_keys_as_far_as_ids_and_biases_agree(llama, monkeypatch, steers, shared):
    engine = Engine(llama, drafts=False)
    counts = count_forwards(llama, monkeypatch)
    rows = [Request(p, GenerateConfig(1), steer=s) for p, s in zip(SHARED, steers, strict=True)]
    monkeypatch.setattr("pytest_llmprobe.engine.fast_backend.CLOSE_CALL", 0)
    engine.generate(rows)
    lengths = [len(engine.backend.encode(prompt)) for prompt in SHARED]
    least, most = min(lengths), sum(lengths)
    bounds = {
        "all": (least, least + 20 * len(SHARED)),
        "nothing": (most, most),
        "half": (most / 3, most * 2 / 3),
    }
    low, high = bounds[shared]
    assert low <= sum(counts) <= high


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_when_memory_runs_out_steered_batches_are_halved(architecture, monkeypatch):
    model, requests = tiny(architecture), requests_of()
    receive, tried = FastBackend.receive, []

    def limited(self, rows, *told):
        tried.append(len(rows))
        how = rows[0].steering
        block = how and steer(self.model, layers=how.layers, phase=how.phase)
        with block or nullcontext():  # left by an exception
            if len(rows) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return receive(self, rows, *told)

    monkeypatch.setattr(FastBackend, "receive", limited)
    assert tokens(Engine(model), requests) == expected(architecture, requests)
    assert max(tried) > 2
    assert sum(size for size in tried if size <= 2) == len(requests)
    assert not model.model.config._attn_implementation.startswith("llmprobe")


# What a completion says, and what cannot be steered


def test_a_completion_says_what_was_steered_and_in_how_many_layers(llama):
    requests = requests_of([STEERED[0], STEERED[8], STEERED[9], STEERED[10]], layers=(0, 2))
    completions = Engine(llama).generate(requests)
    texts = [tuple(map(str.strip, completion.steered)) for completion in completions]
    assert texts == [(BEFORE,), (INSIDE, QUESTIONS[2]), (), ()]
    assert [completion.steered_layers for completion in completions] == [2, 2, 0, 0]


def test_layers_whose_window_has_moved_on_do_not_count():
    model = tiny("gemma3_text")  # the middle one of its three layers sees everything
    near, far = Steer(QUESTIONS[0], 2), Steer(BEFORE, 2)
    completions = Engine(model).generate(requests_of([(SHARED[0], near), (SHARED[0], far)]))
    assert [completion.steered_layers for completion in completions] == [3, 1]


def test_a_spans_text_is_in_the_tokens_that_are_biased(llama):
    backend = FastBackend(llama)
    for prompt, steering in STEERED:
        if steering is not None and steering.delta:
            row = backend.steering(prompt, steering)
            ids = backend.encode(prompt)
            assert len(row.bias) == len(ids)
            biased = [token for token, bias in zip(ids, row.bias, strict=True) if bias]
            said = llama.tokenizer.decode(biased)
            assert all(span.text in said for span in steering.spans)


@pytest.mark.parametrize("architecture", ["mamba", "bloom", "gptj"])
def test_a_model_that_cannot_be_steered_says_why_and_answers_the_others(architecture):
    outcomes = Engine(tiny(architecture)).attempt(requests_of(STEERED[8:12]))
    assert [isinstance(outcome, SteeringError) for outcome in outcomes] == [1, 0, 0, 1]
    assert "cannot be steered: " in str(outcomes[0])


def test_generate_raises_what_cannot_be_steered():
    with pytest.raises(SteeringError, match="a scripted model has no attention"):
        Engine(ScriptedModel(str.upper)).generate([Request("a b", steer=Steer("b", 1))])
    (answer,) = Engine(ScriptedModel(str.upper)).generate([Request("a b", steer=Steer("b", 0))])
    assert (answer.text, answer.steered) == ("A B", ())


@pytest.mark.parametrize(
    ("steering", "words"),
    [
        (Steer("the green sea", 1), "does not hold 'the green sea'"),
        (Steer("stone", 1), "holds 'stone' 24 times"),
        (Steer(BEFORE, 1, layers=(0, 9)), "layer 9 cannot be steered"),
    ],
)
def test_a_wrong_span_or_layer_is_an_error_of_its_request_and_no_reason_to_skip(
    llama, steering, words
):
    wrong, fine = Engine(llama).attempt(requests_of_raw([(SHARED[0], steering), STEERED[0]]))
    assert isinstance(wrong, RequestError)
    assert not isinstance(wrong, SteeringError)
    assert words in str(wrong)
    assert fine.steered


def requests_of_raw(pairs):
    return [Request(prompt, CONFIG, steer=steering) for prompt, steering in pairs]


def test_a_span_that_the_template_drops_cannot_be_steered(llama, monkeypatch):
    template = "{{ bos_token }}{{ messages[-1]['content'] }} so:"
    monkeypatch.setattr(llama.tokenizer, "chat_template", template)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    outcomes = Engine(llama).attempt([Request(chat, CONFIG, steer=Steer("Be brief", 1))])
    assert isinstance(outcomes[0], SteeringError)
    assert "drops 'Be brief'" in str(outcomes[0])


def test_a_tokenizer_without_offsets_cannot_be_steered(llama, monkeypatch):
    monkeypatch.setattr(type(llama.tokenizer), "is_fast", False)
    outcomes = Engine(llama).attempt(requests_of_raw([STEERED[0]]))
    assert isinstance(outcomes[0], SteeringError)
    assert "use a model with a fast tokenizer" in str(outcomes[0])


def test_the_haystack_is_long_enough_to_be_shared(llama):
    assert len(FastBackend(llama).encode(HAYSTACK)) > 128
