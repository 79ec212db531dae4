"""Why two runs may differ: what was not the same, layer by layer, causes before their effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from pytest_llmprobe.report.baseline import Baseline
from pytest_llmprobe.report.record import bounded

FROM_FILES = ("config", "adapters", "generation_config")
"""Layers that are values in a checkpoint's files, by name."""

OF_PROMPTS = ("tokenizer", "chat template", "template arguments", "date", "data")
"""Layers that decide what a model reads of a case."""

MAX_CAUSES = 3
"""Causes of changed prompts that are named at once."""

MAX_VALUE = 60
"""Characters of a value that a difference shows."""


@dataclass(frozen=True)
class Difference:
    """One thing that was not the same in two runs."""

    layer: str
    what: str
    first: str
    second: str

    def __str__(self) -> str:
        if self.layer in FROM_FILES:  # as it is written there
            return f"{self.layer}: {self.what} {self.first} -> {self.second}"
        what = "" if self.what == self.layer else f" ({self.what})"
        return f"{self.layer}{what}: {self.first} -> {self.second}"


Pairs: TypeAlias = Iterator[tuple[str, Any, Any]]
"""What it is, and its value in either run; equal values are no difference."""


def why(first: Baseline, second: Baseline) -> list[Difference]:
    """What two runs differ in, in the order of ``LAYERS``: look for the cause at the first entry.

    A layer that one of the runs says nothing of is passed over.
    """
    return [
        Difference(layer, what, _shown(one), _shown(other))
        for layer, sources in LAYERS.items()
        for pairs in sources
        for what, one, other in pairs(first, second)
        if one != other
    ]


def changed_prompts(first: Baseline, second: Baseline) -> str | None:
    """How many prompts changed and why, in one sentence; None if none did."""
    shared = sorted(first.cases.keys() & second.cases.keys())
    pairs = [(first.cases[case], second.cases[case]) for case in shared]
    judged = [(one, other) for one, other in pairs if one.judged and other.judged]
    changed = sum(one.prompt_hash != other.prompt_hash for one, other in judged)
    if not changed:
        return None
    causes = [str(found) for found in why(first, second) if found.layer in OF_PROMPTS]
    listed = "; ".join(causes[:MAX_CAUSES]) or "the evaluation's own text"
    return (
        f"the prompts of {changed} of {len(judged)} cases changed ({listed}): cases are paired by "
        "id and judged as model and prompt together"
    )


def _shown(value: object) -> str:
    if isinstance(value, float):
        value = f"{value:.12g}"
    return bounded("none" if value is None else str(value), MAX_VALUE) or "''"


def _values(*places: str) -> Callable[[Baseline, Baseline], Pairs]:
    """Values that both runs have, at places such as ``config.seed`` or ``cpu.cores``."""

    def pairs(first: Baseline, second: Baseline) -> Pairs:
        for place in places:
            part, _, key = place.partition(".")
            one, other = _part(first, part), _part(second, part)
            if key in one and key in other:
                yield key, one[key], other[key]

    return pairs


def _part(run: Baseline, name: str) -> Mapping[str, Any]:
    found = run.environment.get("cpu") if name == "cpu" else getattr(run, name)
    return found if isinstance(found, Mapping) else {}


def _keys_of_either(one: object, other: object, where: str = "") -> Pairs:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted(one.keys() | other.keys()):
            yield f"{where}{key}", one.get(key), other.get(key)


def _nested(key: str) -> Callable[[Baseline, Baseline], Pairs]:
    """Values of a table that both runs have in ``model_info``.

    Another version of transformers knows other keys; then a key of one run alone says nothing.
    """

    def pairs(first: Baseline, second: Baseline) -> Pairs:
        one, other = first.model_info.get(key), second.model_info.get(key)
        if not isinstance(one, Mapping) or not isinstance(other, Mapping):
            return
        keys = one.keys() | other.keys() if _same_library(first, second) else one.keys() & other
        changed = [name for name in sorted(keys) if one.get(name) != other.get(name)]
        short = [name.rpartition(".")[2] for name in changed]
        for name, last in zip(changed, short, strict=True):
            yield last if short.count(last) == 1 else name, one.get(name), other.get(name)

    return pairs


