"""How many tokens a prompt has, from the files of a model's tokenizer: no weights, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.errors import CasesError, ModelError, RequestError
from pytest_llmprobe.models.context_length import context_length
from pytest_llmprobe.models.registry import ModelSpec, resolve
from pytest_llmprobe.models.thinking import template_arguments

if TYPE_CHECKING:
    from pytest_llmprobe.models.chat_text import Messages

SPECIAL_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


LAYER_COUNTS = ("decoder_layers", "num_decoder_layers", "num_hidden_layers", "n_layer", "n_layers")
"""Words of configs for how many layers answer: a decoder's, where an encoder has its own."""


def counter_of(
    spec: ModelSpec, user_models: Mapping[str, Mapping[str, Any]] | None = None
) -> TokenCounter | None:
    """The counter for a model's prompts; None behind a server whose tokenizer is not named.

    Raises:
        ModelError: The tokenizer that is named is unknown.
    """
    if spec.protocol is None:
        return TokenCounter(spec)
    if not spec.tokenizer:
        return None
    tokenizer = resolve(spec.tokenizer, user_models)
    tokenizer = replace(tokenizer, thinking=spec.thinking, template=spec.template)
    return TokenCounter(replace(tokenizer, context=spec.context))


def check_template(spec: ModelSpec) -> None:
    """Find out without the model whether its chat template takes the user's arguments.

    Raises:
        ModelError: It does not mention one of them.
    """
    if spec.template:
        try:
            TokenCounter(spec).ids("Why?")
        except CasesError as error:
            raise ModelError(str(error)) from None


class TokenCounter:
    """Counts what the engine will feed to a model: chat template and special tokens included.

    Nothing is read before it is needed. Of a hub model only small files are fetched.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    @cached_property
    def context_length(self) -> int | None:
        """Most tokens of prompt and answer together, or None if the config names no limit.

        Raises:
            CasesError: The config cannot be had.
        """
        if self._spec.context is not None:
            return self._spec.context
        return context_length(self.config)

    @property
    def config(self) -> dict[str, Any]:
        """What config.json says.

        Raises:
            CasesError: It cannot be had.
        """
        if (path := self._file("config.json")) is None:
            raise CasesError(f"{self._spec.source} has no config.json")
        return _read(path)

    @property
    def layer_count(self) -> int | None:
        """Layers of the model (of its decoder), or None where its config has no word for them.

        Raises:
            CasesError: The config cannot be had.
        """
        config = self.config
        inner = config.get("text_config")
        text = {**config, **inner} if isinstance(inner, dict) else config
        counts = (text.get(name) for name in LAYER_COUNTS)
        return next((count for count in counts if type(count) is int), None)

    @property
    def template(self) -> str | None:
        """The chat template that is used, or None.

        Raises:
            CasesError: A file of the tokenizer cannot be had.
        """
        own = self._file("chat_template.jinja")
        return own.read_text(encoding="utf-8") if own else _template(self._tokenizer_config)

    @property
    def added_tokens(self) -> list[str]:
        """Tokens that the tokenizer's files name beside its vocabulary; as `template`."""
        path, named = self._file("tokenizer.json"), self._tokenizer_config
        added = [] if path is None else _read(path).get("added_tokens") or []
        more = (named.get("added_tokens_decoder") or {}).values()
        return [str(token["content"]) for token in (*added, *more) if isinstance(token, dict)]

    @property
    def has_template(self) -> bool:
        """Whether prompts go through a chat template; as `ids`."""
        return self._reader.has_template

    def count(self, prompt: Prompt) -> int:
        """Tokens of a whole prompt; as `ids`."""
        return len(self.ids(prompt))

    def ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a whole prompt.

        Raises:
            CasesError: The tokenizer cannot be had, or the chat template refuses the prompt.
        """
        return self._reader.ids(prompt)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out; as `ids`."""
        text: str = self._reader.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    @cached_property
    def _reader(self) -> _FileReader | _TransformersReader:
        tokenizer = self._file("tokenizer.json")
        if tokenizer is None:
            return _TransformersReader(self._spec)
        config, template = self._tokenizer_config, self.template
        try:
            arguments = _arguments(template, self._spec)
        except (ModelError, RequestError) as error:
            raise CasesError(str(error)) from None
        return _FileReader(tokenizer, template, config, arguments, self._spec.date)

    @property
    def _tokenizer_config(self) -> dict[str, Any]:
        return self._json("special_tokens_map.json") | self._json("tokenizer_config.json")

    def _json(self, name: str) -> dict[str, Any]:
        path = self._file(name)
        return {} if path is None else _read(path)

    def _file(self, name: str) -> Path | None:
        """A file of the model, or None if it has none of this name."""
        spec = self._spec
        folder = spec.folder if name == "config.json" else spec.tokenizer_folder
        if folder is not None:
            path = folder / name
            return path if path.is_file() else None
        from pytest_llmprobe.models.hub import hub_file

        try:
            return hub_file(spec, name, beside="config.json")
        except ModelError as error:
            raise CasesError(f"the tokens of {spec.source} cannot be counted: {error}") from None


