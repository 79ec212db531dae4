"""A needle in text: it goes in without a loss, can be found, and is judged fairly."""

import random
import re
import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pytest_llmprobe.data.prose import CITIES, NOUNS, is_held_out, prose
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.haystack import text_needle
from pytest_llmprobe.experiments.haystack.text_needle import KINDS, Fact

many = settings(deadline=None, max_examples=200)
seeds = st.integers(0, 2**32)
kinds = st.sampled_from(sorted(KINDS))
depths = st.floats(0, 100)
places = st.sampled_from(sorted(text_needle.PROMPTS))
wild = st.text(st.sampled_from("ab Z.!?…\"')\n。é{}0"), max_size=80) | st.text(max_size=40)

NUMBER = Fact("number", "Velmora", "482913")
WORD = Fact("word", "Velmora", "lantern")
CITY = Fact("city", "Velmora", "Paris")


# Facts


@many
@given(seeds, kinds, st.booleans())
def test_a_fact_is_of_its_kind_and_its_name_of_the_right_part(seed, kind, held_out):
    fact = text_needle.made_up_fact(random.Random(seed), held_out=held_out, kind=kind)
    assert fact.kind == kind
    assert is_held_out(fact.name) is held_out
    if kind == "number":
        assert re.fullmatch(r"[1-9]\d{4,6}", fact.value)
    else:
        assert fact.value in (NOUNS if kind == "word" else CITIES)
    assert fact.sentence.endswith(f" {fact.value}.")
    assert fact.name in fact.question
    assert not text_needle.says(fact.question, fact.value)


def test_all_kinds_and_lengths_of_numbers_are_drawn():
    drawn = [text_needle.made_up_fact(random.Random(seed)) for seed in range(300)]
    assert {fact.kind for fact in drawn} == set(KINDS)
    assert {len(fact.value) for fact in drawn if fact.kind == "number"} == {5, 6, 7}


def test_the_wording_is_fixed():
    assert NUMBER.sentence == "The magic number of Velmora is 482913."
    assert NUMBER.question == "What is the magic number of Velmora?"


@pytest.mark.parametrize("kind", ["numbers", "Word"])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(CasesError, match=kind):
        text_needle.made_up_fact(random.Random(0), kind=kind)


@many
@given(seeds, kinds, st.integers(0, 20), st.booleans())
def test_decoys_have_the_same_shape_and_nothing_else_in_common(seed, kind, n, held_out):
    rng = random.Random(seed)
    fact = text_needle.made_up_fact(rng, kind=kind)
    drawn = [fact, *text_needle.decoys(fact, n, rng, held_out=held_out)]
    assert {other.kind for other in drawn} == {kind}
    assert len({other.name for other in drawn}) == len({other.value for other in drawn}) == n + 1
    assert all(is_held_out(other.name) is held_out for other in drawn[1:])


def test_there_can_be_a_decoy_for_each_other_value_but_no_more():
    rng = random.Random(0)
    values = {other.value for other in text_needle.decoys(CITY, len(CITIES) - 1, rng)}
    assert values == set(CITIES) - {"Paris"}
    with pytest.raises(CasesError, match=str(len(CITIES))):
        text_needle.decoys(CITY, len(CITIES), rng)


# Insertion


@many
@given(wild, depths)
def test_inserting_loses_nothing_and_reports_where_it_was(text, depth):
    found, reached = text_needle.insert(text, NUMBER.sentence, depth)
    place = found.index(NUMBER.sentence)
    before, after = found[:place], found[place + len(NUMBER.sentence) :]
    if before:  # after a sentence, set off by a space
        assert before[-1] == " "
        assert before[:-1] + after == text
        assert before[:-1].rstrip("\"')") != before[:-1].rstrip("\"').!?…。")
        assert reached == pytest.approx(100 * (place - 1) / len(text))
    else:
        assert found in (NUMBER.sentence, f"{NUMBER.sentence} {text}")
        assert reached == 0
    assert reached <= depth + 1e-9


@many
@given(wild, depths)
def test_the_sentence_end_is_the_last_one_before_the_aim(text, depth):
    assume(text)
    _, reached = text_needle.insert(text, NUMBER.sentence, depth)
    between = [end for end in text_needle.sentence_ends(text) if reached < 100 * end / len(text)]
    assert all(100 * end / len(text) > depth - 1e-9 for end in between)


@many
@given(seeds, st.integers(1, 30), depths)
def test_in_prose_the_depth_is_missed_by_less_than_one_sentence(seed, n, depth):
    text = prose(random.Random(seed), n)
    _, reached = text_needle.insert(text, NUMBER.sentence, depth)
    longest = max(map(len, re.split(r"(?<=\.) ", text))) + 1
    assert 0 <= depth - reached <= 100 * longest / len(text) + 1e-9


