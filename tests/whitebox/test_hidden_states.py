"""States of one pass over known tokens are those of generation, batched and padded."""

from dataclasses import replace
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from pytest_llmprobe.errors import (
    InvalidLogitsError,
    PromptTooLongError,
    RequestError,
    SettingsError,
)
from pytest_llmprobe.models.context_length import even_to
from pytest_llmprobe.whitebox import hidden_states as module
from pytest_llmprobe.whitebox.hidden_states import HiddenStateReader, hidden_states, layer_indices

MODELS = run_path(str(Path(__file__).parents[1] / "engine" / "architectures.py"))
ARCHITECTURES, PAD, tiny = MODELS["ARCHITECTURES"], MODELS["PAD"], MODELS["tiny"]

LAYERS = (-1, 1, -2, 0)
QUESTIONS = ["hm", "where is the red stone, and who said so?", "say old and new and far"]
STEPS = 10
# Found: 1e-6 at most, Mamba-2 4e-6, and Mamba, whose scan is another algorithm than its step, 2e-5.
TOLERANCES = {"mamba": 5e-5}


def relative(found, expected):
    """Largest difference, as a part of the largest state."""
    return np.abs(found - expected).max() / np.abs(expected).max()


def step_by_step(loaded, prompt):
    """Answer and states of plain generation with its cache, one row, no pads: the oracle."""
    ids = torch.tensor([prompt])
    output = loaded.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            max_new_tokens=STEPS, do_sample=False, pad_token_id=PAD, eos_token_id=None
        ),
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    states = [
        torch.cat([step[layer][0, -1] for layer in LAYERS]).numpy() for step in output.hidden_states
    ]
    return tuple(output.sequences[0, len(prompt) :].tolist()), np.stack(states)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_are_those_of_generating_step_by_step(architecture):
    loaded, tolerance = tiny(architecture), TOLERANCES.get(architecture, 1e-5)
    reader = HiddenStateReader(loaded, LAYERS)
    prompts = [reader.prompt(question).ids for question in QUESTIONS]
    answers, expected = zip(*(step_by_step(loaded, prompt) for prompt in prompts), strict=True)
    together = list(reader.states(prompts, answers))
    alone = [next(reader.states([p], [a])) for p, a in zip(prompts, answers, strict=True)]
    for batched, single, oracle in zip(together, alone, expected, strict=True):
        assert batched.shape == oracle.shape == (STEPS, 4 * 64)
        assert batched.dtype == np.float32
        for layer in range(4):
            part = slice(64 * layer, 64 * (layer + 1))
            assert relative(batched[:, part], oracle[:, part]) < tolerance
            assert relative(single[:, part], oracle[:, part]) < tolerance


def test_a_text_that_is_rotated_by_its_length_leaves_those_beside_it_alone():
    loaded = tiny("phi3 longrope")
    limit = even_to(loaded.model.config)
    lengths = [20, limit, limit + 1, 30, limit + 40, 25, 26]
    texts = [[5 + (row + at) % 90 for at in range(length)] for row, length in enumerate(lengths)]
    places = [range(length) for length in lengths]
    found = hidden_states(loaded, texts, places)
    for text, states in zip(texts, found, strict=True):
        with torch.inference_mode():
            model = loaded.model(torch.tensor([text]), output_hidden_states=True, use_cache=False)
        assert relative(states, model.hidden_states[-1][0].numpy()) < 1e-5


def test_a_longer_text_before_leaves_the_rotation_of_others_alone():
    loaded = tiny("llama dynamic")
    limit = even_to(loaded.model.config)
    lengths = [limit + 90, limit + 40, limit, limit + 1, 20, limit + 40]
    texts = [[5 + (row + at) % 90 for at in range(length)] for row, length in enumerate(lengths)]
    found = list(hidden_states(loaded, texts, [range(length) for length in lengths]))
    for text, states in zip(texts, found, strict=True):
        fresh = MODELS["unturned"](loaded.model)
        with torch.inference_mode():
            model = fresh(torch.tensor([text]), output_hidden_states=True, use_cache=False)
        assert relative(states, model.hidden_states[-1][0].numpy()) < 1e-5


def test_layers_are_those_of_transformers(llama):
    text = [1, 5, 9, 200, 31]
    (found,) = hidden_states(llama, [text], [range(5)], layers=(3, 0, 1))
    with torch.inference_mode():
        output = llama.model(torch.tensor([text]), output_hidden_states=True)
        expected = torch.cat([output.hidden_states[layer][0] for layer in (3, 0, 1)], dim=-1)
        assert relative(found, expected.numpy()) < 1e-6
        last = llama.model.lm_head(torch.from_numpy(found[:, :64]))
        embedded = llama.model.get_input_embeddings()(torch.tensor(text))
    assert relative(last.numpy(), output.logits[0].numpy()) < 1e-5  # after the final norm
    assert relative(found[:, 64:128], embedded.numpy()) < 1e-6


