"""Answers on disk: found by all that could change them, by nothing else, whatever was killed."""

import json
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe import Engine, GenerateConfig, RawPrompt, Request, ScriptedModel, Steer
from pytest_llmprobe.engine.completion_file import CompletionFile, begin, run_of
from pytest_llmprobe.engine.completion_store import (
    CompletionStore,
    identity,
    request_key,
    request_like,
)
from pytest_llmprobe.errors import PromptTooLongError, ReportError, RequestError, SteeringError

INFO = {
    "source": "org/model",
    "revision": "abc",
    "fingerprint": "f" * 16,
    "tokenizer_hash": "t",
    "chat_template_hash": "c",
    "dtype": "float32",
    "device": "cuda:0",
    "attention": "sdpa",
    "quantization": None,
    "accelerators": ["H", "H"],
    "capabilities": {"steerable": True},
    "parameters": 5,
}
SAMPLED = GenerateConfig(temperature=1.0)
REQUEST = Request("say x", SAMPLED, 1, steer=Steer("x", 1.0))
OTHERS = {
    "prompt": replace(REQUEST, prompt="say  x"),
    "messages": replace(REQUEST, prompt=[{"role": "user", "content": "say x"}]),
    "raw": replace(REQUEST, prompt=RawPrompt("say x")),
    "raw ids": replace(REQUEST, prompt=RawPrompt("say x", (1, 2))),
    "seed": replace(REQUEST, seed=2),
    "config": replace(REQUEST, config=replace(SAMPLED, max_new_tokens=63)),
    "stop": replace(REQUEST, config=replace(SAMPLED, stop="x")),
    "delta": replace(REQUEST, steer=Steer("x", 2.0)),
    "layers": replace(REQUEST, steer=Steer("x", 1.0, layers=(1,))),
    "phase": replace(REQUEST, steer=Steer("x", 1.0, phase="all")),
    "span": replace(REQUEST, steer=Steer("say", 1.0)),
    "unsteered": replace(REQUEST, steer=None),
}


@pytest.fixture
def path(tmp_path):
    begin(tmp_path / "completions.jsonl", {"model": "m"})
    return tmp_path / "completions.jsonl"


def scripted(answer=lambda prompt: prompt.upper(), **more):
    return Engine(ScriptedModel(answer, **more))


def with_store(path, info=INFO, engine=None, **more):
    engine = engine or scripted()
    engine.store = CompletionStore(path, info, **more)
    return engine


def refusing(prompt):
    raise AssertionError("the model was asked")


def test_every_part_of_a_request_is_in_its_key():
    keys = {name: request_like(request) for name, request in OTHERS.items()}
    keys["it"] = request_like(REQUEST)
    keys |= {f"{name} of m": request_key("m", key) for name, key in keys.items()}
    keys["it of n"] = request_key("n", keys["it"])
    assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize(
    "same",
    [
        replace(REQUEST, draft="a guess"),
        replace(REQUEST, prompt="".join(["say", " x"])),
    ],
)
def test_what_changes_no_answer_is_not(same):
    assert request_like(same) == request_like(REQUEST)


def test_the_seed_matters_only_where_it_is_used():
    greedy = replace(REQUEST, config=GenerateConfig())
    assert request_like(greedy) == request_like(replace(greedy, seed=9))


def test_delta_0_steers_nothing():
    plain = replace(REQUEST, steer=None)
    assert request_like(replace(plain, steer=Steer("x", 0))) == request_like(plain)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fingerprint", "0" * 16),
        ("tokenizer_hash", "u"),
        ("chat_template_hash", "d"),
        ("dtype", "bfloat16"),
        ("device", "cpu"),
        ("attention", "eager"),
        ("quantization", "4bit"),
        ("accelerators", ["A"]),
    ],
)
def test_another_model_is_another_identity(path, field, value):
    with_store(path).generate(["a"])
    changed = with_store(path, INFO | {field: value}, look_up=True)
    assert not changed.generate(["a"])[0].recorded
    assert any(line.startswith(field) for line in changed.store.changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", "/elsewhere"),
        ("revision", "main"),
        ("device", "cuda:1"),
        ("accelerators", ["H"]),
        ("capabilities", {}),
    ],
)
def test_what_changes_no_number_is_none(path, field, value):
    with_store(path).generate(["a"])
    same = with_store(path, INFO | {field: value}, scripted(refusing), look_up=True)
    assert same.generate(["a"])[0].recorded
    assert same.store.changes == []


def test_the_batch_size_matters_only_in_fewer_than_32_bits():
    half = INFO | {"dtype": "bfloat16"}
    assert identity(INFO, 1) == identity(INFO, None)
    assert identity(half, 1) != identity(half, None)


def test_a_model_without_a_fingerprint_is_known_by_its_source():
    info = {"source": "a"}
    assert identity(info, None) != identity({"source": "b"}, None)


