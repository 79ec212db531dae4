"""The JSON object in a model's answer.

An answer is untrusted: the work on it grows with its length and no faster, whatever it holds, and
what is nested too deeply is no object.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

Level: TypeAlias = Literal["strict", "embedded", "none"]
"""The whole answer is the object; there is other text around it; not exactly one is well-formed."""

MAX_DEPTH = 32
"""Objects and lists inside one another; more is ``too_deep``."""

PROBLEMS = {
    "no_object": "the answer holds no well-formed JSON object",
    "several_objects": "the answer holds more than one JSON object",
    "duplicate_keys": "the object holds a key twice",
    "not_json": "the object holds something that Python reads and JSON does not allow",
    "too_deep": f"the object is nested more than {MAX_DEPTH} deep",
}
"""Why an answer has no object."""

_ATTEMPTS = 200  # a failed one costs a count of the lines before it, to say where it failed
_DIGITS = 300  # Python reads an integer in quadratic time, and jsonschema makes floats of some
_FENCE = re.compile(
    r"^[ \t>]*(?:`{3,}|~{3,})(?:[ \t]*([\w+#.-]+)(?=[ \t]*(?:$|\{)))?", re.MULTILINE
)
_JSON = ("", "json", "json5", "jsonc", "jsonl", "text", "txt", "plaintext", "output")
_QUOTE = re.compile(r"^[ \t]*(?:>[ \t]?)+", re.MULTILINE)
_LIST_BEFORE = re.compile(r"(?<!\\)\[\s*\Z")  # but for LaTeX's
_OBJECT = re.compile(r'\{(?=[ \t\n\r]*["}])')
_SPACE = " \t\n\r"


@dataclass(frozen=True)
class Extraction:
    """The JSON object of an answer."""

    level: Level
    value: dict[str, Any] | None = None  # None for the level ``none``
    problem: str = ""  # why there is none: a key of `PROBLEMS`, with details after a colon
    in_list: bool = False  # it is an item of a list, which is not what was asked for


class _Found(NamedTuple):
    value: dict[str, Any]
    length: int
    problem: str
    in_list: bool


class _Reader:
    """A JSON decoder that notes what Python's lets pass.

    It notes and goes on, because an exception would not say where the object ends.
    """

    def __init__(self) -> None:
        self.problem = ""
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_int=self._integer,
            parse_float=self._float,
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            self.problem = f"duplicate_keys: {twice[:80]}"
        return values

    def _constant(self, name: str) -> None:
        self.problem = f"not_json: {name}"

    def _integer(self, digits: str) -> int:
        if len(digits) <= _DIGITS:
            return int(digits)
        self.problem = f"not_json: an integer of {len(digits)} digits"
        return 0

    def _float(self, digits: str) -> float:
        if not math.isfinite(float(digits)):
            self.problem = f"not_json: {digits[:80]} is infinite"
        return float(digits)

    def read(self, text: str, start: int) -> tuple[dict[str, Any], int]:
        """The object that starts at ``start``, and where it ends.

        Raises:
            json.JSONDecodeError: There is none.
            RecursionError: It is nested too deeply for Python.
        """
        self.problem = ""
        value, end = self._decoder.raw_decode(text, start)
        if _too_deep(value):
            self.problem = "too_deep"
        elif not _is_unicode(value):
            self.problem = "not_json: half of a surrogate pair"
        return value, end


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(inner, dict | list) for inner in level)


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def extract(answer: str, quoted: Mapping[str, Any] | None = None) -> Extraction:
    """The one JSON object of an answer.

    Objects are looked for from each ``{`` outside of those that were read already; what is inside
    of a broken or cut-off object is a part of it and no answer. If fenced blocks of JSON hold
    objects, what is outside of them does not count; blocks of other languages never do, unless one
    is nothing but an object and there is no other. A key that occurs twice, at any depth, makes an
    object useless: readers differ in which value they take.

    Args:
        answer: What the model said.
        quoted: An object of the prompt, its schema. To repeat it before the answer says nothing.
    """
    reader = _Reader()
    whole = answer.strip(_SPACE)
    try:
        found = _answers(whole, reader) or _answers(_QUOTE.sub("", whole), reader)
    except RecursionError:
        return Extraction("none", problem="too_deep")
    if len(found) > 1:
        found = [one for one in found if one.value != quoted] or found
    if len(found) != 1:
        return Extraction("none", problem="several_objects" if found else "no_object")
    (one,) = found
    if one.problem:
        return Extraction("none", problem=one.problem)
    level: Level = "strict" if one.length == len(whole) else "embedded"
    return Extraction(level, one.value, in_list=one.in_list)


def _answers(whole: str, reader: _Reader) -> list[_Found]:
    """The objects of an answer that count."""
    if strict := [one for one in _objects(whole, reader) if one.length == len(whole)]:
        return strict
    text, *fenced = _FENCE.split(whole)
    outside, blocks, foreign, inside = [text], [], [], False
    for language, block in zip(fenced[::2], fenced[1::2], strict=True):
        inside = bool(language) or not inside  # a fence with a language closes none
        if not inside:
            outside.append(block)
        elif (language or "").lower() in _JSON:
            blocks.append(block)
        else:
            foreign.append(block)
    for parts in (blocks, outside):
        if found := [one for part in parts for one in _objects(part, reader)]:
            return found
    whole_blocks = (block.strip(_SPACE + "`~") for block in foreign)
    return [
        one for block in whole_blocks for one in _objects(block, reader) if one.length == len(block)
    ]


def _objects(text: str, reader: _Reader) -> Iterator[_Found]:
    place = 0
    for _ in range(_ATTEMPTS):
        start = _OBJECT.search(text, place)
        if start is None:
            return
        try:
            value, place = reader.read(text, start.start())
        except json.JSONDecodeError as error:
            place = max(start.end(), error.pos)
        else:
            in_list = bool(_LIST_BEFORE.search(text[max(0, start.start() - 80) : start.start()]))
            yield _Found(value, place - start.start(), reader.problem, in_list)
