"""Several needles and threads: how they are built, and how a list of answers is scored."""

import random
import time
from itertools import combinations, pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.case import Case
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.generation import Completion, Timings, Usage

many = settings(deadline=None, max_examples=200)
seeds = st.integers(0, 2**32)
directions = st.sampled_from(["forward", "backward", "random"])


# Where needles lie, and which keys are marked


@many
@given(st.integers(1, 60), seeds, st.sampled_from(["random", "clustered"]), st.data())
def test_needles_are_different_places_and_a_cluster_has_no_gap(n, seed, placement, data):
    count = data.draw(st.integers(1, n))
    places = needle.positions(n, count, placement, random.Random(seed))
    assert len(set(places)) == len(places) == count
    assert all(0 <= place < n for place in places)
    if placement == "clustered":
        assert max(places) - min(places) == count - 1


@pytest.mark.parametrize("placement", ["random", "clustered"])
def test_every_place_and_every_order_can_come(placement):
    drawn = {needle.positions(4, 2, placement, random.Random(seed)) for seed in range(300)}
    near = {(a, b) for a, b in permutations(range(4), 2) if abs(a - b) == 1}
    assert drawn == (near if placement == "clustered" else set(permutations(range(4), 2)))


@pytest.mark.parametrize("count", [-1, 0, 6])
@pytest.mark.parametrize("placement", ["random", "clustered"])
def test_needles_that_do_not_fit_are_refused_with_the_numbers(count, placement):
    with pytest.raises(CasesError, match=f"{count} needles .* 5 pairs"):
        needle.positions(5, count, placement, random.Random(0))


def test_an_unknown_placement_is_refused():
    with pytest.raises(CasesError, match="'spread'"):
        needle.positions(5, 2, "spread", random.Random(0))


@many
@given(st.integers(1, 60), seeds, st.data())
def test_a_marked_key_has_one_star_in_place_of_a_hex_digit(n, seed, data):
    rng = random.Random(seed)
    pairs = needle.random_pairs(n, rng)
    places = needle.positions(n, data.draw(st.integers(1, n)), "random", rng)
    marked = needle.mark_keys(pairs, places, rng)
    for place, (before, after) in enumerate(zip(pairs, marked, strict=True)):
        changed = [(a, b) for a, b in zip(before.key, after.key, strict=True) if a != b]
        assert after.value == before.value
        assert len(changed) == (place in places)
        assert all(old in "0123456789abcdef" and new == "*" for old, new in changed)
    assert len({pair.key for pair in marked}) == n
    assert needle.read_haystack(needle.render(marked)) == marked
    assert len(needle.render(marked)) == 80 * n


def test_keys_that_differ_in_one_digit_stay_different_when_they_are_marked():
    base = "00000000-0000-4000-8000-00000000000"
    pairs = [needle.Pair(f"{base}{digit}", f"value {digit}") for digit in "0123456789"]
    for seed in range(100):
        marked = needle.mark_keys(pairs, range(10), random.Random(seed))
        assert len({pair.key for pair in marked}) == 10
        assert all(pair.key.count("*") == 1 for pair in marked)


# Several threads


