"""Models that keep a state: a shared prefix is computed once, and the tokens are generate's own."""

from dataclasses import replace

import pytest
import torch
from architectures import COPIED, plain_generate, tiny

from pytest_llmprobe import Engine, GenerateConfig, Request
from pytest_llmprobe.engine import copied_prefix
from pytest_llmprobe.engine.completion_file import begin
from pytest_llmprobe.engine.completion_store import CompletionStore
from pytest_llmprobe.engine.copied_prefix import trial
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.errors import InvalidLogitsError

TEXT = "the red stone is here, the blue stone is there, the old stone is far away, " * 4
OTHER = TEXT.replace("stone", "river")
ENDS = ["where is it", "what is red", "why", "say old and new and far"]
SHARED = [f"{TEXT}{end}?" for end in ENDS]
LEVELS = [f"{TEXT}{OTHER}{end}?" for end in ENDS[:3]]
ALONE = ["far and near", "a blue stone, and then"]
CONFIG = GenerateConfig(max_new_tokens=8)


def fed(model, monkeypatch):
    """Tokens of prompts and answers that the model reads, rows times columns."""
    counts = []
    embed = model.model.get_input_embeddings()
    forward = embed.forward

    def counting(ids):
        counts.append(ids.numel())
        return forward(ids)

    monkeypatch.setattr(embed, "forward", counting)
    return counts


@pytest.mark.parametrize("architecture", COPIED)
def test_rows_go_on_from_copies_with_the_tokens_of_plain_generate(architecture, monkeypatch):
    model = tiny(architecture)
    engine = Engine(model)
    assert engine.backend.copies_prefixes
    assert not engine.backend.shares_prefixes
    assert engine.backend.path.startswith("generate, shared prefixes computed once and copied")
    prompts = [*SHARED, *LEVELS, *ALONE]
    expected = [plain_generate(model, prompt, 8) for prompt in prompts]
    assert len(set(expected)) > 2
    counts = fed(model, monkeypatch)
    completions = engine.generate(prompts, CONFIG)
    assert [c.token_ids for c in completions] == expected
    shared = completions[: len(SHARED)]
    assert not all(c.redone for c in shared)
    counts.clear()
    again = engine.generate([prompt for prompt in SHARED if "why" not in prompt] * 2, CONFIG)
    if not any(c.redone for c in again):
        # 6 rows: the common text once, ends and answers six times.
        assert sum(counts) < 2 * max(c.usage.prompt_tokens for c in again)


@pytest.mark.parametrize("architecture", ["lfm2", "mamba2"])
def test_several_configs_and_sampling_are_those_of_each_row_alone(architecture):
    model = tiny(architecture)
    configs = [CONFIG, replace(CONFIG, temperature=1.0, top_k=9)]
    configs += [replace(CONFIG, repetition_penalty=1.4), replace(CONFIG, max_new_tokens=3)]
    requests = [Request(p, c, seed=n) for n, c in enumerate(configs) for p in (*SHARED, *ALONE)]
    expected = Engine(model, batch_size=1).generate(requests)
    assert [c.token_ids for c in Engine(model).generate(requests)] == [
        c.token_ids for c in expected
    ]


def test_close_calls_are_decided_alone_and_kept_once_they_are(tmp_path, monkeypatch):
    model = tiny("lfm2")
    monkeypatch.setattr("pytest_llmprobe.engine.fast_backend.CLOSE_CALL", 1e9)
    backend = FastBackend(model)
    begin(tmp_path / "kept", {})
    engine = Engine(backend)
    engine.store = CompletionStore(tmp_path / "kept", backend.info)
    completions = engine.generate(SHARED, CONFIG)
    assert all(c.redone for c in completions)
    assert [c.token_ids for c in completions] == [plain_generate(model, p, 8) for p in SHARED]


def test_rows_are_cut_into_batches_that_copies_fit_into(monkeypatch):
    model = tiny("lfm2")
    rows = []
    generate = model.model.generate
    monkeypatch.setattr(copied_prefix, "UNEVEN", 1)
    monkeypatch.setattr(copied_prefix, "TOKEN_BUDGET", 3 * 200)

    def counting(ids, **more):
        rows.append(len(ids))
        return generate(ids, **more)

    monkeypatch.setattr(model.model, "generate", counting)
    monkeypatch.setattr("pytest_llmprobe.engine.fast_backend.CLOSE_CALL", 0)
    engine = Engine(model)
    rows.clear()  # of the trial
    completions = engine.generate(SHARED[:1] * 9, CONFIG)
    assert max(rows) < 9
    assert sum(rows) == 9
    assert len({c.token_ids for c in completions}) == 1


def test_broken_logits_after_a_shared_text_are_that_rows_error(monkeypatch):
    model = tiny("lfm2")
    forward = model.model.forward

    def broken(input_ids=None, **more):
        output = forward(input_ids=input_ids, **more)
        output.logits[:1] = torch.nan
        return output

    engine = Engine(model)
    monkeypatch.setattr(model.model, "forward", broken)
    outcomes = engine.attempt([Request(p, CONFIG) for p in SHARED[:1] * 3])
    assert [isinstance(outcome, InvalidLogitsError) for outcome in outcomes] == [True, False, False]


def test_a_cache_that_copying_breaks_is_found_out(monkeypatch):
    model = tiny("lfm2").model
    assert trial(model) == "generate"
    monkeypatch.setattr(copied_prefix.copy, "deepcopy", lambda cache: cache)
    assert trial(model) == ""
