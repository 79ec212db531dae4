"""How answers ended and why cases missed: counted, in lines, in markdown and on the page."""

from html import unescape

import pytest
from some_reports import records, report
from test_html import Parsed

from pytest_llmprobe.report.html import html
from pytest_llmprobe.report.markdown import MAX_SIZE, markdown
from pytest_llmprobe.report.misses import MAX_SHOWN
from pytest_llmprobe.report.misses_text import WIDTH, cut_off_warnings, first_misses, miss_lines
from pytest_llmprobe.report.terminal import summaries

UNSAFE = "<script>\x1b[2J\u202e|@me `x`\r\n::error::"
FAILED = {
    "verdict": "FAIL",
    "reason": "needle: pass_rate 0.2 is below 0.9",
    "checks": [
        {
            "experiment": "needle",
            "metric": "pass_rate",
            "bar": 0.9,
            "rule": "observed",
            "kind": "min",
            "value": 0.2,
            "verdict": "FAIL",
            "reason": "pass_rate 0.2 is below 0.9",
        }
    ],
}


def cut(n, at=64, of=6, **fields):
    """An experiment of ``of`` misses, ``n`` of which were cut off."""
    return records(
        "m" * of,
        finish_reason=["length" if i < n else "stop" for i in range(of)],
        cut_off_at=[at if i < n else None for i in range(of)],
        explanation=["cut_off: x" if i < n else "start_key: y" for i in range(of)],
        **fields,
    )


def experiments(*given):
    return report(*given)["experiments"]


def test_endings_failures_and_first_misses_are_counted():
    (found,) = experiments(
        records(
            "mpmmem",
            explanation=["cut_off: a", None, "no_uuid: b", "cut_off: c", None, "too bad 3"],
            finish_reason=["length", "stop", "stop", "length", None, "eos"],
            cut_off_at=[60, None, None, 70, None, None],
        )
    )
    assert found["finish_reasons"] == {"length": 2, "stop": 2, "eos": 1}
    assert found["failures"] == {"cut_off": 2, "no_uuid": 1, "too bad": 1}
    assert found["cut_off"] == {"n": 2, "answers": 5, "tokens": [60, 70], "in_thought": 0}
    assert [miss["id"][-6:] for miss in found["first_misses"]] == ["g0000]", "g0002]", "g0003]"]
    assert sum(found["failures"].values()) == found["missed"]


def test_nothing_missed_is_no_line():
    found = experiments(records("ppp", finish_reason="stop"))
    assert (miss_lines(found), cut_off_warnings(found)) == ([], [])
    assert found[0]["cut_off"] == {"n": 0, "answers": 3, "tokens": None, "in_thought": 0}


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (cut(6), "needle: 6 of 6 answers cut off at 64 tokens"),
        (cut(2, at=0), "needle: 2 of 6 answers cut off"),
        (
            cut(2, thought="hm", received=["", "right", *"abcd"]),
            "needle: 2 of 6 answers cut off at 64 tokens, 1 within a thought",
        ),
    ],
)
def test_cut_answers_are_a_line(made, line):
    assert miss_lines(experiments(made))[0] == line


def test_cut_answers_of_different_length_tell_both_ends():
    made = records("mm", finish_reason="length", cut_off_at=[30, 64])
    assert miss_lines(experiments(made))[0] == "needle: 2 of 2 answers cut off at 30 to 64 tokens"


def test_the_commonest_failures_come_first_and_fit_a_line():
    assert miss_lines(experiments(cut(2))) == [
        "needle: 2 of 6 answers cut off at 64 tokens",
        "needle: missed 6 of 6: start_key 4, cut_off 2",
    ]
    kinds = [f"kind_{chr(97 + n)}_of_failure: x" for n in range(15)]
    (line,) = miss_lines(experiments(records("m" * 15, explanation=kinds)))
    assert line.startswith("needle: missed 15 of 15: kind_a_of_failure 1, kind_b_of_failure 1")
    assert line.endswith(" kinds more")
    assert len(line) <= WIDTH


@pytest.mark.parametrize(("n", "of", "warns"), [(1, 10, False), (2, 10, True), (1, 9, True)])
def test_more_than_a_tenth_of_cut_answers_is_a_warning(n, of, warns):
    found = cut_off_warnings(experiments(cut(n, of=of)))
    line = (
        f"warning: more than 10% of the answers were cut off in needle ({n} of {of}): "
        "give more room with --llmprobe-max-new-tokens x2"
    )
    assert found == ([line] if warns else [])


