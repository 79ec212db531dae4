"""Generated records with known truth, the text that states them, and the prompts that ask for JSON.

Follows experiment 3 of the GUIDE paper (arXiv 2409.19001), whose schema of seven keys describes a
historical book. Each value but a truth value is a literal piece of the text, in the order of the
keys, so that copying is enough.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pytest_llmprobe.data.prose import (
    ADJECTIVES,
    CITIES,
    FIRST_NAMES,
    NOUNS,
    made_up_name,
    sentence,
    words,
)
from pytest_llmprobe.errors import CasesError

RecordKind: TypeAlias = Literal["book", "person", "event"]
Style: TypeAlias = Literal["plain", "capitals", "important"]
Where: TypeAlias = Literal["end", "head"]

GENRES = words(
    """
    ballad chronicle comedy elegy epic fable history legend pastoral romance satire sermon tragedy
    travelogue
    """
)
JOBS = words(
    """
    baker barber carpenter clerk cook doctor farmer fisher gardener hunter judge lawyer merchant
    miller painter pilot potter printer sailor singer smith soldier tailor teacher weaver writer
    """
)
TEMPERS = words(
    "brave calm clever curious famous gentle honest little old proud quiet strange strong tall"
)
PLACES = words("castle city forest garden harbour island monastery valley village")
EVENTS = words("Fair Festival Market Concert Parade Regatta Tournament Exhibition")

SENTENCE = 47  # characters of a sentence of prose with the space after it, on average

INSTRUCTION = "Return one JSON object with the keys {keys}."
SCHEMA_INSTRUCTION = "Return one JSON object that is valid under this JSON Schema: {schema}"
PROMPTS: dict[Where, str] = {
    "end": "{text}\n\n{instruction}\nJSON:",
    "head": "{instruction}\n\n{text}\n\nJSON:",
}
"""Templates by the place of the instruction; with ``end``, instructions share the text's prefix."""


@dataclass(frozen=True)
class Record:
    """A thing with known fields."""

    kind: RecordKind  # names the schema
    facts: tuple[str, ...]  # sentences that state the fields, in the order of the keys
    truth: Mapping[str, Any]  # the fields


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _names(rng: random.Random, n: int, held_out: bool) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < n:
        names[made_up_name(rng, held_out=held_out)] = None
    return list(names)


def _book(rng: random.Random, held_out: bool) -> Record:
    surname, *names = _names(rng, rng.randint(2, 3), held_out)
    characters = [
        {"name": name, "description": _a(f"{rng.choice(TEMPERS)} {rng.choice(JOBS)}")}
        for name in names
    ]
    adjective, noun = rng.choice(ADJECTIVES), rng.choice(NOUNS)
    found = rng.choice(("found", "lost", "stole", "hid", "sold", "broke"))
    truth: dict[str, Any] = {
        "title": f"The {adjective.capitalize()} {noun.capitalize()}",
        "genre": rng.choice(GENRES),
        "characters": characters,
        "author": f"{rng.choice(FIRST_NAMES)} {surname}",
        "summary": f"{rng.choice(names)} {found} the {adjective} {noun}",
        "date": rng.randint(1510, 1699),
        "scenery": _a(f"{rng.choice(ADJECTIVES)} {rng.choice(PLACES)} near {rng.choice(CITIES)}"),
    }
    facts = (
        f"The title of the book is {truth['title']}.",
        f"The genre of the book is {truth['genre']}.",
        *(f"A character is {who['name']}, {who['description']}." for who in characters),
        f"The author of the book is {truth['author']}.",
        f"In short, {truth['summary']}.",
        f"The book was printed in {truth['date']}.",
        f"The scenery is {truth['scenery']}.",
    )
    return Record("book", facts, truth)


def _person(rng: random.Random, held_out: bool) -> Record:
    truth: dict[str, Any] = {
        "name": f"{rng.choice(FIRST_NAMES)} {made_up_name(rng, held_out=held_out)}",
        "age": rng.randint(18, 90),
        "city": rng.choice(CITIES),
        "job": rng.choice(JOBS),
    }
    facts = (
        f"The name of the person is {truth['name']}.",
        f"The age of the person is {truth['age']}.",
        f"The person lives in {truth['city']}.",
        f"The job of the person is {truth['job']}.",
    )
    return Record("person", facts, truth)


def _event(rng: random.Random, held_out: bool) -> Record:
    truth: dict[str, Any] = {
        "title": f"{made_up_name(rng, held_out=held_out)} {rng.choice(EVENTS)}",
        "city": rng.choice(CITIES),
        "year": rng.randint(1900, 2029),
        "visitors": rng.randint(100, 9999),
        "open": rng.random() < 0.5,
    }
    facts = (
        f"The title of the event is {truth['title']}.",
        f"The event took place in {truth['city']}.",
        f"The year of the event is {truth['year']}.",
        f"The event had {truth['visitors']} visitors.",
        f"The event is {'open' if truth['open'] else 'closed'}.",
    )
    return Record("event", facts, truth)


