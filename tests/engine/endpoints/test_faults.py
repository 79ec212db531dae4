"""A proxy that does harm: no case is lost, doubled or mixed up, and the run ends."""

import pytest
from loopback import FaultProxy, chat

from pytest_llmprobe import Completion, Request
from pytest_llmprobe.errors import ServerError

FAULTS = ("reset", "429", "500", "truncated", "stall", "wrong JSON", "twice")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.engine.endpoints.attempts.FIRST_PAUSE_S", 0.01)


def echo(asked):
    return chat(asked.prompt.upper())


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_costs_a_case_one_more_request_and_nothing_else(server, ask, fault):
    def first_time(asked, attempt):
        return fault if attempt == 0 and int(asked.prompt[1:]) % 3 == 0 else None

    proxy = server(server(echo), kind=FaultProxy, fault=first_time)
    engine = ask(proxy, timeout_s=0.4, concurrency=3)
    prompts = [f"p{number:02}" for number in range(18)]
    completions = engine.generate(prompts)
    assert [c.text for c in completions] == [p.upper() for p in prompts]
    again = 1 if fault == "twice" else 2  # a repeated answer is no reason to ask again
    assert proxy.attempts == {p: again if int(p[1:]) % 3 == 0 else 1 for p in prompts}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_the_error_of_its_case_alone(server, ask, fault):
    def always(asked, attempt):
        return fault if asked.prompt == "p1" else None

    proxy = server(server(echo), kind=FaultProxy, fault=always)
    engine = ask(proxy, timeout_s=0.3, retries=2, concurrency=2)
    outcomes = engine.attempt([Request(f"p{number}") for number in range(6)])
    others = outcomes[:1] + outcomes[2:]
    assert [o.text for o in others] == ["P0", "P2", "P3", "P4", "P5"]
    if fault == "twice":
        assert outcomes[1].text == "P1"
    else:
        assert isinstance(outcomes[1], ServerError)
        assert proxy.attempts["p1"] == (2 if fault == "stall" else 3)  # it takes as long again


def test_all_faults_at_once(server, ask):
    """Every case meets another mixture; each gets its own answer or an error of its own."""

    def mixture(asked, attempt):
        number = int(asked.prompt[1:])
        return FAULTS[(number + attempt) % len(FAULTS)] if attempt < number % 5 else None

    proxy = server(server(echo), kind=FaultProxy, fault=mixture)
    engine = ask(proxy, timeout_s=0.4, retries=3, concurrency=8)
    prompts = [f"p{number:02}" for number in range(40)]
    outcomes = engine.attempt([Request(p) for p in prompts])
    assert len(outcomes) == 40
    for prompt, outcome in zip(prompts, outcomes, strict=True):
        if isinstance(outcome, Completion):
            assert outcome.text == prompt.upper()
        else:
            assert isinstance(outcome, ServerError)
        assert 1 <= proxy.attempts[prompt] <= 4
    assert sum(isinstance(outcome, Completion) for outcome in outcomes) >= 32
