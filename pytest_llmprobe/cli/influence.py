"""``llmprobe influence``: how far a piece of a prompt reaches into a model, as numbers and a plot.

Models and arrays are imported when the command runs: listing commands must stay quick.
"""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
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
        "(the prompt's tokens and which of them are the span's) and, with matplotlib, a plot; of "
        "several spans the second has influence-2.npy and influence-2.png, and so on. Prints the "
        "mean over the last tokens after each layer, a column for each span."
    )
    occurrence = "which one, from 0, if the prompt holds it more than once"
    norm = "residual (default): as in the paper; upstream: as in its published code"
    add = parser.add_argument
    add("--model", default="reference", metavar="M", help="which model (default: reference)")
    add("--prompt", required=True, metavar="TEXT|@FILE", help="the user's message, or its file")
    pieces = "a piece of it; several with one --span each, in the same pass"
    add("--span", required=True, action="append", metavar="TEXT", help=pieces)
    add("--occurrence", type=int, metavar="N", help=occurrence)
    add("--method", choices=METHODS, default="influence", help="what to measure")
    delta = "with so much added to the attention that the spans get (default: 0, unsteered)"
    add("--delta", type=float, default=0.0, metavar="D", help=delta)
    shown = "layers that are printed and drawn, from 0 (default: all; the array has all)"
    add("--layers", type=_numbers, metavar="L,...", help=shown)
    add("--norm", choices=("residual", "upstream"), default="residual", help=norm)
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.set_defaults(run=_influence)


def _numbers(given: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in given.split(","))
    except ValueError:
        numbers = (-1,)
    if min(numbers) < 0:
        raise argparse.ArgumentTypeError(f"{given!r} is no list of layers such as 0,15,31")
    return numbers


def _influence(options: argparse.Namespace) -> None:
    from pytest_llmprobe.case import Span
    from pytest_llmprobe.data.safe_writing import check_place

    check_place(options.out, "--out", folder=True)
    spans = [Span(text, occurrence=options.occurrence) for text in options.span]
    prompt = _text(options.prompt)
    from pytest_llmprobe.models.loading import load_model
    from pytest_llmprobe.report.cores import cpu_threads
    from pytest_llmprobe.whitebox.influence import influence_maps
    from pytest_llmprobe.whitebox.spans import SpannedPrompt, locate
    from pytest_llmprobe.whitebox.steering import steer

    loaded = load_model(options.model, models=project_models(), threads=cpu_threads())
    located = [locate(loaded, prompt, span) for span in spans]
    ids, method = located[0].ids, options.method
    places = [found.positions for found in located]
    whole = SpannedPrompt(ids, tuple(span for found in located for span in found.spans))
    with steer(loaded, whole, delta=options.delta) if options.delta else nullcontext():
        maps = influence_maps(loaded, ids, places, methods=[method], norm=options.norm)[method]
    layers = options.layers or tuple(range(maps.shape[1] - 1))
    if max(layers) > maps.shape[1] - 2:
        raise SettingsError(f"--layers {max(layers)}: the last layer is {maps.shape[1] - 2}")
    said = [str(loaded.tokenizer.decode([token])) for token in ids]
    _write(options, maps, places, said)
    for layer in layers:
        means = maps[:, 1 + layer, -LAST:].mean(axis=1)
        print(f"after layer {layer:2}" + "".join(f"  {value:.6f}" for value in means))
    if can_draw():
        for number, values in enumerate(maps):
            _draw(options, values[[0, *(1 + layer for layer in layers)]], places, number, layers)
    else:
        print("no plot: it needs matplotlib: pip install 'pytest-llmprobe[plots]'")
    print(options.out)


def _file(options: argparse.Namespace, number: int, suffix: str) -> Path:
    """The file of a span, the first one's without a number."""
    folder: Path = options.out
    return folder / f"influence{f'-{number + 1}' if number else ''}{suffix}"


def _write(
    options: argparse.Namespace, maps: Any, places: list[tuple[int, ...]], said: list[str]
) -> None:
    import numpy as np

    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for number, values in enumerate(maps):
            np.save(_file(options, number, ".npy"), values)
        described = {name: vars(options)[name] for name in ("model", "method", "norm")}
        described |= {"span": list(places[0]), "spans": list(map(list, places)), "tokens": said}
        (options.out / "tokens.json").write_text(json.dumps(described, indent=1) + "\n")
    except OSError as error:
        raise SettingsError(f"--out {options.out}: {error.strerror}") from None


def _draw(
    options: argparse.Namespace,
    values: Any,
    places: list[tuple[int, ...]],
    number: int,
    layers: tuple[int, ...],
) -> None:
    from pytest_llmprobe.figures.influence import influence_figure

    shown = " ".join(options.span[number].split())
    title = f"{options.model}: “{shown[:60]}{'…' if len(shown) > 60 else ''}”"
    figure = influence_figure(
        values, places[number], title.replace("$", r"\$"), options.method, layers
    )
    save_figure(figure, _file(options, number, ".png"))


def _text(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise CasesError(f"--prompt {given}: {reason}") from None
