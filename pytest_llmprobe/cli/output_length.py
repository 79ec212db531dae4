"""``llmprobe hidden-states``, ``train-length-probe`` and ``predict-length``: how much remains.

Models and arrays are imported when a command runs: listing commands must stay quick.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.cli.arguments import positive
from pytest_llmprobe.cli.progress import Progress
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.models.settings import project_models

if TYPE_CHECKING:
    from pytest_llmprobe.experiments.output_length.data_set import LengthData, Split
    from pytest_llmprobe.experiments.output_length.skill import Fit, Judgement
    from pytest_llmprobe.whitebox.length_probe import LengthProbe

ORIGIN = ("name", "source", "revision", "fingerprint", "dtype", "dates")
"""What a probe remembers of the model that its states are from."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands on the parser's subparsers."""
    _add_hidden_states(
        commands.add_parser("hidden-states", help="collect hidden states and remaining tokens")
    )
    _add_train(commands.add_parser("train-length-probe", help="train a probe on hidden states"))
    _add_predict(
        commands.add_parser("predict-length", help="say at each token how many a probe expects")
    )


def _add_hidden_states(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Ask a model to repeat words, and write the hidden state behind each token of its right "
        "answers with the number of tokens that remained. The same command goes on with a folder "
        "that is not complete."
    )
    dataset = "same_prompt (default), different_prompts, multi_layers (all layers), a .jsonl file"
    layers = "-1 (default): after the last one's norm; 0: embeddings; several as -1,-2,-3; all"
    keep = "data are answers with the right word and count, with the word, or all that ended"
    held = "what the part val has and train has not (default: sample)"
    add = parser.add_argument
    add("--model", default="reference", metavar="M", help="which model (default: reference)")
    add("--dataset", default="same_prompt", metavar="D", help=dataset)
    add("--layers", type=_layers, metavar="L,...|all", help=layers)
    add("--counts", type=_counts, metavar="A:B|N,...", help="how often a word (default: 5:49)")
    add("--words", type=_words, metavar="W,...", help="which words (default: ten common ones)")
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
    add("--seed", type=int, default=0, metavar="S", help="of split and training (default: 0)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the probe")
    add("--figure", type=Path, metavar="FILE", help="draw it: a .png, .svg or .pdf file")
    parser.set_defaults(run=_train)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = "Generate an answer and print what the probe expects at each token."
    add = parser.add_argument
    add("--probe", type=Path, required=True, metavar="DIR", help="what `train-length-probe` wrote")
    add("--prompt", required=True, metavar="TEXT", help="what the user says")
    add("--model", metavar="M", help="default: the one that the probe was trained on")
    add("--max-new-tokens", type=positive, default=256, metavar="N", help="default: 256")
    parser.set_defaults(run=_predict)


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


def _words(given: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in given.split(","))


def _hidden_states(options: argparse.Namespace) -> None:
    from pytest_llmprobe.experiments.output_length import requests
    from pytest_llmprobe.experiments.output_length.data_set_collection import collect

    words, counts = options.words or requests.TEN_WORDS, options.counts or requests.COUNTS
    asked = requests.length_requests(options.dataset, words, counts, options.seed)
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
    from pytest_llmprobe.experiments.output_length.data_set import load_length_data
    from pytest_llmprobe.experiments.output_length.skill import judge
    from pytest_llmprobe.figures.files import check_figure_file

    if options.figure is not None:
        check_figure_file(options.figure)
    from pytest_llmprobe.whitebox.length_probe import LengthProbe, ProbeConfig
    from pytest_llmprobe.whitebox.length_probe_training import train_probe

    data = load_length_data(options.data)
    model = data.metadata["parameters"]["model"]
    layers = data.layers if options.layer is None else (options.layer,)
    origin = {name: model.get(name) for name in ORIGIN} | {"layers": list(layers)}
    config = ProbeConfig(options.kind, options.bins, seed=options.seed)
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
    if options.figure is not None:
        _draw(data, split, fit, judged, options)
        print(f"figure: {options.figure}")


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
    shown = ("mae", "rmse", "r2", "spearman", "bin_accuracy", "bin_macro_f1")
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


def _predict(options: argparse.Namespace) -> None:
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.generation import GenerateConfig
    from pytest_llmprobe.models.loading import load_model
    from pytest_llmprobe.report.cores import cpu_threads
    from pytest_llmprobe.whitebox.hidden_states import HiddenStateReader
    from pytest_llmprobe.whitebox.length_probe import LengthProbe

    probe = LengthProbe.load(options.probe)
    origin = _checked_origin(probe, options.probe)
    loaded = load_model(
        options.model or origin["name"], models=project_models(), threads=cpu_threads()
    )
    if loaded.info["fingerprint"] != origin["fingerprint"]:
        raise CasesError(
            f"{options.probe} was trained on states of {origin['name']} ({origin['fingerprint']}), "
            f"and {loaded.spec.name} has other weights ({loaded.info['fingerprint']}): train anew"
        )
    reader = HiddenStateReader(loaded, origin["layers"], origin["dates"])
    prompt = reader.prompt(options.prompt)
    config = GenerateConfig(max_new_tokens=options.max_new_tokens)
    (answer,) = Engine(loaded).generate([prompt], config)
    (states,) = reader.states([prompt.ids], [answer.token_ids])
    ended = answer.finish_reason == "stop"
    print(f"{'step':>5}  {'predicted':>9}  {'remain':>6}  token")
    for step, (token, predicted) in enumerate(
        zip(answer.token_ids, probe.predict(states), strict=True)
    ):
        remain = str(len(states) - 1 - step) if ended else "?"
        print(f"{step:5}  {predicted:9.1f}  {remain:>6}  {reader.token_text(token)!r}")
    if not ended:
        print(f"the answer did not end within {options.max_new_tokens} tokens")


def _checked_origin(probe: LengthProbe, folder: Path) -> dict[str, Any]:
    origin = probe.origin
    if not (
        all(isinstance(origin.get(name), str) for name in ("name", "fingerprint"))
        and origin.get("dates") in ("leave out", "pin")
        and isinstance(origin.get("layers"), list)
        and all(isinstance(layer, int) for layer in origin["layers"])
    ):
        raise CasesError(f"{folder} does not say which model and layers it was trained on")
    return origin
