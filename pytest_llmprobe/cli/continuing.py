"""``llmprobe continue`` and ``similar``: what a model goes on with, and how much of it is known.

Models and arrays are imported when a command runs: listing commands must stay quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_llmprobe.cli.arguments import positive
from pytest_llmprobe.cli.progress import Progress
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.models.settings import project_models

if TYPE_CHECKING:
    from pytest_llmprobe.experiments.memorization.continuations import Generate
    from pytest_llmprobe.experiments.memorization.prefix_map.files import PrefixMap
    from pytest_llmprobe.experiments.memorization.prefix_prompts import PrefixPrompts
    from pytest_llmprobe.models.registry import ModelSpec

    Asked: TypeAlias = tuple[Generate, PrefixPrompts, Mapping[str, str]]
    """What generates, how it is asked, and what tells it from others."""

DEFAULT = ""
"""Of --message: the message of ours."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands on the parser's subparsers."""
    _add_continue(commands.add_parser("continue", help="have a model go on from a prefix map"))
    _add_similar(commands.add_parser("similar", help="show the continuations nearest to the truth"))


def _add_continue(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a JSON line for each string: what the model said, what is true, scores. The same "
        "command goes on with a file that is not complete."
    )
    strings = "how many; after the last prefix comes the first again (default: one for each)"
    message = (
        "ask in a chat message, in which {prefix} stands for the prefix (without TEXT: one of "
        "ours; always with Anthropic's protocol)"
    )
    add = parser.add_argument
    add("--prefix-map", type=Path, required=True, metavar="DIR", help="what `prefixes` printed")
    add("--model", default="reference", metavar="M", help="which model (default: reference)")
    add("--base-url", metavar="URL", help="where the server of an openai: model is")
    add("--message", nargs="?", const=DEFAULT, metavar="TEXT", help=message)
    add("--num-strings", type=int, metavar="N", help=strings)
    add("--batch-size", type=int, default=10, metavar="B", help="generated together (default: 10)")
    add("--max-length", type=int, default=20, metavar="L", help="new tokens (default: 20)")
    add("--temperature", type=float, default=0.0, metavar="T", help="0 (default): greedy")
    add("--top-k", type=int, default=0, metavar="K", help="0 (default): off")
    add("--top-p", type=float, default=1.0, metavar="P", help="1 (default): off")
    add("--seed", type=int, default=0, metavar="S", help="of sampling (default: 0)")
    add("--out", type=Path, required=True, metavar="FILE", help="JSON lines")
    parser.set_defaults(run=_continue)


