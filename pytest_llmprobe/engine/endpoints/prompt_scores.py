"""Log-probabilities of a given answer's tokens, and of the likeliest there, from a server.

vLLM tells them of a prompt that ends with the answer (``prompt_logprobs``), in one request. The
server of llama.cpp tells them of the next token only (``n_probs`` of its own /completion), so it is
asked once for each token of the answer; its cache keeps what came before.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.engine.endpoints.connection import Connection
from pytest_llmprobe.engine.endpoints.failures import words_of
from pytest_llmprobe.engine.endpoints.openai_wire import OpenAIWire
from pytest_llmprobe.engine.endpoints.wire import Call, found
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.errors import InvalidLogitsError, UnsupportedError
from pytest_llmprobe.generation import GenerateConfig
from pytest_llmprobe.statistics.divergence import TOP

UNKNOWN = (
    "the server tells no log-probabilities of a prompt (prompt_logprobs, as vLLM, or n_probs of "
    "/completion, as llama.cpp)"
)
NO_SUCH = "this protocol has no log-probabilities of prompts"

FEWER = (TOP, 20, 5)
"""Tokens of each place that are asked for: vLLM refuses more than its --max-logprobs, 20."""

EVERY = 1_000_000
"""Tokens of a place that llama.cpp is asked for where the answer's own is not among the likeliest:
it tells of as many as there are."""

REFUSED = {400, 404, 405, 422, 501}


@dataclass(frozen=True)
class ScoredToken:
    """A token of a given answer, as a served model finds it.

    Args:
        token: Its id; None where the server does not tell.
        piece: What it says.
        log_probability: Its own.
        top: Those of the likeliest tokens there, by id, the likeliest first.
        known: All that are told, the token itself among them.
    """

    token: int | None
    piece: str
    log_probability: float
    top: Mapping[int, float]
    known: Mapping[int, float]


class PromptScores:
    """Asks a server how likely it finds given answers; remembers what it cannot do.

    Args:
        connection: Where to.
        timeout_s: Seconds that one request may take.
    """

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection, self._timeout_s = connection, timeout_s
        self._left = list(FEWER)
        self._unknown: str | None = None
        self._steps = False  # by steps, as llama.cpp

    async def of(self, prompt: Prompt, answer: str) -> list[ScoredToken]:
        """The tokens of an answer to a prompt.

        Raises:
            UnsupportedError: The server does not tell; a second time it is not asked.
            InvalidLogitsError: A number is none.
        """
        wire = self._connection.wire
        if not isinstance(wire, OpenAIWire) or wire.public:
            raise UnsupportedError(NO_SUCH)
        while self._unknown is None and not self._steps:
            asked = self._left[0]
            call = wire.call(_row(wire.encode(with_answer(prompt, answer))))
            call.body.update(prompt_logprobs=asked, return_token_ids=True)
            try:
                response = await self._send(call)
            except self._connection.package.APIStatusError as error:
                if error.status_code not in REFUSED:
                    raise
                self._refused(asked, f"{error.status_code}: {words_of(error.body)}")
                continue
            if (told := found(response, "prompt_logprobs")) is None:
                told = found(response, "choices", 0, "prompt_logprobs")
            if isinstance(told, list):
                return read_prompt(response, told, answer, asked)
            self._steps = True
        if self._unknown is None:
            return await self._by_steps(json.loads(wire.encode(prompt)), answer)
        raise UnsupportedError(self._unknown)

    def _refused(self, asked: int, why: str) -> None:
        """Ask for fewer the next time, or no more."""
        if self._left[0] != asked:  # another request found it out meanwhile
            return
        if len(self._left) > 1:
            self._left.pop(0)
        else:
            self._unknown = self._connection.hidden(f"{UNKNOWN}: {why}")

    async def _send(self, call: Call) -> Mapping[str, Any]:
        asked = Call(call.path, self._connection.body(call))
        response, _ = await asyncio.wait_for(self._connection.send(asked), self._timeout_s)
        return response

    async def _root(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The response of an endpoint beside those of OpenAI's protocol."""
        root = self._connection.url.rstrip("/").removesuffix("/v1")
        call = Call(f"{root}{path}", dict(body))
        response, _ = await asyncio.wait_for(self._connection.send(call), self._timeout_s)
        return response

    async def _by_steps(self, said: Mapping[str, Any], answer: str) -> list[ScoredToken]:
        try:
            text = said.get("prompt")
            if text is None:
                text = found(await self._root("/apply-template", said), "prompt")
            before, whole = [
                found(await self._root("/tokenize", _to_cut(part)), "tokens")
                for part in (text, f"{text}{answer}")
            ]
        except self._connection.package.APIStatusError as error:
            if error.status_code not in REFUSED:
                raise
            self._unknown = UNKNOWN
            raise UnsupportedError(UNKNOWN) from None
        if not isinstance(before, list) or not isinstance(whole, list) or not before:
            self._unknown = UNKNOWN
            raise UnsupportedError(UNKNOWN)
        pieces = {one["id"]: one["piece"] for one in whole}
        ids, prompt = [one["id"] for one in whole], [one["id"] for one in before]
        if ids[: len(prompt)] != prompt:
            raise UnsupportedError("a token of the server's stands in prompt and answer both")
        return [
            await self._step(ids[:place], ids[place], str(pieces[ids[place]]))
            for place in range(len(prompt), len(ids))
        ]

    async def _step(self, before: Sequence[int], token: int, piece: str) -> ScoredToken:
        known: dict[int, float] = {}
        for asked in (TOP, EVERY):
            body = {"prompt": list(before), "n_predict": 1, "n_probs": asked, "temperature": 0}
            response = await self._root("/completion", body | {"cache_prompt": True})
            told = found(response, "completion_probabilities", 0, "top_logprobs")
            if not isinstance(told, list):
                self._unknown = UNKNOWN
                raise UnsupportedError(UNKNOWN)
            known = {one["id"]: _number(one["logprob"]) for one in told}
            if token in known:
                break
        else:
            raise UnsupportedError("the server does not tell the log-probability of every token")
        top = dict(_likeliest(known, TOP))
        return ScoredToken(token, piece, known[token], top, top | {token: known[token]})


