"""The result is honest: chosen on one part, judged on the other, and noise finds nothing."""

import random

import pytest
from some_tasks import ROWS, task

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.search import RegexNumber, read_rows, search
from pytest_llmprobe.search.tuner import split_rows

WARM = {"temperature": [0.0, 0.5, 1.0, 1.5]}


def test_greedy_beats_a_hot_default_on_rows_that_it_was_not_chosen_on():
    asked, model = task()
    found = search(asked, WARM, default={"temperature": 1.5}, seed=3)
    assert found.best.label == "temperature=0"
    assert found.is_better
    assert found.held_out_best.mean == 1.0
    assert found.difference == found.held_out_best.mean - found.held_out_default.mean > 0.3
    assert found.ci95[0] > 0
    assert found.verdict.startswith("temperature=0 is better than temperature=1.5: +0.")
    assert (len(found.table), found.n_search, found.n_held_out) == (4, 20, 20)
    assert model.answered == 4 * 20 + 2 * 20  # the others never see a held-out row


def test_a_default_that_is_the_best_is_said_to_be_so():
    asked, model = task()
    found = search(asked, WARM)
    assert found.best is found.default
    assert found.verdict == "no configuration is better: of 4 tried none scores above the default"
    assert (found.difference, found.is_better, found.is_worse) == (0.0, False, False)
    assert found.ci95[0] <= 0 <= found.ci95[1]
    assert model.answered == 4 * 20 + 20


def noise(rows, answers):
    """A score that says nothing, another one for each configuration and row."""
    return [
        random.Random(f"{row['id']} {answer}").random()
        for row, answer in zip(rows, answers, strict=True)
    ]


def test_the_best_of_many_by_luck_is_not_better():
    rows = [{"a": n, "b": n, "sum": 0} for n in range(60)]
    space = {"temperature": [0.8], "generation_seed": range(20)}
    verdicts = []
    for seed in range(8):
        asked, _ = task(rows, noise)
        found = search(asked, space, seed=seed)
        best, default = (
            next(t for t in found.table if t.configuration is c).mean
            for c in (found.best, found.default)
        )
        assert best > default  # in sample there is always a winner
        verdicts.append(found.is_better or found.is_worse)
        if not verdicts[-1]:
            assert found.ci95[0] <= 0 <= found.ci95[1]
            assert found.verdict.startswith("no configuration is better: ")
    assert sum(verdicts) <= 1  # 5 % of all seeds


def test_a_choice_that_turns_out_worse_is_not_called_better():
    rows = [{"a": n, "b": n, "sum": 2 * n, "group": n % 10} for n in range(80)]
    held = {row["id"] for row in split_rows(read_rows(rows), 0.5, 0)[1]}

    def against(some, answers):
        right = RegexNumber("sum")(some, answers)
        return [r if row["id"] in held else 1 - r for r, row in zip(right, some, strict=True)]

    asked, _ = task(rows, against)
    found = search(asked, {"temperature": [2.0]})
    assert found.best.label == "temperature=2"
    assert found.is_worse
    assert found.verdict.startswith("no configuration is better: temperature=2 was chosen and is w")


def test_a_score_of_all_rows_together_has_intervals_too():
    def share(rows, answers):
        return sum(RegexNumber("sum")(rows, answers)) / len(rows)

    by_row, _ = task()
    together, _ = task(score=share)
    a, b = (search(t, WARM, default={"temperature": 1.5}, seed=3) for t in (by_row, together))
    assert [t.mean for t in a.table] == pytest.approx([t.mean for t in b.table])
    assert b.difference == pytest.approx(a.difference)
    assert b.is_better
    assert b.ci95 == pytest.approx(a.ci95, abs=0.12)


def test_a_split_keeps_groups_whole_and_does_not_depend_on_the_order():
    rows = read_rows([{"x": n, "group": n // 4} for n in range(40)])
    first, second = split_rows(rows, 0.3, 1)
    assert len(second) == 12
    assert not {row["group"] for row in first} & {row["group"] for row in second}
    backwards = split_rows(rows[::-1], 0.3, 1)
    assert [part[::-1] for part in backwards] == [first, second]
    assert split_rows(rows, 0.3, 2)[1] != second


@pytest.mark.parametrize("share", [0.0, 1.0, 0.01, 2.0])
def test_both_parts_need_rows(share):
    asked, model = task()
    with pytest.raises(CasesError, match="held_out="):
        search(asked, held_out=share)
    assert model.calls == []


def test_a_wrong_space_or_default_stops_it_before_anything_is_generated():
    asked, model = task()
    for how in ({"default": {"top_p": 0.5}}, {"space": [{"temperature": 1.0}, {"beams": 2}]}):
        with pytest.raises(SettingsError, match=r"top_p|beams"):
            search(asked, **how)
    assert model.calls == []


def test_one_group_on_a_side_is_too_little_to_tell():
    rows = [row | {"group": n % 2} for n, row in enumerate(ROWS)]
    asked, _ = task(rows)
    found = search(asked, WARM, default={"temperature": 1.5})
    assert found.ci95 is None
    assert found.verdict == (
        "no configuration is better, as far as can be told: too few independent rows"
    )


def test_the_result_as_text_and_as_data():
    asked, _ = task()
    found = search(asked, WARM, default={"temperature": 1.5})
    text = str(found).splitlines()
    assert text[1].split()[0] == "temperature=0"
    assert text[-4] == "tried 4 configurations; on 20 held-out rows:"
    assert text[-1] == found.verdict
    data = found.as_dict()
    assert data["tried"] == len(data["configurations"]) == 4
    assert data["configurations"][0]["value"] == "temperature=1.5"
    assert data["difference_ci95"] == list(found.ci95)
