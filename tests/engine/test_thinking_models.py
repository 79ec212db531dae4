"""Models of this process that think: the answer alone is the answer, on every path alike."""

from dataclasses import replace

import pytest
from thinkers import ANSWER, FAMILIES, THOUGHT, save

from pytest_llmprobe import Engine, GenerateConfig, RawPrompt, Request, load_model
from pytest_llmprobe.engine.completion_store import CompletionStore

TEXT, THINKS = "".join(ANSWER), "".join(THOUGHT)
HAYSTACK = "Lima is in Peru, and Paris is where it is. " * 3
PROMPTS = ["Where?", "Which city of France is it?", *(f"{HAYSTACK}{n}?" for n in range(4))]
ENGINES = {
    "plain generate": {"batch_size": 1},
    "batched": {},
    "batched by two": {"batch_size": 2},
    "without drafts": {"drafts": False},
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return save(family, tmp_path_factory.mktemp("thinker"))


@pytest.fixture(scope="module")
def load(folder):
    known = {}

    def load(**options):
        key = repr(options)
        known[key] = known.get(key) or load_model(str(folder), **options)
        return known[key]

    return load


def answers(model, config=None, prompts=PROMPTS, guesses=(None, TEXT, "{41}"), **engine):
    config = config or GenerateConfig(max_new_tokens=8)
    drafts = [guesses[number % len(guesses)] for number in range(len(prompts))]
    requests = [Request(p, config, draft=d) for p, d in zip(prompts, drafts, strict=True)]
    return Engine(model, **engine).generate(requests)


def parts(completions):
    return {(c.thought, c.text, c.finish_reason) for c in completions}


@pytest.mark.parametrize("engine", ENGINES)
def test_on_and_off(load, engine):
    """The turn's end, which is no end of the model's configuration, ends the answer."""
    on, off = load(thinking="on"), load()
    assert parts(answers(off, **ENGINES[engine])) == {(None, TEXT, "stop")}
    assert parts(answers(on, **ENGINES[engine])) == {(THINKS, TEXT, "stop")}
    assert on.thinking.thinks
    assert not off.thinking.thinks


def test_every_path_gives_the_same_tokens(load):
    on = load(thinking="on")
    expected = [c.token_ids for c in answers(on, batch_size=1)]
    for engine in ENGINES.values():
        assert [c.token_ids for c in answers(on, **engine)] == expected
    said = on.tokenizer.decode(list(expected[0]), skip_special_tokens=True)
    assert said.endswith(TEXT)
    assert THINKS in said
    drafts = [tuple(ids) for ids in expected[:3]]
    assert [c.token_ids for c in answers(on, guesses=drafts)] == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_stop_strings_count_after_the_thought_only(load, engine):
    config = GenerateConfig(max_new_tokens=8, stop=("Paris", "Lima", "}"))
    found = answers(load(thinking="on"), config, **ENGINES[engine])
    assert parts(found) == {(THINKS, '{"city": "', "stop_string")}
    blank = GenerateConfig(max_new_tokens=8, stop=("\n", "Maybe"))
    found = answers(load(thinking="on"), blank, **ENGINES[engine])
    assert parts(found) == {(THINKS, TEXT, "stop")}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_answers_room_is_the_answers(load, engine):
    found = answers(load(thinking="on"), GenerateConfig(max_new_tokens=2), **ENGINES[engine])
    assert parts(found) == {(THINKS, "".join(ANSWER[:2]), "length")}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_thought_that_finds_no_end_is_no_answer(load, family, engine):
    room = len(family.opening) + 2
    config = GenerateConfig(max_new_tokens=8, thinking_tokens=room)
    found = answers(load(thinking="on"), config, **ENGINES[engine])
    assert parts(found) == {("".join(THOUGHT[:2]), "", "length")}
    assert found[0].unanswered == f"cut_off: {room} tokens ended within its thought"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("stop", "text"),
    [("<|im_end|>", TEXT), ("}<|im_end|>", TEXT[:-1]), (("x", '"Paris"}<|im_end|>'), TEXT[:-8])],
)
def test_a_special_token_may_end_an_answer_though_no_text_shows_it(load, engine, stop, text):
    on = load(thinking="on")
    assert on.turn_ids
    unaware = replace(on, turn_ids=())
    config = GenerateConfig(max_new_tokens=8, stop=stop)
    assert parts(answers(unaware, config, **ENGINES[engine])) == {(THINKS, text, "stop_string")}


def test_where_thoughts_are_not_marks_everything_is_the_answer(load):
    found = answers(load(thinking="on", thought=False), GenerateConfig(max_new_tokens=40))
    assert {c.thought for c in found} == {None}
    assert all(THINKS in c.text for c in found)


def test_a_text_that_goes_on_needs_no_room(load):
    engine = Engine(load(thinking="on"))
    config = GenerateConfig(max_new_tokens=2000)
    (completion,) = engine.generate([RawPrompt("x")], config)
    assert completion.usage.generated_tokens == 2000  # of a context of 2,048


def test_what_was_thought_is_recorded(load, tmp_path):
    path = tmp_path / "completions.jsonl"
    path.write_text("")
    engine = Engine(load(thinking="on"))
    engine.store = CompletionStore(path, engine.backend.info, look_up=True)
    first = engine.generate(["Where?"])
    engine.store = CompletionStore(path, engine.backend.info, look_up=True)
    (again,) = engine.generate(["Where?"])
    assert again.recorded
    assert again == first[0]
    assert (again.thought, again.text) == (THINKS, TEXT)
    other = Engine(load())
    other.store = CompletionStore(path, other.backend.info, look_up=True)
    assert not other.generate(["Where?"])[0].recorded
