"""What docs/standard-tasks.md shows runs as it says."""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "standard-tasks.md"


def test_mmlu_in_twelve_lines(project, pytester):
    text = DOCS.read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    project(snippet, "return ' B'")
    rows = [{"question": "?", "choices": list("wxyz"), "answer": n % 2} for n in range(4)]
    (pytester.path / "mmlu.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(["*mmlu * 4 *0.500*PASS*"])


def test_its_table_has_the_data_that_the_evaluations_take(pytester):
    listed = set(re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE))
    evals = DOCS.parents[1] / "evals" / "standard"
    source = "".join(path.read_text() for path in evals.glob("test_*.py"))
    taken = set(re.findall(r'(?:suite\.dataset|cases)\("(\w+)"', source))
    assert listed == taken