def test_depths_0_and_100_are_the_very_start_and_the_very_end():
    text = "One. Two. Three."
    assert text_needle.insert(text, "X.", 0) == ("X. One. Two. Three.", 0)
    assert text_needle.insert(text, "X.", 100) == ("One. Two. Three. X.", 100)
    assert text_needle.insert(text, "X.", 60) == ("One. Two. X. Three.", pytest.approx(56.25))
    assert text_needle.insert("", "X.", 50) == ("X.", 0)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("no end", [0]),
        ("Half. a sentence", [0]),
        ("3.5 km. Next", [0, 7]),
        ("www.example.org. Then", [0, 16]),
        ("Mr. Smith came. He left.", [0, 15, 24]),
        ("J. R. Smith. He", [0, 12]),
        ("So did I.", [0, 9]),
        ("i.e. Rome. So", [0, 10]),
        ('"Stop!" he said. "No."', [0, 16, 22]),
        ("Really?! Yes... No.", [0, 8, 15, 19]),
        ("A paragraph.\n\nAnother.", [0, 12, 22]),
        ("はい。いいえ。", [0, 3, 7]),
        ("(Done.) Next.", [0, 7, 13]),
        ("Wait\N{HORIZONTAL ELLIPSIS} Go.", [0, 5, 9]),
    ],
)
def test_sentences_end_where_a_reader_sees_an_end(text, ends):
    assert text_needle.sentence_ends(text) == ends


@pytest.mark.parametrize("depth", [-1, 100.1, float("nan"), float("inf")])
def test_a_depth_that_is_no_percentage_is_refused(depth):
    with pytest.raises(CasesError, match="depth"):
        text_needle.insert("One.", "X.", depth)


# Prompts and the reference solver


@many
@given(seeds, kinds, places, st.lists(depths, min_size=1, max_size=5), st.integers(0, 20))
def test_the_solver_finds_the_needle_among_decoys_wherever_it_is(seed, kind, where, depths, n):
    rng = random.Random(seed)
    fact = text_needle.made_up_fact(rng, kind=kind)
    text = prose(rng, n)
    for depth, other in zip(
        depths, [fact, *text_needle.decoys(fact, len(depths) - 1, rng)], strict=True
    ):
        text, _ = text_needle.insert(text, other.sentence, depth)
    prompt = text_needle.prompt(text, fact.question, where)
    assert text_needle.solve(prompt) == fact.value
    assert text_needle.solve([{"role": "user", "content": prompt}]) == fact.value
    assert prompt.count(fact.question) == (2 if where == "both" else 1)
    assert prompt == prompt.strip()


@many
@given(seeds, kinds, places)
def test_a_closed_book_cannot_be_solved_and_a_decoy_does_not_help(seed, kind, where):
    rng = random.Random(seed)
    fact = text_needle.made_up_fact(rng, kind=kind)
    (other,) = text_needle.decoys(fact, 1, rng)
    text, _ = text_needle.insert(prose(rng, 5), other.sentence, 50)
    with pytest.raises(CasesError, match="0 values"):
        text_needle.solve(text_needle.prompt(text, fact.question, where))


def test_two_values_for_one_name_cannot_be_solved():
    text = f"{NUMBER.sentence} {Fact('number', 'Velmora', '12345').sentence}"
    with pytest.raises(CasesError, match="2 values"):
        text_needle.solve(text_needle.prompt(text, NUMBER.question))


def test_a_prompt_without_a_question_and_an_unknown_place_are_refused():
    with pytest.raises(CasesError, match="no question"):
        text_needle.solve(NUMBER.sentence)
    with pytest.raises(CasesError, match="middle"):
        text_needle.prompt("text", "question", "middle")


def test_questions_at_the_end_share_everything_before_them():
    text = "{braces} {0} and 100 % stay."
    one, two = (text_needle.prompt(text, f"{word}?") for word in "ab")
    assert text in one
    assert one.index("a?") == two.index("b?")
    assert one[: one.index("a?")] == two[: two.index("b?")]


# Answers

OTHERS = {
    "number": [Fact("number", "Zanna", "77120")],
    "word": [Fact("word", "Zanna", "lamp")],
    "city": [Fact("city", "Zanna", "Rome")],
}

