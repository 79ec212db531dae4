"""Right answers pass in whatever style they are said, and wrong ones pass in none.

An answerer is the reference solver of an evaluation that speaks in a style; the evaluation's own
test judges it.
"""

import json
import random
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle
from pathlib import Path
from runpy import run_path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from styles import BLOCK_STYLES, CORRECTIONS, REFUSALS, STYLES, Said

from pytest_llmprobe.data.prose import CITIES, NOUNS
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.engine.scripted import ScriptedModel
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.experiments.haystack import documents as passages
from pytest_llmprobe.experiments.haystack import text_needle, variables, word_counts
from pytest_llmprobe.experiments.json_format import documents
from pytest_llmprobe.generation import Completion, GenerateConfig, Request, Timings, Usage
from pytest_llmprobe.suite import Suite

EVALS = Path(__file__).parents[2] / "evals"
REFUSAL = "I cannot find it in the text"


class Family:
    """An evaluation: its cases, what is right, what is wrong, and in which styles."""

    styles = STYLES
    wrong = {}

    def __init__(self, file, cases, test=None):
        names = run_path(str(EVALS / file))
        self.cases = list(names[cases](Suite("ci")))
        self.continued = list(names[cases](Suite("ci", chats=False)))  # for a base model
        self.names, self.test = names, names[test or Path(file).stem]

    def miss(self, case, text):
        """How the evaluation says that an answer failed, or None."""
        completion = Completion(text, (), "stop", Usage(1, 1), Timings(0.1, 1), "0" * 16)
        try:
            self.run(case, completion)
        except AssertionError as miss:
            return str(miss)
        return None

    def run(self, case, completion):
        self.test(case, completion, {}.__setitem__)


# UUIDs


@dataclass(frozen=True)
class Known:
    """What the solver knows about a case."""

    task: needle.solver.Task
    said: Said
    others: tuple[str, ...]  # values that have nothing to do with the question

    def saying(self, *values):
        return replace(self.said, values=values)

    @property
    def other(self):
        return self.others[0] if self.others else "01234567-89ab-4cde-8f01-23456789abcd"

    def each(self, change):
        return self.saying(*map(change, self.said.values))


def other_digit(value):
    last = "0" if value[-1] != "0" else "1"
    return value[:-1] + last


WRONG_UUIDS = {
    "another value": lambda known: known.each(lambda _: known.other),
    "one wrong": lambda known: known.saying(*known.said.values[:-1], known.other),
    "a hedge": lambda known: known.each(lambda value: f"{value} or {known.other}"),
    "a hedge, wrong first": lambda known: known.each(lambda v: f"{known.other} or maybe {v}"),
    "one too many": lambda known: known.saying(*known.said.values, known.other),
    "a refusal": lambda known: known.saying(REFUSAL),
    "the key alone": lambda known: known.saying(*known.said.keys),
    "the key of another pair": lambda known: known.each(
        lambda _: next(p.key for p in known.task.pairs if p.value == known.other)
    ),
    "half": lambda known: known.each(lambda value: value[:18]),
    "all but its end": lambda known: known.each(lambda value: value[:-1]),
    "one digit changed": lambda known: known.each(other_digit),
    "denied": lambda known: known.each(lambda value: f"not {value}"),
    "all values": lambda known: known.saying(*(pair.value for pair in known.task.pairs)),
    "the haystack": lambda known: known.saying(needle.render(known.task.pairs)),
    "the last missing": lambda known: known.saying(*known.said.values[:-1]),
    "the order changed": lambda known: known.saying(*known.said.values[::-1]),
    "a step of the thread": lambda known: known.saying(*known.said.way[-1:]),
    "a step or the end": lambda known: known.each(lambda v: f"{known.said.way[-1]} or {v}"),
    "the end or a step": lambda known: known.each(lambda v: f"{v}, or else {known.said.way[-1]}"),
    "nothing": lambda known: known.saying(""),
}
LISTS_ONLY = ("the last missing", "the order changed")
THREADS_ONLY = ("a step of the thread", "a step or the end", "the end or a step")


