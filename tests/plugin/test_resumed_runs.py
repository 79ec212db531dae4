"""Runs that were killed go on; recorded answers are scored again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_llmprobe.report.schema import validate

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    def cases():
        for group in range(GROUPS):
            for name in range(5):
                text = f"{group}.{name}"
                yield Case(f"g{group}/c{name}", f"say {text}", text)

    @pytest.mark.probe(cases=cases, max_new_tokens=20)
    @pytest.mark.gate(pass_rate=0.5)
    def test_echo(case, completion, score):
        score("length", len(completion.text))
        assert completion.text == case.target, "it said something else"
"""
ASKED = """
        import os, time
        time.sleep(PAUSE)
        with open("asked", "a") as file:
            file.write(prompt + chr(10))
        return "wrong" if prompt.endswith(".0") else prompt.split()[-1]"""


@pytest.fixture
def mode(request):
    """One process, unless a test asks for workers."""
    return getattr(request, "param", ("-p", "no:xdist"))


@pytest.fixture
def evaluation(project, pytester):
    def evaluation(groups=2, pause=0.0, **more):
        project(EVAL.replace("GROUPS", str(groups)), ASKED.replace("PAUSE", str(pause)), **more)

    return evaluation


def asked(folder):
    path = folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


def forget_what_was_asked(folder):
    (folder / "asked").unlink(missing_ok=True)


def without_times(report):
    """A report without what two runs of one configuration may differ in."""
    report = {key: value for key, value in report.items() if key not in ("timestamp", "timings")}
    for experiment in report["experiments"]:
        del experiment["timings"]
    for test in report["tests"]:
        del test["duration"], test["wall_s"], test["batch_size"]
    return report


def answers_in(run):
    lines = (run / "completions.jsonl").read_bytes().splitlines()
    return {line[9:41] for line in lines if line.startswith(b'{"key": ') and line.endswith(b"}")}


def children(pid):
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def kill_something(process, rng):
    """The controller, or one of its workers (Linux)."""
    victims = [process.pid, *children(process.pid)]
    os.kill(rng.choice(victims), signal.SIGKILL)


def test_twenty_kills_lose_nothing_and_count_nothing_twice(evaluation, pytester):
    evaluation(groups=24, pause=0.02)
    command = [sys.executable, "-m", "pytest", "-n", "2", "-q"]
    expected = without_times(json.loads(_finished(command, pytester.path)))
    rng, kills, known, run = random.Random(1), 0, set(), None
    forget_what_was_asked(pytester.path)
    resumed = []
    while kills < 20:
        process = subprocess.Popen(
            [*command, *resumed],
            cwd=pytester.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        before = len(asked(pytester.path))
        deadline = time.monotonic() + 60
        while len(asked(pytester.path)) == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
            if resumed and len(known) == 120:
                break  # nothing is left to ask: it is killed while it scores
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is None:
            kill_something(process, rng)
            kills += 1
        text = process.communicate(timeout=60)[0].decode()
        if run is None:
            run = max((pytester.path / ".llmprobe" / "runs").iterdir())
            resumed = [f"--llmprobe-resume={run}"]
        time.sleep(0.1)  # workers of a dead controller end by themselves
        now = answers_in(run)
        assert known <= now, text
        known = now
    report = json.loads(_finished([*command, *resumed], pytester.path, run))
    validate(report)
    assert report["experiments"][0]["errors"] == 0
    assert without_times(report) == expected
    assert len(answers_in(run)) == 120
    # A kill takes at most the unit that each worker was in.
    assert len(asked(pytester.path)) <= 120 + 20 * 2 * 5


def _finished(command, folder, run=None):
    """The report of a run that is left alone."""
    subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    return ((run or max((folder / ".llmprobe" / "runs").iterdir())) / "report.json").read_text()


@pytest.mark.parametrize("mode", [("-p", "no:xdist"), ("-n", "2")], ids=str, indirect=True)
def test_what_is_there_is_not_asked_again(evaluation, probe, pytester):
    evaluation()
    first = probe("-k", "g0")
    forget_what_was_asked(pytester.path)
    second = probe("--llmprobe-resume", "--llmprobe-misses=fail", "--llmprobe-limit=100")
    assert sorted(asked(pytester.path)) == [f"say 1.{name}" for name in range(5)]
    assert second.report_path == first.report_path
    assert second.outcomes == {"missed": 2, "passed": 8}
    name = first.report_path.parent.name
    assert f"{name}: 5 of 10 answers were there" in second.text
    records = first.report_path.with_name("records-1.jsonl").read_text().splitlines()
    assert len(records) == 6  # the header and the first run's five
    assert probe("--llmprobe-resume").text.count("10 of 10 answers were there") == 1


def test_other_requests_are_asked(evaluation, probe, pytester):
    evaluation()
    probe()
    path = pytester.path / "test_eval.py"
    path.write_text(path.read_text().replace("max_new_tokens=20", "max_new_tokens=19"))
    forget_what_was_asked(pytester.path)
    assert "0 of 10 answers were there" in probe("--llmprobe-resume").text
    assert len(asked(pytester.path)) == 10


def test_another_model_behind_the_same_name_is_asked_again(evaluation, probe, pytester):
    evaluation()
    probe()
    conftest = pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text() + CHANGED)
    forget_what_was_asked(pytester.path)
    run = probe("--llmprobe-resume")
    assert len(asked(pytester.path)) == 10
    assert "the model is not as it was: fingerprint None -> 2" in run.text


