"""Answers are generated once, recorded at once, and found again by whoever asks next."""

import json

import pytest
from some_tasks import ROWS, task

from pytest_llmprobe import Engine, ScriptedModel
from pytest_llmprobe.engine.completion_file import COMPLETIONS
from pytest_llmprobe.errors import CasesError, ReportError, RequestError, SettingsError
from pytest_llmprobe.search import RegexNumber, SearchTask
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


def recorded(folder):
    """The whole answers of a search's file."""
    lines = (folder / COMPLETIONS).read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith('{"key"') and line[-1] == "}"]


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
    with (tmp_path / COMPLETIONS).open("a") as file:
        file.write('{"key": "0123')  # it was writing
    again, rest = task(rows, folder=tmp_path)
    again.prepare({"temperature": [0.0, 1.0]})
    assert rest.answered == CALL
    whole, _ = task(rows)
    assert again.mean(temperature=1.0) == whole.mean(temperature=1.0)
    assert len(recorded(tmp_path)) == 2 * CALL
    again, rest = task(rows, folder=tmp_path)
    again.prepare({"temperature": [0.0, 1.0]})
    assert rest.answered == 0


@pytest.mark.parametrize("content", ["", "not json\n", "[1]\n", '{"run": 1}\n'])
def test_a_folder_of_something_else_is_refused(tmp_path, content):
    (tmp_path / COMPLETIONS).write_text(content)
    with pytest.raises(ReportError, match="is no file of answers"):
        task(folder=tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"file.*give another folder"):
        task(folder=tmp_path / "file")


def test_answers_of_another_model_are_not_used(tmp_path):
    asked, _ = task(folder=tmp_path)
    asked.prepare({"temperature": [0.0]})
    first = (tmp_path / COMPLETIONS).read_bytes()
    model = ScriptedModel(lambda prompt: "It is 0.")
    model.info = {"fingerprint": "other"}
    with pytest.warns(UserWarning, match="of another model, which are not used: fingerprint"):
        other = SearchTask(Engine(model), ROWS, "{a}+{b}=", RegexNumber("sum"), folder=tmp_path)
    assert other.mean() == 1 / len(ROWS)
    assert (tmp_path / COMPLETIONS).read_bytes().startswith(first)


def test_a_folder_leaves_the_engine_as_it_was(tmp_path):
    engine = Engine(ScriptedModel(str))
    SearchTask(engine, ROWS, "{a}+{b}=", RegexNumber("sum"), folder=tmp_path).mean()
    assert engine.store is None


def test_a_row_that_cannot_be_answered_is_named_and_the_others_are_kept(tmp_path):
    rows = [{"id": "short", "q": "hi"}, {"id": "long", "q": "h" * 99}]

    def asked():
        model = ScriptedModel(str, context_length=80)
        score = RegexNumber("id")
        return SearchTask(Engine(model), rows, "{q}", score, max_new_tokens=5, folder=tmp_path)

    with pytest.raises(RequestError, match="row long: the prompt has 99 tokens"):
        asked().prepare("small")
    kept = [line["completion"]["text"] for line in recorded(tmp_path) if "completion" in line]
    assert set(kept) == {"hi"}


def test_progress_is_told_while_it_runs():
    told = []
    asked, _ = task(on_progress=lambda so_far: told.append((so_far.done, so_far.total)))
    asked.prepare(SPACE)
    assert told[-1] == (160, 160)
    assert len(told) > 1
