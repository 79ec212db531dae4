"""Whether a tokenizer's long texts may be cut at spaces, decided from its tokenizer.json.

The tokens of the parts are those of the whole only where no word, merge, look-ahead or replacement
reaches across the cut. What is not known to be so is not cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

from pytest_llmprobe.models.patterns import stops_at_spaces

CutRule: TypeAlias = Literal["word", "space"]

_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"} | {
    "ByteLevel",
    "Nmt",
    "Precompiled",
    "Prepend",
    "Strip",
}
_PRE_TOKENIZERS = {"ByteLevel", "Whitespace", "WhitespaceSplit", "BertPreTokenizer"} | {
    "CharDelimiterSplit",
    "Digits",
    "Metaspace",
    "Punctuation",
}


def cut_rule(tokenizer: Mapping[str, Any]) -> CutRule | None:
    """Where texts may be cut: always before a single space between two printable characters.

    Args:
        tokenizer: What tokenizer.json holds.

    Returns:
        ``word``: if the pre-tokenisation splits there. ``space``: if no token reaches across, for
        byte-pair encodings without words (Llama 2, Mistral, Gemma) whose vocabulary holds no token
        with a space after something else, so that no merge crosses. None: nowhere.
    """
    model = tokenizer["model"]
    normalizers = list(_parts(tokenizer.get("normalizer")))
    splits = list(_parts(tokenizer.get("pre_tokenizer")))
    if (
        model.get("type") not in ("BPE", "WordPiece", "WordLevel", "Unigram")
        or model.get("dropout")
        or not all(_is_local(part, _NORMALIZERS) for part in (*normalizers,))
        or not all(_is_local(part, _PRE_TOKENIZERS) for part in (*splits,))
        or (normalizers and any(token["normalized"] for token in tokenizer["added_tokens"]))
    ):
        return None
    mark = _space_mark(normalizers, splits)
    if model["type"] == "BPE" and mark is not None and _no_token_crosses(model["vocab"], mark):
        return "space"
    return "word" if splits else None


def _parts(part: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The parts of a sequence, in order; a part on its own is a sequence of one."""
    if part is None:
        return
    if part["type"] != "Sequence":
        yield part
        return
    for inner in part.get("normalizers") or part.get("pretokenizers") or ():
        yield from _parts(inner)


def _is_local(part: Mapping[str, Any], known: set[str]) -> bool:
    """Whether what a part does on one side of a space is independent of what is far behind it."""
    if part["type"] not in ("Replace", "Split"):
        return part["type"] in known
    pattern = part["pattern"]
    if "Regex" in pattern:
        return stops_at_spaces(pattern["Regex"])
    return pattern["String"] == " " or " " not in pattern["String"]


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
