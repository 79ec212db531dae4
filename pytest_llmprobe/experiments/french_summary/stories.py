"""English stories with their summaries in English and French.

Follows experiment 1 of GUIDE (arXiv 2409.19001): an instruction at the head of an English text asks
for a summary in French, and the question is how often the model obeys. The stories come from a
small bilingual lexicon, so that a model of a few million parameters can learn to summarise them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from pytest_llmprobe.data import prose
from pytest_llmprobe.errors import CasesError

Language: TypeAlias = Literal["English", "French"]

PROMPT = "{instruction}\n\n{text}\n\nSummary:"

LANGUAGES: tuple[Language, ...] = ("English", "French")

INSTRUCTIONS = (
    "Summarize the following text in {language}.",
    "Write a short summary of this text in {language}.",
    "Please give a summary in {language} of the text below.",
    "Read the text and summarize it in {language}.",
    "In {language}, summarize what happens in the text.",
    "Summarize the text below. Write your answer in {language}.",
)


class Term(NamedTuple):
    """An English expression, with its article where it has one, and its French translation."""

    en: str
    fr: str  # the form for a man where there are two
    fr_feminine: str = ""  # the form for a woman, or empty where it is the same

    def french(self, female: bool) -> str:
        """The French form for a woman or a man."""
        return self.fr_feminine if female and self.fr_feminine else self.fr


def _terms(lexicon: str) -> tuple[Term, ...]:
    """The terms of a lexicon: ``english = french[ = french for a woman]``, semicolons between."""
    return tuple(Term(*entry.strip().split(" = ")) for entry in lexicon.split(";"))


PROFESSIONS = _terms("""
    an architect = un architecte = une architecte; a baker = un boulanger = une boulangère;
    a butcher = un boucher = une bouchère; a carpenter = un menuisier = une menuisière;
    a cook = un cuisinier = une cuisinière; a dancer = un danseur = une danseuse;
    a dentist = un dentiste = une dentiste; a driver = un conducteur = une conductrice;
    an electrician = un électricien = une électricienne;
    a farmer = un agriculteur = une agricultrice; a florist = un fleuriste = une fleuriste;
    a gardener = un jardinier = une jardinière; a hairdresser = un coiffeur = une coiffeuse;
    a jeweler = un bijoutier = une bijoutière; a journalist = un journaliste = une journaliste;
    a judge = un juge = une juge; a lawyer = un avocat = une avocate;
    a librarian = un bibliothécaire = une bibliothécaire;
    a mechanic = un mécanicien = une mécanicienne; a musician = un musicien = une musicienne;
    a nurse = un infirmier = une infirmière; a painter = un peintre = une peintre;
    a pharmacist = un pharmacien = une pharmacienne;
    a photographer = un photographe = une photographe; a pilot = un pilote = une pilote;
    a potter = un potier = une potière; a singer = un chanteur = une chanteuse;
    a student = un étudiant = une étudiante; a teacher = un enseignant = une enseignante;
    a translator = un traducteur = une traductrice
""")

# None with an article (Le Havre), so that "à" never contracts.
CITIES = _terms("""
    Athens = Athènes; Barcelona = Barcelone; Berlin = Berlin; Boston = Boston;
    Brussels = Bruxelles; Copenhagen = Copenhague; Dublin = Dublin; Edinburgh = Édimbourg;
    Florence = Florence; Geneva = Genève; Lisbon = Lisbonne; London = Londres; Lyon = Lyon;
    Madrid = Madrid; Milan = Milan; Montreal = Montréal; Moscow = Moscou; Oslo = Oslo;
    Paris = Paris; Prague = Prague; Rome = Rome; Stockholm = Stockholm; Venice = Venise;
    Vienna = Vienne; Warsaw = Varsovie
""")

OBJECTS = _terms("""
    a big mirror = un grand miroir; a big puppet = une grande marionnette;
    a black notebook = un carnet noir; a black piano = un piano noir;
    a blue lamp = une lampe bleue; a blue vase = un vase bleu;
    a brass bell = une cloche en laiton; a clay cup = une tasse en argile;
    a copper pot = une casserole en cuivre; a glass bottle = une bouteille en verre;
    a gold key = une clé en or; a gold watch = une montre en or;
    a green suitcase = une valise verte; a green umbrella = un parapluie vert;
    a heavy door = une lourde porte; a leather bag = un sac en cuir;
    a long ladder = une longue échelle; a new telescope = un nouveau télescope;
    a paper lantern = une lanterne en papier; a rare book = un livre rare;
    a red bicycle = un vélo rouge; a red car = une voiture rouge;
    a silk scarf = une écharpe en soie; a silver ring = une bague en argent;
    a silver spoon = une cuillère en argent; a small boat = un petit bateau;
    a small drum = un petit tambour; a small radio = une petite radio;
    a stone statue = une statue en pierre; a strange mask = un masque étrange;
    a straw basket = un panier en paille; a white hat = un chapeau blanc;
    a wooden box = une boîte en bois; a wooden chair = une chaise en bois;
    a wooden horse = un cheval en bois; a wool coat = un manteau en laine;
    a yellow kite = un cerf-volant jaune; an iron gate = une grille en fer;
    an old guitar = une vieille guitare; an old map = une vieille carte
