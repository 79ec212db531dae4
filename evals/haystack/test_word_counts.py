"""Common and frequent words: which ones occur most often in a long list?  Chance 1 / C(words, n).

After RULER, arXiv 2404.06654, tasks CWE and FWE.  Examples: "1. lantern 2. coin 3. lantern ..."
The 3 most common words: -> lantern ...; "... bcdfgh ... ... klmpqr bcdfgh ..." with dots as noise.

    pytest evals/haystack/test_word_counts.py --model=mistral -n 2
"""

from functools import partial
from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.experiments.haystack import items, sizes, word_counts
from pytest_llmprobe.experiments.needle import form, listed
from pytest_llmprobe.statistics.tables import effective_context, score_curve

pytestmark = pytest.mark.haystack

COMMON = """Below is a numbered list of words. Some of them occur more often than all others: find \
the {n} most common ones. Give {form}. Answer with the words only.

{text}

The {n} most common words:"""

FREQUENT = """Below is a coded text. Ignore the dots, and find the {n} words that occur most \
often. Give {form}. Answer with the words only.

{text}

The {n} most frequent words:"""

COMMON_WANTED = {"smoke": 3, "ci": 3, "full": 10}  # RULER: 10
FREQUENT_WANTED = 3
ALPHA = {"smoke": (2.0,), "ci": (2.0,), "full": (2.0, 3.5)}  # RULER: 2.0
TRIALS = {"smoke": 2, "ci": 2, "full": 5}


def common_words(suite):
    wanted = COMMON_WANTED[suite.profile]
    build = partial(word_counts.common_words, wanted=wanted)
    yield from counted(suite, "common_words", common, build)


def frequent_words(suite):
    for alpha in ALPHA[suite.profile]:
        build = partial(word_counts.frequent_words, wanted=FREQUENT_WANTED, alpha=alpha)
        yield from counted(suite, "frequent_words", frequent, build, alpha=alpha)


def counted(suite, task, ask, build, **metadata):
    trials = range(suite.trials or TRIALS[suite.profile])
    for size, trial in product(sizes.RULER[suite.profile], trials):
        name = "-".join([f"{size}-characters", *(f"{k}-{v}" for k, v in metadata.items())])
        rng = suite.random(task, name, trial)
        prompt = ask(suite, build(size, rng=rng))
        if not sizes.fits(suite, size, prompt, beside=600):
            continue
        asked = word_counts.read_task(prompt)
        case = Case(
            id=f"{name}-{trial}",
            prompt=prompt,
            target="\n".join(asked.required),
            chance=asked.chance,
            metadata={"task": task, "size": size, "trial": trial, **metadata},
            max_new_tokens=suite.room(*asked.required, *asked.required),
        )
        yield suite.with_examples(case, partial(example, suite, ask, build))


def common(suite, words):
    n = COMMON_WANTED[suite.profile]
    text = word_counts.numbered(words)
    return COMMON.format(n=n, form=form(suite, "word"), text=text)


def frequent(suite, words):
    n = FREQUENT_WANTED
    return FREQUENT.format(n=n, form=form(suite, "word"), text=" ".join(words))


def example(suite, ask, build, rng):
    prompt = ask(suite, build(min(sizes.RULER[suite.profile]), rng=rng))
    return prompt, listed(suite, word_counts.read_task(prompt).required)


def summarise(records):
    return {
        "effective_context_characters": effective_context(records),
        "contains_by_size": score_curve(records, "size", "contains"),
    }


@pytest.mark.probe(cases=common_words, summary=summarise)
def test_common_words(case, completion, score):
    given = items.judge(completion, word_counts.read_task(case.prompt), score)
    assert not given.problem, given.problem


@pytest.mark.probe(cases=frequent_words, summary=summarise)
def test_frequent_words(case, completion, score):
    given = items.judge(completion, word_counts.read_task(case.prompt), score)
    assert not given.problem, given.problem
