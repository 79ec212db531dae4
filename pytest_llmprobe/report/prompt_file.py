"""The whole prompts of a run, compressed beside its report, which has only their two ends.

A file of concatenated xz streams, one for each work unit, so that several processes append to it
and a killed one loses nothing of the others. Prompts of a unit share their haystack: a stream's
dictionary holds it, and each further prompt takes some bytes.
"""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterable, Iterator, Mapping
from errno import ENOSPC
from pathlib import Path
from typing import Any

from pytest_llmprobe.case import Prompt, prompt_json
from pytest_llmprobe.errors import ReportError, StorageError

PROMPTS = "prompts.jsonl.xz"
FAST = 1
"""Preset of the compression: a dictionary of 1 MiB, and about 30 MB of text in a second."""

MOST_BYTES = 2**31
"""Of a file that is read: what claims to be more is none of ours."""


def keep_prompts(path: Path, prompts: Iterable[tuple[str, Prompt]]) -> None:
    """Append prompts with the ids of their cases, in one write.

    Raises:
        StorageError: They cannot be written; those before can be read.
    """
    lines = "".join(
        json.dumps({"id": name, "prompt": prompt_json(prompt)}) + "\n" for name, prompt in prompts
    )
    if not lines:
        return
    packed = lzma.compress(lines.encode(), preset=FAST)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            written, size = os.write(descriptor, packed), os.fstat(descriptor).st_size
            if written < len(packed):  # the disk is full
                os.ftruncate(descriptor, size - written)
                raise OSError(ENOSPC, os.strerror(ENOSPC))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from None


def kept_prompt(path: Path, case: str) -> Any:
    """The prompt of a case as JSON has it: a string, a list of messages, or a text with ids.

    Args:
        path: The file.
        case: The id of the case.

    Raises:
        ReportError: There is no such file, it is damaged before that prompt, or it has none.
    """
    found = None
    for name, prompt in kept_prompts(path):
        found = prompt if name == case else found  # the last one: a case may be asked again
    if found is None:
        raise ReportError(f"{path} has no prompt of {case}")
    return found


def read_prompt(prompt: Any) -> str:
    """A prompt as JSON has it, in the form in which a person reads it."""
    if isinstance(prompt, Mapping):
        return str(prompt.get("text", ""))
    if isinstance(prompt, list):
        return "\n".join(
            f"[{part['role']}] {part['content']}" if isinstance(part, Mapping) else str(part)
            for part in prompt
        )
    return "" if prompt is None else str(prompt)


def kept_prompts(path: Path) -> Iterator[tuple[str, Any]]:
    """All prompts of a file with the ids of their cases, in the order of their being asked.

    Raises:
        ReportError: As ``kept_prompt``.
    """
    read = 0
    try:
        with lzma.open(path) as file:
            for line in file:
                read += len(line)
                if read > MOST_BYTES:
                    raise ReportError(f"{path} holds more than {MOST_BYTES} bytes")
                data = json.loads(line)
                yield data["id"], data["prompt"]
    except FileNotFoundError:
        raise ReportError(f"{path} is not there: this run has kept no prompts") from None
    except EOFError:  # the last process was killed while it wrote
        return
    except (OSError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path} is damaged: {error}") from None
