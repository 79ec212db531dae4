"""Damage of a model's folder that shows without loading it. No torch here."""

from __future__ import annotations

import json
import operator
import struct
from pathlib import Path
from typing import Any

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.local_files import TOKENIZERS, has_tokenizer


def check_folder(folder: Path) -> None:
    """Find damage that shows without loading: a missing config or tokenizer, cut-off weights.

    Raises:
        ModelError: Names the file and what is wrong with it.
    """
    _check_json(folder / "config.json")
    if not has_tokenizer(folder):
        raise ModelError(f"{folder} has no tokenizer (looked for {', '.join(TOKENIZERS)})")
    index = folder / "model.safetensors.index.json"
    named = set(_check_json(index)["weight_map"].values()) if index.is_file() else set()
    if absent := sorted(Path(name).name for name in named if not (folder / name).is_file()):
        raise ModelError(f"{folder} is damaged: {index.name} names {absent[0]}, which is not there")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and not any(folder.glob("pytorch_model*.bin")):
        raise ModelError(f"{folder} has no weights (*.safetensors)")
    for path in weights:
        _check_safetensors(path)


def _check_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} is no model folder: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None


def _check_safetensors(path: Path) -> None:
    """Compare the header's last offset with the file's size (safetensors format, 8-byte length)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
        if not 0 < length <= min(size - 8, 100_000_000):
            raise ModelError(f"{path} is damaged: {size} bytes without a safetensors header")
        try:
            header = json.loads(file.read(length))
            ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
            expected = 8 + length + max(map(operator.index, ends), default=0)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise ModelError(f"{path} is damaged: its header is no safetensors header") from None
    if size != expected:
        raise ModelError(f"{path} is damaged: it has {size} bytes, its header says {expected}")
