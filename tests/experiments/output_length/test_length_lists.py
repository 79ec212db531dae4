"""Lists of so many things: how they are asked for, and how an answer is counted."""

import pytest

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.experiments.output_length.lists import PHRASINGS, TOPICS, listed
from pytest_llmprobe.experiments.output_length.requests import length_requests


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("1. Lion\n2. Tiger\n3. Bear", 3),
        ("Here are 2 animals:\n\n1) Lion: a large cat.\n2) Tiger, with stripes.\n\nBye.", 2),
        ("- Lion\n- Tiger", 2),
        ("* Lion\n* Tiger\n* Bear\n", 3),
        ("\u2022 Lion", 1),
        ("**1. Lion**\n**2. Tiger**", 2),
        ("Lion, tiger and bear.", 3),
        ("Lion, tiger, and polar bear", 3),
        ("Lion\nTiger", 2),
        ("Sure: lion; tiger", 2),
        ("I do not know any animals, and I am not able to help you with that.", None),
        ("Lion", None),
        ("", None),
        ("It was in 1999. Then 3.5 came.", None),
    ],
)
def test_the_things_of_an_answer_are_counted(answer, count):
    assert listed(answer) == count


def test_every_topic_is_asked_for_with_every_count():
    requests = length_requests("lists")
    assert len(requests) == len(TOPICS) * 8
    assert all(request.is_list and request.word in request.prompt for request in requests)
    assert all(str(request.count) in request.prompt for request in requests)
    assert {request.phrasing for request in requests} == set(PHRASINGS)
    assert [request.count for request in requests] == sorted(request.count for request in requests)
    assert requests == length_requests("lists")
    assert requests != length_requests("lists", seed=1)
    own = length_requests("lists", ["board games"], [2])
    assert [(request.word, request.count) for request in own] == [("board games", 2)]
    with pytest.raises(SettingsError, match="give one at least"):
        length_requests("lists", [" "])
