"""Token ids of prompts by a transformers tokenizer: through the chat template, long texts once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.errors import RequestError
from pytest_llmprobe.models.encoding import LONG, LongTexts
from pytest_llmprobe.models.encoding_cache import user_cache


class PromptEncoder:
    """Encodes prompts as the model is to read them; without chat template, as plain texts."""

    def __init__(self, tokenizer: Any, chat_template: bool) -> None:
        self._tokenizer, self._chat = tokenizer, chat_template

    def ids(self, prompt: Prompt) -> list[int]:
        """Through the chat template if there is one; the template writes BOS itself.

        Raises:
            RequestError: The prompt cannot be rendered.
        """
        if isinstance(prompt, RawPrompt):
            return self._of_raw(prompt)
        if isinstance(prompt, str) and not self._chat:
            return self._of_text(prompt, special_tokens=True)
        if not self._chat:
            raise RequestError(
                "the prompt is a list of chat messages, but this model's tokenizer has no chat "
                "template; give the prompt as one string"
            )
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, ValueError) as error:
            raise RequestError(f"the chat template refuses this prompt: {error}") from error
        return self._of_text(text, special_tokens=False)

    def _of_raw(self, prompt: RawPrompt) -> list[int]:
        if not prompt.ids:
            return self._of_text(prompt.text, special_tokens=True)
        if strange := [token for token in prompt.ids if not 0 <= token < len(self._tokenizer)]:
            raise RequestError(
                f"the prompt's token {strange[0]} is none of this tokenizer's "
                f"{len(self._tokenizer)}; were its ids made with another one?"
            )
        return list(prompt.ids)

    def _of_text(self, text: str, special_tokens: bool) -> list[int]:
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
