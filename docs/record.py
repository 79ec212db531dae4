"""Run the commands of a page of the documentation and write what they print into it.

    python docs/record.py [PAGE ...]
    python docs/record.py examples/*.ipynb    # pip install nbclient ipykernel

Each ```sh block runs in a folder that all blocks of the page share and that is empty at first. The
```text block that follows it, where there is one, gets what it printed. Default: PAGES.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGES = ("when-it-got-worse.md",)
BLOCK = re.compile(r"```sh\n(.*?)```(\n\n```text\n.*?```)?", re.DOTALL)
COLUMNS = 100


def record(page: str, run: Callable[[str], str]) -> str:
    """The page with new outputs.

    Args:
        page: Its text.
        run: Runs commands and returns what they print.
    """

    def recorded(block: re.Match[str]) -> str:
        printed = run(block[1])
        shown = f"```sh\n{block[1]}```"
        return f"{shown}\n\n```text\n{printed.strip()}\n```" if block[2] else shown

    return BLOCK.sub(recorded, page)


def run_in(folder: Path) -> Callable[[str], str]:
    """Run commands with a shell in a folder; its path is not in what is printed."""
    scripts = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = os.environ | {"PATH": scripts, "COLUMNS": str(COLUMNS)}

    def run(commands: str) -> str:
        done = subprocess.run(
            ["bash", "-c", commands],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,  # a gate that fails is what is to be seen
        )
        return done.stdout.replace(f"{folder}/", "")

    return run


def record_notebook(path: Path) -> None:
    """Run a notebook's cells and keep what they show, but not when or on which machine."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    metadata = dict(notebook.metadata)
    os.environ["PYTHONWARNINGS"] = "ignore"  # they name files of this machine
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=None, record_timing=False, resources=where).execute()
    notebook.metadata = nbformat.from_dict(metadata)
    nbformat.write(notebook, path)


def main(names: Sequence[str]) -> None:
    """Record these pages."""
    for path in [Path(name) for name in names] or [DOCS / name for name in PAGES]:
        if path.suffix == ".ipynb":
            record_notebook(path)
        else:
            with tempfile.TemporaryDirectory() as folder:
                page = record(path.read_text(encoding="utf-8"), run_in(Path(folder).resolve()))
            path.write_text(page, encoding="utf-8")
        print(f"{path}: written")


if __name__ == "__main__":
    main(sys.argv[1:])
