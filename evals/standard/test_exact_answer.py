"""A problem with one number as its answer.  Chance 0.

After GSM8K, arXiv 2110.14168.  Example: "Ida has 5 coins. Tom brings 2 bags with 3 coins each. How
many coins do they have together?" -> "2 * 3 = 6, and 5 + 6 = 11.\n#### 11"

    pytest evals/standard -k exact --model=mistral --llmprobe-dataset exact_answer=gsm8k.jsonl \
        --llmprobe-few-shot 5

A case passes if the answer comes to the right number, read as people write numbers; the scores
strict_match (what follows ####) and flexible_extract (the last number) are those of
lm-evaluation-harness.  With --llmprobe-few-shot N the model continues a text of N solved examples,
as there; without, a chat model is told in a message how to write the result.  Several answers to
each problem, --llmprobe-trials 8 --llmprobe-generate temperature=0.7, give pass@k and the majority.
"""

import pytest

from pytest_llmprobe.experiments.standard import exact, own_rows
from pytest_llmprobe.experiments.standard.trials import over_trials
from pytest_llmprobe.search.numbers import last_number

pytestmark = pytest.mark.standard

OWN = {"smoke": 2, "ci": 8, "full": 30}
ROOM, OWN_ROOM = 512, 96  # tokens


def exact_answers(suite):
    data = suite.dataset("exact_answer")
    rows = own_rows.word_problems(OWN[suite.profile]) if data is None else data.rows()
    found = list(exact.problems(rows, last_number))
    room = OWN_ROOM if data is None else ROOM
    return exact.exact_cases(suite, found, "exact_answer", data or "our own rows", room)


def summarise(records):
    return over_trials(records, lambda record: last_number(record.received or ""))


@pytest.mark.probe(cases=exact_answers, summary=summarise)
def test_exact_answer(case, completion, score):
    score("strict_match", exact.strict_match(completion.text, case.target))
    score("flexible_extract", exact.flexible_extract(completion.text, case.target))
    problem = exact.why_missed(completion.text, case.target, last_number)
    assert not problem, problem
