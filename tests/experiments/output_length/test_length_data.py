"""Data sets of hidden states: what is asked, what is kept, the files, resuming, splits."""

import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.case import RawPrompt
from pytest_llmprobe.data.arrays import GrowingArray
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.scripted import ScriptedModel
from pytest_llmprobe.errors import CasesError, RequestError, SettingsError
from pytest_llmprobe.experiments.output_length import data_set
from pytest_llmprobe.experiments.output_length import requests as length_requests_module
from pytest_llmprobe.experiments.output_length.data_set import load_length_data
from pytest_llmprobe.experiments.output_length.data_set_collection import collect
from pytest_llmprobe.experiments.output_length.data_set_files import TOKEN, ChunkWriter
from pytest_llmprobe.experiments.output_length.requests import (
    COUNTS,
    HELD_OUT,
    TEN_WORDS,
    LengthRequest,
    held_out,
    length_requests,
)
from pytest_llmprobe.experiments.output_length.words import PHRASINGS, SAME_PROMPT, repeated


class MadeUpReader:
    """States that depend on the prompt and the tokens so far, as a causal model's do."""

    layers, hidden_size, info = (2, 0), 3, {"name": "made up"}

    def prompt(self, text):
        return RawPrompt(f"<{text}>", tuple(map(ord, f"<{text}>")))

    def states(self, prompts, answers):
        for prompt, answer in zip(prompts, answers, strict=True):
            rows = [
                np.random.default_rng([*prompt, *answer[:step]]).normal(size=6)
                for step in range(len(answer))
            ]
            yield np.array(rows, np.float32).reshape(-1, 6)

    def token_text(self, token_id):
        return chr(token_id)


def obedient(prompt):
    """Repeats the word, but the third word one time too often, and never stops on the fourth."""
    word, count = re.search(r'"(\w+)" (\d+) times', prompt).groups()
    if word == "horse":
        raise RequestError("no horses")
    count = {"cat": int(count) + 1, "dog": 500}.get(word, int(count))
    return repeated(word, count) + (" and more" if word == "bird" else "")


