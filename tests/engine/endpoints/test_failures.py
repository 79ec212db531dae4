"""What a failed attempt means, and when to try again."""

import gzip
import json
import time
from email.utils import formatdate

import pytest
from loopback import Reply, chat

from pytest_llmprobe import Request
from pytest_llmprobe.engine.endpoints.failures import retry_after
from pytest_llmprobe.errors import AccessError, PromptTooLongError, RefusedError, ServerError


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": formatdate(time.time() - 60)}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers, seconds):
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date_is_counted_from_now():
    assert 50 < retry_after({"retry-after": formatdate(time.time() + 60)}) <= 60


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, {"error": {"message": "no such thing"}}, ServerError, "400: no such thing"),
        (400, {"detail": "Unexpected fields"}, ServerError, "Unexpected fields"),
        (422, b"plain words", ServerError, "plain words"),
        (
            400,
            {"error": {"message": "This model's maximum context length is 4096 tokens"}},
            PromptTooLongError,
            "longer context",
        ),
        (
            400,
            {"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}},
            PromptTooLongError,
            "smaller cases",
        ),
        (413, b"", PromptTooLongError, "413"),
        (401, {"error": {"message": "Invalid key"}}, AccessError, "check the environment's"),
        (403, {"error": {"message": "not yours"}}, AccessError, "may not ask"),
        (404, {"error": {"message": "no model m"}}, AccessError, "ends in /v1"),
        (429, {"error": {"message": "pay", "code": "insufficient_quota"}}, AccessError, "plan"),
    ],
)
def test_a_refusal_is_one_request_and_one_sentence_that_says_what_to_do(
    server, ask, status, body, kind, words
):
    asked = server(lambda asked: Reply(body, status))
    (error,) = ask(asked).attempt([Request("hello")])
    assert type(error) is kind
    assert words in str(error)
    assert error.__traceback__ is None
    assert len(asked.asked) == 1


def test_a_servers_own_words_are_bounded_and_on_one_line(server, ask):
    asked = server(lambda asked: Reply({"error": {"message": "a\x1b[31m\n" * 10_000}}, 400))
    (error,) = ask(asked).attempt([Request("hello")])
    assert len(str(error)) < 700
    assert str(error).isprintable()


def test_a_server_that_asks_to_wait_until_tomorrow_is_not_waited_for(server, ask):
    busy = server(lambda asked: Reply({"error": {"message": "busy"}}, 429, {"retry-after": "9999"}))
    (error,) = ask(busy).attempt([Request("hello")])
    assert "asks to wait 9999 s" in str(error)
    assert len(busy.asked) == 1


def test_a_page_that_is_missing_for_one_case_does_not_stop_the_others(server, ask):
    def answer(asked):
        return Reply({"error": {"message": "gone"}}, 404) if asked.prompt == "b" else chat("fine")

    outcomes = ask(server(answer), concurrency=1).attempt([Request(p) for p in "abc"])
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "Completion",
        "ServerError",
        "Completion",
    ]


def test_after_a_refused_key_nothing_more_is_sent(server, ask):
    asked = server(lambda asked: Reply({"error": {"message": "no"}}, 401))
    engine = ask(asked, concurrency=1)
    outcomes = engine.attempt([Request(f"p{i}") for i in range(10)])
    assert {type(outcome) for outcome in outcomes} == {AccessError}
    engine.attempt([Request("more")])
    assert len(asked.asked) == 1


def test_no_server_at_all_is_said_once_for_all(ask, server, monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.engine.endpoints.attempts.FIRST_PAUSE_S", 0.001)
    gone = server(chat)
    engine = ask(gone, retries=2, concurrency=1)
    gone.close()
    outcomes = engine.attempt([Request("a"), Request("b")])
    assert all("no server answers at" in str(outcome) for outcome in outcomes)
    assert {type(outcome) for outcome in outcomes} == {AccessError}


def test_a_response_that_is_far_too_long_is_not_read(server, ask, monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.engine.endpoints.one_answer.LARGEST_RESPONSE", 5000)
    endless = server(lambda asked: chat("a" * 50_000))
    (error,) = ask(endless).attempt([Request("a")])
    assert str(error) == "the server sent more than 5000 bytes"
    assert len(endless.asked) == 1


def test_a_small_response_that_unpacks_to_a_huge_one_is_not_read(server, ask):
    packed = gzip.compress(json.dumps(chat("a" * 100_000_000)).encode())
    bomb = server(lambda asked: Reply(packed, headers={"content-encoding": "gzip"}))
    (error,) = ask(bomb).attempt([Request("a")])
    assert "the server sent more than" in str(error)
    assert bomb.asked[0].headers["accept-encoding"] == "identity"


def test_a_refusal_to_answer_is_not_asked_again(server, ask):
    asked = server(lambda asked: chat("", "content_filter"))
    (error,) = ask(asked).attempt([Request("hello")])
    assert type(error) is RefusedError
    assert len(asked.asked) == 1