@st.composite
def several(draw):
    n = draw(st.integers(1, 60))
    hops = draw(st.integers(1, n))
    count, direction, seed = draw(st.integers(1, n // hops)), draw(directions), draw(seeds)
    threads = needle.multi_threads(n, hops, count, direction, random.Random(seed))
    return threads, n, hops, count, direction, seed


@many
@given(several())
def test_threads_share_a_haystack_and_no_pair(built):
    threads, n, hops, count, direction, _ = built
    assert len(threads) == count
    assert len({thread.pairs for thread in threads}) == 1
    assert len(threads[0].pairs) == n
    assert len({place for thread in threads for place in thread.positions}) == hops * count
    for thread in threads:
        followed = [thread.pairs[place] for place in thread.positions]
        assert all(before.value == after.key for before, after in pairwise(followed))
        if direction != "random":
            reverse = direction == "backward"
            assert list(thread.positions) == sorted(thread.positions, reverse=reverse)


@many
@given(several())
def test_only_the_links_of_several_threads_occur_twice(built):
    threads, _, hops, count, _, _ = built
    keys, values = zip(*threads[0].pairs, strict=True)
    assert len(set(keys)) == len(keys)
    assert len(set(values)) == len(values)
    assert len(set(keys) & set(values)) == count * (hops - 1)
    assert not {thread.target for thread in threads} & set(keys)
    assert not {thread.start for thread in threads} & set(values)


@many
@given(several())
def test_pairs_off_several_threads_are_untouched(built):
    threads, n, hops, count, _, seed = built
    rng = random.Random(seed)
    rng.sample(range(n), hops * count)  # the positions
    overwritten = {place for thread in threads for place in thread.positions[1:]}
    for place, (pair, original) in enumerate(
        zip(threads[0].pairs, needle.random_pairs(n, rng), strict=True)
    ):
        assert pair.value == original.value
        assert (pair.key == original.key) == (place not in overwritten)


@many
@given(st.integers(1, 40), seeds, directions, st.data())
def test_one_of_several_threads_is_a_thread(n, seed, direction, data):
    hops = data.draw(st.integers(1, n))
    (one,) = needle.multi_threads(n, hops, 1, direction, random.Random(seed))
    assert one == needle.thread(n, hops, direction, random.Random(seed))


@pytest.mark.parametrize(("hops", "count"), [(3, 4), (11, 1), (0, 2), (2, 0), (-1, -1), (6, 2)])
def test_threads_that_do_not_fit_are_refused_with_the_numbers(hops, count):
    with pytest.raises(CasesError, match=f"{count} x {hops} pairs .* 10"):
        needle.multi_threads(10, hops, count, "forward", random.Random(0))


# Branched threads


@st.composite
def branched(draw):
    n = draw(st.integers(3, 60))
    hops = draw(st.integers(2, (n + 1) // 2))
    branches = draw(st.integers(2, (n - 1) // (hops - 1)))
    direction, seed = draw(directions), draw(seeds)
    thread = needle.branched_thread(n, hops, branches, direction, random.Random(seed))
    return thread, n, hops, branches, direction, seed


def steps_of(thread):
    """For each step of the thread the places of all pairs that carry its key."""
    keys = [pair.key for pair in thread.pairs]
    return [
        [place for place, key in enumerate(keys) if key == thread.pairs[at].key]
        for at in thread.positions
    ]


@many
@given(branched())
def test_each_step_but_the_last_has_all_its_branches_and_one_goes_on(built):
    thread, _, hops, branches, _, _ = built
    steps = steps_of(thread)
    assert [len(step) for step in steps] == [branches] * (hops - 1) + [1]
    keys = {pair.key for pair in thread.pairs}
    for step, at in zip(steps[:-1], thread.positions, strict=False):
        assert [place for place in step if thread.pairs[place].value in keys] == [at]
    followed = [thread.pairs[place] for place in thread.positions]
    assert all(before.value == after.key for before, after in pairwise(followed))
    assert thread.target not in keys


@many
@given(branched())
def test_all_pairs_of_a_step_lie_beyond_those_of_the_step_before(built):
    thread, _, _, _, direction, _ = built
    for before, after in pairwise(steps_of(thread)):
        if direction == "forward":
            assert max(before) < min(after)
        elif direction == "backward":
            assert min(before) > max(after)


@many
@given(branched())
def test_pairs_off_a_branched_thread_are_untouched(built):
    thread, n, hops, branches, _, seed = built
    rng = random.Random(seed)
    rng.sample(range(n), branches * (hops - 1) + 1)
    for _ in range(hops - 1):
        rng.choice(range(branches))
    rng.choice([0])
    original = needle.random_pairs(n, rng)
    on_thread = {place for step in steps_of(thread) for place in step}
    assert len(on_thread) == branches * (hops - 1) + 1
    for place, (pair, before) in enumerate(zip(thread.pairs, original, strict=True)):
        assert pair.value == before.value
        assert place in on_thread or pair.key == before.key
    keys, values = zip(*thread.pairs, strict=True)
    assert len(set(values)) == n
    assert len(set(keys) & set(values)) == hops - 1
    assert thread.start not in values


def test_the_branch_that_goes_on_may_be_any():
    drawn = {
        steps_of(thread)[0].index(thread.positions[0])
        for thread in (
            needle.branched_thread(7, 3, 3, "forward", random.Random(seed)) for seed in range(100)
        )
    }
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize(
    ("n", "hops", "branches", "words"),
    [
        (9, 1, 2, "1 hops with 2 branches: use 2"),
        (9, 2, 1, "2 hops with 1 branches: use 2"),
        (9, 5, 3, "13 pairs; they do not fit into a haystack of 9"),
        (2, 2, 2, "3 pairs; they do not fit into a haystack of 2"),
    ],
)
def test_a_branched_thread_that_cannot_be_is_refused(n, hops, branches, words):
    with pytest.raises(CasesError, match=words):
        needle.branched_thread(n, hops, branches, "forward", random.Random(0))


@pytest.mark.parametrize("build", [needle.multi_threads, needle.branched_thread])
def test_an_unknown_direction_is_refused(build):
    with pytest.raises(CasesError, match="backwards"):
        build(9, 2, 2, "backwards", random.Random(0))


# Scores of a list


def scores_of(items, targets, **options):
    return needle.list_scores(list(items), list(targets), **options)


@pytest.mark.parametrize(
    ("items", "precision", "recall", "ordered"),
    [
        ("abcd", 1, 1, 4),
        ("dcba", 1, 1, 1),
        ("bacd", 1, 1, 3),
        ("bcda", 1, 1, 3),
        ("", 0, 0, 0),
        ("xyz", 0, 0, 0),
        ("acd", 1, 3 / 4, 3),  # one missing puts no other out of place
        ("axbcd", 4 / 5, 1, 4),  # neither does one too many
        ("dxa", 2 / 3, 2 / 4, 1),
    ],
)
def test_the_items_of_a_list_are_scored_as_a_set_and_in_order(items, precision, recall, ordered):
    scores = scores_of(items, "abcd")
    assert scores["precision"] == pytest.approx(precision)
    assert scores["recall"] == pytest.approx(recall)
    assert scores["ordered_precision"] == pytest.approx(ordered / len(items) if items else 0)
    assert scores["ordered_recall"] == pytest.approx(ordered / 4)
    for prefix in ("", "ordered_"):
        p, r = scores[f"{prefix}precision"], scores[f"{prefix}recall"]
        assert scores[f"{prefix}f1"] == pytest.approx(2 * p * r / (p + r) if p + r else 0)


def common_subsequence(items, targets):
    """Length of the longest one, the slow and plain way."""
    return max(
        len(chosen)
        for length in range(len(items) + 1)
        for chosen in combinations(items, length)
        if is_subsequence(chosen, targets)
    )


def is_subsequence(chosen, targets):
    rest = iter(targets)
    return all(item in rest for item in chosen)


@many
@given(st.permutations("abcdexyz"), st.integers(0, 8), st.integers(1, 5))
def test_what_counts_in_order_is_the_longest_common_subsequence(letters, given_items, required):
    items, targets = letters[:given_items], "abcde"[:required]
    right = common_subsequence(items, targets)
    assert scores_of(items, targets)["ordered_recall"] == pytest.approx(right / required)


def test_without_order_there_are_three_scores():
    assert scores_of("ba", "ab", ordered=False) == {"precision": 1, "recall": 1, "f1": 1}


# Answers that are lists


SIZE = 12
PAIRS = needle.random_pairs(SIZE, random.Random(3))
ASKED = [PAIRS[place] for place in (7, 2, 9)]
A, B, C = (pair.value for pair in ASKED)
KEY_A, KEY_B, KEY_C = (pair.key for pair in ASKED)
OFF = PAIRS[0]
INVENTED = "01234567-89ab-4cde-8f01-23456789abcd"
QUESTION = f"3 keys:\n{needle.render_keys([KEY_A, KEY_B, KEY_C])}\nCorresponding values:"
MULTIPLE = Case("m", f"Values?\n\n{needle.render(PAIRS)}\n\n{QUESTION}", f"{A}\n{B}\n{C}")
MARKED = needle.mark_keys(PAIRS, (2, 7, 9), random.Random(4))
CONDITIONAL = Case(
    "c", f"Values?\n\n{needle.render(MARKED)}\n\nKeys: all that contain '*'", f"{B}\n{A}\n{C}"
)


def judge(text, finish_reason="stop", case=MULTIPLE):
    completion = Completion(text, (), finish_reason, Usage(1, 1), Timings(0.1, 1), "0" * 16)
    scores = {}
    return needle.judge(case, completion, scores.__setitem__), scores


def explain(text, finish_reason="stop", case=MULTIPLE):
    return judge(text, finish_reason, case)[0].explanation


CORRECT = {
    "one a line": f"{A}\n{B}\n{C}",
    "commas": f"{A}, {B}, {C}",
    "quoted": f'"{A}"\n"{B}"\n"{C}"',
    "a JSON list": f'["{A}", "{B}", "{C}"]',
    "numbered": f"1. {A}\n2. {B}\n3. {C}",
    "numbered with hex letters": f"a) {A}\nb) {B}\nc) {C}",
    "bold bullets": f"- **{A}**\n- **{B}**\n- **{C}**",
    "a table": f"| {A} | {B} | {C} |",
    "upper case": f"{A}\n{B}\n{C}".upper(),
    "said twice": f"{A}\n{B}\n{C}\n\nSo: {A}, {B}, {C}",
    "each said twice": f"{A} {A}\n{B} {B}\n{C} {C}",
    "in a fence": f"```\n{A}\n{B}\n{C}\n```",
    "Windows lines": f"{A}\r\n{B}\r\n{C}\r\n",
    "before half of another": f"{A}\n{B}\n{C}\n{OFF.value[:30]}",
    "a JSON list with a trailing comma": f'["{A}", "{B}", "{C}",]',
    "a JSON list that does not end": f'["{A}", "{B}", "{C}"',
    "a JSON object with its key three times": f'{{"v": "{A}", "v": "{B}", "v": "{C}"}}',
    "with comments": f'["{A}", // first\n"{B}", /* second */ "{C}"] # third',
    "in a fence in a fence": f"```\n```json\n{A}\n{B}\n{C}\n```\n```",
    "beside what is no value": f"NaN {{}} {A} null {B} {{{C}}} -Infinity",
    "mixed case": f"{A.upper()}\n{B.title()}\n{C}",
    "the first said again in upper case": f"{A}\n{A.upper()}\n{B}\n{C}",
    "after a megabyte of open braces": "{" * 1_000_000 + f"{A}\n{B}\n{C}",
    "each key with its value": f"{KEY_A}: {A}\n{KEY_B}: {B}\n{KEY_C}: {C}",
    "arrows": f"{KEY_A}->{A}\n{KEY_B}->{B}\n{KEY_C}->{C}",
    "a JSON object": f'{{"{KEY_A}": "{A}", "{KEY_B}": "{B}", "{KEY_C}": "{C}"}}',
    "the question echoed": f"{QUESTION}\n{A}\n{B}\n{C}",
    "values, then keys": f"{A}\n{B}\n{C}\nfor {KEY_C}, {KEY_B} and {KEY_A}",
    "bullets without a space": f"-{A}\n-{B}\n-{C}",
    "typographic hyphens": f"{A}\n{B}\n{C}".replace("-", "\u2011"),
}


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
@pytest.mark.parametrize("text", CORRECT.values(), ids=CORRECT)
def test_a_list_of_the_targets_and_no_other_uuid_passes(text, finish_reason):
    verdict, scores = judge(text, finish_reason)
    assert list(verdict.values) == MULTIPLE.target.split("\n")
    assert verdict.correct
    assert scores["ordered_f1"] == scores["f1"] == 1


@pytest.mark.parametrize("text", [t for t in CORRECT.values() if KEY_A not in t])
def test_the_values_of_marked_keys_are_read_alike(text):
    verdict, scores = judge(text, case=CONDITIONAL)
    assert verdict.correct
    assert scores["f1"] == 1


# name: (text, finish reason, the word of the taxonomy)
WRONG = {
    "empty": ("", "stop", "no_uuid"),
    "empty and cut off": ("", "length", "cut_off"),
    "one missing": (f"{A}\n{C}", "stop", "missing_items"),
    "only the first": (A, "stop", "missing_items"),
    "one missing, one twice": (f"{A}\n{B}\n{B}", "stop", "missing_items"),
    "cut off in the third": (f"{A}\n{B}\n{C[:20]}", "length", "cut_off"),
    "the third truncated": (f"{A}\n{B}\n{C[:-1]}", "stop", "missing_items"),
    "glued together": (f"{A}{B}{C}", "stop", "no_uuid"),
    "glued by hyphens": (f"{A}-{B}-{C}", "stop", "no_uuid"),
    "another order": (f"{B}\n{A}\n{C}", "stop", "wrong_order"),
    "another order first, then the right one": (
        f"{C} {B} {A}\n{A} {B} {C}",
        "stop",
        "wrong_order",
    ),
    "the keys": (f"{KEY_A}\n{KEY_B}\n{KEY_C}", "stop", "start_key"),
    "one wrong": (f"{A}\n{OFF.value}\n{C}", "stop", "other_value_in_haystack"),
    "one too many": (f"{A}\n{B}\n{C}\n{OFF.value}", "stop", "other_value_in_haystack"),
    "another key": (f"{A}\n{OFF.key}\n{C}", "stop", "other_key_in_haystack"),
    "one invented": (f"{A}\n{INVENTED}\n{C}", "stop", "invented_uuid"),
    "two candidates": (
        f"{A}\n{B}\n{OFF.value}\nor\n{A}\n{B}\n{C}",
        "stop",
        "other_value_in_haystack",
    ),
    "the whole haystack": (needle.render(PAIRS), "length", "other_key_in_haystack"),
    "truncated within a JSON list": (f'["{A}", "{B}", "{C[:9]}', "length", "cut_off"),
    "with asterisks for what is not known": (f"{A}\n{B}\n{C[:-4]}****", "stop", "missing_items"),
    "a megabyte of open braces": ("{" * 1_000_000, "length", "cut_off"),
    "the first wrong one decides": (
        f"{A}\n{INVENTED}\n{KEY_B}\n{OFF.value}",
        "length",
        "invented_uuid",
    ),
}


@pytest.mark.parametrize(("text", "finish_reason", "word"), WRONG.values(), ids=WRONG)
def test_a_wrong_list_misses_and_says_how(text, finish_reason, word):
    verdict, _ = judge(text, finish_reason)
    assert not verdict.correct
    assert verdict.explanation.partition(":")[0] == word


def test_a_target_may_be_a_tuple():
    case = Case("t", MULTIPLE.prompt, (A, B, C))
    assert explain(f"{A} {B} {C}", case=case).startswith("correct:")
    assert explain(f"{A} {B}", case=case) == "missing_items: 1 of 3 values are missing"


def test_the_order_of_conditional_values_does_not_matter():
    for order in permutations((A, B, C)):
        assert explain("\n".join(order), case=CONDITIONAL).startswith("correct:")
    assert explain(f"{A} {B}", case=CONDITIONAL).startswith("missing_items: 1 of 3")


@pytest.mark.parametrize(
    "text", ["{}", "**{}**", '"{}"', "- {}\n", "{}: I do not know", "The key {}"]
)
def test_a_marked_key_without_a_value_is_a_start_key(text):
    for place in (2, 7, 9):
        verdict, _ = judge(text.format(MARKED[place].key), case=CONDITIONAL)
        assert verdict.values == ()
        assert verdict.explanation.startswith("start_key:")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (KEY_A, "invented_uuid"),  # the key without its star is not in the haystack
        (OFF.key, "other_key_in_haystack"),
        (OFF.value, "other_value_in_haystack"),
        (f"{A} {B} {C} {OFF.value}", "other_value_in_haystack"),
        ("* * *", "no_uuid"),
    ],
)
def test_a_wrong_conditional_answer_says_how(text, word):
    assert explain(text, case=CONDITIONAL).partition(":")[0] == word


@many
@given(st.text(alphabet="0123456789abcdefABCDEF*-{}\"', \n", max_size=400))
def test_no_answer_makes_the_parser_or_the_explanation_fail(text):
    for case in (MULTIPLE, CONDITIONAL):
        word, colon, sentence = explain(text, case=case).partition(":")
        assert word.replace("_", "").isalnum()
        assert colon
        assert sentence


@pytest.mark.parametrize(
    "piece", ["0", "0\n", "0 ", "-", "*", "01234567-", "0123*567-89ab-", f"{A}", f"{A}\n"]
)
def test_a_megabyte_is_read_in_linear_time(piece):
    start = time.process_time()
    assert len(judge(piece * (1_000_000 // len(piece)))[0].values) <= 1
    assert time.process_time() - start < 5


@settings(deadline=None, max_examples=25)
@given(st.text(alphabet="0123456789abcdefF*-{}\"', \n", min_size=1, max_size=40))
def test_the_work_on_a_megabyte_of_anything_is_bounded(piece):
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    explain(text, case=MULTIPLE)
    assert time.process_time() - start < 5
