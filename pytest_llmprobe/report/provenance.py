"""Why two runs may differ: what was not the same, layer by layer, causes before their effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_llmprobe.report.baseline import Baseline
from pytest_llmprobe.report.record import bounded

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
        what = "" if self.what == self.layer else f" ({self.what})"
        return f"{self.layer}{what}: {self.first} -> {self.second}"


Values = Mapping[str, Any]
Pairs = Iterator[tuple[str, Any, Any]]


def why(first: Baseline, second: Baseline) -> list[Difference]:
    """What two runs differ in; the first entry is the first place to look for the cause.

    A layer that one of the runs says nothing of is passed over.

    Returns:
        Differences in the order weights, tokenizer, chat template, generation config, data,
        prompts, dtype, device, attention, batch plan, package versions, platform, code.
    """
    return [
        Difference(layer, what, _shown(one), _shown(other))
        for layer, pairs in LAYERS.items()
        for what, one, other in pairs(first, second)
        if one != other
    ]


def _keys(one: Values, other: Values, *names: str) -> Pairs:
    """Values of keys that both have."""
    for name in names:
        if name in one and name in other:
            yield name, one[name], other[name]


def _model(*names: str) -> Callable[[Baseline, Baseline], Pairs]:
    return lambda first, second: _keys(first.model_info, second.model_info, *names)


def _config(*names: str) -> Callable[[Baseline, Baseline], Pairs]:
    return lambda first, second: _keys(first.config, second.config, *names)


def _weights(first: Baseline, second: Baseline) -> Pairs:
    """By fingerprint; where another dtype makes that another one, by where they come from."""
    one, other = first.model_info, second.model_info
    stored = ("dtype", "quantization")
    known = one.get("fingerprint") and other.get("fingerprint")
    if known and all(one.get(key) == other.get(key) for key in stored):
        if one["fingerprint"] != other["fingerprint"]:
            yield "weights", _origin(first), _origin(second)
    elif one and other:
        yield from _keys(one, other, "source", "revision")
    else:
        yield "model", first.model, second.model


def _origin(run: Baseline) -> str:
    info = run.model_info
    revision = f"@{str(info['revision'])[:12]}" if info.get("revision") else ""
    return f"{info.get('source') or run.model}{revision} [{info['fingerprint']}]"


def _generation(first: Baseline, second: Baseline) -> Pairs:
    yield from _keys(first.config, second.config, "delta", "layers", "phase")
    for name in sorted(first.experiments.keys() & second.experiments.keys()):
        one = first.experiments[name].get("generation")
        other = second.experiments[name].get("generation")
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            for key in sorted(one.keys() | other.keys()):
                yield f"{name}: {key}", one.get(key), other.get(key)


def _prompts(first: Baseline, second: Baseline) -> Pairs:
    common = first.cases.keys() & second.cases.keys()
    changed = sum(
        first.cases[case].prompt_hash != second.cases[case].prompt_hash for case in common
    )
    if changed:
        yield "prompts", f"{len(common)} cases", f"{changed} of them with other token ids"


def _device(first: Baseline, second: Baseline) -> Pairs:
    yield from _keys(first.model_info, second.model_info, "device")
    yield from _keys(first.config, second.config, "device_map")
    yield from _keys(first.environment, second.environment, "accelerators")
    one, other = (run.environment.get("cpu") for run in (first, second))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        yield from _keys(one, other, "name")


def _batches(first: Baseline, second: Baseline) -> Pairs:
    yield from _keys(first.config, second.config, "batch_size", "token_budget", "drafts")
    common = first.cases.keys() & second.cases.keys()
    changed = sum(first.cases[case].batch_size != second.cases[case].batch_size for case in common)
    if changed:
        yield "rows of a batch", f"{len(common)} cases", f"{changed} of them in other batches"


def _packages(first: Baseline, second: Baseline) -> Pairs:
    yield from _keys(first.environment, second.environment, "python")
    one, other = (run.environment.get("packages") for run in (first, second))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in sorted(one.keys() | other.keys()):
            yield name, one.get(name), other.get(name)


def _platform(first: Baseline, second: Baseline) -> Pairs:
    yield from _keys(first.environment, second.environment, "platform")
    one, other = (run.environment.get("cpu") for run in (first, second))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        yield from _keys(one, other, "cores")


def _code(first: Baseline, second: Baseline) -> Pairs:
    yield "commit", _commit(first), _commit(second)


def _commit(run: Baseline) -> str | None:
    if run.commit is None:
        return None
    return f"{str(run.commit.get('id'))[:12]}{' and changes' if run.commit.get('dirty') else ''}"


LAYERS: Mapping[str, Callable[[Baseline, Baseline], Pairs]] = {
    "weights": _weights,
    "tokenizer": _model("tokenizer_hash"),
    "chat template": _model("chat_template_hash"),
    "generation config": _generation,
    "data": _config("profile", "seed", "trials", "limit", "datasets"),
    "prompts": _prompts,
    "dtype": _model("dtype", "quantization"),
    "device": _device,
    "attention": _model("attention"),
    "batch plan": _batches,
    "package versions": _packages,
    "platform": _platform,
    "code": _code,
}


def _shown(value: object) -> str:
    return bounded("none" if value is None else str(value), MAX_VALUE) or "''"
