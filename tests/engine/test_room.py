"""The room of a batch is found for machine and model, and can be set."""

from types import SimpleNamespace

import psutil
import pytest
import torch
from architectures import tiny

from pytest_llmprobe import Engine, GenerateConfig, Request
from pytest_llmprobe.engine import memory, room
from pytest_llmprobe.engine.planning import PACKED_ROWS, TOKEN_BUDGET, Room
from pytest_llmprobe.engine.room import cache_bytes, found_room
from pytest_llmprobe.errors import SettingsError

PROMPTS = ["a red stone", "why is the river here and not there", "hm", "far and near " * 20]


@pytest.mark.parametrize(
    ("architecture", "values"),
    [("llama", 3 * 2 * 2 * 16), ("gpt2", 3 * 2 * 4 * 16), ("mamba", 0)],
)
def test_the_bytes_of_a_token_are_measured(architecture, values):
    assert cache_bytes(tiny(architecture).model) == 4 * values


def with_memory(monkeypatch, available):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_cpu_has_room_for_each_core(monkeypatch, threads):
    with_memory(monkeypatch, 2**40)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = found_room(tiny("llama"))
    assert found == Room(threads * TOKEN_BUDGET, threads * PACKED_ROWS)


def test_a_full_machine_has_less(monkeypatch):
    size = cache_bytes(tiny("llama").model)
    with_memory(monkeypatch, 4 * 1000 * size)
    assert found_room(tiny("llama")).tokens == 1000
    with_memory(monkeypatch, 0)
    assert found_room(tiny("llama")).tokens == 1


def test_an_accelerator_is_filled(monkeypatch):
    loaded = tiny("llama")
    monkeypatch.setattr(room, "cache_bytes", lambda model: 1000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**8, 10**9))
    on_gpu = SimpleNamespace(model=SimpleNamespace(device=torch.device("cuda", 0)))
    assert found_room(on_gpu) == Room(60_000, room.DEVICE_ROWS)
    assert found_room(loaded).rows < room.DEVICE_ROWS


def test_it_can_be_set():
    engine = Engine(tiny("llama"), token_budget=300)
    sizes = [c.timings.batch_size for c in engine.generate(PROMPTS, GenerateConfig(4))]
    assert max(sizes) < len(PROMPTS)
    assert Engine(tiny("llama")).token_budget > 300
    with pytest.raises(SettingsError, match="token_budget=0: it must be 1 or more"):
        Engine(tiny("llama"), token_budget=0)


def test_few_logits_at_once_change_no_answer(monkeypatch):
    model, config = tiny("llama"), GenerateConfig(30)
    engine = Engine(model)
    expected = [c.token_ids for c in engine.generate(PROMPTS, config)]
    scored, feed = [], memory.TreeMemory.feed

    def watched(self, segments):
        scored.append(sum(segment.scored for segment in segments))
        return feed(self, segments)

    monkeypatch.setattr(memory.TreeMemory, "feed", watched)
    requests = [Request(p, config, draft=d) for p, d in zip(PROMPTS, expected, strict=True)]
    assert [c.token_ids for c in engine.generate(requests)] == expected
    assert max(scored) > memory.LEAST_SCORED * len(PROMPTS)
    scored.clear()
    monkeypatch.setattr(memory, "LOGITS", 1)
    assert [c.token_ids for c in engine.generate(requests)] == expected
    assert 1 < max(scored) <= memory.LEAST_SCORED * len(PROMPTS)
