"""On the embedded model: a search finds what is known to be there, and nothing in pure noise."""

import random
from pathlib import Path
from runpy import run_path

import pytest

from pytest_llmprobe import Engine, load_model
from pytest_llmprobe.search import SearchTask, search
from pytest_llmprobe.suite import Suite

ROOT = Path(__file__).parents[2]
EVAL = run_path(str(ROOT / "evals" / "generation_search" / "test_generation_search.py"))
SPACE = [{"temperature": [0.0, 0.3, 1.5]}, {"temperature": 1.5, "generation_seed": [1, 2]}]


@pytest.fixture(scope="module")
def engine():
    return Engine(load_model("reference"))


@pytest.fixture(scope="module")
def rows():
    return list(EVAL["needles"](Suite(trials=40)))[::3]  # one of each haystack


def test_greedy_or_a_low_temperature_is_significantly_better_than_a_high_one(engine, rows):
    task = SearchTask(engine, rows, score=EVAL["right_value"], max_new_tokens=24)
    found = search(task, SPACE, default={"temperature": 1.5})
    assert found.best.label in ("temperature=0", "temperature=0.3")
    assert found.is_better, found.verdict
    assert found.held_out_best.mean > 0.8 > found.held_out_default.mean


def test_a_score_that_is_noise_finds_no_configuration_to_be_better(engine, rows):
    def noise(some, answers):
        return [
            float(random.Random(f"{row['id']} {answer}").random() < 0.5)
            for row, answer in zip(some, answers, strict=True)
        ]

    task = SearchTask(engine, rows, score=noise, max_new_tokens=4)
    found = search(task, {"temperature": [1.5, 2.0], "generation_seed": [0, 1, 2, 3]})
    best, default = (
        next(tried.mean for tried in found.table if tried.configuration is one)
        for one in (found.best, found.default)
    )
    assert best > default  # by luck, on the rows that it was chosen on
    assert found.ci95[0] <= 0 <= found.ci95[1]
    assert found.verdict.startswith("no configuration is better: ")


def test_the_answers_do_not_depend_on_batch_order_or_other_configurations(engine):
    space = [{"temperature": [0.0, 0.8]}, {"temperature": 1.0, "top_p": 0.9, "generation_seed": 3}]

    def answers(asking, grids, some):
        task = SearchTask(asking, some, score=EVAL["right_value"], max_new_tokens=18)
        asked = task.configurations(grids)
        return {
            (one.key, row["id"]): answer.text
            for one, told in zip(asked, task.answers(asked, task.rows), strict=True)
            for row, answer in zip(task.rows, told, strict=True)
        }

    few = list(EVAL["needles"](Suite(trials=3)))[:8]  # three of a haystack
    together = answers(engine, space, few)
    assert answers(Engine(engine.backend.loaded, batch_size=1), space, few) == together
    assert answers(engine, space[::-1], few[::-1]) == together
    alone = [answers(Engine(engine.backend.loaded, batch_size=3), [grid], few) for grid in space]
    assert alone[0] | alone[1] == together
