"""What servers do, each with what it costs and what it means: the table of test_behaviours.py.

A row's server gets the number of the request from 0 on, over all of its requests, and what was
asked; it answers with a Reply, the JSON of one, or with bytes, after which it hangs up.
"""

import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, NamedTuple

from loopback import Reply, chat, raw


class Behaviour(NamedTuple):
    """A row: how a server answers, requests that arrive, what becomes of the cases, in which words.

    ``outcome`` is the answer's text, or the name of the error's type; of all cases, or one each.
    """

    answer: Callable[[int, Any], Any]
    requests: int
    outcome: str | tuple[str, ...] = "42"
    words: str = ""
    cases: int = 1
    finish: str = "stop"
    config: dict = {}
    how: dict = {}
    info: dict = {}


def always(reply):
    return lambda number, asked: reply


def first(*replies, then=None):
    """These in order, then the last one or an answer for good."""
    return lambda number, asked: replies[number] if number < len(replies) else then or chat("42")


def error(message="no", status=400, headers=None, **more):
    return Reply({"error": {"message": message} | more}, status, headers or {})


def refuses(name, message, status=400, when=lambda body: True, **more):
    """A server that does not take a setting."""

    def answer(number, asked):
        if name in asked.body and when(asked.body):
            return error(message, status, **more)
        return chat("42")

    return answer


def message(content, **more):
    reply = chat("")
    reply["choices"][0]["message"] = {"role": "assistant", "content": content} | more
    return reply


def stream(*events, end=b"data: [DONE]\n\n"):
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + end
    return Reply(body, headers={"content-type": "text/event-stream"})


def delta(text, **more):
    return {"choices": [{"delta": {"content": text}} | more], "model": "served"}


DONE = delta("2", finish_reason="stop")
WHOLE = stream(delta("4"), DONE)
STREAMED = {"stream": True}
CUT = raw(Reply(chat("42")))[:-9]
LATE = {"timeout_s": 0.15}


def slow(*late, text="42"):
    """The requests of these numbers are answered too late; without numbers, all of them."""

    def answer(number, asked):
        if not late or number in late:
            time.sleep(0.4)
        return chat(text)

    return answer


PASSING = {
    status: Behaviour(first(error("busy", status)), 2)
    for status in (408, 409, 425, 429, 500, 502, 503, 504, 520, 529)
}
LASTING = {
    status: Behaviour(always(error("so", status)), 1, kind, words)
    for status, kind, words in (
        (400, "ServerError", "answers 400: so"),
        (401, "AccessError", "refuses the key"),
        (402, "AccessError", "check its plan"),
        (403, "AccessError", "check its plan"),
        (404, "AccessError", "ends in /v1"),
        (405, "AccessError", "ends in /v1"),
        (407, "AccessError", "asks for a password"),
        (413, "PromptTooLongError", "smaller cases"),
        (418, "ServerError", "answers 418: so"),
        (422, "ServerError", "answers 422: so"),
        (501, "ServerError", "answers 501: so"),
        (505, "ServerError", "answers 505: so"),
    )
}
REASONS = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_token", "end_turn", "STOP"), "stop"),
    **dict.fromkeys(("stop_sequence", "", None), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens"), "length"),
    **dict.fromkeys(("model_length", "MAX_TOKENS"), "length"),
    **{word: word for word in ("tool_calls", "function_call", "flagged")},
    "a" * 90: "a" * 40,
}
OWN = ("tool_calls", "function_call", "flagged", "a" * 90)

