"""Texts to be summarised in French: their lengths, their choice, and what is said of an answer."""

import json
import random

import pytest

from pytest_llmprobe.data.sources import read_datasets
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.experiments.french_summary import bert_encoder, stories, texts
from pytest_llmprobe.experiments.french_summary.texts import (
    bert_score_with,
    summary_texts,
)
from pytest_llmprobe.experiments.french_summary.verdict import why_not_french
from pytest_llmprobe.models.registry import resolve
from pytest_llmprobe.models.token_counter import TokenCounter
from pytest_llmprobe.suite import Suite


@pytest.fixture(scope="module")
def counter():
    return TokenCounter(resolve("reference"))


class Words:
    """Counts words; a model with a context of 1,000 of them."""

    context_length = 1_000

    def count(self, prompt):
        return len(prompt.split())


# Stories


def test_a_storys_prompt_has_a_length_of_its_bin(counter):
    suite = Suite(counter=counter)
    texts = list(summary_texts(suite, (500, 1_000, 2_500), 3, 200))
    assert [(text.size, text.number) for text in texts] == [
        (size, number) for size in (500, 1_000, 2_500) for number in range(3)
    ]
    lengths = [suite.tokens(text.prompt(text.instructions[0])) for text in texts]
    for text, tokens in zip(texts, lengths, strict=True):
        assert text.size - 500 < tokens <= text.size
    assert len(set(lengths)) == len(lengths)


def test_lengths_are_counted_without_a_tokenizer_too():
    suite = Suite()
    texts = list(summary_texts(suite, (500, 1_500), 2, 200))
    for text in texts:
        assert text.size - 500 < suite.tokens(text.prompt(text.instructions[0])) <= text.size
    assert "estimated" in suite.said()[0]


def test_a_story_is_the_reference_models_kind_with_its_summary(counter):
    (text,) = summary_texts(Suite(counter=counter), (500,), 1, 200)
    assert text.prompt(text.instructions[0]) == stories.prompt(text.text, text.instructions[0])
    assert text.instructions[0] == "Summarize the following text in French."
    assert len(text.instructions) == len(stories.INSTRUCTIONS)
    assert why_not_french(text.reference) == ""
    assert text.reference.split()[0] in text.text
    assert text.source == "embedded stories"


def test_stories_depend_on_the_seed_alone(counter):
    def texts(seed, count):
        return [t.text for t in summary_texts(Suite(seed=seed, counter=counter), (500,), count, 9)]

    assert texts(1, 3) == texts(1, 4)[:3]
    assert not set(texts(1, 3)) & set(texts(2, 3))


def test_a_bin_beyond_the_context_is_left_out_and_said():
    suite = Suite(counter=Words())
    texts = list(summary_texts(suite, (500, 1_000, 1_500), 1, 200))
    assert {text.size for text in texts} == {500}
    assert suite.said() == [
        "left out texts of up to 1,000, 1,500 tokens: the model's context is 1,000 tokens, 200 for "
        "the answer"
    ]


# Texts of the user's


