"""What crosses the socket: the arguments and results of Backend's methods, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BufferedRWPair
from typing import Any

from pytest_llmprobe import errors
from pytest_llmprobe.case import Prompt, RawPrompt, Span
from pytest_llmprobe.engine.backend import Generated
from pytest_llmprobe.engine.planning import Row, RowSteering
from pytest_llmprobe.errors import LlmprobeError, ModelError
from pytest_llmprobe.generation import GenerateConfig, Steer, Usage

ERRORS: dict[str, type[LlmprobeError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LlmprobeError)
}


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
    if isinstance(data, Mapping):
        return RawPrompt(data["text"], tuple(data["ids"]))
    prompt: Prompt = data
    return prompt


def steer_in(data: Mapping[str, Any]) -> Steer:
    """The inverse of ``asdict`` for a Steer."""
    spans = tuple(Span(**span) for span in data["spans"])
    layers: Any = data["layers"]
    layers = layers if isinstance(layers, str) else tuple(layers)
    return Steer(spans, data["delta"], layers, data["phase"])


def steering_in(data: Mapping[str, Any] | None) -> RowSteering | None:
    """The inverse of ``asdict`` for a RowSteering."""
    if data is None:
        return None
    return RowSteering(
        tuple(data["bias"]), tuple(data["layers"]), data["phase"], tuple(data["texts"])
    )


def rows_out(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of one batch."""
    return [asdict(row) for row in rows]


def rows_in(data: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The inverse of ``rows_out``."""
    rows = []
    for row in data:
        draft = row["draft"]
        rows.append(
            Row(
                row["index"],
                tuple(row["prompt_ids"]),
                GenerateConfig.of(**row["config"]),
                row["seed"],
                tuple(draft) if isinstance(draft, list) else draft,
                steering_in(row["steering"]),
            )
        )
    return rows


def outcome_out(outcome: Generated | LlmprobeError) -> dict[str, Any]:
    """An answer or an error."""
    if isinstance(outcome, Generated):
        return {"generated": asdict(outcome)}
    return {"error": type(outcome).__name__, "message": str(outcome)}


def outcome_in(data: Mapping[str, Any]) -> Generated | LlmprobeError:
    """The inverse of ``outcome_out``."""
    if "error" in data:
        return ERRORS.get(data["error"], ModelError)(data["message"])
    fields = dict(data["generated"])
    usage = fields.pop("usage")
    fields["token_ids"] = tuple(fields["token_ids"])
    return Generated(usage=None if usage is None else Usage(**usage), **fields)
