"""What a test of an evaluation receives: model, engine, suite, completion ...

Imported in every pytest run of the environment; what they do is imported when they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.plugin.process import RUN

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.experiments.memorization.prefix_map.files import PrefixMap
    from pytest_llmprobe.experiments.output_length.data_set import LengthData
    from pytest_llmprobe.experiments.output_length.requests import LengthRequest
    from pytest_llmprobe.generation import Completion
    from pytest_llmprobe.models.loading import LoadedModel
    from pytest_llmprobe.plugin.judge import Judge
    from pytest_llmprobe.plugin.run import Run
    from pytest_llmprobe.search import SearchResult
    from pytest_llmprobe.suite import Suite
    from pytest_llmprobe.whitebox.bert_score import BertScorer
    from pytest_llmprobe.whitebox.log_probabilities import TokenLogProbabilities


@pytest.fixture(scope="session")
def _llmprobe_run(request: pytest.FixtureRequest) -> Run:
    """What the session knows; made here where no test has the probe marker."""
    if RUN not in request.config.stash:
        from pytest_llmprobe.plugin.run import begin

        begin(request.session)
    run: Run = request.config.stash[RUN]
    return run


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest, _llmprobe_run: Run) -> LoadedModel:
    """The model under evaluation, loaded once in each worker: model, tokenizer, capabilities."""
    from pytest_llmprobe.plugin.engines import need_model, session_model

    need_model(_llmprobe_run.options)
    return session_model(_llmprobe_run, request.session)


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, _llmprobe_run: Run) -> Engine:
    """Generates with the model, in batches; every test of a worker shares it."""
    from pytest_llmprobe.plugin.engines import session_engine

    return _llmprobe_run.recorded(session_engine(_llmprobe_run, request))


@pytest.fixture(scope="session")
def suite(_llmprobe_run: Run) -> Suite:
    """What the user asked of all evaluations, as cases functions receive it."""
    return _llmprobe_run.options.suite


@pytest.fixture
def completion(request: pytest.FixtureRequest, engine: Engine, _llmprobe_run: Run) -> Completion:
    """The model's answer to this test's case; its whole work unit is generated at once."""
    from pytest_llmprobe.plugin.asking import answer_case

    return answer_case(_llmprobe_run, request.node, engine)


@pytest.fixture
def fidelity(
    request: pytest.FixtureRequest, completion: Completion, _llmprobe_run: Run
) -> dict[str, Any] | None:
    """How far the model is from the baseline's answer to this test's case, token by token.

    What the report has as ``tests[].fidelity`` (docs/report.md): ``kl_mean``, ``top1`` ... None
    where no baseline with distributions is compared with.
    """
    return _llmprobe_run.fidelity.known(request.node.nodeid)


@pytest.fixture
def generate(
    request: pytest.FixtureRequest, engine: Engine, _llmprobe_run: Run
) -> Callable[..., Any]:
    """Ask the model as often as the test needs: ``generate(prompt_or_prompts, **config)``.

    One prompt (a string or chat messages) gives a Completion, a list of prompts a list. The
    probe marker's generation options hold unless ``config`` changes them.
    """
    from pytest_llmprobe.plugin.asking import Asker

    return Asker(_llmprobe_run, request.node, engine)


@pytest.fixture(scope="session")
def _llmprobe_judge(request: pytest.FixtureRequest, _llmprobe_run: Run) -> Engine:
    """What the judge answers with, loaded once in each worker."""
    from pytest_llmprobe.plugin.judge import judge_engine

    return judge_engine(_llmprobe_run, request.session)


@pytest.fixture
def judge(request: pytest.FixtureRequest, _llmprobe_judge: Engine, _llmprobe_run: Run) -> Judge:
    """Ask the model of ``--llmprobe-judge``: ``judge(prompt_or_prompts, **config).text``.

    ``judge.prefers(question, first, second)`` compares two answers in both orders. The test is
    skipped where no judge is named.
    """
    from pytest_llmprobe.plugin.judge import Judge

    return Judge(_llmprobe_run, request.node, _llmprobe_judge)


@pytest.fixture
def optional_judge(request: pytest.FixtureRequest, _llmprobe_run: Run) -> Judge | None:
    """As ``judge``, for a test that can do without: None where no judge is named."""
    folder, named = _llmprobe_run.folder, _llmprobe_run.options.judge
    if named is None and folder.replayed_judge is None:
        return None
    given: Judge = request.getfixturevalue("judge")
    return given


@pytest.fixture
def unsteered(
    request: pytest.FixtureRequest, completion: Completion, _llmprobe_run: Run
) -> Completion | None:
    """The answer to this test's case at Delta 0, to compare a steered one with.

    None for that case itself, and where it is not in the run or could not be answered.
    """
    from pytest_llmprobe.plugin.asking import answer_at_delta_0

    return answer_at_delta_0(_llmprobe_run, request.node)


@pytest.fixture(scope="session")
def log_probabilities(engine: Engine) -> Callable[..., list[TokenLogProbabilities]]:
    """How likely the model finds each token of given texts: ``log_probabilities([text, ...])``.

    A string is a text without a chat template, with BOS if the model has one. From a model in this
    process, or a server that repeats a text with them, as vLLM does.
    ``log_probabilities(texts, model=NAME)`` asks another model, in its own tokens.
    """
    from pytest_llmprobe.plugin.engines import in_process
    from pytest_llmprobe.plugin.text_fixtures import TextScorer

    served = getattr(engine.backend, "log_probabilities", None)
    own = None if served else in_process(engine, "log-probabilities of texts")
    return TextScorer(served, own)


@pytest.fixture(scope="session")
def prefix_map(
    engine: Engine, _llmprobe_run: Run, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., PrefixMap]:
    """Cut prefixes from data: ``prefix_map(suite.dataset("documents"), prefix_tokens=10)``.

    The other arguments are those of ``PrefixCut``: location, size, document_tokens, seed. Texts for
    a model behind a server are cut by the ``tokenizer`` of its entry, or the embedded model's.
    """
    from pytest_llmprobe.plugin.text_fixtures import PrefixCutter, cutting_tokenizer

    tokenizer = cutting_tokenizer(_llmprobe_run, engine, "a prefix map")
    return PrefixCutter(tokenizer, _llmprobe_run.options, tmp_path_factory.mktemp("prefixes"))


@pytest.fixture(scope="session")
def continuations(engine: Engine, _llmprobe_run: Run) -> Callable[..., list[dict[str, Any]]]:
    """Go on from each prefix of a map: ``continuations(prefix_map, num_strings, max_length=20)``.

    Gives a dictionary for each string; the other arguments are those of ``Prompting``, and
    ``message="... {prefix}"`` for a model that answers chat messages only.
    """
    from pytest_llmprobe.plugin.text_fixtures import Continuer, cutting_tokenizer

    tokenizer = cutting_tokenizer(_llmprobe_run, engine, "going on from token ids")
    return Continuer(tokenizer, _llmprobe_run.options.spec.protocol, engine.generate)


@pytest.fixture(scope="session")
def length_data(
    engine: Engine, model: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., LengthData]:
    """Hidden states and remaining tokens: ``length_data(length_requests(...), layers=[-1])``.

    The other arguments are those of ``collect``, such as keep and hold_out, see
    experiments/output_length/data_set_collection.py.
    """
    from pytest_llmprobe.errors import UnsupportedError
    from pytest_llmprobe.experiments.output_length.data_set_collection import collect
    from pytest_llmprobe.plugin.engines import skip_incapable
    from pytest_llmprobe.whitebox.hidden_states import HiddenStateReader

    def collected(
        requests: Sequence[LengthRequest], layers: Sequence[int], **how: Any
    ) -> LengthData:
        folder = tmp_path_factory.mktemp("hidden-states")
        try:
            reader = HiddenStateReader(model, layers)
        except UnsupportedError as error:
            skip_incapable(str(error))
        return collect(folder, requests, reader, engine.attempt, **how)

    return collected


@pytest.fixture
def predictors(
    request: pytest.FixtureRequest, engine: Engine, _llmprobe_run: Run
) -> Callable[..., dict[str, float]]:
    """How far a span of a prompt reaches to its end: ``predictors(prompt, span, last=10)``.

    Gives ``influence``, ``rollout`` and ``raw_attention`` of the unsteered model, if its attention
    can be traced, and ``inverse_length``, as a dictionary. With the environment variable
    ``LLMPROBE_INFLUENCE=FOLDER`` the whole map of each test is written there as .npy.
    """
    from pytest_llmprobe.plugin.engines import need_model

    need_model(_llmprobe_run.options)
    from pytest_llmprobe.whitebox.predictors import Predictors, map_file

    backend, shared = engine.backend, _llmprobe_run
    if shared.predictors is None:
        shared.predictors = Predictors(backend.encode, getattr(backend, "loaded", None))
    return partial(shared.predictors, save=map_file(request.node.name))


@pytest.fixture(scope="session")
def bert_score() -> BertScorer | None:
    """BERTScore: ``bert_score(answer, reference).f1``; None if no encoder is on this machine.

    CamemBERT from the hub's cache, or what the environment variable ``LLMPROBE_BERT_SCORE`` names.
    """
    from pytest_llmprobe.experiments.french_summary.bert_encoder import find_bert_encoder

    found = find_bert_encoder()
    if found.folder is None:
        return None
    from pytest_llmprobe.whitebox.bert_score import BertScorer

    return BertScorer.load(found.folder)


@pytest.fixture
def search(
    request: pytest.FixtureRequest, engine: Engine, _llmprobe_run: Run
) -> Callable[..., SearchResult]:
    """Find the best generation parameters: ``search(rows, score, "{question}", space="small")``.

    Rows are dictionaries, a JSON-lines file, a ``datasets`` data set or cases; ``score(rows,
    answers)`` gives a number for each row, or one for all. The other arguments are those of
    ``SearchTask`` and ``search``; the probe marker's generation options are the default that
    the best is compared with. The result is in the record, for ``search_summary``.
    """
    from pytest_llmprobe.plugin.search_fixture import Searcher

    return Searcher(_llmprobe_run, request.node, engine)


@pytest.fixture
def score(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Record a measurement beside pass or miss: ``score("lenient", True)``."""
    from pytest_llmprobe.plugin.asking import trace_of

    return trace_of(request.node).score
