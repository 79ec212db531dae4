"""Conversations about keys and values: the needle evaluations' own prompts, and some varied ones.

Each family draws the turns of one conversation: the first one brings a haystack that fills at most
about ``tokens`` tokens, later ones ask about the same haystack.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from pytest_llmprobe.experiments import needle

Turn = tuple[str, str]  # what the user says, what the assistant answers
PAIR = 37  # tokens of a pair in a haystack, about
DIRECTIONS: tuple[needle.Direction, ...] = ("forward", "backward", "random")

SINGLE = (
    "Extract the value corresponding to the specified key in the JSON object below.\n\n{haystack}",
    'Key: "{key}"\nCorresponding value:',
)
THREAD = (
    "The values of the JSON object below can be keys of other pairs. Starting from the specified "
    "key, look up its value; as long as the value is itself a key, look that up in turn. Give only "
    "the final value, which is not a key.\n\n{haystack}",
    'Key: "{key}"\nFinal value:',
)
BRANCHED = (
    "A key can occur several times in the JSON object below, and its values can be keys of other "
    "pairs. Starting from the specified key, look up all its values; as long as a value is itself "
    "a key, look that up in turn, every time it occurs. Give only the final value of the longest "
    "thread.\n\n{haystack}",
    'Key: "{key}"\nFinal value:',
)
MULTIPLE = (
    "Extract the values of the specified keys, in the order of the keys, from the JSON object "
    "below. Give one value a line.\n\n{haystack}",
    "{n} keys:\n{keys}\nCorresponding values:",
)
MULTI_THREAD = (
    "The values of the JSON object below can be keys of other pairs. Starting from each of the "
    "specified keys, look up its value; as long as the value is itself a key, look that up in "
    "turn. Give only the final values, which are not keys, in the order of the keys, one a line."
    "\n\n{haystack}",
    "{n} keys:\n{keys}\nFinal values:",
)
CONDITIONAL = (
    "Extract the values of all keys that contain the character '*' from the JSON object below. "
    "Give one value a line.\n\n{haystack}",
    "Keys: all that contain '*'\nCorresponding values:",
)
VARIED_INTRODUCTIONS = (
    "Below is a JSON object of key-value pairs.\n\n{haystack}",
    "Look up keys in this object:\n{haystack}",
    "{haystack}",
    "Here is a list of pairs.\n\n{haystack}",
)
VARIED_QUESTIONS = (
    'Key: "{key}"\nValue:',
    'What is the value of the key "{key}"?',
    'Return only the value for the key "{key}".',
    'd["{key}"] =',
)


def _haystack_size(tokens: int, rng: random.Random, share: float = 0.75) -> int:
    return rng.randint(2, max(2, min(60, int(tokens * share / PAIR))))


def _turns(form: tuple[str, str], haystack: str, asked: Iterator[Turn]) -> Iterator[Turn]:
    introduction, question = form
    for i, (keys, answer) in enumerate(asked):
        listed = keys.split("\n")
        text = question.format(key=listed[0], n=len(listed), keys=needle.render_keys(listed))
        if i == 0:
            text = introduction.format(haystack=haystack) + "\n\n" + text
        yield text, answer


def single(tokens: int, rng: random.Random) -> Iterator[Turn]:
    """Values of single keys; a quarter in other words and layouts than the evaluations use."""
    pairs = needle.random_pairs(_haystack_size(tokens, rng), rng)
    form, rendered = SINGLE, needle.render(pairs)
    if rng.random() < 0.25:
        form = (rng.choice(VARIED_INTRODUCTIONS), rng.choice(VARIED_QUESTIONS))
        rendered = rng.choice((rendered, "\n".join(f'"{k}": "{v}"' for k, v in pairs)))
    return _turns(form, rendered, ((pair.key, pair.value) for pair in _shuffled(pairs, rng)))


def _shuffled(items: tuple[needle.Pair, ...], rng: random.Random) -> Iterator[needle.Pair]:
    while True:
        yield from rng.sample(items, len(items))


def threads(tokens: int, rng: random.Random) -> Iterator[Turn]:
    """Several threads in one haystack; the question asks for the end of one, from any step on."""
    n = max(3, _haystack_size(tokens, rng))
    hops = min(rng.choice((1, 2, 2, 3, 3, 4, 5)), n)
    m = max(1, min(rng.randint(1, 4), n // hops))
    found = needle.multi_threads(n, hops, m, rng.choice(DIRECTIONS), rng)
    pairs = found[0].pairs

    def asked() -> Iterator[Turn]:
        while True:
            thread = rng.choice(found)
            start = thread.start if rng.random() < 0.6 else pairs[rng.choice(thread.positions)].key
            yield start, thread.target

    return _turns(THREAD, needle.render(pairs), asked())


def multiple(tokens: int, rng: random.Random) -> Iterator[Turn]:
    """Values of one to five keys, next to each other or not."""
    pairs = needle.random_pairs(max(6, _haystack_size(tokens, rng, 0.6)), rng)

    def asked() -> Iterator[Turn]:
        while True:
            n = rng.choice((1, 2, 2, 3, 3, 3, 4, 5))
            placement: needle.Placement = rng.choice(("random", "clustered"))
            some = [pairs[i] for i in needle.positions(len(pairs), n, placement, rng)]
            yield "\n".join(pair.key for pair in some), "\n".join(pair.value for pair in some)

    return _turns(MULTIPLE, needle.render(pairs), asked())


def multi_thread(tokens: int, rng: random.Random) -> Iterator[Turn]:
    """Ends of one to five threads at once."""
    n, hops = max(8, _haystack_size(tokens, rng, 0.6)), rng.choice((2, 3))
    m = rng.randint(2, min(5, n // hops))
    found = needle.multi_threads(n, hops, m, rng.choice(DIRECTIONS), rng)

    def asked() -> Iterator[Turn]:
        while True:
            some = rng.sample(found, rng.randint(1, m))
            yield "\n".join(t.start for t in some), "\n".join(t.target for t in some)

    return _turns(MULTI_THREAD, needle.render(found[0].pairs), asked())


def conditional(tokens: int, rng: random.Random) -> Iterator[Turn]:
    """Values of the keys with a star; how many there are is not told."""
    n = max(5, _haystack_size(tokens, rng, 0.7))
    marked = rng.choice((1, 1, 2, 2, 3, 4))
    places = sorted(needle.positions(n, marked, rng.choice(("random", "clustered")), rng))
    pairs = needle.mark_keys(needle.random_pairs(n, rng), places, rng)
    answer = "\n".join(pairs[place].value for place in places)
    return _turns(CONDITIONAL, needle.render(pairs), iter([("", answer)]))


def branched(tokens: int, rng: random.Random) -> Iterator[Turn]:
    """The end of the longest of several branches."""
    n, hops = max(5, _haystack_size(tokens, rng, 0.8)), rng.choice((2, 3))
    branches = min(rng.choice((2, 2, 3)), (n - 1) // (hops - 1))
    thread = needle.branched_thread(n, hops, branches, rng.choice(DIRECTIONS), rng)
    return _turns(BRANCHED, needle.render(thread.pairs), iter([(thread.start, thread.target)]))
