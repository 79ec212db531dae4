"""What answers: the model in this process, one that workers share, a server, or a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.config_facts import changed_files
from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.plugin.ending import end_run
from pytest_llmprobe.plugin.options import Options
from pytest_llmprobe.plugin.process import HELD, device, threads, workers
from pytest_llmprobe.plugin.run import Run
from pytest_llmprobe.report.cores import cpu_threads

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.engine.other_engine import OtherEngineBackend
    from pytest_llmprobe.models.loading import LoadedModel


INCAPABLE = "llmprobe_incapable"
"""Attribute of a skip that is the model's, or this way of asking it."""


def skip_incapable(reason: str) -> NoReturn:
    """Skip a test that this model cannot be asked in this way, whatever it would answer."""
    skipped = pytest.skip.Exception(reason)
    setattr(skipped, INCAPABLE, True)
    raise skipped


def session_model(run: Run, session: pytest.Session) -> LoadedModel:
    """Load the model that the options name, on this worker's share of the machine.

    Raises:
        ModelError: It cannot be loaded; the session stops, since every case would fail alike.
    """
    from pytest_llmprobe.models.loading import load_spec

    spec = run.options.spec
    try:
        if (held := session.config.stash.get(HELD, None)) is not None:
            loaded: LoadedModel = held.loaded(spec)
            return loaded
        return load_spec(spec, device=device(spec.device), threads=threads())
    except ModelError as error:
        end_run(session, error)
        raise


def session_engine(run: Run, request: pytest.FixtureRequest) -> Engine:
    """What the ``engine`` fixture gives."""
    from pytest_llmprobe.engine import Engine

    options, session = run.options, request.session
    size, budget = options.batch_size, options.token_budget
    if options.replay is not None:
        from pytest_llmprobe.engine.replay import ReplayBackend

        recorded = run.folder.replayed.info
        if changed := changed_files(_folder(options.spec), recorded):
            error = ModelError(
                f"{changed[0]} of {options.spec.name!r} has changed since {options.replay.name} "
                "was made: replay the model as it was, or run it as it is"
            )
            end_run(session, error)
            raise error
        return Engine(ReplayBackend(recorded))
    try:
        if options.spec.protocol is not None:
            return _server_engine(session, run, options.spec)
        if options.engine == "shared":
            return _shared_engine(session, run)
    except ModelError as error:
        end_run(session, error)
        raise
    model = request.getfixturevalue("model")
    if options.engine == "process" or size == 1:
        return Engine(model, batch_size=size, token_budget=budget, drafts=options.drafts)
    try:
        backend = other_backend(model, options)
    except ModelError as error:
        end_run(session, error)
        raise
    return Engine(backend, batch_size=size, token_budget=budget or backend.other.batch_tokens)


def other_backend(model: LoadedModel, options: Options) -> OtherEngineBackend:
    """A backend on another program's engine, which loads the model's weights once more.

    Raises:
        ModelError: It cannot.
    """
    from pytest_llmprobe.engine.other_engine import OtherEngine, OtherEngineBackend

    other: OtherEngine
    if options.engine == "openvino":
        from pytest_llmprobe.engine.openvino import OpenVinoEngine

        other = OpenVinoEngine(model)
    else:
        from pytest_llmprobe.engine.vllm import VllmEngine

        other = VllmEngine(model)
    return OtherEngineBackend(model, other, options.drafts)


def _folder(spec: ModelSpec) -> Path | None:
    """A model's own folder; what is embedded or installed is known by its version."""
    return None if spec.embedded or spec.package is not None else spec.folder


def _shared_engine(session: pytest.Session, run: Run) -> Engine:
    """An engine on the process that has the model; the first worker starts it."""
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.engine.shared import SharedSettings, join

    options = run.options
    settings = SharedSettings(
        options.spec, options.batch_size, options.drafts, cpu_threads(), workers()
    )
    backend = join(run.process.make_scratch() / "engine", settings)
    session.config.add_cleanup(backend.close)
    return Engine(backend, batch_size=options.batch_size, token_budget=options.token_budget)


def engine_of(spec: ModelSpec, run: Run, session: pytest.Session, account: str) -> Engine:
    """An engine for a model beside the one under evaluation, on this worker's share of the machine.

    Args:
        spec: The model.
        run: What the session knows.
        session: It stops if the model cannot be had.
        account: Name of the file in which all workers count what they send to its server.

    Raises:
        ModelError: It cannot be had.
    """
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.models.loading import load_spec

    try:
        if spec.protocol is not None:
            return _server_engine(session, run, spec, account)
        return Engine(load_spec(spec, device=device(spec.device), threads=threads()))
    except ModelError as error:
        end_run(session, error)
        raise


def _server_engine(
    session: pytest.Session, run: Run, spec: ModelSpec, account: str = "budget.json"
) -> Engine:
    """An engine that asks a server, with this worker's share of requests.

    Raises:
        ModelError: It cannot be asked.
        SettingsError: There is a limit of the cost, and there are no prices.
    """
    from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
    from pytest_llmprobe.engine.endpoints.budget import Budget, Prices
    from pytest_llmprobe.engine.endpoints.connection import connect
    from pytest_llmprobe.engine.endpoints.engine import EndpointEngine

    asked, process = run.options.endpoint, run.process
    prices = None
    if spec.input_price is not None and spec.output_price is not None:
        prices = Prices(spec.input_price, spec.output_price)
    # The account that all workers of a run share.
    ledger = process.make_scratch() / account if process.is_worker else None
    left = None if asked.max_time is None else asked.max_time - process.seconds
    backend = EndpointBackend(
        connect(spec, asked.timeout_s, asked.options),
        concurrency=max(1, asked.concurrency // workers()),
        timeout_s=asked.timeout_s,
        stream=asked.stream,
        budget=Budget(asked.max_requests, asked.max_cost, prices, ledger, left),
    )
    session.config.add_cleanup(backend.close)
    return EndpointEngine(backend, batch_size=run.options.batch_size)


def need_model(options: Options) -> None:
    """Skip what looks into a model where none is in this process."""
    if options.replay is not None:
        skip_incapable("--llmprobe-replay loads no model, and this looks into one")
    if options.spec.protocol is not None:
        skip_incapable("this looks into the model, and the model is behind a server")
    if options.engine == "shared":
        skip_incapable("this looks into the model, and --llmprobe-engine shared keeps it elsewhere")


def in_process(engine: Engine, what: str) -> LoadedModel:
    """The model of an engine; the test is skipped if it is not in this process."""
    loaded: LoadedModel | None = getattr(engine.backend, "loaded", None)
    if loaded is None:
        skip_incapable(f"{what}: this needs a model in this process; this one only answers")
    return loaded
