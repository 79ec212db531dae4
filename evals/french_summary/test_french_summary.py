r"""Summaries in French: is an instruction at the head of an English text obeyed?  Chance 0.

After the GUIDE paper, arXiv 2409.19001, experiment 1.  Example: "Summarize the following text in
French. ... Velmora is a baker, and she lives in Lyon. ..." -> "Velmora est une boulangère ..."
An answer passes if it is in French; whether it is a good summary, BERTScore says where an encoder
is on the machine (CamemBERT from the hub's cache, or LLMPROBE_BERT_SCORE=FOLDER).

    pytest evals/french_summary --model=mistral -n 2

The published set-up, on texts of which 200 are drawn as in the paper's code:

    pytest evals/french_summary --model=mistral-v0.1 --llmprobe-profile=full \
        --llmprobe-dataset french_summary=stas/openwebtext-10k
"""

from itertools import product

import pytest

from pytest_llmprobe import Case, Span
from pytest_llmprobe.experiments.french_summary.stories import capitals, important
from pytest_llmprobe.experiments.french_summary.texts import (
    bert_score_with,
    summary_texts,
)
from pytest_llmprobe.experiments.french_summary.verdict import why_not_french
from pytest_llmprobe.experiments.steering.summary import by_layers, steering_summary, win_rates
from pytest_llmprobe.statistics.tables import curve, heat_map, score_curve

pytestmark = pytest.mark.french_summary

SIZES = {  # tokens of the prompt at most; the length bin begins 500 below
    "smoke": (500,),
    "ci": (500, 1_000, 2_000),
    "full": range(500, 5_001, 500),
}
TEXTS = {"smoke": 2, "ci": 9, "full": 20}  # of each bin
PHRASINGS = {"smoke": 1, "ci": 3, "full": 3}
STYLES = {"plain": str, "capitals": capitals, "important": important}  # the paper's baselines
GENERATIONS = {"smoke": 1, "ci": 1, "full": 10}  # sampled answers to each prompt
ANSWER = {"smoke": 100, "ci": 200, "full": 200}  # tokens


def forms(profile, number):
    """Phrasings and styles in which a text is asked about.

    In ci a third of all, so that three texts have them all: other texts tell more than the same
    text in other words.
    """
    for phrasing, (place, style) in product(range(PHRASINGS[profile]), enumerate(STYLES)):
        if profile != "ci" or (phrasing + place + number) % len(STYLES) == 0:
            yield phrasing, style


def french_summaries(suite):
    profile = suite.profile
    generations = range(suite.trials or GENERATIONS[profile])
    for text in summary_texts(suite, SIZES[profile], TEXTS[profile], ANSWER[profile]):
        for phrasing, style in forms(profile, text.number):
            instruction = STYLES[style](text.instructions[phrasing])
            prompt = text.prompt(instruction)
            for generation in generations:
                yield Case(
                    id=f"text-{text.size}-{text.number}/{style}-{phrasing}-{generation}",
                    prompt=prompt,
                    target=text.reference,
                    spans=Span(instruction, occurrence=0),
                    chance=0.0,
                    metadata={
                        "task": "french_summary",
                        "size": text.size,
                        "trial": generation,
                        "phrasing": text.instructions[phrasing],
                        "style": style,
                        "bert_score": bert_score_with(text.reference),
                        "source": text.source,
                    },
                )


def summarise(records):
    plain = [record for record in records if record.params["style"] == "plain"]
    steered = any("delta" in record.params for record in records)
    sweep = steering_summary(plain) if steered else {}
    for layers, chosen in by_layers(plain).items() if steered else ():
        sweep[f"{layers}win_rates"] = win_rates(chosen)
    return {
        "by_length": curve(plain, "size"),
        "style_by_length": heat_map(records, rows="style", columns="size"),
        "by_phrasing": curve(plain, "phrasing"),
        "bert_score": score_curve(records, "style", "bert_score")
        or records[0].params["bert_score"],
    } | sweep


@pytest.mark.probe(
    cases=french_summaries, summary=summarise, max_new_tokens=ANSWER, temperature=1.0, top_k=50
)
def test_french_summary(case, completion, score, bert_score):
    if bert_score and case.target:
        score("bert_score", bert_score(completion.text, case.target).f1)
    problem = why_not_french(completion.text, cut_off=completion.finish_reason == "length")
    assert not problem, problem
