"""A model in this process becomes a backend: loaded by name, or held by the caller."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from pytest_llmprobe.engine.backend import Backend
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.planning import Room
from pytest_llmprobe.engine.room import found_room
from pytest_llmprobe.engine.transformers_backend import TransformersBackend
from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.models.in_memory import HeldModel, borrowed
from pytest_llmprobe.models.loading import LoadedModel


def loaded_model(
    model: Any, tokenizer: Any
) -> tuple[LoadedModel, Callable[[], AbstractContextManager[None]]]:
    """The model as loaded, and what each call of an engine is to be in.

    Raises:
        ModelError: It is neither loaded nor a transformers model with its tokenizer.
        SettingsError: It is loaded and has a tokenizer.
    """
    if not isinstance(model, LoadedModel):
        model = HeldModel.of(model, tokenizer).loaded()
    elif tokenizer is not None:
        raise SettingsError(f"tokenizer: {model.spec.name!r} was loaded with its own")
    if not model.spec.in_memory:
        return model, nullcontext
    return model, partial(borrowed, model.model, model)


def backend_of(model: LoadedModel, batch_size: int | None, drafts: bool) -> tuple[Backend, Room]:
    """What answers, and how much a batch may hold."""
    if batch_size == 1:  # the reference path: plain generate
        return TransformersBackend(model), found_room(model)
    return FastBackend(model, drafts), found_room(model)
