"""Fidelity in the terminal: a table, and where the candidate is different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmprobe.report.terminal import printable

SHOWN = 3
"""Tokens that the terminal names; the report has more."""


def fidelity_lines(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each experiment whose answers were compared, with what was not measured."""
    found = [(e["name"], e["fidelity"]) for e in experiments if e.get("fidelity")]
    if not found:
        return []
    lines = ["fidelity to the baseline, on its answers:"]
    for name, fidelity in found:
        if fidelity["kl"]:
            lines.append(f"  {name}: {fidelity['verdict'] or 'measured'}; {measures(fidelity)}")
            if fidelity["reason"]:
                lines.append(f"    {printable(fidelity['reason'])}")
            lines += [f"    {line}" for line in worst_lines(fidelity)]
        if bits := fidelity["bits_per_byte"]:
            both = f"{bits['base']:.4f} -> {bits['candidate']:.4f}"
            lines.append(f"  {name}: bits per byte of the answers {both}")
        for remark, count in fidelity["remarks"].items():
            lines.append(f"  {name}: {count} cases: {printable(remark)}")
    return lines


def worst_lines(fidelity: Mapping[str, Any]) -> list[str]:
    """The tokens that diverge most, each in brackets behind what stands before it."""
    return [
        f"KL {worst['kl']:.2g} at {printable(repr(_in_context(worst)))}"
        for worst in fidelity["worst"][:SHOWN]
    ]


def measures(fidelity: Mapping[str, Any]) -> str:
    """The numbers of one experiment or corpus on a line."""
    kl, top, perplexity = fidelity["kl"], fidelity["top1"], fidelity["perplexity"]
    return (
        f"KL mean {kl['mean']:.3g}{_interval(kl['ci95'])}, median {kl['median']:.2g}, p99 "
        f"{kl['p99']:.2g}, max {kl['max']:.2g}; top-1 {top['mean']:.4f}; perplexity "
        f"{perplexity['base']:.4f} -> {perplexity['candidate']:.4f} "
        f"({perplexity['increase']:+.2%}); {fidelity['tokens']} tokens"
    )


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f" [{ends[0]:.3g}, {ends[1]:.3g}]"


def _in_context(worst: Mapping[str, Any]) -> str:
    return f"...{worst['before']}[{worst['token']}]"
