"""Whether an answer is a summary in French: more than a detector's nod.

A detector of languages takes a text of nothing but stop words for French, and does not know a
French sentence full of names for one. So words are counted too: French and English ones that tell
nothing but the language, names, and runs of words that come again and again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from pytest_llmprobe.data.prose import words
from pytest_llmprobe.experiments.answers import plain
from pytest_llmprobe.experiments.french_summary.language import (
    MAX_CHARACTERS,
    guess,
    is_rather_english,
    language,
)

ONLY_FRENCH = frozenset(
    words(
        """
        à alors après au aucun aucune aussi autre autres aux avait avant avec avoir beaucoup ce
        cela celle celui ces cet cette chaque chez comme dans depuis dernier dernière des deux
        devant donc dont du elle elles en encore entre est et étaient était être eux fut ici
        il ils jusque là leur leurs lorsque lui mais même moins ne ni nos notre nous ont où par
        parce pas pendant peu peut plusieurs pour pourtant puis puisque quand que quelque
        quelques qui quoi sa sans selon ses si soit sont sous sur tous tout toute toutes très
        trois un une vers voici voilà vos votre vous était

        suis sommes êtes étais étions étiez été étée étées étés étant fus fûmes fûtes furent serai
        seras sera serons serez seront serais serait serions seriez seraient sois soyons soyez
        soient fût fusse fusses fussions fussiez fussent étante étants étantes
        avons avez avais avions aviez avaient eûmes eûtes eurent aurai auras aura aurons aurez
        auront aurais aurait aurions auriez auraient aie aies ayons ayez aient ayant ayante ayants
        ayantes eusse eusses eût eussions eussiez eussent eue eues eut
        """
    )
)
"""French words that say little by themselves, with all forms of "to be" and "to have"."""

ALSO_FRENCH = frozenset(
    words(
        """
        a ai ait as c car d de es eu eus fait font j je l la le les m ma me mes moi mon n on or ou
        plus qu s se son t ta te tes toi ton tu y
        """
    )
)
"""More of them, which are words of other languages too."""

ENGLISH = frozenset(
    words(
        """
        about after all also an and are at be been before being but by can could did do does for
        from had has have he her here him his how i if in into is it its just like made man may
        more most my near no not of off one only other our out over own she should so some such
        than that the their them then there these they this those through to two under up very was
        we were what when where which while who whom whose why will with would you your
        """
    )
)
"""English words that are no French ones."""

MOST_STOP_WORDS = 0.85
"""Share of words that say little: French prose has 0.35 to 0.7, without nouns even 0.8."""

MOST_MISPLACED = 0.1
"""Share of articles with no noun behind them (``la de``), which French has none of."""

MOST_ENGLISH = 0.4
"""Share of words in English; a sentence of it around a short summary has 0.2 to 0.35."""

GRAM, MOST_REPEATED = 5, 0.5
"""A text is a loop if runs of 5 words that it says three times or more are over half of it."""

_ARTICLES = frozenset(words("au aux ces cette des du la le les un une"))
_NO_NOUNS = frozenset(words("au avec aux dans de du elle est et il la le les pour que qui sur"))
_OF_ONE = frozenset({("un", "de"), ("un", "du"), ("une", "de"), ("une", "du")})  # one of these

_TITLE = re.compile(r"\b[A-Z]\w*(?:\s+(?:(?:of|the|and|in|to|for|a)\s+)*[A-Z]\w*)+")
_SENTENCE = re.compile(r"[^.!?\n]+")
_WORD = re.compile(r"[^\W\d_]+")
_FENCE = re.compile(r"^[ \t>]*(?:```+|~~~+)[^\n]*$", re.MULTILINE)
_HEADING = re.compile(r"\A[\s\"'*_#>`({\[]*(?:[^:\n]{1,200}:[ \t*_]*\n|[^:.!?\n]{1,80}:)")


def why_not_french(answer: str, *, cut_off: bool = False) -> str:
    """Why an answer does not pass: a word, a colon, a sentence; nothing if it is in French.

    Fences do not count, nor does what announces the summary: ``Résumé :``.

    Args:
        answer: What the model said; what follows its first 20,000 characters is not looked at.
        cut_off: Whether the answer ended because it had no tokens left.
    """
    text = _body(plain(answer[:MAX_CHARACTERS]))
    said = [word.lower() for word in _WORD.findall(text)]
    if cut_off and len(said) < GRAM:
        return "cut_off: max_new_tokens ran out before there was a summary"
    if not answer.strip():
        return "empty: the answer is empty"
    if repeated(said) > MOST_REPEATED:
        return "loop: most of the answer repeats itself"
    found = _language(text)
    if found is None:
        return "undetectable: the answer's language cannot be told"
    if found != "fr":
        return f"{found}: the answer's language has the code {found!r}"
    french = _not_english(text)
    if len(french) < (1 - MOST_ENGLISH) * len(said):
        return "mixed: much of the answer is in English"
    if _is_soup(french):
        return "stop_words: the answer is made of words that say nothing"
    return ""


def _not_english(text: str) -> list[str]:
    """The words of a text that stand in no English part of it.

    A word belongs to the language of the last one before it that tells one; a sentence without such
    a word to what the detector takes it for. Titles and names are nobody's language.
    """
    titles = (
        set() if text.isupper() else {n for m in _TITLE.finditer(text) for n in range(*m.span())}
    )
    parts: list[str] = []
    is_english: bool | None = None
    for sentence in _SENTENCE.finditer(text):
        found = list(_WORD.finditer(text, *sentence.span()))
        told = [None if word.start() in titles else _tells(word[0].lower()) for word in found]
        if set(told) <= {None}:
            is_english = is_rather_english(sentence[0])
        for word, tells in zip(found, told, strict=True):
            is_english = is_english if tells is None else tells
            if not is_english:
                parts.append(word[0].lower())
    return parts


def _tells(word: str) -> bool | None:
    """Whether a word is English; None if it tells no language."""
    return False if word in ONLY_FRENCH else True if word in ENGLISH else None


def _is_soup(said: Sequence[str]) -> bool:
    """Whether French words that say little are strung together without a sentence."""
    little = sum(word in ONLY_FRENCH or word in ALSO_FRENCH for word in said)
    misplaced = sum(
        one in _ARTICLES and two in _NO_NOUNS and (one, two) not in _OF_ONE
        for one, two in pairwise(said)
    )
    return little > MOST_STOP_WORDS * len(said) or misplaced > MOST_MISPLACED * len(said)


def _body(text: str) -> str:
    """The answer without fences and without what announces the summary."""
    text = _FENCE.sub("", text)
    heading = _HEADING.match(text)
    if heading:
        rest = text[heading.end() :]
        return rest if len(rest) > heading.end() or not rest.strip() else text
    return text


def repeated(said: Sequence[str]) -> float:
    """The share of words that belong to a run of 5 which occurs three times or more."""
    grams = [tuple(said[i : i + GRAM]) for i in range(len(said) - GRAM + 1)]
    counts = Counter(grams)
    covered = {i + n for i, gram in enumerate(grams) if counts[gram] > 2 for n in range(GRAM)}
    return len(covered) / len(said) if said else 0.0


def _language(text: str) -> str | None:
    """The language of a text, told without its names where they leave the detector in doubt."""
    if (told := language(text)) == "fr":
        return told
    capitals = text.isupper()
    nameless = [
        word.lower()
        for word in _WORD.findall(text)
        if capitals or word.islower() or word.lower() in ONLY_FRENCH | ALSO_FRENCH | ENGLISH
    ]
    rest = " ".join(nameless)
    if language(rest) == "fr":
        return "fr"
    french = sum(word in ONLY_FRENCH for word in nameless)
    if french >= 2 and 3 * french >= len(nameless) and guess(rest) == "fr":
        return "fr"
    return told
