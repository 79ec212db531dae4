"""Rows of the table: settings that a server refuses, texts that it does not score, Anthropic's."""

from behaviours import STREAMED, WHOLE, Behaviour, always, error, first, refuses
from loopback import Reply, chat
from loopback import message as said

SAMPLED = {"temperature": 0.7}


def several(number, asked):
    """As OpenAI's newest models."""
    for name, words in (
        ("temperature", "Unsupported value: 'temperature' does not support 0 with this model"),
        ("max_tokens", "'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
    ):
        if name in asked.body:
            return error(words, param=name)
    return chat("42")


def too_many_stops(number, asked):
    words = "Invalid 'stop': array too long. Expected an array with maximum length 4"
    return error(words) if len(asked.body.get("stop", ())) > 4 else chat("42 a5 and more")


LEARNED: dict[str, Behaviour] = {
    "no temperature": Behaviour(
        refuses(
            "temperature",
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default "
            "(1) value is supported.",
            param="temperature",
        ),
        11,
        cases=10,
        info={"adapted": "left out .answers are sampled.*does not support 0"},
    ),
    "a temperature above 0": Behaviour(
        refuses(
            "temperature",
            "`temperature` must be strictly positive",
            422,
            lambda body: body["temperature"] == 0,
        ),
        11,
        cases=10,
        info={"adapted": "0.001 in place of 0"},
    ),
    "a temperature above 0, and none at all": Behaviour(
        refuses("temperature", "temperature: must be greater than 0, or not supported", 422),
        3,
        info={"adapted": "left out"},
    ),
    "max_completion_tokens": Behaviour(
        refuses(
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            param="max_tokens",
        ),
        11,
        cases=10,
        info={"adapted": "sent as max_completion_tokens"},
    ),
    "two settings": Behaviour(
        several, 12, cases=10, info={"adapted": "max_completion_tokens.*left out"}
    ),
    "no seed": Behaviour(
        refuses("seed", "Extra inputs are not permitted: seed"),
        6,
        cases=5,
        config=SAMPLED,
        info={"adapted": "cannot be had again"},
    ),
    "no seed, told as a path": Behaviour(
        lambda number, asked: (
            Reply({"detail": [{"loc": ["body", "seed"], "msg": "extra fields not permitted"}]}, 422)
            if "seed" in asked.body
            else chat("42")
        ),
        6,
        cases=5,
        config=SAMPLED,
        info={"adapted": "seed"},
    ),
    "no seed, with 501": Behaviour(
        refuses("seed", "seed is not implemented", 501), 2, config=SAMPLED, info={"adapted": "seed"}
    ),
    "no stop strings": Behaviour(
        lambda number, asked: error("stop is not supported") if number == 0 else chat("42 a1 b"),
        2,
        "42 ",
        config={"stop": ("a1",)},
        finish="stop_string",
        info={"adapted": "answers are cut here"},
    ),
    "four stop strings at most": Behaviour(
        too_many_stops,
        2,
        "42 ",
        config={"stop": tuple(f"a{n}" for n in range(6))},
        finish="stop_string",
    ),
    "no stream_options": Behaviour(
        lambda number, asked: (
            error("Unknown parameter: 'stream_options'")
            if "stream_options" in asked.body
            else WHOLE
        ),
        2,
        how=STREAMED,
        info={"adapted": "no token counts"},
    ),
    "no other temperature": Behaviour(
        refuses("temperature", "'temperature' does not support 0.7", param="temperature"),
        1,
        "UnsupportedError",
        "refuses temperature=0.7",
        cases=5,
        config=SAMPLED,
    ),
    "no top_k": Behaviour(
        refuses("top_k", "Unrecognized request argument supplied: top_k"),
        1,
        "UnsupportedError",
        "refuses top_k=5",
        cases=5,
        config=SAMPLED | {"top_k": 5},
    ),
    "no top_p": Behaviour(
        refuses("top_p", "top_p is not supported"),
        1,
        "UnsupportedError",
        "refuses top_p=0.5",
        cases=5,
        config=SAMPLED | {"top_p": 0.5},
    ),
    "max_tokens that are too many": Behaviour(
        refuses("max_tokens", "max_tokens is too large: 64. This model supports at most 16"),
        1,
        "ServerError",
        "supports at most 16",
    ),
    "a refusal of nothing that was sent": Behaviour(
        always(error("Unknown parameter: 'logit_bias'")), 1, "ServerError", "logit_bias"
    ),
    "an ordinary word that is a setting's name": Behaviour(
        always(error("please stop")), 1, "ServerError", "please stop", config={"stop": ("x",)}
    ),
    "a setting that is refused when it is not sent": Behaviour(
        always(error("'temperature' is not supported", param="temperature")),
        2,
        "ServerError",
        "is not supported",
    ),
    "chat_template_kwargs": Behaviour(
        refuses("chat_template_kwargs", "Unknown name chat_template_kwargs"),
        3,
        "OutageError",
        "chat_template_kwargs",
        cases=9,
        how={"spec": {"thinking": "off"}},
    ),
    "usage that is missing": Behaviour(always(chat("42", usage=None)), 1),
    "usage that is nonsense": Behaviour(
        always(chat("42", usage={"prompt_tokens": -3, "completion_tokens": "many"})), 1
    ),
    "a served model without a name": Behaviour(always(chat("42", model=None)), 1),
    "fields that nobody knows": Behaviour(always(chat("42", service_tier="x", x={"y": 1})), 1),
    "half a surrogate": Behaviour(always(chat("42 \ud83d")), 1, "42 ?"),
    "a leading space": Behaviour(always(chat(" 42")), 1, " 42"),
    "an answer after a thought is cut by a stop string": Behaviour(
        always(chat("<think>a1</think>42 a1")),
        1,
        "42 ",
        config={"stop": ("a1",)},
        finish="stop_string",
    ),
}

NO_ECHO = "repeats no prompt with log-probabilities"

ECHO: dict[str, Behaviour] = {
    f"no echo, with {status}": Behaviour(
        always(error("echo is not supported", status)), 1, "UnsupportedError", NO_ECHO, cases=5
    )
    for status in (400, 404, 405, 422, 500, 501)
} | {
    "echo is ignored": Behaviour(always(chat("42")), 3, "UnsupportedError", NO_ECHO, cases=3),
    "a wrong key for a text": Behaviour(
        always(error("key", 401)), 1, "AccessError", "refuses the key", cases=5
    ),
    "busy once for a text": Behaviour(
        first(error("busy", 503), then=error("no echo")), 2, "UnsupportedError", NO_ECHO, cases=3
    ),
}


def failed(kind, status, words="so"):
    return Reply({"type": "error", "error": {"type": kind, "message": words}}, status)


ANTHROPIC: dict[str, Behaviour] = {
    "all well": Behaviour(always(said("42")), 1),
    "stop_sequence": Behaviour(always(said("42", "stop_sequence")), 1, finish="stop_string"),
    "max_tokens": Behaviour(always(said("42", "max_tokens")), 1, finish="length"),
    "tool_use": Behaviour(
        always(said("42", "tool_use")), 1, finish="tool_use", info={"finish_reasons": ["tool_use"]}
    ),
    "refusal": Behaviour(always(said("", "refusal")), 1, "RefusedError", "refused"),
    "the window's end": Behaviour(
        always(said("4", "model_context_window_exceeded")), 1, "PromptTooLongError"
    ),
    "no content": Behaviour(always({"type": "message"}), 1, "ServerError", "no content"),
    "overloaded once": Behaviour(first(failed("overloaded_error", 529), then=said("42")), 2),
    "overloaded within a 200": Behaviour(
        first(failed("overloaded_error", 200), then=said("42")), 2
    ),
    "a wrong key": Behaviour(always(failed("authentication_error", 401)), 1, "AccessError"),
    "a wrong key within a 200": Behaviour(
        always(failed("authentication_error", 200)), 1, "AccessError", "refuses the key"
    ),
    "a limit for a day": Behaviour(
        always(Reply(failed("rate_limit_error", 429).body, 429, {"retry-after": "86400"})),
        1,
        "OutageError",
        "86400 s",
        cases=5,
    ),
    "too long": Behaviour(
        always(failed("invalid_request_error", 400, "prompt is too long: 9 tokens > 8")),
        1,
        "PromptTooLongError",
    ),
    "bad for all": Behaviour(
        always(failed("invalid_request_error", 400)), 3, "OutageError", "so", cases=9
    ),
    "no usage": Behaviour(always(said("42", usage=None)), 1),
    "no stop sequences": Behaviour(
        refuses("stop_sequences", "stop_sequences is not supported"),
        2,
        "ServerError",
        config={"stop": ("x",)},
    ),
}
