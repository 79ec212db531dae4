"""Instructions whose keeping a program can verify.

After IFEval, arXiv 2311.07911.  Example: "Describe a sunset by the sea. Do not use any commas."

    pytest evals/standard -k instructions --model=mistral \
        --llmprobe-dataset instructions=google/IFEval

A case passes if the answer follows all instructions of its prompt as it is (strict); loose, which
forgives a first or last line and markdown, is in the scores, and the rates of single instructions
in the summary.  24 of IFEval's 25 kinds are checked; rows with the other one, the language of the
answer, are left out.
"""

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments.standard import own_rows
from pytest_llmprobe.experiments.standard.instructions import Task, summary, tasks, verdict

pytestmark = pytest.mark.standard

OWN = {"smoke": 2, "ci": 8, "full": 24}
ROOM, OWN_ROOM = 1280, 96  # tokens; lm-evaluation-harness gives 1,280


def instructions(suite):
    data = suite.dataset("instructions")
    rows = list(own_rows.instruction_rows())[: OWN[suite.profile]] if data is None else data.rows()
    for number, task in enumerate(tasks(rows, suite)):
        yield Case(
            f"row-{number + 1}",
            task.prompt,
            metadata={"row": task.where, "instructions": task.as_json()},
            max_new_tokens=OWN_ROOM if data is None else ROOM,
        )


@pytest.mark.probe(cases=instructions, summary=summary)
def test_instructions(case, completion, score):
    found = verdict(Task.of(case.metadata["instructions"]), completion.text)
    for name, value in found.scores.items():
        score(name, value)
    assert not found.problem, found.problem
