"""Whole prompts within a page: those that the report has shortened, missed cases first."""

import base64
import gzip
import json
import random

import pytest
from some_reports import records, report
from test_html import Parsed

from pytest_llmprobe.report.html import html
from pytest_llmprobe.report.page_prompts import page_prompts
from pytest_llmprobe.report.prompt_file import keep_prompts
from pytest_llmprobe.report.record import PROMPT_END

LONG, SHORT = "</script>\u2028 middle \ud800" * 400, "short"


def shortened(text):
    return f"{text[:PROMPT_END]}... [9 more characters] ...{text[-PROMPT_END:]}"


def made(outcomes, prompts):
    return report(records(outcomes, prompt=prompts))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prompts.jsonl.xz"


def text(packed):
    return gzip.decompress(base64.b64decode(packed)).decode()


def test_a_page_has_the_whole_of_a_shortened_prompt_and_no_other(path):
    one = made("mp", [shortened(LONG), SHORT])
    first, second = (test["id"] for test in one["tests"])
    keep_prompts(path, [(first, [{"role": "user", "content": LONG}]), (second, SHORT)])
    found = json.loads(Parsed(html(one, None, path)).data["prompts"])
    assert {name: text(packed) for name, packed in found.items()} == {
        first: f"[user] {LONG}".replace("\ud800", "?")
    }


def test_missed_cases_come_first_where_not_all_have_room(path):
    rng = random.Random(0)
    prompts = [f"{rng.randbytes(3_000).hex()}" for _ in range(4)]
    one = made("pmpm", [shortened(prompt) for prompt in prompts])
    ids = [test["id"] for test in one["tests"]]
    keep_prompts(path, zip(ids, prompts, strict=True))
    sizes = [len(packed) for packed in page_prompts(path, one["tests"]).values()]
    assert len(sizes) == 4
    for n, names in enumerate(([], [ids[1]], [ids[1], ids[3]], [ids[1], ids[3], ids[0]])):
        room = sum(sizes[:n])
        assert list(page_prompts(path, one["tests"], room + 10)) == names


def test_a_run_that_kept_no_prompts_has_none(path):
    one = made("m", [shortened(LONG)])
    assert page_prompts(path, one["tests"]) == {}
    assert Parsed(html(one)).data["prompts"] == "{}"


def test_a_damaged_file_costs_no_page(path):
    one = made("mm", [shortened(LONG)] * 2)
    first = one["tests"][0]["id"]
    keep_prompts(path, [(first, LONG)])
    path.write_bytes(path.read_bytes() + b"nonsense")
    assert list(page_prompts(path, one["tests"])) == [first]
    path.write_bytes(b"nonsense")
    assert Parsed(html(one, None, path)).data["prompts"] == "{}"
