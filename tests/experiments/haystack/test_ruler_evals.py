"""RULER's relatives: other code finds their answers; who knows them passes, who guesses fails."""

import json
import random
import re
from collections import Counter
from math import comb
from pathlib import Path
from runpy import run_path

import pytest

from pytest_llmprobe.case import check_cases
from pytest_llmprobe.data.prose import CITIES
from pytest_llmprobe.data.sources import read_datasets
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.scripted import ScriptedModel
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.haystack import documents, items, variables, word_counts
from pytest_llmprobe.generation import Completion, GenerateConfig, Request, Timings, Usage
from pytest_llmprobe.suite import Suite

EVALS = Path(__file__).parents[3] / "evals" / "haystack"
FILES = {
    "variable_tracking": "test_variable_tracking.py",
    "common_words": "test_word_counts.py",
    "frequent_words": "test_word_counts.py",
    "question_answering": "test_question_answering.py",
}
EVAL = {name: run_path(str(EVALS / file)) for name, file in FILES.items()}
every_eval = pytest.mark.parametrize("name", FILES)


def build(name, suite):
    return list(EVAL[name][name](suite))


def judged(name, cases, answer):
    """For each case the miss, or None, and its scores."""
    answers = Engine(ScriptedModel(answer)).generate(
        [Request.of_case(case, GenerateConfig()) for case in cases]
    )
    for case, completion in zip(cases, answers, strict=True):
        scores = {}
        try:
            EVAL[name][f"test_{name}"](case, completion, scores.__setitem__)
        except AssertionError as miss:
            yield str(miss).partition("\n")[0], scores
        else:
            yield None, scores


# Solvers that share nothing with the package's


def variables_by_asking_each(prompt):
    """Follow every variable back to a number."""
    text, value = prompt.rpartition("Value: ")[::2]
    value = value.split()[0]
    given = dict(re.findall(r"VAR (\w+) = ((?:VAR )?\w+)", text))

    def number(name):
        source = given[name]
        return source if source.isdigit() else number(source.removeprefix("VAR "))

    return {name for name in given if number(name) == value}


def words_by_sorting(prompt):
    text = prompt.split("\n\n")[-2]
    words = [word for word in text.split() if word.isalpha()]
    counts = {word: sum(word == other for other in words) for word in set(words)}
    return set(sorted(counts, key=counts.get)[-3:])


def city_by_search(prompt):
    question = prompt.rpartition("Question: ")[2]
    if "founded" in question:
        town = re.search(r"founded (\w+)\?", question)[1]
        who = re.search(rf"(\w+) (?:founded|laid the first stone of) {town}\.", prompt)[1]
    else:
        who = re.search(r"did (\w+) grow", question)[1]
    return {re.search(rf"{who} (?:grew up|spent every[a-z ]+) in (\w+)\.", prompt)[1]}


SOLVERS = {
    "variable_tracking": variables_by_asking_each,
    "common_words": words_by_sorting,
    "frequent_words": words_by_sorting,
    "question_answering": city_by_search,
}


@pytest.mark.parametrize("profile", ["smoke", "ci"])
@every_eval
def test_every_case_has_the_answer_that_other_code_finds(name, profile):
    cases = check_cases(build(name, Suite(profile)), name)
    for case in cases:
        target = case.target if isinstance(case.target, tuple) else case.target.split("\n")
        assert set(target) == SOLVERS[name](case.prompt)
        assert case.metadata["size"] * 0.6 < len(case.prompt) < case.metadata["size"] + 800
        assert 0 < case.chance < 0.2
        assert case.metadata["task"] == name
    assert cases == build(name, Suite(profile))
    assert cases != build(name, Suite(profile, seed=1))
    assert len({case.prompt for case in cases}) == len(cases)


@every_eval
def test_the_number_of_cases_is_moderate_and_grows(name):
    assert 2 <= len(build(name, Suite("smoke"))) <= 4
    assert 4 <= len(build(name, Suite())) <= 12


@every_eval
@pytest.mark.parametrize("chats", [True, False])
def test_a_perfect_model_passes_everything_and_a_parrot_nothing(name, chats):
    cases = build(name, Suite(chats=chats))
    solve = SOLVERS[name]

    def perfect(prompt):
        return " " + ", ".join(sorted(solve(prompt)))

    for problem, scores in judged(name, cases, perfect):
        assert problem is None
        assert scores["contains"] == 1
    if not chats:
        return
    for problem, _ in judged(name, cases, lambda prompt: prompt):
        assert problem is not None
    for problem, scores in judged(name, cases, lambda _: "I do not know."):
        assert problem is not None
        assert scores["contains"] == 0


@every_eval
def test_a_model_that_guesses_is_at_chance(name):
    rng = random.Random(0)
    reads = {"question_answering": lambda _: None, "variable_tracking": variables.read_task}
    read = reads.get(name, word_counts.read_task)

    def guess(prompt):
        if (task := read(prompt)) is None:
            return rng.choice(CITIES)
        return ", ".join(rng.sample(task.known, len(task.required)))

    cases = build(name, Suite()) * 10
    passed = sum(problem is None for problem, _ in judged(name, cases, guess))
    expected = sum(case.chance for case in cases)
    assert passed <= expected + 4 * (expected**0.5) + 1


# Generators


