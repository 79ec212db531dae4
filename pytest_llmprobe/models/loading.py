"""Load a model with transformers and accelerate, and say in one sentence what prevents it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.adapters import with_adapter
from pytest_llmprobe.models.capabilities import Capabilities
from pytest_llmprobe.models.config_facts import config_facts, file_facts
from pytest_llmprobe.models.dates import told_date
from pytest_llmprobe.models.folder_check import check_folder
from pytest_llmprobe.models.hub import check_hub, explain
from pytest_llmprobe.models.identity import model_info
from pytest_llmprobe.models.kept_facts import KeptFacts
from pytest_llmprobe.models.quantization import check_quantization, quantization_config
from pytest_llmprobe.models.registry import ModelSpec, resolve, with_options
from pytest_llmprobe.models.template_facts import template_facts, template_of
from pytest_llmprobe.models.thinking import Thinking
from pytest_llmprobe.models.weights import load_weights, model_class
from pytest_llmprobe.suite import seed_of

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to generate.

    Args:
        spec: What was asked for.
        model: The transformers model, in evaluation mode, its generation config cleaned.
        tokenizer: Its tokenizer.
        capabilities: Measured.
        end_ids: Tokens that end an answer.
        pad_id: Token that fills rows; always masked.
        info: What the report says about the model beside its capabilities.
        turn_ids: Tokens that end an assistant's message in its chat template.
        thinking: What is known of its thoughts, and what its chat template is told.
        kept: What is known of its checkpoint from an earlier start.
    """

    spec: ModelSpec
    model: Any
    tokenizer: Any
    capabilities: Capabilities
    end_ids: tuple[int, ...]
    pad_id: int
    info: dict[str, Any]
    turn_ids: tuple[int, ...] = ()
    thinking: Thinking = field(default_factory=Thinking)
    kept: KeptFacts = field(default_factory=KeptFacts)


def load_model(
    name: str,
    *,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    threads: int | None = None,
    **options: object,
) -> LoadedModel:
    """Load by registry name, local folder, or hub id ``org/name[@revision]``.

    Args:
        name: Which model.
        models: A user's own registry entries.
        threads: CPU threads of this process, or None to leave them.
        options: Fields of ModelSpec that replace the registry's: dtype, device, revision ...

    Raises:
        ModelError: Unknown, absent, gated, damaged, or refused by a library; says what to do.
    """
    return load_spec(with_options(resolve(name, models), **options), threads=threads)


def load_spec(
    spec: ModelSpec, *, device: str | None = None, threads: int | None = None
) -> LoadedModel:
    """Load what a spec describes, on ``device`` in place of its own; as ``load_model``."""
    if spec.protocol is not None:
        raise ModelError(
            f"{spec.name!r} is behind a server and cannot be loaded: name a registry name, a local "
            "folder or a hub id, or evaluate it with `pytest --model`"
        )
    spec = with_options(spec, device=device)
    if (folder := spec.folder) is not None:
        check_folder(folder)
    else:
        check_hub(spec)
    if threads is not None:
        torch.set_num_threads(threads)
    device = _device(spec)
    check_quantization(spec, device)
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = load_tokenizer(spec)
        facts = template_facts(
            spec, tokenizer
        )  # refuse what the template cannot take before the weights
        model, read = _from_spec(spec, device, tokenizer)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"model {spec.name!r} cannot be loaded: {explain(spec, error)}") from error
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    loaded = assembled(spec, model, tokenizer, read, facts)
    model.generation_config = plain_generation(loaded)
    return loaded


def plain_generation(loaded: LoadedModel) -> GenerationConfig:
    """What begins and ends a model's answers, and nothing else of its own generation config.

    A checkpoint's own settings (a repetition penalty, say) must not leak into an evaluation. What a
    decoder behind an encoder says first is no setting: without it the answers are others.
    """
    own, config = loaded.model.generation_config, loaded.model.config
    first = {}
    if config.is_encoder_decoder:
        for name in ("decoder_start_token_id", "forced_bos_token_id"):
            given = getattr(own, name, None)
            first[name] = getattr(config, name, None) if given is None else given
    return GenerationConfig(eos_token_id=list(loaded.end_ids), pad_token_id=loaded.pad_id, **first)


