"""A baseline that keeps distributions, and candidates measured against it, in real runs."""

from textwrap import dedent
from types import SimpleNamespace

import pytest

from pytest_llmprobe.engine.distribution_file import DistributionFile
from pytest_llmprobe.plugin.fidelity import RunFidelity
from pytest_llmprobe.report.schema import validate

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    cases = [Case(f"c{n}", f"Say the number {n} in words.", "x") for n in range(6)]

    @pytest.mark.probe(cases=cases, max_new_tokens=8)
    @pytest.mark.gate(kl=1e-6, top1=1, perplexity={"max_increase": 1e-6})
    def test_said(case, completion):
        assert len(completion.text) % 2
"""


@pytest.fixture
def mode():
    return ("-p", "no:xdist")


@pytest.fixture
def kept(pytester):
    """The file of distributions of a baseline by the reference model."""
    pytester.makepyfile(test_eval=dedent(EVAL))
    # Two workers keep, one process compares.
    first = pytester.runpytest_subprocess("-n", "2", "--model=reference", "--llmprobe-save=main")
    assert first.ret == 0, first.stdout.str()
    (path,) = (pytester.path / ".llmprobe" / "baselines").glob("*/main.npz")
    assert f"distributions: {path} (6 answers" in first.stdout.str()
    assert "PASS" not in first.stdout.str()  # it has none to be faithful to
    return path


def test_the_same_model_is_the_same_and_another_dtype_is_not(kept, probe):
    same = probe("--model=reference", "--llmprobe-compare=main")
    validate(same.report)
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
    options = SimpleNamespace(fidelity="off", replay=None, save=None, compare=None, model="m")
    assert RunFidelity(process, options).save(tmp_path / "main.json") == []
    assert not older.exists()
