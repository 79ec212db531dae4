"""The report's JSON Schema, and a check against it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_llmprobe.errors import ReportError

SCHEMA_VERSION = "1.0"


def schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12)."""
    text = Path(__file__).with_name("schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def validate(report: object) -> None:
    """Check a report against the schema.

    Raises:
        ReportError: Names the first place where the report does not follow it.
    """
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(schema())
    error = min(validator.iter_errors(report), key=lambda e: e.json_path, default=None)
    if error is not None:
        raise ReportError(
            f"the report does not follow its schema: {error.json_path}: {error.message}"
        )
