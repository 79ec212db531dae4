"""Every path gives the tokens of plain generate at batch 1, in fp32, on every architecture."""

import time
from dataclasses import replace

import pytest
import torch
from architectures import ARCHITECTURES, PACKED, TURNED, WINDOWS, plain_generate, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe import Engine, GenerateConfig, Request, load_model
from pytest_llmprobe.engine.endings import Endings
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.memory import TreeMemory
from pytest_llmprobe.engine.planning import Row

HAYSTACK = " ".join(
    f"the {colour} stone is {place},"
    for colour in ["red", "blue", "green", "grey", "old", "new"]
    for place in ["here", "there", "far", "near"]
)
OTHER = HAYSTACK.replace("stone", "river")
QUESTIONS = ["where is it", "what is red", "why", "say old and new and far", "the blue stone", "hm"]
SHARED = [f"{HAYSTACK} {question}?" for question in QUESTIONS]
TWO_LEVELS = [
    f"{HAYSTACK} {text} {question}?"
    for text in (OTHER, OTHER.replace("river", "tree"))
    for question in QUESTIONS[:3]
]
ALONE = ["a red stone", HAYSTACK[:90], "why is the river here", OTHER[40:190], "hm", "far and near"]
CONFIG = GenerateConfig(max_new_tokens=12)
WORKLOADS = {"shared": SHARED, "two levels": TWO_LEVELS, "alone": ALONE, "mixed": SHARED + ALONE}


