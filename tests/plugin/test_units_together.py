"""Small units are answered together where the model is in this process."""

import json
from collections import Counter

import pytest

ENGINE = """
    from pathlib import Path
    import pytest
    from pytest_llmprobe import Engine, ScriptedModel
    from pytest_llmprobe.errors import UnsupportedError

    class Model(ScriptedModel):
        shares_prefixes = True  # so that a batch may have several configs

        def generate(self, rows, on_tokens):
            with Path("asked.txt").open("a") as file:
                file.write(" ".join(sorted(bytes(row.prompt_ids).decode() for row in rows)) + "\\n")
            if any(row.config.top_k == 7 for row in rows):
                raise UnsupportedError("this model knows no top_k")
            return super().generate(rows, on_tokens)

    @pytest.fixture(scope="session")
    def engine():
        return Engine(Model(lambda prompt: prompt.upper()))
"""

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    def cases(name, count):
        return [Case(f"c{n}", f"{name}{n}", f"{name}{n}".upper()) for n in range(count)]

    @pytest.mark.probe(cases=cases("a", 2))
    def test_a(case, completion):
        assert completion.text == case.target

    @pytest.mark.probe(cases=cases("b", 3), max_new_tokens=1)
    def test_b(case, completion):
        assert completion.text == "B"

    @pytest.mark.skip(reason="not today")
    @pytest.mark.probe(cases=cases("s", 1))
    def test_skipped(case, completion):
        raise AssertionError

    @pytest.mark.probe(cases=cases("c", 31))
    def test_c(case, completion):
        assert completion.text == case.target

    @pytest.mark.probe(cases=cases("d", 1))
    def test_d(case, completion):
        assert completion.text == case.target

    @pytest.mark.probe(cases=cases("e", 1), top_k=7)
    def test_e(case, completion):
        raise AssertionError

    @pytest.mark.probe(cases=cases("f", 1))
    def test_f(case, completion, generate):
        assert completion.text == case.target
        assert generate("more").text == "MORE"
"""


COUNTS = {"a": 2, "b": 3, "c": 31, "d": 1, "e": 1, "f": 1}
ALL = [*(f"{name}{n}" for name, count in COUNTS.items() for n in range(count)), "more"]


@pytest.fixture
def asked(pytester):
    """Runs the evaluation: its tests by name, and the prompts of each batch in order."""
    pytester.makeconftest(ENGINE)
    pytester.makepyfile(test_eval=EVAL)

    def run(*options):
        result = pytester.runpytest_subprocess("--llmprobe-gate=none", *options)
        (path,) = pytester.path.glob(".llmprobe/runs/*/report.json")
        batches = [line.split() for line in (pytester.path / "asked.txt").read_text().splitlines()]
        tests = json.loads(path.read_text())["tests"]
        outcomes = Counter(test["outcome"] for test in tests)
        assert outcomes.keys() <= {"passed", "skipped"}, result.stdout.str()
        return {test["id"].partition("::")[2]: test for test in tests}, outcomes, batches

    return run


def test_units_are_answered_together_up_to_the_size_of_one(asked):
    tests, outcomes, batches = asked("-p", "no:xdist")
    assert outcomes == {"passed": 38, "skipped": 2}
    assert batches[0] == ["a0", "a1", "b0", "b1", "b2"]  # what is skipped ends it
    assert len(batches[1]) == 32  # c and d are just as many as may be
    assert {"c0", "c30", "d0"} < set(batches[1])
    # The one that cannot be answered takes nobody with it.
    assert batches[2:] == [["e0", "f0"], ["e0"], ["f0"], ["more"]]
    assert tests["test_b[c2]"]["received"] == "B"
    assert tests["test_e[c0]"]["outcome"] == "skipped"


def test_a_worker_asks_together_what_it_has_been_given(asked):
    _, outcomes, batches = asked("-n", "1")
    assert outcomes == {"passed": 38, "skipped": 2}
    assert batches[0] == ["a0", "a1", "b0", "b1", "b2"]
    # How far it looks ahead is xdist's; only what stood beside e is asked twice.
    again = Counter(prompt for batch in batches for prompt in batch) - Counter(ALL)
    assert set(again) <= {"d0", "e0", "f0"}
