"""The main path: cases, records, report, gate, exit code."""

import json

import pytest

from pytest_llmprobe.report.schema import validate

WRONG_FOR_GROUP_3 = 'return "?" if prompt.split()[-1].startswith("3") else prompt.split()[-1]'


def test_all_pass(project, probe):
    project()
    run = probe()
    assert run.exit_code == 0, run.text
    assert run.verdict == "PASS"
    assert run.outcomes == {"passed": 20}
    assert run.report["status"] == "complete"
    validate(run.report)


HELD = """
    import gc
    from pytest_llmprobe.generation import Completion
    from pytest_llmprobe.report.record import Record

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish():
        held = [type(thing).__name__ for thing in gc.get_objects()]
        print("HELD", held.count("Completion"), held.count("Record"))
"""


def test_answers_and_records_are_not_held_until_the_end(project, pytester):
    project(conftest=HELD)
    path = pytester.path / "test_eval.py"
    path.write_text(path.read_text().replace("range(4)", "range(20)"))
    result = pytester.runpytest_subprocess("-p", "no:xdist", "-s")
    result.assert_outcomes(passed=100)
    (held,) = (line for line in result.outlines if "HELD" in line)
    answers, records = map(int, held.split()[-2:])
    assert (answers <= 32, records) == (True, 0)


def test_a_miss_is_counted_and_not_red(project, probe):
    project(answer=WRONG_FOR_GROUP_3)
    run = probe()
    assert run.exit_code == 0, run.text
    assert run.outcomes == {"missed": 5, "passed": 15}
    assert run.experiment["pass_rate"] == 0.75
    assert "15 passed, 5 missed" in run.text
    missed = run.tests["test_echo[g3/c2]"]
    assert missed["explanation"] == "it said something else"
    assert (missed["expected"], missed["received"], missed["is_correct"]) == ("32", "?", False)
    assert missed["scores"] == {"length": 1.0}
    assert (missed["task"], missed["size"], missed["trial"]) == ("echo", 3, 2)
    validate(run.report)


def test_a_gate_below_its_bar_fails_the_run(project, probe):
    project(answer="return '?'")
    run = probe()
    assert run.exit_code == 1, run.text
    assert run.verdict == "FAIL"
    assert run.report["gate"]["checks"][0]["reason"] == "pass_rate 0.000 is below 0.5"


def test_gates_can_be_switched_off(project, probe):
    project(answer="return '?'")
    run = probe("--llmprobe-gate=none")
    assert (run.exit_code, run.verdict) == (0, "NOT JUDGED")


def test_misses_can_be_failures(project, probe):
    project(answer=WRONG_FOR_GROUP_3)
    run = probe("--llmprobe-misses=fail")
    assert (run.exit_code, run.verdict) == (1, "FAIL")
    assert run.outcomes == {"missed": 5, "passed": 15}
    assert "it said something else" in run.text


def test_last_failed_reruns_the_misses(project, probe):
    project(answer=WRONG_FOR_GROUP_3)
    probe("--llmprobe-misses=fail")
    run = probe("--llmprobe-misses=fail", "--lf")
    assert run.outcomes == {"missed": 5}
    assert run.experiment["collected"] == 20
    assert run.report["gate"]["checks"][0]["verdict"] == "NOT JUDGED"


@pytest.mark.parametrize(
    "selection", [("-k", "g1"), ("test_eval.py::test_echo[g1/c0]",), ("-m", "probe", "-k", "c2")]
)
def test_a_partial_selection_is_not_judged(project, probe, selection):
    project()
    run = probe(*selection)
    assert (run.exit_code, run.verdict) == (0, "NOT JUDGED")
    assert run.experiment["collected"] == 20
    assert 0 < run.experiment["n"] < 20


def test_exitfirst_stops_and_is_not_judged(project, probe):
    project(answer="return '?'")
    run = probe("--llmprobe-misses=fail", "-x")
    assert run.exit_code in (1, 2)
    assert run.verdict == ("FAIL" if run.exit_code == 1 else "NOT JUDGED")
    assert run.report["status"] == "interrupted"
    assert run.experiment["selected"] == 20


