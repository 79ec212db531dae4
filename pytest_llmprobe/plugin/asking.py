"""Behind ``completion`` and ``generate``: one generation a work unit, and a trace of every test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.case import Prompt, RawPrompt, prompt_text
from pytest_llmprobe.errors import (
    AccessError,
    BudgetError,
    ModelError,
    SettingsError,
    StorageError,
    UnsupportedError,
)
from pytest_llmprobe.generation import Completion, GenerateConfig, Request
from pytest_llmprobe.plugin.ahead import AHEAD, Answered, Asked
from pytest_llmprobe.plugin.collection import PROBE, case_of, request_of, steer_of
from pytest_llmprobe.plugin.ending import end_run
from pytest_llmprobe.plugin.engines import skip_incapable
from pytest_llmprobe.plugin.run import Run
from pytest_llmprobe.report.prompt_file import keep_prompts
from pytest_llmprobe.suite import seed_of

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.engine.meter import OnProgress


@dataclass
class Trace:
    """What happened in one test.

    Args:
        completions: Every answer that the test received, in order.
        ends: The last answer was to come to an end of its own: it does not go on with a raw text.
        prompt_characters: Length of their prompts together.
        scores: Every measurement by name.
        miss: The explanation of a failed assertion, if there was one.
        details: What a fixture found, for the record's params; JSON types.
        not_asked: The budget is spent: the run goes no further, and a later one may ask.
    """

    completions: list[Completion] = field(default_factory=list)
    ends: bool = False
    prompt_characters: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    miss: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    not_asked: bool = False

    def score(self, name: str, value: float) -> None:
        """Record a measurement; numpy scalars and booleans become floats.

        Raises:
            ValueError: The name was scored before, or the value is not finite.
        """
        if name in self.scores:
            raise ValueError(f"score {name!r} was given twice in one test")
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"score {name!r} is {number}; give a finite number")
        self.scores[name] = number

    @property
    def cut_off(self) -> bool:
        """Whether the last answer had no room to come to its end."""
        return self.ends and self.completions[-1].finish_reason == "length"

    def keep(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Keep answers and what was asked for them."""
        self.completions.extend(completions)
        self.prompt_characters += sum(len(prompt_text(request.prompt)) for request in requests)
        for request in requests[-1:]:
            self.ends = not isinstance(request.prompt, RawPrompt) or bool(request.config.stop)


TRACE = pytest.StashKey[Trace]()


def trace_of(item: pytest.Item) -> Trace:
    """The trace of a test, empty at first."""
    return item.stash.setdefault(TRACE, Trace())


def answer_case(run: Run, item: pytest.Function, engine: Engine) -> Completion:
    """The model's answer to a test's case; the test is skipped if it cannot be asked for.

    Raises:
        RequestError: The case cannot be answered.
        SettingsError: The test has no case.
    """
    case = case_of(item)
    if PROBE not in item.stash or case is None:
        raise SettingsError("`completion` needs @pytest.mark.probe(cases=...) and `case`")
    if item.nodeid not in run.answers:
        run.answers = {}  # those of the last unit are let go before the next one is generated
        with stopping(item):
            run.answers = _generate_unit(run, item, run.recorded(engine))
    answer = run.answers[item.nodeid]
    with stopping(item, run.answers):
        if isinstance(answer, Exception):
            raise answer
    trace_of(item).keep([request_of(item, run.options)], [answer])
    run.answered(engine)
    return answer


def answer_at_delta_0(run: Run, item: pytest.Function) -> Completion | None:
    """What the case of a steered test was answered without steering: it is of the same unit."""
    case = case_of(item)
    if case is None or not case.metadata.get("delta"):
        return None
    before, _, after = item.nodeid.rpartition(case.id)
    name = f"{case.id.rpartition('-delta-')[0]}-delta-0"
    answer = run.answers.get(f"{before}{name}{after}")
    return answer if isinstance(answer, Completion) else None


def _generate_unit(
    run: Run, item: pytest.Function, engine: Engine
) -> dict[str, Completion | Exception]:
    unit = run.unit(item)
    outcomes: Sequence[Completion | Exception]
    with run.progress.unit(item.stash[PROBE].experiment) as on_progress:
        try:
            asked = run.ahead.pop(unit[0].nodeid, None)
            if run.asks_ahead:
                asked = asked or _ask_ahead(run, unit, engine)
                _ask_next(run, item, engine)
            if asked is None:
                outcomes = _ask_together(run, item, engine, on_progress)
            else:
                outcomes = asked.outcomes(on_progress)
            run.fidelity.look_at(engine, [m.nodeid for m in unit], _requests(run, unit), outcomes)
        except Exception as error:  # kept, so that each test of the unit shows it
            outcomes = [error] * len(unit)
    return {member.nodeid: outcome for member, outcome in zip(unit, outcomes, strict=True)}


def _requests(run: Run, unit: Sequence[pytest.Function]) -> list[Request]:
    return [request_of(member, run.options) for member in unit]


def _keep_prompts(run: Run, unit: Sequence[pytest.Function]) -> list[Request]:
    requests = _requests(run, unit)
    asked = zip((member.nodeid for member in unit), requests, strict=True)
    keep_prompts(run.folder.prompts, ((name, request.prompt) for name, request in asked))
    return requests


