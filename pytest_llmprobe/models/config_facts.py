"""A checkpoint's configs as reports hold them: flat, bounded, without bookkeeping."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_llmprobe.models.local_files import read_adapter

BOOKKEEPING = frozenset(
    (
        *("transformers_version", "architectures", "dtype", "torch_dtype", "attn_implementation"),
        *("id2label", "label2id", "base_model_name_or_path", "peft_version", "inference_mode"),
    )
)
"""Keys that change no answer, and those that a report names elsewhere; so does every ``_key``."""

FILES = ("config.json", "generation_config.json", "adapter_config.json")

MAX_CHARACTERS, MAX_ENTRIES, MAX_KEYS = 200, 100, 500
"""Of a value, of a table in a config and of a config; what is longer is a hash."""


def config_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config by name, parts with dots: ``rope_parameters.rope_theta``."""
    found = dict(sorted(_flat(config, "")))
    if len(found) <= MAX_KEYS:
        return found
    kept = list(found)[: MAX_KEYS - 1]
    rest = {name: value for name, value in found.items() if name not in set(kept)}
    return {name: found[name] for name in kept} | {"...": _hash(rest)}


def adapter_facts(folder: str | None) -> dict[str, Any]:
    """The config of the adapter in a folder, under the folder's name.

    Its lists are sets, such as the modules that it changes, and saved in any order.
    """
    if folder is None:
        return {}
    config = read_adapter(Path(folder))
    sets = {name: sorted(map(str, v)) for name, v in config.items() if isinstance(v, list)}
    return config_facts({Path(folder).name: config | sets})


def file_facts(folder: Path | None) -> dict[str, str]:
    """Hashes of the configs in a folder, to see without loading it whether they have changed."""
    if folder is None:
        return {}
    found = {}
    for name in FILES:
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError):  # whoever needs the file says what is wrong with it
            content = None
        found[name] = _hash(config_facts(content) if isinstance(content, dict) else content)
    return found


def changed_files(folder: Path | None, recorded: Mapping[str, Any]) -> list[str]:
    """The configs in a folder that are not as ``file_facts`` found them when answers were made.

    Args:
        folder: The model's, if it is on this machine.
        recorded: What the answers' model said about itself.
    """
    before = recorded.get("files")
    if folder is None or not folder.is_dir() or not isinstance(before, Mapping) or not before:
        return []
    now = file_facts(folder)
    return [name for name in FILES if now.get(name) != before.get(name)]


def _flat(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = str(key)
        if name in BOOKKEEPING or name.startswith("_"):
            continue
        if isinstance(value, Mapping) and 0 < len(value) <= MAX_ENTRIES:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _bounded(value)


def _bounded(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    text = value if isinstance(value, str) else _json(value)
    return text if len(text) <= MAX_CHARACTERS else _hash(value)


def _hash(value: object) -> str:
    return f"sha256 {hashlib.sha256(_json(value).encode()).hexdigest()[:16]}"


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=_sorted)


def _sorted(value: object) -> object:
    """A set in order, as a config in memory may hold one; anything else as a text."""
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)