CORRECT = [
    (NUMBER, " 482913"),
    (NUMBER, "The magic number of Velmora is 482913."),
    (NUMBER, "**482913**"),
    (NUMBER, "_482913_"),
    (NUMBER, '"482913"!'),
    (NUMBER, "number=482913, I think"),
    (NUMBER, "482913\n482913"),
    (NUMBER, "not 482914 but 482913"),  # 482914 is nobody's
    (NUMBER, "482,913"),
    (NUMBER, "482 913."),
    (NUMBER, "482.913"),
    (NUMBER, "482'913"),
    (NUMBER, "482\u2019913"),
    (NUMBER, "482_913"),
    (NUMBER, "482\u00a0913"),
    (NUMBER, "482\u2009913"),
    (NUMBER, "482\u202f913"),
    (NUMBER, "4,82,913"),
    (NUMBER, "\\boxed{482{,}913}"),
    (NUMBER, "$482\\,913$"),
    (NUMBER, "482&nbsp;913"),
    (NUMBER, "\uff14\uff18\uff12\uff19\uff11\uff13"),
    (NUMBER, "\u7b54\u6848\u662f482913\u3002"),
    (NUMBER, "482,913\u3067\u3059"),
    (NUMBER, "\u2460482913"),
    (NUMBER, "482913\u00b9"),
    (NUMBER, "I am not sure, but it is 482913"),
    (NUMBER, "I am not sure: 482913"),
    (NUMBER, "It stands in sentence 120, and it is 482913"),
    (WORD, "\u7b54\u6848\u662flantern\u3002"),
    (WORD, "lantern\uc785\ub2c8\ub2e4"),
    (WORD, "\u201clantern\u201d"),
    (WORD, "\u201elantern\u201c"),
    (WORD, "| key | lantern |"),
    (WORD, "key, lantern"),
    (CITY, "not Berlin, but Paris"),
    (NUMBER, "77120, no: 482913"),
    (WORD, "Lamp? No. Lantern."),
    (WORD, "LANTERN"),
    (WORD, "a lantern, of course"),
    (CITY, "paris"),
    (CITY, "Paris (France)"),
    (CITY, "Velmora's home is Paris's heart"),
]


@pytest.mark.parametrize(("fact", "answer"), CORRECT)
def test_an_answer_with_the_value_and_no_decoys_passes(fact, answer):
    assert text_needle.passed(answer, fact, OTHERS[fact.kind])
    assert text_needle.explain(answer, fact, OTHERS[fact.kind]).startswith("correct: ")


WRONG = [
    (NUMBER, "", "no_answer"),
    (NUMBER, " \n", "no_answer"),
    (NUMBER, "I do not know.", "no_value"),
    (NUMBER, "48291", "other_value"),
    (NUMBER, "4829130", "glued"),
    (NUMBER, "1482913", "glued"),
    (NUMBER, "482913.5", "glued"),
    (NUMBER, "1,482,913", "other_value"),
    (NUMBER, "482,913,000", "other_value"),
    (NUMBER, "482.913,5", "other_value"),
    (NUMBER, "482 913 000", "other_value"),
    (NUMBER, "1 482 913", "other_value"),
    (NUMBER, "1\u202f482\u202f913", "other_value"),
    (NUMBER, "482,931", "other_value"),
    (NUMBER, "48,2913", "other_value"),
    (NUMBER, "482,913 or 482,914", "hedged"),
    (NUMBER, "482914 or 482913", "hedged"),
    (NUMBER, "It is 482913. Or maybe 482914.", "hedged"),
    (NUMBER, "482913, 482914", "hedged"),
    (NUMBER, "It is not 482913.", "denied"),
    (NUMBER, "The number isn\u2019t **482913**.", "denied"),
    (NUMBER, "482913 is not the magic number.", "denied"),
    (NUMBER, "3.482913", "glued"),
    (NUMBER, "x482913", "glued"),
    (NUMBER, "9" * 5000, "other_value"),
    (NUMBER, "77120", "decoy"),
    (NUMBER, "482913 or 77120", "hedged"),
    (WORD, "lanterns", "glued"),
    (WORD, "lantern-bearer", "glued"),
    (WORD, "magic-lantern", "glued"),
    (WORD, "lamp", "decoy"),
    (WORD, "Lamp? Lantern?", "hedged"),
    (WORD, "anchor", "other_value"),
    (WORD, "thing", "no_value"),
    (WORD, "lantern or anchor", "hedged"),
    (WORD, "either anchor or lantern", "hedged"),
    (WORD, "lantern, anchor", "hedged"),
    (WORD, "lantern\u0301", "glued"),
    (WORD, "not the lantern", "denied"),
    (CITY, "Paris. It could also be Berlin.", "hedged"),
    (CITY, "Parisian", "glued"),
    (CITY, "ROME", "decoy"),
    (CITY, "Berlin", "other_value"),
]