def assembled(
    spec: ModelSpec,
    model: Any,
    tokenizer: Any,
    read: Mapping[str, Any] = NOTHING,
    facts: tuple[Thinking, tuple[int, ...]] | None = None,
) -> LoadedModel:
    """What is known of a model in evaluation mode: measured, and as its config says.

    Args:
        spec: What was asked for.
        model: The transformers model.
        tokenizer: Its tokenizer.
        read: What is to be said of how its weights were read.
        facts: Its template's, if they are known.

    Raises:
        ModelError: Its chat template does not take an argument of the spec.
    """
    thinking, turn_ids = facts or template_facts(spec, tokenizer)
    end_ids = _end_ids(model, tokenizer)
    pad_id = _pad_id(model, tokenizer, end_ids)
    kept = _kept(spec, model)
    capabilities = Capabilities.remembered(model, tokenizer, pad_id, kept)
    if spec.context is not None:
        capabilities = replace(capabilities, context_length=spec.context)
    info = model_info(spec, model, tokenizer, kept) | {
        "weights": dict(read),
        "generation_config": config_facts(model.generation_config.to_diff_dict()),
        "files": file_facts(spec.folder),
        "end_ids": sorted({*end_ids, *turn_ids}),
        "template": dict(thinking.arguments),
        "date": told_date(template_of(tokenizer), thinking.arguments, spec.date),
    }
    if spec.thought is not None:  # it decides what of an answer is a thought
        info["thought"] = spec.thought if isinstance(spec.thought, bool) else list(spec.thought)
    return LoadedModel(
        spec, model, tokenizer, capabilities, end_ids, pad_id, info, turn_ids, thinking, kept
    )


def _kept(spec: ModelSpec, model: Any) -> KeptFacts:
    """What was found out before about this checkpoint, loaded so, on this machine."""
    commit = getattr(model.config, "_commit_hash", None)
    spec = replace(spec, revision=commit) if commit and spec.package is None else spec
    chip = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else ""
    how = (str(model.device), str(model.dtype), str(model.config._attn_implementation), chip)
    return KeptFacts.of_spec(spec, how)


def load_tokenizer(spec: ModelSpec) -> Any:
    """The tokenizer alone.

    Raises:
        ModelError: It cannot be had.
    """
    location = spec.tokenizer_folder or spec.source
    try:
        return AutoTokenizer.from_pretrained(location, **_origin(spec))
    except Exception as error:
        why = explain(spec, error)
        raise ModelError(f"the tokenizer of {spec.name!r} cannot be loaded: {why}") from error


def _origin(spec: ModelSpec) -> dict[str, Any]:
    origin: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code}
    return origin if spec.revision is None else origin | {"revision": spec.revision}


def _device(spec: ModelSpec) -> str:
    if spec.device != "auto":
        return spec.device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _from_spec(spec: ModelSpec, device: str, tokenizer: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and what is to be said of how its weights were read."""
    # On CPU, where verdicts must not depend on the batch, float32 and not the checkpoint's.
    dtype = "float32" if spec.dtype == "auto" and device == "cpu" else spec.dtype
    arguments: dict[str, Any] = {"dtype": dtype, "attn_implementation": spec.attn_implementation}
    if spec.random_weights:
        config = AutoConfig.from_pretrained(spec.location, **_origin(spec))
        with torch.random.fork_rng():
            torch.manual_seed(seed_of("random weights", spec.source.rpartition("/")[2]))
            model = model_class(config).from_config(config, **arguments)
        return model.to(device).eval(), {}
    if spec.quantization is not None:
        arguments["quantization_config"] = quantization_config(spec.quantization)
    placed = spec.device_map or (device if spec.quantization is not None else None)
    if placed is not None:
        arguments["device_map"] = placed
    loaded, read = load_weights(spec, arguments, _origin(spec))
    if spec.adapter is not None:
        loaded = with_adapter(loaded, spec.adapter, len(tokenizer))
    return (loaded if placed else loaded.to(device)).eval(), read


def _pad_id(model: Any, tokenizer: Any, end_ids: tuple[int, ...]) -> int:
    """A filler of rows: it is masked, but looked up, so the embedding must know it."""
    rows = model.get_input_embeddings().num_embeddings
    return next((i for i in (tokenizer.pad_token_id, *end_ids) if i is not None and i < rows), 0)


def _end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """End tokens of the checkpoint's generation config (chat models have several) and EOS."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return tuple(dict.fromkeys(i for i in (*ids, tokenizer.eos_token_id) if i is not None))
