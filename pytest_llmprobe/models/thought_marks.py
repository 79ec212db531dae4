"""What begins and ends a model's thought, as its tokenizer, its template or a user names it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Mark(NamedTuple):
    """What begins and ends a thought.

    Args:
        open: Text before it.
        close: Text after it.
        channels: They are headers of messages: a thought may have several of the first kind, and
            ends of messages within it.
    """

    open: str
    close: str
    channels: bool = False


HARMONY = Mark("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", channels=True)

KNOWN = (
    *(
        Mark(f"<{name}>", f"</{name}>")
        for name in ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")
    ),
    Mark("<longcat_think>", "</longcat_think>"),
    Mark("[THINK]", "[/THINK]"),
    Mark("<|START_THINKING|>", "<|END_THINKING|>"),
    Mark("<|begin_of_thought|>", "<|end_of_thought|>"),
    Mark("<|channel>thought", "<channel|>"),
    Mark("◁think▷", "◁/think▷"),
    Mark("<|inner_prefix|>", "<|inner_suffix|>"),
    HARMONY,
)
"""Qwen, DeepSeek and many others; Seed-OSS; LongCat; Magistral; Command A; OpenThinker; Gemma 4;
Kimi; Apertus; gpt-oss."""

WORDS = (Mark("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),)
"""Apriel. Anybody may say such words, so they are marks only where a template names the second."""

_WORD = r"[\w:]*(?:think|thought|reason)[\w:]*"
_PAIRS = (
    (rf"<({_WORD})>", "<{}>", "</{}>"),
    (rf"\[({_WORD})\]", "[{}]", "[/{}]"),
    (rf"<\|({_WORD})\|>", "<|{}|>", "<|/{}|>"),
    (rf"<\|start_({_WORD})\|>", "<|start_{}|>", "<|end_{}|>"),
    (rf"<\|begin_of_({_WORD})\|>", "<|begin_of_{}|>", "<|end_of_{}|>"),
)


def marks_in(template: str, tokens: Iterable[str]) -> tuple[Mark, ...]:
    """The marks that a chat template or a tokenizer's added tokens name, those unknown so far too.

    A name is a mark only together with its other half.
    """
    named = "\n".join((template, *tokens))
    marks = [mark for mark in KNOWN if mark.open in named or mark.close in named]
    marks += [mark for mark in WORDS if mark.close in named]
    for pattern, opening, closing in _PAIRS:
        for found in re.finditer(pattern, named, re.IGNORECASE):
            word = found[1]
            pair = Mark(opening.format(word), closing.format(word))
            if found[0].startswith("<|START"):
                pair = Mark(pair.open.replace("start", "START"), pair.close.replace("end", "END"))
            if pair.open in named and pair.close in named and pair not in marks:
                marks.append(pair)
    return tuple(marks)


_TAIL = 200
_WITHIN = re.compile(r"(?:<[a-z][\w:]*>\s*){2,}$")
"""Tags of a thought's own, as that of Seed-OSS for a budget."""


def opened_by(prompt: str, marks: Sequence[Mark]) -> Mark | None:
    """The mark that a prompt ends with, so that what follows is a thought already."""
    end = prompt.rstrip()
    found = next((mark for mark in marks if end.endswith(mark.open)), None)
    tags = _WITHIN.search(end[-_TAIL:])
    if found is None and tags is not None:
        found = next((mark for mark in marks if mark.open in tags[0]), None)
    return found


def closed_by(prompt: str, marks: Sequence[Mark]) -> bool:
    """Whether a prompt ends with a thought that is over: what follows is the answer."""
    end = prompt.rstrip()
    return any(end.endswith(mark.close) for mark in marks)
