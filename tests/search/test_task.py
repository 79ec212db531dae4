"""Answers are generated once, recorded at once, and found again by whoever asks next."""

import json

import pytest
from some_tasks import ROWS, task

from pytest_llmprobe import Engine, ScriptedModel
from pytest_llmprobe.errors import CasesError, RequestError, SettingsError
from pytest_llmprobe.search import RegexNumber, SearchTask
from pytest_llmprobe.search.store import FILE
from pytest_llmprobe.search.task import CALL

SPACE = {"temperature": [0.5, 1.0], "generation_seed": [0, 1]}


def test_all_configurations_of_a_prompt_share_a_call():
    asked, model = task()
    asked.prepare(SPACE)
    assert model.answered == 4 * len(ROWS)
    (whole,) = [batch for batch in model.calls if len(batch) == max(map(len, model.calls))]
    assert len({row.config for row in whole}) == 2
    asked.prepare(SPACE)
    asked.mean(temperature=0.5)
    assert model.answered == 4 * len(ROWS)


def test_a_rows_seed_depends_on_the_seed_and_its_id_only():
    first, model = task()
    first.prepare(SPACE)
    seeds = {(tuple(r.prompt_ids), r.config, r.seed) for batch in model.calls for r in batch}
    other, backwards = task(ROWS[::-1])
    other.prepare([{"temperature": t, "generation_seed": s} for s in (1, 0) for t in (1.0, 0.5)])
    assert seeds == {(tuple(r.prompt_ids), r.config, r.seed) for b in backwards.calls for r in b}
    assert len({seed for *_, seed in seeds}) == 2 * len(ROWS)  # the same for every configuration


def test_columns_are_checked_before_anything_runs():
    with pytest.raises(CasesError, match="the scorer needs the column 'total'"):
        task(score=RegexNumber("total"))
    with pytest.raises(CasesError, match="the scorer needs the column 'none'"):
        task(evaluation_columns=["none"])
    with pytest.raises(SettingsError, match="score="):
        SearchTask(Engine(ScriptedModel(str)), ROWS, "{a}")


def test_a_scorer_sees_its_columns_only():
    seen = []

    def score(rows, answers):
        seen.extend(rows)
        return 1.0

    asked, _ = task(score=score, evaluation_columns=["sum"])
    assert asked.mean() == 1.0
    assert {frozenset(row) for row in seen} == {frozenset({"id", "sum"})}


def test_an_interrupted_search_goes_on_where_it_was(tmp_path):
    rows = [{"a": n, "b": 1, "sum": n + 1} for n in range(CALL)]
    asked, model = task(rows, folder=tmp_path)
    generate = model.generate

    def killed(some, on_tokens):
        if model.answered >= CALL:
            raise KeyboardInterrupt
        return generate(some, on_tokens)

    model.generate = lambda some, on_tokens: list(killed(some, on_tokens))
    with pytest.raises(KeyboardInterrupt):
        asked.prepare({"temperature": [0.0, 1.0]})
    with (tmp_path / FILE).open("a") as file:
        file.write('{"configuration": {"temp')  # it was writing
    again, rest = task(rows, folder=tmp_path)
    again.prepare({"temperature": [0.0, 1.0]})
    assert rest.answered == CALL
    whole, _ = task(rows)
    assert again.mean(temperature=1.0) == whole.mean(temperature=1.0)
    lines = (tmp_path / FILE).read_text().splitlines()
    assert len(lines) == 1 + 2 * CALL
    assert json.loads(lines[1]).keys() == {
        *("configuration", "row", "prompt", "text", "generated_tokens", "finish_reason")
    }
    again, rest = task(rows, folder=tmp_path)
    again.prepare({"temperature": [0.0, 1.0]})
    assert rest.answered == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"model": {"source": "other"}}\n', "another model: source is 'other' there"),
        ("not json\n", "line 1 is no recorded answer"),
        ("[1]\n", "line 1 is no recorded answer"),
        ('{"model": [1]}\n', "line 1 is no recorded answer"),
        ('{"model": MODEL}\n{"row": 1}\n', "line 2 is no recorded answer"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, content, words):
    task(folder=tmp_path)
    model = json.dumps(json.loads((tmp_path / FILE).read_text())["model"])
    (tmp_path / FILE).write_text(content.replace("MODEL", model))
    with pytest.raises(SettingsError, match=words):
        task(folder=tmp_path)


def test_a_row_that_cannot_be_answered_is_named_and_the_others_are_kept(tmp_path):
    rows = [{"id": "short", "q": "hi"}, {"id": "long", "q": "h" * 99}]

    def asked():
        model = ScriptedModel(str, context_length=80)
        score = RegexNumber("id")
        return SearchTask(Engine(model), rows, "{q}", score, max_new_tokens=5, folder=tmp_path)

    with pytest.raises(RequestError, match="row long: the prompt has 99 tokens"):
        asked().prepare("small")
    lines = (tmp_path / FILE).read_text().splitlines()[1:]
    assert {json.loads(line)["row"] for line in lines} == {"short"}


def test_progress_is_told_while_it_runs():
    told = []
    asked, _ = task(on_progress=lambda so_far: told.append((so_far.done, so_far.total)))
    asked.prepare(SPACE)
    assert told[-1] == (160, 160)
    assert len(told) > 1
