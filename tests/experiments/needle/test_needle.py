"""One needle and one thread: what is built can be solved, what is answered is judged fairly."""

import importlib.util
import json
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.case import Case
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.experiments.needle import Pair
from pytest_llmprobe.generation import Completion, Timings, Usage
from pytest_llmprobe.suite import Suite

EVALS = Path(__file__).parents[3] / "evals" / "needle"
VERSION_4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

many = settings(deadline=None, max_examples=200)
seeds = st.integers(0, 2**32)
sizes = st.integers(1, 60)
directions = st.sampled_from(["forward", "backward", "random"])


@st.composite
def threads(draw):
    n = draw(sizes)
    hops, direction, seed = draw(st.integers(1, n)), draw(directions), draw(seeds)
    return needle.thread(n, hops, direction, random.Random(seed)), hops, direction, seed


def load_eval(name):
    spec = importlib.util.spec_from_file_location(f"evals_needle_{name}", EVALS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SINGLE, THREADING = load_eval("test_single_needle"), load_eval("test_threading")


# Builders


@many
@given(sizes, seeds)
def test_all_uuids_of_a_haystack_differ_and_are_version_4(n, seed):
    pairs = needle.random_pairs(n, random.Random(seed))
    uuids = [uuid for pair in pairs for uuid in pair]
    assert len(pairs) == n
    assert len(set(uuids)) == 2 * n
    assert all(map(VERSION_4.fullmatch, uuids))


def test_a_uuid_that_is_drawn_twice_is_drawn_again():
    class Stuck(random.Random):
        drawn = iter([1, 1, 2, 1, 3, 4])

        def getrandbits(self, k):
            return next(self.drawn)

    pairs = needle.random_pairs(2, Stuck())
    assert [int(uuid[-1]) for pair in pairs for uuid in pair] == [1, 2, 3, 4]


@many
@given(sizes, st.integers(0, 100))
def test_a_depth_is_a_place_in_the_haystack_as_near_as_can_be(n, depth):
    place = needle.position(depth, n)
    assert 0 <= place < n
    assert abs(place - depth / 100 * (n - 1)) <= 0.5


def test_depths_reach_from_the_first_pair_to_the_last():
    assert [needle.position(depth, 5) for depth in (0, 25, 50, 75, 100)] == [0, 1, 2, 3, 4]


@many
@given(threads())
def test_each_value_of_a_thread_is_the_next_ones_key(built):
    thread, hops, _, _ = built
    followed = [thread.pairs[place] for place in thread.positions]
    assert len(set(thread.positions)) == hops
    assert all(before.value == after.key for before, after in pairwise(followed))
    assert (thread.start, thread.target) == (followed[0].key, followed[-1].value)


@many
@given(threads())
def test_the_positions_of_a_thread_obey_its_direction(built):
    thread, _, direction, _ = built
    places = list(thread.positions)
    if direction != "random":
        assert places == sorted(places, reverse=direction == "backward")


def test_a_random_direction_goes_both_ways():
    orders = {needle.thread(3, 3, "random", random.Random(seed)).positions for seed in range(100)}
    assert len(orders) == 6


@many
@given(threads())
def test_no_key_and_no_value_occurs_twice_but_the_links_of_the_thread(built):
    thread, hops, _, _ = built
    keys = [pair.key for pair in thread.pairs]
    values = [pair.value for pair in thread.pairs]
    assert len(set(keys)) == len(keys)
    assert len(set(values)) == len(values)
    assert len(set(keys) & set(values)) == hops - 1
    assert thread.target not in keys
    assert [*keys, *values].count(thread.start) == 1


@many
@given(threads())
def test_only_the_keys_along_the_thread_are_overwritten(built):
    thread, hops, _, seed = built
    rng = random.Random(seed)
    n = len(thread.pairs)
    rng.sample(range(n), hops)  # the positions
    untouched = needle.random_pairs(n, rng)
    overwritten = set(thread.positions[1:])
    for place, (pair, original) in enumerate(zip(thread.pairs, untouched, strict=True)):
        assert pair.value == original.value
        assert (pair.key == original.key) == (place not in overwritten)


@pytest.mark.parametrize(("n", "hops"), [(5, 6), (5, 0), (5, -1), (0, 1)])
def test_a_thread_that_does_not_fit_is_refused_with_the_numbers(n, hops):
    with pytest.raises(CasesError, match=f"{hops} pairs .* {n}"):
        needle.thread(n, hops, "forward", random.Random(0))


def test_an_unknown_direction_is_refused():
    with pytest.raises((CasesError, ValueError), match="backwards"):
        needle.thread(5, 3, "backwards", random.Random(0))


# Rendering and reading


@many
@given(threads())
def test_a_rendered_haystack_reads_back_as_the_same_list(built):
    pairs = built[0].pairs
    text = needle.render(pairs)
    assert needle.read_haystack(f"Here:\n{text}\nKey: ...") == pairs
    assert [Pair(*pair) for pair in json.loads(text, object_pairs_hook=list)] == list(pairs)
    assert len(text) == 80 * len(pairs)
    assert "\n" not in text


def test_duplicate_keys_survive_rendering_and_reading():
    pairs = (Pair("a", "b"), Pair("a", "c"))
    assert needle.read_haystack(needle.render(pairs)) == pairs


@pytest.mark.parametrize(
    "text", ["", "no object", '{"a": "b"', "{a: b}", '{"a": 1}', '{"a": {"b": "c"}}', '{"a": null}']
)
def test_what_is_no_object_of_string_pairs_is_no_haystack(text):
    with pytest.raises(CasesError, match="no JSON object of pairs"):
        needle.read_haystack(text)


@pytest.mark.parametrize("after", ["", "no uuid", "two"])
def test_a_question_for_one_key_that_names_none_or_several_is_refused(after):
    pairs = needle.random_pairs(3, random.Random(0))
    asked = f"{pairs[0].key} {pairs[1].key}" if after == "two" else after
    with pytest.raises(CasesError, match="0 keys" if after != "two" else "2 keys"):
        needle.read_question(f"{needle.render(pairs)}\nKey: {asked}")


@pytest.mark.parametrize("after", ["", "no uuid", "all that contain *"])
def test_a_prompt_that_asks_for_nothing_is_refused(after):
    pairs = needle.random_pairs(3, random.Random(0))
    with pytest.raises(CasesError, match="0 keys"):
        needle.solve(f"{needle.render(pairs)}\nKeys: {after}")


def test_a_key_that_is_not_in_the_haystack_cannot_be_solved():
    pairs = needle.random_pairs(3, random.Random(0))
    with pytest.raises(CasesError, match=f"{pairs[0].value} is not in the haystack"):
        needle.solve(f"{needle.render(pairs[1:])}\nKey: {pairs[0].value}")


def test_a_circle_is_followed_once_around():
    circle = [Pair("a", "b"), Pair("b", "c"), Pair("c", "a")]
    assert needle.follow(circle, "a") == ["b", "c", "a"]
    assert needle.follow([Pair("a", "a")], "a") == ["a"]


def test_nothing_is_met_from_an_unknown_key():
    assert needle.follow([Pair("a", "b")], "x") == []


# The reference solver answers what the evaluations ask


@many
@given(threads())
def test_the_solver_answers_the_threading_prompt(built):
    thread = built[0]
    prompt = THREADING.PROMPT.format(haystack=needle.render(thread.pairs), key=thread.start)
    assert needle.solve(prompt) == thread.target
    assert needle.solve([{"role": "user", "content": prompt}]) == thread.target


@many
@given(sizes, seeds, st.data())
def test_the_solver_answers_the_single_needle_prompt_at_every_place(n, seed, data):
    pairs = needle.random_pairs(n, random.Random(seed))
    key, value = pairs[data.draw(st.integers(0, n - 1))]
    prompt = SINGLE.PROMPT.format(haystack=needle.render(pairs), key=key)
    assert needle.solve(prompt) == value


def test_the_solver_passes_through_every_value_of_the_thread():
    thread = needle.thread(20, 6, "random", random.Random(1))
    met = needle.follow(thread.pairs, thread.start)
    assert met == [thread.pairs[place].value for place in thread.positions]


def test_the_cases_of_a_group_share_their_haystack_and_ask_at_its_depths():
    haystacks = {}
    for case in SINGLE.single_needles(Suite("ci")):
        pairs = needle.read_haystack(case.prompt)
        assert haystacks.setdefault(case.group, pairs) == pairs
        asked = [pair.key for pair in pairs].index(needle.read_question(case.prompt))
        assert asked == needle.position(case.metadata["depth"], len(pairs))
    assert len(set(haystacks.values())) == len(haystacks) == 4 * 5


def test_threads_have_the_hops_and_the_direction_that_their_case_says():
    for case in THREADING.threads(Suite("ci")):
        pairs = needle.read_haystack(case.prompt)
        path = needle.follow(pairs, needle.read_question(case.prompt))
        assert len(path) == case.metadata["hops"]
        places = [[pair.value for pair in pairs].index(value) for value in path]
        direction = case.metadata["direction"]
        if direction != "random":
            assert places == sorted(places, reverse=direction == "backward")


def test_threads_that_have_no_room_are_left_out_and_not_shortened(monkeypatch):
    monkeypatch.setitem(THREADING.SIZES, "full", needle.pairs(20, 30))
    cells = {
        (case.metadata["size"], case.metadata["hops"])
        for case in THREADING.threads(Suite("full", trials=1))
    }
    assert (30, 25) in cells
    assert (20, 25) not in cells
    assert len(cells) == 12 + 11


# Answers


THREAD = needle.thread(8, 4, "forward", random.Random(11))
CASE = Case(
    "t",
    THREADING.PROMPT.format(haystack=needle.render(THREAD.pairs), key=THREAD.start),
    THREAD.target,
)
START, TARGET = THREAD.start, THREAD.target
MET = needle.follow(THREAD.pairs, START)
OFF = next(pair for place, pair in enumerate(THREAD.pairs) if place not in THREAD.positions)
INVENTED = "01234567-89ab-4cde-8f01-23456789abcd"


def completion(text, finish_reason="stop"):
    return Completion(text, (), finish_reason, Usage(1, 1), Timings(0.1, 1), "0" * 16)


def answer(text):
    return needle.parse_answer(completion(text))


def judge(text, finish_reason="stop", case=CASE):
    scores = {}
    return needle.judge(case, completion(text, finish_reason), scores.__setitem__), scores


CORRECT = {
    "alone": TARGET,
    "quoted": f'"{TARGET}"',
    "in a sentence": f"The final value is {TARGET}.",
    "upper case": TARGET.upper(),
    "in braces": f"{{{TARGET}}}",
    "in a JSON object": f'{{"value": "{TARGET}"}}',
    "bold": f"**{TARGET}**",
    "in a code block": f"```\n{TARGET}\n```",
    "a bullet": f"- {TARGET}",
    "said twice": f"{TARGET}\n{TARGET.upper()}",
    "as a URN": f"urn:uuid:{TARGET}",
    "before half a repetition": f"{TARGET} {TARGET[:20]}",
    "in a JSON object that does not end": f'{{"value": "{TARGET}"',
    "in a fence in a fence": f"```\n```json\n{TARGET}\n```\n```",
    "with a comment and a trailing comma": f'["{TARGET}",] // the value',
    "beside NaN": f"NaN, {TARGET}, null",
    "as the value of a key that occurs twice": f'{{"v": "{TARGET}", "v": "{TARGET}"}}',
    "after a megabyte of open braces": "{" * 1_000_000 + TARGET,
    "without a gap to the hyphens around it": f"-{TARGET}-",
    "typographic hyphens": TARGET.replace("-", "\u2011"),
    "other hyphens": TARGET.replace("-", "\u2010"),
    "en dashes": TARGET.replace("-", "\u2013"),
    "minus signs": TARGET.replace("-", "\u2212"),
    "escaped hyphens": TARGET.replace("-", "\\-"),
    "hyphens as entities": TARGET.replace("-", "&#8209;"),
    "quotes as entities": f"&quot;{TARGET}&quot;",
    "escaped quotes": f"\\u0022{TARGET}\\u0022",
    "soft hyphens and a byte order mark": "\ufeff" + TARGET.replace("-", "-\u00ad"),
    "wrapped at a hyphen": TARGET[:19] + "\n  " + TARGET[19:],
    "wrapped anywhere": f"The value is {TARGET[:11]}\n{TARGET[11:]}.",
    "German quotes": f"\u201e{TARGET}\u201c",
    "Chinese around it": f"\u7b54\u6848\u662f{TARGET}\u3002",
    "boxed": f"\\boxed{{\\text{{{TARGET}}}}}",
    "the key, then the value": f"{START}: {TARGET}",
    "the value, then the key": f"{TARGET} for {START}",
    "an arrow without spaces": f"{START}->{TARGET}",
    "a long arrow": f"{START}-->{TARGET}",
    "a dash without spaces": f"{START}\u2013{TARGET}",
    "an em dash": f"{START}\u2014{TARGET}\u2014the end",
    "the key in typographic hyphens": f"{START.replace('-', chr(0x2011))}: {TARGET}",
    "the question echoed": f'Key: "{START}"\nFinal value: {TARGET}',
    "the haystack echoed": f"{needle.render(THREAD.pairs)}\n\nKey: {START}\n{TARGET}",
    "the whole way": " -> ".join(MET),
    "the whole way and the start": " -> ".join([START, *MET]),
    "the value, then the way": f"{TARGET}. From {START} to {MET[0]}, then {MET[1]}, then {MET[2]}.",
    "steps that are denied": f"It is not {MET[2]}, which is a key, but {TARGET}.",
    "an apology": f"I apologize, I was not sure. It is {TARGET}.",
    "not a key": f"{TARGET} is not a key, so it is the final value.",
}


@pytest.mark.parametrize("finish_reason", ["stop", "length", "stop_string"])
@pytest.mark.parametrize("text", CORRECT.values(), ids=CORRECT.keys())
def test_an_answer_with_the_target_and_no_other_value_passes(text, finish_reason):
    verdict, scores = judge(text, finish_reason)
    assert verdict.values == (TARGET,)
    assert verdict.correct
    assert verdict.explanation.startswith("correct:")
    assert set(scores) == {"strict", "contains"}


STRICT = ("alone", "quoted", "upper case", "in braces", "bold", "in a code block", "a bullet")


def test_strict_is_nothing_but_the_value_and_contains_is_its_text():
    for name, text in CORRECT.items():
        _, scores = judge(text)
        assert scores["contains"] == (TARGET in text.lower())
        if name in STRICT:
            assert scores["strict"] == 1
    for name in ("in a sentence", "the key, then the value", "the whole way", "a dash without"):
        text = next(text for known, text in CORRECT.items() if known.startswith(name))
        assert judge(text)[1]["strict"] == 0
    assert judge(f"{TARGET} or {INVENTED}")[1] == {"strict": 0, "contains": 1}
    assert judge(INVENTED)[1] == {"strict": 0, "contains": 0}


# name: (text, finish reason, the first UUID, the word of the taxonomy)
WRONG = {
    "empty": ("", "stop", None, "no_uuid"),
    "a refusal": ("I cannot find it.", "stop", None, "no_uuid"),
    "no tokens left": ("Let me see: first", "length", None, "cut_off"),
    "a truncated uuid": (TARGET[:-1], "stop", None, "no_uuid"),
    "a uuid cut off by the limit": (TARGET[:30], "length", None, "cut_off"),
    "a uuid without its start": (TARGET[1:], "stop", None, "no_uuid"),
    "a uuid without hyphens": (TARGET.replace("-", ""), "stop", None, "no_uuid"),
    "a uuid with a letter beyond hex": ("g" + TARGET[1:], "stop", None, "no_uuid"),
    "a uuid broken by spaces": (TARGET.replace("-", " - "), "stop", None, "no_uuid"),
    "a uuid glued to a hex digit before it": (f"a{TARGET}", "stop", None, "no_uuid"),
    "a uuid glued to a hex digit after it": (f"{TARGET}0", "stop", None, "no_uuid"),
    "a uuid glued to an upper-case digit": (f"{TARGET}F", "stop", None, "no_uuid"),
    "two uuids without a gap": (f"{TARGET}{TARGET}", "stop", None, "no_uuid"),
    "the key": (START, "stop", START, "start_key"),
    "the key in upper case": (START.upper(), "stop", START, "start_key"),
    "the first value": (MET[0], "stop", MET[0], "stopped_3_hops_early"),
    "the last but one": (MET[2], "stop", MET[2], "stopped_1_hops_early"),
    "the way without its end": (" -> ".join(MET[:-1]), "stop", MET[0], "stopped_1_hops_early"),
    "the key, then half a value": (f"{START}: {TARGET[:18]}", "stop", START, "start_key"),
    "the key, cut off": (f"{START}: {TARGET[:18]}", "length", START, "cut_off"),
    "the way, cut off": (" -> ".join(MET[:-1]), "length", MET[0], "cut_off"),
    "a step or the value": (f"{MET[2]} or {TARGET}", "stop", MET[2], "hedged"),
    "the value or a step": (f"**{TARGET}**, or maybe {MET[2]}", "stop", TARGET, "hedged"),
    "the key or the value": (f"either {START} or {TARGET}", "stop", START, "hedged"),
    "denied": (f"It is not {TARGET}.", "stop", TARGET, "denied"),
    "denied in quotes": (
        f"The value isn\u2019t the \u201c{TARGET}\u201d",
        "stop",
        TARGET,
        "denied",
    ),
    "denied afterwards": (f"{TARGET} is not the right value", "stop", TARGET, "denied"),
    "called wrong": (f"`{TARGET}` is wrong.", "stop", TARGET, "denied"),
    "one digit changed": (
        f"{'0' if TARGET[0] != '0' else '1'}{TARGET[1:]}",
        "stop",
        f"{'0' if TARGET[0] != '0' else '1'}{TARGET[1:]}",
        "invented_uuid",
    ),
    "another value": (OFF.value, "stop", OFF.value, "other_value_in_haystack"),
    "another key": (OFF.key, "stop", OFF.key, "other_key_in_haystack"),
    "two candidates": (
        f"{TARGET} or {OFF.value}",
        "stop",
        TARGET,
        "other_value_in_haystack",
    ),
    "an invented uuid": (INVENTED, "stop", INVENTED, "invented_uuid"),
    "a megabyte of open braces": ("{" * 1_000_000, "stop", None, "no_uuid"),
    "wrong, then out of tokens": (f"{INVENTED}, no", "length", INVENTED, "invented_uuid"),
    "right, then wrong, then out of tokens": (
        f"{TARGET}, or {INVENTED}, or",
        "length",
        TARGET,
        "invented_uuid",
    ),
}


@pytest.mark.parametrize(("text", "finish_reason", "first", "word"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_misses_and_says_how(text, finish_reason, first, word):
    verdict, _ = judge(text, finish_reason)
    assert not verdict.correct
    assert answer(text).first == first
    assert verdict.explanation.partition(":")[0] == word


def test_an_explanation_names_the_uuid_that_is_wrong():
    assert INVENTED in judge(f"{TARGET} {INVENTED}")[0].explanation


def test_a_haystack_that_is_one_thread_is_no_answer_when_it_is_echoed():
    thread = needle.thread(4, 4, "forward", random.Random(5))
    haystack = needle.render(thread.pairs)
    prompt = THREADING.PROMPT.format(haystack=haystack, key=thread.start)
    case = Case("t", prompt, thread.target)
    assert not judge(haystack, case=case)[0].correct
    assert judge(f"{haystack} {thread.target}", case=case)[0].correct


def test_uuids_are_given_in_their_order_and_in_lower_case():
    text = f"{OFF.key.upper()} {TARGET} {START}"
    assert answer(text).uuids == (OFF.key, TARGET, START)


@many
@given(seeds, st.integers(1, 35))
def test_no_part_of_a_uuid_counts(seed, length):
    uuid = needle.random_pairs(1, random.Random(seed))[0].key
    assert answer(uuid[:length]).uuids == ()
    assert answer(uuid[-length:]).uuids == ()


@many
@given(seeds, st.text(max_size=20), st.text(max_size=20))
def test_a_uuid_between_spaces_is_found_whatever_surrounds_it(seed, before, after):
    uuid = needle.random_pairs(1, random.Random(seed))[0].key
    assert answer(f"{before} {uuid.upper()} {after}").uuids == (uuid,)
