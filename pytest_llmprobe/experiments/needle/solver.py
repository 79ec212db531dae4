"""The reference solver: what a prompt asks for, and the answer, from the prompt's text alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_llmprobe.case import Prompt, prompt_text
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.needle.haystack import SPECIAL, UUID, Pair, read_haystack


@dataclass(frozen=True)
class Task:
    """What a prompt asks for."""

    pairs: tuple[Pair, ...]  # the haystack
    keys: tuple[str, ...]  # whose values, or whose threads' ends, are asked for, in order
    is_conditional: bool = False  # the keys are those that are marked, in any order


def read_question(text: str) -> str:
    """The key that a prompt asks for: the only UUID after its haystack.

    Raises:
        CasesError: None or several.
    """
    asked = _asked(text)
    if len(asked) != 1:
        raise CasesError(f"the prompt asks for {len(asked)} keys, expected one")
    return asked[0]


def read_task(prompt: Prompt, special: str = SPECIAL) -> Task:
    """The haystack, and the keys that are asked for after it: listed, or all that are marked.

    Raises:
        CasesError: There is no haystack, or nothing is asked for.
    """
    text = prompt_text(prompt)
    pairs = read_haystack(text)
    if keys := _asked(text):
        return Task(pairs, tuple(keys))
    marked = tuple(pair.key for pair in pairs if special in pair.key)
    if not marked or special not in _after_haystack(text):
        raise CasesError("the prompt asks for 0 keys, expected one or several")
    return Task(pairs, marked, is_conditional=True)


def _asked(text: str) -> list[str]:
    return [found.group() for found in UUID.finditer(_after_haystack(text))]


def _after_haystack(text: str) -> str:
    return text[text.rfind("}") + 1 :]


class Links:
    """The values of each key of a haystack, to follow many threads; a key may occur repeatedly."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._values: Mapping[str, list[str]] = defaultdict(list)
        for key, value in pairs:
            self._values[key].append(value)

    def steps(self, key: str) -> list[list[str]]:
        """The values that are 1, 2, ... hops away from ``key``, each value once."""
        met: set[str] = set()
        steps: list[list[str]] = []
        keys = [key]
        while True:
            values = [value for key in keys for value in self._values.get(key, ())]
            keys = [value for value in dict.fromkeys(values) if value not in met]
            if not keys:
                return steps
            met.update(keys)
            steps.append(keys)

    def longest(self, key: str) -> list[str]:
        """The values along the longest thread from ``key``, its end last."""
        path: list[str] = []
        for step in reversed(self.steps(key)):
            leads_on = [v for v in step if path and path[0] in self._values.get(v, ())]
            path.insert(0, (leads_on or step)[0])
        return path


def follow(pairs: Sequence[Pair], key: str) -> list[str]:
    """The values met from ``key`` until one is no key: the thread, its end last.

    Where a key occurs several times, along the longest thread.
    """
    return Links(pairs).longest(key)


def solve(prompt: Prompt, special: str = SPECIAL) -> str:
    """The reference solver: the answer from the prompt's text alone, several values one a line.

    A needle is a thread of one pair, and a thread has one branch, so one solver serves all tasks.

    Raises:
        CasesError: The prompt cannot be solved.
    """
    task = read_task(prompt, special)
    links = Links(task.pairs)
    ends = []
    for key in task.keys:
        steps = links.steps(key)
        if not steps:
            raise CasesError(f"the key {key} is not in the haystack")
        if len(steps[-1]) > 1:
            raise CasesError(f"{len(steps[-1])} threads from {key} are the longest, expected one")
        ends += steps[-1]
    return "\n".join(ends)
