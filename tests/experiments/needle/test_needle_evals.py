"""All needle evaluations: their cases are solvable, a perfect model passes, a wrong one is told."""

import random
import re
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.case import Case, RawPrompt, check_cases
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.scripted import ScriptedModel
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.generation import Completion, GenerateConfig, Request, Timings, Usage
from pytest_llmprobe.suite import Suite

USAGE, TIMINGS = Usage(1, 1), Timings(0.1, 1)
INVENTED = "01234567-89ab-4cde-8f01-23456789abcd"


class Evaluation:
    """An eval file: its prompt, its cases and its test."""

    def __init__(self, name, cases):
        path = Path(__file__).parents[3] / "evals" / "needle" / f"test_{name}.py"
        names = run_path(str(path))
        self.cases, self.test, self.prompt = names[cases], names[f"test_{name}"], names["PROMPT"]
        marks = {mark.name: mark for mark in self.test.pytestmark}
        options = dict(marks["probe"].kwargs)
        assert options.pop("cases") is self.cases
        assert options.pop("summary") is names["summarise"]
        self.config = GenerateConfig.of(**options)
        # In pairs; test_needle_sizes.py is about the token budgets of the paper.
        names["SIZES"]["full"] = needle.pairs(25, 50, 100, 200, 400)

    def judge(self, cases, answer):
        """For each case the miss, or None, and the scores."""
        completions = Engine(ScriptedModel(answer)).generate(
            [Request.of_case(case, self.config) for case in cases]
        )
        for case, completion in zip(cases, completions, strict=True):
            scores = {}
            try:
                self.test(case, completion, scores.__setitem__)
            except AssertionError as miss:
                yield str(miss).partition("\n")[0], scores
            else:
                yield None, scores


EVALS = {
    name: Evaluation(name, cases)
    for name, cases in {
        "single_needle": "single_needles",
        "multiple_needles": "multiple_needles",
        "conditional_needles": "conditional_needles",
        "threading": "threads",
        "multi_threading": "multi_threads",
        "branched_threading": "branched_threads",
    }.items()
}
LISTS = ("multiple_needles", "conditional_needles", "multi_threading")
every_eval = pytest.mark.parametrize("name", EVALS)
every_profile = pytest.mark.parametrize("profile", ["smoke", "ci", "full"])


# Cases


@every_profile
@every_eval
def test_every_case_of_an_evaluation_has_its_own_id_and_is_solvable(name, profile):
    cases = check_cases(EVALS[name].cases(Suite(profile, trials=1)), name)
    for case in cases:
        assert needle.solve(case.prompt) == case.target
        pairs = needle.read_haystack(case.prompt)
        assert case.metadata["task"] == name
        assert case.metadata["size"] == len(pairs)
        assert case.prompt.count(needle.render(pairs)) == case.prompt.count("{") == 1
        assert case.prompt.rstrip() == case.prompt  # a token of its own after the cue would hurt


@every_profile
@every_eval
def test_the_cases_of_an_evaluation_depend_on_the_seed_and_on_nothing_else(name, profile):
    def build(seed):
        random.seed()
        return list(EVALS[name].cases(Suite(profile, seed, trials=1)))

    first, again, other = build(5), build(5), build(6)
    assert first == again
    assert [case.id for case in first] == [case.id for case in other]
    assert not {case.prompt for case in first} & {case.prompt for case in other}


@every_eval
def test_more_trials_add_cases_and_change_none(name):
    few = {case.id: case for case in EVALS[name].cases(Suite("ci", trials=1))}
    more = {case.id: case for case in EVALS[name].cases(Suite("ci", trials=3))}
    assert len(more) == 3 * len(few)
    assert all(more[case_id] == case for case_id, case in few.items())


@every_eval
def test_the_ci_profile_is_small_and_smoke_is_smaller(name):
    smoke, ci = (len(list(EVALS[name].cases(Suite(profile)))) for profile in ("smoke", "ci"))
    assert smoke <= 6
    assert smoke < ci <= (36 if name not in ("single_needle", "threading") else 100)


# name: n pairs -> the chance to guess
CHANCES = {
    "single_needle": lambda n, _: 1 / n,
    "threading": lambda n, _: 1 / n,
    "branched_threading": lambda n, _: 1 / n,
    "multiple_needles": lambda n, m: 1 / (n * (n - 1) * (n - 2)) if m == 3 else None,
    "multi_threading": lambda n, m: 1 / (n * (n - 1) * (n - 2)) if m == 3 else None,
    "conditional_needles": lambda n, _: 1 / (2**n - 1),
}


