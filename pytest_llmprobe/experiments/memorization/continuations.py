"""What a model goes on with after the prefixes of a map, and how much of the truth that is.

A result is one dictionary, and one JSON line: ``index``, ``round`` (how often the map was gone
round before), ``document``, its ``label`` and ``info`` (None without), ``start``, ``prefix``,
``suffix_ids`` (what truly follows, at most ``max_length`` tokens) and ``suffix_text``,
``generated_ids``, ``generated_text``, ``finish_reason``, ``seed``, ``scores`` (those of
`extraction.extraction_scores`; None where the document ends with the prefix) and ``note`` (a
remark, or None). What a server says has no ids of its own: see `prefix_prompts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from pytest_llmprobe.data.rows import jsonl_rows
from pytest_llmprobe.data.safe_writing import append, whole_lines, write_atomically, writing
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.experiments.memorization.extraction import extraction_scores
from pytest_llmprobe.experiments.memorization.prefix_map.files import PrefixEntry, PrefixMap
from pytest_llmprobe.experiments.memorization.prefix_prompts import PrefixPrompts, TokenPrompts
from pytest_llmprobe.generation import Completion, GenerateConfig, Request
from pytest_llmprobe.suite import seed_of

Result: TypeAlias = dict[str, Any]
Generate: TypeAlias = Callable[[list[Request]], list[Completion]]
"""Completions in the order of the requests, such as ``Engine(...).generate``."""
OnProgress: TypeAlias = Callable[[int, int], None]
"""Called with the number of strings so far and in all."""

AS_TOKENS = TokenPrompts()
REPEATED = "greedy decoding gives the text of round 0 again; set a temperature for another one"


class Entries(Protocol):
    """A prefix map, or a list of entries."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> PrefixEntry: ...


@dataclass(frozen=True)
class Prompting:
    """How many continuations, and how they are generated.

    If the map has fewer prefixes, it is gone round again from its beginning, each round with other
    seeds. With greedy decoding the rounds give the same texts, as their ``note`` says.

    Raises:
        SettingsError: A value is out of range.
    """

    num_strings: int
    max_length: int = 20  # new tokens of each at most
    batch_size: int = 10  # strings that are generated, and written, together
    temperature: float = 0.0  # 0 for greedy decoding
    top_k: int = 0  # sample among the likeliest tokens; 0 for all
    top_p: float = 1.0  # sample among the likeliest that together hold this probability
    seed: int = 0  # each string's own is made from it, the round and the place in the map

    def __post_init__(self) -> None:
        for name in ("num_strings", "max_length", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)}: it must be 1 or more")
        _ = self.config

    @property
    def config(self) -> GenerateConfig:
        """The same for every request."""
        return GenerateConfig(
            max_new_tokens=self.max_length,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )


def continuations(
    entries: Entries,
    generate: Generate,
    prompting: Prompting,
    prompts: PrefixPrompts = AS_TOKENS,
) -> list[Result]:
    """Go on from each prefix, asked for as ``prompts`` say.

    Raises:
        CasesError: There are no entries.
        RequestError: A prefix cannot be continued, for instance for want of context.
    """
    return list(chain.from_iterable(_batches(entries, generate, prompting, prompts, 0)))


