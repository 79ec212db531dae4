r"""Attention steering, 1 of 3: summaries in French.  Chance 0.

After the GUIDE paper, arXiv 2409.19001: Delta is added to the attention scores of the instruction,
in all layers, which multiplies its odds by e^Delta; a negative Delta suppresses it.  The summary
has the pass rate over Delta and length, each Delta against 0 on the same cases, and how well
Influence, attention rollout, raw attention and 1/length of the unsteered cases tell which of them
pass.

    pytest evals/steering --model=mistral -n 2

The published set-up, on texts of which 200 are drawn as in the paper's code:

    pytest evals/steering -k french --model=mistral-v0.1 --llmprobe-quantization=nf4 \
        --llmprobe-delta 0,0.5,1,2,5 --llmprobe-profile=full --llmprobe-trials=10 \
        --llmprobe-dataset french_summary=stas/openwebtext-10k

--llmprobe-layers=all/first/0-3/13-16/28-31 compares its sets of layers. --llmprobe-judge=MODEL
also says how often a judge prefers the steered answer to the unsteered one, where both are French.

Delta is on the whole instruction, as in the paper.  On the word "French" alone it is a task of its
own, steered_french_word: in the shorter texts of ci and in all stories of full.  It is the control
on the reference model, which looks for that word and hardly notices the rest of the instruction.
"""

from itertools import product

import pytest

from pytest_llmprobe import Case, Span
from pytest_llmprobe.experiments.french_summary.stories import capitals, important
from pytest_llmprobe.experiments.french_summary.texts import (
    EMBEDDED,
    bert_score_with,
    summary_texts,
)
from pytest_llmprobe.experiments.french_summary.verdict import why_not_french
from pytest_llmprobe.experiments.steering.summary import (
    by_layers,
    steering_summary,
    win_rates,
)
from pytest_llmprobe.statistics.tables import score_curve

pytestmark = [pytest.mark.steering, pytest.mark.whitebox]

SWEEP = (-12, -5, 0, 1, 2, 5)  # paper: 0.5, 1, 2, 5
DELTAS = {"smoke": (-12, 0, 2), "ci": (-12, 0, 2), "full": SWEEP}
SIZES = {"smoke": (500,), "ci": (500, 1_000), "full": range(500, 5_001, 500)}  # tokens
WORD = {"smoke": (), "ci": (1_000,), "full": range(500, 5_001, 500)}  # sizes with that span too
STYLED = {"smoke": (500,), "ci": (500,), "full": range(500, 5_001, 500)}  # with baselines
TEXTS = {"smoke": 2, "ci": 8, "full": 20}  # of each length bin
GENERATIONS = {"smoke": 1, "ci": 1, "full": 10}  # sampled answers to each prompt
BASELINES = {"capitals": capitals, "important": important}  # unsteered
LAST = 10  # tokens of the prompt at whose end the predictors are taken
ANSWER = {"smoke": 100, "ci": 200, "full": 200}  # tokens
NO_JUDGE = (
    "not measured: no judge told a French answer from that at Delta 0 (--llmprobe-judge MODEL "
    "names one; of a small one no verdict may be readable)"
)


def steered_summaries(suite):
    profile = suite.profile
    generations = range(suite.trials or GENERATIONS[profile])
    for text in summary_texts(suite, SIZES[profile], TEXTS[profile], ANSWER[profile]):
        phrasings = range(3) if profile == "full" else [text.number % 3]
        word_too = text.source == EMBEDDED and text.size in WORD[profile]
        spans = ("instruction", "word") if word_too else ("instruction",)
        for phrasing, generation in product(phrasings, generations):
            instruction = text.instructions[phrasing]
            word = "French" if "French" in instruction else "french"
            for span in spans:
                steered = Span(instruction if span == "instruction" else word, occurrence=0)
                yield case(text, instruction, "plain", phrasing, generation, span, steered)
            for style, change in BASELINES.items() if text.size in STYLED[profile] else ():
                yield case(text, change(instruction), style, phrasing, generation)


def case(text, instruction, style, phrasing, generation, span=None, *spans):
    name = f"{style}-{phrasing}-{generation}" + (f"-{span}" if span else "")
    return Case(
        id=f"text-{text.size}-{text.number}/{name}",
        prompt=text.prompt(instruction),
        target=text.reference,
        spans=spans,
        chance=0.0,
        metadata={
            "task": "steered_french_word" if span == "word" else "steered_french",
            "size": text.size,
            "trial": generation,
            "phrasing": phrasing,
            "style": style,
            "span": span,
            "bert_score": bert_score_with(text.reference),
            "source": text.source,
        },
    )


def summarise(records):
    spans = {"": ("instruction", None), "word: ": ("word",)}
    found = {}
    for prefix, named in spans.items():
        if members := [record for record in records if record.params["span"] in named]:
            sweep = steering_summary(members)
            for layers, chosen in by_layers(members).items():
                won = win_rates(chosen) or members[0].params["bert_score"]
                sweep[f"{layers}win_rates"] = won
                judged = score_curve(chosen, "delta", "judged")
                sweep[f"{layers}judged_win_rates"] = judged or NO_JUDGE
            found |= {prefix + key: value for key, value in sweep.items()}
    return found


@pytest.mark.probe(
    cases=steered_summaries,
    summary=summarise,
    delta=DELTAS,
    max_new_tokens=ANSWER,
    temperature=1.0,
    top_k=50,
)
def test_steered_french(case, predictors, completion, unsteered, score, bert_score, optional_judge):
    if case.metadata.get("delta") == 0:
        for name, value in predictors(case.prompt, case.spans[0], last=LAST).items():
            score(name, value)
    if bert_score and case.target:
        score("bert_score", bert_score(completion.text, case.target).f1)
    problem = why_not_french(completion.text, cut_off=completion.finish_reason == "length")
    if optional_judge and unsteered and not problem and not why_not_french(unsteered.text):
        better = optional_judge.prefers(case.prompt, completion.text, unsteered.text)
        if better is not None:
            score("judged", better)
    assert not problem, problem
