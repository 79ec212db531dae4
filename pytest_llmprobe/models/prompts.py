"""Token ids of prompts by a transformers tokenizer: through the chat template, long texts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.errors import RequestError
from pytest_llmprobe.models.chat_template import render
from pytest_llmprobe.models.chat_text import Messages, chat_text, end_of_turn, messages_of, one_bos
from pytest_llmprobe.models.encoding import LONG, LongTexts
from pytest_llmprobe.models.encoding_cache import user_cache
from pytest_llmprobe.models.rendered_thought import rendered_mark
from pytest_llmprobe.models.thought_marks import Mark

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel

NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})


class PromptEncoder:
    """Encodes prompts as the model is to read them; without chat template, as plain texts.

    Args:
        tokenizer: The model's.
        chat_template: Whether to use its chat template.
        arguments: Of the chat template.
        rows: Tokens that the model's embedding knows; None if there is no model to ask.
        date: What the chat template takes for today (``models.dates``).

    Attributes:
        has_template: Whether prompts go through a chat template.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat_template: bool,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
        rows: int | None = None,
        date: str | None = None,
    ) -> None:
        self._tokenizer, self._arguments = tokenizer, arguments
        self._rows, self._date = rows, date
        self.has_template = chat_template
        self._last: tuple[Prompt | None, list[int]] = (None, [])

    @classmethod
    def of(cls, loaded: LoadedModel) -> PromptEncoder:
        """As a loaded model is to be asked."""
        has_template = loaded.capabilities.chat_template
        rows = loaded.model.get_input_embeddings().num_embeddings
        arguments, date = loaded.thinking.arguments, loaded.spec.date
        return cls(loaded.tokenizer, has_template, arguments, rows, date)

    def ids(self, prompt: Prompt) -> list[int]:
        """Through the chat template if there is one; with one BOS at most.

        Raises:
            RequestError: The prompt cannot be rendered, or holds a token that the model lacks.
        """
        if isinstance(prompt, RawPrompt) and prompt.ids:
            return self._checked(self._of_ids(prompt.ids))
        return self._checked(self._of_text(*self._read(prompt)))

    def pair(self, prompt: Prompt, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of a prompt, and of a text that follows it without anything between.

        Cut as lm-evaluation-harness does (``_encode_pair`` of its api/model.py): white space at the
        end of the prompt belongs to the continuation, whose ids are those of both together without
        the first as many as the prompt alone has. An empty prompt is the token that texts begin
        with, BOS or else EOS.

        Raises:
            RequestError: As ``ids``; or there is nothing to follow, or no token to begin with.
        """
        if isinstance(prompt, RawPrompt) and prompt.ids:
            context, whole = self._of_ids(prompt.ids), self._plainly(continuation, False)
            whole = context + whole
        else:
            text, special_tokens = self._read(prompt)
            if prompt != self._last[0]:  # each choice of a case has the same one
                self._last = prompt, self._of_text(text.rstrip(), special_tokens)
            context, whole = self._last[1], self._of_text(text + continuation, special_tokens)
            if not text.strip():
                context, whole = self._from_the_beginning(text + continuation)
        if len(whole) <= len(context):
            raise RequestError(
                f"the tokenizer makes no tokens of the continuation {continuation!r}"
            )
        self._checked(whole)
        return context, whole[len(context) :]

    def _from_the_beginning(self, text: str) -> tuple[list[int], list[int]]:
        """The token that texts begin with, and the ids of a text after it."""
        ids = self._encoded(text, special_tokens=False)
        names = ("bos_token_id", "eos_token_id")
        first = next(
            (i for n in names if (i := getattr(self._tokenizer, n, None)) is not None), None
        )
        if first is None:
            raise RequestError("the tokenizer has neither BOS nor EOS for a text to begin with")
        return [first], ids if ids[:1] == [first] else [first, *ids]

    def _checked(self, ids: list[int]) -> list[int]:
        if self._rows is not None and ids and max(ids) >= self._rows:
            strange = next(token for token in ids if token >= self._rows)
            raise RequestError(
                f"the prompt holds {self._tokenizer.convert_ids_to_tokens(strange)!r}, token "
                f"{strange}, and the model's embedding has {self._rows} rows: the tokenizer has "
                f"{len(self._tokenizer)} tokens. Resize the embedding, or leave that token out"
            )
        return ids

    def _read(self, prompt: Prompt) -> tuple[str, bool]:
        """What the model reads of a prompt, and whether the tokenizer adds its special tokens."""
        if isinstance(prompt, RawPrompt):
            return prompt.text, True
        if isinstance(prompt, str) and not self.has_template:
            return prompt, True
        if not self.has_template:
            raise RequestError(
                "the prompt is a list of chat messages, but this model's tokenizer has no chat "
                "template; give the prompt as one string"
            )
        return self.text(messages_of(prompt)), False

    def text(self, messages: Messages) -> str:
        """What the chat template makes of messages; as ``ids``."""
        return chat_text(self._render, messages)

    def end_of_turn(self) -> str:
        """What the chat template writes after an assistant's message."""
        return end_of_turn(self._render) if self.has_template else ""

    def thought_mark(self) -> Mark | None:
        """What the chat template writes around the thought of an assistant's message."""
        return rendered_mark(self._render) if self.has_template else None

    def _render(self, messages: Messages, answer_follows: bool) -> str:
        return render(
            self._tokenizer.get_chat_template(),
            messages,
            self._tokenizer.special_tokens_map,
            answer_follows=answer_follows,
            arguments=self._arguments,
            date=self._date,
        )

    def _of_ids(self, ids: Sequence[int]) -> list[int]:
        if strange := [token for token in ids if not 0 <= token < len(self._tokenizer)]:
            raise RequestError(
                f"the prompt's token {strange[0]} is none of this tokenizer's "
                f"{len(self._tokenizer)}; were its ids made with another one?"
            )
        return list(ids)

    def _of_text(self, text: str, special_tokens: bool) -> list[int]:
        ids = self._encoded(text, special_tokens)
        return one_bos(ids, getattr(self._tokenizer, "bos_token_id", None))

    def _encoded(self, text: str, special_tokens: bool) -> list[int]:
        if len(text) >= LONG and (texts := self._texts) is not None:
            sample = text[: LONG // 10]  # does the tokenizer add anything to what its backend does?
            if texts.ids(sample, special_tokens) == self._plainly(sample, special_tokens):
                return texts.ids(text, special_tokens)
        return self._plainly(text, special_tokens)

    def _plainly(self, text: str, special_tokens: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=special_tokens)["input_ids"])

    @cached_property
    def _texts(self) -> LongTexts | None:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None or getattr(backend, "encode_special_tokens", False):
            return None
        return LongTexts(backend, user_cache())
