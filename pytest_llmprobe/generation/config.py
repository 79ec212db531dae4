"""How to generate: one frozen set of settings, which requests of a batch need not share."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from pytest_llmprobe.case import Case
from pytest_llmprobe.errors import SettingsError

SHARE = "above 0 and at most 1 (off)"

THINKING_TOKENS = 4096
"""Room for a thought, where nothing else is said."""


@dataclass(frozen=True)
class GenerateConfig:
    """How to generate; requests of different configs may share a batch.

    Args:
        max_new_tokens: At most this many tokens of an answer.
        stop: Strings that end the answer; the text is cut before the first one. Those within a
            thought end nothing.
        temperature: 0 for greedy decoding, else the sampling temperature.
        top_k: Sample among the ``top_k`` likeliest tokens; 0 for all.
        top_p: Sample among the likeliest tokens that together hold this probability.
        min_p: Drop tokens less likely than ``min_p`` times the likeliest one.
        typical_p: Locally typical sampling: as ``top_p``, in order of how close a token's surprise
            is to the expected one.
        epsilon_cutoff: Drop tokens less likely than this.
        eta_cutoff: Drop tokens less likely than this, or where many are likely than less: than the
            root of it over the exponential of the entropy.
        tfs: Tail-free sampling: drop what follows when this share of the curvature of the sorted
            probabilities has been seen.
        top_a: Drop tokens less likely than ``top_a`` times the square of the likeliest one's.
        repetition_penalty: Divide positive scores of tokens that the prompt or the answer holds by
            this, and multiply negative ones; 1 for none.
        no_repeat_ngram_size: No sequence of so many tokens twice in prompt and answer; 0 for any.
        encoder_repetition_penalty: Above 1, prefer tokens that the prompt holds: multiply their
            positive scores by this, and divide negative ones.
        num_beams: Above 1, beam search: the likeliest of so many answers, each row on its own.
        length_penalty: Of beam search: an answer's log-likelihood is divided by its tokens to the
            power of this.
        early_stopping: Of beam search: end when so many answers are there, not when no better one
            can come.
        penalty_alpha: Above 0, contrastive search among ``top_k`` tokens, each row on its own: this
            much weight on being unlike the tokens before, the rest on the probability.
        thinking_tokens: At most this many tokens of a thought before the answer, where the model is
            expected to think; one that is not expected takes the answer's room.

    The penalties come first, also in greedy decoding; then temperature, then the filters in the
    order above.

    Raises:
        SettingsError: A value is out of range, or two do not go together.
    """

    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    tfs: float = 1.0
    top_a: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_repetition_penalty: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    penalty_alpha: float = 0.0
    thinking_tokens: int = THINKING_TOKENS

    def __post_init__(self) -> None:
        given: object = self.stop
        stop = (given,) if isinstance(given, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        for name, valid, rule in (
            ("max_new_tokens", is_whole(self.max_new_tokens, 1), "a whole number from 1 up"),
            ("stop", all(isinstance(s, str) and s for s in stop), "non-empty strings"),
            ("temperature", 0 <= self.temperature < math.inf, "0 (greedy) or more"),
            ("top_k", is_whole(self.top_k, 0), "a whole number from 0 (off) up"),
            ("top_p", 0 < self.top_p <= 1, SHARE),
            ("min_p", 0 <= self.min_p < 1, "at least 0 (off) and below 1"),
            ("typical_p", 0 < self.typical_p <= 1, SHARE),
            ("epsilon_cutoff", 0 <= self.epsilon_cutoff < 1, "at least 0 (off) and below 1"),
            ("eta_cutoff", 0 <= self.eta_cutoff < 1, "at least 0 (off) and below 1"),
            ("tfs", 0 < self.tfs <= 1, SHARE),
            ("top_a", 0 <= self.top_a <= 1, "at least 0 (off) and at most 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0; 1 is off"),
            (
                "encoder_repetition_penalty",
                0 < self.encoder_repetition_penalty < math.inf,
                "above 0; 1 is off",
            ),
            ("num_beams", is_whole(self.num_beams, 1), "a whole number from 1 (off) up"),
            ("length_penalty", math.isfinite(self.length_penalty), "a number"),
            ("early_stopping", isinstance(self.early_stopping, bool), "True or False"),
            ("penalty_alpha", 0 <= self.penalty_alpha <= 1, "at least 0 (off) and at most 1"),
            ("no_repeat_ngram_size", is_whole(self.no_repeat_ngram_size, 0), "0 (off) or more"),
            ("thinking_tokens", is_whole(self.thinking_tokens, 1), "a whole number from 1 up"),
        ):
            if not valid:
                raise SettingsError(f"{name}={getattr(self, name)!r}: it must be {rule}")
        self._check_together()

    def _check_together(self) -> None:
        """What beams and contrastive search go with."""
        beams, contrast = self.num_beams > 1, self.penalty_alpha > 0
        if (beams or contrast) and self.temperature > 0:
            name = "num_beams" if beams else "penalty_alpha"
            raise SettingsError(
                f"{name}={getattr(self, name)} with temperature={self.temperature!r}: it chooses "
                "by probability and does not sample; leave one of them out"
            )
        if beams and contrast:
            raise SettingsError("num_beams and penalty_alpha are two ways of search; choose one")
        if contrast and self.top_k < 2:
            raise SettingsError(
                f"penalty_alpha={self.penalty_alpha!r} with top_k={self.top_k}: contrastive search "
                "chooses among the top_k likeliest tokens; give 2 or more"
            )
        if not beams and (self.length_penalty != 1 or self.early_stopping):
            name = "length_penalty" if self.length_penalty != 1 else "early_stopping"
            raise SettingsError(f"{name} belongs to beam search; give num_beams, or leave it out")

    @property
    def searches(self) -> bool:
        """Whether the answer is searched for, and not said token by token."""
        return self.num_beams > 1 or self.penalty_alpha > 0

    @classmethod
    def of(cls, **options: Any) -> GenerateConfig:
        """Build from keyword arguments; an unknown one is an error that lists the known ones."""
        known = [f.name for f in fields(cls)]
        if unknown := sorted(options.keys() - set(known)):
            raise SettingsError(f"unknown option {unknown[0]!r}; known: {', '.join(known)}")
        try:
            return cls(**options)
        except TypeError as error:
            raise SettingsError(f"generation options {options}: {error}") from None

    def for_case(self, case: Case) -> GenerateConfig:
        """This config with the room and the stop strings that a case names."""
        stop = tuple(dict.fromkeys((*self.stop, *case.stop)))
        return replace(self, max_new_tokens=case.max_new_tokens or self.max_new_tokens, stop=stop)


def is_whole(value: object, lowest: int) -> bool:
    """Whether a value is a whole number from ``lowest`` up."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


GREEDY = GenerateConfig()
