"""Which worker runs what: work units stay whole.

Imported in every pytest run of the environment, so heavier imports wait until they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


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
        """Rounds every chunk up to the end of its last work unit."""

        _numbers: list[int] | None = None

        def _unit_of(self, index: int) -> int:
            if self._numbers is None:
                from pytest_llmprobe.plugin.controller import session_run

                run = session_run(self.config)
                self._numbers = unit_numbers(self.collection, run.units if run else ())
            return self._numbers[index]

        def _send_tests(self, node: object, num: int) -> None:
            while 0 < num < len(self.pending) and (
                self._unit_of(self.pending[num - 1]) == self._unit_of(self.pending[num])
            ):
                num += 1
            super()._send_tests(node, num)

    return UnitScheduling(config, log)
