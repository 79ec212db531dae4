"""Which worker runs what: work units stay whole.

Imported in every pytest run of the environment, so heavier imports wait until they are needed.
"""

from __future__ import annotations

from functools import cached_property
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from pytest_llmprobe.plugin.run import Run


def unit_scheduler(config: pytest.Config, log: Any) -> object | None:
    """A load scheduler that keeps work units whole, or None if the user chose another kind.

    ``--dist loadgroup`` would not do: on pytest 9.2 it silently spreads groups (pytest-xdist
    issue 1386).
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScheduling

    from pytest_llmprobe.plugin.units import unit_numbers

    class UnitScheduling(LoadScheduling):  # type: ignore[misc] # xdist has no type information
        """Rounds every chunk up to the end of its last work unit.

        Where a server answers, a worker is given the units that it is to ask for ahead.
        """

        @cached_property
        def _run(self) -> Run | None:
            from pytest_llmprobe.plugin.controller import session_run

            return session_run(self.config)

        @cached_property
        def _numbers(self) -> list[int]:
            return unit_numbers(self.collection, self._run.units if self._run else ())

        @cached_property
        def _ahead(self) -> int:
            from pytest_llmprobe.plugin.ahead import AHEAD

            return AHEAD if self._run is not None and self._run.asks_ahead else 0

        def _send_tests(self, node: object, num: int) -> None:
            while 0 < num < len(self.pending) and (
                self._numbers[self.pending[num - 1]] == self._numbers[self.pending[num]]
            ):
                num += 1
            super()._send_tests(node, num)

        def schedule(self) -> None:
            super().schedule()
            for _ in range(self._ahead):
                for node in self.nodes:
                    self._give_ahead(node)
            if self.collection and not self.pending:
                for node in self.nodes:
                    node.shutdown()

        def mark_test_complete(self, node: object, item_index: int, duration: float = 0) -> None:
            super().mark_test_complete(node, item_index, duration)
            left = self.node2pending[node]
            if not left or self._numbers[left[0]] != self._numbers[item_index]:
                self._give_ahead(node)

        def _give_ahead(self, node: Any) -> None:
            """A unit for a worker that has too few, unless another one has fewer."""
            if not self._ahead or not self.pending or node.shutting_down:
                return
            # It begins with one and reads what follows before it is told of more.
            has = {each: self._units_of(each, self._ahead + 2) for each in self.nodes}
            few = has[node] < self._ahead + 2 and has[node] <= min(has.values())
            if few:
                self._send_tests(node, 1)

        def _units_of(self, node: object, most: int) -> int:
            numbers = (self._numbers[index] for index in self.node2pending[node])
            return sum(1 for _ in islice(groupby(numbers), most))

    return UnitScheduling(config, log)


def waiting_tests(config: pytest.Config) -> dict[str, None]:
    """In a worker: the node ids that it has been given and has not begun with, in order.

    Nothing public says which they are; a future xdist may not say it at all.
    """
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__name__ == "WorkerInteractor" and hasattr(plugin, "torun"):
            interactor: Any = plugin
            with interactor.torun.lock() as queue:
                waiting = [interactor.nextitem_index, *queue]
            items = interactor.session.items
            return {items[index].nodeid: None for index in waiting if isinstance(index, int)}
    return {}
