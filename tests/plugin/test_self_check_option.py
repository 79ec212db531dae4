"""--llmprobe-self-check: once a run, beside its cases, in every form of the report."""

import json
from textwrap import dedent

import pytest

from pytest_llmprobe.engine.check_prompts import check_prompts
from pytest_llmprobe.report.schema import validate

ALL = check_prompts()
ASKED = 2 * (len(ALL.alone) + len(ALL.shared)) + len(ALL.alone) + 1 + len(ALL.shared)

MOODY = """
    from pathlib import Path

    class Moody(ScriptedModel):
        def generate(self, rows, on_tokens):
            with Path("asked.txt").open("a") as file:
                file.write("".join(f"{len(row.prompt_ids)} {len(rows)}\\n" for row in rows))
            self.words = WORDS
            return super().generate(rows, on_tokens)

    @pytest.fixture(scope="session")
    def engine():
        model = Moody(lambda prompt: prompt.split()[-1] + " " + model.words)
        model.info = {"source": "scripted", "dtype": "DTYPE"}
        return Engine(model)
"""
EVAL = """
    import pytest
    from pytest_llmprobe import Case

    cases = [Case(f"g{n}/c", f"say {n}", str(n)) for n in range(6)]

    @pytest.mark.probe(cases=cases, max_new_tokens=20)
    def test_echo(case, completion):
        assert completion.text.startswith(case.target)
"""


@pytest.fixture
def moody(project):
    def moody(words, dtype="float32"):
        source = MOODY.replace("WORDS", words).replace("DTYPE", dtype)
        return project(EVAL, conftest=source)

    return moody


@pytest.fixture
def mode(request):
    return getattr(request, "param", ("-p", "no:xdist"))


TWO_WORKERS = pytest.mark.parametrize("mode", [("-p", "no:xdist"), ("-n", "2")], indirect=True)


@TWO_WORKERS
def test_the_model_is_checked_once_and_its_cases_are_as_ever(moody, probe):
    pytester = moody("'a'")
    run = probe("--llmprobe-self-check", "--llmprobe-html=p.html", "--llmprobe-md=p.md")
    validate(run.report)
    found = run.report["self_check"]
    assert [(way["name"], way["n"], way["flipped"]) for way in found["ways"]] == [
        ("batched", 24, 0),
        ("padded", 12, 0),
        ("shared", 12, 0),
    ]
    line = (
        "self-check: 0 of 48 answers differ from one by one "
        "(batched 0/24, padded 0/12, shared 0/12), float32"
    )
    assert run.text.splitlines().count(line) == 1
    assert "warning:" not in run.text
    assert line in (pytester.path / "p.html").read_text()
    assert line in (pytester.path / "p.md").read_text()
    assert run.exit_code == 0
    asked = (pytester.path / "asked.txt").read_text().splitlines()
    assert len(asked) == ASKED + 6  # the cases' prompts have five characters
    assert sum(line.startswith("5 ") for line in asked) == 6
    assert run.outcomes == {"passed": 6}
    folder = run.report_path.parent
    assert len((folder / "records.jsonl").read_text().splitlines()) == 1 + 6
    kept = (folder / "completions.jsonl").read_text().splitlines()
    assert sum('"completion"' in line for line in kept) == 6


def test_flips_in_float32_are_a_warning_and_no_failure(moody, probe):
    pytester = moody("'a' if len(rows) == 1 else 'b'")
    run = probe("--llmprobe-self-check", "--llmprobe-html=p.html", "--llmprobe-md=p.md")
    assert run.exit_code == 0
    run.result.stdout.fnmatch_lines(
        [
            "self-check: 48 of 48 answers differ from one by one *, float32",
            "self-check, batched: 1.000 * differ, first at token * of prompt 1, *",
            "warning: answers of this model depend on the batch even in float32*",
        ]
    )
    assert "even in float32" in (pytester.path / "p.html").read_text()
    assert "even in float32" in (pytester.path / "p.md").read_text()


def test_nothing_is_checked_unless_asked_for(moody, probe):
    pytester = moody("'a'")
    run = probe()
    assert run.report["self_check"] is None
    assert "self-check" not in run.text
    assert len((pytester.path / "asked.txt").read_text().splitlines()) == 6


def test_a_run_that_goes_on_or_is_repeated_is_checked_once_each(moody, probe):
    pytester = moody("'a'")
    run = probe("--llmprobe-self-check", "--llmprobe-save=x", "--llmprobe-calibrate=1")
    assert run.exit_code == 0
    asked = pytester.path / "asked.txt"
    assert len(asked.read_text().splitlines()) == ASKED + 2 * 6
    asked.unlink()
    resumed = probe("--llmprobe-self-check", f"--llmprobe-resume={run.report_path.parent.name}")
    assert resumed.report["self_check"]["ways"] == run.report["self_check"]["ways"]
    assert len(asked.read_text().splitlines()) == ASKED


def test_a_run_that_never_asks_the_model_says_that_it_was_not_checked(pytester, probe):
    pytester.makepyfile(
        dedent("""
        import pytest

        @pytest.mark.probe()
        def test_it():
            pass
    """)
    )
    run = probe("--llmprobe-self-check")
    validate(run.report)
    assert run.report["self_check"] is None
    assert "self-check: not made: no test asked the model" in run.text


SMALL = """
    import pytest
    from pytest_llmprobe.engine import check_prompts

    check_prompts.SENTENCES = (1, 3)
    check_prompts.QUESTIONS = 2
    check_prompts.LONG_SENTENCES = 8
"""


def test_a_model_in_this_process_is_checked_against_plain_generate(pytester, probe):
    pytester.makeconftest(dedent(SMALL))
    pytester.makepyfile(test_eval=dedent(EVAL))
    run = probe("--llmprobe-self-check", "--model=reference-random", "--llmprobe-limit=1")
    validate(run.report)
    found = run.report["self_check"]
    assert [(way["n"], way["flipped"], way["rows"]) for way in found["ways"]] == [
        (4, 0, 2),
        (2, 0, 3),
        (2, 0, 2),
    ]
    assert (found["dtype"], found["shares_prefixes"]) == ("float32", True)
    assert "depend on the batch" not in run.text


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (
            ["--llmprobe-engine=shared"],
            "needs the model in this process: --llmprobe-engine shared keeps it in another one",
        ),
        (
            ["--llmprobe-replay=run"],
            "needs the model in this process: --llmprobe-replay loads none",
        ),
        (
            ["--model=claude-API"],
            "needs greedy answers, and Anthropic's protocol has none",
        ),
        (
            ["--model=openai:it", "--llmprobe-concurrency=1"],
            "asks a server several requests at a time: give a --llmprobe-concurrency above 1",
        ),
    ],
)
def test_it_is_refused_where_the_model_is_elsewhere(pytester, probe, arguments, why):
    pytester.makepyfile(test_eval=dedent(EVAL))
    answers = pytester.mkdir("run") / "completions.jsonl"
    answers.write_text(json.dumps({"run": {"model": "reference"}}) + "\n")
    run = probe("--llmprobe-self-check", *arguments)
    assert run.exit_code == 4
    lines = [line for line in run.result.stderr.lines if line]
    assert lines == [f"ERROR: llmprobe: --llmprobe-self-check {why}"]
