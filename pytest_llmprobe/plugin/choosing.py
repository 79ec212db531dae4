"""Behind ``choice`` and ``text_likelihood``: how likely given texts are, a work unit at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_llmprobe.case import Case, RawPrompt
from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.experiments.standard.choices import (
    Choice,
    choice_of,
    joined,
    requests_of,
)
from pytest_llmprobe.experiments.standard.perplexity import TextLikelihood
from pytest_llmprobe.generation import Completion, Request, Usage
from pytest_llmprobe.plugin.asking import stopping, trace_of
from pytest_llmprobe.plugin.collection import PROBE, case_of
from pytest_llmprobe.plugin.run import Run

if TYPE_CHECKING:
    import pytest

    from pytest_llmprobe.engine import Engine


def choose(run: Run, item: pytest.Function, engine: Engine) -> Choice:
    """The model's choice in a test's case; its metrics become scores of the record.

    Raises:
        CasesError: The case has no choices.
        RequestError: A choice cannot be scored.
        SettingsError: The test has no case.
    """
    chats = not run.options.suite.continues
    case, answers = _answers(run, item, engine, lambda case: requests_of(case, chats))
    found = choice_of(case, answers)
    said = answers[case.choices.index(found.said)]
    _keep(item, replace(said, text=found.said), answers, case)
    trace = trace_of(item)
    for name, value in found.scores.items():
        trace.score(name, value)
    trace.details["log_likelihoods"] = list(found.log_likelihoods)
    run.answered(engine)
    return found


def measure_text(run: Run, item: pytest.Function, engine: Engine) -> TextLikelihood:
    """How likely the model finds a case's prompt, or its target after the prompt.

    Raises:
        RequestError: The text cannot be scored.
        SettingsError: The test has no case, or its prompt is no raw text.
    """
    case, (answer,) = _answers(run, item, engine, lambda case: [_measured(case)])
    assert answer.log_likelihood is not None
    _keep(item, replace(answer, text=""), [answer], case)
    measured = _measured(case).continuation
    assert measured is not None
    found = TextLikelihood.of(
        measured, answer.log_likelihood, len(answer.token_ids), answer.most_likely
    )
    trace = trace_of(item)
    for name, value in found.scores.items():
        trace.score(name, value)
    run.answered(engine)
    return found


def _measured(case: Case) -> Request:
    if not isinstance(case.prompt, RawPrompt) or not case.prompt.text:
        raise SettingsError(
            f"case {case.id!r}: `text_likelihood` measures a text: give the prompt as "
            "RawPrompt(text)"
        )
    if case.target is None:
        return Request(RawPrompt(""), continuation=case.prompt.text)
    if not isinstance(case.target, str) or not case.target:
        raise SettingsError(f"case {case.id!r}: its target {case.target!r} is no text to measure")
    return Request(case.prompt, continuation=joined(case.prompt.text, case.target))


def _answers(
    run: Run, item: pytest.Function, engine: Engine, asked: Callable[[Case], list[Request]]
) -> tuple[Case, list[Completion]]:
    case = case_of(item)
    if PROBE not in item.stash or case is None:
        raise SettingsError(
            "`choice` and `text_likelihood` need @pytest.mark.probe(cases=...) and `case`"
        )
    requests = asked(case)
    if item.nodeid not in run.scored:
        run.scored = {}  # those of the last unit are let go
        run.scored = _score_unit(run, item, run.recorded(engine), asked)
    answers = run.scored[item.nodeid]
    with stopping(item):
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
    found = [answer for answer in answers if isinstance(answer, Completion)]
    assert len(found) == len(requests)
    return case, found


def _score_unit(
    run: Run, item: pytest.Function, engine: Engine, asked: Callable[[Case], list[Request]]
) -> dict[str, Sequence[Completion | Exception]]:
    """All requests of the unit together: what their prompts share is computed once."""
    unit = run.unit(item)
    requests: dict[str, list[Request]] = {}
    for member in unit:
        case = case_of(member)
        assert case is not None
        requests[member.nodeid] = asked(case)
    together = [request for each in requests.values() for request in each]
    outcomes: Sequence[Completion | Exception]
    with run.progress.unit(item.stash[PROBE].experiment) as on_progress:
        try:
            outcomes = engine.attempt(together, on_progress)
        except Exception as error:  # kept, so that each test of the unit shows it
            outcomes = [error] * len(together)
    found: dict[str, Sequence[Completion | Exception]] = {}
    at = 0
    for name, each in requests.items():
        found[name] = outcomes[at : at + len(each)]
        at += len(each)
    return found


def _keep(
    item: pytest.Function, received: Completion, answers: Sequence[Completion], case: Case
) -> None:
    """Keep one answer for all: their prompt is one, and nothing was generated."""
    seconds = sum(answer.timings.generation_s for answer in answers)
    timings = replace(received.timings, generation_s=seconds)
    usage = Usage(received.usage.prompt_tokens, 0)
    recorded = all(answer.recorded for answer in answers)
    one = replace(received, usage=usage, timings=timings, recorded=recorded)
    trace_of(item).keep([Request(case.prompt)], [one])
