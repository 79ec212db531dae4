"""Where an answer begins and what ends it, token by token: the same rules on every path.

A thought before the answer has room of its own, and neither stop strings nor the answer's room
count in it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_llmprobe.engine.backend import Generated
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.generation import FinishReason
from pytest_llmprobe.models.thinking import Thinking
from pytest_llmprobe.models.thought_marks import opened_by
from pytest_llmprobe.models.thoughts import Scanner, thought_text

PROMPT_END = 32
"""Tokens of a prompt that may hold a mark of a thought at its end."""

PENDING = 8
"""Tokens whose bytes may be parts of one character."""


@dataclass(frozen=True)
class Endings:
    """What ends the answers of one model.

    Args:
        tokenizer: The model's.
        end_ids: Tokens that end everything.
        turn_ids: Tokens that end an assistant's message in its chat template.
        thinking: What is known of its thoughts.
    """

    tokenizer: Any
    end_ids: frozenset[int]
    turn_ids: frozenset[int] = frozenset()
    thinking: Thinking = field(default_factory=Thinking)

    def reader(self, row: Row) -> AnswerReader:
        """For one row, at its start."""
        return AnswerReader(self, row)


class AnswerReader:
    """Reads one row's tokens as they are generated.

    Attributes:
        tokens: Said so far, up to what ended them.
        ended: What did; None before.
    """

    def __init__(self, endings: Endings, row: Row) -> None:
        self._of, self._config, self._thinking = endings, row.config, row.thinking
        self.tokens: list[int] = []
        self.ended: FinishReason | None = None
        self._stops = StopCheck(endings.tokenizer, row.config.stop) if row.config.stop else None
        marks = endings.thinking.marks
        opened = None
        if marks:
            end = _raw(endings.tokenizer, row.prompt_ids[-PROMPT_END:])
            opened = opened_by(end, marks)
        self._scanner = Scanner(marks, opened)
        self._waits = endings.thinking.found or opened is not None
        self._pieces: list[str] = []
        self._lengths: list[int] = []  # characters up to each token, while a thought may come
        self._whole, self._shown = 0, 0  # tokens that are text already, and those before them
        self._start, self._skipped = 0, 0  # first token of the answer; its characters before that

    @property
    def most_to_come(self) -> int:
        """Tokens that may follow, at most."""
        return self._thinking + self._config.max_new_tokens - len(self.tokens)

    def add(self, token: int) -> FinishReason | None:
        """Take the next token; why it is the last one, or None."""
        self.tokens.append(token)
        self.ended = self._end_at(token)
        return self.ended

    def _end_at(self, token: int) -> FinishReason | None:
        of, scanner, room = self._of, self._scanner, self._config.max_new_tokens
        if token in of.end_ids or (token in of.turn_ids and not scanner.in_channels):
            return "stop"
        if not scanner.over:
            self._look()
        said = len(self.tokens)
        if scanner.within:
            return "length" if said >= (self._thinking or room) else None
        undecided = self._waits and not scanner.over
        if not undecided and self._stops and self._stops(self.tokens, self._start, self._skipped):
            return "stop_string"
        full = said - self._start >= room and not (undecided and self._thinking)
        return "length" if full or said >= self._thinking + room else None

    def _look(self) -> None:
        """Whether the thought begins, goes on or is over with what the last token adds."""
        tokens, tokenizer = self.tokens, self._of.tokenizer
        before = _raw(tokenizer, tokens[self._shown : self._whole])
        now = _raw(tokenizer, tokens[self._shown :])
        piece = ""
        if not now.endswith("\ufffd") or len(tokens) - self._whole > PENDING:
            piece = now[len(before) :]
            self._shown, self._whole = self._whole, len(tokens)
        self._pieces.append(piece)
        self._lengths.append((self._lengths[-1] if self._lengths else 0) + len(piece))
        self._scanner.feed(piece)
        if self._scanner.over:
            self._begin_answer()
        elif self._scanner.answer_at is not None and not self._scanner.within:
            self._start, self._skipped = len(tokens), 0  # white space after a thought

    def _begin_answer(self) -> None:
        """Find the token that the answer begins with, which may hold the end of a mark, too."""
        at, lengths = self._scanner.answer_at, self._lengths
        self._start = self._skipped = 0
        if at is None:
            return
        self._start = bisect_left(lengths, at)
        if self._start < len(lengths) and lengths[self._start] > at:
            first = self._text(self.tokens[self._start : self._start + 1])
            self._skipped = max(0, len(first) - (lengths[self._start] - at))
        else:
            self._start += 1

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._of.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    def _answer(self, tokens: Sequence[int]) -> str:
        """The text of the first tokens of the answer."""
        text = self._text(tokens)[self._skipped :]
        return text if self._scanner.answer_at is None else text.lstrip()

    def generated(self) -> Generated:
        """The thought and the answer, each by itself."""
        scanner, looked = self._scanner, not self._scanner.over
        reason: str
        scanner.finish()
        said = "".join(self._pieces)
        parts = [said[start:end] for start, end in scanner.spans]
        thought = thought_text(parts) if parts else ""
        if scanner.unfinished:
            return Generated("", tuple(self.tokens), self.ended or "length", thought=thought)
        if looked:
            self._begin_answer()
        answer, reason = self.tokens[self._start :], self.ended or "length"
        cut = None
        if self._stops is not None and (reason == "stop_string" or (looked and parts)):
            cut = self._stops.cut(answer, self._answer)
            reason = reason if cut is None else "stop_string"
        text = self._answer(answer) if cut is None else cut
        return Generated(text, tuple(self.tokens), reason, thought=thought or None)


class StopCheck:
    """Whether the end of an answer holds a stop string."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        special = _special_tokens(tokenizer)
        named = {text: next((s for s in special if s in text), None) for text in stop}
        self._plain = [text for text in stop if named[text] is None]
        # A text without special tokens never shows these.
        self._special = [(text, token) for text, token in named.items() if token is not None]
        self._ids = {tokenizer.convert_tokens_to_ids(token) for _, token in self._special}
        # A stop string of c characters spans at most c tokens, of up to 4 bytes a character.
        self._tail = 4 * max(map(len, stop)) + 4

    def __call__(self, tokens: Sequence[int], start: int = 0, skipped: int = 0) -> bool:
        """Look at the last tokens only: decoding all of them at each step would be quadratic.

        Args:
            tokens: All that was said.
            start: The answer's first token.
            skipped: Characters of it before the answer.
        """
        first = max(start, len(tokens) - self._tail)
        last = list(tokens[first:])
        if self._special:
            raw = _raw(self._tokenizer, last)
            if any(stop in raw for stop, _ in self._special):
                return True
        text = self._tokenizer.decode(last, skip_special_tokens=True)
        if first == start:
            text = text[skipped:]
        return any(stop in text for stop in self._plain)

    def cut(self, tokens: Sequence[int], text_of: Callable[[Sequence[int]], str]) -> str | None:
        """The text of tokens before the first stop string; None if there is none.

        None is found where bytes before it, broken off, take those of the stop string along.
        """
        text = text_of(tokens)
        places = [at for stop in self._plain if (at := text.find(stop)) >= 0]
        for stop, token in self._special:
            head, _, _ = stop.partition(token)
            for place, id_ in enumerate(tokens):
                if id_ in self._ids and self._stands_at(tokens, place, stop, token):
                    places.append(max(0, len(text_of(tokens[:place])) - len(head)))
                    break
        return text[: min(places)] if places else None

    def _stands_at(self, tokens: Sequence[int], place: int, stop: str, token: str) -> bool:
        """Whether a stop string's special token is the one at a place."""
        head, _, rest = stop.partition(token)
        before = _raw(self._tokenizer, tokens[max(0, place - self._tail) : place])
        after = _raw(self._tokenizer, tokens[place : place + self._tail])
        return before.endswith(head) and after.startswith(token + rest)


def _raw(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of tokens with the special ones."""
    if not tokens:
        return ""
    text: str = tokenizer.decode(list(tokens), skip_special_tokens=False)
    return text


def _special_tokens(tokenizer: Any) -> frozenset[str]:
    """Tokens that are left out of a text."""
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    named = getattr(tokenizer, "all_special_tokens", None) or ()
    return frozenset(
        [*named, *(str(token.content) for token in added.values() if token.special)]
    ) - {""}