def with_answer(prompt: Prompt, answer: str) -> Prompt:
    """The prompt with an answer behind it, which is to be gone on with.

    Raises:
        UnsupportedError: It is a text in token ids: its own do not tell where the answer's begin.
    """
    if isinstance(prompt, RawPrompt):
        if prompt.ids:
            raise UnsupportedError("the prompt is given as token ids, and the answer as a text")
        return RawPrompt(prompt.text + answer)
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if messages[-1]["role"] == "assistant":
        begun = {**messages.pop()}
        return [*messages, begun | {"content": begun["content"] + answer}]
    return [*messages, {"role": "assistant", "content": answer}]


def read_prompt(
    response: Mapping[str, Any], told: Sequence[Any], answer: str, k: int
) -> list[ScoredToken]:
    """The tokens that an answer at the end of a prompt is made of.

    Raises:
        UnsupportedError: They do not spell it: the server's template changes an answer's text.
        InvalidLogitsError: A number is none.
    """
    ids = found(response, "prompt_token_ids") or found(response, "choices", 0, "prompt_token_ids")
    named = ids if isinstance(ids, list) and len(ids) == len(told) else [None] * len(told)
    tokens: list[ScoredToken] = []
    left = answer
    for token, place in zip(reversed(named), reversed(told), strict=True):
        if not left:
            break
        if not isinstance(place, Mapping) or (found_one := _scored(token, place, left, k)) is None:
            raise UnsupportedError(
                "the server's tokens do not spell the baseline's answer behind the prompt"
            )
        tokens.append(found_one)
        left = left[: len(left) - len(found_one.piece)]
    if left:
        raise UnsupportedError("the prompt that the server scored does not hold the answer")
    return tokens[::-1]


def _scored(token: int | None, place: Mapping[str, Any], left: str, k: int) -> ScoredToken | None:
    """The token of a place, whose text is the end of what is left of the answer."""
    known = {int(key): _number(found(one, "logprob")) for key, one in place.items()}
    pieces = {int(key): str(found(one, "decoded_token")) for key, one in place.items()}
    fitting = [key for key, piece in pieces.items() if piece and left.endswith(piece)]
    if token is None and len(fitting) == 1:
        token = fitting[0]
    if token is None and len(fitting) > 1:
        raise UnsupportedError(
            "the server does not say which tokens a prompt has (return_token_ids, as vLLM)"
        )
    if token not in fitting or token not in known:
        return None
    return ScoredToken(token, pieces[token], known[token], dict(_likeliest(known, k)), known)


def _likeliest(known: Mapping[int, float], k: int) -> list[tuple[int, float]]:
    return sorted(known.items(), key=lambda one: (-one[1], one[0]))[:k]


def _number(value: object) -> float:
    """A log-probability.

    Raises:
        InvalidLogitsError: It is none.
    """
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidLogitsError("the server sent a log-probability that is no number")
    return min(float(value), 0.0)


def _to_cut(text: str) -> dict[str, Any]:
    return {"content": text, "add_special": True, "parse_special": True, "with_pieces": True}


def _row(said: bytes) -> Row:
    """One token is generated: some servers refuse to generate none."""
    encoded: Any = said
    return Row(0, encoded, GenerateConfig(max_new_tokens=1))
