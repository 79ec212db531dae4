"""Another program's engine answers by this package's rules; OpenVINO itself where it is installed.

vLLM is a stub here: a module with the documented arguments of ``LLM``, ``LLM.generate`` and
``SamplingParams``, and outputs with the documented fields, over transformers' own ``generate``.
"""

import sys
from dataclasses import dataclass, field, replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from architectures import tiny
from transformers import GenerationConfig

from pytest_llmprobe import Engine, GenerateConfig, Request, Steer, load_model
from pytest_llmprobe.engine.completion_store import identity
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.other_engine import OtherEngineBackend
from pytest_llmprobe.engine.self_check import self_check
from pytest_llmprobe.engine.vllm import VllmEngine
from pytest_llmprobe.errors import ModelError, RequestError

TEXT = "the red stone is here, the blue stone is there, the old stone is far away, " * 3
PROMPTS = [f"{TEXT}{end}" for end in ("why", "where is it", "what is")] + ["far and near"]
CONFIG = GenerateConfig(max_new_tokens=16)


def greedy(model, ids, room, ends):
    asked = torch.tensor([list(ids)])
    output = model.generate(
        asked,
        attention_mask=torch.ones_like(asked),
        generation_config=GenerationConfig(
            max_new_tokens=room, do_sample=False, eos_token_id=list(ends) or None, pad_token_id=0
        ),
    )
    return output[0, asked.shape[1] :].tolist()


class Dribbling:
    """Tells the tokens of plain generate three at a time, and more than are wanted."""

    batch_tokens = None

    def __init__(self, loaded, stuck=()):
        self.facts = {"name": "dribbling", "version": "1", "precision": "float32"}
        self.model, self.stuck, self.asked, self.told = loaded.model, stuck, [], 0

    def run(self, rows, said):
        self.asked += [row.index for row in rows]
        for place, row in enumerate(rows):
            if row.index in self.stuck:
                continue
            tokens = greedy(self.model, row.prompt_ids, row.room + 5, ())
            for first in range(0, len(tokens), 3):
                self.told += 1
                if said(place, tokens[first : first + 3]):
                    break


def engine(loaded, **more):
    other = Dribbling(loaded, **more)
    return Engine(OtherEngineBackend(loaded, other)), other


def said(completions):
    return [(c.text, c.token_ids, c.finish_reason) for c in completions]


def test_answers_end_by_the_rules_of_this_package():
    loaded = tiny("llama")
    free = Engine(loaded).generate(PROMPTS, CONFIG)
    stop = loaded.tokenizer.decode(free[0].token_ids[4:6])
    requests = [Request(p, replace(CONFIG, stop=(stop,))) for p in PROMPTS]
    expected = said(Engine(loaded).generate(requests))
    assert {reason for _, _, reason in expected} >= {"stop_string"}
    asking, other = engine(loaded)
    seen = []
    outcomes = asking.attempt(requests, seen.append)
    assert said(outcomes) == expected
    assert seen[-1].generated_tokens == sum(len(ids) for _, ids, _ in expected)
    assert other.told <= sum(-(-len(ids) // 3) for _, ids, _ in expected)  # none goes on in vain


def test_what_it_cannot_do_is_the_models_own():
    loaded = tiny("llama")
    configs = [CONFIG, replace(CONFIG, temperature=1.0), replace(CONFIG, repetition_penalty=1.3)]
    requests = [Request(p, c, seed=7) for p in PROMPTS for c in configs]
    requests += [Request(PROMPTS[0], CONFIG, steer=Steer("why", 2.0))]
    requests += [Request(PROMPTS[1], CONFIG, continuation=" far")]
    expected = Engine(loaded).generate(requests)
    asking, other = engine(loaded)
    answers = asking.generate(requests)
    assert said(answers) == said(expected)
    assert [a.steered for a in answers] == [e.steered for e in expected]
    assert answers[-1].log_likelihood == pytest.approx(expected[-1].log_likelihood)
    assert sorted(other.asked) == [n for n, r in enumerate(requests[:-2]) if r.config is CONFIG]


def test_an_answer_without_an_end_is_that_requests_error():
    loaded = tiny("llama")
    asking, _ = engine(loaded, stuck={1})
    answers = asking.attempt([Request(p, CONFIG) for p in PROMPTS])
    assert [isinstance(answer, RequestError) for answer in answers] == [False, True, False, False]
    assert "dribbling 1 did not finish" in str(answers[1])


def test_its_answers_are_kept_apart_from_the_models_own():
    loaded = tiny("llama")
    asking, _ = engine(loaded)
    own, other = (identity(b.info, None) for b in (FastBackend(loaded), asking.backend))
    assert own != other
    assert other["engine"] == {"name": "dribbling", "version": "1", "precision": "float32"}


def test_the_self_check_counts_its_answers_against_plain_generate():
    loaded = tiny("llama")
    asking, other = engine(loaded, stuck={0})
    found = self_check(loaded, PROMPTS[3:], PROMPTS[:3], TEXT, other=asking.backend)
    assert found.dtype == "float32 by dribbling 1"
    assert {way.name: (way.n, way.flipped) for way in found.ways} == {
        "batched": (4, 1),
        "padded": (1, 1),
        "shared": (3, 1),
    }
    assert len(other.asked) == 4 + 2 + 3  # one by one is none of its business


# vLLM, as documented


@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 16
    ignore_eos: bool = False
    stop_token_ids: list = field(default_factory=list)
    stop: list = field(default_factory=list)
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    detokenize: bool = True


class LLM:
    loaded = None
    calls: list = []

    def __init__(
        self,
        model,
        *,
        tokenizer=None,
        tokenizer_revision=None,
        trust_remote_code=False,
        dtype="auto",
        revision=None,
        seed=0,
        max_model_len=None,
        enable_prefix_caching=None,
    ):
        if model == "absent":
            raise ValueError("noise\nno such model")
        self.calls.append((model, dtype, max_model_len))

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True):
        assert not use_tqdm
        self.calls.append(len(prompts))
        both = zip(prompts, sampling_params, strict=True)
        return [self._one(prompt["prompt_token_ids"], params) for prompt, params in both]

    def _one(self, ids, params):
        assert (params.temperature, params.ignore_eos) == (0.0, True)
        tokens = greedy(self.loaded.model, ids, params.max_tokens, params.stop_token_ids)
        if params.stop:
            assert (params.detokenize, params.include_stop_str_in_output) == (True, True)
            for end in range(1, len(tokens) + 1):
                text = self.loaded.tokenizer.decode(tokens[:end])
                if any(stop in text for stop in params.stop):
                    tokens = tokens[:end]
                    break
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens)])


