"""Whole prompts beside a report: kept by several processes, read one by one."""

import json
import lzma
from multiprocessing import get_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmprobe import RawPrompt
from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.report.prompt_file import keep_prompts, kept_prompt

texts = st.text(st.characters(exclude_categories=["Cs"]))
prompts = st.one_of(
    texts,
    st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), min_size=1),
)


@given(st.lists(st.dictionaries(texts, prompts, max_size=3), max_size=4))
def test_what_is_kept_is_found(tmp_path_factory, units):
    path = tmp_path_factory.mktemp("run") / "prompts"
    for unit in units:
        keep_prompts(path, unit.items())
    for name, prompt in {name: p for unit in units for name, p in unit.items()}.items():
        assert kept_prompt(path, name) == prompt  # the last one of its id


def test_a_raw_prompt_has_its_ids(tmp_path):
    keep_prompts(tmp_path / "p", [("a", RawPrompt("text", (1, 2)))])
    assert kept_prompt(tmp_path / "p", "a") == {"text": "text", "ids": [1, 2]}


def _keep(path, worker):
    for unit in range(20):
        keep_prompts(path, [(f"{worker}-{unit}-{n}", f"{worker} " * 5_000) for n in range(5)])


def test_processes_do_not_tear_one_another_s_prompts(tmp_path):
    context = get_context("fork")
    workers = [context.Process(target=_keep, args=(tmp_path / "p", n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with lzma.open(tmp_path / "p") as file:
        lines = [json.loads(line) for line in file]
    assert len({line["id"] for line in lines}) == 300
    assert (tmp_path / "p").stat().st_size < 60_000  # of 3 MB: a unit shares its haystack


def test_a_killed_process_loses_its_last_unit_only(tmp_path):
    path = tmp_path / "p"
    keep_prompts(path, [("a", "first")])
    whole = path.read_bytes()
    keep_prompts(path, [("b", "second")])
    path.write_bytes(path.read_bytes()[: len(whole) + 30])
    assert kept_prompt(path, "a") == "first"
    with pytest.raises(ReportError, match="has no prompt of b"):
        kept_prompt(path, "b")


@pytest.mark.parametrize(
    "content", [b"nonsense", lzma.compress(b"no json\n"), lzma.compress(b'{"id": "a"}\n')]
)
def test_a_damaged_file_is_said_to_be(tmp_path, content):
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(ReportError, match="is damaged"):
        kept_prompt(tmp_path / "p", "a")


def test_an_absent_file_is_said_to_be(tmp_path):
    with pytest.raises(ReportError, match="has kept no prompts"):
        kept_prompt(tmp_path / "p", "a")
