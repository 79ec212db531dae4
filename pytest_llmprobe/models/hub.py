"""Whether a hub model can be had, asked before anything heavy is imported or downloaded."""

from __future__ import annotations

from pathlib import Path

from pytest_llmprobe.data.network import hub_is_reachable
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.registry import ModelSpec


def check_hub(spec: ModelSpec) -> None:
    """Find out in one request whether a hub id exists and may be downloaded.

    A model that is in the local cache is not asked for.

    Raises:
        ModelError: Absent, gated, or not cached while the hub cannot be reached.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(spec.source, "config.json", revision=spec.revision), str):
        return
    if not hub_is_reachable():
        raise ModelError(_absent(spec))
    try:
        HfApi().auth_check(spec.source)
    except Exception as error:
        raise ModelError(explain(spec, error)) from None


def hub_file(spec: ModelSpec, name: str, beside: str) -> Path | None:
    """A small file of a hub model, None if it has none of this name.

    Where the hub cannot be reached, what is not in the cache beside another file was not there.

    Raises:
        ModelError: The model cannot be had.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def cached(file: str) -> Path | None:
        path = try_to_load_from_cache(spec.source, file, revision=spec.revision)
        return Path(path) if isinstance(path, str) else None

    try:
        if hub_is_reachable():
            return Path(hf_hub_download(spec.source, name, revision=spec.revision))
    except LocalEntryNotFoundError:
        pass
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise ModelError(explain(spec, error)) from None
    if cached(name) is None and (name == beside or cached(beside) is None):
        raise ModelError(_absent(spec))
    return cached(name)


def explain(spec: ModelSpec, error: BaseException) -> str:
    """Why a hub model could not be had and what to do, without a traceback or anything secret."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    causes = _causes(error)
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return (
            f"{spec.source} is gated: accept its licence on its hub page, then run "
            "`hf auth login` or set HF_TOKEN"
        )
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        return f"{spec.source} has no revision {spec.revision!r}"
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return f"the hub has no {spec.source}, or it is private: check the name, or set HF_TOKEN"
    network = (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError)
    if any(isinstance(cause, network) or "Connect" in type(cause).__name__ for cause in causes):
        return _absent(spec)
    first, _, rest = str(error).strip().partition("\n")
    if first.rstrip().endswith(":"):  # what it is comes in the next lines
        first = f"{first} {' '.join(rest.split())}"
    return f"{type(error).__name__}: {first[:500]}"


def _absent(spec: ModelSpec) -> str:
    return (
        f"{spec.source} is not on this machine, and the hub cannot be reached or HF_HUB_OFFLINE "
        f"is set: run `hf download {spec.source}` where there is a network, or name a local folder"
    )


def _causes(error: BaseException) -> list[BaseException]:
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    return causes
