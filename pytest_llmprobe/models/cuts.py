"""Whether a tokenizer's long texts may be cut, and where, decided from its tokenizer.json.

The tokens of the parts are those of the whole only where no word, merge, look-ahead or replacement
reaches across the cut. What is not known to be so is not cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pytest_llmprobe.models.patterns import PRINTABLE, SPACE, Characters, crosses


class Place(NamedTuple):
    """A kind of place in a text, and what finds it: between characters of one kind and another."""

    before: Characters
    after: Characters
    pattern: re.Pattern[str]


SPACES = Place(PRINTABLE, SPACE, re.compile(r"(?<=[!-~])(?= [!-~])"))
"""Before a single space between two printable characters."""

MARKS = Place(
    frozenset(c for c in PRINTABLE if c.isalnum()),
    frozenset('",.;:!?)'),
    re.compile(r"(?<=[0-9A-Za-z])(?=[\",.;:!?)])"),
)
"""Between a letter or digit and a punctuation mark."""


class CutRule(NamedTuple):
    """Where texts may be cut: at which places, and if only where the pre-tokenisation splits."""

    place: Place
    words: bool


_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"}
_NORMALIZERS |= {"ByteLevel", "Nmt", "Precompiled", "Prepend", "Strip"}
_PRE_TOKENIZERS = {"ByteLevel", "Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Digits"}
_PRE_TOKENIZERS |= {"CharDelimiterSplit", "Metaspace", "Punctuation"}


def cut_rule(tokenizer: Mapping[str, Any]) -> CutRule | None:
    """Where the texts of a tokenizer may be cut, by its tokenizer.json; None: nowhere.

    With words: where no match of its regular expressions can reach across, and near which they
    cannot look far. Without (Llama 2, Mistral, Gemma): byte-pair encodings whose vocabulary holds
    no token with a space after something else, so that no merge crosses the place before a space.
    """
    model = tokenizer["model"]
    normalizers = list(_parts(tokenizer.get("normalizer")))
    splits = list(_parts(tokenizer.get("pre_tokenizer")))
    kinds = ("BPE", "WordPiece", "WordLevel", "Unigram")
    if model.get("type") not in kinds or model.get("dropout"):
        return None
    if normalizers and any(token["normalized"] for token in tokenizer["added_tokens"]):
        return None
    for place in (SPACES, MARKS):
        local = [_is_local(part, _NORMALIZERS, place) for part in normalizers]
        if all(local) and all(_is_local(part, _PRE_TOKENIZERS, place) for part in splits):
            mark = _space_mark(normalizers, splits) if place is SPACES else None
            if model["type"] == "BPE" and mark and _no_token_crosses(model["vocab"], mark):
                return CutRule(SPACES, words=False)
            return CutRule(place, words=True) if splits else None
    return None


def _parts(part: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The parts of a sequence, in order; a part on its own is a sequence of one."""
    if part is not None and part["type"] == "Sequence":
        for inner in part.get("normalizers") or part.get("pretokenizers") or ():
            yield from _parts(inner)
    elif part is not None:
        yield part


def _is_local(part: Mapping[str, Any], known: set[str], place: Place) -> bool:
    """Whether what a part does on one side of a place does not depend on the other side."""
    if part["type"] not in ("Replace", "Split"):
        return part["type"] in known
    pattern = part["pattern"]
    expression = pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"])
    return not crosses(expression, place.before, place.after)


def _space_mark(
    normalizers: list[Mapping[str, Any]], splits: list[Mapping[str, Any]]
) -> str | None:
    """What stands for a space inside the model, if every space becomes the same mark."""
    for part in normalizers:
        if part["type"] == "Replace" and part["pattern"].get("String") == " ":
            return str(part["content"])
    if splits and splits[0]["type"] == "Metaspace":
        return str(splits[0]["replacement"])
    return None


def _no_token_crosses(vocabulary: Mapping[str, int], mark: str) -> bool:
    """Whether the mark begins a token wherever it follows something else."""
    if len(mark) != 1 or mark not in vocabulary:
        return False
    crossing = re.compile(f"[^{re.escape(mark)}]{re.escape(mark)}")
    return not any(crossing.search(token) for token in vocabulary)
