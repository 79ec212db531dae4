"""Which looks at an engine's answers: the model itself, or what its server tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_llmprobe.engine.answer_fidelity import AnswerFidelity
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.engine.served_fidelity import ServedFidelity


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