class _FileReader:
    """tokenizer.json, read by the library that transformers hands it to."""

    def __init__(
        self,
        tokenizer: Path,
        template: str | None,
        config: Mapping[str, Any],
        arguments: Mapping[str, Any],
        date: str | None,
    ) -> None:
        from tokenizers import Tokenizer

        from pytest_llmprobe.models.encoding import LongTexts
        from pytest_llmprobe.models.encoding_cache import user_cache

        try:
            self.tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # the library raises nothing more special
            raise CasesError(f"{tokenizer} cannot be read: {error}") from None
        self._texts = LongTexts(self.tokenizer, user_cache())
        self._template, self._arguments, self._date = template, arguments, date
        self.has_template = template is not None
        self._special = {
            f"{name}_token": str(token["content"] if isinstance(token, dict) else token)
            for name in SPECIAL_TOKENS
            if (token := config.get(f"{name}_token")) is not None
        }

        self._bos = self.tokenizer.token_to_id(self._special.get("bos_token", ""))

    def ids(self, prompt: Prompt) -> list[int]:
        from pytest_llmprobe.models.chat_text import chat_text, messages_of, one_bos

        if isinstance(prompt, RawPrompt) and prompt.ids:
            return list(prompt.ids)
        if isinstance(prompt, RawPrompt):
            return one_bos(self._texts.ids(prompt.text, special_tokens=True), self._bos)
        if self._template is None:
            if isinstance(prompt, str):
                return one_bos(self._texts.ids(prompt, special_tokens=True), self._bos)
            raise CasesError("the prompt is a list of chat messages, and there is no chat template")
        try:
            text = chat_text(self._render, messages_of(prompt))
        except RequestError as error:
            raise CasesError(str(error)) from None
        return one_bos(self._texts.ids(text), self._bos)

    def _render(self, messages: Messages, answer_follows: bool) -> str:
        from pytest_llmprobe.models.chat_template import render

        assert self._template is not None
        return render(
            self._template,
            messages,
            self._special,
            answer_follows=answer_follows,
            arguments=self._arguments,
            date=self._date,
        )


class _TransformersReader:
    """For models without tokenizer.json; imports transformers, which takes seconds."""

    def __init__(self, spec: ModelSpec) -> None:
        from pytest_llmprobe.models.loading import load_tokenizer
        from pytest_llmprobe.models.prompts import PromptEncoder
        from pytest_llmprobe.models.template_facts import template_of

        try:
            self.tokenizer = load_tokenizer(spec)
            template = template_of(self.tokenizer)
            arguments = _arguments(template, spec)
        except (ModelError, RequestError) as error:
            raise CasesError(str(error)) from None
        self.has_template = template is not None
        self._encoder = PromptEncoder(self.tokenizer, self.has_template, arguments, date=spec.date)

    def ids(self, prompt: Prompt) -> list[int]:
        try:
            return self._encoder.ids(prompt)
        except RequestError as error:
            raise CasesError(str(error)) from None


def _arguments(template: str | None, spec: ModelSpec) -> dict[str, Any]:
    return template_arguments(template, spec.thinking, spec.template, spec.date)


def _template(config: Mapping[str, Any]) -> str | None:
    """The chat template in a tokenizer's config: one, or several by name."""
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template if isinstance(template, str) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CasesError(f"{path} cannot be read: {error}") from None
    return content
