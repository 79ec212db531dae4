"""The Run: what one session knows, made once when its collection ends.

Fixtures, recorder, scheduler and progress get it and ask no one else. In an xdist worker and in the
only process it is made of what was collected, in the controller of what the workers left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.errors import SettingsError, StorageError
from pytest_llmprobe.plugin.collection import PROBES, plan_session, refuse_unknown_data
from pytest_llmprobe.plugin.distribution import waiting_tests
from pytest_llmprobe.plugin.ending import end_run, leave_with_controller, unwritten
from pytest_llmprobe.plugin.fidelity import RunFidelity
from pytest_llmprobe.plugin.gated_names import check_experiments
from pytest_llmprobe.plugin.options import options_of
from pytest_llmprobe.plugin.process import RUN, process_of
from pytest_llmprobe.plugin.progress import UnitProgress
from pytest_llmprobe.plugin.refusal import end_if_refused, refuse
from pytest_llmprobe.plugin.run_folder import RunFolder
from pytest_llmprobe.plugin.session_check import SessionCheck
from pytest_llmprobe.plugin.units import work_units
from pytest_llmprobe.report.plan import Plan, read_plan, write_plan

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.generation import Completion
    from pytest_llmprobe.plugin.ahead import Answered, Asked
    from pytest_llmprobe.whitebox.predictors import Predictors


class Run:
    """What one session knows.

    Args:
        config: The process's own.
        plan: What is to be asked.
        items: The tests of this process that ask it, by node id; none in xdist's controller.

    Attributes:
        options: What the user asked for.
        process: This process and its place in the session.
        units: Node ids that are generated together, in order.
        progress: How this process tells how far a unit is.
        folder: Where the run's files are, and the answers that it keeps there.
        fidelity: What is kept of the answers' distributions, or held against a baseline's.
        self_check: The check of the engine, once in a session.
        answers: Of the unit at hand.
        ahead: Units that are asked before their turn, by the id of their first test.
        scored: Likewise what its given continuations came to.
        model_info: What answered says of itself, as far as nobody has been told.
        predictors: What the fixture of that name shares between tests.
    """

    def __init__(
        self, config: pytest.Config, plan: Plan, items: Mapping[str, pytest.Function]
    ) -> None:
        self._config = config
        self.options, self.process = options_of(config), process_of(config)
        self.plan, self._items = plan, items
        size = self.options.unit_size
        self.units = [unit for one in plan.values() for unit in work_units(one.ids, size)]
        self._next = dict(pairwise(self.units))
        self._unit_of = {name: unit for unit in self.units for name in unit}
        self.progress = UnitProgress.of(config)
        self.folder = RunFolder(self.process, self.options, config.rootpath)
        self.fidelity = RunFidelity(self.process, self.options)
        self.self_check = SessionCheck(self.process, self.options)
        self.answers: dict[str, Completion | Exception] = {}
        self.ahead: dict[str, Asked | Answered] = {}
        self.scored: dict[str, Sequence[Completion | Exception]] = {}
        self.model_info: dict[str, Any] = {}
        self._told: dict[str, Any] = {}
        self.predictors: Predictors | None = None

    def unit(self, item: pytest.Item) -> list[pytest.Function]:
        """The tests whose cases are generated together with this one's."""
        return [self._items[node_id] for node_id in self._unit_of[item.nodeid]]

    @property
    def asks_ahead(self) -> bool:
        """Whether a server is asked for a unit before its turn.

        Not where the user says how many are waited for.
        """
        options = self.options
        served = options.spec.protocol is not None and options.replay is None
        return served and self._keeps_units and options.batch_size is None

    @property
    def _keeps_units(self) -> bool:
        """Whether no other worker may get what this process has been given."""
        return self.process.keeps or not self.process.is_worker

    def next_units(self, item: pytest.Item, count: int) -> Iterator[list[pytest.Function]]:
        """The tests of so many units after this one's, as far as there are any for this process."""
        count = count if self._keeps_units else 0
        for unit in islice(self._following(self._unit_of[item.nodeid]), count):
            yield [self._items[node_id] for node_id in unit]

    def _following(self, unit: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """The units that this process will run after one, in order; of a worker as far as known."""
        if self.process.is_worker:
            given = waiting_tests(self._config)
            theirs = dict.fromkeys(self._unit_of[name] for name in given if name in self._unit_of)
            yield from (one for one in theirs if given.keys() >= set(one))
            return
        while (after := self._next.get(unit)) is not None:
            yield (unit := after)

    def recorded(self, engine: Engine) -> Engine:
        """The engine, which keeps its answers beside the run's records from now on.

        Where the run goes on or is replayed it looks for them first. A session without probe cases
        keeps nothing. Before its first case the model is checked, if the user asked for that.
        """
        if engine.store is None and self.plan:
            self.self_check.make_once(engine, self.progress)
            engine.store = self.folder.store(engine.backend)
        self.folder.look_for_lost()
        return engine

    def answered(self, engine: Engine) -> None:
        """Remember what the model says of itself: it has answered.

        What a server is known for grows with its answers; a model in this process stays as it is.
        """
        if not self._told or self.options.spec.protocol is not None:
            store = engine.store
            if store is None:
                info = dict(engine.backend.info)
            else:
                info = store.info if store.replays else store.completed(engine.backend.info)
            if info != self._told:
                self._told = self.model_info = dict(info)


def is_refused(session: pytest.Session) -> bool:
    """Whether something that only collection finds out makes this run none; `refusal`.

    Raises:
        pytest.UsageError: It does, and this is the only process.
    """
    config = session.config
    try:
        collected = [probe.experiment for probe in config.stash.get(PROBES, {}).values()]
        check_experiments(config, options_of(config), collected)
        refuse_unknown_data(session)
    except pytest.UsageError as error:
        refuse(config, str(error))
    except SettingsError as error:
        refuse(config, f"llmprobe: {error}")
    return end_if_refused(session)


def begin_unless_refused(session: pytest.Session) -> None:
    """Make the Run of what was collected, unless it is none.

    Raises:
        pytest.UsageError: It is none, and this is the only process.
    """
    if is_refused(session):
        return
    try:
        begin(session)
    except (OSError, StorageError) as error:  # nowhere to tell the controller what is asked
        session.items.clear()
        end_run(session, unwritten(error))


def begin(session: pytest.Session) -> Run:
    """Make the Run of what was collected; in a worker, leave its plan for the controller."""
    plan, items = plan_session(session)
    run = session.config.stash[RUN] = Run(session.config, plan, items)
    if plan and run.process.is_worker and not run.process.plan_file.exists():
        run.process.make_scratch()
        write_plan(plan, run.process.plan_file)
    if plan and run.process.is_worker:
        leave_with_controller(run.process.leave_scratch)
    return run


def join_workers(config: pytest.Config) -> Run:
    """Make the Run of xdist's controller from the plan that its workers left."""
    run = config.stash[RUN] = Run(config, read_plan(process_of(config).plan_file), {})
    return run
