"""``llmprobe prefixes`` and ``canaries``: what goes into a look at what a model has memorised.

Models and arrays are imported when a command runs: listing commands must stay quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmprobe.cli.progress import Progress
from pytest_llmprobe.errors import LlmprobeError
from pytest_llmprobe.models.settings import project_models

if TYPE_CHECKING:
    from pytest_llmprobe.data.sources import Dataset
    from pytest_llmprobe.experiments.memorization.prefix_map.cutting import PrefixCut
    from pytest_llmprobe.experiments.memorization.prefix_map.files import Document

PREFIXES = Path(".llmprobe/prefixes")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands on the parser's subparsers."""
    _add_prefixes(commands.add_parser("prefixes", help="cut a prefix map from a corpus"))
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
    tokenizer = "a model behind a server tells no tokens: those of NAME (default: reference)"
    add("--tokenizer", metavar="NAME", help=tokenizer)
    add("--dataset", required=True, metavar="D", help=source)
    add("--prefix-tokens", type=int, default=10, metavar="N", help="of a prefix (default: 10)")
    add("--location", type=_location, default="start", metavar="WHERE", help=where)
    add("--size", type=_size, default=None, metavar="N|all", help="entries at most (default: all)")
    add("--document-tokens", type=int, metavar="N", help="of each document, the first N count only")
    add("--label", metavar="FIELD", help="field that is kept as the label, such as title")
    add("--info", metavar="FIELD", help="field that is kept as the info, such as url")
    add("--save", action="store_true", help="keep the corpus in the folder, as corpus.jsonl")
    add(
        "--crop", action="store_true", help="of the corpus that is saved, what --size asks for only"
    )
    add("--seed", type=int, default=0, metavar="S", help="of random places (default: 0)")
    add("--out", type=Path, default=PREFIXES, metavar="DIR", help=f"default: {PREFIXES}")
    parser.set_defaults(run=_prefixes)


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
    from pytest_llmprobe.data.safe_writing import check_place
    from pytest_llmprobe.data.sources import read_datasets
    from pytest_llmprobe.experiments.memorization.prefix_map import cutting
    from pytest_llmprobe.models.registry import resolve, tokenizer_spec, with_options

    cut = cutting.PrefixCut(
        options.prefix_tokens, options.location, options.size, options.document_tokens, options.seed
    )
    check_place(options.out, "--out", folder=True)
    spec = with_options(resolve(options.model, project_models()), tokenizer=options.tokenizer)
    tokenizer_of = tokenizer_spec(spec, project_models())
    if spec.protocol is not None and spec.tokenizer is None:
        print(
            f"llmprobe: {spec.name} is behind a server: its texts are cut into the tokens of "
            f"`{tokenizer_of.name}`; --tokenizer names its own",
            file=sys.stderr,
        )
    with _named(options.dataset):
        corpus = read_datasets([f"corpus={options.dataset}"], Path.cwd())["corpus"]
    from pytest_llmprobe.models.loading import load_tokenizer
    from pytest_llmprobe.models.text_tokenizer import text_tokenizer

    tokenizer, empty = text_tokenizer(load_tokenizer(tokenizer_of)), list[str]()
    with Progress() as progress, _named(options.dataset):
        folder = cutting.make_prefix_map(
            _documents(corpus, options.label, options.info, empty.append),
            tokenizer,
            cut,
            options.out,
            model=options.model,
            dataset=options.dataset,
            tokenizer_of=tokenizer_of.name,
            save=options.save,
            crop=options.crop,
            on_progress=lambda n, skipped: progress.show(
                f"{n} prefixes, {skipped} documents too short"
            ),
            on_clamped=lambda n, total: print(_clamped(cut, n, total), file=sys.stderr),
        )
    if empty:
        print(f"{len(empty)} documents without text left out", file=sys.stderr)
    print(folder)


def _clamped(cut: PrefixCut, clamped: int, entries: int) -> str:
    p = cut.prefix_tokens
    return (
        f"llmprobe: --location {cut.location}: {clamped} of {entries} documents end before token "
        f"{int(cut.location) + p}, so their prefix is their last {p} tokens"
    )


def _documents(
    corpus: Dataset, label: str | None, info: str | None, left_out: Callable[[str], object]
) -> Iterator[Document]:
    """What a map is cut from."""
    from pytest_llmprobe.experiments.memorization.prefix_map.files import Document

    named = {name: field for name, field in (("label", label), ("info", info)) if field is not None}
    for id, text, found in corpus.documents_with(list(named.values()), left_out):
        yield Document(id, text, **dict(zip(named, found, strict=True)))


@contextmanager
def _named(given: str) -> Iterator[None]:
    """Errors name the data as this command line does, and not as pytest's."""
    from pytest_llmprobe.data.sources import OPTION

    try:
        yield
    except LlmprobeError as error:
        words = str(error).replace(f"{OPTION} corpus={given}", f"--dataset {given}")
        raise type(error)(words) from None


def _canaries(options: argparse.Namespace) -> None:
    from pytest_llmprobe.data.safe_writing import check_place, write_atomically, writing
    from pytest_llmprobe.experiments.memorization.canaries import canaries

    if options.out is not None:
        check_place(options.out, "--out")
    lines = "".join(
        json.dumps(asdict(canary)) + "\n" for canary in canaries(options.count, options.seed)
    )
    if options.out is None:
        print(lines, end="")
        return
    with writing(options.out):
        write_atomically(options.out, lines)
