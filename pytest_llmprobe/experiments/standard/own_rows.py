"""Rows of our own, of common knowledge or made up, so that evals/standard runs without data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from pytest_llmprobe.data.rows import Row

_CHOICES = """
What is the capital of France?|Paris|Rome|Madrid|Vienna
What is the capital of Japan?|Tokyo|Beijing|Seoul|Bangkok
What is the capital of Egypt?|Cairo|Lagos|Tunis|Nairobi
What is the capital of Canada?|Ottawa|Toronto|Montreal|Vancouver
Which planet is nearest to the Sun?|Mercury|Mars|Jupiter|Neptune
Which planet is known for its wide rings?|Saturn|Venus|Earth|Mercury
Which of these is a mammal?|a whale|a shark|a trout|a crab
Which of these is a bird?|an owl|a bat|a bee|a moth
How many legs does a spider have?|eight|six|four|ten
How many legs does an ant have?|six|eight|four|two
How many minutes are there in an hour?|sixty|thirty|ninety|one hundred
How many days are there in a week?|seven|five|ten|twelve
Which colour do blue and yellow paint make together?|green|red|white|black
At what temperature in degrees Celsius does water boil at sea level?|100|50|200|75
At what temperature in degrees Celsius does water freeze?|0|32|10|100
What do bees make?|honey|milk|silk|wool
What do plants take in from the air?|carbon dioxide|helium|gold|sand
What is the opposite of cold?|hot|wet|dark|slow
What is the opposite of empty?|full|open|late|thin
What is ice made of?|water|glass|salt|iron
Which of these is a fruit?|an apple|a carrot|a potato|an onion
Which organ pumps blood through the body?|the heart|the liver|the skin|the stomach
Which sense do the ears serve?|hearing|taste|smell|sight
What does a thermometer measure?|temperature|weight|length|time
Which ocean lies between Europe and America?|the Atlantic|the Pacific|the Indian|the Arctic
Who wrote the play Hamlet?|William Shakespeare|Charles Dickens|Jane Austen|Homer
Which metal is liquid at room temperature?|mercury|iron|copper|silver
What is seven times eight?|fifty-six|forty-eight|sixty-four|forty-nine
Which season comes after winter?|spring|autumn|summer|the monsoon
What do you use to cut paper?|scissors|a spoon|a pillow|a cup
"""

_NAMES = ("Ida", "Tom", "Mara", "Ben", "Lena", "Paul", "Nora", "Finn")
_THINGS = ("apples", "stamps", "marbles", "books", "shells", "coins")

_TEXTS = (
    "Four score and seven years ago our fathers brought forth on this continent, a new nation, "
    "conceived in Liberty, and dedicated to the proposition that all men are created equal. Now we "
    "are engaged in a great civil war, testing whether that nation, or any nation so conceived and "
    "so dedicated, can long endure.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age "
    "of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the "
    "season of Light, it was the season of Darkness, it was the spring of hope, it was the winter "
    "of despair.",
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having "
    "nothing to do: once or twice she had peeped into the book her sister was reading, but it had "
    "no pictures or conversations in it, 'and what is the use of a book,' thought Alice 'without "
    "pictures or conversations?'",
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in "
    "my purse, and nothing particular to interest me on shore, I thought I would sail about a "
    "little and see the watery part of the world.",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
    "must be in want of a wife. However little known the feelings or views of such a man may be on "
    "his first entering a neighbourhood, this truth is so well fixed in the minds of the "
    "surrounding families, that he is considered as the rightful property of some one or other of "
    "their daughters.",
    "The ferry to the island leaves at nine and comes back at five. In summer there is a second "
    "boat in the afternoon. Tickets are sold on board, dogs travel free, and bicycles cost as much "
    "as a child.",
    "Fold the sheet in half, open it, and fold both upper corners to the middle line. Fold the "
    "point down, then the corners again, and hold them with the small triangle. The wings are "
    "folded last, so that they are level.",
    "Water that evaporates from the sea leaves its salt behind. The vapour rises, cools, and "
    "becomes the small drops of a cloud; when they have grown heavy enough they fall as rain, run "
    "into rivers, and come back to the sea.",
)

_TASKS: tuple[tuple[str, tuple[tuple[str, Mapping[str, Any]], ...]], ...] = (
    ("Describe a sunset by the sea", (("punctuation:no_comma", {}),)),
    ("Write about your favourite season", (("change_case:english_lowercase", {}),)),
    ("Announce the opening of a library", (("change_case:english_capital", {}),)),
    ("Tell a short story about a lost key", (("startend:quotation", {}),)),
    (
        "Explain how to boil an egg",
        (("detectable_format:number_bullet_lists", {"num_bullets": 3}),),
    ),
    ("Write a poem about the moon", (("detectable_format:title", {}),)),
    (
        "Give advice to somebody who cannot sleep",
        (("length_constraints:number_words", {"relation": "less than", "num_words": 40}),),
    ),
    (
        "Invite a friend to a picnic",
        (("keywords:existence", {"keywords": ["basket", "river"]}),),
    ),
    (
        "Describe your home town",
        (("keywords:forbidden_words", {"forbidden_words": ["city", "street"]}),),
    ),
    (
        "Write to your neighbour about the noise",
        (("detectable_content:postscript", {"postscript_marker": "P.S."}),),
    ),
    ("List three fruits", (("detectable_format:json_format", {}),)),
    (
        "Say whether cats like water",
        (("startend:end_checker", {"end_phrase": "That is all I know."}),),
    ),
)

_HOW: Mapping[str, str] = {
    "punctuation:no_comma": "Do not use any commas.",
    "change_case:english_lowercase": "Use lowercase letters only.",
    "change_case:english_capital": "Use capital letters only.",
    "startend:quotation": "Put your whole answer in double quotation marks.",
    "detectable_format:number_bullet_lists": "Use exactly {num_bullets} bullet points, such as:\n"
    "* This is a point.",
    "detectable_format:title": "Give it a title in double angular brackets, such as <<the sea>>.",
    "length_constraints:number_words": "Answer with {relation} {num_words} words.",
    "keywords:existence": "Use the words {keywords}.",
    "keywords:forbidden_words": "Do not use the words {forbidden_words}.",
    "detectable_content:postscript": "Add a postscript that begins with {postscript_marker}",
    "detectable_format:json_format": "Give your whole answer as JSON, in a code block or without.",
    "startend:end_checker": "End with exactly this phrase and nothing after it: {end_phrase}",
}


def choice_rows() -> Iterator[Row]:
    """Questions with four choices, half of them in letters."""
    lines = _CHOICES.strip().splitlines()
    for number, line in enumerate(lines):
        question, *choices = line.split("|")
        right = choices[0]
        Random(number).shuffle(choices)
        row: dict[str, Any] = {"target": right, "choices": choices}
        if number % 2:
            listed = "".join(f"{at}. {text}\n" for at, text in zip("ABCD", choices, strict=True))
            row = {"choices": list("ABCD"), "target": choices.index(right)}
            prompt = f"{question}\n{listed}Answer:"
        else:
            prompt = f"Question: {question}\nAnswer:"
            row["unconditional"] = "Answer:"
        yield f"our own row {number + 1}", row | {"prompt": prompt}


def word_problems(count: int = 30) -> Iterator[Row]:
    """Problems of arithmetic in the layout of GSM8K, made up; always the same."""
    for number in range(count):
        rng = Random(f"word problem {number}")
        (who, other), thing = rng.sample(_NAMES, 2), rng.choice(_THINGS)
        a, b, c = rng.randint(5, 60), rng.randint(2, 9), rng.randint(2, 9)
        kind = number % 3
        if kind == 0:
            question = (
                f"{who} has {a} {thing}. {other} brings {b} bags with {c} {thing} each. How many "
                f"{thing} do they have together?"
            )
            steps, result = f"{b} * {c} = {b * c}, and {a} + {b * c} = {a + b * c}.", a + b * c
        elif kind == 1:
            question = (
                f"{who} had {a + b * c} {thing} and gave {b} friends {c} {thing} each. How many "
                f"{thing} are left?"
            )
            steps, result = f"{b} * {c} = {b * c}, and {a + b * c} - {b * c} = {a}.", a
        else:
            question = (
                f"{who} packs {b * c} {thing} into boxes of {c}. Each box costs {a} cents. How "
                "many cents do all boxes cost?"
            )
            steps, result = f"{b * c} / {c} = {b}, and {b} * {a} = {b * a}.", b * a
        answer = f"{steps}\n#### {result}"
        yield f"our own row {number + 1}", {"question": question, "answer": answer}


def instruction_rows() -> Iterator[Row]:
    """Tasks in the layout of IFEval: each alone, then with the next one's instruction too."""
    for number in range(2 * len(_TASKS)):
        task, checks = _TASKS[number % len(_TASKS)]
        if number >= len(_TASKS):
            other = _TASKS[(number + 4) % len(_TASKS)][1]
            pair = {checks[0][0], other[0][0]}
            if pair != {"startend:quotation", "detectable_format:json_format"}:
                checks = (*checks, *other)
        names, arguments = [name for name, _ in checks], [dict(given) for _, given in checks]
        said = " ".join(_said(name, given) for name, given in checks)
        yield (
            f"our own row {number + 1}",
            {"prompt": f"{task}. {said}", "instruction_id_list": names, "kwargs": arguments},
        )


def _said(name: str, given: Mapping[str, Any]) -> str:
    shown = {
        key: " and ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in given.items()
    }
    return _HOW[name].format(**shown)


def texts() -> tuple[str, ...]:
    """Passages that are in the public domain, and some that were written for this."""
    return _TEXTS
