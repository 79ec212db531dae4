"""Which answers of known length are asked for, and which of them are held out."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from pytest_llmprobe.data.rows import jsonl_rows
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.experiments.output_length import lists
from pytest_llmprobe.experiments.output_length.words import PHRASINGS, SAME_PROMPT, WORDS, prompt
from pytest_llmprobe.suite import seed_of

Dataset: TypeAlias = Literal["same_prompt", "different_prompts", "multi_layers", "lists"]
DATASETS: tuple[str, ...] = get_args(Dataset)

HeldOut: TypeAlias = Literal["sample", "word", "phrasing", "count"]
HELD_OUT: tuple[HeldOut, ...] = get_args(HeldOut)

COUNTS = range(5, 50)
"""How many times a word is asked for, as in output-length-prediction."""

LIST_COUNTS = range(3, 11)
"""How many things are asked for."""

TEN_WORDS = WORDS[::6]

MOST_REQUESTS, MOST_COUNT = 1_000_000, 100_000


@dataclass(frozen=True)
class LengthRequest:
    """One request for an answer."""

    prompt: str  # what the user says
    word: str | None = None  # to repeat; None if any answer that ends is a right one
    count: int | None = None  # how many times
    phrasing: str | None = None  # the prompt before word and count were filled in, if known
    is_list: bool = False  # of so many of what the word names, in place of the word repeated


def length_requests(
    dataset: str,
    words: Sequence[str] | None = None,
    counts: Collection[int] | None = None,
    seed: int = 0,
) -> list[LengthRequest]:
    """Every word with every count; answers of about the same length are neighbours.

    Args:
        dataset: ``same_prompt`` and ``multi_layers`` ask in one phrasing, ``different_prompts`` in
            one of 52, drawn for each request; ``lists`` asks in one of 12 for so many animals,
            cities and so on; what else is the path of a .jsonl file of objects with a ``prompt``,
            with or without ``word`` and ``count`` (only then can a wrong answer be told), and
            ``phrasing``.
        words: The words, by default `TEN_WORDS`, of lists `lists.TOPICS`; a file has its own.
        counts: The counts, by default `COUNTS`, of lists `LIST_COUNTS`; a file has its own.
        seed: Of the draw.

    Raises:
        CasesError: The file cannot be read, or holds no requests.
        SettingsError: No words, or a count below 1.
    """
    if dataset not in DATASETS:
        return read_requests(Path(dataset))
    is_list = dataset == "lists"
    if words is None:
        words = lists.TOPICS if is_list else TEN_WORDS
    if counts is None:
        counts = LIST_COUNTS if is_list else COUNTS
    words, wanted = list(dict.fromkeys(words)), sorted(set(counts))
    shape = r"\S.*" if is_list else r"\S+"
    if not words or not all(re.fullmatch(shape, word) for word in words):
        raise SettingsError(f"words {', '.join(words)!r}: give one at least, each without spaces")
    if not wanted or wanted[0] < 1 or wanted[-1] > MOST_COUNT:
        raise SettingsError(f"counts: give whole numbers from 1 to {MOST_COUNT}")
    rng = random.Random(seed_of("phrasings", seed))
    phrasings = {"different_prompts": PHRASINGS, "lists": lists.PHRASINGS}.get(
        dataset, (SAME_PROMPT,)
    )
    requests = []
    for count, word in product(wanted, words):
        phrasing = rng.choice(phrasings)
        text = prompt(phrasing, word, count)
        requests.append(LengthRequest(text, word, count, phrasing, is_list))
    return requests


def read_requests(path: Path) -> list[LengthRequest]:
    """The requests of a .jsonl file; see `length_requests`.

    Raises:
        CasesError: A line cannot be used, or there is none.
    """
    if path.suffix != ".jsonl" or not path.is_file():
        raise CasesError(f"data set {str(path)!r}: give {', '.join(DATASETS)} or a .jsonl file")
    requests = []
    for where, row in jsonl_rows(path):
        requests.append(_request(where, row))
        if len(requests) > MOST_REQUESTS:
            raise CasesError(f"{path} holds more than {MOST_REQUESTS} requests; split it")
    if not requests:
        raise CasesError(f"{path} holds no requests")
    return requests


def _request(where: str, row: Mapping[str, object]) -> LengthRequest:
    text, word, count, phrasing = (row.get(k) for k in ("prompt", "word", "count", "phrasing"))
    if not isinstance(text, str) or not text.strip():
        raise CasesError(f"{where}: give 'prompt', a text")
    if not (word is None or isinstance(word, str)) or not isinstance(phrasing, str | None):
        raise CasesError(f"{where}: 'word' and 'phrasing' are texts")
    if not isinstance(count, int | None) or isinstance(count, bool):
        raise CasesError(f"{where}: 'count' is a whole number")
    if (word is None) != (count is None) or (count is not None and not 0 < count <= MOST_COUNT):
        raise CasesError(f"{where}: give both 'word' and 'count' (1 to {MOST_COUNT}), or neither")
    return LengthRequest(text, word, count, phrasing)


def held_out(
    requests: Sequence[LengthRequest], by: HeldOut, share: float = 0.2, seed: int = 0
) -> list[bool]:
    """Which requests are kept for the test, all their tokens together.

    Neighbouring tokens of an answer have nearly the same states: had some of them been trained on,
    the others would be no test.

    Args:
        requests: The requests.
        by: ``sample`` draws requests (equal ones go together); ``word``, ``phrasing`` and
            ``count`` draw values of these, which no request for training has.
        share: How much is held out, of the values that are drawn; at least one.
        seed: Of the draw.

    Raises:
        SettingsError: The share is not between 0 and 1, or there are not two values.
    """
    if not 0 < share < 1:
        raise SettingsError(f"share {share}: give a number between 0 and 1")
    values = _values(requests, by)
    distinct = sorted(set(values))
    n = min(max(1, round(share * len(distinct))), len(distinct) - 1)
    chosen = set(random.Random(seed_of("held out", by, seed)).sample(distinct, n))
    return [value in chosen for value in values]


def parted(requests: Sequence[LengthRequest], by: HeldOut, n: int, seed: int = 0) -> list[int]:
    """The part of each request, from 0, where each of n parts is held out in turn.

    Args:
        requests: The requests.
        by: What no two parts share, as in `held_out`.
        n: How many parts, 2 or more; as many as there are values if these are fewer.
        seed: Of the draw.

    Raises:
        SettingsError: There are not two values.
    """
    values = _values(requests, by)
    distinct = sorted(set(values))
    random.Random(seed_of("parts", by, seed)).shuffle(distinct)
    part = {value: place % n for place, value in enumerate(distinct)}
    return [part[value] for value in values]


def _values(requests: Sequence[LengthRequest], by: HeldOut) -> list[str | int]:
    """What every request is held out by."""
    values = [getattr(request, "prompt" if by == "sample" else by) for request in requests]
    if None in values:
        raise SettingsError(f"split by {by}: not every request has a {by}; split by sample")
    if len(set(values)) < 2:
        raise SettingsError(f"split by {by}: there is only one; split by another quality")
    return values
