"""The notebooks in examples/ run from top to bottom.

They lie there without what they printed, but for those of a real model, which are run here on the
embedded one.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples").glob("*.ipynb"))


SMALL = 'MODEL, ROWS, TOKENS = "reference", 6, 8'
KEPT = 40_000
"""Characters of what a notebook of a real model keeps at most, its plot included."""


def read(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return cells, notebook["metadata"].get("outputs") == "kept"


REAL = [path for path in NOTEBOOKS if read(path)[1]]


def test_there_are_notebooks():
    assert len(REAL) == 2 < len(NOTEBOOKS)


# The two of a real model are alike: one of them is run.
@pytest.mark.parametrize("path", sorted({*NOTEBOOKS} - {*REAL[1:]}), ids=lambda path: path.stem)
def test_a_notebook_runs_in_a_fresh_process(path, tmp_path):
    cells, real = read(path)
    text = "\n\n".join("".join(cell["source"]) for cell in cells)
    if real:
        text, changed = re.subn(r"^MODEL, ROWS, TOKENS = .*$", SMALL, text, flags=re.MULTILINE)
        assert changed == 1
    program = tmp_path / "notebook.py"
    program.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "Agg"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_or_with_small_ones(path):
    cells, real = read(path)
    outputs = [output for cell in cells for output in cell["outputs"]]
    if not real:
        assert outputs == []
        assert {cell["execution_count"] for cell in cells} == {None}
        return
    compile("\n\n".join("".join(cell["source"]) for cell in cells), path.name, "exec")
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in output.get("data", ()) for output in outputs)
    assert "tried" in json.dumps(outputs)
    assert len(json.dumps(outputs)) < KEPT
