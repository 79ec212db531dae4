"""Configurations to try: which parameters there are, preset spaces, and what cannot be meant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import product
from typing import Any, TypeAlias

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.generation import GenerateConfig

Parameters: TypeAlias = Mapping[str, Any]
"""Generation parameters by name: fields of ``GenerateConfig``, and ``generation_seed``."""

Space: TypeAlias = str | Parameters | Iterable[str | Parameters]
"""A preset's name or a grid (lists of values, or single ones, by name), or several of either."""

SEED = "generation_seed"

SAMPLING = ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "tfs", "top_a")
"""They choose what is sampled from, so with temperature 0 they would do nothing."""

NAMES = (*(field.name for field in fields(GenerateConfig)), SEED)

MOST = 10_000
"""Configurations of one space at most."""

PRESETS: dict[str, tuple[dict[str, list[Any]], ...]] = {
    "small": (
        {"temperature": [0.0], "repetition_penalty": [1.0, 1.1]},
        {"temperature": [0.3, 0.7, 1.0, 1.5]},
        {"temperature": [0.7, 1.0], "top_p": [0.9]},
        {"temperature": [1.0], "min_p": [0.1]},
    ),
    "greedy": (
        {"temperature": [0.0], "repetition_penalty": [1.0, 1.05, 1.1, 1.2, 1.3]},
        {"temperature": [0.0], "encoder_repetition_penalty": [1.05, 1.2]},
        {"temperature": [0.0], "no_repeat_ngram_size": [3, 5]},
    ),
    "temperature": ({"temperature": [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5]},),
    "top_k": ({"temperature": [0.7, 1.0, 1.3], "top_k": [5, 20, 50]},),
    "top_p": ({"temperature": [0.7, 1.0, 1.3], "top_p": [0.8, 0.9, 0.95]},),
    "min_p": ({"temperature": [0.7, 1.0, 1.5], "min_p": [0.05, 0.1, 0.2]},),
    "typical_p": ({"temperature": [0.7, 1.0, 1.3], "typical_p": [0.2, 0.5, 0.9]},),
    "epsilon": ({"temperature": [0.7, 1.0, 1.3], "epsilon_cutoff": [3e-4, 1e-3, 3e-3]},),
    "eta": ({"temperature": [0.7, 1.0, 1.3], "eta_cutoff": [3e-4, 1e-3, 3e-3]},),
    "tail_free": ({"temperature": [0.7, 1.0, 1.3], "tfs": [0.5, 0.8, 0.95]},),
    "top_a": ({"temperature": [0.7, 1.0, 1.5], "top_a": [0.1, 0.2, 0.5]},),
    "beams": (
        {"num_beams": [2, 4], "length_penalty": [0.5, 1.0]},
        {"num_beams": [4], "early_stopping": [True]},
    ),
    "contrastive": ({"penalty_alpha": [0.3, 0.6], "top_k": [4, 8]},),
}
"""Spaces by name, each a tuple of grids as scikit-learn takes them: a small one of all kinds, and
one for each way of decoding."""

_GONE = "is a mode that transformers no longer has"
_ELSEWHERE = {
    "do_sample": "is said by temperature here: 0 is greedy, above 0 samples",
    "low_memory": f"(contrastive search) {_GONE}",
    "dola_layers": f"(DoLa) {_GONE}",
    "num_beam_groups": f"(group beam search) {_GONE}",
    "diversity_penalty": f"(group beam search) {_GONE}",
    "constraints": f"(constrained beam search) {_GONE}",
    "force_words_ids": f"(constrained beam search) {_GONE}",
    "num_return_sequences": f"would give several answers; search over {SEED} instead",
    "stop_strings": "is called stop here",
    "max_length": "counts the prompt; give max_new_tokens",
}
"""Why a parameter of ``generate`` is none of ours."""


