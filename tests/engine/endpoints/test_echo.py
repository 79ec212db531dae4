"""Log-probabilities of texts from a server that repeats them, as vLLM does."""

import pytest
from loopback import SENTINEL

from pytest_llmprobe import RawPrompt
from pytest_llmprobe.errors import InvalidLogitsError, NotInProcessError, ServerError


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
    assert isinstance(error, ServerError)
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
