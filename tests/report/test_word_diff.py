"""Two answers word by word: the pieces are the texts, and only what differs is marked."""

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmprobe.report.word_diff import MOST, word_diff

words = st.lists(st.sampled_from(["a", "b", "cat", " ", "\n", ".", "é", "猫"]), max_size=40)


@given(words, words)
def test_the_pieces_are_the_texts(one, other):
    first, second = "".join(one), "".join(other)
    pieces = word_diff(first, second)
    assert "".join(piece[1] for piece in pieces) == first
    assert "".join(piece[2] for piece in pieces) == second
    assert all((piece[1] != piece[2]) == bool(piece[0]) for piece in pieces)


def test_what_differs_is_marked():
    assert word_diff("The city is Lima.", "The city is Paris, I think.") == [
        (0, "The city is ", "The city is "),
        (1, "Lima", "Paris, I think"),
        (0, ".", "."),
    ]
    assert word_diff("same", "same") == [(0, "same", "same")]
    assert word_diff("", "new") == [(1, "", "new")]
    assert word_diff(None, "new") is None


def test_long_texts_are_one_piece_between_what_is_the_same():
    first, second = ("x " * MOST + "end", "y z " * MOST + "end")
    pieces = word_diff("begin " + first, "begin " + second)
    assert [piece[0] for piece in pieces] == [0, 1, 0]
    assert pieces[0][1].startswith("begin")
