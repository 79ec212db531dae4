"""Anthropic's Messages API, through the official client against a server on loopback.

The wire format is that of https://platform.claude.com/docs/en/api/messages, version 2026-10-21.
"""

import json

import pytest
from loopback import SENTINEL, Reply, message

from pytest_llmprobe import GenerateConfig, RawPrompt, Request
from pytest_llmprobe.errors import (
    AccessError,
    PromptTooLongError,
    RefusedError,
    RequestError,
    ServerError,
    UnsupportedError,
)
from pytest_llmprobe.generation import Usage

KNOWN = {"model", "max_tokens", "messages", "system", "stop_sequences", "stream"}
"""Fields that the documented endpoint takes and we may send: all others are answered with 400."""


@pytest.fixture
def claude(server, ask, monkeypatch):
    """An engine on a server that answers as a function of the request's body says."""
    monkeypatch.setattr("pytest_llmprobe.engine.endpoints.attempts.FIRST_PAUSE_S", 0.001)

    def start(answer, key=SENTINEL, **options):
        monkeypatch.setenv("ANTHROPIC_API_KEY", key)

        def strict(asked):
            assert asked.path == "/v1/messages"
            if asked.headers.get("authorization") != f"Bearer {SENTINEL}":
                return failure(401, "authentication_error", "invalid bearer token")
            assert asked.headers["anthropic-version"] == "2026-10-21"
            if extra := sorted(asked.body.keys() - KNOWN):
                words = f"{extra[0]}: Extra inputs are not permitted"
                return failure(400, "invalid_request_error", words)
            return answer(asked)

        started = server(strict)
        return ask(started, "anthropic", **options), started

    return start


def failure(status, kind, words, headers=None):
    body = {"type": "error", "error": {"type": kind, "message": words}, "request_id": "req_1"}
    return Reply(body, status, headers or {})


def test_a_request_has_nothing_that_the_documented_endpoint_refuses(claude):
    engine, asked = claude(lambda asked: message("Paris"))
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "The capital of France?"},
    ]
    (completion,) = engine.generate([prompt], GenerateConfig(max_new_tokens=9, stop="\n"))
    assert completion.text == "Paris"
    assert completion.usage == Usage(3, 2)
    assert asked.asked[0].body == {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "The capital of France?"}],
        "system": "Be brief.",
        "stop_sequences": ["\n"],
    }
    assert engine.backend.info["served_model"] == "claude-of-the-test"
    assert "greedy" in engine.backend.info["sampling"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("end_turn", "stop"), ("max_tokens", "length"), ("stop_sequence", "stop_string")],
)
def test_reasons_have_our_names(claude, reason, expected):
    engine, _ = claude(lambda asked: message("Paris", reason))
    assert engine.generate(["a"])[0].finish_reason == expected


def test_cached_tokens_are_part_of_the_prompt_and_thoughts_no_part_of_the_answer(claude):
    usage = {
        "input_tokens": 3,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "output_tokens": 9,
    }
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "text", "text": "Pa"},
        {"type": "text", "text": "ris"},
    ]
    engine, _ = claude(lambda asked: message("", content=content, usage=usage))
    (completion,) = engine.generate(["a"])
    assert (completion.text, completion.usage) == ("Paris", Usage(123, 9))


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (message("", "refusal", content=[]), RefusedError, "refused"),
        (message("a", "model_context_window_exceeded"), PromptTooLongError, "context"),
        (message("a", "pause_turn"), ServerError, "pause_turn"),
        (
            failure(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            PromptTooLongError,
            "smaller cases",
        ),
        (failure(413, "request_too_large", "too large"), PromptTooLongError, "413"),
        (failure(403, "permission_error", "not yours"), AccessError, "may not ask"),
        (failure(404, "not_found_error", "model: m"), AccessError, "model's name"),
    ],
)
def test_documented_errors_are_told_apart_and_not_repeated(claude, answer, kind, words):
    engine, asked = claude(lambda asked: answer)
    (error,) = engine.attempt([Request("a")])
    assert type(error) is kind
    assert words in str(error)
    assert len(asked.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        failure(429, "rate_limit_error", "slow down", {"retry-after": "0.05"}),
        failure(500, "api_error", "internal"),
        failure(529, "overloaded_error", "Overloaded"),
    ],
)
def test_what_passes_is_asked_again(claude, answer):
    seen = []

    def once(asked):
        seen.append(asked)
        return answer if len(seen) == 1 else message("fine")

    engine, asked = claude(once)
    assert engine.generate(["a"])[0].text == "fine"
    assert len(asked.asked) == 2


def test_a_wrong_key_stops_after_one_request_and_is_not_repeated(claude):
    engine, asked = claude(lambda asked: message("a"), concurrency=1, key="sk-another-sentinel")
    errors = engine.attempt([Request("a"), Request("b")])
    assert {type(error) for error in errors} == {AccessError}
    assert "sk-another-sentinel" not in str(errors)
    assert len(asked.asked) == 1


@pytest.mark.parametrize("setting", [{"temperature": 0.7}, {"top_p": 0.9}, {"top_k": 5}])
def test_settings_of_the_sampling_are_refused_before_anything_is_sent(claude, setting):
    engine, asked = claude(lambda asked: message("a"))
    with pytest.raises(UnsupportedError, match="no settings of the sampling"):
        engine.generate(["a"], GenerateConfig(**setting))
    assert asked.asked == []


@pytest.mark.parametrize("prompt", [RawPrompt("Once"), [{"role": "system", "content": "only"}]])
def test_what_is_no_conversation_is_refused(claude, prompt):
    engine, asked = claude(lambda asked: message("a"))
    with pytest.raises(RequestError):
        engine.generate([prompt])
    assert asked.asked == []


def test_a_streamed_message_is_put_together(claude):
    def streamed(asked):
        assert asked.body["stream"] is True
        usage = {"input_tokens": 3, "output_tokens": 1}
        begun = message("", None, content=[], usage=usage)
        block = {"type": "text", "text": ""}
        events = [
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "ping"},
            *(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": piece},
                }
                for piece in ("Pa", "ris")
            ),
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 4},
            },
            {"type": "message_stop"},
        ]
        lines = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events]
        return Reply("".join(lines).encode(), headers={"content-type": "text/event-stream"})

    engine, _ = claude(streamed, stream=True)
    (completion,) = engine.generate(["a"])
    assert (completion.text, completion.finish_reason) == ("Paris", "stop")
    assert completion.usage == Usage(3, 4)
    assert completion.timings.first_token_s is not None


def test_an_error_in_the_middle_of_a_stream_is_an_error(claude):
    def streamed(asked):
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        body = f"event: error\ndata: {json.dumps(error)}\n\n".encode()
        return Reply(body, headers={"content-type": "text/event-stream"})

    engine, asked = claude(streamed, stream=True, retries=1)
    (error,) = engine.attempt([Request("a")])
    assert isinstance(error, ServerError)
    assert len(asked.asked) == 2
