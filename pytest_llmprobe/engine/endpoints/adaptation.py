"""What a server refuses to be told: learned from its first refusal, and said in the report.

Servers of one protocol differ in the settings that they take: OpenAI's newer models take no
temperature and call max_tokens max_completion_tokens, TGI's temperature is above 0, others know no
seed. A setting without which the same is measured is left out or renamed; one that an evaluation
asked for is not, and what asks for it is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_llmprobe.errors import ServerError, UnsupportedError

REFUSING = {400, 422, 501}
"""Status codes of a request that a server takes for wrong."""

LIMITS = ("max_tokens", "max_completion_tokens")
"""The two names of one setting."""

LEAST_TEMPERATURE = 0.001
"""Greedy but for ties, where a temperature has to be above 0."""

ABOVE_ZERO = re.compile(r"positive|greater than|above (0|zero)|> ?0|more than (0|zero)", re.I)

LEFT_OUT = {
    "temperature": "answers are sampled as the server does it",
    "seed": "sampled answers cannot be had again",
    "stop": "answers are cut here, at the first stop string",
    "stop_sequences": "answers are cut here, at the first stop string",
    "stream_options": "streamed answers tell no token counts",
}
"""Settings that may be missing, and what that means."""

ASKED_FOR = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
    *("add_generation_prompt", "continue_final_message"),
)
"""Settings without which something else is measured: what needs them cannot be asked."""

SHOWN = 160
"""Characters of a refusal that the report repeats."""

REFUSAL = re.compile(
    r"support|unknown|unrecogni[sz]ed|unexpected|extra|permit|allowed|invalid|must|should|"
    r"deprecat|positive|greater|use |too (many|long)|not implemented",
    re.I,
)
"""What a refusal of a setting says beside its name, which may be an ordinary word."""


class AdaptedError(ServerError):
    """A request was refused for a setting, and may be sent again without it."""


class Adaptation:
    """How requests to one server differ from what the protocol says.

    Attributes:
        said: For each setting what becomes of it and why, in words.
    """

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._greedy: float | None = 0.0
        self._missing: set[str] = set()
        self._refused: dict[str, str] = {}

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request's body as this server takes it.

        Raises:
            UnsupportedError: It refuses a setting that the request is about.
        """
        for name, words in self._refused.items():
            if _asks_for(name, body):
                raise UnsupportedError(f"the server refuses {name}={body[name]!r}: {words}")
        made = {self._names.get(name, name): value for name, value in body.items()}
        if made.get("temperature") == 0:
            made["temperature"] = self._greedy
        for name in self._missing:
            made.pop(name, None)
        return {name: value for name, value in made.items() if value is not None}

    def learn(
        self, body: Mapping[str, Any], sent: Mapping[str, Any], parameter: str, words: str
    ) -> bool:
        """Learn from a refusal; whether the request may be sent again, as it is now or is refused.

        Args:
            body: What the protocol says.
            sent: What was sent of it.
            parameter: What the server says is wrong, or "".
            words: What it says.
        """
        name = _named(sent, parameter, words)
        if name is None:
            return False
        if sent.get(name) != self._now(body).get(name):  # another request has found out
            return True
        shown = words[:SHOWN]
        if name in LIMITS:
            other = LIMITS[1 - LIMITS.index(name)]
            if self._names or other not in words:
                return False
            self._names[name] = other
            self.said[name] = f"sent as {other}: {shown}"
        elif name == "temperature" and body.get(name) == 0:
            self._learn_greedy(sent, shown)
        elif name in ASKED_FOR:
            self._refused[name] = shown
        elif name in LEFT_OUT:
            self._missing.add(name)
            self.said[name] = f"left out ({LEFT_OUT[name]}): {shown}"
        else:
            return False
        return True

    def _learn_greedy(self, sent: Mapping[str, Any], shown: str) -> None:
        if sent["temperature"] == 0 and ABOVE_ZERO.search(shown):
            self._greedy = LEAST_TEMPERATURE
            self.said["temperature"] = f"{LEAST_TEMPERATURE} in place of 0: {shown}"
        else:
            self._greedy = None
            self.said["temperature"] = f"left out ({LEFT_OUT['temperature']}): {shown}"

    def _now(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return self.applied(body)
        except UnsupportedError:
            return {}


def _asks_for(name: str, body: Mapping[str, Any]) -> bool:
    return name in body and not (name == "temperature" and body[name] == 0)


def _named(sent: Mapping[str, Any], parameter: str, words: str) -> str | None:
    """Which setting that was sent a refusal is about: the one that it names first."""
    if not parameter and not REFUSAL.search(words):
        return None
    known = [name for name in (*LIMITS, *LEFT_OUT, *ASKED_FOR) if name in sent]
    if parameter in known:
        return parameter
    places = {
        name: found.start()
        for name in known
        if (found := re.search(rf"(?<!\w){name}(?!\w)", words, re.IGNORECASE))
    }
    return min(places, key=lambda name: places[name]) if places else None
