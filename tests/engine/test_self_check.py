"""The self-check finds no flip where there is none, and counts exactly those that there are."""

import copy
import json
from dataclasses import replace
from itertools import takewhile

import pytest
import torch
from architectures import PAD, tiny

from pytest_llmprobe import Engine, ScriptedModel
from pytest_llmprobe.engine.check_prompts import check_prompts
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.self_check import Difference, self_check
from pytest_llmprobe.engine.transformers_backend import TransformersBackend
from pytest_llmprobe.errors import BudgetError, InvalidLogitsError, ServerError
from pytest_llmprobe.models.capabilities import measure

ALL = check_prompts()
ALONE, SHARED, LONG = ALL.alone[:9:2], ALL.shared[:4], ALL.alone[-1]
PROMPTS = [*ALONE, *SHARED]
SIZES = {"batched": 9, "padded": 5, "shared": 4}


def ways(found):
    return {way.name: way for way in found.ways}


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gptj"])
def test_no_answer_in_float32_depends_on_the_batch(architecture):
    found = self_check(tiny(architecture), ALONE, SHARED, LONG)
    assert {name: (way.n, way.flipped) for name, way in ways(found).items()} == {
        name: (n, 0) for name, n in SIZES.items()
    }
    assert (found.dtype, found.shares_prefixes, found.failed) == ("float32", True, ())
    assert ways(found)["padded"].rows == len(ALONE) + 1
    assert ways(found)["shared"].rows == len(SHARED)
    assert found.tokens > len(PROMPTS)


def test_the_reference_is_plain_generate_whatever_the_other_ways_do(llama, monkeypatch):
    monkeypatch.setattr(FastBackend, "receive", lambda self, rows, *told: 1 / 0)
    alone = Engine(llama, batch_size=1).generate(PROMPTS)
    assert len(alone) == len(PROMPTS)
    with pytest.raises(ZeroDivisionError):
        self_check(llama, ALONE, SHARED, LONG)


def test_a_backend_that_attends_to_pads_is_found_out(monkeypatch):
    honest = TransformersBackend._padded

    def careless(self, prompts):
        ids, mask = honest(self, prompts)
        return ids, torch.ones_like(mask)

    monkeypatch.setattr(TransformersBackend, "_padded", careless)
    found = ways(self_check(tiny("gptj"), ALONE, SHARED, LONG))
    assert found["padded"].flipped >= 2
    assert found["batched"].flipped >= 1


def test_half_precision_is_measured(llama):
    model = copy.deepcopy(llama.model).to(torch.bfloat16)
    half = replace(llama, model=model, capabilities=measure(model, llama.tokenizer, PAD))
    found = self_check(half, ALONE, SHARED, LONG)
    assert found.dtype == "bfloat16"
    for name, way in ways(found).items():
        assert way.n == SIZES[name]
        assert len(way.first_differences) == min(way.flipped, 5)
        low, high = way.ci95
        assert 0 <= low <= way.rate <= high <= 1
    assert json.loads(json.dumps(found.as_dict()))["dtype"] == "bfloat16"


class Moody(ScriptedModel):
    """Answers 24 letters; in a batch some prompts get others from a certain token on.

    ``moods`` gives for a prompt's number the letters in a batch, ``None`` for an error.
    """

    def __init__(self, moods, alone="a" * 24, **attributes):
        super().__init__(self._say)
        self.info = {"dtype": "float32"}
        self._moods, self._alone, self._rows = moods, alone, 0
        self.asked = []
        for name, value in attributes.items():
            setattr(self, name, value)

    def generate(self, rows, on_tokens):
        self._rows = len(rows)
        self.asked.append(len(rows))
        return super().generate(rows, on_tokens)

    def _say(self, prompt):
        number = PROMPTS.index(prompt) + 1 if prompt in PROMPTS else 0
        words = self._moods.get(number, self._alone) if self._rows > 1 else self._alone
        if words is None:
            raise InvalidLogitsError("not finite")
        return words


def test_flips_are_counted_and_located_exactly():
    moods = {1: "b" * 24, 3: "aaaab", 7: "a" * 7, 8: "a" * 24 + "a", 9: None}
    found = ways(self_check(Moody(moods), ALONE, SHARED, LONG))
    assert {name: (way.flipped, way.n) for name, way in found.items()} == {
        "batched": (4, 9),
        "padded": (2, 5),
        "shared": (2, 4),
    }
    assert found["batched"].first_differences == tuple(
        Difference(*both) for both in [(1, 1), (3, 5), (7, 8), (9, 1)]
    )
    assert found["shared"].first_differences == (Difference(7, 8), Difference(9, 1))
    assert found["padded"].rate == 0.4
    assert found["padded"].ci95 == pytest.approx((0.118, 0.769), abs=1e-3)


def test_of_many_flips_the_first_few_are_located():
    found = ways(self_check(Moody(dict.fromkeys(range(10), "b")), ALONE, SHARED, LONG))
    assert found["batched"].flipped == 9
    assert [d.prompt for d in found["batched"].first_differences] == [1, 2, 3, 4, 5]


def test_each_way_is_asked_once_in_the_batches_that_it_is_about():
    model = Moody({})
    self_check(model, ALONE, SHARED, LONG, batch_size=2)
    assert model.asked == [1] * 9 + [2, 2, 2, 2, 1] + [6] + [4]


def test_a_model_that_takes_no_batches_says_so():
    found = self_check(Moody({1: "b"}, max_batch_size=1), ALONE, SHARED, LONG)
    assert [(way.flipped, way.rows) for way in found.ways] == [(0, 1)] * 3


def test_prompts_without_an_answer_are_named_and_not_compared():
    length = len(ALONE[-1]) + 24  # in characters, which are this model's tokens
    found = self_check(Moody({}, context_length=length), ALONE, SHARED, LONG)
    assert {way.name: way.n for way in found.ways} == {"batched": 5, "padded": 5, "shared": 0}
    assert found.failed
    assert all("context" in why for why in found.failed)
    assert (ways(found)["shared"].rate, ways(found)["shared"].ci95) == (None, None)
    assert ways(found)["padded"].rows == 5  # the long one did not fit


def test_what_a_server_fails_to_answer_is_no_flip():
    class Served(Moody):
        def generate(self, rows, on_tokens):
            answers = super().generate(rows, on_tokens)
            answers = [replace(answer, token_ids=()) for answer in answers]
            if len(rows) == 4:
                answers[:2] = [ServerError("503"), BudgetError("spent")]
            return answers

    found = ways(self_check(Served({8: "b", 9: "b"}), ALONE, SHARED, LONG, batch_size=9))
    assert (found["batched"].n, found["batched"].flipped) == (9, 2)
    assert (found["shared"].n, found["shared"].flipped) == (2, 2)
    assert found["shared"].first_differences == (Difference(8, None), Difference(9, None))


def test_a_model_that_never_answers_is_no_model_without_flips():
    found = self_check(Moody({}, alone=None), ALONE, SHARED, LONG)
    assert found.failed == ("not finite",)
    assert [(way.n, way.rate) for way in found.ways] == [(0, None)] * 3


def test_the_prompts_are_of_many_lengths_and_some_share_a_beginning():
    assert check_prompts() == ALL
    lengths = [len(prompt.split()) for prompt in ALL.alone]
    assert len(set(lengths)) > 9
    assert len(ALL.long.split()) > 2 * max(lengths)
    words = zip(*map(str.split, ALL.shared), strict=False)
    assert sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, words)) > 64
    assert len(set(ALL.shared)) == len(ALL.shared)
    assert len({prompt[:9] for prompt in ALL.alone}) > len(ALL.alone) // 2
