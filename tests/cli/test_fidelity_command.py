"""``llmprobe fidelity`` and ``llmprobe gate``: a corpus to two models, and what cannot be asked."""

import json

import pytest

from pytest_llmprobe import load_model
from pytest_llmprobe.cli import fidelity as command
from pytest_llmprobe.cli import main
from pytest_llmprobe.data.sources import read_datasets
from pytest_llmprobe.engine.corpus import score_corpus
from pytest_llmprobe.engine.corpus_file import kept_corpus
from pytest_llmprobe.engine.distribution_file import Maker, write_distributions
from pytest_llmprobe.engine.teacher_forcing import TeacherForcing
from pytest_llmprobe.plugin.run_texts import WHOLE, texts_path

TEXTS = ("The miller of the old town had three sons.", "A comet is a small body of ice and dust.")


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def test_a_model_is_itself_and_another_dtype_is_found(corpus, tmp_path, capsys):
    asked = ["fidelity", "reference", "reference", "--texts", str(corpus), "--window=16"]
    out = tmp_path / "out.json"
    assert main([*asked, "--kl=0", "--top1=1", "--json", str(out)]) == 0
    assert "llmprobe: GATE PASS (3" not in capsys.readouterr().out  # two bars were given
    found = json.loads(out.read_text())["texts"]
    assert found["base"] == found["candidate"]
    assert found["bytes"] == sum(map(len, TEXTS))
    assert found["fidelity"]["kl"]["max"] == 0
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--candidate-dtype=bfloat16", "--kl=0"])
    assert ended.value.code == 1
    assert "llmprobe: GATE FAIL (texts: kl " in capsys.readouterr().out


def test_without_anything_to_compare_on_it_says_what_to_give(capsys):
    assert main(["fidelity", "reference", "reference"]) == 4
    assert "give --texts FILE, or eval files" in capsys.readouterr().err
    assert main(["gate", "reference", "reference", "evals", "--kl=1"]) == 4
    assert "bars for --texts" in capsys.readouterr().err


@pytest.mark.parametrize("outcomes", [True, False])
def test_evaluations_run_with_both_models_and_the_candidates_decide(
    outcomes, tmp_path, monkeypatch, capsys
):
    asked = []

    def run(arguments):
        asked.append(arguments)
        if len(asked) == 2:
            (path,) = (a.partition("=")[2] for a in arguments if a.startswith("--llmprobe-json="))
            pairs = {"name": "x", "n": 5, "lost": [1], "gained": [], "finding": "worse"}
            said = "FAIL" if outcomes else "NOT JUDGED"
            report = {"comparison": {"experiments": [pairs]}, "gate": {"verdict": said}}
            report["experiments"] = [{"name": "x", "fidelity": None}]
            (tmp_path / "gate-report.json").write_text(json.dumps(report))
            assert path == str(tmp_path / "gate-report.json")
            return int(outcomes)
        return 0

    monkeypatch.setattr(command, "_pytest", run)
    name = "gate" if outcomes else "fidelity"
    given = [name, "a", "b", "evals", "--storage", str(tmp_path), "--", "-q"]
    if outcomes:
        with pytest.raises(SystemExit):
            main(given)
    else:
        assert main(given) == 0
    first, second = asked
    assert {"--llmprobe-model=a", "--llmprobe-save=gate", "-q"} <= {*first}
    assert "--llmprobe-model=b" in second
    assert any(a.startswith("--llmprobe-compare=") and a.endswith("gate.json") for a in second)
    assert ("--llmprobe-gate=none" in second) is not outcomes
    said = capsys.readouterr().out
    assert ("GATE FAIL" in said) is outcomes


def test_the_file_of_a_baseline_stands_for_its_model_if_it_keeps_the_corpus(
    corpus, tmp_path, capsys
):
    base = tmp_path / "main.json"
    base.write_text("{}")
    asked = ["fidelity", str(base), "reference", "--texts", str(corpus)]
    assert main(asked) == 4
    assert "main.json keeps no corpus: make it with" in capsys.readouterr().err
    loaded = load_model("reference")
    (data,) = read_datasets([f"texts={corpus}"], tmp_path).values()
    sample = data.sample(longest=WHOLE)
    score = score_corpus(TeacherForcing(loaded), list(sample.texts), 1024)
    maker = Maker("reference", str(loaded.info["tokenizer_hash"]), 64)
    path = base.with_suffix(".texts.npz")
    write_distributions(path, maker, kept_corpus(score, sample.origin))
    assert texts_path(base) == path
    assert main([*asked, "--kl=0"]) == 0
    said = capsys.readouterr().out
    assert "2 texts" in said
    assert "llmprobe: GATE PASS" in said
