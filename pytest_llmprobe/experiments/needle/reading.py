"""What a model answered: its UUIDs, how well a list fits, and how a wrong answer failed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_llmprobe.case import Case
from pytest_llmprobe.experiments.needle.haystack import SPECIAL, UUID, UUID_OR_MARKED
from pytest_llmprobe.experiments.needle.solver import Links, Task, read_task
from pytest_llmprobe.generation import Completion


@dataclass(frozen=True)
class Answer:
    """The UUIDs of a completion."""

    uuids: tuple[str, ...]  # all of them, in lower case and in order
    cut_off: bool = False  # the completion ended because it had no tokens left
    has_marked_key: bool = False  # it holds a key of a conditional needle, such as ``3f*a...``

    @property
    def first(self) -> str | None:
        """The first one: the lenient reading."""
        return self.uuids[0] if self.uuids else None

    @property
    def only(self) -> str | None:
        """The one UUID that the answer holds, or None if there are none or different ones."""
        return self.uuids[0] if len(set(self.uuids)) == 1 else None

    @property
    def distinct(self) -> list[str]:
        """Each UUID once, where it is said first: the list that the answer gives."""
        return list(dict.fromkeys(self.uuids))

    def explain(self, case: Case) -> str:
        """How the answer failed: a word of the taxonomy, a colon, a sentence.

        The first UUID that was not required decides: ``start_key``, ``stopped_k_hops_early``,
        ``shorter_branch``, ``other_value_in_haystack``, ``other_key_in_haystack`` or
        ``invented_uuid``. Without one: ``no_uuid``, ``missing_items``, ``cut_off`` or
        ``wrong_order``; ``correct`` if nothing failed.
        """
        targets = _targets(case)
        task = read_task(case.prompt, case.metadata.get("special", SPECIAL))
        wrong = next((found for found in self.distinct if found not in targets), None)
        if wrong is not None:
            return _explain_wrong(wrong, task)
        if not self.uuids or len(self.distinct) < len(targets):
            return self._explain_missing(targets)
        if self.distinct != targets and not task.is_conditional:
            return f"wrong_order: all {len(targets)} values, in another order than asked"
        return "correct: it holds what is required and no other UUID"

    def _explain_missing(self, targets: Sequence[str]) -> str:
        if self.cut_off:
            return "cut_off: max_new_tokens ran out before the answer was complete"
        if self.uuids:
            missing = len(targets) - len(self.distinct)
            return f"missing_items: {missing} of {len(targets)} values are missing"
        if self.has_marked_key:
            return "start_key: it gives a key that contains * and no value"
        return "no_uuid: the answer holds no UUID"


def _targets(case: Case) -> list[str]:
    return list(case.target) if isinstance(case.target, tuple) else (case.target or "").split()


def _explain_wrong(wrong: str, task: Task) -> str:
    if wrong in task.keys:
        return f"start_key: it gives the key {wrong} that was asked for"
    links = Links(task.pairs)
    for key in task.keys:
        path = links.longest(key)
        if wrong in path:
            hops = len(path) - 1 - path.index(wrong)
            return f"stopped_{hops}_hops_early: {wrong} is on the thread"
        if any(wrong in step for step in links.steps(key)):
            return f"shorter_branch: {wrong} ends a branch that is not the longest"
    if any(wrong == pair.value for pair in task.pairs):
        return f"other_value_in_haystack: {wrong} belongs to another key"
    if any(wrong == pair.key for pair in task.pairs):
        return f"other_key_in_haystack: {wrong} is another key"
    return f"invented_uuid: {wrong} is not in the haystack"


def parse_answer(completion: Completion) -> Answer:
    """The UUIDs of a model's answer; half of one at the end does not count."""
    text = completion.text
    uuids = tuple(found.lower() for found in UUID.findall(text))
    has_marked_key = any(SPECIAL in found for found in UUID_OR_MARKED.findall(text))
    return Answer(uuids, completion.finish_reason == "length", has_marked_key)


def score_list(
    case: Case, completion: Completion, score: Callable[[str, float], None], *, ordered: bool = True
) -> tuple[Answer, list[str]]:
    """Read an answer to a question for several values, and score how much of it is right.

    Args:
        case: What was asked; its target has one value a line.
        completion: What the model said.
        score: Is told each of the `list_scores`.
        ordered: Whether the order counts.

    Returns:
        The answer, and the values that are required.
    """
    answer, targets = parse_answer(completion), _targets(case)
    for name, value in list_scores(answer.distinct, targets, ordered=ordered).items():
        score(name, value)
    return answer, targets


def list_scores(
    items: Sequence[str], targets: Sequence[str], *, ordered: bool = True
) -> dict[str, float]:
    """How much of a list is right: precision, recall and F1 of its items.

    As sets, and with ``ordered`` also in order: there the items that count are the longest common
    subsequence, so one that is missing or too many does not put the others out of place.

    Args:
        items: What was answered, each item once.
        targets: What is required, all different, at least one.
        ordered: Also give ``ordered_precision``, ``ordered_recall`` and ``ordered_f1``.
    """
    place = {target: i for i, target in enumerate(targets)}
    found = [place[item] for item in items if item in place]
    scores = _scores("", len(found), len(items), len(targets))
    if ordered:
        rising: list[int] = []  # [k]: lowest end of a rising subsequence of k + 1 places
        for at in found:
            end = bisect_left(rising, at)
            rising[end : end + 1] = [at]
        scores |= _scores("ordered_", len(rising), len(items), len(targets))
    return scores


def _scores(prefix: str, right: int, given: int, required: int) -> dict[str, float]:
    return {
        f"{prefix}precision": right / given if given else 0.0,
        f"{prefix}recall": right / required,
        f"{prefix}f1": 2 * right / (given + required),
    }
