"""Stories and their summaries: grammatical French, and nothing that the text does not say."""

import random
import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.data import prose
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.french_summary import stories
from pytest_llmprobe.experiments.french_summary.stories import (
    CITIES,
    EVENTS,
    INSTRUCTIONS,
    LANGUAGES,
    MOODS,
    OBJECTS,
    PLACES,
    PROFESSIONS,
    TIMES,
    Facts,
)


def _split(text):
    return frozenset(text.split())


LEXICON = {
    "profession": PROFESSIONS,
    "city": CITIES,
    "event": EVENTS,
    "object": OBJECTS,
    "place": PLACES,
    "time": TIMES,
    "mood": MOODS,
}
TERMS = [term for terms in LEXICON.values() for term in terms]
VOWELS = "aeiouyhâàéèêîôû"
# Not "a" and "or", which are French words too.
ENGLISH = _split(
    """
    the is are was were and of to in on at an for with who when he she his her very last end lives
    from near under behind that this it
    """
)
FRENCH = _split("le la les un une est qui et à de du dans était il elle très fin")
# Adjectives of the objects, as French writes them with a masculine and with a feminine noun.
ADJECTIVES = {
    "blanc": "blanche",
    "bleu": "bleue",
    "grand": "grande",
    "lourd": "lourde",
    "long": "longue",
    "noir": "noire",
    "nouveau": "nouvelle",
    "petit": "petite",
    "vert": "verte",
    "vieux": "vieille",
}
MASCULINE = _split(
    """
    miroir carnet piano vase parapluie sac télescope livre vélo bateau tambour masque panier
    chapeau cheval manteau cerf-volant
    """
)
FEMININE = _split(
    """
    marionnette lampe cloche tasse casserole bouteille clé montre valise porte échelle lanterne
    voiture écharpe bague cuillère radio statue boîte chaise grille guitare carte
    """
)

many = settings(deadline=None, max_examples=200)
seeds = st.integers(0, 2**32)
sizes = st.integers(0, 30)


@st.composite
def facts(draw):
    terms = {name: draw(st.sampled_from(terms)) for name, terms in LEXICON.items()}
    return Facts(
        hero=draw(st.sampled_from(["Velmora", "Orrin"])), female=draw(st.booleans()), **terms
    )


@st.composite
def some_stories(draw):
    return stories.story(random.Random(draw(seeds)), draw(sizes))


def words(text):
    return re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", text.lower())


# The lexicon


def test_the_lexicon_is_small_and_says_nothing_twice():
    sizes = {name: len(terms) for name, terms in LEXICON.items()}
    assert sizes == {
        "profession": 30,
        "city": 25,
        "event": 14,
        "object": 40,
        "place": 10,
        "time": 8,
        "mood": 7,
    }
    for terms in LEXICON.values():
        for column in zip(*terms, strict=True):
            column = [form for form in column if form]
            assert len(set(column)) == len(column)
            assert all(form == " ".join(form.split()) for form in column)


@pytest.mark.parametrize("term", PROFESSIONS + OBJECTS, ids=lambda term: term.en)
def test_english_articles_fit_the_next_letter(term):
    article, rest = term.en.split(" ", 1)
    assert article == ("an" if rest[0] in "aeiou" else "a")


@pytest.mark.parametrize("term", PROFESSIONS, ids=lambda term: term.en)
def test_professions_have_a_form_for_each_gender(term):
    man, woman = term.french(False), term.french(True)
    assert man.startswith("un ")
    assert woman.startswith("une ")
    endings = ("e", "ère", "euse", "ienne", "trice")
    assert woman.endswith(endings)
    assert man.removeprefix("un ")[:3] == woman.removeprefix("une ")[:3]


@pytest.mark.parametrize("term", OBJECTS, ids=lambda term: term.en)
def test_objects_agree_in_gender(term):
    article, *rest = term.fr.split()
    (noun,) = [word for word in rest if word in MASCULINE | FEMININE]
    assert article == ("un" if noun in MASCULINE else "une")
    wrong = ADJECTIVES.values() if noun in MASCULINE else ADJECTIVES.keys()
    assert not set(rest) & set(wrong)
    known = {*ADJECTIVES, *ADJECTIVES.values(), "jaune", "rare", "rouge", "étrange", noun}
    if "en" in rest:
        assert rest.index("en") == 1
        assert len(rest) == 3
    else:
        assert set(rest) <= known


@pytest.mark.parametrize("term", MOODS, ids=lambda term: term.en)
def test_moods_have_a_feminine_form_unless_it_is_the_same(term):
    assert term.french(False) == term.fr
    assert term.french(True).endswith(("e", "en colère"))


def test_accents_are_single_characters_that_french_has():
    letters = {letter for term in TERMS for form in term[1:] for letter in form.lower()}
    assert letters <= set("abcdefghijklmnopqrstuvwxyzàâçéèêîôû '-")


# Summaries


@many
@given(facts())
def test_a_summary_is_one_text_of_two_sentences_in_its_language(facts):
    english, french = facts.english(), facts.french()
    for summary in (english, french):
        assert 20 <= len(summary.split()) <= 40
        assert len(re.findall(r"\.(?: |$)", summary)) == 2
        assert "  " not in summary
        assert re.fullmatch(r"\w+ .*\. [A-Z].*\.", summary)
    assert not set(words(french)) & ENGLISH
    assert len(set(words(french)) & FRENCH) >= 7
    assert not set(words(english)) & FRENCH


