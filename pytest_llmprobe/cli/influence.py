"""``llmprobe influence``: how far a piece of a prompt reaches into a model, as numbers and a plot.

Models and arrays are imported when the command runs: listing commands must stay quick.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.figures.files import can_draw, save_figure
from pytest_llmprobe.models.settings import project_models

METHODS = ("influence", "heads", "rollout", "attention")
LAST = 10
"""Tokens at the end of the prompt whose mean is printed."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command on the parser's subparsers."""
    parser = commands.add_parser("influence", help="how far a piece of a prompt reaches")
    parser.description = (
        "Write influence.npy (float32 [layers + 1, tokens], first the span itself), tokens.json "
        "(the prompt's tokens and which of them are the span's) and, with matplotlib, a plot. "
        "Prints the mean over the last tokens after each layer."
    )
    occurrence = "which one, from 0, if the prompt holds it more than once"
    norm = "residual (default): as in the paper; upstream: as in its published code"
    add = parser.add_argument
    add("--model", default="reference", metavar="M", help="which model (default: reference)")
    add("--prompt", required=True, metavar="TEXT|@FILE", help="the user's message, or its file")
    add("--span", required=True, metavar="TEXT", help="the piece of it")
    add("--occurrence", type=int, metavar="N", help=occurrence)
    add("--method", choices=METHODS, default="influence", help="what to measure")
    add("--norm", choices=("residual", "upstream"), default="residual", help=norm)
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.set_defaults(run=_influence)


def _influence(options: argparse.Namespace) -> None:
    from pytest_llmprobe.case import Span

    span = Span(options.span, occurrence=options.occurrence)
    prompt = _text(options.prompt)
    import numpy as np

    from pytest_llmprobe.models.loading import load_model
    from pytest_llmprobe.report.cores import cpu_threads
    from pytest_llmprobe.whitebox.influence import influence

    loaded = load_model(options.model, models=project_models(), threads=cpu_threads())
    found = influence(loaded, prompt, span, method=options.method, norm=options.norm)
    said = [str(loaded.tokenizer.decode([token])) for token in found.prompt.ids]
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        np.save(options.out / "influence.npy", found.values)
        described = {name: vars(options)[name] for name in ("model", "method", "norm")}
        described |= {"span": list(found.prompt.positions), "tokens": said}
        (options.out / "tokens.json").write_text(json.dumps(described, indent=1) + "\n")
    except OSError as error:
        raise SettingsError(f"--out {options.out}: {error.strerror}") from None
    for layer, value in enumerate(found.values[1:, -LAST:].mean(axis=1)):
        print(f"after layer {layer:2}  {value:.6f}")
    if can_draw():
        _draw(options, found.values, found.prompt.positions)
    else:
        print("no plot: it needs matplotlib: pip install 'pytest-llmprobe[plots]'")
    print(options.out)


def _draw(options: argparse.Namespace, values: Any, positions: tuple[int, ...]) -> None:
    from pytest_llmprobe.figures.influence import influence_figure

    shown = " ".join(options.span.split())
    title = f"{options.model}: “{shown[:60]}{'…' if len(shown) > 60 else ''}”"
    figure = influence_figure(values, positions, title.replace("$", r"\$"), options.method)
    save_figure(figure, options.out / "influence.png")


def _text(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise CasesError(f"--prompt {given}: {reason}") from None
