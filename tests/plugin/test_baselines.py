"""Saving a run as a baseline, comparing with one, and what the gate and the exit code say."""

import json
import re

import pytest

from pytest_llmprobe.report.schema import validate

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    cases = [Case(f"c{n:02}", f"say {n}", str(n)) for n in range(30)]

    @pytest.mark.probe(cases=cases, max_new_tokens=20)
    def test_echo(case, completion):
        assert int(case.target) >= WRONG
"""


@pytest.fixture
def mode(request):
    """One process, unless a test asks for workers."""
    return getattr(request, "param", ("-p", "no:xdist"))


@pytest.fixture
def run(project, probe):
    """Run the evaluation, of whose cases the first ``wrong`` are missed."""

    def run(wrong, *arguments):
        project(EVAL.replace("WRONG", str(wrong)))
        return probe(*arguments)

    return run


def gate_line(run):
    return re.findall(r"^llmprobe: GATE .*", run.text, re.MULTILINE)[-1]


@pytest.mark.parametrize("mode", [("-p", "no:xdist"), ("-n", "2")], ids=str, indirect=True)
def test_a_worse_run_fails_the_gate_and_says_which_cases_it_lost(run, pytester):
    first = run(0, "--llmprobe-save=main")
    assert first.exit_code == 0, first.text
    (path,) = (pytester.path / ".llmprobe" / "baselines").glob("*/main.json")
    assert json.loads(path.read_text())["kind"] == "llmprobe baseline"
    shown = path.relative_to(pytester.path)
    assert f"baseline: {shown} (next time --llmprobe-compare main)" in first.text
    second = run(10, "--llmprobe-compare=main")
    validate(second.report)
    assert second.exit_code == 1
    assert gate_line(second).startswith("llmprobe: GATE FAIL (echo: worse: pass rate 1.000 -> 0.66")
    assert "echo: the first 3 of 10 lost" in second.text
    assert "echo: lost 10" not in second.text  # they are shown once
    assert "FAIL (baseline)" in second.text
    (check,) = second.report["gate"]["checks"]
    assert (check["verdict"], check["metric"]) == ("FAIL", "change of the pass rate")
    (experiment,) = second.report["comparison"]["experiments"]
    assert len(experiment["lost"]) == 10
    assert experiment["finding"] == "worse"


@pytest.mark.parametrize("gate", ["none", "thresholds"])
def test_a_gate_of_another_kind_only_shows_the_comparison(run, gate):
    run(0, "--llmprobe-save=main")
    second = run(10, "--llmprobe-compare=main", f"--llmprobe-gate={gate}")
    assert second.exit_code == 0
    assert "echo: lost 10" in second.text
    assert gate_line(second).startswith("llmprobe: GATE NOT JUDGED")
    assert second.report["gate"]["checks"] == []


def test_the_same_again_passes_and_says_what_would_have_been_found(run):
    run(3, "--llmprobe-save=main")
    second = run(3, "--llmprobe-compare=main", "--llmprobe-gate=baseline")
    assert second.exit_code == 0, second.text
    assert gate_line(second) == "llmprobe: GATE PASS (1 of 1 checks passed)"
    assert "would have been found with 80 %" in second.text or "no change at all" in second.text
    assert "first difference: " not in second.text.replace("first difference: code", "")


@pytest.mark.parametrize(("lenient", "code"), [((), 1), (("--no-llmprobe-require-judged",), 0)])
def test_part_of_the_cases_is_not_judged(run, lenient, code):
    run(0, "--llmprobe-save=main")
    second = run(30, "--llmprobe-compare=main", "-k", "c0", *lenient)
    assert second.exit_code == code
    assert gate_line(second).startswith("llmprobe: GATE NOT JUDGED")
    assert "cases only in main" in second.text


def test_a_report_or_a_runs_folder_can_be_compared_with_too(run):
    first = run(0)
    for path in (first.report_path, first.report_path.parent):
        assert run(10, f"--llmprobe-compare={path}").exit_code == 1


def test_changed_prompts_are_judged_together_with_the_model(run, project, probe):
    run(0, "--llmprobe-save=main")
    project(EVAL.replace("WRONG", "30").replace("say {n}", "tell {n}"))
    second = probe("--llmprobe-compare=main")
    assert second.exit_code == 1
    said = "the prompts of 30 of 30 cases changed (the evaluation's own text): cases are paired"
    assert said in second.text
    assert gate_line(second).startswith("llmprobe: GATE FAIL")


def test_changed_prompts_never_pass_in_silence_and_not_at_all_where_they_must_be_the_same(
    run, project, probe
):
    run(0, "--llmprobe-save=main")
    same = run(0, "--llmprobe-compare=main", "--llmprobe-gate=same-prompts")
    assert (same.exit_code, same.verdict) == (0, "PASS")
    assert "prompts of" not in gate_line(same)
    project(EVAL.replace("WRONG", "0").replace("say {n}", "say  {n}"))
    together = probe("--llmprobe-compare=main")
    assert (together.exit_code, together.verdict) == (0, "PASS")
    assert "; the prompts of 30 of 30 cases changed" in gate_line(together)
    alone = probe("--llmprobe-compare=main", "--llmprobe-gate=same-prompts")
    assert (alone.exit_code, alone.verdict) == (1, "NOT JUDGED")
    assert "echo: 30 of 30 prompts changed, and they were to be the same" in gate_line(alone)


def test_the_number_of_workers_is_in_the_report(run, pytester):
    assert run(0).report["config"]["workers"] == 1
    pytester.runpytest_inprocess("-n", "2", "--llmprobe-json=two.json")
    assert json.loads((pytester.path / "two.json").read_text())["config"]["workers"] == 2


def test_page_and_markdown_are_written_and_the_jobs_summary(run, pytester, monkeypatch):
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run(0, "--llmprobe-save=main")
    second = run(
        10, "--llmprobe-compare=main", "--llmprobe-html=out/a.html", "--llmprobe-md=out/a.md"
    )
    page, text = (pytester.path / "out" / name for name in ("a.html", "a.md"))
    assert "page: out/a.html\n" in second.text
    assert "<title>llmprobe: reference: FAIL</title>" in page.read_text()
    assert "echo" in text.read_text()
    assert text.read_text() in summary.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--llmprobe-save=../x"], "'../x' cannot name a baseline"),
        (["--llmprobe-compare=nothing"], "there is no baseline, file or run 'nothing'"),
        (["--llmprobe-compare=test_eval.py"], "it is no JSON"),
        (["--llmprobe-gate=baseline"], "--llmprobe-gate baseline needs --llmprobe-compare"),
        (["--llmprobe-gate=same-prompts"], "gate same-prompts needs --llmprobe-compare NAME"),
        (["--llmprobe-html=test_eval.py/a.html"], "test_eval.py"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(project, pytester, options, words):
    project(EVAL.replace("WRONG", "0"))
    result = pytester.runpytest_subprocess("-p", "no:xdist", *options)
    assert result.ret == 4
    assert words in result.stderr.str()
    assert not (pytester.path / ".llmprobe" / "runs").exists()


FLAKY = """
    import pytest
    from pathlib import Path
    from pytest_llmprobe import Case

    cases = [Case(f"c{n:02}", f"say {n}", str(n)) for n in range(30)]
    path = Path(__file__).with_name("runs")
    path.write_text((path.read_text() if path.exists() else "") + "x")
    WRONG = {1: 0, 2: 12, 3: 3}.get(len(path.read_text()), 10)

    @pytest.mark.probe(cases=cases, max_new_tokens=20)
    def test_echo(case, completion):
        assert int(case.target) >= WRONG