READER = MadeUpReader()
REQUESTS = length_requests(
    "same_prompt", ["sun", "moon", "cat", "dog", "bird", "horse"], range(1, 6)
)
make = partial(
    collect, requests=REQUESTS, reader=READER, generate=Engine(ScriptedModel(obedient)).attempt
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def data(tmp_path):
    return make(tmp_path / "data", chunk=7)


# What is asked


def test_the_default_grid_is_that_of_the_experiment():
    requests = length_requests("same_prompt")
    assert len(requests) == 450 == len(COUNTS) * len(TEN_WORDS)
    assert {request.phrasing for request in requests} == {SAME_PROMPT}
    assert (min(COUNTS), max(COUNTS)) == (5, 49)
    assert requests == length_requests("multi_layers")
    counts = [request.count for request in requests]
    assert counts == sorted(counts)  # so that neighbours are equally long


def test_different_prompts_are_drawn_from_all_phrasings_by_the_seed():
    requests = length_requests("different_prompts")
    assert {request.phrasing for request in requests} == set(PHRASINGS)
    assert requests == length_requests("different_prompts")
    assert requests != length_requests("different_prompts", seed=1)
    for request in requests:
        assert request.prompt == request.phrasing.format(word=request.word, count=request.count)


@pytest.mark.parametrize(
    ("words", "counts"), [([], [5]), (["a b"], [5]), ([""], [5]), (["a"], []), (["a"], [0, 5])]
)
def test_an_impossible_grid_is_an_error(words, counts):
    with pytest.raises(SettingsError):
        length_requests("same_prompt", words, counts)


def test_requests_are_read_from_a_file(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [
        {"prompt": "Tell me a story."},
        {"prompt": "p", "word": "w", "count": 3, "phrasing": "q"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert length_requests(str(path)) == [
        LengthRequest("Tell me a story."),
        LengthRequest("p", "w", 3, "q"),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": ""}', "line 1: give 'prompt'"),
        ('{"prompt": 3}', "line 1: give 'prompt'"),
        ('{"prompt": "p", "word": "w"}', "both 'word' and 'count'"),
        ('{"prompt": "p", "word": "w", "count": 0}', "both 'word' and 'count'"),
        ('{"prompt": "p", "word": "w", "count": true}', "whole number"),
        ('{"prompt": "p", "word": 1, "count": 1}', "are texts"),
        ("[]", "not a JSON object"),
        ("", "holds no requests"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error(tmp_path, line, words):
    path = tmp_path / "mine.jsonl"
    path.write_text(line)
    with pytest.raises(CasesError, match=words):
        length_requests(str(path))


def test_a_file_of_too_many_requests_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(length_requests_module, "MOST_REQUESTS", 2)
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "Tell me a story."}\n' * 3)
    with pytest.raises(CasesError, match="more than 2 requests"):
        length_requests(str(path))


def test_an_unknown_data_set_is_an_error_that_lists_the_known_ones(tmp_path):
    with pytest.raises(CasesError, match=r"'same_promt': give same_prompt, different_prompts"):
        length_requests("same_promt")


# What is kept


def test_rows_are_the_tokens_of_the_right_answers(data):
    samples = data.metadata["samples"]
    assert {sample["word"] for sample in samples} == {"sun", "moon"}
    ids, labels = data.tokens("sample_id"), data.labels
    for sample in samples:
        rows = np.flatnonzero(ids == sample["sample_id"])
        answer = repeated(sample["word"], sample["count"])
        assert sample["tokens"] == len(rows) == len(answer)
        assert "".join(data.tokens("token_text")[rows]) == answer
        assert data.tokens("token_id")[rows].tolist() == list(map(ord, answer))
        assert data.tokens("step")[rows].tolist() == list(range(len(answer)))
        assert labels[rows].tolist() == list(range(len(answer)))[::-1]
        assert (data.asked[rows] == sample["count"]).all()
        prompt = READER.prompt(sample["prompt"]).ids
        (expected,) = READER.states([prompt], [list(map(ord, answer))])
        assert np.array_equal(data.states(rows), expected)
        assert np.array_equal(data.states(rows[::-1]), expected[::-1])
        assert np.array_equal(data.states(rows, 0), expected[:, 3:])
        assert np.array_equal(data.states(rows, 2), expected[:, :3])


def test_wrong_answers_are_counted_and_kept_apart(data):
    counted = data.metadata["statistics"]["samples"]
    assert counted == {
        "failed": 5,
        "right": 10,
        "truncated": 5,
        "wrong count": 5,
        "wrong words": 5,
    }
    rejected = {s["word"]: s for s in data.metadata["rejected_samples"] if s["count"] == 3}
    assert rejected["cat"]["answer"] == "cat cat cat cat"
    assert rejected["cat"]["found"] == 4
    assert rejected["bird"]["answer"] == "bird bird bird and more"
    assert rejected["horse"]["answer"] == "no horses"
    assert (rejected["dog"]["status"], rejected["dog"]["found"]) == ("truncated", None)
    assert data.metadata["statistics"]["count_deviation"] == {
        "n": 15,
        "mean": 5 / 15,
        "mean_absolute": 5 / 15,
        "histogram": {"0": 10, "1": 5},
    }
    assert data.metadata["statistics"]["rows"] == {
        "train": len(data.train.labels),
        "val": len(data.val.labels),
    }


@pytest.mark.parametrize(
    ("keep", "words"),
    [("words", {"sun", "moon", "cat"}), ("ended", {"sun", "moon", "cat", "bird"})],
)
def test_wrong_answers_are_data_on_request_but_truncated_ones_never(tmp_path, keep, words):
    data = make(tmp_path, keep=keep)
    assert {sample["word"] for sample in data.metadata["samples"]} == words
    sample = next(s for s in data.metadata["samples"] if s["word"] == "cat" and s["count"] == 2)
    rows = data.tokens("sample_id") == sample["sample_id"]
    assert data.labels[rows].max() == len("cat cat cat") - 1
    assert set(data.asked[rows]) == {2}


def test_without_a_word_every_answer_that_ends_is_right(tmp_path):
    requests = [LengthRequest(f"say {number}") for number in range(1, 9)]
    answer = Engine(ScriptedModel(lambda prompt: "x" * int(re.search(r"\d+", prompt)[0]))).attempt
    data = collect(tmp_path, requests, READER, answer, max_new_tokens=5)
    assert data.metadata["statistics"]["samples"] == {"right": 5, "truncated": 3}
    assert set(data.asked) == {0}


def test_no_usable_answer_is_an_error_with_the_counts(tmp_path):
    never = Engine(ScriptedModel(lambda _: "no")).attempt
    for _ in range(2):  # the second finds what the first left
        with pytest.raises(CasesError, match=r"no answer can be used \(30 wrong words\)"):
            make(tmp_path / "data", generate=never)


def test_the_engine_is_given_room_and_a_draft(tmp_path):
    asked = []
    engine = Engine(ScriptedModel(obedient))
    make(tmp_path, generate=lambda requests: asked.extend(requests) or engine.attempt(requests))
    assert {request.config.max_new_tokens for request in asked} == {6 * 5 + 16}
    assert asked[-6].draft == "sun sun sun sun sun"
    assert asked[-6].prompt.text == f"<{SAME_PROMPT.format(word='sun', count=5)}>"


# Files


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_are_plain_arrays_with_the_documented_names(data, tmp_path):
    folder = tmp_path / "data"
    names = {"hidden_states": (np.float32, 6), "remaining_tokens": (np.int32, None)}
    assert sorted(contents(folder)) == sorted(
        ["metadata.json"]
        + [f"{p}_{k}.npy" for p in ("train", "val") for k in (*names, "token_metadata")]
    )
    for part in ("train", "val"):
        tokens = np.load(folder / f"{part}_token_metadata.npy", allow_pickle=False)
        assert tokens.dtype == TOKEN
        for kind, (dtype, width) in names.items():
            array = np.load(folder / f"{part}_{kind}.npy", allow_pickle=False)
            assert array.dtype == dtype
            assert array.shape == ((len(tokens),) if width is None else (len(tokens), width))
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["parameters"]["model"] == {"name": "made up"}
    assert metadata["first_prompt"] == '<Repeat the word "sun" 1 times.>'


def test_loading_maps_the_states(data, tmp_path):
    loaded = load_length_data(tmp_path / "data")
    assert isinstance(loaded.train.states, np.memmap)
    assert np.array_equal(loaded.train.states, data.train.states)
    assert len(loaded) == len(loaded.labels) == len(data)
    with pytest.raises(SettingsError, match="layer 1 is not in the data, whose layers are 2, 0"):
        loaded.states(np.arange(3), layer=1)


def test_norms_are_read_some_rows_at_a_time(data, monkeypatch):
    monkeypatch.setattr(data_set, "READ", 10)
    rows = np.arange(len(data))
    for layer in data.layers:
        expected = np.sqrt(np.square(data.states(rows, layer).astype(float)).sum(axis=1))
        assert data.norms(layer) == pytest.approx(expected, rel=1e-6)


def test_half_precision_halves_the_file_and_refuses_what_does_not_fit(data, tmp_path):
    half = make(tmp_path / "half", dtype="float16")
    assert half.train.states.dtype == np.float16
    rows = np.arange(len(data))
    assert half.states(rows).dtype == np.float32
    assert np.allclose(half.states(rows), data.states(rows), rtol=1e-3, atol=1e-6)

    class Large(MadeUpReader):
        def states(self, prompts, answers):
            return (70_000 * np.ones((len(answer), 6), np.float32) for answer in answers)

    with pytest.raises(SettingsError, match="70000 does not fit into float16"):
        make(tmp_path / "large", dtype="float16", reader=Large())


class Killed(BaseException):
    """As if the process had gone."""


@pytest.mark.parametrize("dies_in", ["generate", "write", "commit", "finish"])
@pytest.mark.parametrize("at", range(5))
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path, monkeypatch, dies_in, at):
    make(tmp_path / "whole", chunk=7)
    calls = iter(range(1000))

    def dying(method):
        def call(*args):
            if next(calls) == at:
                if dies_in == "commit":  # rows are safe, the journal's line is torn
                    args[0]._journal.write(b'{"rows": {"train"')
                raise Killed
            return method(*args)

        return call

    with monkeypatch.context() as patch:
        patched = make
        if dies_in == "generate":
            patched = partial(make, generate=dying(make.keywords["generate"]))
        elif dies_in == "finish":
            patch.setattr(GrowingArray, "_header", dying(GrowingArray._header))
            calls = iter(range(-6, 1000))  # six files are opened first
        else:
            patch.setattr(ChunkWriter, dies_in, dying(getattr(ChunkWriter, dies_in)))
        with pytest.raises(Killed):
            patched(tmp_path / "killed", chunk=7)
    with pytest.raises(CasesError, match="is not finished: run the command that makes it again"):
        load_length_data(tmp_path / "killed")
    asked = []
    engine = Engine(ScriptedModel(obedient))
    make(
        tmp_path / "killed",
        chunk=7,
        generate=lambda requests: asked.extend(requests) or engine.attempt(requests),
    )
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    done = {"generate": at, "write": at and None, "commit": at, "finish": 5}[dies_in]
    assert done is None or len(asked) == len(REQUESTS[7 * done :])


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_length_data as t
def generate(requests, calls=[]):
    calls.append(1)
    if len(calls) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.make.keywords["generate"](requests)
t.make(Path({folder!r}), chunk=7, generate=generate)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_process_that_is_really_killed_goes_on_to_the_same_bytes(tmp_path):
    make(tmp_path / "whole", chunk=7)
    folder = tmp_path / "killed"
    script = SCRIPT.format(tests=os.path.dirname(__file__), at=3, folder=str(folder))  # noqa: PTH120
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    make(folder, chunk=7)
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_finished_data_set_is_not_made_again(data, tmp_path):
    before = contents(tmp_path / "data")
    (tmp_path / "data" / "progress.jsonl").touch()  # killed before it was removed
    again = make(tmp_path / "data", chunk=7, generate=None)
    assert len(again) == len(data)
    assert contents(tmp_path / "data") == before


def test_a_folder_of_something_else_is_left_alone(data, tmp_path):
    for change, words in (
        ({"chunk": 6}, "another chunk"),
        ({"chunk": 7, "keep": "words"}, "another keep"),
        ({"chunk": 7, "requests": REQUESTS[:-1]}, "another requests and requests_hash"),
    ):
        with pytest.raises(CasesError, match=words):
            make(tmp_path / "data", **change)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metadata.json").write_text("{}")
    with pytest.raises(CasesError, match="holds no data set of this kind"):
        make(tmp_path / "other")
    with pytest.raises(CasesError, match="cannot be made"):
        make(tmp_path / "other" / "metadata.json" / "data")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("mine")
    with pytest.raises(CasesError, match=r"holds todo\.txt and no data set"):
        make(tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["todo.txt"]


def damage(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


DAMAGE = {
    "cut": ("metadata.json", lambda b: b[:-20]),
    "a list": ("metadata.json", lambda _: b"[]"),
    "empty": ("metadata.json", lambda _: b"{}"),
    "no model": ("metadata.json", lambda b: b.replace(b'"model"', b'"module"')),
    "no samples": ("metadata.json", lambda b: b.replace(b'"sample_id"', b'"sample"')),
    "other width": (
        "metadata.json",
        lambda b: b.replace(b'"hidden_size": 3', b'"hidden_size": 4'),
    ),
    "short": ("train_hidden_states.npy", lambda b: b[:-4]),
    "no array": ("val_remaining_tokens.npy", lambda _: b"no array"),
    "nothing": ("val_token_metadata.npy", lambda _: b""),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_folder_is_an_error_that_names_it(data, tmp_path, kind):
    damage(tmp_path / "data", *DAMAGE[kind])
    with pytest.raises(CasesError, match="data"):
        load_length_data(tmp_path / "data")


def test_pickled_arrays_are_refused(data, tmp_path):
    np.save(tmp_path / "data" / "val_remaining_tokens.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(CasesError, match=r"Python objects|allow_pickle"):
        load_length_data(tmp_path / "data")


def test_a_file_that_lost_safe_rows_is_an_error(tmp_path):
    def stopping(requests, calls=[]):  # noqa: B006 # counts the calls
        calls.append(1)
        if len(calls) > 2:
            raise Killed
        return make.keywords["generate"](requests)

    with pytest.raises(Killed):
        make(tmp_path, chunk=7, generate=stopping)
    damage(tmp_path, "train_hidden_states.npy", lambda b: b[:-4])
    with pytest.raises(CasesError, match=r"train_hidden_states\.npy is damaged"):
        make(tmp_path, chunk=7)


def test_memory_does_not_grow_with_the_number_of_requests(tmp_path):
    class Wide(MadeUpReader):
        layers, hidden_size = (0,), 500

        def states(self, prompts, answers):
            return (np.ones((len(answer), 500), np.float32) for answer in answers)

    def peak(words):
        requests = length_requests("same_prompt", words, range(10, 14))
        tracemalloc.start()
        options = {"requests": requests, "reader": Wide(), "chunk": 8, "max_new_tokens": 100}
        data = make(tmp_path / str(len(words)), **options)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, data.train.states.nbytes

    words = [f"word{number}" for number in range(24)]
    (small, _), (large, stored) = peak(words[:6]), peak(words)
    assert stored > 8e6
    assert large < small + 1e6  # what is known of each sample


# Splits


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(HELD_OUT), st.floats(0.01, 0.99), st.integers(0, 99))
def test_what_is_held_out_is_held_out_whole(by, share, seed):
    requests = length_requests("different_prompts", TEN_WORDS[:4], range(5, 12))
    requests += requests[:3]  # the same prompts again
    chosen = held_out(requests, by, share, seed)
    assert chosen == held_out(requests, by, share, seed)
    field = "prompt" if by == "sample" else by
    values = {
        is_test: {getattr(r, field) for r, t in zip(requests, chosen, strict=True) if t == is_test}
        for is_test in (True, False)
    }
    assert not values[True] & values[False]
    n = len(values[True] | values[False])
    assert len(values[True]) == min(max(1, round(share * n)), n - 1)


def test_what_cannot_be_held_out_is_an_error():
    requests = length_requests("same_prompt", ["sun", "moon"], range(1, 4))
    with pytest.raises(SettingsError, match="there is only one"):
        held_out(requests, "phrasing")
    with pytest.raises(SettingsError, match="not every request has a word"):
        held_out([*requests, LengthRequest("x")], "word")
    with pytest.raises(SettingsError, match="between 0 and 1"):
        held_out(requests, "word", 1.0)


@pytest.mark.parametrize("by", [None, "sample", "word", "count"])
def test_a_split_has_every_row_once_and_no_sample_twice(data, by):
    split = data.split(by)
    rows = np.concatenate([split.train, split.stop, split.test])
    assert sorted(rows) == list(range(len(data)))
    samples = [
        set(data.tokens("sample_id")[part]) for part in (split.train, split.stop, split.test)
    ]
    assert all(samples)
    assert sum(map(len, samples)) == len(set.union(*samples))
    again = data.split(by)
    assert np.array_equal(split.test, again.test)
    if by is None:
        assert split.test.tolist() == list(range(len(data.train.labels), len(data)))


def test_a_split_without_training_samples_is_an_error(data):
    lonely = replace(data, metadata=data.metadata | {"samples": data.metadata["samples"][:1]})
    with pytest.raises((CasesError, SettingsError)):
        lonely.split("sample")
    train = [sample | {"part": "train"} for sample in data.metadata["samples"]]
    with pytest.raises(CasesError, match="no split"):
        replace(data, metadata=data.metadata | {"samples": train}).split()