""")

EVENTS = _terms("""
    borrowed = a emprunté; bought = a acheté; broke = a cassé; cleaned = a nettoyé;
    drew = a dessiné; forgot = a oublié; found = a trouvé; hid = a caché; lost = a perdu;
    painted = a peint; received = a reçu; repaired = a réparé; saw = a vu; sold = a vendu
""")

PLACES = _terms("""
    at the museum = au musée; at the market = au marché; behind the church = derrière l'église;
    in front of the station = devant la gare; in the garden = dans le jardin;
    in the library = dans la bibliothèque; near the harbor = près du port;
    near the river = près de la rivière; on the beach = sur la plage;
    under the bridge = sous le pont
""")

TIMES = _terms("""
    last autumn = l'automne dernier; last Monday = lundi dernier; last month = le mois dernier;
    last spring = le printemps dernier; last summer = l'été dernier;
    last week = la semaine dernière; last winter = l'hiver dernier; last year = l'année dernière
""")

MOODS = _terms("""
    angry = en colère; calm = calme; happy = heureux = heureuse; proud = fier = fière;
    sad = triste; surprised = surpris = surprise; tired = fatigué = fatiguée
""")


@dataclass(frozen=True)
class Facts:
    """What a story tells, and all that its summary may say."""

    hero: str
    female: bool
    profession: Term
    city: Term
    event: Term
    object: Term
    place: Term
    time: Term
    mood: Term

    def sentences(self) -> tuple[str, str, str, str]:
        """The sentences that carry the facts; the pronoun of the first tells the gender."""
        hero, pronoun = self.hero, "she" if self.female else "he"
        return (
            f"{hero} is {self.profession.en}, and {pronoun} lives in {self.city.en}.",
            f"{capitalized(self.time.en)}, {hero} {self.event.en} {self.object.en}.",
            f"{hero} was {self.place.en} when it happened.",
            f"In the end, {hero} was very {self.mood.en}.",
        )

    def english(self) -> str:
        """The summary in English."""
        pronoun = "she" if self.female else "he"
        return (
            f"{self.hero} is {self.profession.en} who lives in {self.city.en}. "
            f"{capitalized(self.time.en)}, {pronoun} {self.event.en} {self.object.en} "
            f"{self.place.en}, and in the end {pronoun} was very {self.mood.en}."
        )

    def french(self) -> str:
        """The summary in French."""
        pronoun = "elle" if self.female else "il"
        profession, mood = self.profession.french(self.female), self.mood.french(self.female)
        return (
            f"{self.hero} est {profession} qui habite à {self.city.fr}. "
            f"{capitalized(self.time.fr)}, {pronoun} {self.event.fr} {self.object.fr} "
            f"{self.place.fr}, et à la fin {pronoun} était très {mood}."
        )


@dataclass(frozen=True)
class Story:
    """An English text and its summaries."""

    pieces: tuple[str, ...]  # the sentences, in order
    facts: Facts  # what the summaries say
    summary_en: str  # two sentences, 20 to 40 words
    summary_fr: str

    @property
    def hero(self) -> str:
        """Whom the story is about."""
        return self.facts.hero

    @property
    def text(self) -> str:
        """The whole text on one line."""
        return " ".join(self.pieces)

    def summary(self, language: Language) -> str:
        """The reference summary in a language."""
        return self.summary_fr if language == "French" else self.summary_en


def capitalized(text: str) -> str:
    """The text with its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def story(rng: random.Random, sentences: int, *, held_out: bool = True) -> Story:
    """A story whose facts stand among filler sentences.

    Who it is about and what happened open the story; where it happened and how it ended follow, in
    this order, at random places among so many filler sentences. The hero's name is ``held_out``, of
    the part of the invented names that no training text uses, or of the other part.

    Raises:
        CasesError: ``sentences`` is negative.
    """
    if sentences < 0:
        raise CasesError(f"a story of {sentences} filler sentences: ask for 0 or more")
    hero = prose.made_up_name(rng, held_out=held_out)
    lexicon = (PROFESSIONS, CITIES, EVENTS, OBJECTS, PLACES, TIMES, MOODS)
    facts = Facts(hero, rng.random() < 0.5, *(rng.choice(terms) for terms in lexicon))
    who, what, where, end = facts.sentences()
    filler = [prose.sentence(rng) for _ in range(sentences)]
    first, second = sorted(rng.choices(range(sentences + 1), k=2))
    pieces = (who, what, *filler[:first], where, *filler[first:second], end, *filler[second:])
    return Story(pieces, facts, facts.english(), facts.french())


def topic(story: Story) -> str:
    """What the story is about: the hero's profession in English, without its article."""
    return story.facts.profession.en.split(" ", 1)[1]


def instruction(phrasing: str, language: Language) -> str:
    """One of `INSTRUCTIONS` with its language filled in."""
    return phrasing.format(language=language)


def capitals(instruction: str) -> str:
    """The instruction in capitals: the emphasis that GUIDE compares its own with."""
    return instruction.upper()


def important(instruction: str) -> str:
    """The instruction after ``IMPORTANT:``."""
    return f"IMPORTANT: {instruction}"


def prompt(text: str, instruction: str) -> str:
    """The whole prompt, its instruction at the head; the summary is to follow."""
    return PROMPT.format(instruction=instruction, text=text)
