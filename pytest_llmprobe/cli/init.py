"""``llmprobe init``: evaluations, bars and a CI job in one's own repository."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import pytest_llmprobe
from pytest_llmprobe.cli.reports import print_line
from pytest_llmprobe.data.safe_writing import check_place
from pytest_llmprobe.errors import SettingsError

TEMPLATES = Path(__file__).with_name("new_project")
CI_JOBS = {"github": Path(".github/workflows/llmprobe.yml"), "gitlab": Path("llmprobe.gitlab.yml")}
CONFIGURATION = Path("llmprobe.toml")
IGNORED = (".llmprobe/*", "!.llmprobe/baselines/")  # runs are large, baselines are committed
TOP = "evals"


def evals_folder() -> Path:
    """Where the evaluations are: in an installed package, or beside it in a working copy."""
    package = Path(pytest_llmprobe.__file__).parent
    for folder in (package / TOP, package.parent / TOP):
        if folder.is_dir():
            return folder
    raise SettingsError(f"there are no evaluations in {package}: install the package again")


def families() -> list[str]:
    """The folders of the evaluations, in order."""
    return sorted({path.parent.name for path in evals_folder().glob("*/test_*.py")})


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command on the parser's subparsers."""
    parser = commands.add_parser("init", help="copy evaluations and a CI job into a repository")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "llmprobe init\n"
        "llmprobe init my-repository --family needle,json_format --ci gitlab\n\n"
        f"Copies evaluations to {TOP}/, writes {CONFIGURATION}, a CI job and .gitignore. What is\n"
        "there already stays as it is."
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="default: here")
    parser.add_argument(
        "--family",
        action="append",
        metavar="NAME,...",
        help="folders of the evaluations, such as needle; may be given again (default: all)",
    )
    parser.add_argument("--ci", choices=(*CI_JOBS, "none"), default="github")
    parser.set_defaults(run=_init)


def _init(options: argparse.Namespace) -> None:
    folder: Path = options.folder
    chosen = _chosen(options.family)
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file: name a folder")
    check_place(folder, "the folder", folder=True)
    for source, target in _files(chosen, folder, options.ci):
        _write(source.read_bytes(), target)
    _write(configuration(chosen).encode(), folder / CONFIGURATION)
    _ignore_runs(folder / ".gitignore")
    print_line("next:")
    if folder != Path():
        print_line(f"  cd {folder}")
    print_line(f"  pytest {TOP} --model=reference --llmprobe-profile=smoke -n 2")


def _chosen(given: Sequence[str] | None) -> list[str]:
    known = families()
    names = [name for text in given or () for name in re.split(r"[,\s]+", text.strip()) if name]
    if given is not None and not names:
        raise SettingsError(f"--family names none: choose from {', '.join(known)}")
    for name in names:
        if name not in known:
            raise SettingsError(f"--family {name} is not known: choose from {', '.join(known)}")
    return sorted(set(names)) or known


def _files(chosen: Sequence[str], folder: Path, ci: str) -> list[tuple[Path, Path]]:
    """What is copied, and where to."""
    evals = evals_folder()
    files = [
        (source, folder / TOP / source.relative_to(evals))
        for name in chosen
        for source in sorted((evals / name).rglob("*"))
        if source.is_file() and "__pycache__" not in source.parts
    ]
    if ci != "none":
        files.append((TEMPLATES / f"{ci}.yml", folder / CI_JOBS[ci]))
    return files


def configuration(chosen: Sequence[str]) -> str:
    """The template, without bars of experiments that are not copied: a run would refuse them."""
    texts = [
        path.read_text(encoding="utf-8")
        for name in chosen
        for path in (evals_folder() / name).glob("test_*.py")
    ]
    experiments = {name for text in texts for name in re.findall(r"^def test_(\w+)", text, re.M)}
    template = (TEMPLATES / CONFIGURATION).read_text(encoding="utf-8")
    bar = re.compile(r"(\w+) = (?:\{ pass_rate|false)")
    return "".join(
        line
        for line in template.splitlines(keepends=True)
        if not (found := bar.match(line)) or found[1] in experiments
    )


def _write(content: bytes, target: Path) -> None:
    if target.exists() or target.is_symlink():
        print_line(f"{target}: is there and stays")
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    except OSError as error:
        raise SettingsError(f"{target} cannot be written: {error.strerror}") from None
    print_line(f"{target}: written")


def _ignore_runs(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    missing = [line for line in IGNORED if line not in lines]
    if ".llmprobe/" in lines or not missing:
        print_line(f"{path}: is there and stays")
        return
    with path.open("a", encoding="utf-8") as file:
        start = "\n" if lines and path.read_bytes()[-1:] != b"\n" else ""
        file.write(start + "\n".join(missing) + "\n")
    print_line(f"{path}: {', '.join(missing)}")
