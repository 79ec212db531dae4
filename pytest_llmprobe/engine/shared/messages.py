"""What crosses the socket: the arguments and results of Backend's methods, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from io import BufferedRWPair
from typing import Any

from pytest_llmprobe import errors
from pytest_llmprobe.case import Prompt, RawPrompt, Span
from pytest_llmprobe.engine.backend import Generated
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.errors import LlmprobeError, ModelError
from pytest_llmprobe.generation import GenerateConfig, Steer, Usage


def send(file: BufferedRWPair, message: Mapping[str, Any]) -> None:
    """One line."""
    file.write(json.dumps(message).encode() + b"\n")
    file.flush()


def receive(file: BufferedRWPair) -> dict[str, Any] | None:
    """The next line, or None at the end."""
    line = file.readline()
    if not line.endswith(b"\n"):
        return None
    message: dict[str, Any] = json.loads(line)
    return message


def prompt_in(data: Any) -> Prompt:
    """The inverse of ``case.prompt_json``."""
    prompt: Prompt = RawPrompt(**_with_tuples(data)) if isinstance(data, Mapping) else data
    return prompt


def steer_in(data: Mapping[str, Any]) -> Steer:
    """The inverse of ``asdict`` for a Steer."""
    spans = tuple(Span(**span) for span in data["spans"])
    return Steer(**_with_tuples(data) | {"spans": spans})


def steering_in(data: Mapping[str, Any]) -> RowSteering:
    """The inverse of ``asdict`` for a RowSteering."""
    return RowSteering(**_with_tuples(data))


def row_in(data: Mapping[str, Any]) -> Row:
    """The inverse of ``asdict`` for a Row."""
    config, how = GenerateConfig(**data["config"]), data["steering"]
    steering = None if how is None else steering_in(how)
    return Row(**_with_tuples(data) | {"config": config, "steering": steering})


def outcome_out(outcome: Generated | LlmprobeError) -> dict[str, Any]:
    """An answer or an error."""
    if isinstance(outcome, Generated):
        return {"generated": asdict(outcome)}
    return {"error": type(outcome).__name__, "message": str(outcome)}


def outcome_in(data: Mapping[str, Any]) -> Generated | LlmprobeError:
    """The inverse of ``outcome_out``."""
    if "error" in data:
        error: LlmprobeError = getattr(errors, data["error"], ModelError)(data["message"])
        return error
    usage = data["generated"]["usage"]
    usage = None if usage is None else Usage(**usage)
    return Generated(**_with_tuples(data["generated"]) | {"usage": usage})


def _with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists only, and what crosses has tuples only."""
    return {name: tuple(it) if isinstance(it, list) else it for name, it in data.items()}