def given(tmp_path, lengths, **options):
    rows = [
        {"text": " ".join(f"{number}w"[::-1] for _ in range(n))} for number, n in enumerate(lengths)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    datasets = read_datasets(["french_summary=t.jsonl"], tmp_path)
    return Suite(datasets=datasets, counter=Words(), **options)


def chosen(suite, sizes=(500,), count=3):
    return [int(text.text.split()[0][1:][::-1]) for text in summary_texts(suite, sizes, count, 0)]


def test_texts_are_drawn_from_their_bin_as_pandas_draws_them(tmp_path):
    # DataFrame({"a": range(10)}).sample(3, random_state=42) of pandas 3.1 gives rows 8, 1 and 5.
    suite = given(tmp_path, [100] * 10)
    assert chosen(suite) == [8, 1, 5]
    assert suite.asked == {"french_summary"}
    assert chosen(given(tmp_path, [100] * 10, seed=1)) != [8, 1, 5]


def test_the_ends_of_a_bin_belong_to_none(tmp_path):
    # With "Summarize in french" before it a text has three words more.
    lengths = [496, 497, 498, 996, 997]
    assert sorted(chosen(given(tmp_path, lengths), (500, 1_000), 9)) == [0, 2, 3]


def test_a_bin_with_too_few_texts_gives_all_and_says_so(tmp_path):
    suite = given(tmp_path, [100, 600, 610])
    assert sorted(chosen(suite, (500, 1_000), 2)) == [0, 1, 2]
    (line,) = suite.said()
    assert line.startswith("left out 1 of 2 texts of up to 500 tokens: t.jsonl (3 texts, sha256 ")
    with pytest.raises(CasesError, match=r"t\.jsonl: no text has a length of 500 tokens"):
        chosen(given(tmp_path, [900]))


def test_a_users_text_may_come_with_the_summary_that_answers_are_compared_with(tmp_path):
    rows = [{"text": f"{n} word", "reference": f"Le mot {n}."} for n in range(4)]
    rows += [{"text": "4 word", "reference": None}, {"text": "5 word", "reference": " "}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    suite = Suite(datasets=read_datasets(["french_summary=t.jsonl"], tmp_path), counter=Words())
    found = {text.text: text.reference for text in summary_texts(suite, (500,), 9, 0)}
    assert found == {row["text"]: (row["reference"] or "").strip() or None for row in rows}


def test_a_users_text_is_asked_for_as_published(tmp_path):
    (text,) = summary_texts(given(tmp_path, [5]), (500,), 1, 0)
    assert text.prompt(text.instructions[0]) == f"Summarize in french:  \n {text.text}"
    assert text.reference is None
    assert len(text.instructions) == 3
    braces = texts.SummaryText("{x}", 500, 0, "s", text.template, text.instructions)
    assert braces.prompt("{y}") == "{y}  \n {x}"


# Answers


FRENCH = "Elle habite à Lyon. L'été dernier, elle a vendu une lampe bleue sur la plage."


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (FRENCH, ""),
        ("", "empty"),
        (" \n\t", "empty"),
        ("She lives in Lyon. Last summer, she sold a blue lamp on the beach.", "en"),
        ("Sie wohnt in Lyon. Im Sommer hat sie eine blaue Lampe am Strand verkauft.", "de"),
        ("12 34", "undetectable"),
        ("Oui.", "undetectable"),
        ("Velmora Tarkeln, Osmira Brunholt", "undetectable"),
        ("le la de et les des un une que qui dans pour sur avec par ce il elle", "stop_words"),
        ("et de la que le dans pour maison une un des les qui est il sur avec", "stop_words"),
        (f"{FRENCH} " * 4, "loop"),
        (FRENCH + " et il est très content" * 12, "loop"),
        (f"{FRENCH} She lives in Lyon. Last summer, she sold a blue lamp on the beach.", "mixed"),
        ("Vive en Lyon. El verano pasado vendió una lámpara azul en la playa.", "es"),
        ("Abita a Lione. L'estate scorsa ha venduto una lampada blu sulla spiaggia.", "it"),
        ("\x00\U0001f600\ud7ff" * 50, "undetectable"),
    ],
)
def test_only_french_is_french(answer, word):
    assert why_not_french(answer).partition(":")[0] == word


@pytest.mark.parametrize(
    "answer",
    [
        f"Résumé : {FRENCH}",
        f"**Résumé :**\n\n{FRENCH}",
        f"```\n{FRENCH}\n```",
        f"Voici un résumé en français du texte :\n\n{FRENCH}",
        f"I apologize for the confusion. Here is the summary in French:\n{FRENCH}",
        f"{FRENCH}\n\nLet me know if you need more!",
        json.dumps({"summary": FRENCH}),
        FRENCH.upper(),
        f"- {FRENCH}",
        f"\u00ab {FRENCH} \u00bb",
        "Velmora Tarkeln, Osmira Brunholt et Quessin Maldrey vivent à Dresden.",
        "John Smith, Mary Johnson et Peter Brown ont rencontré George Washington à New York.",
        "Selon le New York Times, Joe Biden et Donald Trump se sont affrontés lors d'un débat.",
        "Microsoft, Google, Amazon et Apple investissent massivement dans l'intelligence.",
        "Dans ce texte, Warner Bros a vendu les droits de The Lord of the Rings à Amazon Studios.",
        "Il n'est pas rare que ce qui se passe là ne soit pas ce à quoi on s'attend.",
    ],
)
def test_french_is_french_whatever_surrounds_it_and_however_many_names_it_has(answer):
    assert why_not_french(answer) == ""


def test_an_answer_without_room_is_cut_off():
    assert why_not_french("", cut_off=True).startswith("cut_off:")
    assert why_not_french("Elle", cut_off=True).startswith("cut_off:")
    assert why_not_french(FRENCH, cut_off=True) == ""
    assert why_not_french(f"{FRENCH} " * 9, cut_off=True).startswith("loop:")


def test_the_reference_summaries_are_all_told_to_be_in_their_language():
    rng = random.Random(0)
    told = [stories.story(rng, 0) for _ in range(40)]
    assert {why_not_french(story.summary_fr) for story in told} == {""}
    assert {why_not_french(story.summary_en).partition(":")[0] for story in told} == {"en"}


def test_bert_score_says_with_what_or_why_not(monkeypatch, tmp_path):
    assert bert_score_with(None).startswith("not measured: no French summary in the text's row")
    monkeypatch.setenv(bert_encoder.VARIABLE, str(tmp_path))
    assert bert_score_with("x").startswith(f"not measured: {tmp_path} is not on this machine: run")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    assert bert_score_with("x") == str(tmp_path)
