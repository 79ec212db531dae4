"""What a model answered: the values among its UUIDs, how well they fit, and how it failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pytest_llmprobe.case import Case, Prompt
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.answers import is_denied, offers_both, plain
from pytest_llmprobe.experiments.needle.haystack import SPECIAL, UUID_OR_MARKED, render
from pytest_llmprobe.experiments.needle.list_scores import list_scores
from pytest_llmprobe.experiments.needle.solver import Links, Task, read_task
from pytest_llmprobe.experiments.settled import WITHDRAWN, Asked
from pytest_llmprobe.generation import Completion

_HYPHEN = r"(?:\\?[-\u2012-\u2015\u2043\u2212\ufe58])"
_BREAK = r"(?:[ \t]*\r?\n[ \t]*)?"  # an answer may be wrapped


def _digits(n: int) -> str:
    return f"(?:[0-9a-fA-F]{_BREAK}){{{n - 1}}}[0-9a-fA-F]"


_ANSWERED = re.compile(
    rf"(?<![0-9a-fA-F])(?<![0-9a-fA-F]-)"
    rf"{(_BREAK + _HYPHEN + _BREAK).join(map(_digits, (8, 4, 4, 4, 12)))}"
    rf"(?![0-9a-zA-Z]|-[0-9a-fA-F])"  # nor a word on the next line: ``Confidence``
)
"""A UUID as models write it: with any hyphen, on one line or several."""

_OR = re.compile(r"\W*(?:(?:or|alternatively)(?![a-z])|\u6216)", re.IGNORECASE)
_CUE = re.compile(
    r"\b(?:final|answer|conclusion|therefore|thus|hence|so)\b[^.\n]{0,80}\Z", re.IGNORECASE
)


@dataclass(frozen=True)
class Answer:
    """The UUIDs of an answer."""

    uuids: tuple[str, ...]  # all of them, in lower case and in order
    cut_off: bool = False  # the completion ended because it had no tokens left
    has_marked_key: bool = False  # it holds a key of a conditional needle, such as ``3f*a...``
    text: str = ""  # the answer in its plain form
    places: tuple[tuple[int, int], ...] = ()  # of the UUIDs in it

    @property
    def first(self) -> str | None:
        """The first one."""
        return self.uuids[0] if self.uuids else None

    @property
    def only(self) -> str | None:
        """The one UUID that the answer holds, or None if there are none or different ones."""
        return self.uuids[0] if len(set(self.uuids)) == 1 else None

    @property
    def distinct(self) -> list[str]:
        """Each UUID once, where it is said first."""
        return list(dict.fromkeys(self.uuids))

    @property
    def mentions(self) -> list[tuple[str, tuple[int, int]]]:
        """Each UUID and its place."""
        return list(zip(self.uuids, self.places, strict=True))

    def denies(self, value: str) -> bool:
        """Whether it says a UUID only to deny it."""
        places = [place for uuid, place in self.mentions if uuid == value]
        return all(is_denied(self.text, *place) for place in places)


@dataclass(frozen=True)
class Verdict:
    """What an answer to a case is worth."""

    values: tuple[str, ...]  # those that it gives, each once, in order
    explanation: str  # a word of the taxonomy, a colon, a sentence

    @property
    def correct(self) -> bool:
        """Whether it gives the required values and no other one."""
        return self.explanation.startswith("correct:")


def parse_answer(completion: Completion) -> Answer:
    """The UUIDs of a model's answer; half of one does not count."""
    return _parse(completion.text, completion.finish_reason == "length")


def uuids_of(text: str) -> tuple[str, ...]:
    """The UUIDs of a text, in lower case and in order, as an answer is read."""
    return _parse(text).uuids


def _parse(text: str, cut_off: bool = False) -> Answer:
    text = plain(text)
    found = list(_ANSWERED.finditer(text))
    uuids = tuple("-".join(re.findall("[0-9a-f]+", _joined(match))) for match in found)
    has_marked_key = any(SPECIAL in key for key in UUID_OR_MARKED.findall(text))
    return Answer(uuids, cut_off, has_marked_key, text, tuple(match.span() for match in found))


def _joined(match: re.Match[str]) -> str:
    return re.sub(r"\s", "", match[0]).lower()


def judge(case: Case, completion: Completion, score: Callable[[str, float], None]) -> Verdict:
    """Judge an answer to a question for one value or several.

    Keys that the question names do not count as values, nor do the steps of a thread that lead to
    its end. What is left must be the required values and no other one, in order unless the keys are
    conditional.

    Args:
        case: What was asked; its target has one value a line.
        completion: What the model said.
        score: Is told ``strict`` (the answer is nothing but the required UUIDs), ``contains`` (the
            share of them that it holds anywhere, as RULER and lm-evaluation-harness read), and for
            lists each of the `list_scores`.

    Returns:
        The values that the answer gives, and whether and how it failed.

    Raises:
        CasesError: The case has no target, or its prompt cannot be read.
    """
    targets = _targets(case)
    if not targets:
        raise CasesError(f"case {case.id}: it has no target, so no answer can be right")
    task = read_task(case.prompt, case.metadata.get("special", SPECIAL))
    answer = parse_answer(completion)
    verdict = _judge_settled(answer, task, targets)
    said = completion.text.lower()
    in_order = sorted if task.is_conditional else list
    is_bare = in_order(answer.uuids) == in_order(targets) and not _rest(answer)
    score("strict", is_bare)
    score("contains", sum(target in said for target in targets) / len(targets))
    if len(targets) > 1 or task.is_conditional:
        ordered = not task.is_conditional
        for name, value in list_scores(verdict.values, targets, ordered=ordered).items():
            score(name, value)
    return verdict


