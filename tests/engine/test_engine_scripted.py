"""The engine on a scripted model: order, errors, memory, progress."""

import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.case import RawPrompt
from pytest_llmprobe.engine import Engine, ScriptedModel
from pytest_llmprobe.engine.backend import Backend
from pytest_llmprobe.errors import PromptTooLongError, RequestError, SettingsError
from pytest_llmprobe.generation import GenerateConfig, Request, Usage

many = settings(deadline=None, max_examples=200)
SHORT, LONG = GenerateConfig(max_new_tokens=4), GenerateConfig(max_new_tokens=50)


class Watched(ScriptedModel):
    """A scripted model that keeps its batches and has room for only so many rows at once."""

    def __init__(self, answer=str.upper, rows=None, context_length=None):
        super().__init__(answer, context_length)
        self.rows = rows
        self.tried, self.done = [], []
        self.released = []

    def generate(self, rows, on_tokens):
        self.tried.append([row.index for row in rows])
        if self.rows is not None and len(rows) > self.rows:
            raise MemoryError(f"no room for {len(rows)} rows")
        answers = super().generate(rows, on_tokens)
        self.done.append([row.index for row in rows])
        return answers

    def release_memory(self):
        self.released.append(sys.exc_info()[1])


def texts(completions):
    return [completion.text for completion in completions]


# Order and batches


@many
@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=30), st.sampled_from([SHORT, LONG]))),
    st.none() | st.integers(1, 5),
)
def test_answers_come_in_the_order_of_the_requests_whatever_the_batches(asked, batch_size):
    engine = Engine(ScriptedModel(lambda prompt: prompt[::-1]), batch_size=batch_size)
    completions = engine.generate([Request(prompt, config) for prompt, config in asked])
    assert texts(completions) == [p[::-1][: config.max_new_tokens] for p, config in asked]


def test_equal_requests_are_each_asked_and_answered():
    numbers = iter(range(10))
    engine = Engine(ScriptedModel(lambda _: str(next(numbers))))
    assert sorted(texts(engine.generate(["same"] * 3))) == ["0", "1", "2"]


def test_a_batch_never_mixes_configs_and_each_row_keeps_its_own():
    model = Watched(lambda _: "0123456789")
    requests = [Request("p", [SHORT, LONG][n % 2]) for n in range(6)]
    completions = Engine(model, batch_size=4).generate(requests)
    assert sorted(map(sorted, model.done)) == [[0, 2, 4], [1, 3, 5]]
    assert texts(completions) == ["0123", "0123456789"] * 3


def test_bare_prompts_share_the_given_config_and_requests_keep_theirs():
    engine = Engine(ScriptedModel(lambda _: "x" * 99))
    completions = engine.generate(["a", Request("b", LONG), "c"], SHORT)
    assert [len(text) for text in texts(completions)] == [4, 50, 4]


def test_without_a_config_bare_prompts_get_64_new_tokens():
    assert len(Engine(ScriptedModel(lambda _: "x" * 99)).generate(["a"])[0].text) == 64


def test_no_requests_are_no_completions():
    model = Watched()
    assert Engine(model).attempt([]) == []
    assert model.tried == []


def test_the_model_and_the_caller_both_limit_a_batch():
    model = Watched()
    model.max_batch_size = 2
    Engine(model, batch_size=3).generate(list("abcd"))
    Engine(model, batch_size=1).generate(list("ab"))
    Engine(model).generate(list("abc"))
    assert [len(batch) for batch in model.done] == [2, 2, 1, 1, 2, 1]


def test_the_token_budget_limits_a_batch():
    model = Watched()
    Engine(model, token_budget=20).generate(["abcdef"] * 4, SHORT)  # 20 // (6 + 4) = 2 rows
    assert [len(batch) for batch in model.done] == [2, 2]


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_no_rows_is_refused(batch_size):
    with pytest.raises((SettingsError, ValueError), match="batch_size"):
        Engine(ScriptedModel(str.upper), batch_size=batch_size)


