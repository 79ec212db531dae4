"""Question answering: one or two of several documents hold the answer.  Chance 1/53.

After RULER, arXiv 2404.06654, task QA.  Example: "Document 1: ... Osmira founded Velmora. ...
Document 4: ... Osmira grew up in Lyon. ..."  In which city did the person grow up who founded
Velmora? -> Lyon

    pytest evals/haystack/test_question_answering.py --model=mistral -n 2 \
        [--llmprobe-dataset question_answering=rajpurkar/squad:plain_text:validation]

With data, rows in SQuAD's layout (question, context, answers), documents of other rows stand around
the golden one, and any of the row's answers is right.
"""

from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments.haystack import documents, sizes
from pytest_llmprobe.statistics.tables import curve, effective_context

pytestmark = pytest.mark.haystack

PROMPT = """Answer the question from the documents below. Give the answer alone, in a few words.

{text}

Question: {question}
Answer:"""

HOPS = (1, 2)
TRIALS = {"smoke": 1, "ci": 3, "full": 10}
ROWS = {"smoke": 4, "ci": 50, "full": 500}  # of data, for each size
DOCUMENT = 130  # characters of a made-up one, at least


def question_answering(suite):
    data = suite.dataset("question_answering")
    made = made_up(suite) if data is None else given(suite, data)
    for name, size, hops, trial, passage, others, rng in made:
        text = documents.gathered(passage.documents, others, size, rng)
        if text is None:
            suite.leave_out(passage.where, f"its document is longer than {size:,} characters")
        elif sizes.fits(suite, size, text, beside=600):
            case = Case(
                id=name,
                prompt=PROMPT.format(text=text, question=passage.question),
                target=passage.answers,
                chance=documents.CHANCE if data is None else None,
                metadata={
                    "task": "question_answering",
                    "size": size,
                    "trial": trial,
                    "hops": hops,
                    "row": passage.where,
                },
                max_new_tokens=suite.room(passage.question, *passage.answers[:1]),
            )
            yield suite.with_examples(case, example)


def made_up(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    for size, hops, trial in product(sizes.RULER[suite.profile], HOPS, trials):
        name = f"{size}-characters-{hops}-hops-{trial}"
        rng = suite.random("question_answering", name)
        passage, others = documents.made_up(hops, size // DOCUMENT, rng)
        yield name, size, hops, trial, passage, others, rng


def given(suite, data):
    passages = list(documents.passages(data.rows(), suite))
    contexts = list(dict.fromkeys(one.documents[0] for one in passages))
    for size in sizes.RULER[suite.profile]:
        for at, passage in enumerate(passages[: ROWS[suite.profile]]):
            name = f"{size}-characters-row-{at + 1}"
            rng = suite.random("question_answering", name)
            others = rng.sample(contexts, min(len(contexts), size // DOCUMENT))
            yield name, size, 1, 0, passage, others, rng


def example(rng):
    passage, others = documents.made_up(1, 1, rng)
    text = documents.gathered(passage.documents, others, 600, rng)
    return PROMPT.format(text=text, question=passage.question), passage.answers[0]


def summarise(records):
    found = {"effective_context_characters": effective_context(records)}
    return found | {"by_hops": curve(records, "hops")}


@pytest.mark.probe(cases=question_answering, summary=summarise)
def test_question_answering(case, completion, score):
    score("contains", documents.contains(case.target, completion.text))
    if case.metadata["row"] == "made up":
        problem = documents.why_missed(case.prompt, completion)
    else:
        problem = documents.why_not_said(case.target, completion)
    assert not problem, problem
