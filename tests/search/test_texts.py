"""What a tokenizer's arguments and the user's functions do to prompts and answers of a search."""

import pytest
import torch
from some_tasks import ROWS, Sampler, task
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pytest_llmprobe import Engine
from pytest_llmprobe.engine.completion_file import COMPLETIONS
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.models.registry import REFERENCE
from pytest_llmprobe.search import GenerationEstimator, RegexNumber, SearchTask, search

TEXTS = [{"id": str(n), "text": "The red fox saw the old map. " * n} for n in (1, 4)]


@pytest.fixture(scope="module")
def pair():
    """A tiny model and its tokenizer, as a program holds them."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.4,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


def asked(pair, prompt="{text}", **how):
    model, tokenizer = pair
    how = {"score": lambda rows, answers: [1.0] * len(rows), "max_new_tokens": 6} | how
    return SearchTask(model, TEXTS, prompt, tokenizer=tokenizer, **how)


def answers(found):
    (texts,) = found.answers([found.configuration({})], found.rows)
    return [answer.text for answer in texts]


def generated(pair, **encode):
    """What transformers makes of the same arguments, the ids after the prompt."""
    model, tokenizer = pair
    for row in TEXTS:
        ids = tokenizer(row["text"], return_tensors="pt", **encode)
        out = model.generate(**ids, max_new_tokens=6, do_sample=False)
        yield out[0, ids["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize(
    "encode", [{}, {"truncation": True, "max_length": 9}, {"add_special_tokens": False}]
)
def test_prompts_are_encoded_as_the_tokenizer_does(pair, encode):
    found = asked(pair, encode={**encode, "padding": "longest"})
    expected = [pair[1].decode(ids, skip_special_tokens=True) for ids in generated(pair, **encode)]
    assert answers(found) == expected
    if "truncation" in encode:
        assert [len(prompt.ids) for prompt in found.prompts(found.rows)] == [9, 9]


def test_answers_are_decoded_as_asked_and_cut_before_a_stop_string(pair):
    expected = [
        pair[1].decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=True)
        for ids in generated(pair)
    ]
    decode = {"skip_special_tokens": False, "clean_up_tokenization_spaces": True}
    assert answers(asked(pair, encode={}, decode=decode)) == expected
    stop = expected[0][3:5]
    cut = answers(asked(pair, encode={}, decode=decode, stop=[stop]))[0]
    assert cut == expected[0][: expected[0].index(stop)]


def test_a_prompt_function_may_take_the_tokenizer(pair):
    def prompt(row, tokenizer):
        chat = [{"role": "user", "content": row["text"]}]
        return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    rendered = asked(pair, prompt, encode={"add_special_tokens": False})
    assert answers(rendered) == answers(asked(pair))  # a string is rendered alike


def test_what_a_function_makes_of_an_answer_is_scored_and_predicted():
    found, _ = task(postprocess=lambda text: text.replace("It is ", "#"))
    assert GenerationEstimator(found).predict(ROWS[:2]) == ["#0.", "#3."]
    wrong, _ = task(postprocess=lambda text: "")
    assert (found.mean(), wrong.mean()) == (1.0, 0.0)


def test_functions_are_called_after_each_batch_that_is_generated(tmp_path):
    model, calls = Sampler(), []
    how = {"after_batch": [lambda: calls.append(len(model.calls))], "folder": tmp_path}
    engine = Engine(model, batch_size=8)
    found = SearchTask(engine, ROWS, "{a}+{b}=", RegexNumber("sum"), **how)
    found.mean()
    assert calls == [1, 2, 3, 4, 5]
    assert engine.after_batch == ()
    assert (tmp_path / COMPLETIONS).is_file()
    SearchTask(engine, ROWS, "{a}+{b}=", RegexNumber("sum"), **how).mean()
    assert len(calls) == 5  # recorded answers are no batch


def wrong(rows, answers):
    """The share of wrong answers, of which less is better."""
    right = RegexNumber("sum")(rows, answers)
    return [1 - score for score in right]


@pytest.mark.parametrize("joint", [False, True])
def test_where_less_is_better_the_least_wins(joint):
    def score(rows, answers):
        each = wrong(rows, answers)
        return sum(each) / len(each) if joint else each

    space = {"temperature": [0.0, 1.5]}
    found, _ = task(score=score, greater_is_better=False)
    result = search(found, space, default={"temperature": 1.5})
    assert result.best.label == "temperature=0"
    assert result.is_better
    assert not result.is_worse
    assert result.difference < -0.3
    assert result.verdict.startswith("temperature=0 is better than temperature=1.5: -0.")
    table = str(result).splitlines()
    assert table[1].startswith("temperature=0 ")
    assert search(found, space).verdict.endswith("of 2 tried none scores below the default")
    assert GenerationEstimator(found, temperature=1.5).score(found.rows) < -0.3
    most, _ = task(score=score)
    assert search(most, space).best.label == "temperature=1.5"


def test_what_cannot_be_meant_is_refused(pair):
    for encode, words in (
        ({"return_tensors": "pt"}, "handed on as lists"),
        ({"padding": "max_length"}, "padded by the engine"),
        ({"truncated": True}, r"'truncated': \.+}: no argument of the tokenizer; "),
    ):
        with pytest.raises(SettingsError, match=words):
            asked(pair, encode=encode)
    with pytest.raises(SettingsError, match=r"'skip_special': \.+}: no argument"):
        asked(pair, decode={"skip_special": True})
    with pytest.raises(CasesError, match=r"row 1: encode=.+ takes texts"):
        asked(pair, lambda row: [{"role": "user", "content": row["text"]}], encode={})
    with pytest.raises(SettingsError, match=r"encode=.* needs a model in this process"):
        task(encode={"truncation": True})
    with pytest.raises(SettingsError, match="the argument tokenizer needs a model in this"):
        SearchTask(Engine(Sampler()), ROWS, lambda row, tokenizer: "", RegexNumber("sum"))
    with pytest.raises(SettingsError, match="an engine has its model's"):
        SearchTask(Engine(Sampler()), ROWS, "{a}", RegexNumber("sum"), tokenizer=pair[1])
