"""Answers are kept as their rows end: a kill in mid-batch loses the unfinished ones alone."""

import socket
import threading
import time
from dataclasses import replace

import pytest
import torch
from architectures import tiny

from pytest_llmprobe import Engine, GenerateConfig, Request, ScriptedModel, Steer
from pytest_llmprobe.case import Span
from pytest_llmprobe.engine.completion_file import begin
from pytest_llmprobe.engine.completion_store import CompletionStore
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.shared.client import SharedBackend
from pytest_llmprobe.engine.shared.server import EngineServer
from pytest_llmprobe.engine.transformers_backend import TransformersBackend

TEXT = "the red stone is here, the blue stone is there, the old stone is far away, " * 3
PROMPTS = [f"{TEXT}{end}" for end in ("why", "where is it", "what is red", "say old and new")]
ROOM = 40
KILLED_AFTER = 2 * 4 + 2 * 25  # tokens: the short rows are over, the long ones are not


class Killed(BaseException):
    """What no handler in between may catch."""


@pytest.fixture
def path(tmp_path):
    begin(tmp_path / "completions.jsonl", {"model": "m"})
    return tmp_path / "completions.jsonl"


@pytest.fixture
def settled(monkeypatch):
    """No lead counts as close, of which a random model has many."""
    monkeypatch.setattr("pytest_llmprobe.engine.fast_backend.CLOSE_CALL", 0)


