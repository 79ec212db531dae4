"""``llmprobe search``: the pass rate of ordinary evaluations under each configuration."""

import json
import subprocess
import sys
from textwrap import dedent

import pytest

from pytest_llmprobe.cli import main

EVAL = """
    import pytest
    from pytest_llmprobe import Case
    from pytest_llmprobe.experiments import needle

    PROMPT = '''Extract the value corresponding to the specified key in the JSON object below.

    {haystack}

    Key: "{key}"
    Corresponding value:'''

    def cases(suite):
        for trial in range(3):
            pairs = needle.random_pairs(5, SUITE.random("needles", trial))
            for key, value in pairs[:2]:
                prompt = PROMPT.replace("    ", "").format(haystack=needle.render(pairs), key=key)
                yield Case(f"{trial}/{key}", prompt, value)

    @pytest.mark.probe(cases=cases, max_new_tokens=18, temperature=3.0)
    def test_value(case, completion):
        assert case.target in completion.text

    @pytest.mark.probe(cases=cases, max_new_tokens=18)
    def test_other(case, completion):
        assert case.target in completion.text
"""

SEARCH = "import sys; from pytest_llmprobe.cli import main; sys.exit(main())"


def command(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, "search", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path):
    text = dedent(EVAL).replace("SUITE", "suite")
    (tmp_path / "test_eval.py").write_text(text)
    (tmp_path / "space.json").write_text('{"temperature": [0, 2.5]}')
    return tmp_path


def test_greedy_beats_a_hot_evaluation_on_cases_of_another_seed(folder):
    arguments = ("test_eval.py", "-k", "value", "--space", "space.json", "--out", "found")
    arguments += ("--", "-p", "no:cacheprovider", "--tb=line")
    code, out, err = command(folder, *arguments)
    assert code == 0, err
    result = json.loads((folder / "found" / "result.json").read_text())
    assert (result["best"], result["default"], result["tried"]) == ("temperature=0", "default", 3)
    assert result["search_rows"] == result["held_out_rows"] == 6
    assert result["held_out_best"] > result["held_out_default"]
    assert out.splitlines()[-2] == result["verdict"]
    assert "search temperature=2.5: " in err

    def report(part):
        return json.loads((folder / "found" / part / "report.json").read_text())

    greedy, searched = report("search-0-001"), report("search-0-000")
    assert greedy["experiments"][0]["generation"]["temperature"] == 0  # the report says how
    assert searched["experiments"][0]["generation"]["temperature"] == 3
    assert {t["prompt_hash"] for t in greedy["tests"]} == {
        t["prompt_hash"] for t in searched["tests"]
    }
    held_out = {test["prompt_hash"] for test in report("held-out-1-000")["tests"]}
    assert not held_out & {test["prompt_hash"] for test in searched["tests"]}
    code, again, _ = command(folder, *arguments)  # nothing is left to run
    assert (code, again) == (0, out)
    code, _, err = command(folder, "test_eval.py", "--out", "found")
    assert (code, err.count("\n")) == (4, 1)
    assert "is of another search; give another --out" in err


def test_prompts_that_are_the_same_with_every_seed_hold_nothing_out(folder):
    text = (folder / "test_eval.py").read_text()
    text = text.replace("suite.random(", "__import__('random').Random(").replace(
        '"needles", trial', "trial"
    )
    (folder / "test_eval.py").write_text(text)
    code, _, err = command(folder, "test_eval.py", "-k", "other", "--space", "space.json")
    assert code == 4
    assert err.splitlines()[-1].startswith("llmprobe: these evaluations ask the same prompts with")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--space", "smal"], "no preset space 'smal'; there are: small, greedy"),
        (["--space", "none.json"], "--space none.json cannot be read"),
        (["--held-out-seed", "0"], "--held-out-seed 0 is the search's own"),
    ],
)
def test_wrong_usage_is_one_line_before_anything_runs(capsys, tmp_path, arguments, words):
    assert main(["search", "evals", "--out", str(tmp_path / "x"), *arguments]) == 4
    assert capsys.readouterr().err.startswith(f"llmprobe: {words}")
    assert list(tmp_path.iterdir()) == []


def test_a_path_without_evaluations_says_where_pytest_said_so(tmp_path):
    (tmp_path / "test_plain.py").write_text("def test_plain(): pass\n")
    code, _, err = command(tmp_path, "test_plain.py", "--out", "found")
    assert code == 4
    assert err.startswith("llmprobe: pytest ran no evaluation (exit code 0); see found/search-0-")
