"""Choices: their metrics against numpy as lm-evaluation-harness computes them, and bad ones."""

import numpy as np
import pytest

from pytest_llmprobe import Case, RawPrompt, Suite
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.standard import own_rows
from pytest_llmprobe.experiments.standard.choices import Choice, joined, requests_of
from pytest_llmprobe.experiments.standard.few_shot import choice_cases
from pytest_llmprobe.experiments.standard.layouts import questions


def choice(choices, values, target, unconditional=()):
    lengths = tuple(map(len, choices))
    sizes = tuple(len(text.encode()) for text in choices)
    greedy = (False,) * len(choices)
    return Choice(choices, target, tuple(values), greedy, lengths, sizes, tuple(unconditional))


def test_the_metrics_are_those_of_lm_evaluation_harness():
    rng = np.random.default_rng(0)
    texts = ("x", "naïve", "a much longer one", "日本")
    seen = set()
    for _ in range(200):
        values, without = -rng.exponential(8, 4), -rng.exponential(8, 4)
        gold = int(rng.integers(4))
        found = choice(texts, values, gold, without)
        assert found.acc == (np.argmax(values) == gold)
        assert found.acc_norm == (np.argmax(values / [len(t) for t in texts]) == gold)
        assert found.acc_bytes == (np.argmax(values / [len(t.encode()) for t in texts]) == gold)
        assert found.acc_mutual_info == (np.argmax(values - without) == gold)
        assert found.probability == pytest.approx(np.exp(values)[gold] / np.exp(values).sum())
        assert found.margin == pytest.approx(values[gold] - np.delete(values, gold).max())
        assert bool(found.problem) != found.acc
        assert bool(found.problem_norm) != found.acc_norm
        seen.add((found.acc, found.acc_norm, found.acc_bytes, found.acc_mutual_info))
    assert len(seen) > 8  # they differ from one another


def test_of_equal_choices_the_first_counts():
    assert choice(("a", "b"), (-1.0, -1.0), 0).acc
    assert not choice(("a", "b"), (-1.0, -1.0), 1).acc


@pytest.mark.parametrize(
    ("before", "text", "after"),
    [("Answer:", "A", " A"), ("Answer: ", "A", "A"), ("Answer:", " A", " A"), ("", "A", "A")],
)
def test_one_space_joins_a_prompt_and_a_choice(before, text, after):
    assert joined(before, text) == after


def test_what_is_asked_in_each_style():
    case = Case("c", RawPrompt("Q\nAnswer:"), choices=["yes", "no"], target="no", unconditional="")
    asked = [(r.prompt.text, r.continuation) for r in requests_of(case, chats=True)]
    assert asked == [("Q\nAnswer:", " yes"), ("Q\nAnswer:", " no"), ("", " yes"), ("", " no")]
    chat = Case("c", "Q", choices=["yes", "no"], target=1)
    assert chat.target == "no"
    assert [(r.prompt, r.continuation) for r in requests_of(chat, chats=True)] == [
        ("Q", "yes"),
        ("Q", "no"),
    ]
    assert requests_of(chat, chats=False)[0].prompt == RawPrompt("Q")
    ending = Case("c", RawPrompt("The "), choices=["cup", "jug"], ending="fell.", target="cup")
    assert [(r.prompt.text, r.continuation) for r in requests_of(ending, chats=False)] == [
        ("The cup", " fell."),
        ("The jug", " fell."),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"choices": ["a", " "]}, r"choices\[1\] is empty"),
        ({"choices": ["a", "b", "a"]}, r"choices\[2\] is 'a', as choices\[0\]"),
        ({"choices": ["a"]}, "nothing to choose from"),
        ({"choices": "ab"}, "give a list"),
        ({"choices": ["a", 3]}, r"choices\[1\] is 3"),
        ({"choices": ["a", "b"], "target": "c"}, "'c' is none of the choices"),
        ({"choices": ["a", "b"], "target": 2}, "2 is none"),
        ({"choices": ["a", "b"], "target": True}, "True is none"),
        ({"choices": ["a", "b"], "ending": " "}, "ending=' '"),
        ({"choices": ["a", "b"], "ending": "x", "unconditional": ""}, "without an ending"),
        ({"ending": "x"}, "nothing to choose from"),
    ],
)
def test_a_case_whose_choices_cannot_be_used_is_named(given, said):
    with pytest.raises(CasesError, match=f"case 'c': .*{said}"):
        Case("c", "prompt", **{"target": "a"} | given)


ROWS = {
    "mmlu": {"question": " Q? ", "choices": list("wxyz"), "answer": 2, "subject": "us_law"},
    "hellaswag": {
        "activity_label": "Cooking",
        "ctx_a": "A cook stands.",
        "ctx_b": "the cook",
        "endings": ["stirs [step] the  pot.", "sleeps."],
        "label": "1",
    },
    "arc": {
        "question": "Q?",
        "choices": {"text": ["one", "two"], "label": ["1", "2"]},
        "answerKey": "2",
    },
    "piqa": {"goal": "open it", "sol1": "pull", "sol2": "push", "label": 0},
    "winogrande": {
        "sentence": "Ida thanked Eva because _ had helped.",
        "option1": "Ida",
        "option2": "Eva",
        "answer": "2",
    },
    "own": {"prompt": "Q", "choices": ["a", "b"], "target": "b"},
}


def read(*rows):
    return list(questions((f"a.jsonl line {n}", row) for n, row in enumerate(rows, 1)))