def asked():
    """Every other row has little room, and ends early."""
    config = GenerateConfig(max_new_tokens=ROOM)
    rooms = [ROOM, ROOM // 10] * 2
    return [
        Request(prompt, replace(config, max_new_tokens=room))
        for prompt, room in zip(PROMPTS, rooms, strict=True)
    ]


def stored(backend, path, **more):
    engine = Engine(backend)
    engine.store = CompletionStore(path, backend.info, **more)
    return engine


def killed(engine, requests, after=KILLED_AFTER):
    def on_progress(progress):
        if progress.generated_tokens > after:
            raise Killed

    with pytest.raises(Killed):
        engine.attempt(requests, on_progress)


def said(completions):
    names = ("text", "token_ids", "finish_reason", "steered", "steered_layers")
    return [[getattr(completion, name) for name in names] for completion in completions]


def check_resumed(backend, requests, path, kept, after=KILLED_AFTER):
    expected = said(Engine(backend).generate(requests))
    killed(stored(backend, path), requests, after)
    there = CompletionStore(path, backend.info, look_up=True)
    found = [there.find(request) for request in requests]
    assert [answer is not None for answer in found] == kept
    resumed = stored(backend, path, look_up=True).generate(requests)
    assert said(resumed) == expected
    assert [answer.recorded for answer in resumed] == kept


def test_rows_with_a_shared_prefix_are_kept_as_they_end(path, settled):
    backend = FastBackend(tiny("llama"))
    assert backend.shares_prefixes
    check_resumed(backend, asked(), path, [False, True, False, True])


def test_steered_rows_are_kept_with_how_they_are_steered(path, settled):
    requests = [
        replace(request, steer=Steer(Span("red stone", occurrence=0), 2.0)) for request in asked()
    ]
    check_resumed(FastBackend(tiny("llama")), requests, path, [False, True, False, True])


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
def test_rows_of_plain_batches_are_kept_as_they_end(path, architecture):
    backend = TransformersBackend(tiny(architecture))
    prompts = [PROMPTS[0], "far and near"]
    whole = GenerateConfig(max_new_tokens=ROOM)
    first, second = Engine(backend).generate(prompts, whole)
    # A string that the first row alone says, and early.
    tokens = [backend.tokenizer.decode([token]) for token in first.token_ids[:10]]
    stop = next(text for text in tokens if text.strip() and text not in second.text)
    requests = [Request(prompt, replace(whole, stop=(stop,))) for prompt in prompts]
    check_resumed(backend, requests, path, [True, False], after=35)


def test_close_calls_are_kept_once_they_are_decided(path, monkeypatch):
    """All others are kept before, though they ended with the batch's last row."""
    backend = FastBackend(tiny("llama"))
    requests = [replace(r, config=GenerateConfig(max_new_tokens=8)) for r in asked()]
    expected = said(Engine(backend).generate(requests))
    close, settled = {1}, backend._settled

    def is_close(state, alone):
        return state.row.index in close and not alone

    def killed_at_the_close_one(state, alone):
        if is_close(state, alone):
            raise Killed
        return settled(state, alone)

    monkeypatch.setattr(backend, "_is_close", is_close)
    monkeypatch.setattr(backend, "_settled", killed_at_the_close_one)
    with pytest.raises(Killed):
        stored(backend, path).attempt(requests)
    monkeypatch.undo()
    resumed = stored(backend, path, look_up=True).generate(requests)
    assert [answer.recorded for answer in resumed] == [True, False, True, True]
    assert said(resumed) == expected


def test_the_shared_engine_tells_rows_as_they_end(tmp_path, path, settled):
    own = FastBackend(tiny("llama"))
    server = EngineServer(own, own.encode)
    thread = threading.Thread(target=server.serve, args=(tmp_path / "s",), daemon=True)
    thread.start()
    backend = connected(tmp_path / "s")
    requests = asked()
    expected = said(Engine(own).generate(requests))
    killed(stored(backend, path), requests)
    backend.close()
    backend = connected(tmp_path / "s")
    resumed = stored(backend, path, look_up=True).generate(requests)
    backend.close()
    assert [answer.recorded for answer in resumed] == [False, True, False, True]
    assert said(resumed) == expected


def connected(path):
    for _ in range(500):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return SharedBackend(connection)
        except OSError:
            connection.close()
            time.sleep(0.01)
    raise AssertionError("nobody listens")


class RowByRow(ScriptedModel):
    """Runs out of memory after so many rows, which were told."""

    def __init__(self, room):
        super().__init__(str.upper)
        self.room, self.asked = room, []

    def receive(self, rows, on_tokens, arrived):
        answers = []
        for place, row in enumerate(rows):
            if place >= self.room:
                raise torch.OutOfMemoryError("no room")
            self.asked.append("".join(map(chr, row.prompt_ids)))
            answers += self.generate([row], on_tokens)
            arrived(row, answers[-1])
            arrived(row, answers[-1])  # telling twice is allowed
        return answers

    def is_out_of_memory(self, error):
        return isinstance(error, torch.OutOfMemoryError)


def test_rows_told_before_the_memory_ran_out_are_not_asked_again():
    model, seen = RowByRow(room=2), []
    engine = Engine(model, batch_size=8)
    prompts = ["aaaa", "bbb", "cc", "d"]
    answers = engine.attempt([Request(p) for p in prompts], seen.append)
    assert [answer.text for answer in answers] == ["AAAA", "BBB", "CC", "D"]
    assert model.asked == prompts
    assert [p.done for p in seen][-1] == len(prompts)
    assert [p.done for p in seen] == sorted(p.done for p in seen)


def test_an_answer_that_came_early_stands_once_and_its_share_of_the_time_beside_it(path):
    engine = stored(RowByRow(room=9), path, look_up=True)
    prompts = [Request(prompt) for prompt in ("aaaa", "bbb", "cc", "d")]
    answers = engine.attempt(prompts)
    lines = path.read_text().splitlines()
    assert sum(line.startswith('{"key"') for line in lines) == len(prompts)
    assert sum(line.startswith('{"time_of"') for line in lines) == len(prompts)
    (share,) = {answer.timings.generation_s for answer in answers}
    engine.store.look_up()
    found = [engine.store.find(request) for request in prompts]
    assert [one.timings for one in found] == [answer.timings for answer in answers]
    path.write_bytes(path.read_bytes()[:-30])  # a kill in the last line: what was known before it
    engine.store.look_up()
    *others, last = [engine.store.find(request) for request in prompts]
    assert {one.timings.generation_s for one in others} == {share}
    assert last.text == "D"
    assert 0 < last.timings.generation_s <= share
    engine.store.keep([(prompts[0], answers[1])])  # a later answer has its own time
    engine.store.look_up()
    assert engine.store.find(prompts[0]).timings == answers[1].timings


def test_a_row_that_never_fits_is_the_only_error():
    model = RowByRow(room=0)
    answers = Engine(model).attempt([Request(p) for p in "ab"])
    assert ["no room" in str(answer) for answer in answers] == [True, True]
