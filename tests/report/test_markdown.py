"""Markdown: what it says, and that nothing a model wrote can be more than text in it."""

import re
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from some_reports import records, report

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.report.comparison import compare
from pytest_llmprobe.report.markdown import MAX_LINE, MAX_SIZE, markdown, plain_text
from pytest_llmprobe.report.publish import add_to_job_summary
from pytest_llmprobe.report.run_file import reduce_report

HOSTILE = [
    "<script>alert(1)</script>",
    "</summary></details><img src=x onerror=alert(1)>",
    "a | b || c \\| d",
    "`code` ```fence``` ~~~",
    "]]> <![CDATA[ <!-- -->",
    "\x1b[2J\x1b]8;;http://evil\x07link\x1b]8;;\x07",
    "\x00\ud800\u202e\u2066",
    "[link](http://evil) ![image](//evil) <http://evil> http://evil www.evil.com",
    "@everyone #12 me@evil.com &lt;b&gt; &#64;",
    "# heading\n- list\n1. one\n---\n===\n    code",
    "**bold** _em_ $x$ $$y$$ :smile: ~~gone~~ \\",
    "line\r\nline\u2028line\u0085line",
]


def flipped(answer, n=8):
    """Reports of two runs between which ``n`` cases were lost with that answer."""
    first, second = (
        report(records("p" * 30)),
        report(records("m" * n + "p" * (30 - n), received=answer)),
    )
    return second, compare(reduce_report(first), reduce_report(second), ("main", "this run"))


def test_the_verdict_comes_first_then_the_table():
    made = report(records("p" * 9 + "m"), gate={"verdict": "FAIL", "reason": "low", "checks": []})
    lines = [line for line in markdown(made).splitlines() if line]
    assert lines[0] == "## ❌ llmprobe: org/model: FAIL"
    assert lines[1] == "low"
    (row,) = [line for line in lines if line.startswith("| needle")]
    assert row == "| needle | 10 | 0.900 &#91;0.596, 0.982&#93; | - | - | MEASURED | 40 |".replace(
        "| -", "| &#45;"
    )
    assert lines[-1].startswith("<sub>2026-03-01T12:00:00Z, commit 111111111111, fingerprint ffff")


def test_errors_skips_and_an_interrupted_run_are_said():
    text = markdown(report(records("pes"), status="interrupted"))
    assert "**The run was interrupted" in text
    assert "- needle: 1 in error, 1 skipped" in text


def test_a_comparison_shows_the_change_the_lost_cases_and_the_cause():
    text = unescape(markdown(*flipped("a wrong answer")))
    assert "### ❌ Compared with main: FAIL" in text
    assert "needle: worse: pass rate 1.000 -> 0.733, p = 0.0078" in text
    assert "<summary>needle: lost 8</summary>" in text
    assert "| evals/test_needle.py::test_needle[g0007] | right | a wrong answer |" in text
    assert "nothing that the reports tell of differs" in text


def test_what_cannot_be_compared_is_said_before_the_numbers():
    first, second = report(records("pp")), report(records("ppp", prompt_hash="x"))
    found = compare(reduce_report(first), reduce_report(second), ("main", "this run"))
    text = markdown(second, found)
    place = text.index("the prompts of 2 of 2 cases changed")
    assert place < text.index("| experiment | pairs |")
    assert "needle: 2 cases in main, 3 in this run" in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_text_is_shown_as_text_wherever_it_stands(hostile):
    second, comparison = flipped(hostile)
    second["model"] = second["experiments"][0]["name"] = second["gate"]["reason"] = hostile
    second["experiments"][0]["remarks"] = [hostile]
    harmless, safe = flipped("harmless")
    text = markdown(second, comparison)
    assert re.sub(r"&#\d+;", "", text).count("|") == markdown(harmless, safe).count("|")
    tags = re.findall(r"<[^>]*>", text.replace("<!-- -->", ""))
    known = {"details", "/details", "summary", "/summary", "sub", "/sub"}
    assert {tag.strip("<>") for tag in tags} <= known
    assert len(tags) == 2 * 2 + 2
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u202a-\u202e\u2066]", text
    )
    assert not re.search(r"://|www\.|]\(|@\w|#\d|`|\$|~~|\*\*b|\\", re.sub(r"&#\d+;", " ", text))


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(codec=None), max_size=60))
def test_plain_text_reads_as_what_was_written_and_holds_no_markup(text):
    shown = plain_text(text)
    printed = "".join(c if c.isprintable() else " " for c in text).strip()
    assert unescape(shown.replace("<!-- -->", "")) == printed
    assert not re.search(
        r"[<>|`*_\[\]\\#@$~!\"{}^]", re.sub(r"&#\d+;|<!-- -->", "", shown).replace("&", "")
    )
    assert len(shown.splitlines()) <= 1


@pytest.mark.parametrize(
    "start", ["- a", "+ a", "1. a", "12) a", "# a", "> a", "    a", "=== a", "--- a", "* a", "~~~"]
)
def test_no_text_begins_a_list_a_heading_or_a_code_block(start):
    assert re.match(r"\w|\d*&#\d+;", plain_text(start))
    assert not re.match(r"\d+[.)]", plain_text(start))


def test_a_mention_or_an_issue_is_broken_though_references_are_read_first():
    assert plain_text("@me #1") == "&#64;<!-- -->me &#35;<!-- -->1"


def test_a_long_answer_is_cut():
    shown = plain_text("x" * 10_000_000)
    assert shown.startswith("x" * MAX_LINE + "... &#91;9999800 more characters")


def test_a_comment_on_github_can_hold_it_whatever_changed():
    names = [f"experiment{n}" for n in range(20)]
    first = report(*(records("p" * 60, name) for name in names))
    second = report(*(records("m" * 60, name, received="<|>" * 200) for name in names))
    found = compare(reduce_report(first), reduce_report(second))
    text = markdown(second, found)
    assert len(text) < MAX_SIZE + 500
    assert "More cases changed than fit here" in text
    assert text.count("<details>") == text.count("</details>") > 0


def test_the_job_summary_grows_if_there_is_one(tmp_path, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert not add_to_job_summary("nobody reads this")
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    assert add_to_job_summary("## ❌ after")
    assert path.read_text(encoding="utf-8") == "before\n## ❌ after\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(ReportError, match=r"job's summary .* cannot be written: Is a directory"):
        add_to_job_summary("text")
