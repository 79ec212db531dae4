"""The nearest pairs by each measure, against a sort of the whole list."""

import random

import pytest

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.experiments.memorization.most_similar import MEASURES, most_similar
from pytest_llmprobe.statistics import similarity


def results(count=40):
    rng = random.Random(0)
    for index in range(count):
        said, true = ([rng.randrange(6) for _ in range(8)] for _ in range(2))
        if rng.random() < 0.3:
            known = rng.randrange(9)
            said = true[:known] + said[known:][: rng.randint(1, 8)]
        yield {"index": index, "generated_ids": said, "suffix_ids": true}


@pytest.mark.parametrize("measure", MEASURES)
def test_the_nearest_are_those_of_a_sorted_list(measure):
    function, distance = (
        getattr(similarity, measure),
        measure
        in (*("levenshtein", "normalised_levenshtein", "sliding_hamming", "kl_divergence"),),
    )
    values = [
        function(r["generated_ids"][: len(r["suffix_ids"])], r["suffix_ids"]) for r in results()
    ]
    order = sorted(range(40), key=lambda n: (values[n] if distance else -values[n], n))
    found = list(most_similar(results(), [measure], top=7))
    assert [pair["index"] for pair in found] == order[:7]
    assert [pair["value"] for pair in found] == [values[n] for n in order[:7]]
    assert [pair["rank"] for pair in found] == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_beyond_the_truth_does_not_count():
    (pair,) = most_similar(
        [{"index": 0, "generated_ids": [1, 2, 3], "suffix_ids": [1, 2]}], ["levenshtein"]
    )
    assert pair["value"] == 0


def test_an_empty_answer_is_no_pair():
    silent = {"index": 0, "generated_ids": [], "suffix_ids": [1]}
    said = {"index": 1, "generated_ids": [2], "suffix_ids": [1]}
    found = list(most_similar([silent, said, silent | {"suffix_ids": []}], ["sliding_hamming"]))
    assert [pair["index"] for pair in found] == [1]
    with pytest.raises(CasesError, match="nothing to rank"):
        list(most_similar([silent], ["cosine"]))


def test_what_cannot_be_ranked_is_named():
    with pytest.raises(CasesError, match=r"line 1 is no string of `llmprobe continue`"):
        list(most_similar([{"text": "a"}], ["cosine"]))
    ranked = {"measure": "dice", "generated_ids": [1], "suffix_ids": [1]}
    with pytest.raises(CasesError, match="line 1 is of a ranking"):
        list(most_similar([ranked], ["cosine"]))
    with pytest.raises(SettingsError, match="no measure 'bleu': one of cosine, jaccard"):
        list(most_similar([], ["bleu"]))