TABLE: dict[str, Behaviour] = {
    "all well": Behaviour(always(chat("42")), 1),
    **{f"status {status} once": row for status, row in PASSING.items()},
    **{f"status {status}": row for status, row in LASTING.items()},
    **{
        f"finish reason {reason!r}": Behaviour(
            always(chat("42", reason)),
            1,
            finish=finish,
            info={"finish_reasons": [finish]} if reason in OWN else {},
        )
        for reason, finish in REASONS.items()
    },
    # Waiting.
    "503 loading twice": Behaviour(first(*[error("Loading model", 503)] * 2), 3),
    "503 for good": Behaviour(always(Reply(b"oops", 503)), 5, "ServerError", "503: oops"),
    "429 for good": Behaviour(always(error("slow down", 429)), 5, "ServerError", "429: slow"),
    "429 retry-after": Behaviour(first(error("b", 429, {"retry-after": "0.02"})), 2),
    "429 retry-after-ms": Behaviour(first(error("b", 429, {"retry-after-ms": "20"})), 2),
    "429 retry-after a past date": Behaviour(
        first(error("b", 429, {"retry-after": formatdate(time.time() - 60)})), 2
    ),
    "429 retry-after no number": Behaviour(first(error("b", 429, {"retry-after": "soon"})), 2),
    "429 retry-after an hour": Behaviour(
        always(error("daily limit", 429, {"retry-after": "3600"})),
        1,
        "OutageError",
        r"429: daily limit \(it asks to wait 3600 s.*the run stops",
        cases=9,
    ),
    "503 retry-after two hours": Behaviour(
        always(error("down", 503, {"retry-after": "7200"})), 1, "OutageError", "7200 s", cases=9
    ),
    "429 without quota": Behaviour(
        always(error("pay", 429, code="insufficient_quota")), 1, "AccessError", "check its plan"
    ),
    # Failing for all.
    "400 for all": Behaviour(
        always(error("bad model")), 3, "OutageError", "3 requests in a row", cases=20
    ),
    "400 for all with an id each": Behaviour(
        lambda number, asked: error(f"bad request req_{number}7ab"), 3, "OutageError", cases=20
    ),
    "400 with other words each": Behaviour(
        lambda number, asked: error("no " + "abcdefgh"[number]), 8, "ServerError", cases=8
    ),
    "500 for all": Behaviour(always(error("oops", 500)), 7, "OutageError", "oops", cases=20),
    "401 for all": Behaviour(always(error("key", 401)), 1, "AccessError", "key", cases=20),
    "404 for all": Behaviour(always(error("no model", 404)), 1, "AccessError", "model", cases=20),
    "reset for all": Behaviour(always(b""), 7, "OutageError", "closed the connection", cases=20),
    "hangs for all": Behaviour(
        slow(), 2, "OutageError", "not answered in 0.15 s.*the run stops", cases=20, how=LATE
    ),
    "no answer of the protocol for all": Behaviour(
        always({"hello": 1}), 3, "OutageError", "holds no choices", cases=20
    ),
    "400 for all after an answer": Behaviour(
        first(chat("42"), then=error("unloaded")),
        17,
        ("42", *["OutageError"] * 39),
        "unloaded.*since the last answer",
        cases=40,
    ),
    "500 for all after an answer": Behaviour(
        first(chat("42"), then=error("crashed", 500)),
        8,
        ("42", *["OutageError"] * 39),
        "crashed.*since the last answer",
        cases=40,
    ),
    "one case is poison": Behaviour(
        lambda number, asked: error("oops", 500) if "07" in asked.prompt else chat("42"),
        24,
        (*["42"] * 7, "ServerError", *["42"] * 12),
        "500: oops",
        cases=20,
    ),
    "prompts that are too long are each one's own": Behaviour(
        always(error("maximum context length is 8 tokens")), 6, "PromptTooLongError", cases=6
    ),
    "a filter is each one's own": Behaviour(
        always(chat("", "content_filter")), 6, "RefusedError", "withheld", cases=6
    ),
    # Lost and late.
    "reset once": Behaviour(first(b""), 2),
    "hangs up in the body": Behaviour(first(CUT), 2),
    "hangs up in the body for good": Behaviour(always(CUT), 5, "ServerError", "closed the conn"),
    "hangs up in the head": Behaviour(first(b"HTTP/1.1 200 OK\r\ncontent-le"), 2),
    "speaks no HTTP": Behaviour(first(b"SSH-2.0-OpenSSH_9.2\r\n"), 2),
    "announces more than it sends": Behaviour(
        first(raw(Reply(chat("42"))).replace(b"content-length: ", b"content-length: 9")), 2
    ),
    "broken chunks": Behaviour(
        first(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n"), 2
    ),
    "late once": Behaviour(slow(0), 2, how=LATE),
    "late twice": Behaviour(slow(0, 1), 2, "OutageError", "--llmprobe-timeout", how=LATE),
    "late for one case": Behaviour(
        lambda number, asked: slow()(0, 0) if "p03" in asked.prompt else chat("42"),
        7,
        (*["42"] * 3, "ServerError", "42", "42"),
        "see --llmprobe-timeout",
        cases=6,
        how=LATE,
    ),
    # What is no answer.
    "no JSON once": Behaviour(first(Reply(b"<html>")), 2),
    "no JSON for good": Behaviour(always(Reply(b"<html>")), 5, "ServerError", "no JSON object"),
    "an empty body": Behaviour(first(Reply(b"")), 2),
    "a JSON list": Behaviour(first(Reply([])), 2),
    "JSON null": Behaviour(first(Reply(b"null")), 2),
    "JSON that breaks off": Behaviour(first(Reply(b'{"choices": [')), 2),
    "no UTF-8": Behaviour(first(Reply(b"\xff\xfe")), 2),
    "no choices": Behaviour(always({"choices": []}), 1, "ServerError", "no choices"),
    "choices that are none": Behaviour(always({"choices": "42"}), 1, "ServerError", "no choices"),
    "two choices": Behaviour(
        always({"choices": chat("42")["choices"] * 2}), 1, "ServerError", "sent 2 answers"
    ),
    "a text without a message": Behaviour(
        always({"choices": [{"text": "42", "finish_reason": "stop"}]}), 1
    ),
    "a number for a text": Behaviour(always(message(42)), 1, "ServerError", "int where text"),
    "numbers for parts": Behaviour(always(message([4, 2])), 1, "ServerError", "among its parts"),
    "nothing and no reason": Behaviour(
        always(chat(None, None)), 1, "ServerError", "without a text"
    ),
    "far too long": Behaviour(always(chat("4" * 70_000)), 1, "ServerError", "70000 characters"),
    "a refusal": Behaviour(always(message("", refusal="no")), 1, "RefusedError"),
    "an empty refusal": Behaviour(always(message("42", refusal="")), 1),
    # Errors where an answer is due.
    "200 with an error once": Behaviour(
        first({"error": {"message": "Provider returned error", "code": 502}}), 2
    ),
    "200 with an error for good": Behaviour(
        always({"error": {"message": "Provider returned error", "code": 502}}),
        5,
        "ServerError",
        "answers 502 within an answer: Provider returned error",
    ),
    "200 with an error in words": Behaviour(first({"error": "out of memory"}), 2),
    "200 with a wrong key": Behaviour(
        always({"error": {"message": "key", "code": "invalid_api_key"}}), 1, "AccessError", "key"
    ),
    "200 with too long a prompt": Behaviour(
        always({"error": {"message": "context window exceeded"}}), 1, "PromptTooLongError"
    ),
    "200 with an error object": Behaviour(first({"object": "error", "message": "x"}), 2),
    "an error in the choice": Behaviour(
        first({"choices": [{"error": {"message": "x", "code": 502}, "finish_reason": "error"}]}), 2
    ),
    "the reason error": Behaviour(first(chat("4", "error")), 2),
    "the reason abort": Behaviour(first(chat("4", "abort")), 2),
}
