"""A choice by log-likelihood: what is asked for a case, and the metrics of what comes back.

The metrics are those of lm-evaluation-harness (``process_results`` of its api/task.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_llmprobe.case import Case, Prompt, RawPrompt
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.generation import Completion, Request


@dataclass(frozen=True)
class Choice:
    """How likely a model finds each of some choices.

    Args:
        choices: The texts.
        target: Number of the right one.
        log_likelihoods: Of each after the prompt, natural logarithms; of the ending after prompt
            and choice where the case has one.
        most_likely: Whether greedy decoding would have said each.
        lengths: Characters of what was scored of each, without the space before it.
        byte_lengths: Its bytes in UTF-8.
        unconditional: Log-likelihoods after the prompt that says nothing; empty if there is none.
    """

    choices: tuple[str, ...]
    target: int
    log_likelihoods: tuple[float, ...]
    most_likely: tuple[bool, ...]
    lengths: tuple[int, ...]
    byte_lengths: tuple[int, ...]
    unconditional: tuple[float, ...] = ()

    @property
    def said(self) -> str:
        """The likeliest choice; the first of equals."""
        return self.choices[_best(self.log_likelihoods)]

    @property
    def acc(self) -> bool:
        """Whether the right choice is the likeliest."""
        return _best(self.log_likelihoods) == self.target

    @property
    def acc_norm(self) -> bool:
        """The same by the log-likelihood per character, as lm-evaluation-harness has it."""
        return _best(self._per_character) == self.target

    @property
    def _per_character(self) -> list[float]:
        each = zip(self.log_likelihoods, self.lengths, strict=True)
        return [value / length for value, length in each]

    @property
    def acc_bytes(self) -> bool:
        """The same per byte."""
        each = zip(self.log_likelihoods, self.byte_lengths, strict=True)
        return _best([value / length for value, length in each]) == self.target

    @property
    def acc_mutual_info(self) -> bool | None:
        """The same by how much likelier the prompt makes it; None without an unconditional one."""
        if not self.unconditional:
            return None
        each = zip(self.log_likelihoods, self.unconditional, strict=True)
        return _best([value - without for value, without in each]) == self.target

    @property
    def margin(self) -> float:
        """Nats by which the right choice leads the best other one; below 0 if it does not."""
        others = [v for n, v in enumerate(self.log_likelihoods) if n != self.target]
        return self.log_likelihoods[self.target] - max(others)

    @property
    def probability(self) -> float:
        """Of the right choice among the choices: softmax of the log-likelihoods."""
        top = max(self.log_likelihoods)
        weights = [math.exp(value - top) for value in self.log_likelihoods]
        return weights[self.target] / sum(weights)

    @property
    def scores(self) -> dict[str, float]:
        """What a record keeps of it."""
        found = {
            "acc": float(self.acc),
            "acc_norm": float(self.acc_norm),
            "acc_bytes": float(self.acc_bytes),
            "greedy": float(self.most_likely[self.target]),
            "log_likelihood": self.log_likelihoods[self.target],
            "margin": self.margin,
            "probability": self.probability,
        }
        if self.acc_mutual_info is not None:
            found["acc_mutual_info"] = float(self.acc_mutual_info)
        return found

    @property
    def problem(self) -> str:
        """Why the case is missed, for its assertion; empty if it is not."""
        if self.acc:
            return ""
        return f"other_choice: {self.said!r} is likelier by {-self.margin:.3f} nats"

    @property
    def problem_norm(self) -> str:
        """The same by ``acc_norm``."""
        if self.acc_norm:
            return ""
        each = self._per_character
        ahead = max(each) - each[self.target]
        said = self.choices[_best(each)]
        return f"other_choice: {said!r} is likelier by {ahead:.4f} nats a character"


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda n: (values[n], -n))


def joined(before: str, text: str) -> str:
    """What is put between a text and one that goes on: a space, unless one of them has some."""
    return text if not before or before[-1].isspace() or text[0].isspace() else f" {text}"


def requests_of(case: Case, chats: bool) -> list[Request]:
    """What a case with choices asks: each choice after the prompt, then after no real prompt.

    Args:
        case: The case.
        chats: Whether a string is sent through a chat template: then a choice begins the answer,
            and nothing stands before it.

    Raises:
        CasesError: It has no choices, or an ending after a prompt that is neither a text to be
            continued nor messages.
    """
    if not case.choices:
        raise CasesError(f"case {case.id!r} has no choices: give Case(choices=[...], target=...)")
    prompt = case.prompt
    if isinstance(prompt, str) and not chats:
        prompt = RawPrompt(prompt)
    if case.ending is not None:
        contexts = [_extended(case, prompt, choice) for choice in case.choices]
        return [Request(c, continuation=_after(c, case.ending)) for c in contexts]
    requests = [Request(prompt, continuation=_after(prompt, choice)) for choice in case.choices]
    if case.unconditional is not None:
        nothing = RawPrompt(case.unconditional)
        # The space stays after an empty prompt: it belongs to the choice's tokens.
        before = nothing if nothing.text.strip() else prompt
        requests += [Request(nothing, continuation=_after(before, c)) for c in case.choices]
    return requests


def _extended(case: Case, prompt: Prompt, choice: str) -> Prompt:
    """A prompt that goes on with a choice: that of a chat in its last message."""
    if isinstance(prompt, RawPrompt):
        return RawPrompt(prompt.text + joined(prompt.text, choice))
    if isinstance(prompt, str):
        raise CasesError(
            f"case {case.id!r}: an ending follows prompt and choice as one text: give the prompt "
            "as RawPrompt(text), or as messages of which the last one goes on with the choice"
        )
    *before, last = prompt
    text = str(last["content"])
    return [*before, {**last, "content": text + joined(text, choice)}]


def _after(prompt: Prompt, choice: str) -> str:
    return joined(prompt.text, choice) if isinstance(prompt, RawPrompt) else choice


def choice_of(case: Case, answers: Sequence[Completion]) -> Choice:
    """The choice, from the answers to ``requests_of`` in their order."""
    count = len(case.choices)
    values = [answer.log_likelihood for answer in answers]
    scored = [case.ending or choice for choice in case.choices]
    found = tuple(value for value in values if value is not None)
    assert len(found) == len(answers), "an engine that generated was asked for likelihoods"
    return Choice(
        case.choices,
        case.choices.index(str(case.target)),
        found[:count],
        tuple(answer.most_likely for answer in answers[:count]),
        tuple(map(len, scored)),
        tuple(len(text.encode()) for text in scored),
        found[count:],
    )
