"""Exact answers, instructions, trials and perplexity, on answers whose verdict is known."""

import math
from itertools import combinations

import pytest

from pytest_llmprobe import Case, RawPrompt, Suite
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.standard import exact, own_rows
from pytest_llmprobe.experiments.standard.instructions import Task, summary, tasks, verdict
from pytest_llmprobe.experiments.standard.perplexity import TextLikelihood, corpus, last_words
from pytest_llmprobe.experiments.standard.trials import over_trials, pass_at_k
from pytest_llmprobe.report.record import Record
from pytest_llmprobe.search.numbers import last_number


@pytest.mark.parametrize(
    ("answer", "strict", "flexible", "careful"),
    [
        ("2 + 16 = 18\n#### 18", True, True, True),
        ("So it is 18.", False, True, True),
        ("#### 1,8", True, True, True),  # both take commas away
        ("#### 18\n\nQuestion: what is 7?", True, False, True),
        ("It is 18.0", False, False, True),
        ("It is $18", False, True, True),
        ("It is 17", False, False, False),
        ("I do not know", False, False, False),
        ("#### 17 or 18", False, True, False),
    ],
)
def test_an_answer_is_read_strictly_flexibly_and_with_care(answer, strict, flexible, careful):
    assert exact.strict_match(answer, "18") is strict
    assert exact.flexible_extract(answer, "18") is flexible
    if answer != "#### 1,8":
        assert (exact.why_missed(answer, "18", last_number) == "") is careful


def test_problems_with_and_without_examples():
    found = list(exact.problems(own_rows.word_problems(6), last_number))
    for problem in found:  # the worked answers are right
        assert last_number(problem.answer) == float(problem.result)
    (first, *_) = exact.exact_cases(Suite(few_shot=2, chats=True), found, "x", "rows", 64)
    assert isinstance(first.prompt, RawPrompt)
    assert first.prompt.text.count("Question:") == 3
    assert "Question:" in first.stop
    assert found[0].answer not in first.prompt.text
    (told, *_) = exact.exact_cases(Suite(chats=True), found, "x", "rows", 64)
    assert told.prompt.startswith(exact.INSTRUCTION)
    assert not told.stop
    (turns, *_) = exact.exact_cases(
        Suite(few_shot=2, chats=True, ask="turns"), found, "x", "rows", 64
    )
    said = [turn["content"] for turn in turns.prompt]
    assert f"{said[0]} {said[1]}\n\n{said[2]} {said[3]}\n\n{said[4]}" == first.prompt.text
    assert turns.stop == first.stop
    trials = list(exact.exact_cases(Suite(chats=True, trials=3), found, "x", "rows", 64))
    assert [case.id for case in trials[:4]] == ["row-1/0", "row-1/1", "row-1/2", "row-2/0"]
    with pytest.raises(CasesError, match="few-shot 6: rows has 6 rows"):
        list(exact.exact_cases(Suite(few_shot=6), found, "x", "rows", 64))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "?"}, "has no field 'answer'"),
        ({"question": "?", "answer": "none"}, "field 'answer' has no number"),
        ({"question": "", "answer": "1"}, "field 'question' is ''"),
    ],
)
def test_a_problem_that_cannot_be_used_is_named(row, said):
    with pytest.raises(CasesError, match=f"a.jsonl line 1.*{said}"):
        list(exact.problems([("a.jsonl line 1", row)], last_number))


FOLLOWED = [  # id, arguments, an answer that follows it, one that does not
    ("keywords:existence", {"keywords": ["Basket"]}, "a basket", "a bag"),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "at least"},
     "cat, Cat", "cat"),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "less than"},
     "cat", "cat cat"),
    ("keywords:forbidden_words", {"forbidden_words": ["city"]}, "capacity", "the City."),
    ("keywords:letter_frequency", {"letter": "a", "let_frequency": 2, "let_relation": "at least"},
     "Aa", "a b"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"},
     "One. Two!", "Dr. Who is one."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "a b", "a b c"),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"}, "x\n\nThen, y", "x\n\ny"),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "[name]", "name"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "x\nP.S. y", "x\nPS y"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n**b**"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*a*", "* *"),
    ("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 2},
     "Part 1 a\nPart 2 b", "Part 1"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<Sea>>\nx", "<< >>"),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. x", "x say it."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'x "the end."', "The end. x"),
    ("startend:quotation", {}, '"a"', '"'),
    ("change_case:capital_word_frequency",
     {"capital_frequency": 2, "capital_relation": "at least"}, "A BIG dog", "a BIG dog"),
    ("change_case:capital_word_frequency",
     {"capital_frequency": 2, "capital_relation": "less than"}, "P.S. it", "P.S. A/B C"),
    ("change_case:english_capital", {}, "ALL", "All"),
    ("change_case:english_lowercase", {}, "all", "All"),
    ("punctuation:no_comma", {}, "a b", "a, b"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), FOLLOWED)
