"""The notebooks in examples/ run from top to bottom, on public names, and show what they print."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def cells(request):
    """The code cells of one notebook."""
    notebook = json.loads(request.param.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


FEWER = re.compile(r'^MODEL, N_ROWS = "smollm2", (\d+)$', re.MULTILINE)
"""What a notebook on SmolLM2 begins with: minutes of work, and the model is not everywhere."""


def source(cells):
    """The program of these cells, without what only Jupyter understands, on few rows."""
    text = "\n\n".join("".join(cell["source"]) for cell in cells)
    text = FEWER.sub('MODEL, N_ROWS = "reference", 4', text)
    assert "smollm2" not in text
    return re.sub(r"^%.*\n", "", text, flags=re.MULTILINE)


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_a_notebook_runs_in_a_fresh_process(cells, tmp_path):
    program = tmp_path / "notebook.py"
    program.write_text(source(cells), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_notebook_takes_public_names_only(cells):
    taken = [
        node for node in ast.walk(ast.parse(source(cells))) if isinstance(node, ast.ImportFrom)
    ]
    own = [node for node in taken if node.module.partition(".")[0] == "pytest_llmprobe"]
    assert own
    for node in own:
        public = getattr(importlib.import_module(node.module), "__all__", ())
        assert {alias.name for alias in node.names} <= set(public), node.module


def test_a_notebook_of_a_real_model_shows_the_rows_that_it_says(cells):
    whole = "".join(cells[0]["source"])
    shown = json.dumps([cell["outputs"] for cell in cells])
    for rows in FEWER.findall(whole):
        assert f"greedy decoding, all {rows} rows" in shown
        assert f"score on {int(rows) // 2} search rows" in shown
        assert "image/png" in shown


def test_a_notebook_is_kept_with_the_outputs_of_one_run(cells):
    """`python docs/record.py examples/*.ipynb` writes them."""
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    assert len(json.dumps(outputs)) < 150_000
    shown = [output.get("text") or output["data"]["text/plain"] for output in outputs]
    assert not re.search(r"(?<![\w/])/\w+/\w|[A-Z]:\\|Warning", "".join(map("".join, shown)))
