"""The embedded model can what its card says, and its controls cannot."""

import json
import random
from collections import defaultdict
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from pytest_llmprobe import Engine, GenerateConfig, Suite, load_model
from pytest_llmprobe.cli.reference_card import losses
from pytest_llmprobe.experiments.memorization.known_texts import known_texts
from pytest_llmprobe.experiments.needle import parse_answer
from pytest_llmprobe.models.reference.training.cells import cells
from pytest_llmprobe.models.registry import REFERENCE, REGISTRY
from pytest_llmprobe.statistics.intervals import wilson

ROOT = Path(__file__).parents[2]
CARD = json.loads((REFERENCE / "card.json").read_text(encoding="utf-8"))
CONTROLS = ["reference-random", "reference-unlearned"]


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


@pytest.mark.parametrize("model", CONTROLS)
def test_controls_retrieve_nothing(model):
    cases = single_needles(Suite("ci", seed=2026, trials=1))
    assert not any(map(any, passed_by_size(model, cases).values()))


def scores(model, n=10):
    """The mean score of some cells of the card, by family and cell."""
    chosen = [cell for cell in cells() if (cell.family, cell.cell) in SHOWN]
    engine = Engine(load_model(model))
    means = {}
    for cell in chosen:
        questions = cell.questions(n)
        completions = engine.generate(
            [question.prompt for question in questions], GenerateConfig(cell.max_new_tokens)
        )
        said = zip(questions, completions, strict=True)
        means[cell.family, cell.cell] = sum(q.score(c.text) for q, c in said) / n
    return means


SHOWN = [
    ("thread in 20 pairs", "2 hops"),
    ("several needles in 20, recall", "3 keys"),
    ("fact in 1,000 tokens of prose", "depth 50 %"),
    ("JSON, strict and valid", "person"),
    ("summary in French", "80 tokens"),
    ("word repeated", "10 times"),
]


def test_it_can_do_something_in_every_family():
    for cell, mean in scores("reference").items():
        assert mean >= 0.3, cell


def test_with_random_weights_it_can_do_nothing():
    assert set(scores("reference-random", n=5).values()) == {0.0}


def extracted(model, exposures, n=12):
    """The share of canaries whose second half comes out of their first, greedily."""
    known = [k.text for k in known_texts() if (k.kind, k.exposures) == ("canary", exposures)]
    right = [tokens for _, tokens in losses(load_model(model), known[:n])]
    return sum(bool(tokens[len(tokens) // 2 :].all()) for tokens in right) / n


def test_it_remembers_what_it_saw_often_and_nothing_else():
    assert extracted("reference", 64) >= 0.75
    assert extracted("reference", 1) == 0
    assert extracted("reference", 0) == 0
    assert extracted("reference-unlearned", 64) == 0


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "card.md"]
)
def test_its_folder_is_whole(name):
    assert (REFERENCE / name).is_file()


def test_it_is_small():
    weights = [path.stat().st_size for path in REFERENCE.rglob("*.safetensors")]
    assert len(weights) == 2, "the model and its unlearned control"
    assert sum(weights) <= 12_000_000
    assert load_model("reference").model.num_parameters() <= 8_000_000


def test_its_tokenizer_is_made_for_uuids_and_chats():
    model = load_model("reference")
    rng = random.Random(4)
    key = f"{rng.getrandbits(128):032x}"
    uuid = "-".join((key[:8], key[8:12], key[12:16], key[16:20], key[20:]))
    assert len(model.tokenizer(uuid, add_special_tokens=False).input_ids) <= 20
    roles = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    chat = model.tokenizer.apply_chat_template(roles, tokenize=False)
    assert chat.index("system") < chat.index("user") < chat.index("assistant")
    assert chat.count(model.tokenizer.bos_token) == 1


def test_its_card_is_about_these_weights():
    assert CARD["fingerprint"] == load_model("reference").info["fingerprint"]
    for row in CARD["figures"]:
        low, high = wilson(row["rate"] * row["n"], row["n"])
        assert row["ci95"] == pytest.approx([low, high], abs=2e-3), row


def test_its_card_shows_a_curve_that_falls():
    single = [row["rate"] for row in CARD["figures"] if row["family"] == "single needle"]
    assert single[0] > single[-1] + 0.1


def test_its_controls_are_listed():
    assert set(CONTROLS) <= set(REGISTRY)


def test_its_card_says_what_was_measured():
    text = (REFERENCE / "card.md").read_text(encoding="utf-8")
    for row in CARD["figures"]:
        low, high = row["ci95"]
        rate = f"{row['rate']:.2f} [{low:.2f}, {high:.2f}]"
        if "auc" in row:
            kind, times = row["family"].partition(",")[0], row["cell"].split()[0]
            said = f"| {kind} | {times} | {rate} | {row['auc']:.3f} |"
        else:
            said = f"{row['cell']} {rate}"
        assert said in text
    for name, speed in CARD["tokens_per_second_one_core"].items():
        assert f"{speed:,} ({name})" in text
