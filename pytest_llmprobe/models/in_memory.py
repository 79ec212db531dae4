"""A model that is in memory already: looked at and asked as it is, and given back as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.context_length import context_length
from pytest_llmprobe.models.loading import LoadedModel, assembled, plain_generation
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.models.registry import IN_MEMORY, ModelSpec
from pytest_llmprobe.models.template_facts import template_of
from pytest_llmprobe.models.thinking import template_arguments
from pytest_llmprobe.models.token_counter import TokenCounter


@dataclass(frozen=True, eq=False)
class HeldModel:
    """A transformers model and its tokenizer that somebody else made, and may be training.

    Args:
        model: Without what wraps it: DataParallel, torch.compile, PEFT.
        tokenizer: Its own.
        spec: What there is to say of where it comes from.
    """

    model: Any
    tokenizer: Any
    spec: ModelSpec

    @classmethod
    def of(cls, model: Any, tokenizer: Any, name: str | None = None) -> HeldModel:
        """Take a model out of its wrappers; without a name, called what it was loaded from.

        Raises:
            ModelError: It is no transformers model, has no tokenizer, or is not whole in here.
        """
        if not isinstance(model, torch.nn.Module):
            raise ModelError(
                f"{type(model).__name__} is no model: give a loaded one, a transformers model with "
                "its tokenizer, or what follows the Backend protocol"
            )
        model = extract_model_from_parallel(model, keep_torch_compile=False)
        if hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
            kinds = {str(one.peft_type) for one in model.peft_config.values()}
            if getattr(model.active_peft_config, "is_prompt_learning", False):
                raise ModelError(f"{kinds} lies in no weights of its base and cannot be evaluated")
            model = model.get_base_model()  # with the adapter's layers in it
        if not isinstance(model, PreTrainedModel):
            raise ModelError(f"{type(model).__name__} is no transformers model (PreTrainedModel)")
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise ModelError(
                f"a model in memory needs its tokenizer, and {type(tokenizer).__name__} is none: "
                "give tokenizer=AutoTokenizer.from_pretrained(...)"
            )
        if any(weight.is_meta or not weight.numel() for weight in model.parameters()):
            raise ModelError(
                f"{type(model).__name__} is not whole in this process (meta tensors, FSDP or "
                "DeepSpeed ZeRO-3): save it and evaluate the folder"
            )
        name = name or model.config.name_or_path or type(model).__name__
        return cls(model, tokenizer, ModelSpec(name, f"{IN_MEMORY}{name}"))

    def loaded(self, spec: ModelSpec | None = None) -> LoadedModel:
        """As ``load_model`` gives a model, with other settings than its own if they are given.

        Raises:
            ModelError: Its chat template does not take an argument of the spec.
        """
        with borrowed(self.model):
            return assembled(spec or self.spec, self.model, self.tokenizer)

    def counter(self, spec: ModelSpec) -> TokenCounter:
        """Counts the tokens of prompts as this model is to read them."""
        return _HeldCounter(self, spec)


class _HeldCounter(TokenCounter):
    """Of a tokenizer in memory; there are no files."""

    def __init__(self, held: HeldModel, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._held = held

    @property
    def config(self) -> dict[str, Any]:
        given: dict[str, Any] = self._held.model.config.get_text_config(decoder=True).to_dict()
        return given

    @cached_property
    def context_length(self) -> int | None:
        return self._spec.context or context_length(self.config)

    @cached_property
    def _reader(self) -> Any:
        return _Reader(self._held.tokenizer, self._spec)


class _Reader(PromptEncoder):
    """A prompt encoder that shows its tokenizer, as a counter's reader does."""

    def __init__(self, tokenizer: Any, spec: ModelSpec) -> None:
        template = template_of(tokenizer)
        arguments = template_arguments(template, spec.thinking, spec.template, spec.date)
        super().__init__(tokenizer, template is not None, arguments, date=spec.date)
        self.tokenizer = tokenizer


@contextmanager
def borrowed(model: Any, ends: LoadedModel | None = None) -> Iterator[None]:
    """A block in which a model is in evaluation mode and its own generation config is put aside.

    Afterwards every module is in the mode it was in, and the random generators of Python, numpy
    and torch, on all devices, go on where they were.

    Args:
        model: The transformers model.
        ends: Says what ends its answers.
    """
    modes = {module: module.training for module in model.modules()}
    own = model.generation_config
    python, legacy = random.getstate(), np.random.get_state()  # what others use
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        try:
            model.eval()
            if ends is not None:
                model.generation_config = plain_generation(ends)
            yield
        finally:
            model.generation_config = own
            for module, training in modes.items():
                module.training = training
            random.setstate(python)
            np.random.set_state(legacy)
