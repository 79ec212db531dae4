"""Attention steering, 3 of 3: a needle in prose.  Chance 1e-7 to 1/50.

After the GUIDE paper, arXiv 2409.19001, experiment 2: Delta on the needle's own sentence, as in the
paper's code (that one knows the answer's place, so it is called the oracle), or on the question.
Other needles of the same shape stand in the text, except in the full profile.  The summary is that
of test_steered_french.py, once for each span, with the mean Influence and rollout of the unsteered
cases by depth and length.

    pytest evals/steering -k needle --model=mistral -n 2
"""

from functools import partial
from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments.haystack import text_needle
from pytest_llmprobe.experiments.steering.summary import steering_summary
from pytest_llmprobe.statistics.tables import score_heat_map

pytestmark = [pytest.mark.steering, pytest.mark.whitebox]

PROMPT = (
    "Read the text below and answer the question with the value alone.\n\n"
    "{text}\n\nQuestion: {question}\nAnswer:"
)

SWEEP = (-1, 0, 0.5, 1, 2, 4)  # paper: 0.25, 0.5, 1
DELTAS = {"smoke": (-1, 0, 1), "ci": (-1, 0, 1, 4), "full": SWEEP}
SIZES = {"smoke": (500,), "ci": (500, 1_500), "full": range(2_000, 18_001, 2_000)}  # characters
DEPTHS = {"smoke": (50,), "ci": (0, 50, 100), "full": range(0, 101, 10)}  # per cent
DECOYS = {"smoke": 4, "ci": 4, "full": 0}
TRIALS = {"smoke": 2, "ci": 3, "full": 5}
LAST = 5  # tokens of the prompt at whose end the predictors are taken


def steered_needles(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    for size, depth, trial in product(SIZES[suite.profile], DEPTHS[suite.profile], trials):
        rng = suite.random("steered_needle", size, depth, trial)
        text, fact = text_needle.generated(size, rng), text_needle.made_up_fact(rng)
        for decoy in text_needle.decoys(fact, DECOYS[suite.profile], rng):
            text, _ = text_needle.insert(text, decoy.sentence, rng.uniform(0, 100))
        text, _ = text_needle.insert(text, fact.sentence, depth)
        for span, steered in (("oracle", fact.sentence), ("question", fact.question)):
            yield Case(
                id=f"{size}-characters-{depth}-{trial}/{span}",
                prompt=PROMPT.format(text=text, question=fact.question),
                target=fact.value,
                spans=steered,
                chance=text_needle.CHANCE[fact.kind],
                max_new_tokens=suite.room(fact.sentence),
                metadata={
                    "task": "steered_needle",
                    "size": size,
                    "trial": trial,
                    "depth": depth,
                    "span": span,
                },
            )


def summarise(records):
    found = {}
    for span in sorted({record.params["span"] for record in records}):
        members = [record for record in records if record.params["span"] == span]
        sweep = steering_summary(members)
        del sweep["unsteered_by_style"]  # the baselines shout instructions, and a needle is none
        where = partial(score_heat_map, members, "depth", "size")
        sweep["influence_by_depth_and_length"] = where("influence")
        sweep["rollout_by_depth_and_length"] = where("rollout")
        found |= {f"{span}: {key}": value for key, value in sweep.items()}
    return found


@pytest.mark.probe(cases=steered_needles, summary=summarise, delta=DELTAS)
def test_steered_needle(case, predictors, completion, score):
    if case.metadata.get("delta") == 0:
        for name, value in predictors(case.prompt, case.spans[0], last=LAST).items():
            score(name, value)
    problem = text_needle.why_missed(case, completion)
    assert not problem, problem
