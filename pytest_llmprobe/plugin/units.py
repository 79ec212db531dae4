"""Work units: which cases are generated together.

A pure function of the node ids, so the scheduler in the controller and every worker compute the
same answer without a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

UNIT_SIZE = 32
"""Cases in a unit at most, unless one group alone is larger."""


def function_of(node_id: str) -> str:
    """The test function of ``path::test[parameters]``; a folder's name may hold a bracket too."""
    path, colons, test = node_id.partition("::")
    return path + colons + test.partition("[")[0]


def group_of(node_id: str) -> tuple[str, str]:
    """Test function and case group of ``path::test[group/name]``; without a group, the whole id."""
    function = function_of(node_id)
    parameters = node_id[len(function) + 1 :]
    group, slash, _ = parameters.rpartition("/")
    return function, group if slash else parameters


def work_units(node_ids: Iterable[str], size: int = UNIT_SIZE) -> list[tuple[str, ...]]:
    """Cut an ordered selection into units of consecutive cases of one test function.

    Args:
        node_ids: The selected cases in the order in which they will run.
        size: Cases in a unit at most; a group is never split, even if it is larger.

    Returns:
        The units in order; every id is in exactly one.
    """
    units: list[tuple[str, ...]] = []
    for _, ids in groupby(node_ids, key=lambda node_id: group_of(node_id)[0]):
        unit: list[str] = []
        for _, members in groupby(ids, key=group_of):
            group = list(members)
            if unit and len(unit) + len(group) > size:
                units.append(tuple(unit))
                unit = []
            unit += group
        units.append(tuple(unit))
    return units


def unit_numbers(node_ids: Sequence[str], units: Iterable[Sequence[str]]) -> list[int]:
    """For each node id the number of its unit; an id of no unit gets a number of its own."""
    number_of = {node_id: number for number, unit in enumerate(units) for node_id in unit}
    alone = len(number_of)
    return [number_of.get(node_id, alone + i) for i, node_id in enumerate(node_ids)]
