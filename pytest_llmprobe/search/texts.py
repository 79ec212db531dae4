"""What goes between rows and the model: how prompts are encoded, and answers decoded and mended."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.generation import Completion

if TYPE_CHECKING:
    from pytest_llmprobe.engine.engine import Engine

NOT_OURS = {
    "return_tensors": "prompts are handed on as lists of ids",
    "padding": "batches are padded by the engine; an answer depends on no padding",
    "return_overflowing_tokens": "a prompt has one row",
}
"""Arguments of a tokenizer's call that have no place here, and why."""

OF_DECODE = (
    "skip_special_tokens",
    "clean_up_tokenization_spaces",
    "spaces_between_special_tokens",
)
"""Arguments of a tokenizer's ``decode``, which would ignore a misspelt one."""


class Texts:
    """Prompts as a tokenizer's arguments make them, answers as its arguments and a function do.

    Args:
        engine: Has the tokenizer.
        encode: Arguments of the tokenizer's call, such as ``truncation`` and ``max_length``; the
            prompts are then raw texts.
        decode: Arguments of the tokenizer's ``decode``.
        postprocess: Makes of an answer's text the one that is scored.

    Raises:
        SettingsError: The engine's model is in no process of ours, or an argument has no place.
    """

    def __init__(
        self,
        engine: Engine,
        encode: Mapping[str, Any] | None,
        decode: Mapping[str, Any] | None,
        postprocess: Callable[[str], str] | None,
    ) -> None:
        self._encode, self._decode, self._postprocess = encode, decode, postprocess
        loaded = getattr(engine.backend, "loaded", None)
        self.tokenizer: Any = getattr(loaded, "tokenizer", None)
        for name, given in (("encode", encode), ("decode", decode)):
            if given is not None:
                self._needs_tokenizer(f"{name}={dict(given)!r}")
        for name in NOT_OURS.keys() & set(encode or {}):
            if not (name == "padding" and (encode or {})[name] in (True, False, "longest")):
                raise SettingsError(f"encode={{{name!r}: ...}}: {NOT_OURS[name]}; leave it out")
        called = inspect.signature(type(self.tokenizer).__call__).parameters
        _check_known("encode", encode, [*called][2:])
        _check_known("decode", decode, OF_DECODE)

    def prompter(self, prompter: Any) -> Any:
        """A prompt function that takes a ``tokenizer``, with this one.

        Raises:
            SettingsError: There is none.
        """
        if not callable(prompter) or "tokenizer" not in inspect.signature(prompter).parameters:
            return prompter
        self._needs_tokenizer("a prompt function with the argument tokenizer")
        return partial(prompter, tokenizer=self.tokenizer)

    def _needs_tokenizer(self, what: str) -> None:
        if self.tokenizer is None:
            raise SettingsError(f"{what} needs a model in this process, with its tokenizer")

    def prompts(self, made: Sequence[Prompt], ids: Sequence[str]) -> list[Prompt]:
        """As the tokenizer's arguments want them, if there are any; ``ids`` name the rows.

        Raises:
            CasesError: A prompt is no text, or nothing is left of it.
        """
        if self._encode is None:
            return list(made)
        return [self._encoded(prompt, id) for prompt, id in zip(made, ids, strict=True)]

    def _encoded(self, prompt: Prompt, id: str) -> RawPrompt:
        text = prompt.text if isinstance(prompt, RawPrompt) and not prompt.ids else prompt
        if not isinstance(text, str):
            raise CasesError(
                f"row {id}: encode=... takes texts; write the chat template into the prompt, with "
                "a prompt function of (row, tokenizer)"
            )
        try:
            found = self.tokenizer(text, verbose=False, **(self._encode or {}))["input_ids"]
        except (TypeError, ValueError) as error:
            raise SettingsError(f"encode={dict(self._encode or {})!r}: {error}") from None
        if not found:
            raise CasesError(f"row {id}: no token is left of its prompt")
        return RawPrompt(text, tuple(found))

    def answer(self, completion: Completion, stop: Sequence[str]) -> str:
        """The text that is scored."""
        text = completion.text
        if self._decode is not None:
            text = self.tokenizer.decode(list(completion.token_ids), **self._decode)
            ends = [at for at in map(text.find, stop) if at >= 0]
            text = text[: min(ends)] if ends else text
        return text if self._postprocess is None else self._postprocess(text)


def _check_known(name: str, given: Mapping[str, Any] | None, known: Sequence[str]) -> None:
    """Raise SettingsError for an argument that a tokenizer would ignore."""
    if unknown := sorted(set(given or {}) - set(known)):
        raise SettingsError(
            f"{name}={{{unknown[0]!r}: ...}}: no argument of the tokenizer; {', '.join(known)}"
        )