def _add_similar(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print the continuations that are most like what is true, by each measure."
    add = parser.add_argument
    add("strings", type=Path, metavar="FILE", help="what `continue` wrote")
    measures = "such as cosine or levenshtein; several times for several (default: all)"
    add("--measure", action="append", metavar="NAME", help=measures)
    add("--top", type=positive, default=10, metavar="N", help="how many of each (default: 10)")
    add("--out", type=Path, metavar="FILE", help="JSON lines instead, to this file")
    parser.set_defaults(run=_similar)


def _continue(options: argparse.Namespace) -> None:
    from pytest_llmprobe.data.safe_writing import check_place
    from pytest_llmprobe.experiments.memorization import continuations
    from pytest_llmprobe.experiments.memorization.prefix_map.files import load_prefix_map
    from pytest_llmprobe.experiments.memorization.prefix_prompts import check_message
    from pytest_llmprobe.models.registry import resolve, with_options

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
    check_place(options.out, "--out")
    if options.message not in (None, DEFAULT):
        check_message(options.message)
    spec = with_options(resolve(options.model, project_models()), base_url=options.base_url)
    if spec.protocol is None:
        _check_room(spec, entries, options.max_length)
    ask = _ask_here if spec.protocol is None else _ask_server
    if prompting.num_strings > len(entries) and prompting.temperature == 0:
        print(f"llmprobe: {len(entries)} prefixes: {continuations.REPEATED}", file=sys.stderr)
    with ask(spec, entries, options) as (generate, prompts, about), Progress() as progress:
        continuations.write_continuations(
            entries,
            generate,
            prompting,
            options.out,
            prompts=prompts,
            about={"model": options.model, **about},
            on_progress=lambda done, total: progress.show(f"{done} of {total} strings"),
        )
    print(_summary(options.out))


def _check_room(spec: ModelSpec, entries: PrefixMap, max_length: int) -> None:
    """Refuse answers for which no prefix leaves room, as the model's config tells.

    Raises:
        SettingsError: Says how much there is.
    """
    from pytest_llmprobe.models.token_counter import TokenCounter

    try:
        context = TokenCounter(spec).context_length
    except CasesError:  # loading says why
        return
    prefix = entries.prefix_ids.shape[1]
    if context is not None and prefix + max_length > context:
        raise SettingsError(
            f"--max-length {max_length}: the model's context is {context} tokens, and a prefix has "
            f"{prefix}: {max(context - prefix, 0)} are left"
        )


@contextmanager
def _ask_here(spec: ModelSpec, entries: PrefixMap, options: argparse.Namespace) -> Iterator[Asked]:
    """A model in this process."""
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.experiments.memorization.prefix_map.files import load_prefix_map
    from pytest_llmprobe.experiments.memorization.prefix_prompts import TextPrompts, TokenPrompts
    from pytest_llmprobe.models.loading import load_spec
    from pytest_llmprobe.models.text_tokenizer import text_tokenizer
    from pytest_llmprobe.report.cores import cpu_threads

    message = _message(options.message)
    loaded = load_spec(spec, threads=cpu_threads())
    tokenizer = text_tokenizer(loaded.tokenizer)
    load_prefix_map(entries.folder, tokenizer.hash)  # refuses a map of other tokens
    engine = Engine(loaded, batch_size=options.batch_size)
    prompts: PrefixPrompts = TokenPrompts.of(tokenizer)
    if message is not None:
        prompts = TextPrompts(tokenizer, message)
    about = {name: loaded.info[name] for name in ("fingerprint", "dtype")}
    yield engine.generate, prompts, about


@contextmanager
def _ask_server(
    spec: ModelSpec, entries: PrefixMap, options: argparse.Namespace
) -> Iterator[Asked]:
    """A model behind a server; its texts are cut into the tokens of the map."""
    from pytest_llmprobe.engine.endpoints.address import check_endpoint
    from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
    from pytest_llmprobe.engine.endpoints.connection import connect
    from pytest_llmprobe.engine.endpoints.engine import EndpointEngine
    from pytest_llmprobe.engine.endpoints.options import TIMEOUT_S
    from pytest_llmprobe.engine.endpoints.reach import check_server
    from pytest_llmprobe.experiments.memorization.prefix_map.files import load_prefix_map
    from pytest_llmprobe.experiments.memorization.prefix_prompts import TextPrompts
    from pytest_llmprobe.models.loading import load_tokenizer
    from pytest_llmprobe.models.registry import resolve
    from pytest_llmprobe.models.text_tokenizer import text_tokenizer

    check_endpoint(spec)
    check_server(spec)
    chats_only = spec.protocol == "anthropic" and options.message is None
    made_with = resolve(entries.metadata["tokenizer"], project_models())
    tokenizer = text_tokenizer(load_tokenizer(made_with))
    load_prefix_map(entries.folder, tokenizer.hash)
    prompts = TextPrompts(tokenizer, _message(DEFAULT if chats_only else options.message))
    connection = connect(spec, TIMEOUT_S)
    backend = EndpointBackend(connection)
    try:
        engine = EndpointEngine(backend, batch_size=options.batch_size)
        yield engine.generate, prompts, {"base_url": connection.url}
    finally:
        backend.close()


def _message(given: str | None) -> str | None:
    from pytest_llmprobe.experiments.memorization.prefix_prompts import MESSAGE

    return MESSAGE if given == DEFAULT else given


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


def _similar(options: argparse.Namespace) -> None:
    from pytest_llmprobe.data.safe_writing import check_place, write_atomically, writing
    from pytest_llmprobe.experiments.memorization.continuations import read_continuations
    from pytest_llmprobe.experiments.memorization.most_similar import MEASURES, most_similar

    if options.out is not None and options.out.resolve() == options.strings.resolve():
        raise SettingsError(f"--out {options.out} is the file that is read: give another one")
    if options.out is not None:
        check_place(options.out, "--out")
    found = most_similar(
        read_continuations(options.strings), options.measure or list(MEASURES), options.top
    )
    if options.out is None:
        print("\n\n".join(map(_shown, found)))
        return
    with writing(options.out):
        write_atomically(options.out, "".join(json.dumps(pair) + "\n" for pair in found))


def _shown(pair: Mapping[str, Any]) -> str:
    """One pair for a terminal."""
    from pytest_llmprobe.report.terminal import printable

    named = ", ".join(str(pair[name]) for name in ("document", "label", "info") if pair[name])
    lines = {"prefix": pair["prefix"], "true": pair["suffix_text"], "said": pair["generated_text"]}
    head = (
        f"{pair['measure']} {pair['rank']}: {pair['value']:.4g} (string {pair['index']}, {named})"
    )
    return "\n".join(
        [
            printable(head),
            *(f"  {name:<6}  {printable(text or '')}" for name, text in lines.items()),
        ]
    )
