"""Models without a chat template: solved examples, an end at the line's end, nothing read after."""

import json
import re
import shutil
from pathlib import Path
from runpy import run_path

import pytest

from pytest_llmprobe.experiments import needle
from pytest_llmprobe.experiments.haystack import text_needle
from pytest_llmprobe.experiments.json_format import documents, scoring
from pytest_llmprobe.models.registry import resolve
from pytest_llmprobe.models.token_counter import TokenCounter
from pytest_llmprobe.suite import Suite

EVALS = Path(__file__).parents[2] / "evals"
NEEDLES = {
    "needle/test_single_needle.py": "single_needles",
    "needle/test_multiple_needles.py": "multiple_needles",
    "needle/test_conditional_needles.py": "conditional_needles",
    "needle/test_threading.py": "threads",
    "needle/test_multi_threading.py": "multi_threads",
    "needle/test_branched_threading.py": "branched_threads",
    "generation_search/test_generation_search.py": "needles",
}
TEXTS = {"text_needles": "test_text_needle", "text_decoys": "test_text_decoys"}
HAYSTACK = run_path(str(EVALS / "haystack" / "test_text_needle.py"))
JSON = run_path(str(EVALS / "json_format" / "test_json_format.py"))
BASE = Suite("ci", chats=False)
every_needle = pytest.mark.parametrize("file", NEEDLES)


def needles(file, suite):
    return list(run_path(str(EVALS / file))[NEEDLES[file]](suite))


def parts(prompt):
    """The solved example and its answer, and the question after it."""
    *_, first, second = re.split(r"(?<=\n\n)(?=Extract|The values|A key)", prompt)
    question, _, answer = first.rstrip().rpartition(": ")
    return f"{question}:", answer, second


@every_needle
def test_a_needles_example_is_solved_and_of_another_haystack(file):
    for case in needles(file, BASE):
        example, answer, question = parts(case.prompt)
        assert needle.solve(example).split("\n") == answer.split(", ")
        assert needle.solve(question) == needle.solve(case.prompt) == case.target
        own, other = (
            {uuid for pair in needle.read_haystack(text) for uuid in pair}
            for text in (question, example)
        )
        assert not own & other
        assert example.rpartition("\n")[2] == question.rpartition("\n")[2] != ""  # the cue
        assert "one value a line" not in case.prompt
        assert case.stop == ("\n",)


@every_needle
def test_chat_models_are_asked_without_examples(file):
    for case in needles(file, Suite("ci")):
        assert case.prompt.count("{") == 1
        assert case.stop == ()
    shown = needles(file, Suite("smoke", few_shot=2))[0]
    assert shown.prompt.count("{") == 3
    assert shown.stop == ()


@pytest.mark.parametrize("cases", [*TEXTS, "closed_books"])
def test_a_text_needles_example_says_nothing_of_what_is_asked(cases):
    for case in HAYSTACK[cases](BASE):
        example, _, rest = case.prompt.partition("\n\nRead the text")
        question, _, answer = example.rpartition(": ")
        assert text_needle.solve(f"{question}:") == answer
        assert answer != case.target
        if cases != "closed_books":
            assert text_needle.solve(case.prompt) == case.target
            assert text_needle.solve(f"Read the text{rest}") == case.target
        elif case.metadata["kind"] != "number":
            assert not text_needle.says(example, case.target)


def test_a_json_example_obeys_the_schema_and_ends_with_a_blank_line():
    for case in JSON["json_objects"](BASE):
        schema = documents.schema(case.metadata["kind"])
        example, cue, _ = case.prompt.rpartition("}\n\n")
        answer = json.loads(f"{example.rpartition('JSON: ')[2]}{cue}")
        assert scoring.schema_errors(answer, schema) == []
        assert answer != json.loads(case.target)
        assert case.prompt.endswith("JSON:")
        assert case.stop == ("\n\n",)


# The real model as a base model, by its files: its own tokenizer without the chat template


@pytest.fixture(scope="module")
def base(smollm2_spec, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(smollm2_spec.folder, folder, copy_function=link)
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink(missing_ok=True)
    config = folder / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    settings.pop("chat_template", None)
    config.unlink()
    config.write_text(json.dumps(settings))
    return resolve(str(folder))


def link(source, target):
    Path(target).symlink_to(source)


def test_a_model_goes_on_with_a_text_if_its_files_hold_no_chat_template(base, smollm2_spec):
    assert Suite(counter=TokenCounter(base)).continues
    assert not Suite(counter=TokenCounter(smollm2_spec)).continues
