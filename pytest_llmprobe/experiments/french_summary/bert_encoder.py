"""Where the encoder for BERTScore is: named or in the cache of the hub, and never downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "LLMPROBE_BERT_SCORE"
"""Environment variable: a folder or a hub id in place of the default."""

DEFAULT = "almanach/camembert-base"

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class BertEncoder:
    """What BERTScore is measured with."""

    name: str  # the folder or hub id that was asked for
    folder: Path | None  # its files on this machine, if they are there
    missing: str = ""  # why there are none, and what to do


def find_bert_encoder() -> BertEncoder:
    """The encoder that ``LLMPROBE_BERT_SCORE`` names, or CamemBERT from the hub's cache."""
    name = os.environ.get(VARIABLE, "").strip() or DEFAULT
    if find_spec("transformers") is None:
        get = "pip install 'pytest-llmprobe[local]'"
        return BertEncoder(name, None, f"{name} needs transformers: {get}")
    path = Path(name).expanduser()
    config = path / "config.json" if path.is_dir() else _cached(name)
    if config is None or not config.is_file():
        ways = (
            f"run `hf download {DEFAULT}`, or name another encoder with {VARIABLE}=FOLDER or a hub "
            "id in its cache"
        )
        return BertEncoder(name, None, f"{name} is not on this machine: {ways}")
    folder = config.parent
    if not any((folder / file).is_file() for file in WEIGHTS):
        return BertEncoder(name, None, f"{name} has no {WEIGHTS[0]} on this machine")
    return BertEncoder(name, folder)


def _cached(hub_id: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(hub_id, "config.json")
    except HFValidationError:  # a folder that does not exist
        return None
    return Path(found) if isinstance(found, str) else None
