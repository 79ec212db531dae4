"""The lines of a self-check: what flipped and where, a warning where nothing should have."""

import pytest
from some_reports import records, report

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.report.html import html
from pytest_llmprobe.report.markdown import markdown
from pytest_llmprobe.report.schema import validate
from pytest_llmprobe.report.self_check_text import self_check_lines, self_check_warning


def lines(run):
    return self_check_lines(run["self_check"])


def warning(run):
    return self_check_warning(run["self_check"])


def way(name="batched", n=24, flipped=0, rows=12, at=()):
    return {
        "name": name,
        "n": n,
        "flipped": flipped,
        "rate": flipped / n if n else None,
        "ci95": [0.02, 0.26] if n else None,
        "redone": 0,
        "rows": rows,
        "first_differences": [{"prompt": prompt, "token": token} for prompt, token in at],
    }


def checked(*ways, **fields):
    found = {
        "dtype": "bfloat16",
        "shares_prefixes": True,
        "prompts": 24,
        "failed": [],
        "tokens": 500,
        "seconds": 2.0,
        "ways": list(ways),
    }
    return report(records("pm"), self_check=found | fields)


def test_without_flips_it_is_one_line():
    run = checked(way(), way("padded", 12), way("shared", 12))
    assert lines(run) == [
        "self-check: 0 of 48 answers differ from one by one "
        "(batched 0/24, padded 0/12, shared 0/12), bfloat16"
    ]
    assert warning(run) is None


def test_flips_have_a_rate_an_interval_and_a_place():
    line = lines(checked(way(flipped=2, at=[(3, 14), (18, 5)]), way("padded", 12)))[1]
    assert line == (
        "self-check, batched: 0.083 [0.020, 0.260] differ, "
        "first at token 14 of prompt 3, 5 of prompt 18"
    )


def test_of_a_server_it_names_the_prompts_alone():
    run = checked(way(flipped=2, at=[(3, None), (18, None)]), dtype=None, shares_prefixes=False)
    assert lines(run) == [
        "self-check: 2 of 24 answers differ from one by one (batched 2/24)",
        "self-check, batched: 0.083 [0.020, 0.260] differ, first prompts 3, 18",
    ]
    assert warning(run) is None


@pytest.mark.parametrize(
    ("dtype", "flipped", "warned"),
    [("float32", 1, True), ("float32", 0, False), ("float16", 1, False), (None, 1, False)],
)
def test_flips_in_float32_alone_are_warned_of(dtype, flipped, warned):
    run = checked(way(flipped=flipped, at=[(1, 1)] * flipped), dtype=dtype)
    assert (warning(run) is not None) == warned
    assert ("depend on the batch" in html(run)) == warned
    assert ("depend on the batch" in markdown(run)) == warned
    for page in (html(run), markdown(run)):
        assert f"self-check: {flipped} of 24 answers differ" in page


def test_it_says_what_the_numbers_cannot_show():
    alone = checked(way(rows=1), way("padded", 12, rows=1), shares_prefixes=False)
    assert lines(alone)[1:] == ["self-check: this model is always asked one prompt at a time"]
    plain = checked(way(), way("shared", 12), shares_prefixes=False)
    assert "stores no prefix once" in lines(plain)[1]
    broken = checked(way(n=0), failed=["the model\x1b[2J computed NaN"])
    assert lines(broken)[1] == ("self-check: a prompt had no answer: the model [2J computed NaN")
    assert warning(broken) is None


def test_a_run_without_a_check_says_nothing():
    run = report(records("pm"))
    assert (lines(run), warning(run)) == ([], None)
    assert "self-check" not in html(run) + markdown(run)


def test_the_schema_knows_each_field():
    run = checked(way())
    for change in ({"flipped": -1}, {"rate": 2}, {"name": "other"}, {"more": 1}):
        run["self_check"]["ways"] = [way() | change]
        with pytest.raises(ReportError, match="self_check"):
            validate(run)