_BUILDERS: dict[RecordKind, Callable[[random.Random, bool], Record]] = {
    "book": _book,
    "person": _person,
    "event": _event,
}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def schema(kind: RecordKind) -> dict[str, Any]:
    """The JSON Schema of a kind of record: all keys required, no other allowed.

    Raises:
        CasesError: The kind is unknown.
    """
    string, integer, boolean = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
    match kind:
        case "book":
            character = _object(name=string, description=string)
            keys = _object(
                title=string,
                genre=string,
                characters={"type": "array", "items": character},
                author=string,
                summary=string,
                date=integer,
                scenery=string,
            )
        case "person":
            keys = _object(name=string, age=integer, city=string, job=string)
        case "event":
            keys = _object(title=string, city=string, year=integer, visitors=integer, open=boolean)
        case _:
            raise CasesError(f"kind {kind!r}: use one of {', '.join(_BUILDERS)}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **keys}


def types(schema: Mapping[str, Any]) -> str:
    """The types of a schema of `schema` in words, without its quotes: no value is to be copied."""
    of = schema["properties"]
    whole = [f"the {key}" for key in of if of[key]["type"] == "integer"]
    lists = (
        f"the {key} are a list of objects with the strings {' and '.join(inner)}"
        for key in of
        if (inner := of[key].get("items", {}).get("properties"))
    )
    parts = [
        *lists,
        f"{' and '.join(whole)} {'are integers' if len(whole) > 1 else 'is an integer'}",
        *(f"{key} is a boolean" for key in of if of[key]["type"] == "boolean"),
        "every other value a string.",
    ]
    words = ", ".join(parts)
    return words[0].upper() + words[1:]


BOOK_SCHEMA = json.dumps(schema("book"), indent=2)
"""The schema of seven keys as JSON text."""


def record(rng: random.Random, *, held_out: bool = True, kind: RecordKind | None = None) -> Record:
    """A made-up record, of any kind if none is given.

    Its names are ``held_out``, of those that training never sees, or of those that it may see.

    Raises:
        CasesError: The kind is unknown.
    """
    kind = kind or rng.choice(tuple(_BUILDERS))
    if kind not in _BUILDERS:
        raise CasesError(f"kind {kind!r}: use one of {', '.join(_BUILDERS)}")
    return _BUILDERS[kind](rng, held_out)


def text(record: Record, rng: random.Random, sentences: int) -> str:
    """The record's facts in their order, spread among ``sentences`` sentences of prose."""
    places = sorted(rng.randint(0, sentences) for _ in record.facts)
    parts: list[str] = []
    for place in range(sentences + 1):
        parts += [fact for fact, at in zip(record.facts, places, strict=True) if at == place]
        if place < sentences:
            parts.append(sentence(rng))
    return " ".join(parts)


def sentences_in(record: Record, size: int) -> int:
    """How many sentences of prose fill a record's text up to about ``size`` characters."""
    return max(0, size - len(" ".join(record.facts))) // SENTENCE


def answer(record: Record) -> str:
    """The reference answer: the truth as JSON on one line."""
    return json.dumps(record.truth, ensure_ascii=False)


def instruction(keys: Sequence[str], style: Style = "plain", template: str = INSTRUCTION) -> str:
    """The instruction that names the keys, plain or as one of the two baselines.

    Args:
        keys: Top-level keys in their order.
        style: ``capitals`` writes all but the keys in capitals, ``important`` puts
            ``IMPORTANT:`` before it.
        template: Its words, with ``{keys}``.

    Raises:
        CasesError: There are no keys, or the style is unknown.
    """
    if not keys:
        raise CasesError("an instruction needs at least one key")
    quoted = [json.dumps(key, ensure_ascii=False) for key in keys]
    conjunction = " AND " if style == "capitals" else " and "
    listed = conjunction.join(part for part in (", ".join(quoted[:-1]), quoted[-1]) if part)
    return _styled(template, "{keys}", listed, style)


def schema_instruction(
    schema: Mapping[str, Any], style: Style = "plain", template: str = SCHEMA_INSTRUCTION
) -> str:
    """The instruction that holds a whole JSON Schema in place of ``{schema}``; else as above."""
    return _styled(template, "{schema}", json.dumps(schema, ensure_ascii=False), style)


def _styled(template: str, place: str, filling: str, style: Style) -> str:
    if style not in ("plain", "capitals", "important"):
        raise CasesError(f"style {style!r}: use 'plain', 'capitals' or 'important'")
    words = template.split(place)
    if style == "capitals":
        words = [part.upper() for part in words]
    return ("IMPORTANT: " if style == "important" else "") + filling.join(words)


def prompt(text: str, instruction: str, where: Where = "end") -> str:
    """The prompt that asks for a text's record.

    Raises:
        CasesError: There is no such place for the instruction.
    """
    if where not in PROMPTS:
        raise CasesError(f"where {where!r}: use 'end' or 'head'")
    return PROMPTS[where].format(text=text, instruction=instruction)
