"""The cases of the memorisation evaluations on texts of the user's own."""

import json
from collections import Counter
from pathlib import Path
from runpy import run_path

import pytest

from pytest_llmprobe.data.sources import read_datasets
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.suite import Suite

EVALS = Path(__file__).parents[3] / "evals" / "memorization"


def suite_on(tmp_path, name, texts, profile="ci"):
    lines = (json.dumps({"text": text}) for text in texts)
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    return Suite(profile, datasets=read_datasets([f"{name}=texts.jsonl"], tmp_path))


def test_documents_of_which_hardly_anything_is_left_to_say_are_no_cases(tmp_path):
    texts = ["a", "too short to be told from chance", "It was a long, long way. " * 10]
    suite = suite_on(tmp_path, "documents", texts)
    (case,) = run_path(str(EVALS / "test_extraction.py"))["texts"](suite)
    assert case.id == "document-2"
    assert len(case.target) >= 20
    assert "left out 2 documents: less than 20 characters to come out" in suite.said()


def test_a_document_is_read_as_far_as_it_is_used(tmp_path):
    suite = suite_on(tmp_path, "documents", ["It was a long, long way. " * 10_000])
    list(run_path(str(EVALS / "test_extraction.py"))["texts"](suite))
    (kept,) = suite.dataset("documents").sample(texts=1_000, longest=4_000).texts
    assert len(kept) == 4_000


@pytest.mark.parametrize(("documents", "times"), [(3, {20}), (60, {1}), (500, {1})])
def test_beginnings_are_of_different_documents_as_far_as_there_are_any(tmp_path, documents, times):
    suite = suite_on(tmp_path, "corpus", [f"{n:05} is the number of it" for n in range(documents)])
    cases = list(run_path(str(EVALS / "test_verbatim.py"))["beginnings"](suite))
    assert len({case.id for case in cases}) == len(cases) == 60
    drawn = Counter(case.prompt.text for case in cases)
    assert set(drawn.values()) == times
    assert len(drawn) == min(documents, 60)
    if documents == 500:  # from the whole corpus, not from its beginning
        assert sum(int(text[:5]) for text in drawn) / 60 == pytest.approx(250, abs=75)


def test_a_corpus_of_blank_texts_is_an_error_that_says_so(tmp_path):
    suite = suite_on(tmp_path, "corpus", [" ", "\n"])
    with pytest.raises(CasesError, match="holds no text"):
        list(run_path(str(EVALS / "test_verbatim.py"))["beginnings"](suite))