@pytest.fixture
def vllm(monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams, module.__version__ = LLM, SamplingParams, "0.33.0"
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(LLM, "loaded", tiny("llama"))
    monkeypatch.setattr(LLM, "calls", [])
    return LLM


def test_vllm_is_asked_for_a_whole_unit_at_once(vllm):
    loaded = vllm.loaded
    other = VllmEngine(loaded)
    assert other.facts == {"name": "vllm", "version": "0.33.0", "precision": "float32"}
    asking = Engine(OtherEngineBackend(loaded, other), token_budget=other.batch_tokens)
    free = Engine(loaded).generate(PROMPTS, CONFIG)
    stop = loaded.tokenizer.decode(free[0].token_ids[4:6])
    requests = [Request(p, replace(CONFIG, stop=(stop,))) for p in PROMPTS]
    requests += [Request(p, CONFIG) for p in PROMPTS]
    assert said(asking.generate(requests)) == said(Engine(loaded).generate(requests))
    (location, *how), *sizes = vllm.calls
    assert (location, how) == (loaded.spec.location, ["float32", 1024])
    assert sum(sizes) == len(requests)
    assert len(sizes) <= 2  # with a shared text, and without


def test_what_vllm_says_of_a_model_that_it_cannot_load_is_told(vllm):
    loaded = replace(vllm.loaded, spec=replace(vllm.loaded.spec, source="absent"))
    with pytest.raises(ModelError, match=r"vLLM cannot load .*: no such model$"):
        VllmEngine(loaded)


# OpenVINO itself


def test_openvino_answers_on_the_models_gguf_file():
    pytest.importorskip("openvino_genai")
    from pytest_llmprobe.engine.openvino import OpenVinoEngine

    loaded = load_model("smollm2")
    other = OpenVinoEngine(loaded)
    asking = Engine(OtherEngineBackend(loaded, other))
    config = GenerateConfig(max_new_tokens=24)
    asked = ["What is the capital of France?", "What is the capital of Italy?"]
    capitals = [answer.text for answer in asking.generate(asked, config)]
    assert "Paris" in capitals[0]
    assert "Rome" in capitals[1]
    (cut,) = asking.generate(asked[:1], replace(config, stop=("Par",)))
    assert (cut.finish_reason, capitals[0].partition("Par")[0]) == ("stop_string", cut.text)
    assert said(asking.generate(asked, config)) == said(asking.generate(asked, config))