def test_collect_only_leaves_nothing_behind(project, probe):
    project()
    run = probe("--collect-only", "-q")
    assert run.exit_code == 0
    assert "test_eval.py::test_echo[g0/c0]" in run.text
    assert not (run.folder / ".llmprobe").exists()
    assert "llmprobe:" not in run.text


def test_a_limit_takes_cases_spread_evenly(project, probe):
    project()
    run = probe("--llmprobe-limit=4")
    assert sorted(run.tests) == [f"test_echo[g{i}/c2]" for i in range(4)]
    assert (run.exit_code, run.verdict) == (0, "NOT JUDGED")


def test_the_report_goes_where_it_is_asked(project, probe):
    project()
    run = probe("--llmprobe-json=out/here.json")
    report = json.loads((run.folder / "out" / "here.json").read_text())
    validate(report)
    header, *records = (run.folder / "out" / "records.jsonl").read_text().splitlines()
    assert json.loads(header)["header"]["model"] == "reference"
    assert len(records) == 20
    assert not (run.folder / ".llmprobe").exists()


def test_two_runs_give_the_same_report_but_for_times(project, probe):
    project(answer=WRONG_FOR_GROUP_3)
    first, second = (timeless(probe("--llmprobe-json=r.json").folder / "r.json") for _ in range(2))
    assert first == second


def test_all_modes_give_the_same_records(project, pytester):
    project(answer=WRONG_FOR_GROUP_3)
    reports = []
    for mode in (("-p", "no:xdist"), ("-n", "0"), ("-n", "1"), ("-n", "2"), ("-n", "3")):
        pytester.runpytest_subprocess(*mode, "--llmprobe-json=r.json")
        reports.append(timeless(pytester.path / "r.json"))
    assert all(report == reports[0] for report in reports)


def timeless(path):
    """A report without what may differ: times, and how many asked."""
    report = json.loads(path.read_text())
    del report["timestamp"], report["timings"], report["config"]["workers"]
    for experiment in report["experiments"]:
        for name in ("generation_s", "p50_s", "p95_s", "tokens_per_s"):
            del experiment["timings"][name]
    for test in report["tests"]:
        del test["duration"], test["wall_s"]
    return report


def test_adaptive_evals_ask_as_often_as_they_need(project, probe):
    project(
        """
        import pytest
        from pytest_llmprobe import Case

        @pytest.mark.probe(max_new_tokens=9)
        @pytest.mark.gate(pass_rate=1, score={"answers": 3})
        def test_twice(generate, score):
            one = generate("say hello")
            two = generate(["say a", [{"role": "user", "content": "say b"}]], max_new_tokens=1)
            score("answers", 1 + len(two))
            assert (one.text, [c.text for c in two]) == ("hello", ["a", "b"])
        """
    )
    run = probe()
    assert (run.exit_code, run.verdict) == (0, "PASS"), run.text
    (test,) = run.report["tests"]
    assert test["received"] == "b"
    assert test["generated_tokens"] == 7
    assert test["prompt_characters"] == len("say hello") + 2 * len("say a")


def test_the_seed_changes_every_case(project, probe):
    project(
        """
        import pytest
        from pytest_llmprobe import Case

        def cases(suite):
            yield Case("a", prompt=f"say {suite.random('a').getrandbits(64)}")

        @pytest.mark.probe(cases=cases)
        def test_random(case, completion):
            assert suite_is_used(case)

        def suite_is_used(case):
            return case.seed > 0
        """
    )
    prompts = [probe(f"--llmprobe-seed={seed}").report["tests"][0] for seed in (1, 2)]
    assert prompts[0]["prompt_hash"] != prompts[1]["prompt_hash"]
    assert prompts[0]["seed"] != prompts[1]["seed"]