def test_thoughts_need_room_of_their_own():
    (line,) = cut_off_warnings(experiments(cut(6, thought="hm", received="")))
    assert line.endswith("give more room with --llmprobe-thinking-tokens")
    assert "of the thoughts were" in line


def test_a_warning_names_few_experiments():
    made = [cut(6, experiment=f"experiment{n}") for n in range(9)]
    (line,) = cut_off_warnings(experiments(*made))
    assert "experiment4 (6 of 6) and 4 more: give" in line


def test_first_misses_say_id_expected_received_and_why():
    (found,) = experiments(records("pmmmm", received="y" * 5_000, expected=[["a", "b"]] * 5))
    lines = first_misses(found)
    assert lines[0] == "needle: the first 3 of 4 misses"
    assert lines[1] == "  evals/test_needle.py::test_needle[g0001]"
    assert lines[2] == '    expected \'["a", "b"]\''
    assert lines[3].startswith("    received 'yyy")
    assert len(lines[3]) < MAX_SHOWN + 60
    assert lines[4] == "    because  it is wrong"
    assert len(lines) == 1 + 3 * 4


def unsafe():
    made = cut(6, received=UNSAFE, expected=UNSAFE, experiment="needle")
    for record in made:
        object.__setattr__(record, "explanation", UNSAFE)
    return made


def test_what_a_model_says_steers_neither_terminal_nor_markdown_nor_page():
    made = report(unsafe(), gate=FAILED)
    lines = [*miss_lines(made["experiments"]), *first_misses(made["experiments"][0])]
    assert all(line.isprintable() for line in lines)
    assert not any(line.lstrip().startswith("::") for line in lines)
    assert not {"<script>", "\x1b", "\u202e", "@me", "`x`"} & {*markdown(made).split()}
    assert "<script>" not in markdown(made)
    page = html(made)
    assert "<script>\x1b" not in page
    assert "\u202e" not in page


def test_markdown_and_page_say_what_the_terminal_says():
    made = report(cut(5), gate=FAILED)
    text, page = unescape(markdown(made)), unescape(html(made))
    for line in [*miss_lines(made["experiments"]), *cut_off_warnings(made["experiments"])]:
        assert line in text
        assert line in page
    assert "**needle: the first 3 of 6 misses**" in text
    assert "| evals/test_needle.py::test_needle[g0002] | 'right' | 'wrong' | cut_off: x |" in text
    assert {case["failure"] for case in Parsed(html(made)).cases} == {"cut_off", "start_key"}


def test_misses_of_a_gate_that_held_are_not_listed():
    assert "first 3" not in markdown(report(cut(5)))


def test_markdown_has_a_bound_whatever_missed():
    names = [f"experiment{n}" for n in range(60)]
    checks = [FAILED["checks"][0] | {"experiment": name} for name in names]
    made = [records("mmm", name, received="<@|>" * 50, explanation="@" * 200) for name in names]
    text = markdown(report(*made, gate=FAILED | {"checks": checks, "reason": "@" * 20_000}))
    assert "More cases missed than fit here" in text
    assert len(text) < MAX_SIZE + 500


def test_markdown_shows_a_check_against_a_baseline_as_the_terminal_does():
    check = FAILED["checks"][0] | {"metric": "change of the pass rate", "bar": 0.0}
    made = report(records("mm"), gate=FAILED)
    made["experiments"][0]["gate"] = [check, FAILED["checks"][0]]
    assert "| FAIL (baseline), FAIL (>= 0.9) |" in unescape(markdown(made))


@pytest.mark.parametrize("name", ["org/model", f"org/{'m' * 90}", "/data/" + "long/" * 150])
def test_no_remedy_is_cut(name):
    remedy = f"not measured: {name} is absent: run `hf download {name}` where there is a network"
    summary = {"needle": {"win_rates": remedy}}
    made = report(records("p"), summary=summary, gate=FAILED | {"checks": [], "reason": remedy})
    made["experiments"][0]["remarks"] = [remedy]
    assert summaries(made["experiments"]) == [f"needle: win rates {remedy}"]
    assert unescape(markdown(made)).count(remedy) == 3
    assert unescape(html(made)).count(remedy) >= 3


def test_other_texts_of_a_summary_are_cut():
    (line,) = summaries(
        experiments(records("p"))
        and report(records("p"), summary={"needle": {"worst": "x" * 500}})["experiments"]
    )
    assert line == f"needle: worst {'x' * 80}... [420 more characters]"
