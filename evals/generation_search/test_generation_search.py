"""Generation search: does any way of decoding serve this model better than the default, greedy?

Follows llmsearch.  On a needle task (the value of one key among 10 UUID pairs) all configurations
of a space are tried on half of the haystacks.  The best one and the default answer the other half;
the case passes unless the best is significantly worse there (95 % interval of the paired
difference).  The report has the table of configurations and says whether any is better.

    pytest evals/generation_search --model=mistral
"""

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.search import search_summary

pytestmark = pytest.mark.generation_search

PROMPT = """Extract the value corresponding to the specified key in the JSON object below. \
Answer with the value only.

{haystack}

Key: "{key}"
Corresponding value:"""

HAYSTACKS = {"smoke": 2, "ci": 20, "full": 100}
SPACE = {
    "smoke": [{"temperature": [0.7, 1.5]}],
    "ci": "small",
    "full": ["small", "greedy", "top_k", "typical_p", "tail_free", "top_a"],
}


def needles(suite):
    for trial in range(suite.trials or HAYSTACKS[suite.profile]):
        pairs = needle.random_pairs(10, suite.random("generation_search", trial))
        for key, value in pairs[1::4]:
            prompt = PROMPT.format(haystack=needle.render(pairs), key=key)
            room = suite.answer_room.of(needle.room(suite, [value], [key]))
            case = Case(f"haystack-{trial}/{key}", prompt, value, max_new_tokens=room)
            yield suite.with_examples(case, example)


def example(rng):
    pairs = needle.random_pairs(needle.EXAMPLE, rng)
    key, value = rng.choice(pairs)
    return PROMPT.format(haystack=needle.render(pairs), key=key), value


def right_value(rows, answers):
    asked = ((row["prompt"], [row["target"]]) for row in rows)
    return [needle.is_right(answer, *one) for answer, one in zip(answers, asked, strict=True)]


@pytest.mark.probe(summary=search_summary)
@pytest.mark.gate(judge=False)  # one case
def test_generation_search(search, suite):
    cases, space = list(needles(suite)), SPACE[suite.profile]
    room = max(case.max_new_tokens for case in cases)
    found = search(cases, right_value, space=space, max_new_tokens=room, stop=cases[0].stop)
    assert not found.is_worse, found.verdict
