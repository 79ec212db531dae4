"""What a user's own model entry may hold: each field's type and range, before anything loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pytest_llmprobe.errors import ModelError

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("nf4", "int8", "int8wo", "int4wo", "4bit", "8bit")
SWITCHES = ("on", "off", "auto")


@dataclass(frozen=True)
class Field:
    """What a value must be, in words and as a test."""

    wanted: str
    fits: Callable[[Any], bool]


def _one_of(words: tuple[str, ...]) -> Field:
    return Field(" or ".join(words), lambda value: isinstance(value, str) and value in words)


def _is_price(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and isfinite(value)
        and value >= 0
    )


def _is_marks(value: Any) -> bool:
    return value is False or (isinstance(value, list) and all(isinstance(m, str) for m in value))


TEXT = Field("a text", lambda value: isinstance(value, str) and bool(value.strip()))
SWITCH = Field("true or false", lambda value: isinstance(value, bool))
PRICE = Field("a number from 0 up", _is_price)
COUNT = Field("a whole number from 1 up", lambda value: type(value) is int and value > 0)
ANYTHING = Field("", lambda value: True)

FIELDS: Mapping[str, Field] = {
    **dict.fromkeys(
        ("source", "revision", "device", "device_map", "attn_implementation", "base_url"), TEXT
    ),
    **dict.fromkeys(("tokenizer", "adapter"), TEXT),
    "dtype": _one_of(DTYPES),
    "quantization": _one_of(QUANTIZATIONS),
    "thinking": _one_of(SWITCHES),
    **dict.fromkeys(("trust_remote_code", "random_weights", "completions"), SWITCH),
    **dict.fromkeys(("input_price", "output_price"), PRICE),
    "context": COUNT,
    "template": Field("a table", lambda value: isinstance(value, dict)),
    "thought": Field("two marks, or false", _is_marks),
}


def check_entry(where: str, entry: object, known: Set[str]) -> None:
    """Refuse an entry of ``[tool.llmprobe.models]`` that could not be a model's.

    Args:
        where: What errors begin with.
        entry: As the file has it.
        known: Names of all fields.

    Raises:
        ModelError: Names the field and what it must be.
    """
    if not isinstance(entry, Mapping):
        raise ModelError(f"{where}: give a table with a 'source'")
    if unknown := sorted(entry.keys() - known):
        listed = ", ".join(sorted(known))
        raise ModelError(f"{where}: unknown field {unknown[0]!r}; known: {listed}")
    if "source" not in entry:
        raise ModelError(f"{where}: 'source' (folder or hub id) is missing")
    for name, value in entry.items():
        field = FIELDS.get(name, ANYTHING)
        if not field.fits(value):
            raise ModelError(f"{where}: {name} = {value!r} is not {field.wanted}")