@dataclass(frozen=True)
class Configuration:
    """One way to generate.

    Args:
        parameters: What differs from the task's own config, in the order given.
        config: Everything that says how to generate.
        seed: Seed of the sampling, which each row turns into its own.
    """

    parameters: tuple[tuple[str, Any], ...]
    config: GenerateConfig
    seed: int = 0

    @property
    def label(self) -> str:
        """For tables: ``temperature=0.7 top_p=0.9``."""
        shown = {n: f"{v:g}" if isinstance(v, float) else str(v) for n, v in self.parameters}
        return " ".join(f"{name}={value}" for name, value in shown.items()) or "default"

    @cached_property
    def key(self) -> str:
        """Everything, as JSON: equal for configurations that generate alike."""
        seed = 0 if self.config.temperature == 0 else self.seed
        return json.dumps(asdict(self.config) | {SEED: seed}, sort_keys=True)


def configuration(parameters: Parameters, base: GenerateConfig) -> Configuration:
    """Check one choice of parameters; what is left out is as in ``base``, the task's own.

    Raises:
        SettingsError: An unknown name, a value out of range, or a parameter that would do nothing;
            names the parameter.
    """
    given = {str(name): _builtin(value) for name, value in parameters.items()}
    for name in given:
        if name in _ELSEWHERE:
            raise SettingsError(f"{name} {_ELSEWHERE[name]}")
        if name not in NAMES:
            raise SettingsError(f"unknown parameter {name!r}; known: {', '.join(NAMES)}")
    seed = given.get(SEED, 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise SettingsError(f"{SEED}={seed!r}: it must be a whole number from 0 up")
    own = asdict(base)
    for name, value in given.items():
        if isinstance(own.get(name), float) and isinstance(value, int):
            given[name] = float(value)  # 1 and 1.0 are one configuration
    config = GenerateConfig.of(**own | {n: v for n, v in given.items() if n != SEED})
    if config.temperature == 0:
        off = GenerateConfig()
        for name in SAMPLING:
            if name == "top_k" and config.penalty_alpha > 0:
                continue  # contrastive search chooses among them
            if getattr(config, name) != getattr(off, name):
                raise SettingsError(
                    f"{name}={getattr(config, name)!r} samples, but temperature=0 is greedy: it "
                    f"would do nothing. Give a temperature above 0, or leave {name} out"
                )
    return Configuration(tuple(given.items()), config, seed)


def configurations(space: Space, base: GenerateConfig) -> list[Configuration]:
    """All configurations of a space in its order, each once; ``base`` as for `configuration`.

    Raises:
        SettingsError: There is none, or one cannot be used.
    """
    found: dict[str, Configuration] = {}
    for parameters in _points([space] if isinstance(space, str | Mapping) else space):
        one = configuration(parameters, base)
        found.setdefault(one.key, one)
        if len(found) > MOST:
            raise SettingsError(f"the space has more than {MOST:,} configurations")
    if not found:
        raise SettingsError("the space has no configuration; give at least one value a parameter")
    return list(found.values())


def _points(grids: Iterable[str | Parameters]) -> Iterator[Parameters]:
    """Every combination of each grid; single values count as a list of one."""
    for grid in grids:
        if isinstance(grid, str):
            if grid not in PRESETS:
                raise SettingsError(f"no preset space {grid!r}; there are: {', '.join(PRESETS)}")
            yield from _points(PRESETS[grid])
            continue
        if not isinstance(grid, Mapping):
            raise SettingsError(f"{grid!r} is no grid; give lists of values by parameter name")
        values = [_several(name, given) for name, given in grid.items()]
        for chosen in product(*values):
            yield dict(zip(grid, chosen, strict=True))


def _several(name: str, given: Any) -> Sequence[Any]:
    if name == "stop":  # its one value may be a tuple of strings
        return given if isinstance(given, list) else [given]
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        return [given]
    return list(given)


def _builtin(value: Any) -> Any:
    """A numpy scalar, as scikit-learn's samplers draw them, as a Python number."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value