@many
@given(facts())
def test_french_elides_and_contracts(facts):
    french = facts.french()
    assert not re.search(rf"\b(?:le|la|de|que|je|ne|se) (?=[{VOWELS}])", french, re.I)
    assert not re.search(r"\b(?:à|de) les?\b", french, re.I)
    assert all(letter in VOWELS for letter in re.findall(r"\b[ldLD]'(.)", french))


@many
@given(facts())
def test_french_agrees_with_the_hero(facts):
    french = facts.french()
    pronoun, other = ("elle", "il") if facts.female else ("il", "elle")
    assert words(french).count(pronoun) == 2
    assert other not in words(french)
    assert f"est {'une' if facts.female else 'un'} " in french
    assert f"très {facts.mood.french(facts.female)}." in french


def test_every_combination_renders():
    """All pairs: the rest of a combination does not depend on the third term."""
    names = list(LEXICON)
    first = {name: terms[0] for name, terms in LEXICON.items()}
    rendered = set()
    combinations = 0
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            for a, b, female in product(LEXICON[one], LEXICON[two], (False, True)):
                chosen = Facts(hero="Velmora", female=female, **{**first, one: a, two: b})
                french = chosen.french()
                assert a.french(female) in french or stories.capitalized(a.fr) in french
                assert b.french(female) in french or stories.capitalized(b.fr) in french
                rendered.add((french, chosen.english()))
                combinations += 1
    sizes = [len(terms) for terms in LEXICON.values()]
    distinct = sum((n - 1) * (m - 1) for i, n in enumerate(sizes) for m in sizes[i + 1 :])
    distinct += sum(n - 1 for n in sizes) + 1
    assert combinations > len(rendered) == 2 * distinct


def test_a_known_summary():
    chosen = Facts(
        hero="Velmora",
        female=True,
        profession=PROFESSIONS[1],
        city=next(term for term in CITIES if term.en == "Geneva"),
        event=next(term for term in EVENTS if term.en == "lost"),
        object=next(term for term in OBJECTS if term.en == "a silver ring"),
        place=next(term for term in PLACES if term.en == "near the harbor"),
        time=next(term for term in TIMES if term.en == "last winter"),
        mood=next(term for term in MOODS if term.en == "happy"),
    )
    assert chosen.english() == (
        "Velmora is a baker who lives in Geneva. Last winter, she lost a silver ring near the "
        "harbor, and in the end she was very happy."
    )
    assert chosen.french() == (
        "Velmora est une boulangère qui habite à Genève. L'hiver dernier, elle a perdu une bague "
        "en argent près du port, et à la fin elle était très heureuse."
    )


# Stories


@many
@given(seeds, sizes, st.booleans())
def test_the_facts_stand_in_order_among_the_filler(seed, size, held_out):
    story = stories.story(random.Random(seed), size, held_out=held_out)
    sentences = story.facts.sentences()
    assert story.pieces[:2] == sentences[:2]
    assert len(story.pieces) == size + 4
    assert tuple(piece for piece in story.pieces if story.hero in piece) == sentences
    assert story.text == " ".join(story.pieces)
    assert prose.is_held_out(story.hero) == held_out


@many
@given(some_stories())
def test_every_word_of_the_summary_comes_from_the_facts(story):
    told = words(" ".join(story.facts.sentences()))
    assert set(words(story.summary_en)) <= {*told, "who"}
    assert story.summary("English") == story.summary_en
    assert story.summary("French") == story.summary_fr
    for name, terms in LEXICON.items():
        said = " ".join(story.facts.sentences()).lower()
        told_terms = [term for term in terms if re.search(rf"\b{term.en.lower()}\b", said)]
        assert told_terms == [getattr(story.facts, name)]


@many
@given(seeds, sizes)
def test_the_same_seed_tells_the_same_story(seed, size):
    one, two = (stories.story(random.Random(seed), size) for _ in range(2))
    assert one == two


def test_later_facts_are_spread_over_the_text():
    told = [stories.story(random.Random(seed), 20) for seed in range(300)]
    for fact in (2, 3):
        places = {story.pieces.index(story.facts.sentences()[fact]) for story in told}
        assert len(places) >= 19


@many
@given(some_stories())
def test_the_topic_is_the_profession(story):
    topic = stories.topic(story)
    assert topic in story.pieces[0]
    assert topic in {term.en.split()[-1] for term in PROFESSIONS}


def test_a_story_of_less_than_no_filler_is_an_error():
    with pytest.raises(CasesError, match="a story of -1 filler sentences"):
        stories.story(random.Random(0), -1)


# Instructions


@pytest.mark.parametrize("language", LANGUAGES)
def test_instructions_name_the_language_once(language):
    rendered = [stories.instruction(phrasing, language) for phrasing in INSTRUCTIONS]
    assert len(set(rendered)) == len(rendered) >= 4
    other = next(name for name in LANGUAGES if name != language)
    assert all(text.count(language) == 1 and other not in text for text in rendered)
    assert all("summar" in text.lower() for text in rendered)


def test_an_instruction_can_be_emphasised():
    plain = stories.instruction(INSTRUCTIONS[0], "French")
    assert stories.capitals(plain) == "SUMMARIZE THE FOLLOWING TEXT IN FRENCH."
    assert stories.important(plain) == f"IMPORTANT: {plain}"


@many
@given(some_stories(), st.sampled_from(INSTRUCTIONS), st.sampled_from(LANGUAGES))
def test_a_prompt_opens_with_its_instruction(story, phrasing, language):
    instruction = stories.instruction(phrasing, language)
    prompt = stories.prompt(story.text, instruction)
    assert prompt == f"{instruction}\n\n{story.text}\n\nSummary:"
    assert prompt.count(instruction) == 1
