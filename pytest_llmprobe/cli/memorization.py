"""``llmprobe prefixes``, ``continue`` and ``canaries``: what a model has memorised.

Models and arrays are imported when a command runs: listing commands must stay quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pytest_llmprobe.cli.progress import Progress
from pytest_llmprobe.errors import CasesError, LlmprobeError
from pytest_llmprobe.models.settings import project_models

PREFIXES = Path(".llmprobe/prefixes")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands on the parser's subparsers."""
    _add_prefixes(commands.add_parser("prefixes", help="cut a prefix map from a corpus"))
    _add_continue(commands.add_parser("continue", help="have a model go on from a prefix map"))
    _add_canaries(commands.add_parser("canaries", help="make sentences with a secret to plant"))


def _add_prefixes(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Cut tokens out of each document of a corpus, with what truly follows them. Prints the new "
        "folder."
    )
    source = (
        "a folder of .txt files, a .txt, .jsonl or .parquet file (#FIELD), or a Hugging Face data "
        "set org/name[:split][#field]"
    )
    where = "start (default), random, or a place in tokens from 0"
    add = parser.add_argument
    add("--model", default="reference", metavar="M", help="whose tokenizer (default: reference)")
    add("--dataset", required=True, metavar="D", help=source)
    add("--prefix-tokens", type=int, default=10, metavar="N", help="of a prefix (default: 10)")
    add("--location", type=_location, default="start", metavar="WHERE", help=where)
    add("--size", type=_size, default=None, metavar="N|all", help="entries at most (default: all)")
    add("--crop", type=int, metavar="N", help="use the first N tokens of each document only")
    add("--seed", type=int, default=0, metavar="S", help="of random places (default: 0)")
    add("--out", type=Path, default=PREFIXES, metavar="DIR", help=f"default: {PREFIXES}")
    parser.set_defaults(run=_prefixes)


def _add_continue(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a JSON line for each string: what the model said, what is true, scores. The same "
        "command goes on with a file that is not complete."
    )
    strings = "how many; after the last prefix comes the first again (default: one for each)"
    add = parser.add_argument
    add("--prefix-map", type=Path, required=True, metavar="DIR", help="what `prefixes` printed")
    add("--model", default="reference", metavar="M", help="which model (default: reference)")
    add("--num-strings", type=int, metavar="N", help=strings)
    add("--batch-size", type=int, default=10, metavar="B", help="generated together (default: 10)")
    add("--max-length", type=int, default=20, metavar="L", help="new tokens (default: 20)")
    add("--temperature", type=float, default=0.0, metavar="T", help="0 (default): greedy")
    add("--top-k", type=int, default=0, metavar="K", help="0 (default): off")
    add("--top-p", type=float, default=1.0, metavar="P", help="1 (default): off")
    add("--seed", type=int, default=0, metavar="S", help="of sampling (default: 0)")
    add("--out", type=Path, required=True, metavar="FILE", help="JSON lines")
    parser.set_defaults(run=_continue)


def _add_canaries(parser: argparse.ArgumentParser) -> None:
    parser.description = "Make a JSON line for each canary: text to plant, prefix to ask, secret."
    add = parser.add_argument
    add("--count", type=int, default=50, metavar="N", help="how many (default: 50)")
    add("--seed", type=int, default=0, metavar="S", help="another one, other canaries (default: 0)")
    add("--out", type=Path, metavar="FILE", help="default: standard output")
    parser.set_defaults(run=_canaries)


def _location(given: str) -> str | int:
    return given if given in ("start", "random") else _number(given, "start, random")


def _size(given: str) -> int | None:
    return None if given == "all" else _number(given, "all")


def _number(given: str, words: str) -> int:
    try:
        return int(given)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is not {words} or a whole number") from None


