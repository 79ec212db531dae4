"""Variable tracking: which variables have a value, handed on from one to another?  Chance < 0.2.

After RULER, arXiv 2404.06654, task VT, with several chains.  Example: "... VAR KLMPQ = 48213. ...
VAR BCDFG = VAR KLMPQ. ... VAR WXZQR = 90017. ..."  Value: 48213 -> KLMPQ BCDFG

    pytest evals/haystack/test_variable_tracking.py --model=mistral -n 2
"""

from functools import partial
from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments.haystack import items, sizes, variables
from pytest_llmprobe.experiments.needle import form, listed
from pytest_llmprobe.statistics.tables import curve, effective_context, score_curve

pytestmark = pytest.mark.haystack

PROMPT = """In the text below, values are assigned to variables: directly, or from another \
variable, whose value it is then. Find all {count} variables that have the value asked for, \
directly or through others. Give {form}. Answer with the names only.

{text}

Value: {value}
Variables:"""

HOPS = {"smoke": (2,), "ci": (1, 4), "full": (1, 4)}  # RULER: 4
CHAINS = {"smoke": (2,), "ci": (2,), "full": (2, 4)}  # RULER: 1
TRIALS = {"smoke": 2, "ci": 2, "full": 5}


def variable_tracking(suite):
    trials = range(suite.trials or TRIALS[suite.profile])
    grid = product(sizes.RULER[suite.profile], HOPS[suite.profile], CHAINS[suite.profile], trials)
    for size, hops, chains, trial in grid:
        name = f"{size}-characters-{hops}-hops-{chains}-chains-{trial}"
        rng = suite.random("variable_tracking", name)
        made = variables.made_up_chains(chains, hops, rng)
        text = variables.scattered(made, size, rng)
        if not sizes.fits(suite, size, text, beside=600):
            continue
        prompt = question(suite, text, made[0])
        case = Case(
            id=name,
            prompt=prompt,
            chance=variables.read_task(prompt).chance,
            target="\n".join(made[0].names),
            metadata={
                "task": "variable_tracking",
                "size": size,
                "hops": hops,
                "chains": chains,
                "trial": trial,
            },
            max_new_tokens=suite.room(*made[0].sentences, *made[0].names),
        )
        yield suite.with_examples(case, partial(example, suite))


def question(suite, text, chain):
    return PROMPT.format(
        text=text, value=chain.value, count=len(chain.names), form=form(suite, "name")
    )


def example(suite, rng):
    made = variables.made_up_chains(2, 1, rng)
    text = variables.scattered(made, 200, rng)
    return question(suite, text, made[0]), listed(suite, made[0].names)


def summarise(records):
    return {
        "effective_context_characters": effective_context(records),
        "by_hops": curve(records, "hops"),
        "contains_by_hops": score_curve(records, "hops", "contains"),
    }


@pytest.mark.probe(cases=variable_tracking, summary=summarise)
def test_variable_tracking(case, completion, score):
    given = items.judge(completion, variables.read_task(case.prompt), score)
    assert not given.problem, given.problem
