"""Steering from the command line and the probe marker: cases, records, what is skipped and why."""

import json
import shutil

import pytest

from pytest_llmprobe.models.registry import REFERENCE
from pytest_llmprobe.report.schema import validate

EVAL = """
    import pytest
    from pytest_llmprobe import Case, Span

    def cases():
        for name in "ab":
            yield Case(f"g/{{name}}", f"Answer in French. Say {{name}}.", name, {{"trial": 1}},
                       spans={spans})
        yield Case("plain", "Say c.", "c")

    @pytest.mark.probe(cases=cases, max_new_tokens=3{marker})
    def test_say(case, completion):
        {test}
"""


@pytest.fixture
def mode(request):
    """One process, unless a test asks for workers."""
    return getattr(request, "param", ("-p", "no:xdist"))


def evaluation(spans="'in French'", marker="", test="assert completion.text is not None"):
    return EVAL.format(spans=spans, marker=marker, test=test)


def on_the_model(pytester, text):
    """Write an evaluation without the scripted engine."""
    pytester.makepyfile(test_eval="\n".join(line[4:] for line in text.splitlines()))


def names(run):
    return sorted(name.partition("[")[2][:-1] for name in run.tests)


@pytest.mark.parametrize("mode", [("-p", "no:xdist"), ("-n", "2")], ids=str, indirect=True)
def test_every_case_with_spans_is_asked_once_with_each_delta(pytester, probe):
    on_the_model(pytester, evaluation())
    run = probe("--llmprobe-delta=0,1.5", "--llmprobe-layers=0,2-3", "--llmprobe-phase=prefill")
    assert run.exit_code == 0, run.text + run.result.stderr.str()
    validate(run.report)
    assert names(run) == ["g/a-delta-0", "g/a-delta-1.5", "g/b-delta-0", "g/b-delta-1.5", "plain"]
    zero, steered = run.tests["test_say[g/a-delta-0]"], run.tests["test_say[g/a-delta-1.5]"]
    assert zero["params"] == {"delta": 0}
    assert steered["params"] == {"delta": 1.5, "layers": "0,2,3", "phase": "prefill"}
    assert zero["group"] == steered["group"] == "g"
    assert zero["trial"] == steered["trial"] == 1
    assert zero["seed"] == steered["seed"] != run.tests["test_say[g/b-delta-0]"]["seed"]
    assert zero["prompt_hash"] == steered["prompt_hash"]
    assert [text.strip() for text in steered["steered"]] == ["in French"]
    assert (zero["steered"], run.tests["test_say[plain]"]["steered"]) == ([], [])
    assert [test["steered_layers"] for test in (zero, steered)] == [0, 3]
    assert run.experiment["by"]["delta"].keys() == {"0", "1.5"}
    config = run.report["config"]
    assert (config["delta"], config["layers"], config["phase"]) == ([0, 1.5], "0,2,3", "prefill")


def test_several_sets_of_layers_are_tried_in_one_run(pytester, probe):
    on_the_model(pytester, evaluation())
    run = probe("--llmprobe-delta=0,2", "--llmprobe-layers=all/first/1-2", "-k", "a-delta")
    assert run.exit_code == 0, run.text + run.result.stderr.str()
    validate(run.report)
    ids = ["0", "2-layers-1,2", "2-layers-all", "2-layers-first"]
    assert names(run) == [f"g/a-delta-{name}" for name in ids]
    tests = [run.tests[f"test_say[g/a-delta-{name}]"] for name in ids]
    assert [test["steered_layers"] for test in tests][::3] == [0, 1]
    assert tests[1]["steered_layers"] == 2 < tests[2]["steered_layers"]
    assert [test["params"].get("layers") for test in tests] == [None, "1,2", "all", "first"]
    assert {test["params"].get("phase") for test in tests} == {None, "prefill"}
    assert run.report["config"]["layers"] == "all/first/1,2"


