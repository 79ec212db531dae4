"""Whole kinds of answers that are no summaries in French, and French of every kind that is one."""

import random
from itertools import zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.data import prose
from pytest_llmprobe.experiments.french_summary import stories
from pytest_llmprobe.experiments.french_summary.verdict import why_not_french

# NLTK's list of French stop words (Snowball's).
STOP_WORDS = prose.words(
    """
    au aux avec ce ces dans de des du elle en et eux il ils je la le les leur lui ma mais me même
    mes moi mon ne nos notre nous on ou par pas pour qu que qui sa se ses son sur ta te tes toi ton
    tu un une vos votre vous c d j l à m n s t y été étée étées étés étant étante étants étantes
    suis es est sommes êtes sont serai seras sera serons serez seront serais serait serions seriez
    seraient étais était étions étiez étaient fus fut fûmes fûtes furent sois soit soyons soyez
    soient fusse fusses fût fussions fussiez fussent ayant ayante ayantes ayants eu eue eues eus ai
    as avons avez ont aurai auras aura aurons aurez auront aurais aurait aurions auriez auraient
    avais avait avions aviez avaient eut eûmes eûtes eurent aie aies ait ayons ayez aient eusse
    eusses eût eussions eussiez eussent
    """
)

# {} are names; the languages of the names do not matter.
ABOUT_NAMES = (
    "{} et {} vivent ensemble à {}, près du port.",
    "Hier, {} a rencontré {} devant la gare de {}.",
    "Dans cette histoire, {} et {} travaillent pour {} depuis deux ans.",
    "Selon {}, la ville de {} est dirigée par {}.",
    "{}, {} et {} ont vendu leur maison au printemps dernier.",
)
NAMES = (
    *("John Smith", "Mary O'Neill", "George Washington", "New York", "Microsoft", "The Beatles"),
    *("Angela Merkel", "Juan Carlos", "Giuseppe Verdi", "Nakamura", "Vladimir", "Los Angeles"),
)

many = settings(deadline=None, max_examples=150)
seeds = st.integers(0, 2**32)


def a_story(seed, sentences=0):
    return stories.story(random.Random(seed), sentences)


@many
@given(st.lists(st.sampled_from(STOP_WORDS), min_size=3, max_size=120), st.sampled_from(" ,\n"))
def test_stop_words_are_no_summary_however_they_are_strung_together(said, between):
    assert why_not_french(between.join(said).capitalize() + ".")


@many
@given(seeds, st.integers(0, 60), st.integers(3, 40), st.integers(0, 3))
def test_a_loop_over_more_than_half_of_a_text_is_no_summary(seed, first, period, numbered):
    """A summary that gets stuck at any of its places, with or without numbers before the turns."""
    words = (a_story(seed).summary_fr + " " + a_story(seed + 1).summary_fr).split()
    first = min(first, len(words) - period)
    before, again = words[:first], " ".join(words[first : first + period])
    turns = max(4, 3 * len(before) // period + 1)
    loop = [f"{turn}. {again}" if numbered else again for turn in range(turns)]
    problem = why_not_french(" ".join([*before, *loop]))
    assert problem.partition(":")[0] in ("loop", "undetectable", "stop_words")


@many
@given(seeds, st.integers(1, 4), st.sampled_from(["first", "last", "in turn"]))
def test_a_text_of_which_half_is_english_is_no_french_summary(seed, texts, order):
    told = [a_story(seed + number) for number in range(texts)]
    french = [sentence for one in told for sentence in one.summary_fr.split(". ")]
    english = [piece for one in told for piece in one.facts.sentences()]
    both = {
        "first": [*english, *french],
        "last": [*french, *english],
        "in turn": [s for pair in zip_longest(french, english, fillvalue="") for s in pair if s],
    }
    assert why_not_french(". ".join(sentence.rstrip(".") for sentence in both[order]) + ".")


@many
@given(seeds, st.integers(1, 12))
def test_an_english_text_or_summary_is_told(seed, sentences):
    one = a_story(seed, sentences)
    assert why_not_french(one.text)
    assert why_not_french(one.summary_en)


@many
@given(st.data(), seeds)
def test_french_full_of_names_is_a_summary(data, seed):
    rng = random.Random(seed)
    made_up = st.builds(lambda: prose.made_up_name(rng))
    names = st.lists(made_up | st.sampled_from(NAMES), min_size=9, max_size=9)
    chosen = iter(data.draw(names))
    sentences = data.draw(
        st.lists(st.sampled_from(ABOUT_NAMES), min_size=2, max_size=3, unique=True)
    )
    text = " ".join(
        sentence.format(next(chosen), next(chosen), next(chosen)) for sentence in sentences
    )
    assert why_not_french(text) == "", text


HEADINGS = ("", "Résumé:", "Résumé :", "RÉSUMÉ\u00a0:", "**Résumé :**", "# Résumé\n\n")


@many
@given(seeds, st.sampled_from(HEADINGS), st.sampled_from(["", "```", "```text", "~~~", "> "]))
def test_a_summary_is_one_whatever_its_heading_and_fence(seed, heading, fence):
    body = f"{heading}\n{a_story(seed).summary_fr}".strip()
    if fence == "> ":
        body = "> " + body.replace("\n", "\n> ")
    elif fence:
        body = f"{fence}\n{body}\n{fence[:3]}"
    assert why_not_french(body) == ""


@pytest.mark.parametrize("cut", [30, 60, 90])
def test_a_summary_that_was_cut_off_is_french_all_the_same(cut):
    assert why_not_french(a_story(5).summary_fr[:cut], cut_off=True) == ""
