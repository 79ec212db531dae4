"""Prefix maps: a few tokens of each document of a corpus, and what truly follows them.

A model is asked to go on from each prefix; what it gives back of the true suffix, it has memorised
(miapipeline; "Scalable Extraction of Training Data", arXiv 2311.17035). The corpus is read once, a
document at a time, and may be larger than memory.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.experiments.memorization.prefix_map.files import (
    Document,
    PrefixEntry,
    Skipped,
)
from pytest_llmprobe.experiments.memorization.prefix_map.writer import (
    PrefixMapWriter,
    map_folder,
    write_metadata,
)
from pytest_llmprobe.suite import seed_of

Location: TypeAlias = Literal["start", "random"] | int
OnProgress: TypeAlias = Callable[[int, int], None]
"""Called with the number of entries and of skipped documents so far."""


@dataclass(frozen=True)
class TextTokenizer:
    """What a prefix map needs of a tokenizer, see `models.text_tokenizer`."""

    encode: Callable[[str], Sequence[int]]  # without special tokens before or after the text
    decode: Callable[[Sequence[int]], str]  # special tokens and all
    hash: str  # 16 hex digits that tell it from every tokenizer with other ids
    before: tuple[int, ...] = ()  # special tokens that the model wants before a text, such as BOS


@dataclass(frozen=True)
class PrefixCut:
    """Which tokens of which documents.

    A prefix begins at the ``start``; at a place that is ``random``, uniform over all where it fits
    and different for each document; or at a place counted in tokens from 0 and clamped to
    ``length - prefix_tokens``, the last one where it fits.

    Raises:
        SettingsError: A value is out of range.
    """

    prefix_tokens: int  # P
    location: Location = "start"
    size: int | None = None  # entries at most: the first documents that are long enough
    # Only so many tokens of each document count, for the place of the prefix and for the suffix,
    # which keeps the map small; None for all.
    document_tokens: int | None = None
    seed: int = 0  # of the random places

    def __post_init__(self) -> None:
        place = self.location if isinstance(self.location, int) else 0
        if self.location not in ("start", "random") and not isinstance(self.location, int):
            raise SettingsError(f"location={self.location!r}: give start, random or a whole number")
        least = self.prefix_tokens + 1
        counted = least if self.document_tokens is None else self.document_tokens
        for name, value, lowest in (
            ("prefix_tokens", self.prefix_tokens, 1),
            ("location", place, 0),
            ("size", 1 if self.size is None else self.size, 1),
            ("document_tokens", counted, least),
        ):
            if value < lowest:
                raise SettingsError(f"{name}={value}: it must be {lowest} or more")

    def of(
        self, document: str, ids: Sequence[int], decode: Callable[[Sequence[int]], str]
    ) -> PrefixEntry | Skipped:
        """The entry of one document, from its id and its token ids without special tokens."""
        tokens, p = np.asarray(ids[: self.document_tokens], dtype=np.int32), self.prefix_tokens
        if len(tokens) < p:
            return Skipped(document, f"it has {len(tokens)} tokens, and a prefix has {p}")
        last = len(tokens) - p
        if self.location == "random":
            start = random.Random(seed_of("prefix", self.seed, document)).randint(0, last)
        else:
            start = 0 if self.location == "start" else min(self.location, last)
        prefix, suffix = tokens[start : start + p], tokens[start + p :]
        return PrefixEntry(document, start, decode(prefix.tolist()), prefix, suffix)


def make_prefix_map(
    documents: Iterable[tuple[str, str] | Document],
    tokenizer: TextTokenizer,
    cut: PrefixCut,
    parent: Path,
    *,
    model: str,
    dataset: str,
    tokenizer_of: str | None = None,
    save: bool = False,
    crop: bool = False,
    now: datetime | None = None,
    on_progress: OnProgress | None = None,
    on_clamped: OnProgress | None = None,
) -> Path:
    """Read a corpus and save its prefix map.

    The documents, id and text of each in order, with label and info if they have them, are read no
    further than ``cut.size`` asks. The map becomes a folder in ``parent`` that is named after the
    model, the corpus and the time ``now`` (with a time zone; the present if left out):
    ``{model}_{dataset}_{prefix_tokens}_{location}_{timestamp}`` (UTC). With ``save`` the corpus is
    kept in it as JSON lines: all of it, or with ``crop`` what was read for the map. A model behind
    a server has its tokens from another one, ``tokenizer_of``. In how many entries a place had to
    be clamped, and of how many, ``on_clamped`` is told, if there are any.

    Returns:
        The folder, for `files.load_prefix_map`.

    Raises:
        SettingsError: ``crop`` without ``save``, which would do nothing.
        CasesError: The corpus cannot be read, has no document that is long enough, or the folder
            cannot be written. No folder is left then.
    """
    if crop and not save:
        raise SettingsError("crop limits the corpus that is saved: ask for save, too")
    now = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    names = (model, dataset, str(cut.prefix_tokens), str(cut.location), f"{now:%Y%m%dT%H%M%SZ}")
    corpus, clamped = _Corpus(documents), 0
    with map_folder(parent, "_".join(map(_safe, names))) as folder:
        with PrefixMapWriter(folder, cut.prefix_tokens, save) as writer:
            for document in corpus:
                writer.add_document(document)
                if writer.entries == cut.size:
                    continue  # the rest is only saved
                found = cut.of(document.id, tokenizer.encode(document.text), tokenizer.decode)
                if isinstance(found, PrefixEntry):
                    clamped += isinstance(cut.location, int) and found.start < cut.location
                    found = replace(found, label=document.label, info=document.info)
                writer.add(found)
                if on_progress is not None:
                    on_progress(writer.entries, writer.skipped)
                if writer.entries == cut.size and (crop or not save):
                    break
        if not writer.entries:
            raise CasesError(
                f"none of the {corpus.documents} documents of {dataset} has {cut.prefix_tokens} "
                "tokens; give fewer prefix tokens, or longer documents"
            )
        counts = {name: getattr(writer, name) for name in ("entries", "skipped", "suffix_tokens")}
        if clamped and on_clamped is not None:
            on_clamped(clamped, writer.entries)
        write_metadata(
            folder,
            {
                "model": model,
                "tokenizer": tokenizer_of or model,
                "dataset": dataset,
                "corpus": {"documents": corpus.documents, "sha256": corpus.digest},
                "created": now.isoformat(),
                "parameters": asdict(cut),
                "tokenizer_hash": tokenizer.hash,
                "clamped": clamped,
                **counts,
            },
        )
    return folder


class _Corpus:
    """Counts and hashes the documents that are read."""

    def __init__(self, documents: Iterable[tuple[str, str] | Document]) -> None:
        self._read, self.documents, self._digest = documents, 0, hashlib.sha256()

    def __iter__(self) -> Iterator[Document]:
        for given in self._read:
            document = Document(*given)
            self.documents += 1
            self._digest.update(hashlib.sha256(document.text.encode()).digest())
            yield document

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()[:16]


def _safe(name: str) -> str:
    """A part of a folder's name for any file system: of a path or a hub id its last part."""
    last = name.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.")[:60] or "unnamed"
