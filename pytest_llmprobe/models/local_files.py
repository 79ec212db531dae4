"""What tools write beside plain folders, told by its files: GGUF models and PEFT adapters.

No torch here: it is found out before anything heavy is imported.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.report.model_names import local_folder, local_path

ADAPTER = "adapter_config.json"

TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "tokenizer_config.json",
    "tekken.json",
    "tiktoken.model",
    "*.tiktoken",
)
"""A folder without any of these has no tokenizer; which of them can be read, transformers knows."""

_ON_THE_HUB = re.compile(r"(\w[\w.-]*/\w[\w.-]*):([\w./-]+\.gguf)")
_PIECE = re.compile(r"-\d+-of-\d+\.gguf$")


def is_gguf(source: str) -> bool:
    """Whether a source is a GGUF file, a folder of them without config.json, or one on the hub."""
    path = local_path(source)
    if path is None:
        return _ON_THE_HUB.fullmatch(source) is not None
    if path.is_dir():
        return not (path / "config.json").is_file() and any(path.glob("*.gguf"))
    return path.suffix == ".gguf"


def gguf_file(source: str, revision: str | None = None) -> Path:
    """The GGUF file of a source of which ``is_gguf`` holds; one on the hub is fetched.

    Raises:
        ModelError: The folder holds several, it is a piece of a model, or the hub does not have it.
    """
    path = local_path(source)
    if path is None:
        return _fetched(source, revision)
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files[:4])
            raise ModelError(f"{path} holds {len(files)} GGUF files ({names}): name one of them")
        path = files[0]
    if _PIECE.search(path.name):
        raise ModelError(
            f"{path} is one piece of a model: join the pieces (llama-gguf-split --merge), or serve "
            "it with llama.cpp and use openai:NAME"
        )
    return path


def _fetched(source: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    from pytest_llmprobe.data.network import hub_is_reachable

    name, _, file = source.partition(":")
    try:
        return Path(
            hf_hub_download(name, file, revision=revision, local_files_only=not hub_is_reachable())
        )
    except LocalEntryNotFoundError:
        raise ModelError(
            f"{source} is not on this machine, and the hub cannot be reached or HF_HUB_OFFLINE is "
            f"set: run `hf download {name} {file}` where there is a network, or name a local file"
        ) from None
    except EntryNotFoundError:
        raise ModelError(f"{name} on the hub has no file {file}") from None
    except Exception as error:
        from pytest_llmprobe.models.hub import explain
        from pytest_llmprobe.models.registry import ModelSpec

        why = explain(ModelSpec(source, name, revision), error)
        raise ModelError(f"{source} cannot be fetched: {why}") from None


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter and no model of its own."""
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """What an adapter's config names as its base: a folder beside it or anywhere, or a hub id.

    Raises:
        ModelError: It names none, or cannot be read.
    """
    name = read_adapter(folder).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ModelError(
            f"{folder / ADAPTER} names no base: use --model BASE --llmprobe-adapter {folder}"
        )
    beside = local_folder(str(folder / name))
    return str(beside) if beside is not None and local_folder(name) is None else name


def read_adapter(folder: Path) -> dict[str, Any]:
    """An adapter's config, its weights being there.

    Raises:
        ModelError: It cannot be read, or the weights are absent or pickled.
    """
    path, weights = folder / ADAPTER, folder / "adapter_model.safetensors"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} is no adapter: it has no {ADAPTER}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds no JSON object")
    if not weights.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = "only pickled weights; save them as safetensors" if pickled else f"no {weights.name}"
        raise ModelError(f"{folder} has {why}")
    return config


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer of any kind."""
    return any(path.is_file() for name in TOKENIZERS for path in folder.glob(name))
