"""``llmprobe hidden-states``, ``train-length-probe`` and ``predict-length``: how much remains.

Models and arrays are imported when a command runs: listing commands must stay quick.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmprobe.cli import predict_length
from pytest_llmprobe.cli.arguments import positive
from pytest_llmprobe.cli.progress import Progress
from pytest_llmprobe.models.settings import project_models

if TYPE_CHECKING:
    from pytest_llmprobe.experiments.output_length.data_set import LengthData, Split
    from pytest_llmprobe.experiments.output_length.skill import Fit, Judgement

ORIGIN = ("name", "source", "revision", "fingerprint", "dtype", "dates")
"""What a probe remembers of the model that its states are from."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands on the parser's subparsers."""
    _add_hidden_states(
        commands.add_parser("hidden-states", help="collect hidden states and remaining tokens")
    )
    _add_train(commands.add_parser("train-length-probe", help="train a probe on hidden states"))
    predict_length.add_arguments(
        commands.add_parser("predict-length", help="say at each token how many a probe expects")
    )


def _add_hidden_states(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Ask a model to repeat words, or for lists, and write the hidden state behind each token "
        "of its right answers with the number of tokens that remained. The same command goes on "
        "with a folder that is not complete."
    )
    dataset = (
        "same_prompt (default), different_prompts, multi_layers (all layers), lists (of so many "
        "animals and the like, for models that cannot repeat a word), a .jsonl file"
    )
    layers = "-1 (default): after the last one's norm; 0: embeddings; several as -1,-2,-3; all"
    keep = "data: answers with the right word (or list) and count, with the word, or all that ended"
    held = "what the part val has and train has not (default: sample)"
    add = parser.add_argument
    add("--model", default="reference", metavar="M", help="which model (default: reference)")
    add("--dataset", default="same_prompt", metavar="D", help=dataset)
    add("--layers", type=_layers, metavar="L,...|all", help=layers)
    add(
        "--counts",
        type=_counts,
        metavar="A:B|N,...",
        help="how often a word (default: 5:49; of lists 3:10)",
    )
    add(
        "--words",
        type=_words,
        metavar="W,...",
        help="which (default: ten; of lists 24)",
    )
    add("--max-new-tokens", type=positive, metavar="N", help="longer answers are left out")
    add("--keep", choices=("exact", "words", "ended"), default="exact", help=keep)
    add("--hold-out", choices=SPLITS, default="sample", metavar="|".join(SPLITS), help=held)
    add("--share", type=float, default=0.2, metavar="X", help="how much of it (default: 0.2)")
    add("--seed", type=int, default=0, metavar="S", help="of phrasings and split (default: 0)")
    add("--half", action="store_true", help="store float16")
    add("--pin-dates", action="store_true", help="keep a template's date lines, with one date")
    add("--batch-size", type=positive, metavar="N", help="generated together (default: auto)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the arrays")
    parser.set_defaults(run=_hidden_states)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a probe, set it beside what can be guessed without a hidden state, and save it."
    )
    split = "what is held out for the test (default: the part val)"
    bins = "classify in bins that begin at these lengths, as 1,2,4,8,16,32"
    add = parser.add_argument
    add("data", type=Path, metavar="DIR", help="what `hidden-states` wrote")
    add("--kind", choices=("linear", "mlp"), default="linear", help="default: linear")
    add("--layer", type=int, metavar="L", help="one layer of the data, from 0 (default: all)")
    add("--hold-out", choices=SPLITS, metavar="|".join(SPLITS), help=split)
    add("--bins", type=_counts, default=(), metavar="N,...", help=bins)
    hidden = "units of an MLP's hidden layers (default: 256)"
    rate = "of Adam, which trains an MLP (default: 0.003); a linear probe is fitted with L-BFGS"
    waits = "epochs without a better loss that end it (default: 10)"
    add("--hidden", type=_units, default=(256,), metavar="N,...", help=hidden)
    add("--dropout", type=float, default=0.1, metavar="X", help="default: 0.1")
    add("--learning-rate", type=float, default=3e-3, metavar="X", help=rate)
    add("--batch-size", type=positive, default=128, metavar="N", help="default: 128")
    add("--epochs", type=positive, default=100, metavar="N", help="default: 100")
    add("--patience", type=positive, default=10, metavar="N", help=waits)
    add("--seed", type=int, default=0, metavar="S", help="of split and training (default: 0)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the probe")
    add("--figure", type=Path, metavar="FILE", help="draw it: a .png, .svg or .pdf file")
    tokens = "draw the data's commonest tokens and some answers, too"
    add("--token-figure", type=Path, metavar="FILE", help=tokens)
    layers = "print what a probe of each layer knows, cross-validated in 5 folds, too"
    add("--by-layer", action="store_true", help=layers)
    parser.set_defaults(run=_train)


SPLITS = ("sample", "word", "phrasing", "count")


