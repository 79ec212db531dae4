"""What may tell beforehand whether an instruction is followed: how far it reaches the answer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from pytest_llmprobe.case import Prompt, Span
from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.models.loading import LoadedModel
from pytest_llmprobe.whitebox.influence import Maps, Method, influence_maps
from pytest_llmprobe.whitebox.spans import locate
from pytest_llmprobe.whitebox.steerability import steerable

METHODS: tuple[Method, ...] = ("influence", "rollout", "attention")

VARIABLE = "LLMPROBE_INFLUENCE"
"""Environment variable: a folder for the Influence map of every case that is measured."""

REMEMBERED = 16
"""Maps that are kept: several answers to one prompt come one after the other."""


class Predictors:
    """Measures prompts by a model, if it is in this process; it is not steered meanwhile."""

    def __init__(
        self, encode: Callable[[Prompt], Sequence[int]], loaded: LoadedModel | None
    ) -> None:
        self._encode = encode
        self._loaded = loaded if loaded is not None and steerable(loaded).traceable else None
        self._maps = lru_cache(REMEMBERED)(partial(influence_maps, loaded, methods=METHODS))

    def __call__(
        self, prompt: Prompt, span: Span | str, *, last: int = 10, save: Path | None = None
    ) -> dict[str, float]:
        """The predictors of one prompt and a span of it.

        Influence and rollout are means over the ``last`` tokens of the prompt. ``save`` is where to
        write the Influence map, float32 [layers + 1, tokens], as .npy.

        Returns:
            ``inverse_length``: 1 / tokens of the prompt. Where the model's attention can be traced
            also ``influence`` and ``rollout`` after the last layer, and ``raw_attention``: the
            last token's mean attention to the span's tokens in the last layer, over all heads.

        Raises:
            CasesError: The prompt does not hold the span, or holds it more than once.
            RequestError: The span cannot be found among the tokens.
            SettingsError: The file cannot be written.
        """
        lengths = {"inverse_length": 1 / len(self._encode(prompt))}
        if self._loaded is None:
            return lengths
        located = locate(self._loaded, prompt, span)
        maps = self._maps(located.ids, (located.positions,))
        if save is not None:
            _save(save, maps["influence"][0])
        return {
            "influence": float(maps["influence"][0, -1, -last:].mean()),
            "rollout": float(maps["rollout"][0, -1, -last:].mean()),
            "raw_attention": float(maps["attention"][0, -1, -1]),
            **lengths,
        }


def map_file(name: str) -> Path | None:
    """Where the map of a test is to be written, if ``LLMPROBE_INFLUENCE`` names a folder."""
    folder = os.environ.get(VARIABLE, "").strip()
    plain = re.sub(r"[^A-Za-z0-9_.=-]+", "_", name)[-200:].strip("_")
    return Path(folder, f"{plain}.npy") if folder else None


def _save(path: Path, values: Maps) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from None
