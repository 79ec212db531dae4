"""Generated English prose and invented names: text that needs no data set and no network.

Sentences hold no digits and none of the words that the generators of facts and records use as
marks ("magic", "secret", "In short"), so nothing in the prose answers a question by chance. The
lexicon is small on purpose: the embedded reference model has to learn all of it.
"""

from __future__ import annotations

import random
import zlib


def words(text: str) -> tuple[str, ...]:
    """The words of a text; a list of 150 words fits on a dozen lines."""
    return tuple(text.split())


NOUNS = words(
    """
    anchor apple arrow axe bag ball banner barn barrel basin basket bell bench bird blanket boat
    bone bottle bowl box branch bread brick bridge broom brush bucket button cabin cabinet cage
    cake candle canoe canvas carpet carriage castle chain chair chest chimney clock cloak coat coin
    compass cottage cradle crown cup curtain dagger desk dish door drawer dress drum engine farm
    feather fence field flag flute fork fountain garden gate glove grain hammer harp hat hedge
    helmet hill horn horse house jacket jar kettle key kite knife ladder lake lamp lantern leaf
    lemon letter lock loom map mask meadow mill mirror needle nest oar orchard oven paddle
    painting parcel pearl pen piano pillow pipe plate plough pocket pond pot puppet purse quilt
    raft ring river road robe rope saddle sail scarf shell shield ship shovel spoon stable stone
    stove table tent thread tower trumpet tunnel umbrella vase violin wagon wall wheel whistle
    window
    """
)
"""Singular things."""

ADJECTIVES = words(
    """
    ancient bent bitter black blue brave bright broad broken brown calm cheap clean clever cold
    cracked crooked curious dark dear deep dry dusty empty faded famous fine flat gentle gold
    green grey heavy hidden hollow honest huge light little long loud narrow neat new old pale
    plain polished proud quiet rare red rough round rusty sharp silver simple small smooth soft
    square strange strong sweet tall thin tiny warm white wide wooden yellow
    """
)

VERBS = words(
    """
    admired borrowed bought broke brought built buried carried chose cleaned collected copied
    covered described dragged drew dropped examined fetched filled followed forgot found gave
    guarded hid inspected kept lent lifted liked lost measured mended missed moved needed noticed
    opened packed painted passed placed praised pulled pushed reached repaired searched sold
    stole studied touched traded used visited wanted washed watched wrapped
    """
)
"""The past tense of verbs that take an object."""

CITIES = words(
    """
    Amsterdam Antwerp Athens Barcelona Basel Bergen Berlin Bologna Bordeaux Boston Bristol Brussels
    Budapest Cairo Chicago Cologne Cracow Dresden Dublin Edinburgh Florence Geneva Genoa Glasgow
    Hamburg Helsinki Istanbul Leipzig Lisbon London Lyon Madrid Marseille Milan Munich Naples
    Oslo Oxford Paris Porto Prague Rome Rotterdam Seville Stockholm Tokyo Toledo Turin Venice
    Vienna Warsaw York Zurich
    """
)

FIRST_NAMES = words(
    """
    Adam Agnes Albert Alice Anna Arthur Beatrice Bernard Clara Daniel David Edith Edmund Eleanor
    Emma Eric Felix Frances George Grace Hannah Harold Helen Henry Hugo Ida Jacob James Jane John
    Joseph Julia Laura Leonard Louis Lucy Margaret Martin Mary Nora Oliver Paul Peter Robert Rose
    Ruth Samuel Sarah Simon Sophie Thomas Victor Walter William
    """
)

TIMES = (
    *("after dinner", "after the harvest", "all summer", "at dawn", "at midnight", "at noon"),
    *("before sunrise", "during the storm", "early in the morning", "every evening"),
    *("in the afternoon", "in the autumn", "in the spring", "in the winter", "last night"),
    *("late in the evening", "on market day", "one Sunday", "that night", "the next day"),
)

_FORMS = (
    "{first} {verb} the {adjective} {noun} {time}.",
    "The {noun} in {city} was {adjective} and {other_adjective}.",
    "{time_first}, {first} {verb} the {noun} near the {adjective} {other_noun}.",
    "The {adjective} {noun} stood behind the {other_noun}.",
    "In {city}, {first} and {other_first} {verb} the {noun}.",
    "There was a {adjective_a} {noun} beside the {other_noun}.",
    "{first} {verb} the {noun}, but {other_first} {other_verb} the {other_noun}.",
    "When {first} came to {city}, the {noun} was {adjective}.",
    "Nobody in {city} {verb} the {adjective} {noun}.",
)

_SYLLABLES = words(
    """
    bal bel ber bor bra bri cal cor dal dar del dor dra dru fal fen fir gal gar gor hal har hel
    jor kal kar kel kor lan lem lin lor mal mar mel mir mon mor nal nar nel nim nor pal pel per
    qua ral ren ril ros sal sel sil sor tal tan tel tir tor tra val vel ven vor wen wil yor zan
    zel zim zor a e i o u ia eo
    """
)
_STARTS = tuple(syllable for syllable in _SYLLABLES if len(syllable) > 2)
_ENDS = words(
    """
    ba ban da dan den dia don dra fa fin ga gan go ka kan ken kin la lan len lia lin lo ma man
    mar men mia mon mora na nan nen nia nis nor pa ra ran ren ria ric rin ro ros ruk sa san sen
    sia sin ta tan ten tha thus tia ton va van ven via vik za zan zen zia
    """
)
_REAL_WORDS = frozenset(
    word.lower() for word in (*NOUNS, *ADJECTIVES, *VERBS, *CITIES, *FIRST_NAMES)
)


def sentence(rng: random.Random) -> str:
    """One sentence of prose, its full stop included."""
    noun, other_noun = rng.sample(NOUNS, 2)
    verb, other_verb = rng.sample(VERBS, 2)
    adjective, other_adjective = rng.sample(ADJECTIVES, 2)
    first, other_first = rng.sample(FIRST_NAMES, 2)
    time = rng.choice(TIMES)
    form = rng.choice(_FORMS)
    if adjective[0] in "aeiou":
        form = form.replace("a {adjective_a}", "an {adjective_a}")
    return form.format(
        noun=noun,
        other_noun=other_noun,
        verb=verb,
        other_verb=other_verb,
        adjective=adjective,
        adjective_a=adjective,
        other_adjective=other_adjective,
        first=first,
        other_first=other_first,
        time=time,
        time_first=time[0].upper() + time[1:],
        city=rng.choice(CITIES),
    )


def prose(rng: random.Random, sentences: int) -> str:
    """``sentences`` sentences joined by one space; the empty string for none."""
    return " ".join(sentence(rng) for _ in range(sentences))


def is_held_out(name: str) -> bool:
    """Whether a name belongs to the quarter of all names that training never sees."""
    return zlib.crc32(name.encode()) % 4 == 0


def made_up_name(rng: random.Random, *, held_out: bool = True) -> str:
    """A capitalised invented name of two or three parts, such as ``Velmora``.

    There are about 400,000 of them, none of them a word of this module's lists. Those that are
    ``held_out`` are the quarter that evaluations use; training may use the rest.
    """
    while True:
        middle = rng.choice(_SYLLABLES) if rng.random() < 0.75 else ""
        name = (rng.choice(_STARTS) + middle + rng.choice(_ENDS)).capitalize()
        if is_held_out(name) == held_out and name.lower() not in _REAL_WORDS:
            return name
