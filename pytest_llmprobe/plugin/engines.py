"""Models that are not in this process: which engine asks them, and when a run must stop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.case import Prompt
from pytest_llmprobe.errors import (
    AccessError,
    BudgetError,
    ModelError,
    NotInProcessError,
    RequestError,
    UnsupportedError,
)
from pytest_llmprobe.generation import Completion, GenerateConfig
from pytest_llmprobe.plugin.distribution import is_worker, scratch_folder
from pytest_llmprobe.plugin.options import Options, options_of
from pytest_llmprobe.plugin.run_folder import replayed
from pytest_llmprobe.report.environment import usable_cores

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine

NOT_ASKED = pytest.StashKey[bool]()
"""On a test whose case is not asked because the budget is spent: it has no record."""


def protocol_remarks(config: pytest.Config, generation: GenerateConfig) -> list[str]:
    """What the report is to say of settings that a server's protocol cannot promise."""
    from pytest_llmprobe.engine.endpoints.openai_wire import BEYOND
    from pytest_llmprobe.engine.endpoints.wire import changed

    protocol = options_of(config).spec.protocol
    if protocol == "anthropic":
        return ["sampled as the service does it: Anthropic's protocol has no temperature"]
    if protocol == "openai" and (names := changed(generation, BEYOND)):
        return [f"{', '.join(names)}: not in OpenAI's protocol, so the server may ignore it"]
    return []


def new_engine(request: pytest.FixtureRequest, options: Options) -> Engine:
    """What answers: a recorded run, a server, or a model in this process."""
    from pytest_llmprobe.engine import Engine

    if options.replay is not None:
        from pytest_llmprobe.engine.replay import ReplayBackend

        return Engine(ReplayBackend(replayed(options).info))
    if options.spec.protocol is not None:
        return endpoint_engine(request.session, options)
    if options.shared:
        return shared_engine(request.session, options)
    model = request.getfixturevalue("model")
    size, budget = options.batch_size, options.token_budget
    return Engine(model, batch_size=size, token_budget=budget, drafts=options.drafts)


def need_model(config: pytest.Config) -> None:
    """Skip what looks into a model where none is in this process."""
    if options_of(config).replay is not None:
        pytest.skip("--llmprobe-replay loads no model, and this looks into one")
    if options_of(config).spec.protocol is not None:
        pytest.skip("this looks into the model, and the model is behind a server")
    if options_of(config).shared:
        pytest.skip("this looks into the model, and --llmprobe-engine shared keeps it elsewhere")


def shared_engine(session: pytest.Session, options: Options) -> Engine:
    """An engine on the process that has the model; the first worker starts it.

    Raises:
        ModelError: The model cannot be loaded; the session stops.
    """
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.engine.shared import SharedSettings, join

    settings = SharedSettings(options.spec, options.batch_size, options.drafts, usable_cores())
    scratch = scratch_folder(session.config)
    scratch.mkdir(mode=0o700, exist_ok=True)
    try:
        backend = join(scratch / "engine", settings)
    except ModelError as error:
        session.shouldfail = f"llmprobe: {error}"
        raise
    session.config.add_cleanup(backend.close)
    return Engine(backend, batch_size=options.batch_size, token_budget=options.token_budget)


def endpoint_engine(session: pytest.Session, options: Options) -> Engine:
    """An engine that asks the server that the options name, with this worker's share of requests.

    Raises:
        ModelError: It cannot be asked; the session stops, since every case would fail alike.
        SettingsError: There is a limit of the cost, and there are no prices.
    """
    from pytest_llmprobe.engine.endpoints import (
        Budget,
        EndpointBackend,
        EndpointEngine,
        Prices,
        connect,
    )

    spec, asked = options.spec, options.endpoint
    prices = None
    if spec.input_price is not None and spec.output_price is not None:
        prices = Prices(spec.input_price, spec.output_price)
    budget = Budget(asked.max_requests, asked.max_cost, prices, _ledger(session.config))
    try:
        connection = connect(spec, asked.timeout_s)
    except ModelError as error:
        session.shouldfail = f"llmprobe: {error}"
        raise
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    backend = EndpointBackend(
        connection,
        concurrency=max(1, asked.concurrency // workers),
        timeout_s=asked.timeout_s,
        stream=asked.stream,
        budget=budget,
    )
    session.config.add_cleanup(backend.close)
    return EndpointEngine(backend, batch_size=options.batch_size)


def echoed(ask: Callable[[Sequence[Any]], list[Any]], texts: Sequence[Prompt]) -> list[Any]:
    """Log-probabilities of texts from a server; the test is skipped if its protocol has none.

    Raises:
        RequestError: The server does not send them for a text.
    """
    try:
        outcomes = ask(texts)
    except NotInProcessError as error:
        pytest.skip(str(error))
    for outcome in outcomes:
        if isinstance(outcome, RequestError):
            raise outcome
    return outcomes


def _ledger(config: pytest.Config) -> Path | None:
    """The account that all workers of a run share."""
    if not is_worker(config):
        return None
    scratch_folder(config).mkdir(mode=0o700, exist_ok=True)
    return scratch_folder(config) / "budget.json"


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
    except (AccessError, ModelError) as error:  # a ModelError: the shared engine is gone
        item.session.shouldfail = f"llmprobe: {error}"
        raise
    except UnsupportedError as error:
        pytest.skip(str(error))
    except BudgetError as error:
        item.stash[NOT_ASKED] = True
        ids = list(answers or ())
        later = ids[ids.index(item.nodeid) + 1 :] if item.nodeid in ids else []
        if not any(isinstance((answers or {})[name], Completion) for name in later):
            item.session.shouldstop = f"llmprobe: {error}"
        pytest.skip(str(error))