def test_versions_of_packages_are_part_of_it(monkeypatch):
    before = identity(INFO, None)
    monkeypatch.setattr("pytest_llmprobe.engine.completion_store.version", lambda name: "9")
    assert identity(INFO, None) != before


def test_an_answer_comes_back_whole_and_marked(path):
    engine = with_store(path, engine=scripted(lambda prompt: prompt + "\ud800"))
    requests = [Request(text, SAMPLED, 3) for text in ("a", "\x00 \n", "b" * 5000)]
    before = engine.generate(requests)
    again = with_store(path, engine=scripted(refusing), look_up=True).generate(requests)
    assert again == before
    assert [answer.timings for answer in again] == [answer.timings for answer in before]
    assert all(answer.recorded for answer in again)
    assert not any(answer.recorded for answer in before)


def test_only_what_is_missing_is_asked(path):
    with_store(path).generate(["a", "c"])
    asked = []
    engine = scripted(lambda prompt: asked.append(prompt) or prompt)
    answers = with_store(path, engine=engine, look_up=True).generate(["a", "b", "c"])
    assert asked == ["b"]
    assert [answer.text for answer in answers] == ["A", "b", "C"]


def test_without_looking_up_everything_is_asked(path):
    with_store(path).generate(["a"])
    assert not with_store(path).generate(["a"])[0].recorded


@settings(deadline=None, max_examples=50)
@given(share=st.floats(0, 1))
def test_a_file_cut_anywhere_loses_no_whole_line(share, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "completions.jsonl"
    begin(path, {"model": "m"})
    with_store(path).generate(["a", "b", "c"])
    whole = path.read_bytes()
    cut = round(share * len(whole))
    path.write_bytes(whole[:cut])
    kept = sum(1 for line in whole[:cut].splitlines(keepends=True) if _is_answer(line))
    engine = with_store(path, look_up=True)
    answers = engine.generate(["a", "b", "c", "d"])
    assert [answer.text for answer in answers] == ["A", "B", "C", "D"]
    assert sum(answer.recorded for answer in answers) == kept
    # What was written after the cut is whole again.
    later = with_store(path, engine=scripted(refusing), look_up=True)
    assert [answer.text for answer in later.generate(["d", "c"])] == ["D", "C"]


def _is_answer(line):
    return line.startswith(b'{"key"') and line.endswith(b"\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"text": 3},
        {"token_ids": ["a"]},
        {"finish_reason": ""},
        {"thought": 3},
        {"usage": {}},
        {"timings": {"generation_s": float("inf"), "batch_size": 1}},
        {"timings": {"generation_s": 1, "batch_size": 1, "latency_s": float("nan")}},
        {"steered_layers": -1},
        {"steered": None},
    ],
)
def test_a_line_that_is_none_of_ours_counts_as_not_there(path, changes):
    with_store(path).generate(["a"])
    lines = path.read_text().splitlines()
    data = json.loads(lines[-1])
    data["completion"] |= changes
    path.write_text("\n".join([*lines[:-1], json.dumps(data)]) + "\n")
    (answer,) = with_store(path, look_up=True).generate(["a"])
    assert (answer.text, answer.recorded) == ("A", False)


def _write(path, name):
    with_store(path).generate([f"{name} {n} " + "x" * 20_000 for n in range(30)])


def test_several_processes_write_one_file(path):
    with ProcessPoolExecutor(3) as pool:
        list(pool.map(_write, [path] * 3, "abc"))
    prompts = [f"{name} {n} " + "x" * 20_000 for name in "abc" for n in range(30)]
    answers = with_store(path, engine=scripted(refusing), look_up=True).generate(prompts)
    assert all(answer.recorded for answer in answers)


def test_errors_are_kept_for_a_replay_and_tried_again_otherwise(path):
    def answer(prompt):
        if prompt == "bad":
            raise RequestError("no")
        return prompt

    requests = [Request("bad"), Request("x" * 50), Request("ok"), REQUEST]
    engine = with_store(path, engine=scripted(answer, context_length=100))
    before = engine.attempt(requests)
    replay = scripted(refusing)
    replay.store = CompletionStore(path, None)
    after = replay.attempt(requests)
    assert [type(outcome) for outcome in after] == [type(outcome) for outcome in before]
    assert [type(outcome) for outcome in after[:2]] == [RequestError, PromptTooLongError]
    assert isinstance(after[3], SteeringError)
    assert list(map(str, after[:2])) == list(map(str, before[:2]))
    assert after[2] == before[2]
    assert replay.store.info == INFO
    tried = with_store(path, engine=scripted(), look_up=True).attempt([Request("bad")])
    assert tried[0].text == "BAD"


