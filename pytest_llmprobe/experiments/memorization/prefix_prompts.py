"""How a model is asked to go on from a prefix, and how its answer is read: as token ids or as text.

A model in this process gets the ids of the prefix and says ids. A server gets a text, to be
continued or inside a chat message, and says one: it is cut into tokens as the truth is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.experiments.memorization.prefix_map.cutting import TextTokenizer
from pytest_llmprobe.experiments.memorization.prefix_map.files import PrefixEntry
from pytest_llmprobe.generation import Completion

PLACE = "{prefix}"
MESSAGE = (
    "Here is the beginning of a text. Go on with it word for word, from where it ends, and say "
    f"nothing else.\n\n{PLACE}"
)
"""Asks a model that answers chat messages only."""

DIVIDED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes a part of a character to."""


def check_message(message: str) -> None:
    """Refuse a message that has no place for the prefix.

    Raises:
        SettingsError: It has none.
    """
    if PLACE not in message:
        raise SettingsError(f"the message {message!r} has no {PLACE}, where the text goes")


class PrefixPrompts(Protocol):
    """One way of asking."""

    @property
    def about(self) -> dict[str, Any]:
        """What decides the prompts, so that a file is gone on with in the same way."""

    def prompt(self, entry: PrefixEntry) -> Prompt:
        """What the model is asked."""

    def read(
        self, entry: PrefixEntry, suffix: Sequence[int], completion: Completion
    ) -> tuple[list[int], list[int]]:
        """The ids of what was said, and those of the suffix to compare them with."""

    def text(self, suffix: Sequence[int]) -> str | None:
        """The true suffix as text."""


@dataclass(frozen=True)
class TokenPrompts:
    """The prefix's own token ids, after ``before`` (such as BOS): `TextTokenizer.before`.

    Without ``decode`` no result has its true suffix as text.
    """

    before: Sequence[int] = ()
    decode: Callable[[Sequence[int]], str] | None = None

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> TokenPrompts:
        """As a model with this tokenizer is asked."""
        return cls(tokenizer.before, tokenizer.decode)

    @property
    def about(self) -> dict[str, Any]:
        """The ids that go before."""
        return {"before": list(self.before)}

    def prompt(self, entry: PrefixEntry) -> Prompt:
        """Ids; the text is for reading, and of a lone space some tokenizers make none."""
        return RawPrompt(entry.prefix or " ", (*self.before, *entry.prefix_ids.tolist()))

    def read(
        self, entry: PrefixEntry, suffix: Sequence[int], completion: Completion
    ) -> tuple[list[int], list[int]]:
        """As they are."""
        return list(completion.token_ids), list(suffix)

    def text(self, suffix: Sequence[int]) -> str | None:
        """Decoded, if that is known how."""
        return self.decode(suffix) if self.decode is not None else None


@dataclass(frozen=True)
class TextPrompts:
    """The prefix as text, for a model that tells no token ids.

    Args:
        tokenizer: The map's. It cuts both what was said and what is true, so that they are alike
            where their texts are; white space between prefix and answer does not count, since
            servers and chat models leave it out.
        message: The chat message, with ``{prefix}`` where the prefix goes; None to send the prefix
            alone, as a text to be continued.

    Raises:
        SettingsError: The message has no place for the prefix.
    """

    tokenizer: TextTokenizer
    message: str | None = None

    def __post_init__(self) -> None:
        if self.message is not None:
            check_message(self.message)

    @property
    def about(self) -> dict[str, Any]:
        """The message."""
        return {"message": self.message}

    def prompt(self, entry: PrefixEntry) -> Prompt:
        """Whole characters only: what the cut divides, a server cannot be sent."""
        prefix = entry.prefix.rstrip(DIVIDED)
        return RawPrompt(prefix) if self.message is None else self.message.replace(PLACE, prefix)

    def read(
        self, entry: PrefixEntry, suffix: Sequence[int], completion: Completion
    ) -> tuple[list[int], list[int]]:
        """Both texts as tokens, after the white space with which the true one begins."""
        sent = entry.prefix.rstrip(DIVIDED)
        whole = self.tokenizer.decode([*entry.prefix_ids.tolist(), *suffix])
        true = whole[len(sent) :] if whole.startswith(sent) else self.tokenizer.decode(suffix)
        true = true.rstrip(DIVIDED)
        begins = true[: len(true) - len(true.lstrip())]
        said = begins + completion.text.lstrip()
        return list(self.tokenizer.encode(said)), list(self.tokenizer.encode(true))

    def text(self, suffix: Sequence[int]) -> str | None:
        """Decoded."""
        return self.tokenizer.decode(suffix)
