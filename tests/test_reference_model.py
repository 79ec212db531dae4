"""The embedded model can what its card says, and the same model with random weights cannot."""

import json
from collections import defaultdict
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from pytest_llmprobe import Engine, GenerateConfig, Suite, load_model
from pytest_llmprobe.experiments.needle import parse_answer
from pytest_llmprobe.models.registry import REFERENCE
from pytest_llmprobe.statistics.intervals import wilson

ROOT = Path(__file__).parent.parent


def single_needles(suite):
    spec = spec_from_file_location("single", ROOT / "evals/needle/test_single_needle.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.single_needles(suite))


def passed_by_size(model, cases):
    completions = Engine(load_model(model)).generate([c.prompt for c in cases], GenerateConfig(64))
    passed = defaultdict(list)
    for case, completion in zip(cases, completions, strict=True):
        passed[case.metadata["size"]].append(parse_answer(completion).only == case.target)
    return passed


def test_it_retrieves_fresh_keys_at_every_size_of_the_default_profile():
    passed = passed_by_size("reference", single_needles(Suite("ci", seed=2026, trials=4)))
    assert sorted(passed) == [5, 10, 20, 40]
    for size, results in passed.items():
        low, _ = wilson(sum(results), len(results), confidence=0.999)
        assert low > 1 / size, f"{size} pairs: {sum(results)} of {len(results)}"


def test_with_random_weights_it_passes_nothing():
    cases = single_needles(Suite("ci", seed=2026, trials=1))
    assert not any(map(any, passed_by_size("reference-random", cases).values()))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "card.md"])
def test_its_folder_is_whole(name):
    assert (REFERENCE / name).is_file()


def test_its_card_is_about_these_weights():
    card = json.loads((REFERENCE / "card.json").read_text())
    assert card["fingerprint"] == load_model("reference").info["fingerprint"]
    for size, cell in card["single_needle"].items():
        low, high = wilson(cell["passed"], cell["n"])
        assert cell["ci95"] == [round(low, 3), round(high, 3)]
        assert low > 1 / int(size)