def test_a_scripted_model_is_a_backend():
    assert isinstance(ScriptedModel(str.upper), Backend)


# Completions


def test_chat_messages_are_asked_as_their_text():
    chat = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    assert Engine(ScriptedModel(str.upper)).generate([chat])[0].text == "A\n\nB"


def test_an_answer_longer_than_max_new_tokens_is_cut_and_says_length():
    completion = Engine(ScriptedModel(lambda _: "0123456789")).generate(["p"], SHORT)[0]
    assert (completion.text, completion.finish_reason) == ("0123", "length")
    assert completion.token_ids == tuple(map(ord, "0123"))


def test_an_answer_that_ends_by_itself_says_stop():
    completion = Engine(ScriptedModel(lambda _: "012")).generate(["p"], SHORT)[0]
    assert (completion.text, completion.finish_reason) == ("012", "stop")


@pytest.mark.parametrize(
    ("stop", "text", "generated"),
    [("\n", "one", "one\n"), (("two", "\n"), "one", "one\n"), ("one", "", "one")],
)
def test_the_text_is_cut_before_the_first_stop_string_and_the_ids_after_it(stop, text, generated):
    config = GenerateConfig(stop=stop)
    completion = Engine(ScriptedModel(lambda _: "one\ntwo")).generate(["p"], config)[0]
    assert (completion.text, completion.finish_reason) == (text, "stop_string")
    assert completion.token_ids == tuple(map(ord, generated))


def test_a_stop_string_is_no_pattern():
    config = GenerateConfig(stop=".")
    assert texts(Engine(ScriptedModel(lambda _: "ab.c")).generate(["p"], config)) == ["ab"]


def test_a_stop_string_beyond_max_new_tokens_is_never_reached():
    config = GenerateConfig(max_new_tokens=4, stop="e")
    completion = Engine(ScriptedModel(lambda _: "abcdef")).generate(["p"], config)[0]
    assert (completion.text, completion.finish_reason) == ("abcd", "length")


def test_usage_counts_each_rows_own_tokens_and_no_padding():
    completions = Engine(ScriptedModel(str.upper)).generate(["a", "abcdefgh"], LONG)
    assert [completion.usage for completion in completions] == [Usage(1, 1), Usage(8, 8)]


def test_the_rows_of_a_batch_share_its_time():
    class Slow(ScriptedModel):
        def generate(self, rows, on_tokens):
            time.sleep(0.01)
            return super().generate(rows, on_tokens)

    start = time.perf_counter()
    completions = Engine(Slow(str.upper), batch_size=3).generate(list("abcd"))
    passed = time.perf_counter() - start
    shares = [completion.timings.generation_s for completion in completions]
    assert [completion.timings.batch_size for completion in completions] == [3, 3, 3, 1]
    assert shares[0] == shares[1] == shares[2]
    assert 0.02 <= sum(shares) <= passed
    walls = [completion.timings.wall_s for completion in completions]
    sizes = [completion.timings.batch_size for completion in completions]
    assert walls == [share * size for share, size in zip(shares, sizes, strict=True)]


def test_whole_texts_are_told_apart_and_choices_of_a_prompt_are_not():
    engine = Engine(ScriptedModel(lambda prompt: "a"))
    whole = [Request(RawPrompt(""), continuation=text) for text in ("ab", "ba", "ab")]
    first, second, again = (answer.prompt_hash for answer in engine.generate(whole))
    assert first == again != second
    choices = [Request(RawPrompt("x"), continuation=text) for text in ("a", "b")]
    assert len({answer.prompt_hash for answer in engine.generate(choices)}) == 1


def test_the_prompt_hash_tells_prompts_apart_and_nothing_else():
    engine = Engine(ScriptedModel(str.upper), batch_size=1)
    requests = [Request("a", LONG), Request("a", SHORT, seed=5), Request("b"), Request("ba")]
    hashes = [completion.prompt_hash for completion in engine.generate(requests)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in hashes)


# Errors of one request


def refuse_b(prompt):
    if prompt == "b":
        raise RequestError("b is refused")
    return prompt.upper()


