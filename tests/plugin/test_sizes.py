"""Token budgets in real runs: the same cases in every process, no torch, what is left out."""

import pytest

from pytest_llmprobe.report.schema import validate

EVAL = """
    import sys
    from functools import partial
    import pytest
    from pytest_llmprobe import Case
    from pytest_llmprobe.experiments import needle

    def cases(suite):
        for size in needle.tokens(300, 600, 700_000, 800_000):
            yield from needle.fit(size, partial(one, suite, size), suite, 20)

    def one(suite, size, n):
        pairs = needle.random_pairs(n, suite.random("one", str(size)))
        text = f"{needle.render(pairs)} Key: {pairs[0].key} Value: {pairs[0].value}"
        yield Case(f"{size}", text, pairs[0].value, {"task": "one"})

    @pytest.mark.probe(cases=cases, max_new_tokens=20)
    def test_one(case, completion):
        assert completion.text == case.target
"""
NO_TORCH = """
    import sys

    def pytest_collection_finish(session):
        assert not {"torch", "transformers"} & sys.modules.keys()
"""


@pytest.mark.usefixtures("unforked")
def test_budgets_and_what_is_left_out(project, probe):
    project(EVAL, conftest=NO_TORCH)
    run = probe()
    assert run.exit_code == 0, run.text
    assert {name: test["size"] for name, test in run.tests.items()} == {
        "test_one[300-tokens]": 300,
        "test_one[600-tokens]": 600,
    }
    (remark,) = run.experiment["remarks"]
    assert remark.startswith("left out 700000-tokens, 800000-tokens: the model's context is ")
    assert f"one: {remark}" in run.text
    for test in run.report["tests"]:
        assert test["params"]["tokens"] == test["size"]
        assert 0 < test["params"]["pairs"] < test["size"] / 30
    validate(run.report)


def test_if_everything_is_left_out_the_error_says_why(project, probe):
    project(EVAL.replace("300, 600, ", ""), conftest=NO_TORCH)
    run = probe()
    assert run.exit_code == 4
    assert "yielded no cases: left out 700000-tokens, 800000-tokens: the model's" in run.said


@pytest.mark.parametrize("needs", ["suite.tokens('a')", "suite.context_length"])
def test_a_damaged_file_of_the_model_is_an_error_that_names_it(project, probe, needs):
    pytester = project(EVAL.replace("for size", f"{needs}\n        for size"))
    pytester.makeini("[pytest]\nllmprobe_model = damaged")
    folder = pytester.mkdir("damaged")
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text('{"a": ')
    run = probe()
    assert run.exit_code == 4
    assert ".json cannot be read" in run.said