CHANGED = """
@pytest.fixture(scope="session")
def engine():
    model = ScriptedModel(answer)
    model.info = {"source": "scripted", "fingerprint": "2"}
    return Engine(model)
"""


def test_the_last_run_of_this_model_goes_on(evaluation, probe, pytester):
    evaluation()
    mine = probe("-k", "g0")
    probe("--model=reference-random")
    assert probe("--llmprobe-resume").text.count("5 of 10 answers were there") == 1
    assert mine.report_path.with_name("records-1.jsonl").exists()


def test_a_report_of_its_own_name_goes_on_beside_it(evaluation, probe, pytester):
    evaluation()
    probe("-k", "g0", "--llmprobe-json=out/mine.json")
    run = probe("--llmprobe-json=out/mine.json", "--llmprobe-resume")
    assert "out: 5 of 10 answers were there" in run.text
    assert len(json.loads((pytester.path / "out" / "mine.json").read_text())["tests"]) == 10


@pytest.mark.parametrize("mode", [("-p", "no:xdist"), ("-n", "2")], ids=str, indirect=True)
def test_a_replay_scores_the_same_answers_by_an_edited_assertion(evaluation, probe, pytester):
    evaluation()
    first = probe()
    assert first.outcomes == {"missed": 2, "passed": 8}
    path = pytester.path / "test_eval.py"
    path.write_text(path.read_text().replace("== case.target", "!= case.target"))
    forget_what_was_asked(pytester.path)
    name = first.report_path.parent.name
    again = probe(f"--llmprobe-replay={name}")
    assert asked(pytester.path) == []
    assert again.report_path != first.report_path
    validate(again.report)
    assert again.outcomes == {"missed": 8, "passed": 2}
    assert again.report["config"]["replay"] == name
    assert again.report["model_info"] == first.report["model_info"]
    assert f"{name}: 10 of 10 answers were there" in again.text
    assert {test["id"]: test["duration"] for test in again.report["tests"]} == {
        test["id"]: test["duration"] for test in first.report["tests"]
    }


def test_answers_of_another_model_beside_a_report_are_not_its_own(evaluation, probe, pytester):
    evaluation()
    first = probe()
    answers = first.report_path.with_name("completions.jsonl")
    answers.write_text(answers.read_text().replace('"model": "', '"model": "no-', 1))
    again = pytester.runpytest_subprocess(f"--llmprobe-replay={first.report_path}")
    assert again.ret == 4
    again.stderr.fnmatch_lines(["ERROR: llmprobe: *and the answers beside it are of 'no-*"])


