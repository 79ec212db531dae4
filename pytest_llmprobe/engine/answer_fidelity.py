"""Answers looked at again: their distributions kept, or held against a baseline's, in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.engine.answer_parts import NO_BASE, SERVED, STEERED, cut, is_steered
from pytest_llmprobe.engine.completions import prompt_hash
from pytest_llmprobe.engine.distribution_file import KeptAnswer, Maker
from pytest_llmprobe.engine.teacher_forcing import Forced, TeacherForcing
from pytest_llmprobe.errors import RequestError
from pytest_llmprobe.report.fidelity import case_fidelity, not_measured, text_fidelity
from pytest_llmprobe.statistics.divergence import TOP, Distributions, fidelity

if TYPE_CHECKING:
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.generation import Completion, Request

MOST_TOKENS = 1000
"""Tokens of an answer that are looked at, its first ones."""

OTHER_TOKENS = "another tokenizer: only the text's log-probability is compared"


class AnswerFidelity:
    """Looks at answers with the model that gave them, or with another one.

    Args:
        forcing: Runs the model over given answers.
        engine: Encodes prompts.
        full: Keep whole distributions.
    """

    def __init__(self, forcing: TeacherForcing, engine: Engine, full: bool = False) -> None:
        self._k = forcing.vocabulary if full else min(TOP, forcing.vocabulary)
        self._forcing, self._encode = forcing, engine.backend.encode
        self._loaded = forcing.loaded
        self._ends = {*self._loaded.end_ids, *self._loaded.turn_ids}

    def maker(self, model: str) -> Maker:
        """Whose distributions these are."""
        return Maker(model, str(self._loaded.info["tokenizer_hash"]), self._k)

    def keep(self, answered: Mapping[str, tuple[Request, Completion]]) -> list[KeptAnswer]:
        """The distributions of the model's own answers, by name.

        What is steered, empty, too long for the model's context or no number is left out: the
        comparison says so.
        """
        texts: dict[str, Forced] = {}
        for name, (request, completion) in answered.items():
            if not is_steered(request) and completion.token_ids:
                prompt = tuple(self._encode(request.prompt))
                text = Forced(prompt, completion.token_ids[:MOST_TOKENS])
                if self._problem(text) is None:
                    texts[name] = text
        found = self._forcing.distributions(list(texts.values()), self._k)
        return [
            self._kept(name, text, one)
            for (name, text), one in zip(texts.items(), found, strict=True)
            if isinstance(one, Distributions)
        ]

    def _kept(self, name: str, text: Forced, found: Distributions) -> KeptAnswer:
        said = len(text.answer)
        while said and text.answer[said - 1] in self._ends:
            said -= 1
        decoded = self._decoded(text.answer[:said])
        return KeptAnswer(name, prompt_hash(text.prompt), decoded, said, text.answer, found)

    def _decoded(self, ids: Sequence[int]) -> str:
        as_is = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return str(self._loaded.tokenizer.decode(list(ids), **as_is))

    def compare(
        self, maker: Maker, kept: Mapping[str, KeptAnswer], asked: Mapping[str, Request]
    ) -> dict[str, dict[str, Any]]:
        """What the records say of the cases that are asked, each beside the baseline's answer."""
        found: dict[str, dict[str, Any]] = {}
        same: dict[str, tuple[Forced, KeptAnswer, str | None]] = {}
        alike = maker.tokenizer_hash == self._loaded.info["tokenizer_hash"]
        others: dict[str, tuple[Forced, KeptAnswer]] = {}
        for name, request in asked.items():
            base = kept.get(name)
            if base is None or is_steered(request):
                found[name] = not_measured(NO_BASE if base is None else STEERED)
                continue
            prompt = tuple(self._encode(request.prompt))
            if alike or (maker.tokenizer_hash == SERVED and self._ids(base.text) == base.tokens):
                text, remark = self._fitting(Forced(prompt, base.tokens))
                problem = None if text is None else self._problem(text)
                if text is None or problem:
                    found[name] = not_measured(problem or str(remark))
                else:
                    same[name] = text, base, remark
            else:
                self._ask_other(name, prompt, base, others, found)
        told = maker.tokenizer_hash != SERVED  # a server was sent something else
        return found | self._same(same, told) | self._others(others)

    def _fitting(self, text: Forced) -> tuple[Forced | None, str | None]:
        """As much of an answer as the model's context holds, and what is to be said of the rest."""
        context = self._loaded.capabilities.context_length
        if context is None or len(text.ids) - 1 <= context:
            return text, None
        room = context - len(text.prompt) + 1
        remark = "the model's context does not hold the baseline's whole answer"
        return (replace(text, answer=text.answer[:room]) if room > 0 else None), remark

    def _problem(self, text: Forced) -> str | None:
        try:
            self._forcing.check(text)
        except RequestError as error:
            return str(error)
        return None

    def _same(
        self, texts: Mapping[str, tuple[Forced, KeptAnswer, str | None]], told: bool
    ) -> dict[str, dict[str, Any]]:
        """Both models have the same tokens; ``told``: and prompts are told of in the same way."""
        bases = [cut(base.found, len(text.answer)) for text, base, _ in texts.values()]
        seen = self._forcing.seen([text for text, _, _ in texts.values()], bases)
        found = {}
        for (name, (text, base, remark)), its, one in zip(texts.items(), bases, seen, strict=True):
            if isinstance(one, Exception):
                found[name] = not_measured(str(one))
                continue
            pieces = [self._decoded([token]) for token in text.answer]
            found[name] = case_fidelity(
                fidelity(its, one),
                pieces,
                prompt_changed=(prompt_hash(text.prompt) != base.prompt_hash) if told else None,
                remark=remark,
            )
        return found

    def _ids(self, text: str) -> tuple[int, ...]:
        found = self._loaded.tokenizer(text, add_special_tokens=False, verbose=False)
        return tuple(found["input_ids"])

    def _ask_other(
        self,
        name: str,
        prompt: tuple[int, ...],
        base: KeptAnswer,
        others: dict[str, tuple[Forced, KeptAnswer]],
        found: dict[str, dict[str, Any]],
    ) -> None:
        text = Forced(prompt, self._ids(base.text))
        if not text.answer:
            found[name] = not_measured("another tokenizer, and the baseline's answer has no text")
        elif problem := self._problem(text):
            found[name] = not_measured(problem)
        else:
            others[name] = text, base

    def _others(self, texts: Mapping[str, tuple[Forced, KeptAnswer]]) -> dict[str, dict[str, Any]]:
        """The models cut a text into tokens of their own: its log-probability alone compares."""
        seen = self._forcing.distributions([text for text, _ in texts.values()], 1)
        found = {}
        for (name, (_, base)), one in zip(texts.items(), seen, strict=True):
            if isinstance(one, Exception):
                found[name] = not_measured(str(one))
                continue
            said = float(base.found.answer[: base.text_tokens].sum())
            size = len(base.text.encode(errors="replace"))
            found[name] = text_fidelity(said, float(one.answer.sum()), size, OTHER_TOKENS)
        return found