def _same_library(first: Baseline, second: Baseline) -> bool:
    one, other = (run.environment.get("packages") for run in (first, second))
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    return bool(one.get("transformers") == other.get("transformers"))


def _arguments(first: Baseline, second: Baseline) -> Pairs:
    """What the chat template was given; as the options say it where a run loaded no model."""
    places = [(first.model_info, second.model_info), (first.config, second.config)]
    for one, other in places:
        if "template" in one and "template" in other:
            return _keys_of_either(one["template"], other["template"])
    return iter(())


def _weights(first: Baseline, second: Baseline) -> Pairs:
    """By fingerprint; where another dtype makes that another one, by where they come from."""
    one, other = first.model_info, second.model_info
    stored = ("dtype", "quantization")
    known = one.get("fingerprint") and other.get("fingerprint")
    if known and all(one.get(key) == other.get(key) for key in stored):
        if one["fingerprint"] != other["fingerprint"]:
            yield "weights", _origin(first), _origin(second)
    elif one and other:
        yield from _values("model_info.source", "model_info.revision")(first, second)
    else:
        yield "model", first.model, second.model


def _origin(run: Baseline) -> str:
    info = run.model_info
    revision = f"@{str(info['revision'])[:12]}" if info.get("revision") else ""
    return f"{info.get('source') or run.model}{revision} [{info['fingerprint']}]"


def _generation(first: Baseline, second: Baseline) -> Pairs:
    for name in sorted(first.experiments.keys() & second.experiments.keys()):
        one, other = (run.experiments[name].get("generation") for run in (first, second))
        yield from _keys_of_either(one, other, f"{name}: ")


def _packages(first: Baseline, second: Baseline) -> Pairs:
    one, other = (run.environment.get("packages") for run in (first, second))
    return _keys_of_either(one, other)


def _cases(field: str, what: str, changed_to: str, first: Baseline, second: Baseline) -> Pairs:
    """How many of the cases of both runs have another value in a field."""
    both = [(first.cases[case], second.cases[case]) for case in first.cases.keys() & second.cases]
    changed = sum(getattr(one, field) != getattr(other, field) for one, other in both)
    if changed:
        yield what, f"{len(both)} cases", f"{changed} of them {changed_to}"


def _code(first: Baseline, second: Baseline) -> Pairs:
    yield "commit", _commit(first), _commit(second)


def _commit(run: Baseline) -> str | None:
    if run.commit is None:
        return None
    return f"{str(run.commit.get('id'))[:12]}{' and changes' if run.commit.get('dirty') else ''}"


LAYERS: Mapping[str, Sequence[Callable[[Baseline, Baseline], Pairs]]] = {
    "weights": [_weights],
    "adapters": [_nested("adapters")],
    "config": [_nested("config")],
    "tokenizer": [_values("model_info.tokenizer_hash")],
    "chat template": [_values("model_info.chat_template_hash")],
    "template arguments": [_arguments],
    "date": [_values("model_info.date")],
    "generation_config": [_nested("generation_config"), _values("model_info.end_ids")],
    "generation config": [
        _values("config.delta", "config.layers", "config.phase", "config.thinking"),
        _generation,
    ],
    "data": [
        _values("config.profile", "config.seed", "config.trials", "config.limit", "config.datasets")
    ],
    "prompts": [partial(_cases, "prompt_hash", "prompts", "with other token ids")],
    "dtype": [_values("model_info.dtype", "model_info.quantization")],
    "device": [
        _values("model_info.device", "config.device_map", "environment.accelerators", "cpu.name")
    ],
    "attention": [_values("model_info.attention")],
    "batch plan": [
        _values("config.batch_size", "config.token_budget", "config.drafts", "config.workers"),
        partial(_cases, "batch_size", "rows of a batch", "in other batches"),
    ],
    "package versions": [_values("environment.python"), _packages],
    "platform": [_values("environment.platform", "cpu.cores")],
    "code": [_code],
}