@every_eval
def test_the_chance_is_that_of_a_guess_among_the_values(name):
    compared = 0
    for case in EVALS[name].cases(Suite("ci")):
        chance = CHANCES[name](case.metadata["size"], len(case.target.split("\n")))
        if chance is not None:
            compared += 1
            assert case.chance == pytest.approx(chance)
    assert compared


@pytest.mark.parametrize(
    ("name", "keys", "room"),
    [
        ("multiple_needles", ("needles",), lambda n: n),
        ("conditional_needles", ("needles",), lambda n: n),
        ("threading", ("hops",), lambda hops: hops),
        ("multi_threading", ("hops", "threads"), lambda hops, m: hops * m),
        ("branched_threading", ("hops", "branches"), lambda hops, b: b * (hops - 1) + 1),
    ],
)
def test_cells_that_have_no_room_are_left_out_and_not_shrunk(name, keys, room):
    cells = {}
    for case in EVALS[name].cases(Suite("full", trials=1)):
        cell = tuple(case.metadata[key] for key in keys)
        cells.setdefault(case.metadata["size"], set()).add(cell)
    everything = cells[400]
    assert all(
        cells[size] == {cell for cell in everything if room(*cell) <= size} for size in cells
    )


def test_the_full_profile_is_the_grid_of_the_paper():
    def values(name, key):
        return {case.metadata[key] for case in EVALS[name].cases(Suite("full", trials=1))}

    for name in ("multiple_needles", "conditional_needles"):
        assert values(name, "needles") == {1, 2, 3, 4, 5, 10, 15, 20, 25}
        assert values(name, "placement") == {"random", "clustered"}
        per_size = 9 * 2 * 5  # 1,080 cases at the paper's 12 lengths
        assert len(list(EVALS[name].cases(Suite("full")))) == 5 * per_size
    assert values("multi_threading", "hops") == {2, 3, 4, 5, 10}
    curve = {
        case.metadata["threads"]
        for case in EVALS["multi_threading"].cases(Suite("full", trials=1))
        if case.metadata["hops"] == 3
    }
    assert curve == set(range(2, 26))


def test_clustered_needles_lie_next_to_each_other():
    for name in ("multiple_needles", "conditional_needles"):
        for case in EVALS[name].cases(Suite("ci")):
            if case.metadata["placement"] == "clustered":
                values = [pair.value for pair in needle.read_haystack(case.prompt)]
                places = sorted(values.index(value) for value in case.target.split("\n"))
                assert places == list(range(places[0], places[0] + len(places)))


def test_the_cases_of_multiple_needles_share_their_haystack_with_their_group():
    haystacks = {}
    for case in EVALS["multiple_needles"].cases(Suite("ci")):
        pairs = needle.read_haystack(case.prompt)
        assert haystacks.setdefault(case.group, pairs) == pairs
    assert len(set(haystacks.values())) == len(haystacks) == 3 * 2


def test_a_conditional_prompt_tells_neither_the_keys_nor_how_many_there_are():
    for case in EVALS["conditional_needles"].cases(Suite("ci")):
        haystack = needle.render(needle.read_haystack(case.prompt))
        prompt = EVALS["conditional_needles"].prompt
        assert case.prompt == prompt.format(haystack=haystack, form="one value a line")
        assert haystack.count("*") == case.metadata["needles"]


# The reference solver, over the whole parameter space


