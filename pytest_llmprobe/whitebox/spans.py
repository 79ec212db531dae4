"""Where a substring of a prompt stands among the prompt's tokens, found through the chat template.

Pieces of a prompt are never tokenised apart: that gives other tokens than the whole prompt's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.case import Prompt, RawPrompt, Span, check_prompt, checked_spans
from pytest_llmprobe.errors import CasesError, RequestError
from pytest_llmprobe.models.prompts import PromptEncoder

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel

PRIVATE = range(0xE000, 0xF900)
"""Unicode's characters for private use: no text's own, and no template's."""


@dataclass(frozen=True)
class TokenSpan:
    """Tokens of a prompt.

    Args:
        positions: Places in the prompt's token ids, ascending.
        level: Factor of Delta.
        text: What the tokens say: the span, and what shares its border tokens.
    """

    positions: tuple[int, ...]
    level: float = 1.0
    text: str = ""


@dataclass(frozen=True)
class SpannedPrompt:
    """Token ids of a prompt, and its spans.

    Args:
        ids: As ``PromptEncoder`` gives them.
        spans: In the order in which they were asked for; they may overlap.

    Raises:
        CasesError: A span has a token outside the prompt.
    """

    ids: tuple[int, ...]
    spans: tuple[TokenSpan, ...]

    def __post_init__(self) -> None:
        for position in self.positions:
            if not 0 <= position < len(self.ids):
                raise CasesError(
                    f"token {position} of a span is outside a prompt of {len(self.ids)} tokens"
                )

    @property
    def positions(self) -> tuple[int, ...]:
        """Tokens of all spans, ascending."""
        return tuple(sorted({position for span in self.spans for position in span.positions}))

    def bias(self, delta: float) -> tuple[float, ...]:
        """For each token of the prompt what is added to its attention scores.

        A token of two spans gets the higher level. Two prompts may share the keys and values of
        their first tokens as far as both the ids and these numbers are the same.
        """
        levels = [0.0] * len(self.ids)
        for span in self.spans:
            for position in span.positions:
                levels[position] = max(levels[position], span.level)
        return tuple(delta * level for level in levels)


def locate(
    model: LoadedModel, prompt: Prompt, spans: Span | str | Sequence[Span | str]
) -> SpannedPrompt:
    """Find the tokens of substrings in a prompt as the model reads it.

    Returns:
        The prompt's token ids and the tokens that hold at least one character of each span.

    Raises:
        CasesError: The prompt does not hold a span, or holds it more than once.
        RequestError: The chat template drops, repeats or changes a span, or the tokenizer does
            not say which characters its tokens stand for.
    """
    return _located(PromptEncoder.of(model), model.tokenizer, prompt, spans)


def locate_with(
    tokenizer: Any,
    prompt: Prompt,
    spans: Span | str | Sequence[Span | str],
    chat_template: bool = True,
) -> SpannedPrompt:
    """As ``locate``, with a transformers tokenizer alone."""
    return _located(PromptEncoder(tokenizer, chat_template), tokenizer, prompt, spans)


def _located(
    encoder: PromptEncoder, tokenizer: Any, prompt: Prompt, spans: Span | str | Sequence[Span | str]
) -> SpannedPrompt:
    check_prompt(prompt)
    if not getattr(tokenizer, "is_fast", False):
        raise RequestError(
            f"{type(tokenizer).__name__} does not map tokens to characters, so no span can be "
            "found; use a model with a fast tokenizer"
        )
    ids = encoder.ids(prompt)
    rendering = _Rendering(encoder, prompt)
    encoded = _encoded(tokenizer, rendering, ids)
    found = []
    for span in checked_spans(spans):
        start, end = rendering.characters(span)
        positions = tuple(
            position
            for position, (first, last) in enumerate(encoded["offset_mapping"])
            if first < end and last > start
        )
        if not positions:
            raise RequestError(f"no token stands for {span.text.strip()!r}: the tokenizer drops it")
        said = tokenizer.decode([ids[position] for position in positions])
        found.append(TokenSpan(positions, span.level, said))
    return SpannedPrompt(tuple(ids), tuple(found))