def _ask_ahead(run: Run, unit: Sequence[pytest.Function], engine: Engine) -> Asked:
    """Ask a server for a unit."""
    return Asked(engine, _keep_prompts(run, unit))


def _ask_next(run: Run, item: pytest.Function, engine: Engine) -> None:
    """Ask a server for the next units, too, if nothing but their turn keeps them from it."""
    for unit in run.next_units(item, AHEAD):
        if _is_sure(unit) and unit[0].nodeid not in run.ahead:
            run.ahead[unit[0].nodeid] = _ask_ahead(run, unit, engine)


def _is_sure(unit: Sequence[pytest.Function]) -> bool:
    """Whether nothing but their turn keeps the tests of a unit from asking for its answers."""
    skipped = any(m.get_closest_marker(s) for m in unit for s in ("skip", "skipif", "xfail"))
    return not skipped and all("completion" in member.fixturenames for member in unit)


def _ask_together(
    run: Run, item: pytest.Function, engine: Engine, on_progress: OnProgress | None
) -> Sequence[Completion | Exception]:
    """Answers to a test's unit, and to the next ones as far as all together are no larger than one.

    What cannot be answered at all is found out for each alone.
    """
    units = [run.unit(item)]
    room = run.options.unit_size - len(units[0])
    for unit in run.next_units(item, room):
        room -= len(unit)
        if room < 0 or not _is_sure(unit) or unit[0].nodeid in run.ahead:
            break
        units.append(unit)
    asked = [_keep_prompts(run, unit) for unit in units]
    try:
        outcomes = iter(engine.attempt([one for each in asked for one in each], on_progress))
    except UnsupportedError:
        return engine.attempt(asked[0], on_progress)
    own, *others = [list(islice(outcomes, len(unit))) for unit in units]
    run.ahead |= {u[0].nodeid: Answered(its) for u, its in zip(units[1:], others, strict=True)}
    return own


class Asker:
    """Asks the model within one test; what the ``generate`` fixture gives.

    A prompt that is the case's own is steered as the case is, and no other one.

    Args:
        run: What the session knows.
        item: The test.
        engine: What answers.
    """

    def __init__(self, run: Run, item: pytest.Function, engine: Engine) -> None:
        self._run, self._item = run, item
        self._engine, options = run.recorded(engine), run.options
        probe, case = item.stash.get(PROBE, None), case_of(item)
        config = probe.config if probe else GenerateConfig()
        self._options = vars(config.for_case(case) if case else config)
        self._steered, self._steer = (case.prompt if case else None), steer_of(item, options)
        self._seed = case.seed if case else seed_of(options.suite.seed, item.nodeid)

    def __call__(self, prompts: Prompt | Sequence[Prompt], **config: object) -> Any:
        """A Completion for one prompt, a list of them for a list of prompts.

        Raises:
            RequestError: A prompt cannot be answered.
            SettingsError: A generation option is unknown or out of range.
        """
        one, many = one_or_many(prompts)
        options = GenerateConfig.of(**self._options | config)
        trace = trace_of(self._item)
        requests = [
            Request(
                prompt,
                options,
                seed_of(self._seed, number),
                steer=self._steer if prompt == self._steered else None,
            )
            for number, prompt in enumerate(many, len(trace.completions))
        ]
        completions = asked_within(self._item, self._engine, requests, "generation failed")
        trace.keep(requests, completions)
        self._run.answered(self._engine)
        return completions[0] if one else completions


def one_or_many(prompts: Prompt | Sequence[Prompt]) -> tuple[bool, list[Prompt]]:
    """Whether one prompt is given, a text or a chat, and what is given as a list of prompts."""
    given: Any = prompts
    one = isinstance(given, str | RawPrompt) or isinstance(next(iter(given), None), Mapping)
    return one, [given] if one else list(given)


def asked_within(
    item: pytest.Item, engine: Engine, requests: Sequence[Request], failure: str
) -> list[Completion]:
    """An engine's answers within a test, which stops or is skipped as ``stopping`` says.

    Raises:
        RuntimeError: An assertion failed that is not the test's own; it begins with ``failure``.
    """
    try:
        with stopping(item):
            return engine.generate(requests)
    except AssertionError as error:  # it must not count as a miss
        raise RuntimeError(f"{failure}: {error}") from error


@contextmanager
def stopping(
    item: pytest.Item, answers: Mapping[str, Completion | Exception] | None = None
) -> Iterator[None]:
    """Stop the session at what every later case would meet alike; skip what cannot be asked.

    A refusal is the error of the case at hand, and fails the session. A spent budget interrupts it:
    the case has no record. Cases of its unit that were answered before are still scored.

    Args:
        item: The test.
        answers: What became of the cases of its unit, in order.
    """
    try:
        yield
    except (AccessError, BudgetError) as error:
        ids = list(answers or ())
        later = ids[ids.index(item.nodeid) + 1 :] if item.nodeid in ids else []
        last = not any(isinstance((answers or {})[name], Completion) for name in later)
        if isinstance(error, AccessError) and last:
            end_run(item.session, error)
            raise
        trace_of(item).not_asked = True
        if last:
            item.session.shouldstop = f"llmprobe: {error}"
        pytest.skip(str(error))
    except (ModelError, StorageError) as error:  # a ModelError: the shared engine is gone
        end_run(item.session, error)
        raise
    except UnsupportedError as error:
        skip_incapable(str(error))
