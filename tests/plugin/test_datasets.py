"""Data that the user names, in real pytest runs."""

import pytest

from pytest_llmprobe.report.schema import validate

READS = """
    import pytest
    from pytest_llmprobe import Case

    def cases(suite):
        data = suite.dataset("words")
        suite.dataset("more_words")
        texts = ["none"] if data is None else data.sample(texts=9).texts
        return [Case(f"c{n}", f"say {text}", text) for n, text in enumerate(texts)]

    @pytest.mark.probe(cases=cases, max_new_tokens=20)
    def test_echo(case, completion):
        assert completion.text == case.target
"""


def test_an_evaluation_reads_the_data_and_the_report_names_them(project, probe, pytester):
    project(READS)
    (pytester.path / "words.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    run = probe("--llmprobe-dataset=words=words.jsonl")
    assert run.exit_code == 0, run.text
    assert [test["expected"] for test in run.report["tests"]] == ["one", "two"]
    assert run.report["config"]["datasets"] == {"words": "words.jsonl"}
    validate(run.report)


def test_data_that_nobody_asked_for_end_the_run_with_the_names_that_are_known(
    project, probe, pytester
):
    project(READS)
    (pytester.path / "a.txt").write_text("one")
    run = probe("--llmprobe-dataset", "word=a.txt", "--llmprobe-dataset", "words=a.txt")
    said = run.said.splitlines()
    assert run.exit_code == 4, said
    error = "no collected evaluation takes data named 'word'; known names: more_words, words"
    assert said.count(f"ERROR: llmprobe: --llmprobe-dataset word=a.txt: {error}") == 1
    assert run.report_path is None
    assert not (run.folder / ".llmprobe").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("words", "--llmprobe-dataset words: give NAME=SOURCE, as in haystack=texts/"),
        ("words=a.csv", "--llmprobe-dataset words=a.csv: *a.csv has the extension '.csv'; give a*"),
        ("words=no.txt", "--llmprobe-dataset words=no.txt: there is no file or folder *; give a*"),
    ],
)
def test_data_that_are_not_there_are_told_before_anything_is_collected(
    project, pytester, given, words
):
    project(READS)
    (pytester.path / "a.csv").write_text("one")
    result = pytester.runpytest_subprocess("-n", "2", "--llmprobe-dataset", given)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: llmprobe: {words}"])


def test_a_line_that_cannot_be_read_is_told_with_its_number(project, pytester):
    project(READS)
    (pytester.path / "a.jsonl").write_text('{"text": "one"}\n{"text": \n')
    result = pytester.runpytest_subprocess("--llmprobe-dataset=words=a.jsonl")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["*test_eval.py::test_echo: cases: --llmprobe-dataset words=a.jsonl: *line 2 is no JSON: *"]
    )


def test_an_evaluation_that_needs_data_is_skipped_without_them(project, probe, pytester):
    project(
        READS.replace("data = ", 'pytest.skip("no data: give --llmprobe-dataset") or ').replace(
            "test_echo", "test_other"
        )
    )
    pytester.makepyfile(test_plain="def test_plain(): pass")
    run = probe("-rs")
    assert run.exit_code == 0, run.text
    assert "1 passed, 1 skipped" in run.text
    assert "no data: give --llmprobe-dataset" in run.text
    assert run.report_path is None