def _encoded(tokenizer: Any, rendering: _Rendering, ids: Sequence[int]) -> Any:
    """The prompt's text encoded as its ids were, with the characters of each token."""
    # The ids of a raw prompt may be those of a text that a template has written, BOS and all.
    for special_tokens in (False,) if rendering.chat else (True, False):
        encoded = tokenizer(
            rendering.text, add_special_tokens=special_tokens, return_offsets_mapping=True
        )
        if list(encoded["input_ids"]) == list(ids):
            return encoded
    raise RequestError(
        "the prompt's token ids are not those of its text, so no span can be found in it; "
        "give the prompt without ids of its own"
    )


def _occurrences(text: str, wanted: str) -> Iterator[int]:
    at = text.find(wanted)
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


class _Rendering:
    """The text of a prompt, and where pieces of its messages are in it."""

    def __init__(self, encoder: PromptEncoder, prompt: Prompt) -> None:
        self._encoder = encoder
        self.chat = encoder.has_template and not isinstance(prompt, RawPrompt)
        if isinstance(prompt, RawPrompt):
            prompt = prompt.text
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        self._messages = [dict(message) for message in prompt]
        self._contents = [message["content"] for message in self._messages]
        self.text = self._rendered(self._contents)

    def _rendered(self, contents: Sequence[str]) -> str:
        if not self.chat:
            return contents[0]
        pairs = zip(self._messages, contents, strict=True)
        messages = [message | {"content": content} for message, content in pairs]
        return self._encoder.text(messages)

    def characters(self, span: Span) -> tuple[int, int]:
        """First character of a span in ``text``, and the one after its last."""
        wanted = span.text.strip()
        message, at = self._place(span, wanted)
        start, end = self._unused_characters()
        contents = list(self._contents)
        content = contents[message]
        contents[message] = f"{content[:at]}{start}{wanted}{end}{content[at + len(wanted) :]}"
        marked = self._rendered(contents)
        times = marked.count(start)
        if times != 1 or marked.count(end) != 1:
            does = "drops" if times == 0 else "repeats"
            raise RequestError(f"the chat template {does} {wanted!r}; choose another span")
        first, after = marked.index(start), marked.index(end) - 1
        if marked.replace(start, "").replace(end, "") != self.text or (
            self.text[first:after] != wanted
        ):
            raise RequestError(
                f"the chat template changes {wanted!r} or the text around it; choose another span"
            )
        return first, after

    def _place(self, span: Span, wanted: str) -> tuple[int, int]:
        """Number of the message that holds a span, and the character where it begins there."""
        if span.message is not None and not 0 <= span.message < len(self._contents):
            raise CasesError(
                f"span {wanted!r}: there is no message {span.message}; the prompt has "
                f"{len(self._contents)}, counted from 0"
            )
        places = [
            (number, at)
            for number, content in enumerate(self._contents)
            if span.message in (None, number)
            for at in _occurrences(content, wanted)
        ]
        if not places:
            raise CasesError(f"the prompt does not hold {wanted!r}; a span is a substring of it")
        if span.occurrence is None and len(places) > 1:
            raise CasesError(
                f"the prompt holds {wanted!r} {len(places)} times; say which by occurrence=0 to "
                f"{len(places) - 1}, or the message by message="
            )
        occurrence = span.occurrence or 0
        if not 0 <= occurrence < len(places):
            raise CasesError(
                f"there is no occurrence {occurrence} of {wanted!r}; the prompt holds it "
                f"{len(places)} times, counted from 0"
            )
        return places[occurrence]

    def _unused_characters(self) -> tuple[str, str]:
        used = set(self.text).union(*self._contents)
        unused = (chr(code) for code in PRIVATE if chr(code) not in used)
        start, end = next(unused, ""), next(unused, "")
        if not end:
            raise RequestError("the prompt holds all characters for private use; leave two out")
        return start, end