def test_only_the_chosen_positions_are_returned(llama):
    texts = [[1, 5, 9, 200, 31], [1, 7]]
    full = list(hidden_states(llama, texts, [range(5), range(2)]))
    chosen = list(hidden_states(llama, texts, [[3, 0], []]))
    assert np.array_equal(chosen[0], full[0][[3, 0]])
    assert chosen[1].shape == (0, 64)


@pytest.mark.parametrize("budget", [1, 9, 40, 10**6])
def test_batches_keep_the_budget_and_the_order(llama, monkeypatch, budget):
    texts = [[1, *range(10, 10 + n)] for n in (3, 9, 1, 1, 1, 7, 20, 2)]
    expected = [next(hidden_states(llama, [text], [range(len(text))])) for text in texts]
    one_pass, sizes = module._one_pass, []

    def counted(loaded, texts, positions, layers):
        sizes.append(len(texts) * max(map(len, texts)))
        assert len(texts) == 1 or sizes[-1] <= budget
        return one_pass(loaded, texts, positions, layers)

    monkeypatch.setattr(module, "_one_pass", counted)
    found = list(hidden_states(llama, texts, [range(len(t)) for t in texts], (-1,), budget))
    assert len(sizes) == {1: 8, 9: 6, 40: 4, 10**6: 1}[budget]
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) < 1e-5


def test_many_layers_make_smaller_batches(llama, monkeypatch):
    monkeypatch.setattr(module, "STATE_BYTES", 4 * 64 * 10)  # ten states of one layer
    calls = []
    one_pass = module._one_pass
    monkeypatch.setattr(module, "_one_pass", lambda *args: calls.append(1) or one_pass(*args))
    texts = [[1, 2, 3]] * 6
    for layers, batches in (((-1,), 2), ((-1, -2), 6)):
        calls.clear()
        assert len(list(hidden_states(llama, texts, [[0]] * 6, layers))) == 6
        assert len(calls) == batches


def test_a_batch_that_does_not_fit_is_halved(llama, monkeypatch):
    texts = [[1, number] for number in range(10, 18)]
    expected = list(hidden_states(llama, texts, [[1]] * 8))
    one_pass = module._one_pass

    def small(loaded, texts, *rest):
        if len(texts) > 2:
            raise torch.OutOfMemoryError
        return one_pass(loaded, texts, *rest)

    monkeypatch.setattr(module, "_one_pass", small)
    found = list(hidden_states(llama, texts, [[1]] * 8, token_budget=16))
    assert [relative(*pair) < 1e-5 for pair in zip(found, expected, strict=True)] == [True] * 8
    monkeypatch.setattr(module, "_one_pass", lambda *_: small(None, [1] * 3))
    with pytest.raises(torch.OutOfMemoryError):
        list(hidden_states(llama, texts[:1], [[1]]))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((4,), "layer 4: this model has hidden states 0 to 3, or -4 to -1"),
        ((-5,), "layer -5"),
        ((-1, 3), "none twice"),
        ((), "name one layer"),
    ],
)
def test_an_impossible_layer_is_an_error(llama, layers, words):
    with pytest.raises(SettingsError, match=words):
        hidden_states(llama, [[1]], [[0]], layers)


def test_layers_are_counted_from_the_embeddings():
    assert layer_indices((-1, -2, 0), 4) == (3, 2, 0)
    with pytest.raises(SettingsError, match="returns no hidden states"):
        layer_indices((-1,), 0)


def test_texts_that_do_not_fit_are_errors(llama):
    short = replace(llama, capabilities=replace(llama.capabilities, context_length=4))
    with pytest.raises(PromptTooLongError, match="5 tokens does not fit the model's context of 4"):
        hidden_states(short, [[1] * 5], [[0]])
    with pytest.raises(RequestError, match="without tokens"):
        hidden_states(llama, [[1], []], [[0], []])


def test_states_that_are_no_numbers_are_an_error(llama):
    weight = llama.model.get_input_embeddings().weight
    before = weight[77].clone()
    with torch.no_grad():
        weight[77] = float("nan")
    try:
        with pytest.raises(InvalidLogitsError, match=r"NaN or infinite hidden states in torch\.f"):
            list(hidden_states(llama, [[1, 77]], [[1]]))
    finally:
        with torch.no_grad():
            weight[77] = before


def test_low_precision_gives_float32_arrays(llama):
    half = replace(llama, model=tiny.__wrapped__("llama").model.to(torch.bfloat16))
    (found,) = hidden_states(half, [[1, 5, 9]], [range(3)])
    (expected,) = hidden_states(llama, [[1, 5, 9]], [range(3)])
    assert found.dtype == np.float32
    assert 1e-6 < relative(found, expected) < 0.1


def test_a_reader_of_all_layers_knows_its_model(llama):
    reader = HiddenStateReader(llama, None)
    assert reader.layers == (0, 1, 2, 3)
    assert reader.hidden_size == 64
    assert reader.info["name"] == "llama"
    assert reader.token_text(llama.end_ids[0]) == llama.tokenizer.eos_token


@pytest.fixture
def llama():
    return tiny("llama")
