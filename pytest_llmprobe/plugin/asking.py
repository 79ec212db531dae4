"""Behind the fixtures: one model a worker, one generation a work unit, a trace of every test."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.case import Prompt, RawPrompt, prompt_text
from pytest_llmprobe.errors import ModelError, SettingsError
from pytest_llmprobe.generation import Completion, GenerateConfig, Request
from pytest_llmprobe.plugin.collection import PROBE, UNITS, case_of, request_of, steer_of
from pytest_llmprobe.plugin.distribution import placement
from pytest_llmprobe.plugin.engines import echoed, new_engine, stopping
from pytest_llmprobe.plugin.options import options_of
from pytest_llmprobe.plugin.progress import progress_of
from pytest_llmprobe.plugin.run_folder import recorded
from pytest_llmprobe.suite import seed_of

if TYPE_CHECKING:
    from pytest_llmprobe.data.sources import Dataset
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.experiments.memorization.continuations import Entries, Result
    from pytest_llmprobe.experiments.memorization.prefix_map.cutting import PrefixCut
    from pytest_llmprobe.experiments.memorization.prefix_map.files import PrefixMap
    from pytest_llmprobe.models.loading import LoadedModel
    from pytest_llmprobe.whitebox.log_probabilities import TokenLogProbabilities


@dataclass
class Trace:
    """What happened in one test.

    Args:
        completions: Every answer that the test received, in order.
        prompt_characters: Length of their prompts together.
        scores: Every measurement by name.
        miss: The explanation of a failed assertion, if there was one.
        details: What a fixture found, for the record's params; JSON types.
    """

    completions: list[Completion] = field(default_factory=list)
    prompt_characters: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    miss: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

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


TRACE = pytest.StashKey[Trace]()
ANSWERS = pytest.StashKey["UnitAnswers"]()
MODEL_INFO = pytest.StashKey[dict[str, Any]]()


def trace_of(item: pytest.Item) -> Trace:
    """The trace of a test, empty at first."""
    return item.stash.setdefault(TRACE, Trace())


def forget_trace(item: pytest.Item) -> None:
    """Let go of a test's answers: pytest keeps every test until the session ends."""
    if TRACE in item.stash:
        del item.stash[TRACE]


def load_for_session(session: pytest.Session) -> LoadedModel:
    """Load the model that the options name, on this worker's share of the machine.

    Raises:
        ModelError: It cannot be loaded; the session stops, since every case would fail alike.
    """
    from pytest_llmprobe.models.loading import load_spec

    options, share = options_of(session.config), placement()
    try:
        return load_spec(
            options.spec, device=share.device(options.spec.device), threads=share.threads
        )
    except ModelError as error:
        session.shouldfail = f"llmprobe: {error}"
        raise


def make_engine(request: pytest.FixtureRequest) -> Engine:
    """What the ``engine`` fixture gives: the model's, a server's, or one that replays answers."""
    return recorded(request.config, new_engine(request, options_of(request.config)))


def answer_case(item: pytest.Function, engine: Engine) -> Completion:
    """The model's answer to a test's case; the test is skipped if it cannot be asked for.

    Raises:
        RequestError: The case cannot be answered.
        SettingsError: The test has no case.
    """
    case = case_of(item)
    if PROBE not in item.stash or case is None:
        raise SettingsError("`completion` needs @pytest.mark.probe(cases=...) and `case`")
    recorded(item.config, engine)
    answer = item.config.stash.setdefault(ANSWERS, UnitAnswers()).of(item, engine)
    _keep(item, engine, [case.prompt], [answer])
    return answer


def _keep(
    item: pytest.Item, engine: Engine, prompts: Sequence[Prompt], completions: Sequence[Completion]
) -> None:
    trace = trace_of(item)
    trace.completions.extend(completions)
    trace.prompt_characters += sum(len(prompt_text(prompt)) for prompt in prompts)
    store = engine.store if engine.store is not None and engine.store.replays else engine.backend
    item.config.stash.setdefault(MODEL_INFO, store.info)


class Asker:
    """Asks the model within one test; what the ``generate`` fixture gives.

    A prompt that is the case's own is steered as the case is, and no other one.

    Args:
        item: The test.
        engine: What answers.
    """

    def __init__(self, item: pytest.Function, engine: Engine) -> None:
        self._item, self._engine = item, recorded(item.config, engine)
        probe = item.stash.get(PROBE, None)
        self._options = vars(probe.config) if probe else {}
        case = case_of(item)
        self._steered, self._steer = (case.prompt if case else None), steer_of(item)
        seed = options_of(item.config).suite.seed
        self._seed = case.seed if case else seed_of(seed, item.nodeid)

    def __call__(self, prompts: Prompt | Sequence[Prompt], **config: object) -> Any:
        """A Completion for one prompt, a list of them for a list of prompts.

        Raises:
            RequestError: A prompt cannot be answered.
            SettingsError: A generation option is unknown or out of range.
        """
        given: Any = prompts
        one = isinstance(given, str | RawPrompt) or isinstance(next(iter(given), None), Mapping)
        many: list[Any] = [given] if one else list(given)
        options = GenerateConfig.of(**self._options | config)
        asked = len(trace_of(self._item).completions)
        requests = [
            Request(
                prompt,
                options,
                seed_of(self._seed, asked + number),
                steer=self._steer if prompt == self._steered else None,
            )
            for number, prompt in enumerate(many)
        ]
        try:
            with stopping(self._item):
                completions = self._engine.generate(requests)
        except AssertionError as error:  # not the test's own: it must not count as a miss
            raise RuntimeError(f"generation failed: {error}") from error
        _keep(self._item, self._engine, many, completions)
        return completions[0] if one else completions