def answers(engine, prompts, config=CONFIG, drafts=None, seeds=None):
    drafts = drafts or [None] * len(prompts)
    seeds = seeds or [0] * len(prompts)
    requests = [
        Request(*asked)
        for asked in zip(prompts, [config] * len(prompts), seeds, drafts, strict=True)
    ]
    return [completion.token_ids for completion in engine.generate(requests)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_path_gives_the_tokens_of_plain_generate(architecture):
    model = tiny(architecture)
    backend = FastBackend(model)
    assert backend.shares_prefixes == (architecture in PACKED)
    assert backend.info["capabilities"]["packed_rows"] == (architecture in PACKED)
    prompts = [*SHARED, *TWO_LEVELS, *ALONE]
    expected = [plain_generate(model, prompt) for prompt in prompts]
    assert len(set(expected)) > 3
    assert answers(Engine(model), prompts) == expected
    assert answers(Engine(model, drafts=False), prompts) == expected
    assert answers(Engine(model, batch_size=4), prompts) == expected
    assert answers(Engine(model, batch_size=1), prompts) == expected


@pytest.mark.parametrize("architecture", WINDOWS)
def test_layers_that_see_a_window_share_prefixes(architecture):
    model = tiny(architecture)
    assert FastBackend(model).shares_prefixes
    prompts = [*SHARED[:3], *TWO_LEVELS[:2], *TWO_LEVELS[3:5], *ALONE[:2]]
    expected = [plain_generate(model, prompt, 6) for prompt in prompts]
    assert len(set(expected)) > 1
    completions = Engine(model).generate(prompts, GenerateConfig(6))
    assert [c.token_ids for c in completions] == expected
    assert max(c.timings.batch_size for c in completions) > 3
    assert not all(c.redone for c in completions)


def test_a_short_answer_is_complete_before_its_batch_ends():
    engine = Engine(tiny("llama"))
    lengths = [2, 24, 24, 24]
    requests = [Request(p, GenerateConfig(n)) for p, n in zip(SHARED, lengths, strict=False)]
    start = time.perf_counter()
    timings = [completion.timings for completion in engine.generate(requests)]
    passed = time.perf_counter() - start
    assert {t.batch_size for t in timings} == {4}
    assert 0 < timings[0].wall_s < min(t.wall_s for t in timings[1:])
    assert max(t.wall_s for t in timings) <= sum(t.generation_s for t in timings) + 1e-9
    assert sum(t.generation_s for t in timings) <= passed


@pytest.mark.parametrize("architecture", TURNED)
def test_long_rows_do_not_turn_others_nor_are_cut_into_passes(architecture):
    model = tiny(architecture)
    shared = [prompt[-150:] for prompt in SHARED]
    prompts = [*SHARED[:2], *shared, *ALONE]
    expected = [plain_generate(model, prompt) for prompt in prompts]
    lengths = [len(model.tokenizer(prompt).input_ids) + CONFIG.max_new_tokens for prompt in prompts]
    assert min(lengths) < 60
    assert max(lengths) > 200
    assert answers(Engine(model), prompts) == expected
    assert answers(Engine(model, batch_size=4), prompts) == expected
    assert answers(Engine(model, batch_size=1), prompts[::-1]) == expected[::-1]
    beams = replace(CONFIG, num_beams=2)
    alone, other = [Engine(model).generate([prompt], beams)[0] for prompt in shared[:2]]
    Engine(model).generate(SHARED[:1], beams)  # a longer one
    again = Engine(model).generate(shared[:2], beams)
    assert [a.token_ids for a in again] == [alone.token_ids, other.token_ids]
    assert FastBackend(model).shares_prefixes


@pytest.mark.parametrize("ids", [(999_999,), (-1,), (2**70,), (5, 2048, 6)])
def test_a_draft_of_tokens_that_the_model_has_not_is_no_draft(llama, ids):
    expected = answers(Engine(llama), SHARED[:3])
    assert answers(Engine(llama), SHARED[:3], drafts=[ids, None, ids]) == expected


class BytesThatBreak:
    """A tokenizer like Llama 2's: an end of a character that is missing spoils all after it."""

    def decode(self, tokens, skip_special_tokens):
        broken = 7 in tokens
        return "".join("\ufffd" if broken else chr(token) for token in tokens)


def test_a_stop_string_that_the_whole_answer_does_not_show_loses_nothing():
    config = GenerateConfig(max_new_tokens=20, stop=("\n\n",))
    reader = Endings(BytesThatBreak(), frozenset()).reader(Row(0, (), config))
    ended = [reader.add(token) for token in [7, *[10] * 12]]
    assert ended == [None] * 12 + ["stop_string"]
    found = reader.generated()
    assert (found.text, found.finish_reason) == ("\ufffd" * 13, "stop_string")


@pytest.fixture(scope="module", params=["llama", "gpt2", "qwen3"])
def packed_model(request):
    return tiny(request.param)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_drafts_change_no_token(packed_model, workload):
    prompts = WORKLOADS[workload]
    expected = [plain_generate(packed_model, prompt) for prompt in prompts]
    said = [packed_model.tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]
    adversarial = [text[: len(text) // 2] + " no" for text in said]
    for drafts in (
        said,
        said[1:] + said[:1],
        [""] * len(said),
        adversarial,
        ["x " * 99] * len(said),
    ):
        assert answers(Engine(packed_model), prompts, drafts=drafts) == expected


@pytest.mark.parametrize("workload", WORKLOADS)
def test_sampling_depends_on_the_row_only(packed_model, workload):
    prompts = WORKLOADS[workload]
    seeds = list(range(len(prompts)))
    config = GenerateConfig(max_new_tokens=10, temperature=0.9, top_k=40, top_p=0.95)
    alone = answers(Engine(packed_model, batch_size=1), prompts, config, seeds=seeds)
    assert answers(Engine(packed_model), prompts, config, seeds=seeds) == alone
    backwards = answers(
        Engine(packed_model, batch_size=3), prompts[::-1], config, seeds=seeds[::-1]
    )
    assert backwards[::-1] == alone
    said = [packed_model.tokenizer.decode(ids) for ids in alone]
    assert answers(Engine(packed_model), prompts, config, drafts=said, seeds=seeds) == alone
    assert answers(Engine(packed_model), prompts, config, seeds=[s + 1 for s in seeds]) != alone


def test_stop_strings_end_rows_alike_on_every_path(llama):
    free = Engine(llama, batch_size=1).generate(SHARED + ALONE, CONFIG)
    stop = next(c.text[2:5] for c in free if len(c.text) > 8)
    config = GenerateConfig(max_new_tokens=12, stop=(stop, "nobody says this"))
    slow = Engine(llama, batch_size=1).generate(SHARED + ALONE, config)
    fast = Engine(llama).generate(SHARED + ALONE, config)
    assert [(c.text, c.token_ids, c.finish_reason) for c in fast] == [
        (c.text, c.token_ids, c.finish_reason) for c in slow
    ]
    assert "stop_string" in {c.finish_reason for c in fast}


def test_end_tokens_end_rows_alike_on_every_path(llama):
    free = Engine(llama, batch_size=1).generate(SHARED + ALONE, CONFIG)
    ends = tuple({c.token_ids[i % 9] for i, c in enumerate(free)})
    ending = replace(llama, end_ids=ends)
    slow = Engine(ending, batch_size=1).generate(SHARED + ALONE, CONFIG)
    fast = Engine(ending).generate(SHARED + ALONE, CONFIG)
    assert [(c.token_ids, c.finish_reason) for c in fast] == [
        (c.token_ids, c.finish_reason) for c in slow
    ]
    assert {c.finish_reason for c in fast} >= {"stop"}
    assert len({len(c.token_ids) for c in fast}) > 2  # rows leave at different times


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 80), st.integers(1, 30)), min_size=1, max_size=9
    ),
    st.data(),
)
def test_any_mix_of_prompts_and_drafts(shapes, data):
    model = tiny("llama")
    prompts = [HAYSTACK[: 100 * k] + OTHER[a : a + b] for k, a, b in shapes]
    expected = [plain_generate(model, prompt, 5) for prompt in prompts]
    said = [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]
    drafts = [data.draw(st.sampled_from([None, text, text[:3], "other words"])) for text in said]
    assert answers(Engine(model), prompts, GenerateConfig(5), drafts) == expected