"""


def test_measured_noise_hides_no_proven_loss(project, probe, pytester, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    project(FLAKY)
    first = probe("--llmprobe-save=main", "--llmprobe-calibrate=2", "--junit-xml=junit.xml")
    assert first.exit_code == 0, first.text
    assert "llmprobe: repeat 2 of 2" in first.text
    assert "noise over 3 runs: standard deviation of a pass rate up to 0.208 (echo)" in first.text
    (path,) = (pytester.path / ".llmprobe" / "baselines").glob("*/main.json")
    assert json.loads(path.read_text())["noise"] == {"echo": pytest.approx(0.2082, abs=1e-4)}
    assert (pytester.path / "summary.md").read_text().count("Verdict") <= 1
    second = probe("--llmprobe-compare=main")  # ten lost, proven whatever the noise
    assert second.exit_code == 1, second.text
    assert "echo: worse" in second.text


SEEDS = """
    import os
    import pytest
    from pathlib import Path
    from pytest_llmprobe import Case

    cases = [Case(f"c{n}", f"say {n}", str(n)) for n in range(4)]

    @pytest.mark.probe(cases=cases, max_new_tokens=20, temperature=1.0)
    def test_echo(case, completion):
        with Path(__file__).with_name("seeds").open("a") as file:
            file.write(f"{os.environ.get('LLMPROBE_REPEAT', '0')} {case.id} {case.seed}\\n")