@pytest.mark.parametrize(("fact", "answer", "word"), WRONG)
def test_a_wrong_answer_misses_and_says_how(fact, answer, word):
    assert not text_needle.passed(answer, fact, OTHERS[fact.kind])
    explained = text_needle.explain(answer, fact, OTHERS[fact.kind])
    assert explained.partition(":")[0] == word
    assert len(explained) < 200


def test_a_candidate_with_the_same_value_is_no_other_value():
    assert text_needle.passed("Paris", CITY, [Fact("city", "Zanna", "Paris")])


@many
@given(seeds, kinds, st.text(max_size=20), st.text(max_size=20))
def test_a_value_between_spaces_is_found_whatever_surrounds_it(seed, kind, before, after):
    fact = text_needle.made_up_fact(random.Random(seed), kind=kind)
    assert text_needle.passed(f"{before} {fact.value} {after}", fact)


@many
@given(seeds, kinds, st.text(max_size=60))
def test_passing_and_explaining_agree_about_every_answer(seed, kind, answer):
    rng = random.Random(seed)
    fact = text_needle.made_up_fact(rng, kind=kind)
    others = text_needle.decoys(fact, 3, rng)
    pieces = [answer, fact.value, others[0].value, ""]
    answer = rng.choice(["", " ", "-"]).join(rng.sample(pieces, 3))
    explained = text_needle.explain(answer, fact, iter(others))
    assert text_needle.passed(answer, fact, iter(others)) == explained.startswith("correct:")


@pytest.mark.parametrize("fact", [NUMBER, WORD, CITY], ids=lambda fact: fact.kind)
@pytest.mark.parametrize(
    "piece",
    [
        *("482,", "482913 ", "lantern or ", "&amp;", "\u00a0", "not ", "1 ", "\n", "? ", "so a: "),
        *("wait, no ", "482913? no ", "~~a ", "<del>", "I cannot say ", "</thinking>"),
    ],
)
def test_a_megabyte_is_read_in_linear_time(fact, piece):
    start = time.process_time()
    text_needle.explain(piece * (1_000_000 // len(piece)), fact, OTHERS[fact.kind])
    assert time.process_time() - start < 10


# Haystacks


@many
@given(seeds, st.integers(200, 3_000))
def test_generated_prose_has_the_size_that_is_asked_and_ends_with_a_sentence(seed, size):
    text = text_needle.generated(size, random.Random(seed))
    assert size - 100 < len(text) <= size
    assert text.endswith(".")
    assert text == text.strip()


@many
@given(seeds, st.integers(5, 60), st.data())
def test_an_excerpt_is_a_piece_of_the_text_from_sentence_to_sentence(seed, n, data):
    text = prose(random.Random(seed), n)
    size = data.draw(st.integers(min(200, len(text)), len(text)))
    found = text_needle.excerpt(text, size, random.Random(seed + 1))
    place = text.index(found)
    assert place in {0} | {end + 1 for end in text_needle.sentence_ends(text)}
    assert place + len(found) in text_needle.sentence_ends(text)
    assert size - 100 < len(found) <= size


def test_excerpts_come_from_anywhere():
    text = prose(random.Random(0), 100)
    places = [text.index(text_needle.excerpt(text, 300, random.Random(n))) for n in range(50)]
    assert len(set(places)) > 30
    assert min(places) < len(text) / 4 < 3 * len(text) / 4 < max(places)


@many
@given(wild, st.integers(1, 100))
@example(" 0", 1)
def test_a_cut_is_the_start_of_the_text_and_no_longer_than_it_may_be(text, size):
    found = text_needle.cut(text, size)
    assert text.startswith(found) or text.lstrip().startswith(found)
    assert len(found) <= size
    assert text_needle.cut(found, size) == found


@pytest.mark.parametrize(
    ("text", "size", "found"),
    [
        ("One. Two. Three.", 99, "One. Two. Three."),
        ("One. Two. Three.", 15, "One. Two."),
        ("One. Two. Three.", 9, "One. Two."),
        ("It was 3.5 miles.", 9, "It was"),  # the dot ends no sentence
        ("It was 3.", 9, "It was 3."),
        ("no sentence ends here", 15, "no sentence"),
        ("noroomforaspaceatall", 5, "noroo"),
        ("", 5, ""),
    ],
)
def test_a_text_is_cut_at_a_sentence_end_or_else_between_words(text, size, found):
    assert text_needle.cut(text, size) == found


def test_a_task_is_the_fact_that_is_asked_for_and_the_others():
    other, third = Fact("number", "Zanna", "77120"), Fact("city", "Velmora", "Rome")
    text = f"{other.sentence} {NUMBER.sentence} {third.sentence} {NUMBER.sentence}"
    assert text_needle.read_task(text_needle.prompt(text, NUMBER.question)) == (
        NUMBER,
        [other, third],
    )
