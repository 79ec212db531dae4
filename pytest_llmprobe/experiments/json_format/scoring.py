"""JSON out of a model's answer: how well it is formed, whether it is valid, how much is right.

Follows experiment 3 of the GUIDE paper (arXiv 2409.19001).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.json_format.patience import at_most
from pytest_llmprobe.experiments.json_format.reading import PROBLEMS, Level, extract

PATIENCE_S = 5.0
"""Seconds for an answer under a schema; it takes milliseconds unless a pattern backtracks."""


def schema_errors(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """What makes a value invalid under a JSON Schema (2020-12 unless ``$schema`` says otherwise).

    Nothing is fetched: a reference must stay within the schema.

    Returns:
        One line for each error; none if the value is valid.

    Raises:
        CasesError: The schema is not a JSON Schema, refers to what is not in it, or takes too long.
    """
    import jsonschema
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import EMPTY_REGISTRY

    validator = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    try:
        validator.check_schema(dict(schema))
        with at_most(PATIENCE_S):
            errors = list(validator(schema, registry=EMPTY_REGISTRY).iter_errors(value))
    except TimeoutError:
        raise CasesError(
            f"the JSON Schema takes more than {PATIENCE_S:g} s for an answer: simplify its patterns"
        ) from None
    except jsonschema.SchemaError as error:
        raise CasesError(f"this is no JSON Schema: {error.message[:200]}") from None
    except Unresolvable as error:
        raise CasesError(f"the JSON Schema refers to {error.ref!r}, which is not in it") from None
    except RecursionError:
        raise CasesError("the JSON Schema refers to itself without end") from None
    return sorted(f"{error.json_path[:100]}: {error.message[:200]}" for error in errors)


def checked_schema(schema: object) -> Mapping[str, Any]:
    """A JSON Schema that the user gave.

    Raises:
        CasesError: It cannot be used.
    """
    if not isinstance(schema, dict):
        raise CasesError(f"this is no JSON Schema: it is a {type(schema).__name__}, not an object")
    schema_errors({}, schema)
    return schema


def _step(path: str | None, key: str) -> str:
    key = key.replace("\\", "\\\\").replace(".", "\\.")
    return key if path is None else f"{path}.{key}"


def keys(value: Any, *, deep: bool = False) -> frozenset[str]:
    r"""The keys of a JSON object; anything else has none.

    With ``deep`` the dotted path of each key at any depth, list items collapsed:
    ``characters.name``. A dot in a key is written as ``\\.``.
    """
    if not isinstance(value, dict):
        return frozenset()
    if not deep:
        return frozenset(value)
    found: set[str] = set()
    waiting: list[tuple[str | None, Any]] = [(None, value)]
    while waiting:
        path, inner = waiting.pop()
        if isinstance(inner, dict):
            steps = [(_step(path, key), part) for key, part in inner.items()]
            found.update(step for step, _ in steps)
            waiting += steps
        elif isinstance(inner, list):
            waiting += [(path, item) for item in inner]
    return frozenset(found)


def schema_keys(schema: Mapping[str, Any], *, deep: bool = False) -> frozenset[str]:
    """The keys that a JSON Schema names under ``properties``, as `keys` gives those of a value.

    References within the schema and ``allOf``, ``anyOf``, ``oneOf`` are followed, a recursive
    schema once around.
    """
    return frozenset(_schema_paths(schema, schema, None, deep, ()))


def _schema_paths(
    part: Any, schema: Mapping[str, Any], path: str | None, deep: bool, above: tuple[int, ...]
) -> Iterator[str]:
    if not isinstance(part, Mapping) or id(part) in above:
        return
    above = (*above, id(part))
    for key, inner in part.get("properties", {}).items():
        yield _step(path, key) if deep else key
        if deep:
            yield from _schema_paths(inner, schema, _step(path, key), deep, above)
    same = [_local(part["$ref"], schema)] if "$ref" in part else []
    for word in ("allOf", "anyOf", "oneOf"):
        same += part.get(word, [])
    if path is not None:  # the items of a list at the top are no object's keys
        same += [part.get("items"), *part.get("prefixItems", [])]
    for inner in same:
        yield from _schema_paths(inner, schema, path, deep, above)


def _local(reference: str, schema: Mapping[str, Any]) -> Any:
    found: Any = schema
    for step in reference.removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        found = found.get(step) if isinstance(found, Mapping) else None
    return found if reference.startswith("#") else None


def jaccard(generated: Set[str], expected: Set[str]) -> float:
    """The Jaccard index |G and S| / |G or S| of two sets of keys; 1 if both are empty."""
    union = generated | expected
    return len(generated & expected) / len(union) if union else 1.0


def _canonical(value: Any) -> str:
    """JSON with white space in strings normalised; tells true from 1 and 1 from 1.0."""

    def normal(part: Any) -> Any:
        if isinstance(part, str):
            return " ".join(part.split())
        if isinstance(part, Mapping):
            return {key: normal(inner) for key, inner in part.items()}
        return [normal(inner) for inner in part] if isinstance(part, list | tuple) else part

    return json.dumps(normal(value), sort_keys=True)


def field_accuracy(value: Mapping[str, Any] | None, truth: Mapping[str, Any]) -> dict[str, bool]:
    """For each field of the truth, whether the value has it exactly, but for white space."""
    given = value or {}
    return {
        key: key in given and _canonical(given[key]) == _canonical(expected)
        for key, expected in truth.items()
    }


@dataclass(frozen=True)
class Score:
    """How an answer did; level and problem are those of its `Extraction`."""

    level: Level
    problem: str
    schema_errors: tuple[str, ...]  # what makes the object invalid
    jaccard: float  # of the top-level keys; 0 without an object
    jaccard_deep: float  # of the paths of all keys
    fields: Mapping[str, bool]  # which are right; empty where the truth is unknown
    in_list: bool = False  # the object is an item of a list
    cut_off: bool = False  # the answer ended because it had no tokens left

    @property
    def valid(self) -> bool:
        """Whether there is an object that obeys the schema."""
        return self.level != "none" and not self.schema_errors

    @property
    def passed(self) -> bool:
        """Whether the answer is one object that obeys the schema, with text around it or not."""
        return self.valid and not self.in_list

    @property
    def field_accuracy(self) -> float | None:
        """The share of fields that are right, or None where the truth is unknown."""
        return sum(self.fields.values()) / len(self.fields) if self.fields else None

    def explain(self) -> str:
        """A word of the taxonomy, a colon, a sentence."""
        if self.level == "none" and self.cut_off and self.problem in ("no_object", "too_deep"):
            return "cut_off: max_new_tokens ran out before the object was complete"
        if self.level == "none":
            word, _, keys = self.problem.partition(": ")
            return f"{word}: {PROBLEMS[word]}{f' ({keys})' if keys else ''}"
        if self.schema_errors:
            return f"invalid: {self.schema_errors[0]} ({len(self.schema_errors)} errors)"
        if self.in_list:
            return "in_list: the object is valid, but it stands in a list"
        return "correct: the answer holds one valid object"


def score(
    answer: str,
    schema: Mapping[str, Any],
    truth: Mapping[str, Any] | None = None,
    *,
    cut_off: bool = False,
) -> Score:
    """Score an answer against a JSON Schema and, where it is known, the truth.

    Args:
        answer: What the model said.
        schema: What the object must obey.
        truth: The fields that it should have.
        cut_off: Whether the answer ended because it had no tokens left.

    Raises:
        CasesError: The schema cannot be used.
    """
    found = extract(answer, schema)
    missing = found.value is None
    return Score(
        found.level,
        found.problem,
        () if missing else tuple(schema_errors(found.value, schema)),
        0.0 if missing else jaccard(keys(found.value), schema_keys(schema)),
        0.0 if missing else jaccard(keys(found.value, deep=True), schema_keys(schema, deep=True)),
        {} if truth is None else field_accuracy(found.value, truth),
        found.in_list,
        cut_off,
    )
