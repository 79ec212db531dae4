"""A served model's thought is kept apart from its answer, wherever the server puts it."""

import json

import pytest
from loopback import Reply, chat, message

from pytest_llmprobe import GenerateConfig, Request
from pytest_llmprobe.errors import ModelError, UnsupportedError
from pytest_llmprobe.models.registry import ModelSpec

THOUGHT, ANSWER = "Perhaps 41? No, not 43.", "42"
CUT = {"content": None, "reasoning_content": "Perhaps 4"}


def said(content=ANSWER, finish="stop", **fields):
    reply = chat(content, finish)
    reply["choices"][0]["message"] |= fields
    return reply


FORMS = {
    "reasoning_content": said(reasoning_content=THOUGHT),
    "reasoning": said(reasoning=THOUGHT),
    "both names": said(reasoning=THOUGHT, reasoning_content=THOUGHT),
    "ollama": said(thinking=THOUGHT),
    "details": said(reasoning_details=[{"type": "reasoning.text", "text": THOUGHT}]),
    "parts": said(
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
            {"type": "text", "text": ANSWER},
        ]
    ),
    "parts of plain text": said(
        [{"type": "reasoning", "text": THOUGHT}, {"type": "output_text", "text": ANSWER}]
    ),
    "tags": said(f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"),
    "opened by the template": said(f"{THOUGHT}\n</think>\n\n{ANSWER}"),
    "opened, on one line": said(f"{THOUGHT}</think>{ANSWER}"),
    "brackets": said(f"[THINK]{THOUGHT}[/THINK]{ANSWER}"),
    "channels": said(
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{ANSWER}"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_thought_and_the_answer(server, ask, form):
    (completion,) = ask(server(lambda asked: FORMS[form])).generate(["6 * 7?"])
    assert (completion.thought, completion.text) == (THOUGHT, ANSWER)
    assert completion.unanswered is None


@pytest.mark.parametrize("field", [True, False])
def test_ten_megabytes_of_thought(server, ask, field):
    thought = "41? " * 2_500_000 + "No."
    reply = said(reasoning=thought) if field else said(f"<think>{thought}</think>{ANSWER}")
    (completion,) = ask(server(lambda asked: reply)).generate(["6 * 7?"], CONFIG)
    assert (completion.thought, completion.text) == (thought, ANSWER)


@pytest.mark.parametrize(
    "text",
    [
        "The tag <think> opens a thought, and </think> ends it.",
        "It is `</think>`.",
        '{"tag": "<think>hm</think>", "end": "</think>"}',
        "```xml\n<think>\nhm\n</think>\n```",
        "<b>42</b>",
    ],
)
def test_marks_within_an_answer_are_its_own(server, ask, text):
    (completion,) = ask(server(lambda asked: chat(text))).generate(["what does <think> mean?"])
    assert (completion.thought, completion.text) == (None, text)


@pytest.mark.parametrize(
    ("finish", "words"),
    [("length", "cut_off: 2 tokens ended within its thought"), ("stop", "no_answer: ")],
)
def test_a_thought_alone_is_no_answer(server, ask, finish, words):
    engine = ask(server(lambda asked: said(finish=finish, **CUT)), spec={"thinking": "auto"})
    (completion,) = engine.generate(["6 * 7?"])
    assert (completion.thought, completion.text) == ("Perhaps 4", "")
    assert completion.unanswered.startswith(words)


def thinker(tokens):
    """A server whose model needs so many tokens, and which stops wherever it is told to."""

    def answer(asked):
        whole = f"<think>{THOUGHT}</think>{ANSWER} Done."
        places = [at for stop in asked.body.get("stop", ()) if (at := whole.find(stop)) >= 0]
        if places:
            return chat(whole[: min(places)])
        cut = asked.body["max_tokens"] < tokens
        return chat(whole[:20] if cut else whole, "length" if cut else "stop")

    return answer


CONFIG = GenerateConfig(max_new_tokens=8, thinking_tokens=100, stop=("41", " Done"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("thinking", ["on", "auto", None])
def test_stop_strings_and_the_answers_room_count_after_the_thought(server, ask, thinking, stream):
    asked = server(streamed(thinker(50)) if stream else thinker(50))
    engine = ask(asked, spec={"thinking": thinking}, stream=stream)
    (completion,) = engine.generate(["6 * 7?"], CONFIG)
    assert (completion.text, completion.finish_reason) == (ANSWER, "stop_string")
    assert completion.thought == THOUGHT
    # Where nothing is known of thoughts, room is made once one needs it.
    sent = [(one.body["max_tokens"], "stop" in one.body) for one in asked.asked]
    assert sent == [(8, True)] * (thinking is None) + [(108, False)]


def test_a_model_that_does_not_think_is_sent_its_own_room_and_stop_strings(server, ask):
    asked = server(lambda asked: chat("42 D"))
    ask(asked).generate(["6 * 7?"], CONFIG)
    (one,) = asked.asked
    assert (one.body["max_tokens"], one.body["stop"]) == (8, ["41", " Done"])
    assert "chat_template_kwargs" not in one.body


def test_more_room_than_the_server_has_leaves_the_thought_cut_off(server, ask):
    def answer(asked):
        if asked.body["max_tokens"] > 8:
            words = "maximum context length is 100 tokens"
            return Reply({"error": {"message": words}}, 400)
        return said(finish="length", **CUT)

    (completion,) = ask(server(answer)).generate(["6 * 7?"], CONFIG)
    assert completion.unanswered.startswith("cut_off")


def test_the_template_is_told_what_the_user_wants(server, ask):
    asked = server(lambda asked: chat("42"))
    spec = {"thinking": "off", "template": {"enable_thinking": True, "date": "today"}}
    engine = ask(asked, spec=spec)
    engine.generate(["a"])
    given = {"enable_thinking": True, "thinking": False, "date": "today"}
    assert asked.asked[0].body["chat_template_kwargs"] == given
    assert engine.backend.info["template"] == spec["template"]


def test_the_beginning_of_an_answer_is_gone_on_with(server, ask):
    asked = server(lambda asked: chat("42"))
    ask(asked).generate([[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]])
    body = asked.asked[0].body
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_what_openais_own_service_cannot_do_is_refused(monkeypatch):
    from pytest_llmprobe.engine.endpoints.address import check_endpoint
    from pytest_llmprobe.engine.endpoints.connection import connect

    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    for options, words in (({"template": {"x": 1}}, "template x"), ({"thinking": "on"}, "auto")):
        with pytest.raises(ModelError, match=words):
            check_endpoint(ModelSpec("m", "openai:m", **options))
    wire = connect(ModelSpec("m", "openai:m"), 1).wire
    with pytest.raises(UnsupportedError, match="the assistant's"):
        wire.encode([{"role": "assistant", "content": "b"}])


@pytest.mark.parametrize(
    "reason", ["eos", "eos_token", "stop_sequence", "end_turn", "STOP", "", None]
)
def test_reasons_that_mean_the_end(server, ask, reason):
    (completion,) = ask(server(lambda asked: chat("42", reason))).generate(["a"])
    assert completion.finish_reason == "stop"


@pytest.mark.parametrize("reason", ["length", "max_tokens", "model_length", "MAX_TOKENS"])
def test_reasons_that_mean_the_room(server, ask, reason):
    (completion,) = ask(server(lambda asked: chat("42", reason))).generate(["a"])
    assert completion.finish_reason == "length"


def test_a_reason_of_the_servers_own_is_kept_and_told(server, ask):
    engine = ask(server(lambda asked: chat("42", "tool_calls")))
    completions = [*engine.generate(["a", "b"]), *engine.generate(["c"])]
    assert {c.finish_reason for c in completions} == {"tool_calls"}
    assert engine.backend.info["finish_reasons"] == ["tool_calls"]


def streamed(answer):
    """The same answers in events of few characters, so that marks are cut everywhere."""

    def events(asked):
        reply = answer(asked)
        choice = reply["choices"][0]
        text = choice["message"]["content"]
        deltas = [{"content": text[at : at + 3]} for at in range(0, len(text), 3)]
        chunks = [{"choices": [{"delta": delta}]} for delta in deltas]
        chunks.append({"choices": [{"delta": {}, "finish_reason": choice["finish_reason"]}]})
        lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        return Reply(
            (lines + "data: [DONE]\n\n").encode(), 200, {"content-type": "text/event-stream"}
        )

    return events


@pytest.mark.parametrize("form", ["tags", "opened by the template", "brackets", "channels"])
def test_marks_cut_by_a_streams_chunks(server, ask, form):
    (completion,) = ask(server(streamed(lambda asked: FORMS[form])), stream=True).generate(["a"])
    assert (completion.thought, completion.text) == (THOUGHT, ANSWER)


def test_a_thought_that_is_streamed_in_a_field_of_its_own(server, ask):
    deltas = [{"reasoning_content": "Per"}, {"reasoning_content": "haps"}, {"content": ANSWER}]
    chunks = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode()
    reply = Reply(lines + b"data: [DONE]\n\n", 200, {"content-type": "text/event-stream"})
    (completion,) = ask(server(lambda asked: reply), stream=True).generate(["a"])
    assert (completion.thought, completion.text) == ("Perhaps", ANSWER)


def test_anthropics_thoughts_have_a_budget_and_blocks(server, ask, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-none")
    blocks = [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": ANSWER}]
    asked = server(lambda asked: message("", content=blocks))
    engine = ask(asked, "anthropic", spec={"thinking": "on"})
    prompt = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    config = GenerateConfig(max_new_tokens=8, thinking_tokens=2000)
    (completion, _) = engine.generate([Request("a", config), Request(prompt, config)])
    assert (completion.thought, completion.text) == (THOUGHT, ANSWER)
    bodies = {len(one.body["messages"]): one.body for one in asked.asked}
    assert bodies[1]["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert bodies[1]["max_tokens"] == 2008
    assert bodies[2]["messages"] == prompt
