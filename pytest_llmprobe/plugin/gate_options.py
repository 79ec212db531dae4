"""What the gate demands, and which options may not be left empty."""

from __future__ import annotations

import os
from typing import Any, Literal, TypeAlias

from pytest_llmprobe.errors import SettingsError

Require: TypeAlias = Literal["nothing", "asked", "something"]
"""What must be judged: nothing, all that was asked for, or at least something besides."""

NAMED = {
    "model": "a model",
    "save": "a baseline",
    "compare": "a baseline, a report or a run's folder",
    "config": "a TOML file",
    "storage": "a folder",
    "replay": "a run",
    "json": "a file",
    "html": "a file",
    "md": "a file",
    "base_url": "a URL",
    "device": "a device",
    "device_map": "a device map",
    "attn_implementation": "an attention",
    "adapter": "a folder",
    "resume": "a run, or nothing for the last one",
    "fidelity": "off, answers, or a file of texts",
    "judge": "a model",
    "dataset": "NAME=SOURCE",
}
"""Options that name something: what an empty variable of a script makes of them is no wish."""


def refuse_empty(option: Any) -> None:
    """Refuse an option that names nothing.

    Args:
        option: pytest's options.

    Raises:
        SettingsError: Says which one, and what it should name.
    """
    for name, what in NAMED.items():
        given = getattr(option, f"llmprobe_{name}", None)
        values = given if isinstance(given, list) else [given]
        if any(isinstance(value, str) and not value.strip() for value in values):
            shown = f"--llmprobe-{name.replace('_', '-')}"
            shown = "--model (--llmprobe-model)" if name == "model" else shown
            raise SettingsError(f"{shown} is empty: name {what}, or leave the option out")


def read_require(option: Any) -> Require:
    """What must be judged for exit code 0.

    Raises:
        SettingsError: Something must be, and the gate is switched off.
    """
    if option.llmprobe_require_judged is False:
        return "nothing"
    if option.llmprobe_require_judged:
        if option.llmprobe_gate == "none":
            raise SettingsError(
                "--llmprobe-require-judged and --llmprobe-gate none exclude another"
            )
        return "something"
    asked = option.llmprobe_compare, option.llmprobe_gate, option.llmprobe_config
    return "asked" if any(map(bool, asked)) or os.environ.get("CI") else "nothing"


def as_repeat() -> dict[str, Any]:
    """The options of a run that repeats another one: it measures, and does nothing else."""
    nothing = dict.fromkeys(("save", "compare", "html", "md", "require_judged"))
    return {
        f"llmprobe_{name}": value
        for name, value in {**nothing, "calibrate": 0, "gate": "none"}.items()
    }