def _prefixes(options: argparse.Namespace) -> None:
    from pytest_llmprobe.data.sources import read_datasets
    from pytest_llmprobe.experiments.memorization.prefix_map import cutting
    from pytest_llmprobe.models.registry import resolve

    cut = cutting.PrefixCut(
        options.prefix_tokens, options.location, options.size, options.crop, options.seed
    )
    spec = resolve(options.model, project_models())
    with _named(options.dataset):
        corpus = read_datasets([f"corpus={options.dataset}"], Path.cwd())["corpus"]
    from pytest_llmprobe.models.loading import load_tokenizer
    from pytest_llmprobe.models.text_tokenizer import text_tokenizer

    tokenizer, empty = text_tokenizer(load_tokenizer(spec)), list[str]()
    with Progress() as progress, _named(options.dataset):
        folder = cutting.make_prefix_map(
            corpus.documents(empty.append),
            tokenizer,
            cut,
            options.out,
            model=options.model,
            dataset=options.dataset,
            on_progress=lambda n, skipped: progress.show(
                f"{n} prefixes, {skipped} documents too short"
            ),
        )
    if empty:
        print(f"{len(empty)} documents without text left out", file=sys.stderr)
    print(folder)


@contextmanager
def _named(given: str) -> Iterator[None]:
    """Errors name the data as this command line does, and not as pytest's."""
    from pytest_llmprobe.data.sources import OPTION

    try:
        yield
    except LlmprobeError as error:
        words = str(error).replace(f"{OPTION} corpus={given}", f"--dataset {given}")
        raise type(error)(words) from None


def _continue(options: argparse.Namespace) -> None:
    from pytest_llmprobe.experiments.memorization import continuations
    from pytest_llmprobe.experiments.memorization.prefix_map.files import load_prefix_map

    entries = load_prefix_map(options.prefix_map, None)
    prompting = continuations.Prompting(
        len(entries) if options.num_strings is None else options.num_strings,
        options.max_length,
        options.batch_size,
        options.temperature,
        options.top_k,
        options.top_p,
        options.seed,
    )
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.models.loading import load_model
    from pytest_llmprobe.models.text_tokenizer import text_tokenizer
    from pytest_llmprobe.report.cores import cpu_threads

    loaded = load_model(options.model, models=project_models(), threads=cpu_threads())
    tokenizer = text_tokenizer(loaded.tokenizer)
    if prompting.num_strings > len(entries) and prompting.temperature == 0:
        print(f"llmprobe: {len(entries)} prefixes: {continuations.REPEATED}", file=sys.stderr)
    with Progress() as progress:
        continuations.write_continuations(
            load_prefix_map(options.prefix_map, tokenizer.hash),
            Engine(loaded, batch_size=options.batch_size).generate,
            prompting,
            options.out,
            before=tokenizer.before,
            about={"model": options.model}
            | {name: loaded.info[name] for name in ("fingerprint", "dtype")},
            on_progress=lambda done, total: progress.show(f"{done} of {total} strings"),
        )
    print(_summary(options.out))


def _summary(path: Path) -> str:
    """How much of the suffixes was given back."""
    from pytest_llmprobe.experiments.memorization.continuations import read_continuations

    scores = [result["scores"] for result in read_continuations(path)]
    if not (known := [found for found in scores if found]):
        return f"{path}: {len(scores)} strings, and no prefix has a true suffix to compare with"
    exact, accuracy = (sum(found[key] for found in known) for key in ("exact", "token_accuracy"))
    return (
        f"{path}: {len(scores)} strings, {exact} of {len(known)} true suffixes given back exactly, "
        f"token accuracy {accuracy / len(known):.3f}"
    )


def _canaries(options: argparse.Namespace) -> None:
    from pytest_llmprobe.experiments.memorization.canaries import canaries
    from pytest_llmprobe.report.files import write_atomically

    lines = "".join(
        json.dumps(asdict(canary)) + "\n" for canary in canaries(options.count, options.seed)
    )
    if options.out is None:
        print(lines, end="")
        return
    try:
        write_atomically(options.out, lines)
    except OSError as error:
        raise CasesError(f"{options.out} cannot be written: {error.strerror}") from None
