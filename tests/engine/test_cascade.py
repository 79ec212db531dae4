"""Attention in parts is attention to all keys at once; a tree of prompts is each text alone."""

import copy
from itertools import pairwise

import pytest
import torch
from architectures import tiny
from torch.nn import functional

from pytest_llmprobe import GenerateConfig
from pytest_llmprobe.engine import attention_parts, cascade, memory
from pytest_llmprobe.engine.attention_parts import attend, attend_to_earlier
from pytest_llmprobe.engine.layer_windows import layer_windows
from pytest_llmprobe.engine.memory import Segment, TreeMemory
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.engine.prefixes import depth_first, prefix_tree
from pytest_llmprobe.engine.tree_trial import takes_tree


def drawn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact(query, key, value, scale, bias=None):
    """In float64, by the library's own function."""
    groups = query.shape[1] // key.shape[1]
    query, key, value = (
        query.double(),
        *(x.double().repeat_interleave(groups, 1) for x in (key, value)),
    )
    bias = None if bias is None else bias[:, None].double()
    return functional.scaled_dot_product_attention(query, key, value, bias, scale=scale)


@pytest.fixture(params=["kernel", "written out"])
def way(request, monkeypatch):
    """torch's kernel for CPUs, and what serves on other devices and in fewer bits."""
    if request.param == "written out":
        monkeypatch.setattr(attention_parts, "_fused", lambda *_: False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("sharp", [1.0, 40.0])
@pytest.mark.parametrize("cuts", [(), (1,), (20,), (3, 4, 50)])
def test_parts_make_up_the_whole(heads, sharp, cuts):
    query = drawn(2, 4, 5, 16, scale=sharp)
    key, value = drawn(2, heads, 60, 16, seed=1), drawn(2, heads, 60, 16, seed=2)
    bias = drawn(2, 5, 60, seed=3)
    ends = (0, *cuts, 60)
    parts = [
        attend(query, key[:, :, a:b], value[:, :, a:b], 0.25, bias[..., a:b])
        for a, b in pairwise(ends)
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.plus(part)
    assert torch.allclose(whole.output.double(), exact(query, key, value, 0.25, bias), atol=2e-5)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("heads", [4, 2, 1])
def test_a_text_that_goes_on_sees_what_was_and_itself_up_to_each_token(heads):
    query = drawn(1, 4, 30, 16)
    key, value = drawn(1, heads, 50, 16, seed=1), drawn(1, heads, 50, 16, seed=2)
    before = attend(query, key[:, :, :20], value[:, :, :20], 0.25)
    itself = attend_to_earlier(query, key[:, :, 20:], value[:, :, 20:], 0.25)
    later = torch.full((30, 50), -torch.inf).triu(21)[None]
    expected = exact(query, key, value, 0.25, later)
    assert torch.allclose(itself.plus(before).output.double(), expected, atol=2e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("window", [1, 7, 29, 30, 31])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_a_text_sees_no_more_of_itself_than_a_window(monkeypatch, window, cap, bias):
    monkeypatch.setattr(attention_parts, "BLOCK", 8)
    query, key, value = drawn(1, 4, 30, 8), drawn(1, 2, 30, 8, seed=1), drawn(1, 2, 30, 8, seed=2)
    more = drawn(1, 1, 30, seed=3) if bias else None
    found = attend_to_earlier(query, key, value, 0.4, more, cap, window).output
    key, value = (x.double().repeat_interleave(2, 1) for x in (key, value))
    scores = 0.4 * query.double() @ key.transpose(2, 3)
    if cap is not None:
        scores = cap * (scores / cap).tanh()
    if more is not None:
        scores = scores + more
    at = torch.arange(30)
    unseen = (at[None] > at[:, None]) | (at[:, None] - at[None] >= window)
    weights = scores.masked_fill(unseen, -torch.inf).softmax(-1)
    assert torch.allclose(found.double(), weights @ value, atol=1e-5)


@pytest.mark.usefixtures("way")
def test_hidden_keys_have_no_weight_whatever_they_hold():
    query, key, value = drawn(1, 2, 3, 8), drawn(1, 2, 6, 8, seed=1), drawn(1, 2, 6, 8, seed=2)
    hidden = torch.zeros(1, 3, 6)
    hidden[..., 4:] = -torch.inf
    value[:, :, 4:] = 1e20
    seen = attend(query, key, value, 0.3, hidden)
    alone = attend(query, key[:, :, :4], value[:, :, :4], 0.3)
    assert torch.allclose(seen.output, alone.output, atol=1e-5)


def test_queries_that_wait_for_their_turn_find_the_same(monkeypatch):
    query, key, value = drawn(1, 4, 50, 8), drawn(1, 2, 30, 8, seed=1), drawn(1, 2, 30, 8, seed=2)
    bias = drawn(1, 50, 30, seed=3)
    at_once = attend(query, key, value, 0.3, bias)
    monkeypatch.setattr(attention_parts, "LARGEST", 4 * 30 * 7)
    assert all(map(torch.allclose, attend(query, key, value, 0.3, bias), at_once))


def rows_of(prompts):
    rows = [Row(n, tuple(prompt), GenerateConfig(6)) for n, prompt in enumerate(prompts)]
    tree = prefix_tree(rows, least=4)
    return tree, depth_first(tree)


PROMPTS = [
    [3, 4, 5, 6, 7, 8],
    [3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15],
    [3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16],
    [20, 21, 22, 23, 24, 25, 26],
    [20, 21, 22, 23, 24, 25, 27, 28, 29],
    [40, 41],
]


@torch.inference_mode()
@pytest.mark.parametrize("copied", [0, 1500, 2**20])  # none, few, all
@pytest.mark.parametrize(
    "architecture", ["llama", "gpt2", "phi3", "mistral", "gemma2", "gemma3_text", "gpt_oss"]
)
def test_every_token_of_a_tree_has_the_logits_of_its_text_alone(architecture, copied, monkeypatch):
    """Wrong guesses are fed over again, rows have guesses of different lengths, rows leave."""
    monkeypatch.setattr(memory, "COPIED", copied)
    model = tiny(architecture).model
    tree, rows = rows_of(PROMPTS)
    assert len(tree.children) == 2
    assert tree.children[0].children
    cache = TreeMemory(model, tree, rows)
    texts = [list(row.prompt_ids) for row in rows]

    def agree(number, logits, more=()):
        text = torch.tensor([[*texts[number], *more]])
        alone = model(text, use_cache=False).logits[0, -len(logits) :]
        assert torch.allclose(logits, alone, atol=1e-4)

    with cache.attached():
        drafts = [[7] * (number % 3) for number in range(len(rows))]
        first = {}
        for segments, logits in cache.prefill(drafts):
            numbers = [segment.row for segment in segments]
            parts = logits.split([1 + len(drafts[number]) for number in numbers])
            first |= zip(numbers, parts, strict=True)
        fed = []
        for step, active in enumerate([[0, 1, 2, 3, 4, 5], [0, 1, 2, 4, 5], [1, 4], [1, 4], [4]]):
            cache.drop(active)
            guesses = {number: [30 + step] * ((number + step) % 3) for number in active}
            segments = [
                Segment(n, [50 + n, *guesses[n]], len(texts[n]), 1 + len(guesses[n]))
                for n in active
            ]
            logits = cache.feed(segments).split([s.scored for s in segments])
            for n, found in zip(active, logits, strict=True):
                texts[n].append(50 + n)
                fed.append((n, found, list(texts[n]), guesses[n]))
    prompts = [list(row.prompt_ids) for row in rows]
    assert len(first) == len(rows)
    for number, logits in first.items():
        texts[number] = prompts[number]
        agree(number, logits, drafts[number])
    for number, logits, text, guessed in fed:
        texts[number] = text
        agree(number, logits, guessed)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("copied", "shared", "capacity"),
    [
        (0, [(range(5), [1, 2, 3]), (range(5, 10), [2, 3]), (range(6), [4, 5])], 9),
        (1500, [(range(10), [2, 3]), (range(6), [4, 5])], 12),
        (2**20, [], 18),
    ],
)
def test_keys_that_rows_share_are_stored_once_or_copied_if_few(
    monkeypatch, copied, shared, capacity
):
    monkeypatch.setattr(memory, "COPIED", copied)
    model = tiny("llama").model
    tree, rows = rows_of(PROMPTS)
    cache = TreeMemory(model, tree, rows)
    with cache.attached():
        list(cache.prefill([()] * len(rows)))
    found = [(keys.positions, list(keys.rows)) for keys in cache._shared]
    assert sorted(found, key=str) == sorted(shared, key=str)
    for keys in cache._shared:
        assert keys.layers[0][0].shape[2] == len(keys.positions)
    assert cache._cascade.own.capacity == capacity


def test_chunks_and_windows_that_the_cache_does_not_name_are_not_taken():
    model = copy.deepcopy(tiny("gemma3_text").model)
    assert layer_windows(model) == {0: 8, 2: 8}
    model.model.layers[1].self_attn.sliding_window = 8  # of a layer whose cache keeps all
    assert not takes_tree(model)
    model.model.layers[1].self_attn.sliding_window = None
    assert takes_tree(model)
    model.config.layer_types = ["chunked_attention", "full_attention", "chunked_attention"]
    assert layer_windows(model) is None
    assert not takes_tree(model)


def test_eager_attention_is_taken_too():
    model = copy.deepcopy(tiny("llama").model)
    model.set_attn_implementation("eager")
    assert takes_tree(model)


def test_attention_with_an_unknown_change_of_scores_is_not_taken(monkeypatch):
    model = tiny("llama").model
    assert takes_tree(model)
    monkeypatch.setattr(cascade, "REFUSED", ("scaling",))
    assert not takes_tree(model)


def test_a_model_whose_logits_differ_is_not_taken(monkeypatch):
    monkeypatch.setattr(attention_parts, "_fused", lambda *_: False)
    assert takes_tree(tiny("llama").model)
    monkeypatch.setattr(attention_parts, "FAINT", -0.1)
    assert not takes_tree(tiny("llama").model)


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt_oss", "gemma2 longer"])
def test_a_long_end_of_a_prompt_is_stored_piece_by_piece(monkeypatch, architecture):
    monkeypatch.setitem(memory.FORWARD_TOKENS, "cpu", 64)
    monkeypatch.setattr(attention_parts, "BLOCK", 30)
    model = tiny(architecture).model
    stem = [3 + n % 90 for n in range(80)]
    prompts = [
        [*stem, *[5 + number * (n + 1) % 50 for n in range(length)]]
        for number, length in ((7, 200), (11, 3), (13, 130))
    ]
    rows = [Row(n, tuple(prompt), GenerateConfig(6)) for n, prompt in enumerate(prompts)]
    tree = prefix_tree(rows)
    assert len(tree.tokens) == len(stem)
    tokens, feed = [], TreeMemory.feed

    def watched(self, segments):
        tokens.append([len(segment.tokens) for segment in segments])
        return feed(self, segments)

    monkeypatch.setattr(TreeMemory, "feed", watched)
    cache = TreeMemory(model, tree, depth_first(tree))
    with cache.attached():
        logits = torch.cat([found for _, found in cache.prefill([(9, 9), (), (8,)])])
    assert tokens == [[64], [64], [64], [64], [64], [10, 3, 3]]
    for prompt, draft, found in zip(
        prompts, [[9, 9], [], [8]], logits.split([3, 1, 2]), strict=True
    ):
        text = torch.tensor([[*prompt, *draft]])
        alone = model(text, use_cache=False).logits[0, -len(found) :]
        assert torch.allclose(found, alone, atol=1e-4)
