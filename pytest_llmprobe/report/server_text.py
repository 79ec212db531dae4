"""What a served model turned out to be, in lines for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_llmprobe.report.terminal import printable


def server_lines(info: Mapping[str, Any]) -> list[str]:
    """What a server refused and what was done about it, and words of its own.

    Args:
        info: The report's ``model_info``.
    """
    lines = [f"the server: {name} {said}" for name, said in info.get("adapted", {}).items()]
    if reasons := info.get("finish_reasons"):
        shown = ", ".join(map(repr, reasons))
        lines.append(f"the server: it ends answers with {shown}, which is kept as it is")
    return [printable(line) for line in lines]
