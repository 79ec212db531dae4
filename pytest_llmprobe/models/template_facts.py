"""What a loaded tokenizer's chat template says of a model's thoughts and of the end of its turn."""

from __future__ import annotations

from typing import Any

from pytest_llmprobe.errors import ModelError, RequestError, TemplateTooCostlyError
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.models.thinking import Thinking, template_arguments, thinking_of


def template_facts(spec: ModelSpec, tokenizer: Any) -> tuple[Thinking, tuple[int, ...]]:
    """What is known of a model's thoughts, and the tokens that end an assistant's message.

    Raises:
        ModelError: An argument for the template, or a mark of thoughts, cannot be used; or the
            template cannot be rendered within bounds.
    """
    try:
        return _facts(spec, tokenizer)
    except TemplateTooCostlyError as error:
        raise ModelError(f"model {spec.name!r} cannot be asked: {error}") from None


def _facts(spec: ModelSpec, tokenizer: Any) -> tuple[Thinking, tuple[int, ...]]:
    template = template_of(tokenizer)
    arguments = template_arguments(template, spec.thinking, spec.template, spec.date)
    encoder = PromptEncoder(tokenizer, template is not None, arguments, date=spec.date)
    try:
        prompt = "" if template is None else encoder.text([{"role": "user", "content": "Why?"}])
    except TemplateTooCostlyError:
        raise
    except RequestError:
        prompt = ""  # every case will say so
    added = [str(token.content) for token in tokenizer.added_tokens_decoder.values()]
    thinking = thinking_of(spec, template, added, prompt, encoder.thought_mark())
    return thinking, _turn_ids(tokenizer, encoder.end_of_turn())


def template_of(tokenizer: Any) -> str | None:
    """The chat template that is used, or None."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError as error:  # several, and none of them is the default
        raise ModelError(f"the tokenizer has no default chat template: {error}") from None
    return template


def _turn_ids(tokenizer: Any, after: str) -> tuple[int, ...]:
    """The first token after an assistant's message, if it is a special one."""
    if not after.strip():
        return ()
    special = {
        token for token, added in tokenizer.added_tokens_decoder.items() if added.special
    } | set(tokenizer.all_special_ids)
    begins = set() if tokenizer.bos_token_id is None else {tokenizer.bos_token_id}
    ids = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"]
    return tuple(token for token in ids[:1] if token in special - begins)
