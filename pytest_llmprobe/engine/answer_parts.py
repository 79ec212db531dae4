"""What a look at an answer has in common, be the model in this process or behind a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmprobe.statistics.divergence import Distributions

if TYPE_CHECKING:
    from pytest_llmprobe.engine.answer_fidelity import AnswerFidelity
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.engine.served_fidelity import ServedFidelity
    from pytest_llmprobe.generation import Request

STEERED = "steered: the pass over answers does not steer"
NO_BASE = "the baseline kept no distributions of its answer"

SERVED = "behind a server"
"""In place of a tokenizer's hash: whether the tokens are the same, each answer tells."""


def answer_fidelity(engine: Engine, full: bool = False) -> AnswerFidelity | ServedFidelity | None:
    """What looks at the answers of an engine; None where nothing tells of its model's.

    Args:
        engine: Whose answers.
        full: Keep whole distributions, where the model is in this process.
    """
    backend: Any = engine.backend
    if getattr(backend, "loaded", None) is not None:
        from pytest_llmprobe.engine.answer_fidelity import AnswerFidelity
        from pytest_llmprobe.engine.teacher_forcing import TeacherForcing

        return AnswerFidelity(TeacherForcing(backend.loaded, backend.shares_prefixes), engine, full)
    if not hasattr(backend, "forced"):
        return None
    from pytest_llmprobe.engine.served_fidelity import ServedFidelity  # needs no torch

    return ServedFidelity(backend)


def is_steered(request: Request) -> bool:
    """Whether attention is moved where the request is answered."""
    return request.steer is not None and request.steer.delta != 0


def cut(found: Distributions, count: int) -> Distributions:
    """Those of the first tokens."""
    return Distributions(
        found.ids[:count], found.codes[:count], found.rest[:count], found.answer[:count]
    )
