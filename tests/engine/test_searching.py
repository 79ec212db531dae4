"""Beam search as transformers does it, contrastive search as its paper defines it."""

import pytest
import torch
from architectures import END, PAD, tiny
from transformers import GenerationConfig

from pytest_llmprobe import Engine, GenerateConfig, RawPrompt
from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.generation import Request, Steer

PROMPTS = [RawPrompt("When Ida came to Rome, the map was"), RawPrompt("The red fox saw")]
KINDS = ("llama", "gpt2", "gemma2", "mamba")


def ids_of(loaded, prompt):
    return torch.tensor([loaded.tokenizer(prompt.text).input_ids])


def generated(loaded, prompt, **how):
    """transformers' own ``generate``: the oracle."""
    ids = ids_of(loaded, prompt)
    config = GenerationConfig(
        max_new_tokens=9, do_sample=False, eos_token_id=[END], pad_token_id=PAD, **how
    )
    said = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tuple(said[0, ids.shape[1] :].tolist())


def answers(loaded, batch_size=None, **how):
    config = GenerateConfig(max_new_tokens=9, **how)
    return Engine(loaded, batch_size=batch_size).generate(PROMPTS, config)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{"num_beams": 3}, {"num_beams": 4, "length_penalty": -1.0}])
def test_beams_are_those_of_generate(kind, how):
    loaded = tiny(kind)
    found = [one.token_ids for one in answers(loaded, **how)]
    assert found == [generated(loaded, prompt, **how) for prompt in PROMPTS]
    assert found == [one.token_ids for one in answers(loaded, batch_size=1, **how)]


def test_beams_take_the_penalties_and_find_likelier_answers():
    loaded = tiny("llama")
    how = {"num_beams": 4, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2}
    found = [one.token_ids for one in answers(loaded, **how)]
    assert found == [generated(loaded, prompt, **how) for prompt in PROMPTS]
    assert found != [one.token_ids for one in answers(loaded)]


@pytest.mark.parametrize("kind", ["llama", "mamba"])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_the_prompts_own_tokens_are_preferred_as_in_generate(kind, batch_size):
    loaded, how = tiny(kind), {"encoder_repetition_penalty": 4.0, "repetition_penalty": 1.2}
    found = [one.token_ids for one in answers(loaded, batch_size=batch_size, **how)]
    assert found == [generated(loaded, prompt, **how) for prompt in PROMPTS]
    assert found != [generated(loaded, prompt, repetition_penalty=1.2) for prompt in PROMPTS]


def by_definition(loaded, prompt, k, alpha):
    """Equation 5 of arXiv 2202.06417, every sequence computed anew."""
    said = ids_of(loaded, prompt)[0].tolist()
    start = len(said)
    while len(said) < start + 9 and (len(said) == start or said[-1] != END):
        with torch.inference_mode():
            likely = loaded.model(torch.tensor([said])).logits[0, -1].softmax(-1)
            values = {}
            for token in likely.topk(k).indices.tolist():
                out = loaded.model(torch.tensor([[*said, token]]), output_hidden_states=True)
                *before, last = out.hidden_states[-1][0]
                alike = max(float(torch.cosine_similarity(last, one, dim=0)) for one in before)
                values[token] = (1 - alpha) * float(likely[token]) - alpha * alike
        said.append(max(values, key=values.get))
    return tuple(said[start:])


@pytest.mark.parametrize("kind", KINDS)
def test_contrastive_search_is_its_definition(kind):
    loaded = tiny(kind)
    found = [one.token_ids for one in answers(loaded, penalty_alpha=0.6, top_k=4)]
    assert found == [by_definition(loaded, prompt, 4, 0.6) for prompt in PROMPTS]
    assert found != [one.token_ids for one in answers(loaded)]


def test_without_contrast_it_is_greedy():
    loaded = tiny("llama")
    with_none = answers(loaded, penalty_alpha=1e-9, top_k=4)
    assert [one.token_ids for one in with_none] == [one.token_ids for one in answers(loaded)]


@pytest.mark.parametrize("how", [{"num_beams": 3}, {"penalty_alpha": 0.6, "top_k": 4}])
def test_a_stop_string_cuts_the_answer_and_others_of_the_batch_are_as_ever(how):
    loaded = tiny("llama")
    whole, _ = answers(loaded, **how)
    stop = whole.text[len(whole.text) // 2 :][:3]
    config = GenerateConfig(max_new_tokens=9, stop=(stop,), **how)
    greedy = GenerateConfig(max_new_tokens=9)
    cut, other = Engine(loaded).generate([Request(PROMPTS[0], config), Request(PROMPTS[1], greedy)])
    assert cut.finish_reason == "stop_string"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert other.token_ids == answers(loaded)[1].token_ids


def test_steered_beams_are_steered_and_contrast_refuses():
    loaded, text = tiny("llama"), PROMPTS[0].text
    steered = [Request(text, GenerateConfig(9, num_beams=3), steer=Steer(("Rome",), 3.0))]
    assert Engine(loaded).generate(steered)[0].steered_layers == 3
    contrast = GenerateConfig(9, penalty_alpha=0.5, top_k=3)
    (refused,) = Engine(loaded).attempt([Request(text, contrast, steer=Steer(("Rome",), 3.0))])
    assert "contrastive search is not steered" in str(refused)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"num_beams": 2, "temperature": 0.5}, r"num_beams=2 with temperature=0\.5"),
        ({"penalty_alpha": 0.5, "top_k": 4, "temperature": 1}, r"penalty_alpha=0\.5 with temp"),
        ({"penalty_alpha": 0.5}, r"penalty_alpha=0\.5 with top_k=0"),
        ({"penalty_alpha": 0.5, "top_k": 4, "num_beams": 2}, "two ways of search"),
        ({"length_penalty": 2.0}, "length_penalty belongs to beam search"),
        ({"early_stopping": True}, "early_stopping belongs to beam search"),
        ({"num_beams": 0}, "num_beams=0: it must be"),
        ({"penalty_alpha": 1.1, "top_k": 4}, r"penalty_alpha=1\.1: it must be"),
        ({"encoder_repetition_penalty": 0}, "encoder_repetition_penalty=0: it must be"),
        ({"eta_cutoff": 1.0}, r"eta_cutoff=1\.0: it must be"),
        ({"epsilon_cutoff": -0.1}, r"epsilon_cutoff=-0\.1: it must be"),
    ],
)
def test_what_does_not_go_together_is_refused(how, words):
    with pytest.raises(SettingsError, match=words):
        GenerateConfig(**how)