def count_forwards(model, monkeypatch):
    forward, counts = model.model.forward, []

    def counted(input_ids=None, **inputs):
        counts.append(input_ids.numel())
        return forward(input_ids=input_ids, **inputs)

    monkeypatch.setattr(model.model, "forward", counted)
    return counts


def test_a_long_or_impossible_text_is_hardly_tried(llama, monkeypatch):
    engine = Engine(llama)
    counts = count_forwards(llama, monkeypatch)
    engine.generate([Request(ALONE[0], GenerateConfig(500), draft="x y " * 400)])
    assert counts[0] <= len(engine.backend.encode(ALONE[0])) + 24
    (completion,) = engine.generate([Request(ALONE[0], CONFIG, draft="\ud800")])
    assert completion.token_ids == plain_generate(llama, ALONE[0])


def test_a_shared_prefix_is_computed_once(llama, monkeypatch):
    engine = Engine(llama, drafts=False)
    counts = count_forwards(llama, monkeypatch)
    engine.generate(SHARED, GenerateConfig(1))
    lengths = [len(engine.backend.encode(prompt)) for prompt in SHARED]
    assert sum(counts) < min(lengths) + 20 * len(SHARED)
    assert sum(lengths) > 4 * sum(counts)


def test_right_drafts_save_forward_passes(llama, monkeypatch):
    drafting, plain = Engine(llama), Engine(llama, drafts=False)
    said = [c.token_ids for c in drafting.generate(SHARED, CONFIG)]
    counts = count_forwards(llama, monkeypatch)
    plain.generate(SHARED, CONFIG)
    without, counts[:] = len(counts), []
    requests = [Request(p, CONFIG, draft=ids) for p, ids in zip(SHARED, said, strict=True)]
    drafting.generate(requests)
    assert len(counts) < without / 4


def test_finished_rows_leave_the_batch(llama, monkeypatch):
    config = GenerateConfig(max_new_tokens=12, temperature=1.0)
    requests = [Request(prompt, config, seed) for seed, prompt in enumerate(SHARED)]
    said = [c.token_ids for c in Engine(llama).generate(requests)]
    ending = replace(llama, end_ids=tuple({ids[2 * row % 12] for row, ids in enumerate(said)}))
    engine = Engine(ending, drafts=False)
    counts = count_forwards(ending, monkeypatch)
    completions = engine.generate(requests)
    alive = [sum(len(c.token_ids) > step for c in completions) for step in range(1, 12)]
    decoding = [n for n in counts if n <= len(SHARED)]  # not the prompts, nor a row decided alone
    assert decoding == [n for n in alive if n]
    assert len(set(alive)) > 2


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("prompts", [SHARED, ALONE])
def test_a_close_call_is_decided_alone_and_a_tie_by_plain_generate(
    llama, monkeypatch, prompts, tie
):
    plain = []
    generate = llama.model.generate
    monkeypatch.setattr(
        llama.model,
        "generate",
        lambda ids, **options: plain.append(len(ids)) or generate(ids, **options),
    )
    expected = [plain_generate(llama, prompt) for prompt in prompts]
    monkeypatch.setattr("pytest_llmprobe.engine.fast_backend.CLOSE_CALL", float("inf"))
    monkeypatch.setattr("pytest_llmprobe.engine.fast_backend.TIE", float("inf") if tie else 0)
    plain.clear()
    completions = Engine(llama).generate(prompts, CONFIG)
    assert plain == ([1] * len(prompts) if tie else [])
    assert [c.token_ids for c in completions] == expected
    assert all(completion.redone for completion in completions)


