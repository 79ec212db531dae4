"""A baseline that keeps distributions, and candidates measured against it, in real runs."""

import json
from textwrap import dedent
from types import SimpleNamespace

import pytest

from pytest_llmprobe.engine.distribution_file import DistributionFile
from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.plugin.fidelity import RunFidelity, checked_file
from pytest_llmprobe.report.schema import validate

CORPUS = "--llmprobe-fidelity=corpus.jsonl"

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    cases = [Case(f"c{n}", f"Say the number {n} in words.", "x") for n in range(6)]

    @pytest.mark.probe(cases=cases, max_new_tokens=8)
    @pytest.mark.gate(kl=1e-6, top1=1, perplexity={"max_increase": 1e-6})
    def test_said(case, completion, fidelity, score):
        if fidelity is not None:
            score("kl", fidelity["kl_mean"])
        assert len(completion.text) % 2
"""


@pytest.fixture
def mode():
    return ("-p", "no:xdist")


@pytest.fixture
def kept(pytester):
    """The file of distributions of a baseline by the reference model."""
    pytester.makepyfile(test_eval=dedent(EVAL))
    texts = [
        {"text": "The miller of the old town had three sons."},
        {"text": None},
        {"text": "Ice"},
    ]
    (pytester.path / "corpus.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts))
    # Two workers keep, one process compares.
    first = pytester.runpytest_subprocess(
        "-n", "2", "--model=reference", "--llmprobe-save=main", CORPUS
    )
    assert first.ret == 0, first.stdout.str()
    (path,) = (pytester.path / ".llmprobe" / "baselines").glob("*/main.npz")
    shown = path.relative_to(pytester.path)
    assert f"distributions: {shown} (6 answers" in first.stdout.str()
    assert "PASS" not in first.stdout.str()  # it has none to be faithful to
    assert "2 texts, 1 without text left out" in first.stdout.str()
    assert f"distributions of the corpus: {shown.with_suffix('.texts.npz')}" in first.stdout.str()
    return path


def test_the_same_model_is_the_same_and_another_dtype_is_not(kept, probe):
    same = probe("--model=reference", "--llmprobe-compare=main", CORPUS)
    validate(same.report)
    texts = same.report["texts"]
    assert (texts["fidelity"]["kl"]["max"], texts["remark"], texts["texts"]) == (0, None, 2)
    assert texts["base"] == texts["candidate"]
    assert same.experiment["scores"]["kl"]["mean"] == 0
    assert same.exit_code == 0, same.text
    found = same.experiment["fidelity"]
    assert (found["verdict"], found["cases"], found["kl"]["max"]) == ("the same", 6, 0)
    answers = DistributionFile(kept)
    assert found["tokens"] == sum(len(answers[name].tokens) for name in answers)
    for test in same.report["tests"]:
        assert "".join(test["fidelity"]["pieces"]).startswith(test["received"])
        assert answers[test["id"]].prompt_hash == test["prompt_hash"]
    other = probe("--model=reference", "--llmprobe-compare=main", "--llmprobe-dtype=bfloat16")
    validate(other.report)
    assert other.report["texts"] is None
    assert other.experiment["scores"]["kl"]["mean"] > 1e-6
    found = other.experiment["fidelity"]
    assert found["verdict"].startswith("different")
    assert 1e-6 < found["kl"]["mean"] < 0.1
    assert found["worst"][0]["kl"] == pytest.approx(found["kl"]["max"], rel=0.01)
    assert (other.exit_code, other.verdict) == (1, "FAIL")
    assert "said: kl " in other.text
    kept.write_bytes(kept.read_bytes()[:2000])
    damaged = probe("--model=reference", "--llmprobe-compare=main")
    assert damaged.exit_code == 4
    assert "no whole file of distributions" in damaged.result.stderr.str()


def test_a_baseline_without_distributions_takes_away_those_of_an_older_one(tmp_path):
    older = tmp_path / "main.npz"
    older.write_bytes(b"of other answers")
    process = SimpleNamespace(scratch=tmp_path / "scratch", name="")
    options = SimpleNamespace(fidelity="off", replay=None, save=None, compare=None)
    vars(options).update(model="m", full=False, texts=None)
    assert RunFidelity(process, options).save(tmp_path / "main.json") == []
    assert not older.exists()


def test_a_corpus_that_is_not_there_is_said_before_any_case(pytester):
    pytester.makepyfile(test_eval=dedent(EVAL))
    result = pytester.runpytest_inprocess("-p", "no:xdist", "--llmprobe-fidelity=no.txt")
    assert result.ret == 4
    said = f"{result.stdout.str()}{result.stderr.str()}"
    assert "--llmprobe-fidelity no.txt: " in said
    assert "or give off or answers" in said
    (pytester.path / "empty.txt").write_text(" \n")
    result = pytester.runpytest_inprocess(
        "-p", "no:xdist", "--model=reference", "--llmprobe-fidelity=empty.txt"
    )
    assert result.ret == 4
    assert "--llmprobe-fidelity empty.txt: it holds no text" in result.stderr.str()
    (pytester.path / "main.json").write_text("{}")
    (pytester.path / "corpus.txt").write_text("Ice and dust.")
    with pytest.raises(ReportError, match="keeps no corpus: make the baseline with this option"):
        checked_file(pytester.path / "main.json", "corpus.txt")