def test_a_replay_answers_nothing_else(path):
    with_store(path).generate(["a"])
    engine = scripted(refusing)
    engine.store = CompletionStore(path, None)
    with pytest.raises(RequestError, match="holds no answer to this request"):
        engine.generate(["b"])
    size = path.stat().st_size
    engine.attempt([Request("c")])
    assert path.stat().st_size == size


def test_a_run_without_answers_cannot_be_replayed(path):
    with pytest.raises(ReportError, match="holds no answers: the run ended before"):
        CompletionStore(path, None)


@pytest.mark.parametrize("content", [b"", b"[1]\n", b'{"key": "a"}\n', b"\xff\n", b"{" * 10_000])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "completions.jsonl"
    path.write_bytes(content)
    with pytest.raises(ReportError, match="is no file of answers"):
        run_of(path)


class Spy(ScriptedModel):
    """Keeps the drafts that it is given."""

    def __init__(self, answer):
        super().__init__(answer)
        self.drafts = []

    def generate(self, rows, on_tokens):
        self.drafts += [row.draft for row in rows]
        return super().generate(rows, on_tokens)


def spy(path, info=INFO, **more):
    engine = Engine(Spy(str.lower))
    engine.store = CompletionStore(path, info, **more)
    return engine


def test_what_another_model_answered_is_a_guess(path, tmp_path):
    (before, _) = with_store(path).generate(["a", "b"])
    begin(tmp_path / "new.jsonl", {"model": "m"})
    changed = INFO | {"fingerprint": "0" * 16}
    engine = spy(tmp_path / "new.jsonl", changed, earlier=path)
    answers = engine.generate([Request("a", draft="the target"), Request("c", draft="d"), "e"])
    assert engine.backend.drafts == [before.token_ids, "d", None]
    assert [answer.text for answer in answers] == ["a", "c", "e"]
    assert not any(answer.recorded for answer in answers)


def test_with_another_tokenizer_it_is_a_text(path, tmp_path):
    with_store(path).generate(["a"])
    begin(tmp_path / "new.jsonl", {"model": "m"})
    engine = spy(tmp_path / "new.jsonl", INFO | {"tokenizer_hash": "u"}, earlier=path)
    engine.generate(["a"])
    assert engine.backend.drafts == ["A"]


def test_a_run_that_goes_on_with_a_changed_model_guesses_from_itself(path):
    (before,) = with_store(path).generate(["a"])
    engine = spy(path, INFO | {"fingerprint": "0" * 16}, look_up=True)
    engine.generate(["a"])
    assert engine.backend.drafts == [before.token_ids]


def test_errors_are_no_guesses(path, tmp_path):
    with_store(path, engine=scripted(context_length=10)).attempt([Request("a" * 20)])
    begin(tmp_path / "new.jsonl", {"model": "m"})
    engine = spy(tmp_path / "new.jsonl", earlier=path)
    engine.generate(["a" * 20])
    assert engine.backend.drafts == [None]


def test_a_file_that_is_there_is_set_aside_and_still_written_by_its_run(tmp_path):
    path = tmp_path / "completions.jsonl"
    begin(path, {"model": "first"})
    running = with_store(path)
    running.generate(["a"])
    begin(path, {"model": "second"})
    running.generate(["b"])
    before = (tmp_path / "completions-before.jsonl").read_text()
    assert before.count('"completion"') == 2
    assert run_of(path) == {"model": "second"}
    assert path.read_text().count('"completion"') == 0


@pytest.mark.parametrize(
    "spoiled",
    [
        {"info": ["x"]},
        {"of": "x"},
        {"identity": 1},
        {"info": {"tokenizer_hash": []}},
        {"info": {"a": float("nan")}},
    ],
)
def test_what_a_file_says_wrongly_of_its_model_is_left_out(path, tmp_path, spoiled):
    with_store(path).generate(["a"])
    lines = []
    for line in path.read_text().splitlines():
        data = json.loads(line) if line else {}
        lines.append(json.dumps(data | spoiled) if "identity" in data else line)
    path.write_text("\n".join(lines) + "\n")
    assert CompletionFile(path).models == []
    with pytest.raises(ReportError, match="holds no answers"):
        CompletionStore(path, None)
    asked = spy(tmp_path / "new.jsonl", earlier=path)
    assert [answer.text for answer in asked.generate(["a"])] == ["a"]
    assert with_store(path, look_up=True).store.changes == []


@pytest.mark.parametrize("changes", ["usage", "timings"])
def test_a_number_beyond_all_measure_counts_as_not_there(path, changes):
    with_store(path).generate(["a"])
    text = path.read_text()
    name = "generated_tokens" if changes == "usage" else "generation_s"
    path.write_text(re.sub(rf'"{name}": [0-9.e-]+', f'"{name}": {"9" * 400}', text))
    assert "9" * 400 in path.read_text()
    engine = with_store(path, look_up=True)
    assert not engine.generate(["a"])[0].recorded
