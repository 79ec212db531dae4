"""The memorisation evals find what the reference model was shown, and nothing else."""

import json
import random
from pathlib import Path

import pytest

from pytest_llmprobe.cli import main
from pytest_llmprobe.data.prose import prose
from pytest_llmprobe.experiments.memorization.known_texts import EXPOSURES, known_texts

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def run(pytester):
    """Run the memorisation evals on the reference model; gives exit code and experiments."""

    def run(*arguments):
        path = pytester.path / "report.json"
        result = pytester.runpytest_subprocess(
            "-n2",
            f"--rootdir={ROOT}",
            f"--llmprobe-json={path}",
            *arguments,
            ROOT / "evals" / "memorization",
        )
        assert path.is_file(), result.stdout.str()
        report = json.loads(path.read_text())
        return int(result.ret), {e["name"]: e for e in report["experiments"]}

    return run


def test_they_recover_how_often_the_reference_model_saw_a_text(run):
    _, experiments = run()
    assert sorted(experiments) == ["exposure", "extraction", "membership", "verbatim"]
    assert not any(experiment["errors"] for experiment in experiments.values())

    curve = experiments["extraction"]["summary"]["not_extracted_by_exposures"]
    kept = {point["value"]: point["pass_rate"] for point in curve}
    assert tuple(kept) == EXPOSURES
    assert kept[0] == kept[1] == 1
    assert kept[64] <= 0.1
    assert sorted(kept.values(), reverse=True) == list(kept.values())

    summary = experiments["membership"]["summary"]
    for score in ("loss", "min_k", "min_k_plus_plus", "zlib", "reference"):
        often, once = (summary[f"{score}, {n} exposures"] for n in (64, 1))
        assert often["roc_auc"] >= 0.95, score
        assert often["found_at_1_percent_false_alarms"] >= 0.6, score
        assert once["roc_auc_ci95"][0] <= 0.6, score
        assert once["roc_auc"] < often["roc_auc"], score
    passes = {point["value"]: point["pass_rate"] for point in summary["not_told_apart"]}
    assert passes[0] >= 0.8
    assert passes[64] <= 0.1

    assert experiments["exposure"]["pass_rate"] >= 0.8  # numbers that nobody planted
    places = experiments["verbatim"]["summary"]["different_places"]
    assert 0 < places < experiments["verbatim"]["missed"] + 1


def test_texts_of_ones_own_that_the_model_never_saw_do_not_come_out(run, tmp_path):
    def write(name, texts):
        lines = [json.dumps({"text": text}) for text in texts]
        (tmp_path / name).write_text("\n".join(lines))
        return tmp_path / name

    rng = random.Random("own texts")
    fresh = [prose(rng, 6) for _ in range(90)]
    canaries = tmp_path / "canaries.jsonl"
    assert main(["canaries", "--count", "6", "--out", str(canaries)]) == 0
    shown = [t.text for t in known_texts() if (t.kind, t.exposures) == ("document", 64)]
    code, experiments = run(
        f"--llmprobe-dataset=canaries={canaries}",
        f"--llmprobe-dataset=documents={write('documents.jsonl', fresh[:10])}",
        f"--llmprobe-dataset=corpus={write('corpus.jsonl', fresh[10:30])}",
        f"--llmprobe-dataset=members={write('members.jsonl', shown)}",
        f"--llmprobe-dataset=non_members={write('others.jsonl', fresh[30:])}",
        "--llmprobe-profile=smoke",
        "--llmprobe-gate=none",
    )
    assert code == 0
    assert experiments["extraction"]["pass_rate"] == experiments["verbatim"]["pass_rate"] == 1
    assert experiments["extraction"]["n"] == 16
    assert experiments["exposure"]["n"] == 6
    by_task = experiments["membership"]["by"]["task"]
    assert by_task["member"]["pass_rate"] == 0
    assert by_task["non-member"]["pass_rate"] >= 0.7


def test_members_without_non_members_are_refused(pytester):
    (pytester.path / "members.txt").write_text("One text.")
    result = pytester.runpytest_subprocess(
        f"--rootdir={ROOT}",
        f"--llmprobe-dataset=members={pytester.path}/members.txt",
        ROOT / "evals" / "memorization" / "test_membership.py",
    )
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*give both --llmprobe-dataset members=... and non_members=...*"])


EVALUATION = """
    import pytest
    from pytest_llmprobe import Case

    def cases(suite):
        assert suite.dataset("documents")
        return [Case("once", "unused")]

    @pytest.mark.probe(cases=cases)
    def test_documents(case, suite, prefix_map, continuations, log_probabilities, score):
        data = suite.dataset("documents")
        entries = prefix_map(data, prefix_tokens=4)
        assert entries is prefix_map(data, prefix_tokens=4)
        assert [entry.document for entry in entries] == ["a.txt", "b.txt"]
        assert [skipped.document for skipped in entries.skipped()] == ["c.txt"]
        strings = continuations(entries, 3, max_length=5)
        assert [s["document"] for s in strings] == ["a.txt", "b.txt", "a.txt"]
        assert all(1 <= len(s["generated_ids"]) <= 5 and s["scores"] for s in strings)
        one, other = (
            log_probabilities(["a text"], model=name)[0].log_probability.sum()
            for name in ("reference", "reference-unlearned")
        )
        assert one != other
        score("same", one == log_probabilities(["a text"])[0].log_probability.sum())
"""


def test_fixtures_cut_prefixes_go_on_from_them_and_ask_another_model(pytester):
    pytester.makepyfile(test_eval=EVALUATION)
    (pytester.path / "texts").mkdir()
    for name, text in (("b", "The red fox saw the sea. "), ("a", "A man sold a lamp. "), ("c", "")):
        (pytester.path / "texts" / f"{name}.txt").write_text(text * 3 or "no")
    result = pytester.runpytest_subprocess(
        "-p", "no:xdist", "--llmprobe-dataset=documents=texts", "--llmprobe-json=r.json"
    )
    result.assert_outcomes(passed=1)
    (test,) = json.loads((pytester.path / "r.json").read_text())["tests"]
    assert test["outcome"] == "passed", test
    assert test["scores"] == {"same": 1}
