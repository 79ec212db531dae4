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
        lines += [f"  {printable(line)}" for line in _beside(name, fidelity)]
    return lines


HEADER = (
    *("experiment", "cases", "tokens", "KL mean [95% CI]", "median", "p99", "max"),
    *("top-1", "perplexity", "verdict"),
)


def fidelity_rows(experiments: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table of a page under ``HEADER``: a row for each experiment that was measured."""
    rows = []
    for experiment in experiments:
        found = experiment.get("fidelity")
        if not found or not found["kl"]:
            continue
        kl, perplexity = found["kl"], found["perplexity"]
        rows.append(
            [
                experiment["name"],
                str(found["cases"]),
                str(found["tokens"]),
                f"{kl['mean']:.3g}{_interval(kl['ci95'])}",
                *(f"{kl[name]:.2g}" for name in ("median", "p99", "max")),
                f"{found['top1']['mean']:.4f}",
                f"{perplexity['increase']:+.2%}",
                found["verdict"] or "measured",
            ]
        )
    return rows


def fidelity_notes(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the table does not say: reasons, where it is different, what was not measured."""
    said = []
    for experiment in experiments:
        name, found = experiment["name"], experiment.get("fidelity")
        if not found:
            continue
        if found["reason"]:
            said.append(f"{name}: {found['reason']}")
        for by, cells in found["by"].items():
            shown = ", ".join(
                f"{key} {cell['kl']:.2g} ({cell['n']})" for key, cell in cells.items()
            )
            said.append(f"{name}: KL by {by.replace('_', ' ')} (tokens): {shown}")
        said += [
            f"{name}: KL {worst['kl']:.2g} at {_in_context(worst)!r} in {worst['id']}"
            for worst in found["worst"]
        ]
        said += _beside(name, found)
    return said


def _beside(name: str, fidelity: Mapping[str, Any]) -> list[str]:
    """What is known of answers whose tokens were not compared, and why they were not."""
    said = []
    if bits := fidelity["bits_per_byte"]:
        both = f"{bits['base']:.4f} -> {bits['candidate']:.4f}"
        said.append(f"{name}: bits per byte of the answers {both}")
    return said + [f"{name}: {n} cases: {remark}" for remark, n in fidelity["remarks"].items()]


def worst_lines(fidelity: Mapping[str, Any]) -> list[str]:
    """The tokens that diverge most, each in brackets behind what stands before it."""
    return [
        f"KL {worst['kl']:.2g} at {printable(repr(_in_context(worst)))}"
        for worst in fidelity["worst"][:SHOWN]
    ]


def texts_lines(found: Mapping[str, Any] | None) -> list[str]:
    """A corpus as a table: perplexity and bits per byte of both, and the divergence."""
    if found is None:
        return []
    lines = [f"texts: {printable(found['source'])}"]
    if found["texts"]:
        lines[0] += f", {found['bytes']} bytes"
        lines.append(f"{'':10} {'tokens':>8} {'perplexity':>12} {'bits per byte':>14}")
    for name in ("base", "candidate"):
        if one := found[name]:
            values = f"{one['tokens']:8} {one['perplexity']:12.5f} {one['bits_per_byte']:14.6f}"
            lines.append(f"{name if found['base'] else 'the model':10} {values}")
    if change := found["bits_per_byte_change"]:
        ends = change["ci95"]
        interval = "one window gives no interval"
        if ends is not None:
            interval = f"95 % interval {ends[0]:+.6f} to {ends[1]:+.6f}"
        lines.append(f"bits per byte {change['value']:+.6f} ({interval})")
    if found["fidelity"] is not None:
        lines += [measures(found["fidelity"]), *worst_lines(found["fidelity"])]
    if found["remark"]:
        lines.append(printable(found["remark"]))
    return lines


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
