"""A baseline's answers to another tokenizer, template, context: what is defined is measured."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from architectures import noisy, tiny

from pytest_llmprobe import Engine, GenerateConfig, Request
from pytest_llmprobe.engine.answer_fidelity import OTHER_TOKENS
from pytest_llmprobe.engine.fidelity import answer_fidelity
from pytest_llmprobe.generation import Steer

PROMPTS = {f"case {n}": f"Say {n} words." for n in range(3)}


def looker(loaded):
    object.__setattr__(loaded, "info", {"tokenizer_hash": "own"} | loaded.info)
    return answer_fidelity(Engine(loaded))


@pytest.fixture
def base():
    loaded = copy.copy(tiny("llama"))
    config = GenerateConfig(max_new_tokens=9)
    asked = {name: Request(prompt, config) for name, prompt in PROMPTS.items()}
    answers = Engine(loaded).generate(list(asked.values()))
    looks = looker(loaded)
    kept = looks.keep({name: (r, a) for (name, r), a in zip(asked.items(), answers, strict=True)})
    return loaded, looks.maker("base"), {one.name: one for one in kept}, asked


def test_the_same_model_is_the_same(base):
    loaded, maker, kept, asked = base
    found = looker(loaded).compare(maker, kept, asked)
    assert [one["kl_max"] for one in found.values()] == [0, 0, 0]
    assert not any(one["prompt_changed"] or one["remark"] for one in found.values())


def test_another_prompt_is_measured_and_said(base):
    loaded, maker, kept, asked = base
    other = {name: replace(request, prompt="Something else.") for name, request in asked.items()}
    found = looker(loaded).compare(maker, kept, other)
    assert all(one["prompt_changed"] and one["kl_max"] > 0 for one in found.values())


def test_another_tokenizer_leaves_the_text(base):
    loaded, maker, kept, asked = base
    found = looker(loaded).compare(replace(maker, tokenizer_hash="another"), kept, asked)
    for name, one in found.items():
        assert (one["remark"], one["tokens"]) == (OTHER_TOKENS, 0)
        assert one["text_bytes"] == len(kept[name].text.encode())
        said = kept[name].found.answer[: kept[name].text_tokens].sum()
        assert one["base_log_probability"] == pytest.approx(float(said))


def test_a_context_that_ends_within_the_answer_has_its_beginning(base):
    loaded, maker, kept, asked = base
    name = max(kept, key=lambda name: len(kept[name].tokens))
    prompt = len(Engine(loaded).backend.encode(asked[name].prompt))
    for room, expected in ((3, 3), (0, 0)):
        short = copy.copy(loaded)
        held = replace(loaded.capabilities, context_length=prompt + room - 1)
        object.__setattr__(short, "capabilities", held)
        found = looker(short).compare(maker, kept, {name: asked[name]})[name]
        assert found["tokens"] == expected
        assert "does not hold the baseline's whole answer" in found["remark"]


def test_what_was_not_kept_or_is_steered_says_so(base):
    loaded, maker, kept, asked = base
    steered = replace(asked["case 0"], steer=Steer(("Say",), 1.0))
    found = looker(loaded).compare(maker, kept, {"case 0": steered, "new": asked["case 1"]})
    assert "steered" in found["case 0"]["remark"]
    assert "kept no distributions" in found["new"]["remark"]


def test_whole_distributions_give_the_whole_divergence(base):
    loaded, _, _, asked = base
    engine = Engine(loaded)
    answers = engine.generate(list(asked.values()))
    full = answer_fidelity(engine, full=True)
    answered = {name: (r, a) for (name, r), a in zip(asked.items(), answers, strict=True)}
    kept = {one.name: one for one in full.keep(answered)}
    another = noisy(loaded)
    other = looker(another)
    found = other.compare(full.maker("base"), kept, asked)
    for name, one in kept.items():
        assert one.found.k == full.maker("base").k == loaded.model.config.vocab_size
        assert np.isneginf(one.found.rest).all()
        prompt = engine.backend.encode(asked[name].prompt)
        ids = torch.tensor([[*prompt, *one.tokens[:-1]]])
        with torch.no_grad():
            p, q = (
                m.model(ids).logits[0, len(prompt) - 1 :].log_softmax(-1) for m in (loaded, another)
            )
        exact = (p.exp() * (p - q)).sum(-1)
        assert found[name]["kl"] == pytest.approx(exact.tolist(), rel=0.01, abs=1e-4)


def test_nan_is_a_remark_of_the_candidate_and_keeps_nothing_of_a_baseline(base):
    loaded, maker, kept, asked = base
    broken = noisy(loaded, float("nan"))
    found = looker(broken).compare(maker, kept, asked)
    assert all("NaN or infinite" in one["remark"] and not one["tokens"] for one in found.values())
    answers = Engine(loaded).generate(list(asked.values()))
    answered = {name: (r, a) for (name, r), a in zip(asked.items(), answers, strict=True)}
    assert looker(broken).keep(answered) == []