def test_public_layouts_read_as_lm_evaluation_harness_writes_them():
    found = {name: read(row)[0] for name, row in ROWS.items()}
    assert {name: question.layout for name, question in found.items()} == {n: n for n in ROWS}
    assert found["mmlu"].prompt == "Q?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    assert (found["mmlu"].choices, found["mmlu"].target) == (tuple("ABCD"), "C")
    assert found["mmlu"].header.endswith("(with answers) about us law.\n\n")
    assert found["hellaswag"].prompt == "Cooking: A cook stands. The cook"
    assert found["hellaswag"].choices == ("stirs the pot.", "sleeps.")
    assert found["arc"].target == "two"
    assert found["winogrande"].prompt == "Ida thanked Eva because "
    assert found["winogrande"].solved == ("Ida thanked Eva because Eva", "had helped.")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("mmlu", {"answer": 4}, "field 'answer': the target 4"),
        ("mmlu", {"choices": ["a", "", "c", "d"]}, "field 'choices': choice 1 is ''"),
        ("hellaswag", {"label": ""}, "field 'label': .*use a split with answers"),
        ("hellaswag", {"endings": ["same", "same"]}, r"fields of hellaswag: choices\[1\]"),
        ("arc", {"answerKey": "E"}, "field 'answerKey' is 'E'"),
        ("piqa", {"label": -1}, "field 'label'.*use a split with answers"),
        ("winogrande", {"answer": ""}, "field 'answer' is ''"),
        ("winogrande", {"sentence": "No blank."}, "field 'sentence'"),
        ("own", {"target": "z"}, "'z' is none of the choices"),
        ("own", {"prompt": 3}, "field 'prompt' is 3"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_field(name, change, said):
    with pytest.raises(CasesError, match=f"^a.jsonl line 2: .*{said}"):
        read(ROWS[name], ROWS[name] | change)


def test_mixed_and_unknown_layouts_are_named():
    with pytest.raises(
        CasesError, match=r"line 2 has the layout of piqa, and .*line 1 that of arc"
    ):
        read(ROWS["arc"], ROWS["piqa"])
    with pytest.raises(CasesError, match="line 1 has the fields question, which no known layout"):
        read({"question": "?"})


def test_examples_are_never_the_asked_row_and_nearly_always_the_same():
    rows = [ROWS["own"] | {"prompt": f"Q{n}"} for n in range(12)]
    cases = choice_cases(Suite(few_shot=3, seed=5), read(*rows), "own", "a.jsonl")
    beginnings = {}
    for number, case in enumerate(cases):
        *shots, asked = case.prompt.text.split("\n\n")
        assert len(shots) == 3
        assert asked == f"Q{number}"
        assert f"Q{number} b" not in shots
        beginnings.setdefault(tuple(shots), []).append(number)
    assert max(map(len, beginnings.values())) == 9
    again = choice_cases(Suite(few_shot=3, seed=5), read(*rows), "own", "a.jsonl")
    assert again == cases
    assert choice_cases(Suite(few_shot=3, seed=6), read(*rows), "own", "a.jsonl") != cases


def test_more_examples_than_rows_are_refused_with_the_subject():
    rows = [ROWS["mmlu"], ROWS["mmlu"], ROWS["mmlu"] | {"subject": "law"}]
    with pytest.raises(CasesError, match=r"few-shot 1: a.jsonl, subject 'law', has 1 rows"):
        choice_cases(Suite(few_shot=1), read(*rows), "mmlu", "a.jsonl")


def test_a_row_is_asked_in_the_form_that_is_asked_for():
    rows = read(*(ROWS["mmlu"] | {"question": f"Q{n}?", "answer": n % 4} for n in range(4)))
    asked = {
        form: choice_cases(Suite(few_shot=2, ask=form, chats=True), rows, "mmlu", "a.jsonl")[0]
        for form in (None, "text", "message", "turns")
    }
    assert asked[None] == asked["text"]
    text = asked["text"].prompt.text
    header = rows[0].header
    for form in ("message", "turns"):
        assert asked[form].prompt[0] == {"role": "system", "content": header}
    _, message = asked["message"].prompt
    assert (message["role"], header + message["content"]) == ("user", text)
    _, *turns = asked["turns"].prompt
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    said = [turn["content"] for turn in turns]
    assert text == f"{header}{said[0]} {said[1]}\n\n{said[2]} {said[3]}\n\n{said[4]}"
    assert {said[1], said[3]} < set("ABCD")
    with pytest.raises(CasesError, match="ask turns: the model has no chat template"):
        choice_cases(Suite(ask="turns", chats=False), rows, "mmlu", "a.jsonl")


def test_an_ending_in_a_chat_follows_the_message_that_a_choice_ends():
    rows = read(ROWS["winogrande"], ROWS["winogrande"] | {"sentence": "The _ fell."})
    _, case = choice_cases(Suite(few_shot=1, ask="turns", chats=True), rows, "w", "a.jsonl")
    first, second = requests_of(case, chats=True)
    assert [turn["content"] for turn in first.prompt] == [
        *("Ida thanked Eva because Eva", "had helped."),
        "The Ida",
    ]
    assert second.prompt[-1] == {"role": "user", "content": "The Eva"}
    assert {first.continuation, second.continuation} == {"fell."}
    with pytest.raises(CasesError, match="messages of which the last"):
        requests_of(Case("c", "The ", choices=["a", "b"], target="a", ending="x"), chats=True)


def test_our_own_rows_can_be_used():
    cases = choice_cases(Suite(), list(questions(own_rows.choice_rows())), "x", "own rows")
    assert len(cases) == 30
    assert {len(case.choices[0]) == 1 for case in cases} == {True, False}  # letters and texts
