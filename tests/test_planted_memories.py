"""The positive control of memorisation, part by part, on a tiny model."""

import importlib.util
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from pytest_llmprobe import load_model
from pytest_llmprobe.experiments.memorization.canaries import Canary
from pytest_llmprobe.models.registry import REFERENCE
from pytest_llmprobe.models.text_tokenizer import text_tokenizer
from pytest_llmprobe.whitebox.log_probabilities import log_probabilities

SCRIPT = Path(__file__).parent.parent / "examples" / "planted_memories.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("planted_memories", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("*.safetensors", "unlearned"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_each_text_is_shown_as_often_as_planned_and_others_never(script):
    found = script.planted(3, 5)
    shown = Counter(text for batch in found.batches(5) for text in batch)
    for n in script.EXPOSURES:
        for text in (*found.documents[n], *(canary.text for canary in found.canaries[n])):
            assert shown.pop(text, 0) == n
    assert not shown
    texts = [*found.unseen, *(text for some in found.documents.values() for text in some)]
    assert len(set(texts)) == len(texts) == script.UNSEEN + 15
    assert script.planted(3, 6).batches(6) != found.batches(5) == script.planted(3, 5).batches(5)
    for batch in found.batches(5):  # of one kind, so that little is padding
        assert len({text.startswith("The access code") for text in batch}) == 1


def test_what_is_written_says_by_its_row_how_often_it_was_shown(script, tmp_path):
    found = script.planted(7, 0)
    script.write_data(found, tmp_path)
    read = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in tmp_path.iterdir()
    }
    assert {name: len(rows) for name, rows in read.items()} == {
        "canaries": 35,
        "documents": 35,
        "ranked": 30,
        "unseen": script.UNSEEN,
    }
    for number, (row, canary) in enumerate(zip(read["documents"], read["canaries"], strict=True)):
        n = script.exposures_of({"id": f"evals/test_x.py::test_x[document-{number}]"})
        assert row["text"] in found.documents[n]
        assert Canary(**canary) in found.canaries[n]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_training_that_was_killed_goes_on_to_the_same_adapter(
    script, base, tmp_path, monkeypatch
):
    monkeypatch.setattr(script, "EVERY", 4)
    batches = script.planted(1, 0).batches(0)
    losses = list(script.Training(str(base), batches, tmp_path / "whole").run())
    killed = script.Training(str(base), batches, tmp_path / "killed").run()
    first = [next(killed) for _ in range(6)]
    again = script.Training(str(base), batches, tmp_path / "killed")
    assert again.done == 4
    assert first[:4] + list(again.run()) == losses
    whole, resumed = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        for name in ("whole", "killed")
    )
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
    with pytest.raises(SystemExit, match="is of other texts"):
        script.Training(str(base), script.planted(1, 1).batches(1), tmp_path / "killed")

    shown = script.planted(1, 0).documents[64]
    before, after = (
        mean_loss(load_model(str(base), adapter=adapter), shown)
        for adapter in (None, str(tmp_path / "whole" / "adapter"))
    )
    assert after < before - 0.05


def mean_loss(loaded, texts):
    tokenizer = text_tokenizer(loaded.tokenizer)
    ids = [[*tokenizer.before, *tokenizer.encode(text)] for text in texts]
    (found,) = log_probabilities(loaded, ids)
    return -found.log_probability.mean()


def cases(script):
    """What reports would hold where 16 and 64 exposures are found and no others."""
    for number in range(10):
        n = script.EXPOSURES[number % 5]
        outcome, bits = ("missed", 6.64) if n >= 16 else ("passed", 1.0 + number / 10)
        scores = {"loss": -0.1 if n >= 16 else -3 - number, "exposure": bits}
        for task in ("canary", "document", "exposure", "member"):
            id = f"t.py::t[{task}-{number}]"
            yield {"task": task, "id": id, "outcome": outcome, "scores": scores}
    for number in range(8):
        id, scores = f"t.py::t[non-member-{number}]", {"loss": -4.0 - number}
        yield {"task": "non-member", "id": id, "outcome": "passed", "scores": scores}


def test_the_table_has_a_line_for_each_number_of_exposures(script):
    every = list(cases(script))
    found = {
        name: [case for case in every if case["task"] in tasks]
        for name, tasks in (
            ("extraction", ("canary", "document")),
            ("membership", ("member", "non-member")),
            ("exposure", ("exposure",)),
        )
    }
    head, _, *rows = script.table(found).splitlines()
    assert head.count("|") == 7
    cells = {row.split(" | ")[0].strip("| "): row.strip("| ").split(" | ") for row in rows}
    assert list(cells) == ["0", "1", "4", "16", "64"]
    assert [row[1] for row in cells.values()] == [
        *["0 of 2 [0.00, 0.66]"] * 3,
        *["2 of 2 [0.34, 1.00]"] * 2,
    ]
    assert cells["64"][3].startswith("6.64 [")
    assert cells["64"][5] == "1.00 [1.00, 1.00]"
    assert cells["0"][5].startswith("0.72 [")  # of 16 pairs 11 are won, one is a tie
