"""Which groups of cases are clusters: those whose prompts begin with one long text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pytest_llmprobe.case import Case, prompt_text

LONG = 200
"""Characters from which on a common beginning may be a haystack, and is not just a phrase."""


def groups_with_prefix(cases: Iterable[Case]) -> frozenset[str]:
    """The groups whose cases share half of their shortest prompt, and `LONG` characters at least.

    So are groups of one prompt that is asked several times.

    What the prompts of all groups begin with, such as an instruction, is not counted. Any other
    group is a label: its cases stand for themselves.
    """
    prompts: dict[str | None, list[str]] = defaultdict(list)
    for case in cases:
        prompts[case.group].append(prompt_text(case.prompt))
    everywhere = 0
    if len(prompts) > 1:
        everywhere = _shared([text for texts in prompts.values() for text in texts])
    found = set()
    for group, texts in prompts.items():
        shared = _shared(texts) - everywhere
        trials = len(texts) > 1 and len(set(texts)) == 1
        if (group is not None and trials) or (
            group is not None and len(texts) > 1 and shared >= max(LONG, min(map(len, texts)) / 2)
        ):
            found.add(group)
    return frozenset(found)


def _shared(texts: Sequence[str]) -> int:
    """Characters that all begin with: those of the first and the last in order."""
    first, last = min(texts), max(texts)
    low, high = 0, min(len(first), len(last))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[:middle] == last[:middle] else (low, middle - 1)
    return low