@pytest.mark.parametrize("size", [500, 1_500, 6_000, 40_000])
def test_lists_of_words_have_their_size_and_their_frequencies(size):
    rng = random.Random(size)
    for _ in range(5):
        words = word_counts.common_words(size, 3, rng)
        counts = Counter(words).most_common()
        assert counts[2][1] >= 5 * counts[3][1]
        assert counts[0][1] == counts[2][1]
        assert 0.75 * size < len(word_counts.numbered(words)) < 1.15 * size
        coded = word_counts.frequent_words(size, 3, 2.0, rng)
        assert 0.8 * size < len(" ".join(coded)) < 1.1 * size
        (noise, most), *ranks = Counter(coded).most_common()
        assert noise == "..."
        for rank, (_, count) in enumerate(ranks[:4], 2):
            assert count == pytest.approx(most / rank**2, abs=1.01)
        assert ranks[2][1] > ranks[3][1]
    with pytest.raises(CasesError, match="no room"):
        word_counts.common_words(60, 3, rng)
    with pytest.raises(CasesError, match="no room"):
        word_counts.frequent_words(60, 3, 2.0, rng)


def test_chains_share_nothing_and_stand_in_order():
    rng = random.Random(1)
    for _ in range(20):
        chains = variables.made_up_chains(3, 4, rng)
        names = [name for chain in chains for name in chain.names]
        assert len(set(names)) == 15
        assert len({chain.value for chain in chains}) == 3
        text = variables.scattered(chains, 2_000, rng)
        for chain in chains:
            places = [text.index(sentence) for sentence in chain.sentences]
            assert places == sorted(places)
        asked = f"{text}\n\nValue: {chains[1].value}\nVariables:"
        found = variables.read_task(asked)
        assert (found.required, set(found.known)) == (chains[1].names, set(names))
        assert found.chance == 1 / comb(15, 5)


@pytest.mark.parametrize("module", [variables, word_counts, documents])
def test_a_prompt_that_asks_nothing_is_told(module):
    with pytest.raises(CasesError, match="the prompt"):
        module.read_task("The grass is green.")


# Reading


def completion(text, end="stop"):
    return Completion(text, (), end, Usage(1, 1), Timings(0.1, 1), "0" * 16)


ASKED = items.Items(("BCDFG", "HJKLM"), ("BCDFG", "HJKLM", "NPQRS"), variables._LOOKS, "variable")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("BCDFG = 5, so HJKLM = 5; NPQRS is not. So the variables are: HJKLM and BCDFG", ""),
        ("First NPQRS = 7. Answer: BCDFG, HJKLM", ""),
        ("Answer 1: BCDFG\nAnswer 2: HJKLM", ""),
        ("48213,BCDFG\n48213,HJKLM", ""),
        ("not NPQRS but BCDFG and HJKLM", ""),
        ("Answer: BCDFG, HJKLM, or maybe NPQRS", "other_value: it gives NPQRS, which is another"),
        ("BCDFG, HJKLM, ZZZZZ", "other_value: it gives ZZZZZ, which is not in the text"),
        ("BCDFG", "missing_items: 1 of 2"),
        ("neither BCDFG nor HJKLM", "denied: "),
        ("XBCDFG", "denied: .*within another word"),
        ("all of them", "no_value: "),
    ],
)
def test_how_an_answer_of_names_is_read(text, said):
    given = items.judge(completion(text), ASKED, {}.__setitem__)
    assert re.match(said or r"\Z", given.problem), given.problem


def test_a_cut_answer_says_so_unless_it_is_wrong_already():
    for text, said in (("BCDFG, HJ", "cut_off"), ("BCDFG, NPQRS, ", "other_value")):
        given = items.judge(completion(text, "length"), ASKED, {}.__setitem__)
        assert given.problem.startswith(said)


# Data in SQuAD's layout

ROWS = [
    {
        "question": f"Who built the tower of {town}?",
        "context": f"The tower of {town} was built by {who} in 18{n}0. " + "It is tall. " * 8,
        "answers": {"text": [who, f"the {who}"], "answer_start": [0, 0]},
    }
    for n, (town, who) in enumerate([("Lyon", "Ida Bell"), ("Rome", "J. Frost"), ("Oslo", "Eva")])
]


def suite_on(tmp_path, rows):
    (tmp_path / "squad.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return Suite(datasets=read_datasets(["question_answering=squad.jsonl"], tmp_path))


def test_rows_of_squad_are_asked_among_the_documents_of_others(tmp_path):
    suite = suite_on(tmp_path, [*ROWS, ROWS[0] | {"answers": {"text": []}}])
    cases = check_cases(build("question_answering", suite), "question_answering")
    assert len(cases) == 6
    assert "without an answer" in suite.said()[0]
    for case, row in zip(cases, ROWS * 2, strict=True):
        assert row["context"].strip() in case.prompt
        assert case.prompt.count("Document ") == 3
        assert case.chance is None
    said = {row["question"]: row["answers"]["text"][0] for row in ROWS}

    def right(prompt):
        return f"It was **{said[re.search('Question: (.*)', prompt)[1]]}**."

    assert not any(problem for problem, _ in judged("question_answering", cases, right))
    missed = [problem for problem, _ in judged("question_answering", cases, lambda _: "A king.")]
    assert all(problem.startswith("no_value") for problem in missed)
    denied = [p for p, _ in judged("question_answering", cases[:1], lambda _: "not Ida Bell")]
    assert denied[0].startswith("no_value")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": " "}, "field 'question'"),
        ({"context": None}, "field 'context'"),
        ({"answers": "Ida"}, "field 'answers' is 'Ida'"),
        ({"answers": {"text": ["Ida", " "]}}, "field 'answers' has an empty text"),
    ],
)
def test_a_row_of_squad_that_cannot_be_used_is_named(tmp_path, change, said):
    with pytest.raises(CasesError, match=f"squad.jsonl line 2: {said}"):
        build("question_answering", suite_on(tmp_path, [ROWS[0], ROWS[1] | change]))