@st.composite
def questions(draw):
    """A prompt of any task, and its right answer."""
    n, name = draw(st.integers(1, 40)), draw(st.sampled_from(list(EVALS)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    direction = draw(st.sampled_from(["forward", "backward", "random"]))
    placement = draw(st.sampled_from(["random", "clustered"]))
    if name == "branched_threading":
        n = max(n, 3)
        hops = draw(st.integers(2, (n + 1) // 2))
        branches = draw(st.integers(2, (n - 1) // (hops - 1)))
        thread = needle.branched_thread(n, hops, branches, direction, rng)
        pairs, keys, targets = thread.pairs, [thread.start], [thread.target]
    elif name in ("threading", "multi_threading"):
        hops = draw(st.integers(1, n))
        count = draw(st.integers(1, n // hops)) if name == "multi_threading" else 1
        threads = needle.multi_threads(n, hops, count, direction, rng)
        pairs = threads[0].pairs
        keys = [thread.start for thread in threads]
        targets = [thread.target for thread in threads]
    else:
        pairs = needle.random_pairs(n, rng)
        count = draw(st.integers(1, n)) if name != "single_needle" else 1
        places = needle.positions(n, count, placement, rng)
        if name == "conditional_needles":
            places = sorted(places)
            pairs = needle.mark_keys(pairs, places, rng)
        keys, targets = zip(*(pairs[place] for place in places), strict=True)
    prompt = EVALS[name].prompt.format(
        haystack=needle.render(pairs),
        key=keys[0],
        n=len(keys),
        keys=needle.render_keys(keys),
        form="one a line",
    )
    return prompt, "\n".join(targets)


@settings(deadline=None, max_examples=2000)
@given(questions())
def test_the_solver_answers_every_task_from_the_text_alone(question):
    prompt, target = question
    assert needle.solve(prompt) == target
    assert needle.solve([{"role": "user", "content": prompt}]) == target


def test_threads_of_the_same_length_have_no_longest():
    pairs = [needle.Pair(INVENTED, "a"), needle.Pair(INVENTED, "b")]
    with pytest.raises(CasesError, match=f"2 threads from {INVENTED} are the longest"):
        needle.solve(f"{needle.render(pairs)}\nKey: {INVENTED}")


def test_the_longest_thread_is_followed_past_dead_ends_and_around_circles():
    pairs = map(needle.Pair, "aaabbcca", "xbycxdaz")
    assert needle.follow(list(pairs), "a") == ["b", "c", "d"]
    assert needle.follow([needle.Pair(*pair) for pair in ("ab", "ac", "cd", "de")], "a") == [
        "c",
        "d",
        "e",
    ]


# Scripted models


@pytest.mark.parametrize("profile", ["smoke", "ci"])
@every_eval
def test_a_perfect_model_passes_every_case_with_every_score(name, profile):
    cases = list(EVALS[name].cases(Suite(profile)))
    for miss, scores in EVALS[name].judge(cases, needle.solve):
        assert miss is None
        assert scores
        assert set(scores.values()) == {1}


SENTENCE = 'The value corresponding to the key "{}" is "{}".'


@pytest.mark.parametrize("counter", ["reference", "smollm2"], indirect=True)
@every_eval
def test_every_answer_of_the_full_profile_has_room_for_sentences(name, counter):
    uuids = set()
    for case in EVALS[name].cases(Suite("full", trials=1, counter=counter)):
        values = case.target.split("\n")
        uuids.add(len(values))
        keys = needle.read_task(case.prompt).keys
        said = " ".join(SENTENCE.format(*pair) for pair in zip(keys, values, strict=True))
        assert counter.count(RawPrompt(said)) < case.max_new_tokens
    assert max(uuids) == (25 if name in LISTS else 1)


def start_key(prompt):
    return "\n".join(needle.read_task(prompt).keys)


def another_value(prompt):
    """A value of a pair that has nothing to do with the question."""
    task, links = needle.read_task(prompt), needle.Links(needle.read_haystack(prompt))
    met = {value for key in task.keys for step in links.steps(key) for value in step}
    return next((pair.value for pair in task.pairs if pair.value not in met), INVENTED)


def one_hop(prompt):
    task = needle.read_task(prompt)
    return "\n".join(needle.follow(task.pairs, key)[0] for key in task.keys)


WRONG = {
    "the start key": (start_key, "start_key"),
    "another value": (another_value, "other_value_in_haystack|invented_uuid"),
    "an invented uuid": (lambda _: INVENTED, "invented_uuid"),
    "nothing": (lambda _: "I cannot find it.", "no_uuid"),
    "endless talk": (lambda _: "Let me see. " * 200, "cut_off"),
    "an invented uuid, then right": (lambda p: f"{INVENTED}\n{needle.solve(p)}", "invented_uuid"),
    "the whole haystack": (
        lambda prompt: needle.render(needle.read_haystack(prompt)),
        r"wrong_order|start_key|other_(key|value)_in_haystack|stopped_\d_hops_early|shorter_branch",
    ),
}


@every_eval
@pytest.mark.parametrize(("answer", "word"), WRONG.values(), ids=WRONG)
def test_a_wrong_model_passes_nothing_and_its_failure_has_a_name(name, answer, word):
    cases = list(EVALS[name].cases(Suite("ci", trials=1)))
    if word != "cut_off":
        cases = [replace(case, max_new_tokens=10_000) for case in cases]
    for miss, _ in EVALS[name].judge(cases, answer):
        assert miss is not None
        assert re.fullmatch(word, miss.partition(":")[0])


WRONG_LISTS = {
    "the last is missing": (lambda lines: lines[:-1], "missing_items"),
    "the first is missing": (lambda lines: lines[1:], "missing_items"),
    "the last is truncated": (lambda lines: [*lines[:-1], lines[-1][:-1]], "missing_items"),
    "backwards": (lambda lines: lines[::-1], "wrong_order"),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(("change", "word"), WRONG_LISTS.values(), ids=WRONG_LISTS)
def test_a_list_that_lacks_an_item_or_the_order_misses(name, change, word):
    cases = [c for c in EVALS[name].cases(Suite("ci")) if c.target.count("\n")]
    for miss, scores in EVALS[name].judge(
        cases, lambda prompt: "\n".join(change(needle.solve(prompt).split("\n")))
    ):
        if word == "wrong_order" and name == "conditional_needles":
            assert miss is None
            assert set(scores.values()) == {1}
        else:
            assert miss.partition(":")[0] == word
            assert 0 < scores["f1"] <= 1
            assert scores["precision"] == 1


@pytest.mark.parametrize("name", ["threading", "multi_threading", "branched_threading"])
def test_a_model_that_looks_up_once_stopped_early(name):
    cases = [
        case for case in EVALS[name].cases(Suite("ci", trials=1)) if case.metadata["hops"] == 3
    ]
    for miss, _ in EVALS[name].judge(cases, one_hop):
        assert miss.startswith("stopped_2_hops_early:")


def test_the_end_of_a_shorter_branch_is_called_so():
    def shorter(prompt):
        task = needle.read_task(prompt)
        key, links = task.keys[0], needle.Links(task.pairs)
        return next(value for value in links.steps(key)[0] if value not in links.longest(key))

    evaluation = EVALS["branched_threading"]
    for miss, _ in evaluation.judge(list(evaluation.cases(Suite("ci"))), shorter):
        assert miss.startswith("shorter_branch:")


def test_dead_ends_that_were_looked_at_before_the_final_value_are_no_values():
    def work(prompt):
        task = needle.read_task(prompt)
        steps = needle.Links(task.pairs).steps(task.keys[0])
        return "".join(f"It leads to {' and '.join(step)}.\n" for step in steps)

    evaluation = EVALS["branched_threading"]
    cases = list(evaluation.cases(Suite("ci")))
    ends = {case.prompt: case.target for case in cases}

    def outcomes(answer):
        completions = (Completion(answer(c.prompt), (), "stop", USAGE, TIMINGS, "0") for c in cases)
        judged = zip(cases, completions, strict=True)
        return {needle.judge(*one, {}.__setitem__).explanation.partition(":")[0] for one in judged}

    assert outcomes(lambda p: f"{work(p)}Final value: {ends[p]}") == {"correct"}
    assert outcomes(lambda p: f"{work(p)}So the answer is **{ends[p]}**.") == {"correct"}
    assert outcomes(work) == {"shorter_branch"}
    assert outcomes(lambda p: f"Final values:\n{work(p)}") == {"shorter_branch"}
    unfinished = outcomes(lambda p: f"{work(p)}So the answer is {needle.read_question(p)}.")
    assert unfinished == {"shorter_branch"}


def test_a_list_of_which_the_limit_cut_a_part_is_cut_off():
    evaluation = EVALS["multiple_needles"]
    cases = [case for case in evaluation.cases(Suite("ci")) if case.metadata["needles"] == 5]
    talk = "Let me see. " * 48
    for miss, scores in evaluation.judge(cases, lambda prompt: talk + needle.solve(prompt)):
        assert miss.startswith("cut_off:")
        assert scores["precision"] == 1
        assert scores["recall"] < 1


def test_a_case_without_a_target_is_an_error():
    prompt = EVALS["single_needle"].prompt.format(
        haystack=needle.render(needle.random_pairs(2, random.Random(0))), key=INVENTED
    )
    completion = Completion("", (), "stop", Usage(1, 0), Timings(0.1, 1), "0" * 16)
    with pytest.raises(CasesError, match="case x: it has no target"):
        needle.judge(Case("x", prompt), completion, {}.__setitem__)
