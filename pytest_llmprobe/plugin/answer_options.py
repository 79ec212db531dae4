"""How the user wants answers to be had: of which model, with what room, and checked or not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.engine.completion_file import COMPLETIONS, run_of
from pytest_llmprobe.engine.endpoints.options import CONCURRENCY, TIMEOUT_S, EndpointOptions
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.generation import Layers
from pytest_llmprobe.models.local_packages import check_packages
from pytest_llmprobe.models.registry import ModelSpec, with_options

if TYPE_CHECKING:
    import pytest

    from pytest_llmprobe.models.token_counter import TokenCounter

DEFAULT_MODEL = "reference"


def model_said(config: pytest.Config, replay: Path | None) -> str:
    """What the user calls the model, or the replayed run did.

    Raises:
        SettingsError: The environment's name is empty: whoever set it meant a model.
    """
    recorded = replay and str(run_of(replay / COMPLETIONS).get("model", ""))
    if chosen := config.option.llmprobe_model or recorded:
        return str(chosen)
    if (named := os.environ.get("LLMPROBE_MODEL")) is not None:
        if not named.strip():
            raise SettingsError("LLMPROBE_MODEL is empty: name a model, or unset the variable")
        return named
    return config.getini("llmprobe_model") or DEFAULT_MODEL


def read_spec(option: Any, spec: ModelSpec, start: Path) -> ModelSpec:
    """The model's spec with what the command line says of it.

    Raises:
        ModelError: A package that it needs is absent.
    """
    spec = with_options(
        spec,
        dtype=option.llmprobe_dtype,
        device=option.llmprobe_device,
        device_map=option.llmprobe_device_map,
        attn_implementation=option.llmprobe_attn_implementation,
        quantization=option.llmprobe_quantization,
        adapter=option.llmprobe_adapter and str(start / option.llmprobe_adapter),
        trust_remote_code=option.llmprobe_trust_remote_code or None,
        base_url=option.llmprobe_base_url,
        thinking=option.llmprobe_thinking,
        date=option.llmprobe_date,
        context=option.llmprobe_context,
    )
    check_packages(spec)
    return replace(spec, template=dict(spec.template) | dict(option.llmprobe_template))


def read_generation(option: Any) -> dict[str, Any]:
    """Generation options of every experiment."""
    room = option.llmprobe_thinking_tokens
    return dict(option.llmprobe_generate) | ({} if room is None else {"thinking_tokens": room})


OTHER_ENGINES = {"openvino": ("openvino_genai", "openvino-genai"), "vllm": ("vllm", "vllm")}
"""Engines of other programs: the module that is imported, and the package that brings it."""


def read_engine(option: Any, spec: ModelSpec) -> str:
    """What generates: a model in each process, in one for all, or another program's engine.

    Raises:
        SettingsError: It cannot have this model, or is not installed.
    """
    name: str = option.llmprobe_engine
    if name == "process" or option.llmprobe_replay:
        return name
    said = f"--llmprobe-engine {name}"
    if spec.protocol is not None:
        raise SettingsError(f"{said}: {spec.name!r} is behind a server, which has its own engine")
    if spec.in_memory:
        raise SettingsError(f"{said}: this model is in the memory of its caller")
    if name != "shared":
        _check_other(name, said, spec)
    return name


def _check_other(name: str, said: str, spec: ModelSpec) -> None:
    """Whether another program's engine is here, and would read the weights that are named."""
    module, package = OTHER_ENGINES[name]
    if find_spec(module) is None:
        raise SettingsError(f"{said} needs the package {package}, which is absent: pip install it")
    for field in ("adapter", "quantization", "device_map"):
        if getattr(spec, field) is not None:
            raise SettingsError(f"{said} reads the checkpoint as it is: leave out {field}")
    if spec.random_weights:
        raise SettingsError(f"{said}: {spec.name!r} has no weights on disk")
    if name == "openvino" and spec.gguf is None:
        raise SettingsError(f"{said} reads GGUF files: {spec.name!r} is none")
    if name == "vllm" and spec.gguf is not None:
        raise SettingsError(f"{said} reads folders and hub ids: {spec.name!r} is a GGUF file")


def check_layers(sets: Sequence[Layers], counter: TokenCounter | None) -> None:
    """Refuse a layer that the model does not have, as its config tells without its weights.

    Raises:
        SettingsError: Says how many there are.
    """
    highest = max((max(layers) for layers in sets if not isinstance(layers, str)), default=None)
    if highest is None or counter is None:
        return
    try:
        count = counter.layer_count
    except CasesError:  # whatever looks for the model says why its config cannot be had
        return
    if count is not None and highest >= count:
        raise SettingsError(
            f"--llmprobe-layers: there is no layer {highest}; the model's {count} layers are 0 to "
            f"{count - 1}"
        )


def read_self_check(option: Any, spec: ModelSpec) -> bool:
    """Whether the engine is to be checked first.

    Raises:
        SettingsError: It cannot be; says why.
    """
    if not option.llmprobe_self_check:
        return False
    if spec.protocol == "anthropic":
        raise SettingsError(
            "--llmprobe-self-check needs greedy answers, and Anthropic's protocol has none"
        )
    if spec.protocol is not None and option.llmprobe_concurrency == 1:
        raise SettingsError(
            "--llmprobe-self-check asks a server several requests at a time: give a "
            "--llmprobe-concurrency above 1"
        )
    elsewhere = {
        "--llmprobe-replay loads none": option.llmprobe_replay,
        "--llmprobe-engine shared keeps it in another one": option.llmprobe_engine == "shared",
    }
    if why := next((why for why, found in elsewhere.items() if found), None):
        raise SettingsError(f"--llmprobe-self-check needs the model in this process: {why}")
    return True


def read_endpoint(option: Any) -> EndpointOptions:
    """How a server is asked."""
    return EndpointOptions(
        option.llmprobe_concurrency or CONCURRENCY,
        option.llmprobe_timeout or TIMEOUT_S,
        option.llmprobe_stream,
        option.llmprobe_max_requests,
        option.llmprobe_max_cost,
        option.llmprobe_max_time,
        dict(option.llmprobe_server_option),
    )
