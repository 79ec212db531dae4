"""What a test of an evaluation receives: model, engine, completion, generate, score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.case import Case, Prompt
from pytest_llmprobe.collection import PROBE, UNITS, case_of, request_of
from pytest_llmprobe.distribution import placement
from pytest_llmprobe.errors import LlmprobeError, ModelError, RequestError
from pytest_llmprobe.generation import Completion, GenerateConfig, Request
from pytest_llmprobe.options import options_of
from pytest_llmprobe.progress import progress_of
from pytest_llmprobe.suite import seed_of

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.models.loading import LoadedModel


@dataclass
class Trace:
    """What happened in one test: answers of the model and scores, in order.

    Args:
        completions: Every answer that the test received.
        scores: Every measurement by name.
        miss: The explanation of a failed assertion, if there was one.
    """

    completions: list[Completion] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    miss: str | None = None


TRACE = pytest.StashKey[Trace]()
ANSWERS = pytest.StashKey["UnitAnswers"]()
MODEL_INFO = pytest.StashKey[dict[str, Any]]()


def trace_of(item: pytest.Item) -> Trace:
    """The trace of a test, empty at first."""
    return item.stash.setdefault(TRACE, Trace())


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest) -> LoadedModel:
    """The model under evaluation, loaded once in each worker: model, tokenizer, capabilities."""
    from pytest_llmprobe.models.loading import load_model

    options, share = options_of(request.config), placement()
    spec = options.spec
    try:
        return load_model(
            options.model,
            models=options.user_models,
            threads=share.threads,
            dtype=spec.dtype,
            device=share.device(spec.device),
            device_map=spec.device_map,
            attn_implementation=spec.attn_implementation,
            quantization=spec.quantization,
            trust_remote_code=spec.trust_remote_code,
        )
    except ModelError as error:
        # Every case would fail for the same reason: one clear error, then stop.
        request.session.shouldfail = f"llmprobe: {error}"
        raise


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, model: LoadedModel) -> Engine:
    """Generates with the model, in batches; every test of a worker shares it."""
    from pytest_llmprobe.engine import Engine

    return Engine(model, batch_size=options_of(request.config).batch_size)


@pytest.fixture
def completion(request: pytest.FixtureRequest, engine: Engine) -> Completion:
    """The model's answer to this test's case; its whole work unit is generated at once."""
    item = request.node
    if case_of(item) is None or PROBE not in item.stash:
        raise pytest.UsageError("`completion` needs @pytest.mark.probe(cases=...) and `case`")
    remember_model(request.config, engine)
    answers = request.config.stash.setdefault(ANSWERS, UnitAnswers())
    answer = answers.of(item, engine)
    trace_of(item).completions.append(answer)
    return answer


@pytest.fixture
def generate(request: pytest.FixtureRequest, engine: Engine) -> Callable[..., Any]:
    """Ask the model as often as the test needs: ``generate(prompt_or_prompts, **config)``.

    One prompt (a string or chat messages) gives a Completion, a list of prompts a list. The
    probe marker's generation options hold unless ``config`` changes them.
    """
    item = request.node
    remember_model(request.config, engine)

    def generate(prompts: Prompt | Sequence[Prompt], **config: Any) -> Any:
        many = not isinstance(prompts, str) and not isinstance(next(iter(prompts), None), Mapping)
        probe = item.stash.get(PROBE, None)
        options = vars(probe.config) if probe else {}
        trace = trace_of(item)
        case = case_of(item)
        seed = case.seed if case else seed_of(options_of(request.config).suite.seed, item.nodeid)
        first = len(trace.completions)
        requests = [
            Request(prompt, GenerateConfig.of(**options | config), seed_of(seed, first + i))
            for i, prompt in enumerate(prompts if many else [prompts])
        ]
        completions = engine.generate(requests)
        trace.completions.extend(completions)
        return completions if many else completions[0]

    return generate


@pytest.fixture
def score(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Record a measurement beside pass or miss: ``score("lenient", True)``."""
    scores = trace_of(request.node).scores

    def score(name: str, value: Any) -> None:
        if name in scores:
            raise ValueError(f"score {name!r} was given twice in one test")
        number = float(value)
        if number - number != 0:  # NaN or infinite
            raise ValueError(f"score {name!r} is {number}; give a finite number")
        scores[name] = number

    return score


def remember_model(config: pytest.Config, engine: Engine) -> None:
    """Keep what the report says about the model; it travels with the first record."""
    config.stash.setdefault(MODEL_INFO, engine.backend.info)


class UnitAnswers:
    """The answers of the work unit at hand; a unit's are dropped when the next one begins."""

    def __init__(self) -> None:
        self._unit: list[pytest.Function] = []
        self._answers: dict[str, Completion | Exception] = {}

    def of(self, item: pytest.Function, engine: Engine) -> Completion:
        """The answer to this test's case, generating its unit if it is not the one at hand.

        Raises:
            RequestError: The case cannot be answered.
        """
        if item.nodeid not in self._answers:
            self._unit = item.config.stash[UNITS][item.nodeid]
            self._answers = self._generate(item, engine)
        answer = self._answers[item.nodeid]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _generate(
        self, item: pytest.Function, engine: Engine
    ) -> dict[str, Completion | Exception]:
        ids = [member.nodeid for member in self._unit]
        requests = [request_of(member) for member in self._unit]
        with progress_of(item.config).unit(item.stash[PROBE].experiment) as on_progress:
            try:
                outcomes: Sequence[Completion | Exception] = engine.attempt(requests, on_progress)
            except Exception as error:  # kept, so that each test of the unit shows it
                outcomes = [error] * len(ids)
        return dict(zip(ids, outcomes, strict=True))


def explained(error: BaseException) -> str:
    """An error on one line, ours without their type's name."""
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, LlmprobeError) else f"{type(error).__name__}: {text}"


__all__ = [
    "Case",
    "RequestError",
    "completion",
    "engine",
    "generate",
    "model",
    "score",
]
