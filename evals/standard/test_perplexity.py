"""How well texts are predicted: bits per byte and perplexities, and the last word of a passage.

The smaller, the better; nothing is right or wrong, so every text that is measured passes, and a
baseline compares the scores.  Texts that are longer than the model's context are measured in
windows, as lm-evaluation-harness does (loglikelihood_rolling).

    pytest evals/standard -k perplexity --model=mistral --llmprobe-dataset perplexity=corpus.jsonl
    pytest evals/standard -k last_word --model=mistral --llmprobe-dataset last_word=lambada.jsonl

LAMBADA (arXiv 1606.06031), rows {"text": ...}: is the last word what the model would say?
"""

import pytest

from pytest_llmprobe import Case, RawPrompt
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.standard import own_rows
from pytest_llmprobe.experiments.standard.perplexity import corpus, last_words

pytestmark = pytest.mark.standard

OWN = {"smoke": 2, "ci": 8, "full": 8}


def texts(suite):
    if (data := suite.dataset("perplexity")) is None:
        found = own_rows.texts()[: OWN[suite.profile]]
        rows = [(f"our own text {number + 1}", text) for number, text in enumerate(found)]
    else:
        rows = data.documents()
    for number, (name, text) in enumerate(rows):
        yield Case(f"text-{number + 1}", RawPrompt(text), metadata={"row": name})


def last_word(suite):
    data = suite.dataset("last_word")
    for number, (name, text) in enumerate(data.documents()):
        *before, last = text.split(" ")
        if not last.strip() or not " ".join(before).strip():
            raise CasesError(f"{data}: {name}: the text has no last word after a space: {text!r}")
        passage = RawPrompt(" ".join(before))
        yield Case(f"passage-{number + 1}", passage, last, metadata={"row": name})


@pytest.mark.probe(cases=texts, summary=corpus)
def test_perplexity(case, text_likelihood):
    assert text_likelihood.tokens, "no_tokens: nothing was measured"


@pytest.mark.probe(cases=last_word, dataset="last_word", summary=last_words)
def test_last_word(case, text_likelihood):
    assert text_likelihood.most_likely, "other_word: greedy decoding says something else"