def test_errors_of_requests_are_replayed_too(evaluation, probe, pytester):
    evaluation(context_length=28)
    path = pytester.path / "test_eval.py"
    path.write_text(
        path.read_text().replace('f"say {text}"', 'f"say {text}" + group * " at length"')
    )
    first = probe()
    assert first.outcomes == {"error": 5, "missed": 1, "passed": 4}
    again = probe(f"--llmprobe-replay={first.report_path.parent}")
    assert again.outcomes == first.outcomes
    assert again.tests == first.tests


def test_a_case_without_a_recorded_answer_is_an_error(evaluation, probe):
    evaluation()
    first = probe("-k", "g0")
    again = probe(f"--llmprobe-replay={first.report_path.parent}")
    assert (again.exit_code, again.outcomes) == (1, {"error": 5, "missed": 1, "passed": 4})
    assert "holds no answer to this request: replay with the options" in again.text


@pytest.mark.usefixtures("unforked")
def test_a_replay_needs_no_model_and_takes_its_name_from_the_run(pytester, probe):
    pytester.makepyfile(
        test_eval="""
        import sys
        import pytest
        from pytest_llmprobe import Case

        @pytest.mark.probe(cases=[Case("a", "hello", "x")], max_new_tokens=4)
        def test_answer(case, completion):
            assert completion.text == case.target

        @pytest.mark.probe(cases=[Case("a", "hello")])
        def test_inside(case, log_probabilities):
            assert log_probabilities([case.prompt])

        def test_last():
            print("torch" in sys.modules)
        """
    )
    first = probe("--model=reference-random", "-s")
    assert first.outcomes == {"missed": 1, "passed": 1}
    again = probe(f"--llmprobe-replay={first.report_path.parent.name}", "-s", "-rs")
    assert "False" in again.text
    assert "this needs a model in this process" in again.text
    assert again.outcomes == {"missed": 1, "skipped": 1}
    assert again.report["model"] == "reference-random"
    (before,) = (t for t in first.report["tests"] if "answer" in t["id"])
    (after,) = (t for t in again.report["tests"] if "answer" in t["id"])
    assert before == after


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--llmprobe-replay=nowhere"], "there is no run 'nowhere' with answers"),
        (["--llmprobe-resume=nowhere"], "there is no run 'nowhere' with answers"),
        (
            ["--llmprobe-resume", "--model=reference-random"],
            "no run of 'reference-random' has left",
        ),
        (["--llmprobe-resume", "--llmprobe-replay=RUN"], "exclude each other"),
        (["--llmprobe-replay=RUN", "--llmprobe-seed=3"], "was made with --llmprobe-seed 0, and"),
    ],
)
def test_impossible_wishes_end_at_once(evaluation, probe, pytester, options, words):
    evaluation(groups=1)
    name = probe().report_path.parent.name
    run = pytester.runpytest_subprocess(*(option.replace("RUN", name) for option in options))
    assert run.ret == 4
    run.stderr.fnmatch_lines([f"ERROR: llmprobe: *{words}*"])


SPYING = """
class Spy(ScriptedModel):
    def generate(self, rows, on_tokens):
        with open("drafts", "a") as file:
            file.writelines(f"{isinstance(row.draft, tuple)} " for row in rows)
        return super().generate(rows, on_tokens)

@pytest.fixture(scope="session")
def engine():
    return Engine(Spy(answer))
"""


def test_the_answers_of_the_models_last_run_are_guesses_of_the_next(evaluation, probe, pytester):
    evaluation(conftest="")
    conftest = pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text() + SPYING)
    drafts = pytester.path / "drafts"
    first = probe("-k", "g0")
    assert drafts.read_text().split() == ["False"] * 5
    drafts.unlink()
    second = probe()
    assert sorted(drafts.read_text().split()) == ["False"] * 5 + ["True"] * 5
    drafts.unlink()
    probe("--llmprobe-no-drafts")
    assert drafts.read_text().split() == ["False"] * 10
    drafts.unlink()
    probe(f"--llmprobe-compare={first.report_path.parent}")
    assert sorted(drafts.read_text().split()) == ["False"] * 5 + ["True"] * 5
    assert second.outcomes == {"missed": 2, "passed": 8}