class Needles(Family):
    wrong = WRONG_UUIDS

    @cache  # noqa: B019 - a dozen families live as long as the tests
    def known(self, prompt):
        task = needle.read_task(prompt)
        links = needle.Links(task.pairs)
        paths = [links.longest(key) for key in task.keys]
        met = {value for key in task.keys for step in links.steps(key) for value in step}
        said = Said(
            task.keys,
            tuple(needle.solve(prompt).split("\n")),
            tuple(step for path in paths for step in path[:-1]),
            prompt[prompt.rindex("}") + 1 :].strip(),
        )
        return Known(task, said, tuple(p.value for p in task.pairs if p.value not in met))

    def right_said(self, case):
        return self.known(case.prompt).said

    def wrong_said(self, case, kind):
        """None where a case has no such wrong answer."""
        known = self.known(case.prompt)
        is_list = len(known.said.values) > 1
        if (kind in LISTS_ONLY and not is_list) or (kind in THREADS_ONLY and not known.said.way):
            return None
        if kind == "the order changed" and known.task.is_conditional:
            return None
        if not known.others and kind in ("the key of another pair", "all values", "the haystack"):
            return None  # all pairs belong to the question
        return self.wrong[kind](known)


class Search(Needles):
    def run(self, case, completion):
        (right,) = self.test([{"prompt": case.prompt, "target": case.target}], [completion.text])
        assert right


# Facts in prose


def text_forms(value):
    """A number with separators is the number."""
    if not value.isdecimal():
        return [value]
    return [value, *(f"{int(value):,}".replace(",", mark) for mark in (",", " ", ".", "\u202f"))]


