"""Log-probabilities of texts from a server that repeats them, as vLLM does."""

import pytest
from loopback import SENTINEL

from pytest_llmprobe import RawPrompt, Request
from pytest_llmprobe.errors import (
    InvalidLogitsError,
    NotInProcessError,
    UnsupportedError,
)


def echo(values, prompt_tokens=3):
    choice = {"text": "Once upon", "finish_reason": "length"}
    if values is not None:
        choice["logprobs"] = {"tokens": ["?"] * len(values), "token_logprobs": values}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 1}
    return {"choices": [choice], "usage": usage}


def test_the_tokens_of_the_text_are_measured_and_the_generated_one_is_not(server, ask):
    asked = server(lambda asked: echo([None, -1.5, -0.25, -9.0]))
    (text,) = ask(asked).backend.log_probabilities([RawPrompt("Once upon")])
    assert text.log_probability.tolist() == [-1.5, -0.25]
    body = asked.asked[0].body
    assert (asked.asked[0].path, body["prompt"]) == ("/v1/completions", "Once upon")
    assert (body["echo"], body["logprobs"], body["max_tokens"]) == (True, 1, 1)
    with pytest.raises(NotInProcessError, match=r"min-k %\+\+"):
        _ = text.mean


@pytest.mark.parametrize("values", [None, [-1.5]])
def test_a_server_that_ignores_the_request_is_told_of(server, ask, values):
    asked = server(lambda asked: echo(values))
    (error,) = ask(asked).backend.log_probabilities([RawPrompt("Once upon")])
    assert isinstance(error, UnsupportedError)
    assert "load the model in this process" in str(error)
    assert len(asked.asked) == 1


@pytest.mark.parametrize("value", ["much", None, float("inf")])
def test_a_log_probability_that_is_no_number_is_an_error(server, ask, value):
    asked = server(lambda asked: echo([None, value, -1.0, -1.0]))
    (error,) = ask(asked).backend.log_probabilities([RawPrompt("Once upon")])
    assert isinstance(error, InvalidLogitsError)


def test_anthropic_has_no_log_probabilities(server, ask, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", SENTINEL)
    with pytest.raises(NotInProcessError):
        ask(server(echo), "anthropic").backend.log_probabilities([RawPrompt("Once")])


def scored(asked):
    """As vLLM: the prompt's tokens (words here), then a generated one."""
    text = asked.body["prompt"]
    tokens = [word if n == 0 else f" {word}" for n, word in enumerate(text.split(" "))]
    values = [None, *(-float(len(token)) for token in tokens[1:]), -9.0]
    tops = [None, *({" Paris": -2.0, token: -float(len(token))} for token in tokens[1:]), {}]
    sent = {"tokens": [*tokens, "?"], "token_logprobs": values, "top_logprobs": tops}
    usage = {"prompt_tokens": len(tokens), "completion_tokens": 1}
    return {
        "choices": [{"text": text, "finish_reason": "length", "logprobs": sent}],
        "usage": usage,
    }


def test_what_follows_a_raw_text_is_scored(server, ask):
    asked = server(scored)
    requests = [
        Request(RawPrompt("The capital is"), continuation=text) for text in (" of", " Rome now")
    ]
    short, long = ask(asked).generate(requests)
    assert (short.log_likelihood, long.log_likelihood) == (-3, -9)
    assert (short.most_likely, short.text, short.usage.prompt_tokens) == (False, " of", 4)
    assert {request.body["prompt"] for request in asked.asked} == {
        "The capital is of",
        "The capital is Rome now",
    }
    assert all(request.body["echo"] for request in asked.asked)


@pytest.mark.parametrize("prompt", ["a chat message", RawPrompt("")])
def test_what_a_server_cannot_score_says_why(server, ask, prompt):
    (error,) = ask(server(scored)).attempt([Request(prompt, continuation=" x")])
    assert isinstance(error, UnsupportedError)


@pytest.mark.parametrize(
    "answer", [echo(None), echo([-1.0]), {"choices": [], "usage": None}, echo([None, -1.0, -2.0])]
)
def test_a_server_that_scores_nothing_is_unsupported(server, ask, answer):
    (error,) = ask(server(lambda asked: answer)).attempt(
        [Request(RawPrompt("Once"), continuation=" upon")]
    )
    assert isinstance(error, UnsupportedError)
    assert "in this process" in str(error)