def is_right(answer: str, prompt: Prompt, targets: Sequence[str]) -> bool:
    """Whether an answer to a prompt gives the required values and no other one, as `judge` does."""
    return _judge_settled(_parse(answer), read_task(prompt), targets).correct


def _targets(case: Case) -> list[str]:
    return list(case.target) if isinstance(case.target, tuple) else str(case.target or "").split()


def _rest(answer: Answer) -> bool:
    """Whether there are words or numbers beside the UUIDs."""
    ends = [0, *(end for _, end in answer.places)]
    starts = [*(start for start, _ in answer.places), len(answer.text)]
    between = (answer.text[end:start] for end, start in zip(ends, starts, strict=True))
    return any(re.search(r"[^\W_]", part) for part in between)


def _judge_settled(answer: Answer, task: Task, targets: Sequence[str]) -> Verdict:
    """Judge what an answer stands by; where it says what is final, that decides."""
    asked = {*task.keys} - {*targets}

    def parsed(text: str) -> Answer:
        return answer if text == answer.text else _parse(text, answer.cut_off)

    def places(text: str) -> list[tuple[int, int]]:
        return [place for uuid, place in parsed(text).mentions if uuid not in asked]

    verdict = Asked(
        places,
        len(targets),
        lambda text: _judge_quoting(parsed(text), task, targets),
        lambda said: said.correct,
        lambda value: _parse(value).first in targets,
    ).verdict(answer.text)
    return verdict or Verdict((), WITHDRAWN)


def _judge_quoting(answer: Answer, task: Task, targets: Sequence[str]) -> Verdict:
    """Judge an answer that may repeat its whole haystack, which says nothing, before it answers."""
    verdict, haystack = _judge(answer, task, targets), render(task.pairs)
    if haystack not in answer.text:
        return verdict
    rest = _judge(_parse(answer.text.replace(haystack, ""), answer.cut_off), task, targets)
    return rest if rest.values or verdict.correct else verdict


def _judge(answer: Answer, task: Task, targets: Sequence[str]) -> Verdict:
    links = Links(task.pairs)
    paths = [links.longest(key) for key in task.keys]
    aside = {*task.keys, *(step for path in paths for step in path)} - set(targets)
    aside |= _dead_ends(answer, task, links, targets) - set(targets)
    values = tuple(uuid for uuid in answer.distinct if uuid not in aside)
    denied = {value for value in values if value not in targets and answer.denies(value)}
    values = tuple(value for value in values if value not in denied)
    wrong = next((value for value in values if value not in targets), None)
    if len(values) < len(targets) and answer.cut_off:
        said = "cut_off: max_new_tokens ran out before the answer was complete"
    elif wrong is not None:
        said = _explain_wrong(wrong, task, links)
    elif not values or len(values) < len(targets):
        said = _explain_missing(answer, task, paths, values, targets)
    elif list(values) != list(targets) and not task.is_conditional:
        said = f"wrong_order: all {len(targets)} values, in another order than asked"
    else:
        said = _explain_doubt(answer, targets)
    return Verdict(values, said)


def _dead_ends(answer: Answer, task: Task, links: Links, targets: Sequence[str]) -> set[str]:
    """Ends of shorter branches that the answer met before it came to say what is final."""
    branches = {v for key in task.keys for step in links.steps(key) for v in step}
    said = [n for n, uuid in enumerate(answer.uuids) if uuid not in task.keys]
    if not said or answer.uuids[said[-1]] not in targets:
        return set()
    end, (start, _) = answer.places[said[-2]][1] if len(said) > 1 else 0, answer.places[said[-1]]
    before = answer.text[max(end, start - 200) : start]
    return branches if _CUE.search(before.replace("\n", " ")) else set()


def _explain_wrong(wrong: str, task: Task, links: Links) -> str:
    if any(wrong in step for key in task.keys for step in links.steps(key)):
        return f"shorter_branch: {wrong} ends a branch that is not the longest"
    if any(wrong == pair.value for pair in task.pairs):
        return f"other_value_in_haystack: {wrong} belongs to another key"
    if any(wrong == pair.key for pair in task.pairs):
        return f"other_key_in_haystack: {wrong} is another key"
    return f"invented_uuid: {wrong} is not in the haystack"


def _explain_missing(
    answer: Answer,
    task: Task,
    paths: Sequence[Sequence[str]],
    values: Sequence[str],
    targets: Sequence[str],
) -> str:
    for path in paths:
        if path and path[-1] not in values:
            for hops, step in enumerate(reversed(path)):
                if step in answer.uuids:
                    return f"stopped_{hops}_hops_early: {step} is on the thread"
    if values:
        missing = len(targets) - len(values)
        return f"missing_items: {missing} of {len(targets)} values are missing"
    if key := next((uuid for uuid in answer.uuids if uuid in task.keys), None):
        return f"start_key: it gives the key {key} that was asked for"
    if answer.has_marked_key:
        return "start_key: it gives a key that contains * and no value"
    return "no_uuid: the answer holds no UUID"


def _explain_doubt(answer: Answer, targets: Sequence[str]) -> str:
    """What spoils an answer that holds the right values: it denies one, or is not decided."""
    for target in targets:
        if answer.denies(target):
            return f"denied: it says that it is not {target}"
    for (one, (_, end)), (two, (start, _)) in pairwise(answer.mentions):
        gap = answer.text[end:start]
        if one != two and _OR.match(gap) and offers_both(gap, listed=False):
            return f"hedged: it gives {one} or {two}"
    return "correct: it gives what is required and no other value"