def test_a_request_that_fails_leaves_the_others_answered():
    outcomes = Engine(ScriptedModel(refuse_b)).attempt([Request(p) for p in "abc"])
    assert [outcomes[0].text, str(outcomes[1]), outcomes[2].text] == ["A", "b is refused", "C"]


def test_generate_raises_the_error_that_attempt_returns():
    with pytest.raises(RequestError, match="b is refused"):
        Engine(ScriptedModel(refuse_b)).generate(["a", "b"])


@pytest.mark.parametrize("prompt", ["", [], None, [{"role": "user"}]])
def test_an_impossible_prompt_is_that_requests_error(prompt):
    outcomes = Engine(ScriptedModel(str.upper)).attempt([Request("a"), Request(prompt)])
    assert outcomes[0].text == "A"
    assert isinstance(outcomes[1], RequestError)


def test_a_prompt_that_does_not_fit_says_its_numbers_and_leaves_the_others():
    engine = Engine(ScriptedModel(str.upper, context_length=30))
    outcomes = engine.attempt([Request("x" * 27, SHORT), Request("fits", SHORT)])
    assert isinstance(outcomes[0], PromptTooLongError)
    assert outcomes[1].text == "FITS"
    message = str(outcomes[0])
    for number in ("27 tokens", "have 4", "together 31", "context is 30"):
        assert number in message


def test_a_prompt_and_answer_that_fill_the_context_fit():
    engine = Engine(ScriptedModel(str.upper, context_length=30))
    assert engine.generate(["x" * 26], SHORT)[0].text == "XXXX"


def test_a_request_that_does_not_fit_is_never_sent_to_the_model():
    model = Watched(context_length=5)
    Engine(model).attempt([Request("x" * 9, SHORT), Request("y", SHORT)])
    assert model.done == [[1]]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyError("k"), RuntimeError("CUDA error")])
def test_any_other_exception_surfaces_as_it_is(error):
    def fail(prompt):
        raise error

    with pytest.raises(type(error)) as caught:
        Engine(ScriptedModel(fail)).attempt([Request("a"), Request("b")])
    assert caught.value is error


def test_a_backend_that_loses_a_row_is_found_out():
    model = ScriptedModel(str.upper)
    model.generate = lambda rows, on_tokens: []
    with pytest.raises(ValueError, match="zip"):
        Engine(model).generate(["a"])


# Out of memory


@many
@given(st.lists(st.text(min_size=1, max_size=9), max_size=20), st.integers(1, 8))
def test_batches_are_halved_until_they_fit_and_nothing_is_done_twice(prompts, room):
    model = Watched(rows=room)
    assert texts(Engine(model).generate(prompts, LONG)) == [
        prompt.upper()[:50] for prompt in prompts
    ]
    assert sorted(index for batch in model.done for index in batch) == list(range(len(prompts)))
    assert all(len(batch) <= room for batch in model.done)
    assert len(model.released) == len(model.tried) - len(model.done)


def test_what_did_not_fit_is_not_tried_again_in_this_session():
    model = Watched(rows=2)
    engine = Engine(model)
    engine.generate(["a"] * 5)
    assert model.tried == [[0, 1, 2, 3, 4], [0, 1, 2], [0, 1], [2, 3], [4]]
    engine.generate(["a"] * 4)
    assert model.tried[5:] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("batch_size", [None, 8])
@pytest.mark.parametrize("shares", [False, True])
def test_how_many_rows_fit_is_remembered_for_each_length(shares, batch_size):
    model = ScriptedModel(str.upper, context_length=10_000)
    model.shares_prefixes = shares
    generate, sizes = model.generate, []

    def tight(rows, on_tokens):
        sizes.append((len(rows), len(rows[0].prompt_ids)))
        if sum(len(row.prompt_ids) for row in rows) > 1000:
            raise MemoryError("too much")
        return generate(rows, on_tokens)

    model.generate = tight
    engine = Engine(model, batch_size=batch_size)
    long, short = ["x" * 400] * 8, ["y" * 90] * 8
    for asked, size in ((long, 2), (short, 8), (long, 2), (short, 8)):
        sizes.clear()
        assert len(engine.generate(asked, GenerateConfig(10))) == 8
        assert sizes[-1][0] == size
    assert sizes == [(8, 90)]


