"""The ``search`` fixture in a real run: verdict, table and held-out comparison in the report."""

import pytest

EVAL = """
    import pytest
    from pytest_llmprobe.search import RegexNumber, search_summary

    ROWS = [{"question": f"{n} and {n}", "answer": 2 * n} for n in range(40)]

    @pytest.mark.generation_search
    @pytest.mark.probe(summary=search_summary, max_new_tokens=20, temperature=2.0)
    def test_sums(search):
        found = search(ROWS, RegexNumber(), "{question}:", space={"temperature": [0, 1]})
        assert not found.is_worse, found.verdict
        assert found.is_better == BETTER
"""

# The answers depend on config and seed, which an ordinary scripted model does not see.
ENGINE = """
    import random
    import pytest
    from pytest_llmprobe import Engine, ScriptedModel

    class Sampler(ScriptedModel):
        def generate(self, rows, on_tokens):
            for row in rows:
                right = 2 * int("".join(map(chr, row.prompt_ids)).split()[0])
                off = random.Random(row.seed).random() < row.config.temperature / 2
                self.answer = lambda _: f"It is {right + off}."
                yield from super().generate([row], on_tokens)

    @pytest.fixture(scope="session")
    def engine():
        return Engine(Sampler(str))
"""


@pytest.fixture
def searching(pytester):
    from textwrap import dedent

    def searching(better, old="", new=""):
        assert old in EVAL
        pytester.makeconftest(dedent(ENGINE))
        evaluation = dedent(EVAL).replace(old, new) if old else dedent(EVAL)
        pytester.makepyfile(test_eval=evaluation.replace("BETTER", str(better)))

    return searching


def test_a_search_is_in_the_report(searching, probe):
    searching(better=True)
    run = probe("--llmprobe-html=page.html")
    assert run.exit_code == 0, run.text
    assert run.outcomes == {"passed": 1}
    summary = run.experiment["summary"]
    assert summary["best"] == "temperature=0"
    assert summary["default"] == "temperature=2"
    assert (summary["tried"], summary["search_rows"], summary["held_out_rows"]) == (3, 20, 20)
    assert [point["value"] for point in summary["configurations"]] == [
        "temperature=2",
        "temperature=0",
        "temperature=1",
    ]
    assert all(len(point["ci95"]) == 2 for point in summary["configurations"])
    assert summary["difference_ci95"][0] > 0
    assert summary["verdict"].startswith("temperature=0 is better than temperature=2: +")
    (test,) = run.report["tests"]
    assert test["scores"]["held_out_best"] == summary["held_out_best"] == 1.0
    assert test["generated_tokens"] > 100 * len("It is 1.") * 0.9
    assert run.experiment["by"] == {}
    assert "tried 3" in run.text
    assert "configurations" in (run.folder / "page.html").read_text()


@pytest.mark.parametrize("mode", ["plain"], indirect=True)
def test_answers_are_kept_in_the_folder_that_the_test_names(searching, probe):
    searching(True, "space={", 'folder="kept", space={')
    first = probe()
    assert first.exit_code == 0, first.text
    kept = (first.folder / "kept" / "completions.jsonl").read_text()
    assert kept.count('"completion"') == 3 * 40 - 20
    again = probe()
    assert again.exit_code == 0, again.text
    after = (first.folder / "kept" / "completions.jsonl").read_text()
    assert after.count('"completion"') == kept.count('"completion"')


def test_where_nothing_is_better_terminal_and_report_say_so(searching, probe):
    searching(False, "temperature=2.0", "temperature=0.0")
    run = probe()
    assert run.exit_code == 0, run.text
    assert run.experiment["summary"]["verdict"].startswith("no configuration is better")
    assert "verdict no configuration is better: of 2 tried none scores above" in run.text


@pytest.mark.parametrize("mode", ["plain"], indirect=True)
def test_a_wrong_space_is_an_error_of_the_test(searching, probe):
    searching(False, '{"temperature": [0, 1]}', '{"num_beams": [4], "temperature": [1.0]}')
    run = probe()
    assert run.exit_code == 1
    (test,) = run.report["tests"]
    assert test["error"].startswith("num_beams=4 with temperature=1.0")
