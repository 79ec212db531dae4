"""What a self-check found, in lines for a terminal, markdown and a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_llmprobe.report.terminal import printable


def self_check_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Lines for a report's ``self_check``: one, and one more for each way whose answers flipped."""
    if found is None:
        return []
    ways = found["ways"]
    flipped, n = (sum(way[key] for way in ways) for key in ("flipped", "n"))
    parts = ", ".join(f"{way['name']} {way['flipped']}/{way['n']}" for way in ways)
    line = f"self-check: {flipped} of {n} answers differ from one by one ({parts})"
    dtype = found["dtype"]
    lines = [f"{line}, {dtype}" if dtype else line, *(_way(way) for way in ways if way["flipped"])]
    if all(way["rows"] <= 1 for way in ways):
        lines.append("self-check: this model is always asked one prompt at a time")
    elif dtype and not found["shares_prefixes"]:  # what a server stores is not known
        lines.append("self-check: this model stores no prefix once: shared is a batch like others")
    lines += [f"self-check: a prompt had no answer: {why}" for why in found["failed"]]
    return [printable(line) for line in lines]


def self_check_warning(found: Mapping[str, Any] | None) -> str | None:
    """What is wrong if answers flipped in float32; in half precision they may."""
    if (
        found is None
        or found["dtype"] != "float32"
        or not any(way["flipped"] for way in found["ways"])
    ):
        return None
    return (
        "warning: answers of this model depend on the batch even in float32, so verdicts may "
        "change with -n and with the selection; --llmprobe-batch-size=1 asks one by one"
    )


def _way(way: Mapping[str, Any]) -> str:
    low, high = way["ci95"]
    rate = f"{way['rate']:.3f} [{low:.3f}, {high:.3f}] differ"
    places = [(d["token"], d["prompt"]) for d in way["first_differences"]]
    if any(token is None for token, _ in places):
        first = f"prompts {', '.join(str(prompt) for _, prompt in places)}"
    else:
        first = f"at token {', '.join(f'{token} of prompt {prompt}' for token, prompt in places)}"
    return f"self-check, {way['name']}: {rate}, first {first}"
