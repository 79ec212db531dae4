"""Answers looked at by a model behind a server, as far as it tells log-probabilities of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_llmprobe.engine.answer_parts import (
    NO_BASE,
    SERVED,
    STEERED,
    cut,
    is_steered,
)
from pytest_llmprobe.engine.completions import prompt_hash
from pytest_llmprobe.engine.distribution_file import KeptAnswer, Maker
from pytest_llmprobe.report.fidelity import case_fidelity, not_measured, text_fidelity
from pytest_llmprobe.statistics.divergence import (
    TOP,
    Distributions,
    coarsened,
    coded,
    fidelity,
)

if TYPE_CHECKING:
    from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
    from pytest_llmprobe.engine.endpoints.prompt_scores import ScoredToken
    from pytest_llmprobe.generation import Completion, Request

OTHER_TOKENS = (
    "the served model's tokens of the answer are not the baseline's: only the text's "
    "log-probability is compared"
)


class ServedFidelity:
    """As ``AnswerFidelity``, by a server's log-probabilities of an answer's text.

    The divergence is over the tokens that both models tell of, all others being one bucket: a lower
    bound, as ever. What ends an answer is not looked at.

    Args:
        backend: Asks the server.
    """

    def __init__(self, backend: EndpointBackend) -> None:
        self._backend, self._k = backend, TOP

    def maker(self, model: str) -> Maker:
        """Whose distributions these are; k is what the server told of."""
        return Maker(model, SERVED, self._k)

    def keep(self, answered: Mapping[str, tuple[Request, Completion]]) -> list[KeptAnswer]:
        """The distributions of the model's own answers, by name.

        Those that the server does not tell of are left out, and the comparison says so.
        """
        wanted = {
            name: (request, answer.text)
            for name, (request, answer) in answered.items()
            if answer.text and not is_steered(request)
        }
        kept: list[KeptAnswer] = []
        for (name, (request, text)), tokens in zip(
            wanted.items(), self._scored(wanted.values()), strict=True
        ):
            if isinstance(tokens, Exception) or any(one.token is None for one in tokens):
                continue
            k = min(len(one.top) for one in tokens)
            self._k = k if not kept else min(self._k, k)
            ids = tuple(int(one.token or 0) for one in tokens)
            hashed = prompt_hash(self._backend.encode(request.prompt))
            kept.append(KeptAnswer(name, hashed, text, len(ids), ids, _distributions(tokens, k)))
        return [one for one in kept if one.found.k == self._k]

    def _scored(self, texts: Any) -> Sequence[list[ScoredToken] | Exception]:
        return self._backend.forced([(request.prompt, text) for request, text in texts])

    def compare(
        self, maker: Maker, kept: Mapping[str, KeptAnswer], asked: Mapping[str, Request]
    ) -> dict[str, dict[str, Any]]:
        """What the records say of the cases that are asked, each beside the baseline's answer."""
        found: dict[str, dict[str, Any]] = {}
        wanted: dict[str, tuple[Request, str]] = {}
        for name, request in asked.items():
            base = kept.get(name)
            if base is None or is_steered(request):
                found[name] = not_measured(NO_BASE if base is None else STEERED)
            elif not base.text or not base.text_tokens:
                found[name] = not_measured("the baseline's answer has no text")
            else:
                wanted[name] = request, base.text
        for (name, (request, _)), tokens in zip(
            wanted.items(), self._scored(wanted.values()), strict=True
        ):
            if isinstance(tokens, Exception):
                found[name] = not_measured(str(tokens))
                continue
            changed = None  # what is sent to a server is not what a model in this process reads
            if maker.tokenizer_hash == SERVED:
                hashed = prompt_hash(self._backend.encode(request.prompt))
                changed = hashed != kept[name].prompt_hash
            found[name] = _compared(kept[name], tokens, changed)
        return found


def _compared(
    base: KeptAnswer, tokens: Sequence[ScoredToken], changed: bool | None
) -> dict[str, Any]:
    its, ids = cut(base.found, base.text_tokens), base.tokens[: base.text_tokens]
    alike = len(ids) == len(tokens) and all(
        one.token == token for one, token in zip(tokens, ids, strict=True)
    )
    if not alike:
        said = float(its.answer.sum(dtype=np.float64))
        theirs = sum(one.log_probability for one in tokens)
        size = len(base.text.encode(errors="replace"))
        return text_fidelity(said, theirs, size, OTHER_TOKENS)
    both = coarsened(its, ids, [one.known for one in tokens])
    pieces = [one.piece for one in tokens]
    return case_fidelity(fidelity(*both), pieces, prompt_changed=changed, remark=None)


def _distributions(tokens: Sequence[ScoredToken], k: int) -> Distributions:
    """Of what a server tells, the k likeliest of each place."""
    top = [list(one.top.items())[:k] for one in tokens]
    ids = np.array([[token for token, _ in place] for place in top], np.uint32)
    values = np.array([[value for _, value in place] for place in top], np.float64)
    mass = np.exp(values).sum(axis=1)
    rest = np.log(np.maximum(1.0 - mass, 1e-12)).astype(np.float32)
    answer = np.array([one.log_probability for one in tokens], np.float32)
    return Distributions(ids, coded(values), rest, answer)