def test_sampled_answers_are_repeated_and_greedy_ones_are_not(project, probe):
    project(
        """
        import pytest
        from pytest_llmprobe import Case

        CASES = [Case("a", "say a"), Case("b", "say b")]

        @pytest.mark.probe(cases=CASES, temperature=1.0)
        def test_sampled(case, completion):
            pass

        @pytest.mark.probe(cases=CASES)
        def test_greedy(case, completion):
            pass
        """
    )
    run = probe("--llmprobe-trials=3")
    assert names(run) == ["a", "a", "a-trial-1", "a-trial-2", "b", "b", "b-trial-1", "b-trial-2"]
    sampled = [test for name, test in run.tests.items() if name.startswith("test_sampled")]
    assert sorted(test["trial"] for test in sampled) == [0, 0, 1, 1, 2, 2]
    assert len({test["seed"] for test in sampled}) == 6
    assert len(names(probe())) == 4


def test_without_option_and_grid_no_case_is_steered_and_nothing_changes(project, probe):
    project(evaluation())
    run = probe("--llmprobe-layers=last")
    assert names(run) == ["g/a", "g/b", "plain"]
    assert run.tests["test_say[g/a]"]["params"] == {}
    assert run.outcomes == {"passed": 3}
    (test,) = (t for name, t in run.tests.items() if "g/a" in name)
    steered = probe("--llmprobe-delta=0,2").tests["test_say[g/a-delta-0]"]
    assert steered["seed"] == test["seed"]


def test_the_markers_grid_is_the_evaluations_own_and_the_command_line_replaces_it(project, probe):
    project(evaluation(marker=", delta=(0, 2)"))
    assert names(probe()) == ["g/a-delta-0", "g/a-delta-2", "g/b-delta-0", "g/b-delta-2", "plain"]
    assert names(probe("--llmprobe-delta", "0")) == ["g/a-delta-0", "g/b-delta-0", "plain"]


@pytest.mark.parametrize("mode", [("-p", "no:xdist"), ("-n", "2")], ids=str, indirect=True)
def test_what_cannot_be_steered_is_skipped_with_the_reason(project, probe):
    project(evaluation())
    run = probe("--llmprobe-delta=0,-1,1", "-rs")
    validate(run.report)
    assert run.exit_code == 0, run.text
    assert run.outcomes == {"passed": 3, "skipped": 4}
    for name, test in run.tests.items():
        skipped = "-delta--1" in name or "-delta-1" in name
        assert test["outcome"] == ("skipped" if skipped else "passed")
        if skipped:
            assert test["explanation"] == "Skipped: a scripted model has no attention to steer"
    assert "a scripted model has no attention to steer" in run.text


