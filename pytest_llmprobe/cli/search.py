"""``llmprobe search``: which generation parameters let a model pass most cases of evaluations."""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from pytest_llmprobe.cli.arguments import positive
from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.suite import PROFILES


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command on the parser's subparsers."""
    parser = commands.add_parser("search", help="find generation parameters by evaluations")
    parser.description = (
        "Run evaluations under every configuration of a space, on one loaded model that computes "
        "each prompt once. The best one is compared with the evaluations' own on cases of another "
        "seed. The same command with the same --out goes on where it was."
    )
    space = "presets with commas between (small, greedy, top_p ...), or a JSON file of grids"
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="eval files and folders; -- and options of pytest")
    add("-k", metavar="EXPRESSION", help="choose evaluations by name, as pytest does")
    add("-m", metavar="EXPRESSION", help="choose evaluations by marker, as pytest does")
    add("--space", default="small", metavar="NAME,...|FILE", help=f"{space} (default: small)")
    add("--model", default="reference", metavar="M", help="which model (default: reference)")
    add("--profile", choices=PROFILES, default="ci", help="size of the grids (default: ci)")
    add("--limit", type=positive, metavar="N", help="at most N cases of each experiment")
    add("--seed", type=int, default=0, metavar="S", help="of the search cases (default: 0)")
    add("--held-out-seed", type=int, default=1, metavar="S", help="of the others (default: 1)")
    add("--out", type=Path, metavar="DIR", help="folder of the runs and the result")
    parser.set_defaults(run=_search, takes_pytest_options=True)


def _search(options: argparse.Namespace) -> None:
    from pytest_llmprobe.data.safe_writing import check_place
    from pytest_llmprobe.generation import GenerateConfig
    from pytest_llmprobe.plugin.nested_runs import EvalSearch
    from pytest_llmprobe.search.space import configuration, configurations

    if options.seed == options.held_out_seed:
        raise SettingsError(
            f"--held-out-seed {options.seed} is the search's own: nothing is held out"
        )
    folder = options.out or _folder(options.model)
    check_place(folder, "--out", folder=True)
    base = GenerateConfig()
    asked = [configuration({}, base), *configurations(_space(options.space), base)]
    arguments = [f"--llmprobe-model={options.model}", f"--llmprobe-profile={options.profile}"]
    arguments += [f"--llmprobe-limit={options.limit}"] if options.limit else []
    arguments += [
        part for flag in ("k", "m") if (text := vars(options)[flag]) for part in (f"-{flag}", text)
    ]
    given = [*arguments, *options.for_pytest, *options.paths]
    runs = EvalSearch(given, asked, folder, partial(print, file=sys.stderr, flush=True))
    found = runs.search(options.seed, options.held_out_seed)
    path = folder / "result.json"
    path.write_text(json.dumps(found.as_dict(), indent=1) + "\n", encoding="utf-8")
    print(found)
    print(f"result: {path}")


def _folder(model: str) -> Path:
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return Path(".llmprobe", "searches", f"{now}-{re.sub(r'[^A-Za-z0-9.-]+', '-', model)}")


def _space(given: str) -> list[Any]:
    """Presets by name, or the grids of a JSON file."""
    path = Path(given)
    if path.suffix != ".json":
        return list(given.split(","))
    try:
        space = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"--space {given} cannot be read: {error}") from None
    return space if isinstance(space, list) else [space]