class Texts(Family):
    wrong = {
        "another value": lambda value, other, _: other,
        "a hedge": lambda value, other, _: f"{value} or {other}",
        "a hedge, wrong first": lambda value, other, _: f"either {other} or {value}",
        "a doubt": lambda value, other, _: f"{value}, or maybe {other}",
        "a decoy too": lambda value, other, decoy: decoy and f"{value}, {decoy}",
        "a decoy": lambda value, other, decoy: decoy,
        "a refusal": lambda *_: REFUSAL,
        "half": lambda value, *_: value[: len(value) // 2],
        "a longer word": lambda value, *_: f"{value}{value[-1]}",
        "within another": lambda value, *_: f"{value[0]}{value}",
        "denied": lambda value, *_: f"not {value}",
        "nothing": lambda *_: "",
    }

    def run(self, case, completion):
        self.test(case, completion)

    def right_said(self, case):
        asked = case.prompt.rpartition("Question: ")[2].partition("\n")[0]
        key = asked.removeprefix("What is ").removesuffix("?")
        return Said((key,), (case.target,), question=f"Question: {asked}")

    def wrong_said(self, case, kind):
        fact, decoys = text_needle.read_task(case.prompt)
        if fact.kind == "number":
            other = str(int(fact.value) + (1 if fact.value[-1] != "9" else -1))
        else:
            values = NOUNS if fact.kind == "word" else CITIES
            other = next(v for v in values[7:] if v != fact.value)
        decoy = decoys[0].value if decoys else None
        value = self.wrong[kind](fact.value, other, decoy)
        return None if value is None else replace(self.right_said(case), values=(value,))


class ClosedBook(Texts):
    """Right is to know nothing."""

    wrong = {
        "knows it": lambda value: value,
        "knows it and doubts": lambda value: f"{value}, I suppose",
    }

    def right_said(self, case):
        return replace(super().right_said(case), values=("not stated",))

    def wrong_said(self, case, kind):
        return replace(self.right_said(case), values=(self.wrong[kind](case.target),))


class Answers(Texts):
    """Questions about documents."""

    def run(self, case, completion):
        self.test(case, completion, {}.__setitem__)

    def right_said(self, case):
        asked = case.prompt.rpartition("Question: ")[2].partition("\n")[0]
        (right,) = case.target
        return Said((asked,), (right,), question=f"Question: {asked}")

    def wrong_said(self, case, kind):
        fact, others = passages.read_task(case.prompt)
        other = next(city for city in CITIES[7:] if city != fact.value)
        decoy = next((one.value for one in others), None)
        value = self.wrong[kind](fact.value, other, decoy)
        return None if value is None else replace(self.right_said(case), values=(value,))


# Names and words, all of which must be there


class Names(Family):
    wrong = {
        "another one": lambda right, other: (*right[:-1], other),
        "one too many": lambda right, other: (*right, other),
        "one too many first": lambda right, other: (other, *right),
        "the last missing": lambda right, _: right[:-1],
        "the first missing": lambda right, _: right[1:],
        "a hedge": lambda right, other: (*right[:-1], f"{right[-1]} or {other}"),
        "a hedge, wrong first": lambda right, other: (*right[:-1], f"{other} or {right[-1]}"),
        "only others": lambda _, other: (other,),
        "denied": lambda right, _: tuple(f"not {name}" for name in right),
        "a longer word": lambda right, _: tuple(f"{name}{name[-1]}" for name in right),
        "half": lambda right, _: tuple(name[: len(name) // 2] for name in right),
        "a refusal": lambda *_: (REFUSAL,),
        "nothing": lambda *_: ("",),
    }

    def __init__(self, file, cases, test, read, key):
        super().__init__(file, cases, test)
        self.read, self.key = cache(read), key

    def right_said(self, case):
        question = case.prompt[case.prompt.rindex("\n\n") :].strip()
        return Said((self.key,), self.read(case.prompt).required, question=question)

    def wrong_said(self, case, kind):
        task = self.read(case.prompt)
        other = next(name for name in task.known if name not in task.required)
        values = self.wrong[kind](task.required, other)
        return replace(self.right_said(case), values=values)


class Invented(Names):
    wrong = Names.wrong | {"invented": lambda right, _: (*right, right[0][::-1])}


# JSON and French


class Objects(Family):
    styles = BLOCK_STYLES
    wrong = {
        "a hedge": lambda truth: f"{json.dumps(truth)} or {json.dumps(truth | {'x': 1})}",
        "two": lambda truth: f"{json.dumps(truth)}\n{json.dumps(truth)}",
        "a key missing": lambda truth: json.dumps(dict(list(truth.items())[1:])),
        "a key too many": lambda truth: json.dumps(truth | {"note": "x"}),
        "wrong types": lambda truth: json.dumps({key: [value] for key, value in truth.items()}),
        "null for all": lambda truth: json.dumps(dict.fromkeys(truth)),
        "upper-case keys": lambda truth: json.dumps({k.upper(): v for k, v in truth.items()}),
        "half": lambda truth: json.dumps(truth)[: len(json.dumps(truth)) // 2],
        "without its end": lambda truth: json.dumps(truth)[:-1],
        "a comma too many": lambda truth: json.dumps(truth)[:-1] + ",}",
        "Python": lambda truth: str(truth),
        "YAML": lambda truth: "\n".join(f"{key}: {value}" for key, value in truth.items()),
        "a list": lambda truth: json.dumps([truth]),
        "within another": lambda truth: json.dumps({"answer": truth}),
        "the keys": lambda truth: json.dumps(list(truth)),
        "a program": lambda truth: f"\n```python\nanswer = {json.dumps(truth)}\n```\n",
        "a refusal": lambda _: REFUSAL,
        "nothing": lambda _: "",
    }

    def right_said(self, case):
        schema = json.dumps(documents.schema(case.metadata["kind"]))
        return Said(("JSON",), (case.target,), question=f"Schema: {schema}")

    def wrong_said(self, case, kind):
        return Said(("JSON",), (self.wrong[kind](json.loads(case.target)),))


ENGLISH = "She lives in Lyon. Last summer, she sold a blue lamp on the beach, and she was happy."
ENGLISH_TOO = "In the end, her brother, who was at the market with her, bought it for very little"
SOUP = "le la de et les des un une que qui dans pour sur avec par ce il elle est au ne pas se"


class Summaries(Family):
    styles = BLOCK_STYLES
    wrong = {
        "English": lambda _: ENGLISH,
        "half English": lambda right: f"{right} {ENGLISH} {ENGLISH.replace('She', 'Mary')}",
        "English in turn": lambda right: " ".join(
            f"{fr}. {en}."
            for fr, en in zip(right.split(". "), [ENGLISH[:-1], ENGLISH_TOO], strict=False)
        ),
        "half a sentence": lambda right: f"{right[: len(right) // 2]} {ENGLISH}",
        "soup": lambda _: SOUP,
        "more soup": lambda _: " ".join(random.Random(1).choices(SOUP.split(), k=60)),
        "a loop": lambda right: " ".join([right.split(". ")[0] + "."] * 8),
        "a loop of few words": lambda right: f"{right} {'et il est très content ' * 30}",
        "Spanish": lambda _: (
            "Vive en Lyon. El verano pasado vendi\u00f3 una l\u00e1mpara en la playa."
        ),
        "German": lambda _: "Sie wohnt in Lyon. Im Sommer hat sie eine Lampe am Strand verkauft.",
        "names": lambda _: "Velmora Tarkeln, Osmira Brunholt, Quessin Maldrey",
        "a refusal": lambda _: f"{REFUSAL}, and I do not know what to say about it.",
        "nothing": lambda _: "",
    }

    def run(self, case, completion):
        self.test(case, completion, {}.__setitem__, None)

    def right_said(self, case):
        return Said(("R\u00e9sum\u00e9",), (case.target,))

    def wrong_said(self, case, kind):
        return Said(("R\u00e9sum\u00e9",), (self.wrong[kind](case.target),))


FAMILIES = {
    "single_needle": Needles("needle/test_single_needle.py", "single_needles"),
    "multiple_needles": Needles("needle/test_multiple_needles.py", "multiple_needles"),
    "conditional_needles": Needles("needle/test_conditional_needles.py", "conditional_needles"),
    "threading": Needles("needle/test_threading.py", "threads"),
    "multi_threading": Needles("needle/test_multi_threading.py", "multi_threads"),
    "branched_threading": Needles("needle/test_branched_threading.py", "branched_threads"),
    "generation_search": Search(
        "generation_search/test_generation_search.py", "needles", "right_value"
    ),
    "text_needle": Texts("haystack/test_text_needle.py", "text_needles"),
    "text_decoys": Texts("haystack/test_text_needle.py", "text_decoys", "test_text_decoys"),
    "closed_book": ClosedBook("haystack/test_text_needle.py", "closed_books", "test_closed_book"),
    "question_answering": Answers("haystack/test_question_answering.py", "question_answering"),
    "variable_tracking": Invented(
        "haystack/test_variable_tracking.py",
        "variable_tracking",
        "test_variable_tracking",
        variables.read_task,
        "48213",
    ),
    "common_words": Names(
        "haystack/test_word_counts.py",
        "common_words",
        "test_common_words",
        word_counts.read_task,
        "the most common words",
    ),
    "frequent_words": Invented(
        "haystack/test_word_counts.py",
        "frequent_words",
        "test_frequent_words",
        word_counts.read_task,
        "the most frequent words",
    ),
    "json_format": Objects("json_format/test_json_format.py", "json_objects"),
    "french_summary": Summaries("french_summary/test_french_summary.py", "french_summaries"),
}
every_family = pytest.mark.parametrize("name", FAMILIES)
NO_VALUES = ("closed_book", "json_format", "french_summary")
every_value_family = pytest.mark.parametrize("name", [n for n in FAMILIES if n not in NO_VALUES])


def test_there_are_ten_styles_and_more_and_all_cases():
    assert len(STYLES) >= 10
    assert len(BLOCK_STYLES) >= 10
    assert sum(len(f.cases) for name, f in FAMILIES.items() if name != "french_summary") >= 415


@every_family
def test_a_right_answer_passes_in_every_style(name):
    family = FAMILIES[name]
    cases = family.cases if name != "french_summary" else family.cases[::9]
    for case in cases:
        said = family.right_said(case)
        for style in family.styles.values():
            text = style(said)
            assert family.miss(case, text) is None, text


CORRECTED = {  # families, and how an answer to them is half right
    "Needles": ("one wrong", "a step of the thread", "the order changed"),
    "Texts": ("another value", "a decoy"),
    "Names": ("another one", "the last missing", "one too many"),
}


def slips(family, case):
    """Wrong answers to a case."""
    classes = [one.__name__ for one in type(family).mro()]
    kinds = next(CORRECTED[one] for one in classes if one in CORRECTED)
    said = (family.wrong_said(case, kind) for kind in kinds)
    return [one.values for one in said if one is not None]


@every_value_family
def test_what_an_answer_comes_to_in_the_end_is_judged(name):
    family = FAMILIES[name]
    for case in family.cases[::3]:
        said = family.right_said(case)
        for wrong in slips(family, case):
            for correct in CORRECTIONS.values():
                text = correct(replace(said, slips=wrong))
                assert family.miss(case, text) is None, text
                text = correct(replace(said, values=wrong, slips=said.values))
                assert family.miss(case, text) is not None, text
        for correct in CORRECTIONS.values():
            text = correct(replace(said, values=(REFUSAL,), slips=said.values))
            assert family.miss(case, text) is not None, text


@every_value_family
def test_a_right_value_that_is_only_named_is_no_answer(name):
    family = FAMILIES[name]
    for case in family.cases[::3]:
        said = family.right_said(case)
        for wrong in (one for one in slips(family, case) if {*one} - {*said.values}):
            for refuse in REFUSALS.values():
                text = refuse(replace(said, slips=wrong))
                assert family.miss(case, text) is not None, text


@every_family
def test_a_wrong_answer_passes_in_no_style(name):
    family, tried = FAMILIES[name], 0
    cases = cycle(family.cases)
    for kind in family.wrong:
        for style in family.styles.values():
            case = next(cases)
            if (said := family.wrong_said(case, kind)) is not None:
                tried += 1
                text = style(said)
                assert family.miss(case, text) is not None, text
    assert tried > len(family.wrong) * len(family.styles) / 4


# Models without a chat template, which go on with a text and know no end


def bare_line(said):
    return f" {', '.join(said.values)}"


def quoted_line(said):
    return " " + ", ".join(f'"{value}"' for value in said.values)


def sentence_line(said):
    return f" The answer is {' and '.join(said.values)}."


def next_question(family, case):
    return f"{case.prompt} {', '.join(family.right_said(case).values)}"


def an_answer(family, case):
    return ", ".join(family.right_said(case).values)


def nothing(family, case):
    return ""


CONTINUED = [name for name in FAMILIES if name != "french_summary"]


@pytest.mark.parametrize("name", CONTINUED)
@pytest.mark.parametrize("line", [bare_line, quoted_line, sentence_line])
@pytest.mark.parametrize("goes_on", [next_question, an_answer, nothing])
def test_what_a_base_model_makes_up_after_its_answer_is_not_read(name, line, goes_on):
    family = FAMILIES[name]
    if name == "json_format" and line is not bare_line:
        pytest.skip("an object is a block of its own")
    said = {}
    for case, following in zip(family.continued, family.continued[1:], strict=False):
        right, after = line(family.right_said(case)), goes_on(family, following)
        said[case.prompt] = f"{right}{case.stop[-1]}{after}"
    answers = Engine(ScriptedModel(lambda prompt: said[prompt] * 2)).generate(
        [Request.of_case(case, GenerateConfig()) for case in family.continued[:-1]]
    )
    for case, answer in zip(family.continued, answers, strict=False):
        assert answer.finish_reason == "stop_string"
        assert family.miss(case, answer.text) is None, answer.text


@pytest.mark.parametrize("name", CONTINUED)
def test_a_right_answer_after_a_base_models_first_line_comes_too_late(name):
    family = FAMILIES[name]
    for kind in family.wrong:
        for case in family.continued[:6]:
            if (wrong := family.wrong_said(case, kind)) is None:
                continue
            text = f"{bare_line(wrong)}{case.stop[-1]}{bare_line(family.right_said(case))}"
            model = Engine(ScriptedModel(lambda _, text=text: text))
            roomy = replace(case, max_new_tokens=10_000)  # the room cuts nothing short
            (answer,) = model.generate([Request.of_case(roomy, GenerateConfig())])
            assert family.miss(case, answer.text) is not None, answer.text


BEFORE = ("", "\n", "Sure!\n", "Here you are:\n\n")
AFTER = ("", "\n", " ", "\n\n\u2705", "\n\n")


@settings(deadline=None, max_examples=1_500)
@given(st.sampled_from(list(FAMILIES)), st.data())
def test_case_style_and_what_is_around_it_together(name, data):
    family = FAMILIES[name]
    case = data.draw(st.sampled_from(family.cases))
    style = data.draw(st.sampled_from(list(family.styles.values())))
    before, after = (data.draw(st.sampled_from(some)) for some in (BEFORE, AFTER))
    right = f"{before}{style(family.right_said(case))}{after}"
    assert family.miss(case, right) is None, right
    kind = data.draw(st.sampled_from(list(family.wrong)))
    said = family.wrong_said(case, kind)
    assume(said is not None)
    wrong = f"{before}{style(said)}{after}"
    assert family.miss(case, wrong) is not None, wrong


@pytest.mark.parametrize("name", ["text_needle", "text_decoys"])
def test_a_number_is_one_with_separators_too(name):
    family = FAMILIES[name]
    for case in family.cases:
        said = family.right_said(case)
        for form in text_forms(case.target):
            for style in STYLES.values():
                text = style(replace(said, values=(form,)))
                assert family.miss(case, text) is None, text