def test_rows_that_finished_before_the_memory_ran_out_are_kept():
    asked = []

    def answer(prompt):
        asked.append(prompt)
        if prompt == "cc" and asked.count("cc") == 1:
            raise MemoryError("once")
        return prompt.upper()

    completions = Engine(ScriptedModel(answer), batch_size=2).generate(
        ["aaaa", "bbb", "cc", "d"], LONG
    )
    assert texts(completions) == ["AAAA", "BBB", "CC", "D"]
    assert asked == ["aaaa", "bbb", "cc", "cc", "d"]
    assert [completion.timings.batch_size for completion in completions] == [2, 2, 1, 1]


def test_out_of_memory_with_one_row_is_that_requests_error():
    def answer(prompt):
        if prompt == "b":
            raise MemoryError("tried to allocate 99 GiB")
        return prompt.upper()

    outcomes = Engine(ScriptedModel(answer)).attempt([Request(prompt) for prompt in "abc"])
    assert [outcomes[0].text, outcomes[2].text] == ["A", "C"]
    assert isinstance(outcomes[1], RequestError)
    assert "99 GiB" in str(outcomes[1])


@pytest.mark.parametrize(("prompts", "room"), [(["a", "b"], 1), (["a"], 0)])
def test_memory_is_released_after_the_exception_that_holds_it_is_gone(prompts, room):
    model = Watched(rows=room)
    Engine(model).attempt([Request(prompt) for prompt in prompts])
    assert model.released == [None]


# Progress


def test_progress_counts_up_to_every_request_and_token():
    seen = []
    requests = [Request(prompt, LONG) for prompt in ("a", "bb", "ccc")]
    completions = Engine(ScriptedModel(str.upper), batch_size=2).attempt(requests, seen.append)
    assert [progress.total for progress in seen] == [3] * len(seen)
    assert sorted({progress.done for progress in seen}) == [0, 2, 3]
    tokens = [progress.generated_tokens for progress in seen]
    assert tokens == sorted(tokens)
    assert seen[-1].done == 3
    assert tokens[-1] == sum(completion.usage.generated_tokens for completion in completions) == 6
    seconds = [progress.seconds for progress in seen]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0


def test_a_request_that_cannot_be_asked_counts_as_done():
    seen = []
    engine = Engine(ScriptedModel(refuse_b, context_length=70))
    engine.attempt([Request("x" * 99), Request("a"), Request("b")], seen.append)
    assert [seen[0].done, seen[-1].done] == [1, 3]


@pytest.mark.parametrize("stop", [(), "C"])
def test_progress_agrees_with_usage_when_an_answer_is_cut(stop):
    seen = []
    config = GenerateConfig(max_new_tokens=5, stop=stop)
    completion = Engine(ScriptedModel(str.upper)).attempt(
        [Request("abcdefgh", config)], seen.append
    )[0]
    assert seen[-1].generated_tokens == completion.usage.generated_tokens


def test_tokens_of_a_batch_that_ran_out_of_memory_do_not_count():
    asked, seen = [], []

    def answer(prompt):
        asked.append(prompt)
        if len(asked) == 2:
            raise MemoryError("once")
        return prompt

    Engine(ScriptedModel(answer)).attempt([Request(p) for p in ("aaa", "bb")], seen.append)
    assert seen[-1].generated_tokens == 5


def test_a_batch_with_a_shared_prefix_shrinks_too_when_memory_runs_out():
    model = Watched(rows=2)
    model.shares_prefixes = True
    prompts = ["x" * 5000 + name for name in "abcde"]
    completions = Engine(model).generate(prompts)
    assert [completion.usage.prompt_tokens for completion in completions] == [5001] * 5
    assert [len(batch) for batch in model.done] == [2, 2, 1]
    assert len(model.tried) <= 6
