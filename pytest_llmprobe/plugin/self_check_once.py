"""The self-check of a run: once, in the first process that asks the model, before any case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.plugin.distribution import is_first, scratch_folder
from pytest_llmprobe.plugin.options import options_of
from pytest_llmprobe.plugin.progress import progress_of
from pytest_llmprobe.report.files import to_json, write_atomically
from pytest_llmprobe.report.self_check_text import self_check_lines

if TYPE_CHECKING:
    import pytest

    from pytest_llmprobe.engine import Engine

FOUND = "self-check.json"


def check_once(config: pytest.Config, engine: Engine) -> None:
    """Check the model and leave what is found for the report, if this is the process to do it.

    The check has engines of its own, without a store, so no answer of it is kept.
    """
    options = options_of(config)
    if not options.self_check or not is_first(config, "self-check"):
        return
    from pytest_llmprobe.engine.check_prompts import check_prompts
    from pytest_llmprobe.engine.self_check import self_check

    prompts, size = check_prompts(), engine.batch_size
    if options.spec.protocol is not None and size is None:
        size = len(prompts.alone) + len(prompts.shared)  # a server plans its own batches
    model = getattr(engine.backend, "loaded", None) or engine.backend
    with progress_of(config).unit("self-check") as on_progress:
        found = self_check(
            model,
            *prompts,
            batch_size=size,
            token_budget=options.token_budget,
            drafts=options.drafts,
            on_progress=on_progress,
        )
    write_atomically(scratch_folder(config) / FOUND, to_json(found.as_dict()))


def checked(config: pytest.Config) -> dict[str, Any] | None:
    """The report's ``self_check``: what a process of this session has found, or None."""
    path = scratch_folder(config) / FOUND
    if not options_of(config).self_check or not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def said_of_check(config: pytest.Config, found: Mapping[str, Any] | None) -> list[str]:
    """What the terminal says of the check; if it was asked for and not made, that."""
    if found is None and options_of(config).self_check:
        return ["self-check: not made: no test asked the model, or the process that did has died"]
    return self_check_lines(found)
