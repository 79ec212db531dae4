"""The OpenAI-compatible protocol: which request a case becomes, what a response means."""

import json

import pytest
from loopback import chat

from pytest_llmprobe import GenerateConfig, RawPrompt
from pytest_llmprobe.engine.endpoints.openai_wire import OpenAIWire
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.errors import RefusedError, RequestError, ServerError
from pytest_llmprobe.generation import Usage

WIRE = OpenAIWire("m")


def call(prompt, wire=WIRE, seed=0, **config):
    return wire.call(Row(0, wire.encode(prompt), GenerateConfig(**config), seed))


def answer(response, wire=WIRE, **config):
    return wire.answer(response, Row(0, (), GenerateConfig(**config)))


def test_a_greedy_chat_request_says_what_was_asked_and_nothing_else():
    asked = call("hello", max_new_tokens=5, stop="END")
    assert asked.path == "/chat/completions"
    assert asked.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.0,
        "max_tokens": 5,
        "stop": ["END"],
    }


def test_sampling_carries_its_seed_in_the_bits_that_servers_keep():
    body = call("hello", temperature=0.7, top_p=0.9, seed=2**40 + 5).body
    assert (body["temperature"], body["top_p"], body["seed"]) == (0.7, 0.9, 5)


def test_settings_beyond_the_protocol_are_sent_only_where_they_are_asked_for():
    names = {"top_k", "min_p", "repetition_penalty"}
    assert not names & call("hello").body.keys()
    assert names < call("hello", top_k=3, min_p=0.1, repetition_penalty=1.2).body.keys()


@pytest.mark.parametrize("setting", ["typical_p", "tfs", "top_a"])
def test_a_setting_without_a_name_in_the_protocol_is_refused(setting):
    assert setting in WIRE.unsupported(GenerateConfig(**{setting: 0.5}))
    assert WIRE.unsupported(GenerateConfig(top_k=3, top_p=0.5, temperature=1)) is None


def test_openais_own_service_knows_max_tokens_by_another_name():
    body = call("hello", OpenAIWire("m", public=True)).body
    assert body["max_completion_tokens"] == 64
    assert "max_tokens" not in body


def test_a_raw_text_is_continued_without_a_chat_template():
    asked = call(RawPrompt("Once upon"))
    assert (asked.path, asked.body["prompt"]) == ("/completions", "Once upon")
    assert call("Once upon", OpenAIWire("m", raw=True)).body["prompt"] == "Once upon"


def test_token_ids_are_sent_only_where_they_are_known_to_be_the_servers():
    prompt = RawPrompt("Once", (1, 2))
    with pytest.raises(RequestError, match="tokenizer is not known"):
        WIRE.encode(prompt)
    assert call(prompt, OpenAIWire("m", own_ids=True)).body["prompt"] == [1, 2]


def test_equal_messages_are_equal_bytes_whatever_the_order_of_their_keys():
    one = [{"role": "user", "content": "é"}]
    assert WIRE.encode(one) == WIRE.encode([{"content": "é", "role": "user"}]) == WIRE.encode("é")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (chat("Paris"), ("Paris", "stop")),
        (chat("Par", "length"), ("Par", "length")),
        (chat(None, "length"), ("", "length")),
        (chat("so END and more"), ("so ", "stop_string")),
        ({"choices": [{"text": "Paris", "finish_reason": "stop"}]}, ("Paris", "stop")),
        (
            {"choices": [{"text": "a", "finish_reason": "stop", "stop_reason": "END"}]},
            ("a", "stop_string"),
        ),
        (chat("lone \ud800 surrogate"), ("lone ? surrogate", "stop")),
    ],
)
def test_an_answer_is_read(response, expected):
    read = answer(response, stop="END")
    assert (read.text, read.finish_reason) == expected


def test_the_usage_is_the_servers_own_or_none():
    assert answer(chat("a")).usage == Usage(3, 2)
    assert answer(chat("a", usage=None)).usage == Usage(None, None)
    half = {"prompt_tokens": -1, "completion_tokens": 2}
    assert answer(chat("a", usage=half)).usage == Usage(None, 2)
    assert answer(chat("a", usage="much")).usage == Usage(None, None)


@pytest.mark.parametrize("response", [chat("a", "content_filter"), chat("a")])
def test_a_withheld_answer_is_an_error_of_its_own_kind(response):
    if response["choices"][0]["finish_reason"] == "stop":
        response["choices"][0]["message"] |= {"content": None, "refusal": "I will not"}
    with pytest.raises(RefusedError, match="withheld"):
        answer(response)


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"choices": []},
        {"choices": {}},
        {"choices": [7]},
        {"choices": chat("a")["choices"] * 2},
        chat("", None),
        chat(None, ""),
        chat([7]),
        chat({"text": "a"}),
        chat("a" * 5001),
    ],
)
def test_what_the_protocol_does_not_know_is_an_error_and_no_answer(response):
    with pytest.raises(ServerError):
        answer(response, max_new_tokens=5)


def test_a_streamed_answer_is_put_together():
    asked = call("hello")
    stream = WIRE.stream(asked)
    assert asked.body["stream_options"] == {"include_usage": True}
    pieces = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}}], "model": "served"},
        {"choices": [{"delta": {"content": "Pa"}}]},
        {"choices": [{"delta": {"content": "ris"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ]
    assert [stream.add(json.loads(json.dumps(piece))) for piece in pieces] == [0, 1, 1, 0]
    read = answer(stream.response())
    assert (read.text, read.finish_reason, read.usage) == ("Paris", "stop", Usage(3, 2))
    assert read.model == "served"


def test_a_stream_that_never_ended_is_no_answer():
    stream = WIRE.stream(call("hello"))
    stream.add({"choices": [{"delta": {"content": "Pa"}}]})
    with pytest.raises(ServerError, match="stream ended before"):
        answer(stream.response())