class UnitAnswers:
    """The answers of the work unit at hand; a unit's are dropped when the next one begins."""

    def __init__(self) -> None:
        self._answers: dict[str, Completion | Exception] = {}

    def of(self, item: pytest.Function, engine: Engine) -> Completion:
        """The answer to this test's case, generating its unit if it is not the one at hand.

        Raises:
            RequestError: The case cannot be answered.
        """
        if item.nodeid not in self._answers:
            self._answers = _generate_unit(item, engine)
        answer = self._answers[item.nodeid]
        with stopping(item, self._answers):
            if isinstance(answer, Exception):
                raise answer
        return answer


def _generate_unit(item: pytest.Function, engine: Engine) -> dict[str, Completion | Exception]:
    unit = item.config.stash[UNITS][item.nodeid]
    requests = [request_of(member) for member in unit]
    outcomes: Sequence[Completion | Exception]
    with progress_of(item.config).unit(item.stash[PROBE].experiment) as on_progress:
        try:
            outcomes = engine.attempt(requests, on_progress)
        except Exception as error:  # kept, so that each test of the unit shows it
            outcomes = [error] * len(unit)
    return {member.nodeid: outcome for member, outcome in zip(unit, outcomes, strict=True)}


def text_scorer(engine: Engine) -> Callable[..., list[TokenLogProbabilities]]:
    """What the ``log_probabilities`` fixture gives; other models are loaded once."""
    served = getattr(engine.backend, "log_probabilities", None)
    encoders = {}
    if served is None:
        encoders[""] = _encoder(_in_process(engine, "log-probabilities of texts"))

    def scored(texts: Sequence[Prompt], model: str = "") -> list[TokenLogProbabilities]:
        raw = [RawPrompt(text) if isinstance(text, str) else text for text in texts]
        if served is not None and not model:
            return echoed(served, raw)
        from pytest_llmprobe.models.loading import load_model
        from pytest_llmprobe.whitebox.log_probabilities import log_probabilities

        if model not in encoders:
            encoders[model] = _encoder(load_model(model))
        loaded, encode = encoders[model]
        return log_probabilities(loaded, [encode(text) for text in raw])

    return scored


def _encoder(loaded: LoadedModel) -> tuple[LoadedModel, Callable[[Prompt], list[int]]]:
    from pytest_llmprobe.models.prompts import PromptEncoder

    return loaded, PromptEncoder(loaded.tokenizer, loaded.capabilities.chat_template).ids


def prefix_cutter(engine: Engine, folder: Path) -> Callable[..., PrefixMap]:
    """What the ``prefix_map`` fixture gives; maps are kept for the session."""
    loaded = _in_process(engine, "a prefix map")
    made: dict[tuple[Dataset, PrefixCut], PrefixMap] = {}

    def cut(data: Dataset, **how: Any) -> PrefixMap:
        from pytest_llmprobe.experiments.memorization.prefix_map.cutting import (
            PrefixCut,
            make_prefix_map,
        )
        from pytest_llmprobe.experiments.memorization.prefix_map.files import load_prefix_map
        from pytest_llmprobe.models.text_tokenizer import text_tokenizer

        wanted = PrefixCut(**{"prefix_tokens": 10} | how)
        if (data, wanted) not in made:
            tokenizer = text_tokenizer(loaded.tokenizer)
            path = make_prefix_map(
                data.documents(),
                tokenizer,
                wanted,
                folder,
                model=loaded.spec.name,
                dataset=data.given,
            )
            made[data, wanted] = load_prefix_map(path, tokenizer.hash)
        return made[data, wanted]

    return cut


def prompter(engine: Engine) -> Callable[..., list[dict[str, Any]]]:
    """What the ``continuations`` fixture gives."""
    loaded = _in_process(engine, "going on from token ids")

    def prompted(entries: Entries, num_strings: int | None = None, **how: Any) -> list[Result]:
        from pytest_llmprobe.experiments.memorization.continuations import Prompting, continuations
        from pytest_llmprobe.models.text_tokenizer import text_tokenizer

        prompting = Prompting(len(entries) if num_strings is None else num_strings, **how)
        before = text_tokenizer(loaded.tokenizer).before
        return continuations(entries, engine.generate, prompting, before)

    return prompted


def _in_process(engine: Engine, what: str) -> LoadedModel:
    loaded: LoadedModel | None = getattr(engine.backend, "loaded", None)
    if loaded is None:
        pytest.skip(f"{what}: this needs a model in this process; this one only answers")
    return loaded