def write_continuations(
    entries: PrefixMap,
    generate: Generate,
    prompting: Prompting,
    path: Path,
    *,
    prompts: PrefixPrompts = AS_TOKENS,
    about: Mapping[str, str] | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """As `continuations`, written as they come; goes on with a file that is not complete.

    What is written, and ``path`` with ``.meta.json`` after it, says how it was made. A last line
    that a kill has torn is made again. The number of strings may be larger than before, and the
    batch size may change; all else must be the same, also what ``about`` says, such as the model's
    name and fingerprint. Progress is told at the beginning and after each batch.

    Raises:
        SettingsError: The file was begun in another way.
        CasesError: The file is damaged or cannot be written, or the map is empty.
        RequestError: As for `continuations`; what is written remains.
    """
    made = asdict(prompting) | {
        "prefix_map": entries.folder.name,
        "prefix_map_digest": entries.digest,
        **prompts.about,
        **(about or {}),
    }
    del made["num_strings"], made["batch_size"]
    with writing(path):
        done = _begun(path, made)
    if done > prompting.num_strings:
        raise SettingsError(
            f"{path} holds {done} strings already, more than num_strings={prompting.num_strings}; "
            "choose another file"
        )
    told = on_progress or (lambda done, total: None)
    told(done, prompting.num_strings)
    with writing(path):
        file = path.open("ab")
    with file:
        for batch in _batches(entries, generate, prompting, prompts, done):
            with writing(path):
                append(file, *map(json.dumps, batch))
            done += len(batch)
            told(done, prompting.num_strings)


def read_continuations(path: Path) -> Iterator[Result]:
    """What `write_continuations` wrote, one at a time.

    Raises:
        CasesError: The file cannot be read.
    """
    return (dict(row) for _, row in jsonl_rows(path))


def _batches(
    entries: Entries, generate: Generate, prompting: Prompting, prompts: PrefixPrompts, first: int
) -> Iterator[list[Result]]:
    if not len(entries):
        raise CasesError("the prefix map is empty, so there is nothing to go on from")
    for start in range(first, prompting.num_strings, prompting.batch_size):
        indices = range(start, min(start + prompting.batch_size, prompting.num_strings))
        places = [divmod(index, len(entries)) for index in indices]
        asked = [entries[place] for _, place in places]
        requests = [
            Request(
                prompts.prompt(entry),
                prompting.config,
                seed_of("continuation", prompting.seed, round_, place),
            )
            for entry, (round_, place) in zip(asked, places, strict=True)
        ]
        answers = generate(requests)
        yield [
            {"index": index, "round": round_, "seed": request.seed}
            | _result(entry, completion, prompting.max_length, prompts)
            | {"note": REPEATED if round_ and prompting.temperature == 0 else None}
            for index, (round_, _), entry, request, completion in zip(
                indices, places, asked, requests, answers, strict=True
            )
        ]


def _result(
    entry: PrefixEntry, completion: Completion, max_length: int, prompts: PrefixPrompts
) -> Result:
    suffix = entry.suffix_ids[:max_length].tolist()
    generated, true = prompts.read(entry, suffix, completion)
    return {
        "document": entry.document,
        "label": entry.label,
        "info": entry.info,
        "start": entry.start,
        "prefix": entry.prefix,
        "suffix_ids": suffix,
        "suffix_text": prompts.text(suffix),
        "generated_ids": generated,
        "generated_text": completion.text,
        "finish_reason": completion.finish_reason,
        "scores": asdict(extraction_scores(generated, true)) if true else None,
    }


def _begun(path: Path, made: Mapping[str, Any]) -> int:
    """How many strings a file holds that is to be gone on with; a torn last line is cut off."""
    meta = path.with_name(f"{path.name}.meta.json")
    if not path.exists() or path.stat().st_size == 0:
        write_atomically(meta, json.dumps(made, indent=1, sort_keys=True))
        return 0
    try:
        before = json.loads(meta.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = None
    if not isinstance(before, dict):
        raise SettingsError(
            f"{path} is there, and no {meta.name} that says how it was made: choose another file"
        )
    for name in sorted(before.keys() | made.keys()):
        if before.get(name) != made.get(name):
            raise SettingsError(
                f"{path} was begun with {name}={before.get(name)!r}, and not {made.get(name)!r}; "
                "go on with the same, or choose another file"
            )
    lines, last = 0, b"{}"
    with path.open("r+b") as file:
        for line in whole_lines(file):
            lines, last = lines + 1, line
    if lines and not _is_string(last, lines - 1):
        raise CasesError(f"{path} is damaged: line {lines} is not string {lines - 1}")
    return lines


def _is_string(line: bytes, index: int) -> bool:
    try:
        result = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(result, dict) and result.get("index") == index
