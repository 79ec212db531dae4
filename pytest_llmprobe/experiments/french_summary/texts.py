"""English texts by length for summaries in French: embedded stories, or texts of the user's.

Follows experiment 1 of the GUIDE paper (arXiv 2409.19001) and its published code: the first 10,000
texts of OpenWebText, in bins of 500 tokens of the whole prompt, 20 of each bin drawn with seed 42.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.french_summary import stories
from pytest_llmprobe.experiments.french_summary.bert_encoder import find_bert_encoder
from pytest_llmprobe.suite import Suite, seed_of

BIN = 500
"""Tokens from the lower end of a length bin to its upper one."""

READ, SEED = 10_000, 42
"""Texts of a data set that are looked at, and the seed of the draw, both as published."""

PUBLISHED_INSTRUCTIONS = (
    "Summarize in french:",
    "You must summarize the following text in french:",
    "Please give a summary in French of the text below:",
)
"""The first two as published."""

PUBLISHED_PROMPT = "{instruction}  \n {text}"
STORY_INSTRUCTIONS = tuple(
    stories.instruction(phrasing, "French") for phrasing in stories.INSTRUCTIONS
)

EMBEDDED = "embedded stories"
"""Source of the texts where the user gives none."""

FILLER = 20
"""Sentences by which the tokens of a sentence are estimated."""


@dataclass(frozen=True)
class SummaryText:
    """A text to be summarised."""

    text: str
    size: int  # upper end of its length bin, in tokens of the prompt
    number: int  # counts the texts of a bin
    source: str  # where it comes from, for the report
    template: str  # the prompt, with ``{instruction}`` and ``{text}``
    instructions: tuple[str, ...]  # phrasings of it
    reference: str | None = None  # a summary in French that an answer is compared with

    def prompt(self, instruction: str) -> str:
        """The whole prompt."""
        return self.template.format(instruction=instruction, text=self.text)


def summary_texts(
    suite: Suite, sizes: Sequence[int], count: int, answer: int
) -> Iterator[SummaryText]:
    """The texts of an evaluation: those of ``french_summary=SOURCE`` if the user gives them.

    Args:
        suite: Knows the user's data, and counts tokens.
        sizes: Upper ends of the length bins, in tokens of the prompt; each is 500 wide.
        count: Texts of a bin.
        answer: Tokens to keep free for an answer.

    Raises:
        CasesError: The texts cannot be read, or none has a length that is asked for.
    """
    limit = suite.context_length
    fitting = [size for size in sizes if limit is None or size + answer <= limit]
    if left_out := [f"{size:,}" for size in sizes if size not in fitting]:
        what = f"texts of up to {', '.join(left_out)} tokens"
        suite.leave_out(what, f"the model's context is {limit:,} tokens, {answer} for the answer")
    given = suite.dataset("french_summary")
    if given is not None:
        return _texts(suite, given, fitting, count)
    return (_story(suite, size, number) for size in fitting for number in range(count))


def _story(suite: Suite, size: int, number: int) -> SummaryText:
    """A story whose prompt has a random length within its bin."""
    seed = seed_of(suite.seed, "french_summary", size, number)
    low, high = size - BIN, size
    target = random.Random(seed).uniform(low + 0.1 * BIN, high - 0.1 * BIN)

    def build(sentences: int) -> tuple[SummaryText, int]:
        story = stories.story(random.Random(seed), sentences)
        form = EMBEDDED, stories.PROMPT, STORY_INSTRUCTIONS
        text = SummaryText(story.text, size, number, *form, story.summary_fr)
        return text, suite.tokens(text.prompt(text.instructions[0]))

    text, shortest = build(0)
    if shortest >= target:
        return text
    per_sentence = (build(FILLER)[1] - shortest) / FILLER
    sentences = round((target - shortest) / per_sentence)
    for _ in range(8):
        text, tokens = build(sentences)
        if low < tokens <= high:
            return text
        sentences = max(0, sentences + round((target - tokens) / per_sentence))
    raise CasesError(f"no story has {low} to {high} tokens of this model")


def _texts(suite: Suite, given: Any, sizes: Sequence[int], count: int) -> Iterator[SummaryText]:
    """A random choice of each bin, without replacement; all texts of a bin that has fewer."""
    sample = given.sample(texts=READ)
    bins: dict[int, list[tuple[str, str | None]]] = {size: [] for size in sizes}
    for text, reference in zip(sample.texts, sample.references, strict=True):
        tokens = suite.tokens(f"Summarize in french\n{text}")
        for size in sizes:
            if size - BIN < tokens < size:
                bins[size].append((text, reference))
    if not any(bins.values()):
        raise CasesError(f"{given}: no text has a length of {', '.join(map(str, sizes))} tokens")
    for size, texts in bins.items():
        if len(texts) < count:
            suite.leave_out(
                f"{count - len(texts)} of {count} texts of up to {size:,} tokens",
                f"{sample.origin} has no more",
            )
        # The draw of pandas' sample(count, random_state=42), which the published code uses.
        draw = np.random.RandomState((SEED + suite.seed) % 2**32)
        chosen = draw.choice(len(texts), min(count, len(texts)), replace=False) if texts else ()
        for number, place in enumerate(chosen):
            form = sample.origin, PUBLISHED_PROMPT, PUBLISHED_INSTRUCTIONS
            text, reference = texts[int(place)]
            yield SummaryText(text, size, number, *form, reference)


def bert_score_with(reference: str | None) -> str:
    """What BERTScore is measured with: an encoder's name, or ``not measured: ...``."""
    if reference is None:
        return "not measured: no French summary in the text's row: give it in a field `reference`"
    found = find_bert_encoder()
    return f"not measured: {found.missing}" if found.folder is None else found.name