def _layers(given: str) -> tuple[int, ...]:
    """As given; none for all of them."""
    if given == "all":
        return ()
    try:
        return tuple(map(int, given.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is not all or layers as -1,-2,-3") from None


def _counts(given: str) -> tuple[int, ...]:
    """``5:49``, both included, or ``5,10,20``."""
    first, colon, last = given.partition(":")
    try:
        if colon:
            return tuple(range(int(first), min(int(last), 100_000) + 1))
        return tuple(map(int, given.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is not as 5:49 or 5,10,20") from None


def _units(given: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in given.split(","))


def _words(given: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in given.split(","))


def _hidden_states(options: argparse.Namespace) -> None:
    from pytest_llmprobe.data.safe_writing import check_place
    from pytest_llmprobe.experiments.output_length import requests
    from pytest_llmprobe.experiments.output_length.data_set_collection import collect

    check_place(options.out, "--out", folder=True)
    given = options.words, options.counts
    asked = requests.length_requests(options.dataset, *given, seed=options.seed)
    layers = options.layers
    if layers is None:
        layers = () if options.dataset == "multi_layers" else (-1,)
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.models.loading import load_model
    from pytest_llmprobe.report.cores import cpu_threads
    from pytest_llmprobe.whitebox.hidden_states import HiddenStateReader

    loaded = load_model(options.model, models=project_models(), threads=cpu_threads())
    reader = HiddenStateReader(loaded, layers or None, "pin" if options.pin_dates else "leave out")
    with Progress() as progress:
        data = collect(
            options.out,
            asked,
            reader,
            Engine(loaded, batch_size=options.batch_size).attempt,
            max_new_tokens=options.max_new_tokens,
            keep=options.keep,
            hold_out=options.hold_out,
            share=options.share,
            seed=options.seed,
            dtype="float16" if options.half else "float32",
            on_progress=lambda done, total: progress.show(f"{done} of {total} answers"),
        )
    found = data.metadata["statistics"]
    said = ", ".join(f"{n} {status}" for status, n in found["samples"].items())
    print(f"{options.out}: {said}")
    if deviation := found["count_deviation"]:
        print(f"counts are off by {deviation['mean_absolute']:.2f} in the mean")
    width = data.hidden_size * len(data.layers)
    rows = " and ".join(f"{n} of {part}" for part, n in found["rows"].items())
    print(f"hidden states: {rows}, {width} numbers each, layers {', '.join(map(str, data.layers))}")


def _train(options: argparse.Namespace) -> None:
    from pytest_llmprobe.data.safe_writing import check_place
    from pytest_llmprobe.experiments.output_length.data_set import load_length_data
    from pytest_llmprobe.experiments.output_length.skill import judge
    from pytest_llmprobe.figures.files import check_figure_file

    check_place(options.out, "--out", folder=True)
    for name in ("figure", "token_figure"):
        if (path := vars(options)[name]) is not None:
            check_figure_file(path)
            check_place(path, f"--{name.replace('_', '-')}")
    from pytest_llmprobe.whitebox.length_probe import LengthProbe, ProbeConfig
    from pytest_llmprobe.whitebox.length_probe_training import train_probe

    data = load_length_data(options.data)
    model = data.metadata["parameters"]["model"]
    layers = data.layers if options.layer is None else (options.layer,)
    origin = {name: model.get(name) for name in ORIGIN} | {"layers": list(layers)}
    config = ProbeConfig(
        options.kind,
        options.bins,
        options.hidden,
        options.dropout,
        options.learning_rate,
        options.batch_size,
        options.epochs,
        options.patience,
        options.seed,
    )
    fit = partial(train_probe, config=config, origin=origin)
    split = data.split(options.hold_out, seed=options.seed)
    judged = judge(data, split, fit, options.layer, options.seed)
    assert isinstance(judged.probe, LengthProbe)
    judged.probe.origin |= {
        "metrics": judged.metrics,
        "skill": judged.skill,
        "skill_ci95": judged.interval,
        "skill_of_shuffled_labels": judged.control,
    }
    judged.probe.save(options.out)
    print(_table(judged))
    print(f"probe: {options.out}")
    if options.by_layer:
        from pytest_llmprobe.cli.length_by_layer import layer_table

        print(layer_table(data, fit, options.hold_out or "sample", options.seed))
    if options.figure is not None:
        _draw(data, split, fit, judged, options)
        print(f"figure: {options.figure}")
    if options.token_figure is not None:
        from pytest_llmprobe.figures.answer_tokens import answer_tokens_figure
        from pytest_llmprobe.figures.files import save_figure

        texts, samples, steps = map(data.tokens, ("token_text", "sample_id", "step"))
        figure = answer_tokens_figure(texts, samples, steps, data.labels)
        save_figure(figure, options.token_figure)
        print(f"figure: {options.token_figure}")


def _draw(
    data: LengthData, split: Split, fit: Fit, judged: Judgement, options: argparse.Namespace
) -> None:
    """The data, the probe, and a probe of the same kind for each layer."""
    from pytest_llmprobe.experiments.output_length.skill import layer_curve
    from pytest_llmprobe.figures.files import save_figure
    from pytest_llmprobe.figures.output_length import output_length_figure

    model = data.metadata["parameters"]["model"].get("name")
    layer = "all layers" if options.layer is None else f"layer {options.layer}"
    figure = output_length_figure(
        data.labels,
        data.tokens("step"),
        {layer: data.norms(layer) for layer in data.layers},
        layer_curve(data, split, fit, options.seed),
        split.test,
        judged.predicted,
        f"{model}: {options.kind} probe of {layer}",
    )
    save_figure(figure, options.figure)


def _table(judged: Judgement) -> str:
    """Probe and baselines, a line each."""
    shown = ("mae", "mape", "rmse", "r2", "spearman", "bin_accuracy", "bin_macro_f1")
    lines = [f"{'':16}" + "".join(f"{name.replace('_', ' '):>14}" for name in shown)]
    for name, measured in judged.metrics.items():
        numbers = (measured[key] for key in shown)
        cells = ("-" if number is None else f"{number:.3f}" for number in numbers)
        lines.append(f"{name.replace('_', ' '):16}" + "".join(f"{cell:>14}" for cell in cells))
    best = judged.best.replace("_", " ")
    if judged.skill is None:
        lines.append(f"no skill can be had: {best} tells the remaining tokens exactly")
    else:
        ends = "" if judged.interval is None else " [{:.3f}, {:.3f}]".format(*judged.interval)
        lines.append(f"skill over {best}, the best without states: {judged.skill:.3f}{ends}")
    return "\n".join(lines)