def test_a_state_space_model_is_skipped_with_the_reason(pytester):
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = pytester.path / "mamba"
    shutil.copytree(
        REFERENCE, folder, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
    )
    config = AutoConfig.for_model(
        "mamba", vocab_size=2048, hidden_size=32, num_hidden_layers=2, state_size=8
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    on_the_model(pytester, evaluation())
    result = pytester.runpytest_subprocess(
        "-p", "no:xdist", f"--model={folder}", "--llmprobe-delta=0,1", "--llmprobe-json=r.json"
    )
    report = json.loads((pytester.path / "r.json").read_text())
    outcomes = [test["outcome"] for test in report["tests"]]
    assert outcomes == ["passed", "skipped", "passed", "skipped", "passed"], result.stdout.str()
    assert "cannot be steered" in report["tests"][1]["explanation"]
    assert result.ret == 0


def test_a_wrong_span_is_an_error_and_no_reason_to_skip(pytester):
    on_the_model(pytester, evaluation("'in German'"))
    result = pytester.runpytest_subprocess(
        "-p", "no:xdist", "--llmprobe-delta=1", "--llmprobe-json=r.json"
    )
    report = json.loads((pytester.path / "r.json").read_text())
    errors = [test["error"] for test in report["tests"] if test["outcome"] == "error"]
    assert errors == ["the prompt does not hold 'in German'; a span is a substring of it"] * 2
    assert result.ret == 1


def test_an_argument_of_the_marker_may_differ_by_profile(project, probe):
    grids = {"smoke": (0,), "ci": (0, 2), "full": (0, 1, 2)}
    rooms = {"smoke": 1, "ci": 2, "full": 3}
    text = evaluation(marker=f", delta={grids}").replace("tokens=3", f"tokens={rooms}")
    project(text)
    assert names(probe()) == ["g/a-delta-0", "g/a-delta-2", "g/b-delta-0", "g/b-delta-2", "plain"]
    run = probe("--llmprobe-profile=smoke")
    assert names(run) == ["g/a-delta-0", "g/b-delta-0", "plain"]
    assert {test["generated_tokens"] for test in run.tests.values()} == {1}


def test_a_limit_leaves_no_case_without_one_of_its_deltas(project, probe):
    project(evaluation())
    assert names(probe("--llmprobe-delta=0,1", "--llmprobe-limit=3")) == [
        "g/b-delta-0",
        "g/b-delta-1",
    ]


def test_a_delta_for_cases_without_spans_is_remarked_upon(project, probe):
    project()
    run = probe("--llmprobe-delta=0,1")
    assert len(run.tests) == 20
    assert run.experiment["remarks"] == ["no case names a span, so Delta steers none"]
    assert "no case names a span, so Delta steers none" in run.text


def test_an_adaptive_evaluation_steers_its_cases_own_prompt_only(pytester):
    asks = "same, other = generate([case.prompt, 'Say more.'])\n        "
    checks = "assert (bool(same.steered), bool(other.steered)) == ('-1' in case.id, False)"
    on_the_model(pytester, evaluation(test=asks + checks).replace("completion):", "generate):"))
    result = pytester.runpytest_subprocess(
        "-p", "no:xdist", "--llmprobe-delta=0,1", "--llmprobe-misses=fail"
    )
    result.assert_outcomes(passed=5)


def test_an_adaptive_evaluation_that_cannot_be_steered_is_skipped(project, probe):
    project(evaluation(test="generate(case.prompt)").replace("completion):", "generate):"))
    assert probe("--llmprobe-delta=0,1").outcomes == {"passed": 3, "skipped": 2}


def test_cases_of_the_tests_own_making_are_never_silently_unsteered(project, probe):
    project(
        """
        import pytest
        from pytest_llmprobe import Case

        @pytest.mark.probe
        @pytest.mark.parametrize("case", [Case("a", "Say a.", spans="a"), Case("b", "Say b.")])
        def test_say(case, completion):
            pass
        """
    )
    run = probe("--llmprobe-delta=1", "-k", "case0")
    assert run.outcomes == {"error": 1}
    assert "only cases that the probe marker gives can be steered" in run.text


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--llmprobe-delta=much", "'much' is no list of numbers such as 0,1,2"),
        ("--llmprobe-delta=0,,1", "'0,,1' is no list of numbers"),
        ("--llmprobe-delta=", "'' is no list of numbers"),
        ("--llmprobe-delta=0,200", "delta=200.0: it must be a number between -100 and 100"),
        ("--llmprobe-delta=nan", "delta=nan"),
        ("--llmprobe-delta=1,1.0", "delta=1 is given twice"),
        ("--llmprobe-layers=middle", "'middle' is not all, first, last or numbers of layers"),
        ("--llmprobe-layers=5-3", "'5-3' is not all"),
        ("--llmprobe-layers=-1", "'-1' is not all"),
        ("--llmprobe-layers=1,", "'1,' is not all"),
        ("--llmprobe-layers=0-99999999", "'0-99999999' is not all"),
        ("--llmprobe-phase=decode", "invalid choice*decode"),
    ],
)
def test_a_wrong_option_ends_the_run_at_once(project, pytester, option, words):
    project(evaluation())
    result = pytester.runpytest_subprocess("-p", "no:xdist", option)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*{words}*"])
    assert not (pytester.path / ".llmprobe").exists()


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        (", delta='1'", "probe marker: delta='1': it must be a number"),
        (", delta=(0, 1, 0)", "probe marker: delta=0 is given twice"),
        (", deltas=(0, 1)", "unknown option 'deltas'"),
        (", delta={'smoke': (0, 1)}", "probe(delta=...) has no value for 'ci', only smoke"),
    ],
)
def test_a_wrong_grid_of_the_marker_is_a_usage_error(project, pytester, marker, words):
    project(evaluation(marker=marker))
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    assert result.ret == 4
    assert words in result.stderr.str()


@pytest.mark.parametrize(
    ("spans", "words"),
    [("5", "case 'g/a': 5 is no span"), ("['  ']", "case 'g/a': the text of a span is '  '")],
)
def test_what_is_no_span_is_a_usage_error(project, pytester, spans, words):
    project(evaluation(spans))
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    assert result.ret == 4
    assert words in result.stderr.str()