def test_each_instruction_is_told_kept_from_broken(name, arguments, right, wrong):
    row = {"prompt": "p", "instruction_id_list": [name], "kwargs": [arguments]}
    (task,) = tasks([("r", row)], Suite())
    task = Task.of(task.as_json())  # as it travels
    assert not verdict(task, right).problem
    assert verdict(task, wrong).problem == f"not_followed: {name}"
    assert not any(verdict(task, "  ").strict)


def test_loose_forgives_a_first_line_and_markdown():
    row = {"prompt": "p", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]}
    (task,) = tasks([("r", row)], Suite())
    found = verdict(task, 'Here it is:\n"*yes*"')
    assert (found.strict, found.loose) == ((False,), (True,))
    records = [Record("a", "x", "missed", scores=found.scores)]
    assert summary(records)["prompt_level_strict"] == 0
    assert summary(records)["instruction_level_loose"] == 1


def test_ifeval_rows_that_cannot_be_used():
    suite = Suite()
    row = {"prompt": "p", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]}
    language = row | {"instruction_id_list": ["language:response_language"]}
    assert len(list(tasks([("r1", row), ("r2", language)], suite))) == 1
    assert "r2" in suite.said()[0]
    for change, said in (
        ({"instruction_id_list": ["startend:x"]}, "'startend:x', which is none"),
        ({"kwargs": []}, "0 entries for the 1 ids"),
        ({"prompt": ""}, "field 'prompt'"),
        ({"instruction_id_list": ["startend:end_checker"]}, "no 'end_phrase'"),
    ):
        with pytest.raises(CasesError, match=f"a line 1.*{said}"):
            list(tasks([("a line 1", row | change)], suite))
    assert len(list(tasks(own_rows.instruction_rows(), suite))) == 24


def test_pass_at_k_is_the_share_of_draws_with_a_right_answer():
    for n, correct in ((5, 2), (6, 0), (4, 4)):
        answers = [True] * correct + [False] * (n - correct)
        for k in range(1, n + 1):
            draws = list(combinations(answers, k))
            assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    with pytest.raises(ValueError, match="pass@3"):
        pass_at_k(2, 1, 3)


def record(row, said, right):
    outcome = "passed" if right else "missed"
    return Record(f"{row}-{said}", "x", outcome, params={"row": row}, received=said)


def test_trials_vote_and_nobody_who_says_nothing_does():
    records = [record("a", said, said == "1") for said in ("1", "2", "1", "")]
    records += [
        record("b", said, said == "5") for said in ("4", "5", "", "")
    ]  # of equals the first
    found = over_trials(records, lambda one: one.received or None)
    assert found["majority@4"] == 0.5
    assert found["pass@1"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert found["pass@4"] == 1
    assert over_trials(records[:1]) == {}


def test_a_corpus_is_weighed_by_its_bytes_and_words():
    texts = [("a b c", -6.0), ("longer words é ", -20.0)]
    measured = [TextLikelihood.of(text, value, 4, False) for text, value in texts]
    found = corpus([Record("", "", "passed", scores=one.scores) for one in measured])
    size = 5 + 16
    assert found["bits_per_byte"] == pytest.approx(26 / size / math.log(2))
    assert found["byte_perplexity"] == pytest.approx(math.exp(26 / size))
    assert found["word_perplexity"] == pytest.approx(math.exp(26 / (3 + 4)))
    assert found["token_perplexity"] == pytest.approx(math.exp(26 / 8))
    both = [Record("", "", "passed", scores={"log_likelihood": v}) for v in (-1.0, -3.0)]
    assert last_words(both) == {"perplexity": pytest.approx(math.exp(2))}
    assert corpus([]) == {}
    assert Case("x", "y").choices == ()