"""


def test_repeats_sample_with_seeds_of_their_own(project, probe, pytester):
    project(SEEDS)
    assert probe("--llmprobe-save=main", "--llmprobe-calibrate=2").exit_code == 0
    lines = [line.split() for line in (pytester.path / "seeds").read_text().splitlines()]
    assert sorted({repeat for repeat, _, _ in lines}) == ["0", "1", "2"]
    assert len({(case, seed) for _, case, seed in lines}) == len(lines) == 12
    again = {(case, seed) for repeat, case, seed in lines if repeat == "0"}
    assert probe().exit_code == 0
    lines = [line.split() for line in (pytester.path / "seeds").read_text().splitlines()][12:]
    assert {(case, seed) for _, case, seed in lines} == again


MARKED = "    @pytest.mark.gate(allowed_drop=0.5)\n    def test_echo"
ALLOWED = EVAL.replace("    def test_echo", MARKED)


def test_a_drop_is_allowed_by_the_marker_or_the_option(project, probe):
    project(EVAL.replace("WRONG", "0"))
    assert probe("--llmprobe-save=main").exit_code == 0
    project(ALLOWED.replace("WRONG", "8"))
    assert "echo: worse" not in (within := probe("--llmprobe-compare=main")).text
    assert gate_line(within) == "llmprobe: GATE PASS (1 of 1 checks passed)"
    assert "with a drop of 0.5 allowed" in within.text
    project(EVAL.replace("WRONG", "8"))
    assert probe("--llmprobe-compare=main").exit_code == 1
    assert probe("--llmprobe-compare=main", "--llmprobe-allowed-drop=0.5").exit_code == 0
    beyond = probe("--llmprobe-compare=main", "--llmprobe-allowed-drop=0.05")
    assert beyond.exit_code == 1
    assert gate_line(beyond).startswith("llmprobe: GATE FAIL (echo: worse: pass rate 1.000 -> 0.73")


@pytest.mark.parametrize("given", ["-0.1", "1", "nan", "a", ""])
def test_an_impossible_drop_is_a_usage_error(project, pytester, given):
    project(EVAL.replace("WRONG", "0"))
    result = pytester.runpytest_subprocess(f"--llmprobe-allowed-drop={given}")
    assert result.ret == 4
    assert "is no drop of a pass rate" in result.stderr.str()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("allowed_drop=2", "gate marker: allowed_drop=2: give a number from 0"),
        ("judge=False, pass_rate=0.5", "judge=False goes with no bar"),
        ("judge=1", "judge=1: give True or False"),
        ("0.5", "gate takes keyword arguments only"),
        ("pass_rate='high'", "gate marker: pass_rate='high': the bar is no number"),
        ("score={'lenght': 1}", "no score 'lenght'; it gives none"),
        ("scores={'a': 1}", "unknown 'scores'; did you mean score?"),
        ("recovery=1.5", "recovery=1.5: give a number above 0, at most 1"),
    ],
)
def test_an_impossible_gate_marker_is_a_usage_error(project, probe, arguments, words):
    project(ALLOWED.replace("WRONG", "0").replace("allowed_drop=0.5", arguments))
    run = probe()
    assert run.exit_code == 4
    (message,) = {line for line in run.result.errlines if line.startswith("ERROR: ")}
    assert message.startswith("ERROR: llmprobe: test_eval.py::test_echo: ")
    assert words in message


LIMITED = EVAL.replace("completion):", "completion, score):").replace(
    "assert", "score('edit_distance', SPOILT)\n        assert"
)


def test_a_score_is_held_to_the_baseline_by_marker_and_configuration(project, probe, pytester):
    gate = "    @pytest.mark.gate(score={'edit_distance': {'max_increase': 0.5}})\n"
    marked = LIMITED.replace("    def test_echo", f"{gate}    def test_echo")
    marked = marked.replace("WRONG", "0")
    project(marked.replace("SPOILT", "case.id[-1] in '159'"))
    assert probe("--llmprobe-save=main").exit_code == 0
    assert probe("--llmprobe-compare=main").verdict == "PASS"
    project(marked.replace("SPOILT", "2"))
    worse = probe("--llmprobe-compare=main")
    assert worse.exit_code == 1
    assert "edit_distance 0.3 -> 2, with an increase of 0.5 allowed: surely beyond" in worse.text
    assert "FAIL (edit_distance increase <= 0.5)" in worse.text
    (pytester.path / "pyproject.toml").write_text(
        "[tool.llmprobe.gates.reference.echo]\n"
        "score = { edit_distance = { max_increase = '1500%' }, latency_p95 = 1e6 }\n"
        "recovery = 0.5\n"
    )
    within = probe("--llmprobe-compare=main")
    assert "a recovery between" in within.text
    assert gate_line(within) == "llmprobe: GATE PASS (3 of 3 checks passed)"


LABELS = EVAL.replace('f"c{n:02}", f"say', 'f"geo/c{n:02}", PREFIX + f"say')


@pytest.mark.parametrize(("prefix", "clusters"), [("''", 30), ("'a haystack. ' * 40", 1)])
def test_a_group_is_a_cluster_where_prompts_begin_alike(project, probe, prefix, clusters):
    text = LABELS.replace("PREFIX", prefix)
    project(text.replace("WRONG", "0"))
    first = probe("--llmprobe-save=main")
    assert first.experiment["clusters"] == clusters
    assert {test["shares_prefix"] for test in first.report["tests"]} == {clusters == 1}
    project(text.replace("WRONG", "99"))
    second = probe("--llmprobe-compare=main")
    assert second.exit_code == 1
    (experiment,) = second.report["comparison"]["experiments"]
    assert (experiment["groups"], experiment["finding"]) == (clusters, "worse")


def test_a_repeat_that_breaks_fails_the_run_and_keeps_the_baseline(project, probe, pytester):
    project(FLAKY.replace("    WRONG", "    assert len(path.read_text()) < 2\n    WRONG"))
    run = probe("--llmprobe-save=main", "--llmprobe-calibrate=1")
    assert run.exit_code == 1
    assert gate_line(run).startswith(
        "llmprobe: GATE FAIL (the noise was not measured: repeat 1 ended with exit code 2"
    )
    assert list((pytester.path / ".llmprobe" / "baselines").glob("*/main.json"))


def test_noise_needs_a_baseline_to_be_kept_with(project, pytester):
    project(FLAKY)
    run = pytester.runpytest_subprocess("--llmprobe-calibrate=1")
    assert run.ret == 4
    run.stderr.fnmatch_lines(["ERROR: llmprobe: --llmprobe-calibrate needs --llmprobe-save NAME*"])


@pytest.mark.parametrize("option", ["--llmprobe-resume", "--llmprobe-replay=runs/x"])
def test_recorded_answers_have_no_noise(pytester, option):
    run = pytester.runpytest_subprocess("--llmprobe-calibrate=1", "--llmprobe-save=main", option)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["ERROR: llmprobe: *"])