def test_an_answer_that_is_no_close_call_is_not_redone(llama, monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.engine.fast_backend.CLOSE_CALL", 0)
    assert not any(c.redone for c in Engine(llama).generate(SHARED, CONFIG))


@pytest.mark.parametrize("prompts", [SHARED, ALONE])
def test_nan_scores_are_an_error_of_their_row_only(llama, monkeypatch, prompts):
    expected = answers(Engine(llama, drafts=False), prompts)
    feed = TreeMemory.feed

    def poisoned(self, segments):
        scores = feed(self, segments).clone()
        at = 0
        for segment in segments:
            if segment.row == 2:
                scores[at : at + segment.scored] = float("nan")
            at += segment.scored
        return scores

    monkeypatch.setattr(TreeMemory, "feed", poisoned)
    outcomes = Engine(llama, drafts=False).attempt([Request(p, CONFIG) for p in prompts])
    broken = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Exception)]
    assert len(broken) == 1
    assert "NaN" in str(outcomes[broken[0]])
    assert [o.token_ids for i, o in enumerate(outcomes) if i not in broken] == [
        ids for i, ids in enumerate(expected) if i not in broken
    ]


def test_bfloat16_takes_the_same_path(llama):
    import copy

    half = replace(llama, model=copy.deepcopy(llama.model).to(torch.bfloat16))
    completions = Engine(half).generate(SHARED, CONFIG)
    assert {c.timings.batch_size for c in completions} == {len(SHARED)}
    assert all(0 < len(c.token_ids) <= 12 for c in completions)


MIXED = [
    GenerateConfig(12),
    GenerateConfig(7, stop="e"),
    GenerateConfig(12, temperature=0.8, top_p=0.9),
    GenerateConfig(12, temperature=0.8, top_k=5, stop=("a", "o")),
    GenerateConfig(10, temperature=1.2, typical_p=0.8),
    GenerateConfig(10, temperature=1.2, tfs=0.9, top_a=0.2),
    GenerateConfig(12, repetition_penalty=1.3),
    GenerateConfig(12, temperature=0.7, min_p=0.1, repetition_penalty=1.1, no_repeat_ngram_size=2),
]


def said(outcomes):
    return [(c.text, c.token_ids, c.finish_reason) for c in outcomes]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_rows_of_different_configs_are_what_they_are_alone(llama, workload):
    requests = [
        Request(prompt, config, seed=number)
        for config in MIXED
        for number, prompt in enumerate(WORKLOADS[workload])
    ]
    alone = said(Engine(llama, batch_size=1).generate(requests))
    assert len({reason for *_, reason in alone}) > 1
    together = Engine(llama).generate(requests)
    assert said(together) == alone
    assert max(c.timings.batch_size for c in together) > len(WORKLOADS[workload])
    backwards = Engine(llama, batch_size=7, drafts=False).generate(requests[::-1])
    assert said(backwards[::-1]) == alone


def test_configs_of_one_call_are_kept_apart_where_generate_does_it():
    model = tiny("bloom")
    requests = [Request(prompt, config, seed=3) for prompt in ALONE[:3] for config in MIXED]
    alone = said(Engine(model, batch_size=1).generate(requests))
    assert said(Engine(model).generate(requests)) == alone


@pytest.mark.parametrize("prompt", [SHARED[0], ALONE[0]])
def test_equal_prompts_are_computed_once_whatever_the_config(llama, monkeypatch, prompt):
    engine = Engine(llama, drafts=False)
    counts = count_forwards(llama, monkeypatch)
    requests = [Request(prompt, replace(config, max_new_tokens=1)) for config in 2 * MIXED]
    monkeypatch.setattr("pytest_llmprobe.engine.fast_backend.CLOSE_CALL", 0)
    engine.generate(requests)
    assert sum(counts) == len(engine.backend.encode(prompt)) - 1 + len(requests)


def test_halving_keeps_the_finished_rows_of_a_mixed_batch(llama, monkeypatch):
    engine = Engine(llama)
    receive, sizes = engine.backend.receive, []

    def tight(rows, *told):
        sizes.append(len(rows))
        if len(rows) > 9:
            raise torch.OutOfMemoryError
        return receive(rows, *told)

    monkeypatch.setattr(engine.backend, "receive", tight)
    requests = [Request(p, config, seed=4) for p in SHARED for config in MIXED]
    expected = said(Engine(llama).generate(requests))
    assert said(engine.generate(requests)) == expected
    assert max(size for size in sizes if size <= 9) > 4
    sizes.clear()
    assert said(engine.generate(requests)) == expected
    assert max(sizes) <= 9  # remembered


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_trained_model_of_16_bits_takes_the_fast_path(dtype):
    """Its logits are rounded, and larger than a random model's."""
    model = load_model("reference", dtype=dtype)
    assert model.capabilities.left_padding
    assert FastBackend(model).shares_prefixes
