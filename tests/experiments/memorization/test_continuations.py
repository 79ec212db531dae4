"""Continuations: order, rounds and seeds; scores; and files that survive a kill at any byte."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pytest_llmprobe import Engine, ScriptedModel
from pytest_llmprobe.case import RawPrompt
from pytest_llmprobe.errors import CasesError, RequestError, SettingsError
from pytest_llmprobe.experiments.memorization.continuations import (
    Prompting,
    continuations,
    read_continuations,
    write_continuations,
)
from pytest_llmprobe.experiments.memorization.extraction import extraction_scores
from pytest_llmprobe.experiments.memorization.prefix_map.cutting import (
    PrefixCut,
    TextTokenizer,
    make_prefix_map,
)
from pytest_llmprobe.experiments.memorization.prefix_map.files import PrefixEntry, load_prefix_map
from pytest_llmprobe.experiments.memorization.prefix_prompts import TokenPrompts
from pytest_llmprobe.generation import Completion, GenerateConfig, Timings, Usage

TEXTS = ["abcdefgh", "ijklmnop", "qrstuvwx", "yz"]
CHARACTERS = TextTokenizer(
    lambda text: [ord(c) for c in text], lambda ids: "".join(map(chr, ids)), "characters"
)


class Model:
    """Says the letters that follow in the alphabet, or with a temperature what its seed says."""

    def __init__(self):
        self.batches = []

    def __call__(self, requests):
        self.batches.append(requests)
        return [self.answer(request) for request in requests]

    def answer(self, request):
        last, config = request.prompt.ids[-1], request.config
        step = request.seed % 5 if config.temperature else 1
        ids = tuple(last + step * n for n in range(1, config.max_new_tokens + 1))
        usage = Usage(len(request.prompt.ids), len(ids))
        text = "".join(map(chr, ids))
        return Completion(text, ids, "length", usage, Timings(0.0, len(self.batches[-1])), "")


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def entries():
    cut = PrefixCut(2)
    return [
        cut.of(f"d{n}", CHARACTERS.encode(text), CHARACTERS.decode) for n, text in enumerate(TEXTS)
    ]


@pytest.fixture
def prefix_map(tmp_path):
    def prefix_map(texts=TEXTS):
        documents = [(f"d{n}", text) for n, text in enumerate(texts)]
        options = {"model": "m", "dataset": "c"}
        folder = make_prefix_map(documents, CHARACTERS, PrefixCut(2), tmp_path / "maps", **options)
        return load_prefix_map(folder, "characters")

    return prefix_map


# Prompting


def test_a_result_holds_the_prefix_what_was_said_and_what_is_true(entries, model):
    results = continuations(entries, model, Prompting(4, max_length=3, seed=7))
    first = results[0]
    assert first == {
        "index": 0,
        "round": 0,
        "seed": model.batches[0][0].seed,
        "document": "d0",
        "label": None,
        "info": None,
        "start": 0,
        "prefix": "ab",
        "suffix_ids": [ord(c) for c in "cde"],
        "suffix_text": None,
        "generated_ids": [ord(c) for c in "cde"],
        "generated_text": "cde",
        "finish_reason": "length",
        "scores": {
            "suffix_tokens": 3,
            "exact": True,
            "matched_prefix": 3,
            "token_accuracy": 1.0,
            "longest_common_substring": 3,
            "normalised_levenshtein": 0.0,
        },
        "note": None,
    }
    assert [result["document"] for result in results] == ["d0", "d1", "d2", "d3"]
    assert results[3]["scores"] is None
    assert results[3]["suffix_ids"] == []
    assert json.loads(json.dumps(results)) == results


def test_a_suffix_shorter_than_the_answer_is_judged_as_far_as_it_goes(entries, model):
    result = continuations(entries, model, Prompting(1, max_length=20))[0]
    assert len(result["generated_ids"]) == 20
    assert result["scores"]["suffix_tokens"] == 6
    assert result["scores"]["exact"]


def test_prompts_are_the_exact_ids_with_those_that_go_before(entries, model):
    continuations(entries, model, Prompting(2), TokenPrompts((1, 2)))
    prompts = [request.prompt for request in model.batches[0]]
    assert prompts == [
        RawPrompt("ab", (1, 2, ord("a"), ord("b"))),
        RawPrompt("ij", (1, 2, ord("i"), ord("j"))),
    ]


def test_a_prefix_that_has_no_text_is_prompted_by_its_ids(model):
    entry = PrefixEntry("d", 0, "", np.array([5]), np.array([6]))
    assert continuations([entry], model, Prompting(1, 1))[0]["generated_ids"] == [6]
    assert model.batches[0][0].prompt.ids == (5,)


@pytest.mark.parametrize(("strings", "size", "sizes"), [(4, 3, [3, 1]), (10, 4, [4, 4, 2])])
def test_batches_have_their_size_and_the_last_one_the_rest(entries, model, strings, size, sizes):
    continuations(entries, model, Prompting(strings, batch_size=size))
    assert [len(batch) for batch in model.batches] == sizes


def test_more_strings_than_prefixes_go_round_with_other_seeds(entries, model):
    prompting = Prompting(10, max_length=4, temperature=1.0, top_k=5, top_p=0.9)
    results = continuations(entries, model, prompting)
    assert [result["document"] for result in results] == [f"d{n % 4}" for n in range(10)]
    assert [result["round"] for result in results] == [n // 4 for n in range(10)]
    assert len({result["seed"] for result in results}) == 10
    assert {result["note"] for result in results} == {None}
    config = GenerateConfig(max_new_tokens=4, temperature=1.0, top_k=5, top_p=0.9)
    assert {request.config for batch in model.batches for request in batch} == {config}


def test_greedy_rounds_say_that_they_repeat(entries, model):
    results = continuations(entries, model, Prompting(6))
    assert [result["note"] is None for result in results] == [True] * 4 + [False] * 2
    assert "greedy" in results[4]["note"]
    assert results[4]["generated_ids"] == results[0]["generated_ids"]


def test_the_batch_size_changes_no_answer_and_the_seed_does(entries, model):
    def said(**options):
        results = continuations(entries, model, Prompting(9, 4, temperature=1.0, **options))
        return [result["generated_text"] for result in results]

    assert said(batch_size=1) == said(batch_size=4) == said(batch_size=100)
    assert said(seed=1) != said(seed=2)


def test_the_engine_is_such_a_model(entries):
    engine = Engine(ScriptedModel(lambda text: "cdXfgh" if text == "ab" else ""))
    results = continuations(entries, engine.generate, Prompting(2, max_length=6))
    assert [result["generated_text"] for result in results] == ["cdXfgh", ""]
    assert results[0]["scores"]["matched_prefix"] == 2
    assert results[0]["scores"]["token_accuracy"] == pytest.approx(5 / 6)
    assert results[1]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "options",
    [
        {"num_strings": 0},
        {"num_strings": 1, "batch_size": 0},
        {"num_strings": 1, "max_length": 0},
        {"num_strings": 1, "temperature": -1.0},
        {"num_strings": 1, "top_p": 0.0},
    ],
)
def test_prompting_that_is_impossible_is_refused(options):
    with pytest.raises(SettingsError):
        Prompting(**options)


def test_an_empty_map_is_refused(model):
    with pytest.raises(CasesError, match="the prefix map is empty"):
        continuations([], model, Prompting(1))


# Files


def test_the_file_holds_the_same_results(prefix_map, model, entries, tmp_path):
    path, prompting = tmp_path / "new" / "out.jsonl", Prompting(6, 3, 4)
    told = []
    write_continuations(
        prefix_map(), model, prompting, path, on_progress=lambda *told_: told.append(told_)
    )
    assert list(read_continuations(path)) == continuations(entries, model, prompting)
    assert len(path.read_text().splitlines()) == 6
    assert told == [(0, 6), (4, 6), (6, 6)]


def test_each_batch_is_in_the_file_before_the_next_one_is_asked(prefix_map, model, tmp_path):
    path, seen = tmp_path / "out.jsonl", []

    def watching(requests):
        seen.append(len(path.read_bytes().splitlines()))
        return model(requests)

    write_continuations(prefix_map(), watching, Prompting(6, batch_size=2), path)
    assert seen == [0, 2, 4]


def test_a_file_that_was_cut_off_at_any_byte_is_completed(prefix_map, model, tmp_path):
    entries, prompting = prefix_map(), Prompting(5, 2, 2, temperature=1.0)
    path = tmp_path / "out.jsonl"
    write_continuations(entries, model, prompting, path)
    whole = path.read_bytes()
    for size in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:size])
        model.batches.clear()
        write_continuations(entries, model, prompting, path)
        assert path.read_bytes() == whole
        assert sum(map(len, model.batches)) == 5 - whole[:size].count(b"\n")


def test_a_failure_keeps_what_is_written(prefix_map, model, tmp_path):
    entries, prompting, path = prefix_map(), Prompting(6, batch_size=2), tmp_path / "out.jsonl"

    def failing(requests):
        if model.batches:
            raise RequestError("out of memory")
        return model(requests)

    with pytest.raises(RequestError, match="out of memory"):
        write_continuations(entries, failing, prompting, path)
    assert len(list(read_continuations(path))) == 2
    write_continuations(entries, model, prompting, path)
    assert [result["index"] for result in read_continuations(path)] == list(range(6))


def test_more_strings_and_another_batch_size_go_on(prefix_map, model, tmp_path):
    entries, path = prefix_map(), tmp_path / "out.jsonl"
    write_continuations(entries, model, Prompting(3, batch_size=2), path)
    write_continuations(entries, model, Prompting(7, batch_size=5), path)
    assert list(read_continuations(path)) == continuations(entries, model, Prompting(7))
    with pytest.raises(SettingsError, match="holds 7 strings already"):
        write_continuations(entries, model, Prompting(6), path)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"max_length": 3}, "max_length"),
        ({"temperature": 1.0}, "temperature"),
        ({"top_k": 2}, "top_k"),
    ],
)
def test_other_parameters_do_not_go_on(prefix_map, model, tmp_path, changed, name):
    entries, path, prompting = prefix_map(), tmp_path / "out.jsonl", Prompting(3)
    write_continuations(entries, model, prompting, path)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match=f"begun with {name}="):
        write_continuations(entries, model, replace(prompting, num_strings=4, **changed), path)
    assert path.read_bytes() == before


def test_another_map_or_model_does_not_go_on(prefix_map, model, tmp_path):
    entries, path, prompting = prefix_map(), tmp_path / "out.jsonl", Prompting(3)
    write_continuations(entries, model, prompting, path, about={"fingerprint": "a"})
    with pytest.raises(SettingsError, match="begun with fingerprint='a', and not 'b'"):
        write_continuations(entries, model, prompting, path, about={"fingerprint": "b"})
    with pytest.raises(SettingsError, match="begun with before="):
        write_continuations(
            entries, model, prompting, path, prompts=TokenPrompts([1]), about={"fingerprint": "a"}
        )
    other = prefix_map([*TEXTS, "and more"])
    with pytest.raises(SettingsError, match="begun with prefix_map"):
        write_continuations(other, model, prompting, path, about={"fingerprint": "a"})


def test_a_strangers_file_is_left_alone(prefix_map, model, tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("all my work")
    with pytest.raises(SettingsError, match="choose another"):
        write_continuations(prefix_map(), model, Prompting(3), path)
    assert path.read_text() == "all my work"


def test_lines_that_were_removed_are_noticed(prefix_map, model, tmp_path):
    entries, path = prefix_map(), tmp_path / "out.jsonl"
    write_continuations(entries, model, Prompting(3), path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(CasesError, match="line 2 is not string 1"):
        write_continuations(entries, model, Prompting(4), path)


def test_a_place_where_nothing_can_be_written_is_said(prefix_map, model, tmp_path):
    with pytest.raises(SettingsError, match="choose another file"):
        write_continuations(prefix_map(), model, Prompting(3), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CasesError, match="cannot be written"):
        write_continuations(prefix_map(), model, Prompting(3), tmp_path / "file" / "out.jsonl")


def test_scores_are_those_of_the_cut_suffix(entries, model):
    for result in continuations(entries, model, Prompting(3, 4, temperature=1.0)):
        scores = extraction_scores(result["generated_ids"], result["suffix_ids"])
        assert result["scores"]["token_accuracy"] == scores.token_accuracy
        assert len(result["suffix_ids"]) == 4
