"""Which regular expressions are known to match within words and to look at a few words only."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from some_tokenizers import LLAMA_3, REFERENCE

from pytest_llmprobe.models.patterns import PRINTABLE, SPACE, crosses

SPLITS = json.loads((REFERENCE / "tokenizer.json").read_text())["pre_tokenizer"]["pretokenizers"]

NEAR = {
    "llama 3": LLAMA_3,
    "gpt 2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt 4o": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
    ),
    "possessive": r"[^\r\n\p{L}\p{N}]?+\p{L}+|\s++",
    "deepseek": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+| ?[\p{P}\p{S}]+[\r\n]*",
    "ideographs": "[一-龥ぁ-ゟァ-ヿ]+",
    "spaces": " {2,}",
    "printable": r"[!-~]+|[\x{21}-\u007e]*",
    "one of anything": r".|.?\w+| ?.",
    "a look at a few": r"a(?=.{1,5})(?<= a b)",
    "letters, looking ahead": r"(?:(?!\d{4} \d)\p{L})+",
}
FAR = {
    "anything": r".*x",
    "a few of anything": r".{1,5}",
    "a few words": r"(?:a |b ){0,3}",
    "a word and its space": r"\w+ ?",
    "two words": r"\w+\s\w+",
    "lines": r"[^\n]+",
    "not spaces only": r"[^ab]*",
    "not digits": r"\D+",
    "no words": r"\W+",
    "not letters": r"\P{L}+|\p{^L}+",
    "words": r"(?: ?\w+)+",
    "fifty words": r"(?:\w+\s+){0,50}",
    "mixed": r"[ \w]+",
    "mixed range": r"[ -~]+",
    "look ahead": r"\d{1,3}(?=(?:\d{3})*\b)",
    "far look ahead": r"a(?=.*b)",
    "back reference": r"(a)\1+",
    "nested class": r"[a-z&&[^b]]+",
    "posix class": r"[[:alpha:]]+",
    "controls": r"\p{C}+|\p{Any}+",
    "class of properties": r"[\p{L}\p{Z}]+",
    "not in a class": r"[^\P{L}a]+ x",
    "named": r"(?<x>a)\g<x>",
    "flags": r"(?x) a b",
    "unbalanced": r"(a",
    "closed too often": r"a)b",
    "open class": r"[a",
    "nothing to repeat": r"*a",
    "huge": r"a{1000}",
    "repeated nothing": r"a{}",
    "beyond Unicode": r"\x{ffffff}",
    "deep": "(" * 5000 + ")" * 5000,
    "many runs": r"\s+\S+" * 9,
    "one or more of at least two": r".{2,}",
}


@pytest.mark.parametrize("pattern", NEAR.values(), ids=NEAR)
def test_patterns_that_stop_at_spaces(pattern):
    assert not crosses(pattern, PRINTABLE, SPACE)


@pytest.mark.parametrize("pattern", FAR.values(), ids=FAR)
def test_patterns_that_may_cross_or_look_far_or_are_not_understood(pattern):
    assert crosses(pattern, PRINTABLE, SPACE)


@settings(deadline=None, max_examples=500)
@given(st.text(r"ab \s.[]()?:=!<>{}1,*+|^$-&pL", max_size=20) | st.text(max_size=20))
def test_no_pattern_is_an_error(pattern):
    assert crosses(pattern, PRINTABLE, SPACE) in (True, False)
