"""The program that trains the reference model: what it shows, how it goes on, where it starts."""

import random
import re
from itertools import islice

import pytest
import torch

from pytest_llmprobe.data import prose
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.experiments.memorization.known_texts import EXPOSURES, TEXTS, known_texts
from pytest_llmprobe.models.reference.training import batches, data, retrieval, tokenizer
from pytest_llmprobe.models.reference.training.__main__ import export, marks
from pytest_llmprobe.models.reference.training.cells import cells
from pytest_llmprobe.models.reference.training.circuit import KEPT
from pytest_llmprobe.models.reference.training.model import build, build_control
from pytest_llmprobe.models.reference.training.stages import CONTROL, STAGES, Stage, scaled
from pytest_llmprobe.models.reference.training.training import Trainer

NAME = re.compile(r"\b[A-Z][a-z]{4,}\b")


@pytest.fixture(scope="module")
def tokens():
    return tokenizer.build(data.sample_texts(100))


def conversations(n, seed="test"):
    rng = random.Random(seed)
    for _ in range(n):
        yield from islice(data.conversation(rng.choice((256, 512, 1024)), rng), 3)


def shown(n):
    return "\n".join(f"{question}\n{answer}" for question, answer in conversations(n))


def asked():
    return [question.prompt for cell in cells() for question in cell.questions(5)]


def test_no_key_or_value_of_the_evaluation_occurs_in_training():
    trained = set(needle.UUID.findall(shown(200)))
    tested = set(needle.UUID.findall("\n".join(asked())))
    assert len(trained) > 1000
    assert len(tested) > 1000
    assert not trained & tested


def invented(text):
    """Words of a text that could be invented names: no word of the lexicon, capitalised."""
    known = {*prose.NOUNS, *prose.ADJECTIVES, *prose.VERBS, *prose.CITIES, *prose.FIRST_NAMES}
    facts = re.findall(r"(?:number|word|city) of ([A-Z]\w+) is", text)
    heroes = re.findall(r"In the end, ([A-Z]\w+) was", text)
    return {name for name in (*facts, *heroes) if name not in known}


def test_training_draws_no_name_that_evaluations_draw():
    trained, tested = invented(shown(400)), invented("\n".join(asked()))
    assert len(trained) > 100
    assert len(tested) > 50
    assert not any(map(prose.is_held_out, trained))
    assert all(map(prose.is_held_out, tested))


def test_known_texts_are_shown_as_often_as_their_list_says(tokens):
    run = batches.Batches(tokens, scaled(STAGES, 150))
    for kind in batches.TEXT_TOKENS:
        steps = range(0 if kind == "canary" else 1, run.steps_with_texts, 2)
        drawn = [text for step in steps for text in run.due(kind, step)]
        assert drawn == data.exposures(kind)
        for known in known_texts():
            if known.kind == kind:
                assert drawn.count(known.text) == known.exposures


def test_known_texts_differ_and_do_not_occur_in_other_training():
    texts = [known.text for known in known_texts()]
    assert len(set(texts)) == len(texts) == sum(TEXTS.values()) * len(EXPOSURES)
    rest = shown(100)
    assert not any(text in rest for text in texts)


def test_the_control_sees_no_retrieval_and_no_known_text(tokens):
    run = batches.Batches(tokens, scaled(CONTROL, 20), known=False)
    assert all(run.due(kind, step) == [] for kind in batches.TEXT_TOKENS for step in range(20))
    rng = random.Random(1)
    for _ in range(60):
        for question, _ in islice(data.conversation(512, rng, CONTROL[0].mix), 1):
            assert not needle.UUID.search(question)
            assert "Question:" not in question


def test_steps_are_the_same_in_every_run_and_differ_from_one_another(tokens):
    stages = scaled(STAGES, 10)
    first, again = (batches.Batches(tokens, stages, seed=3) for _ in range(2))
    for step in (0, 7):
        for one, other in zip(first.step(step), again.step(step), strict=True):
            assert torch.equal(one.tokens, other.tokens)
            assert torch.equal(one.weights, other.weights)
    other = batches.Batches(tokens, stages, seed=4)
    rows = [run.step(2)[0].tokens.tolist() for run in (first, other)]
    assert rows[0] != rows[1]


def test_stages_follow_one_another(tokens):
    first, second, _ = STAGES
    run = batches.Batches(tokens, STAGES)
    assert run.steps == sum(stage.steps for stage in STAGES)
    assert run.stage(first.steps - 1) == (first, first.steps - 1)
    assert run.stage(first.steps) == (second, 0)
    with pytest.raises(IndexError):
        run.stage(run.steps)


def test_texts_are_shown_in_the_first_stages_only(tokens):
    assert [stage.texts for stage in STAGES] == sorted((s.texts for s in STAGES), reverse=True)
    run = batches.Batches(tokens, scaled(STAGES, 20))
    shown = [len(run.step(step)) for step in (0, run.steps_with_texts - 1, run.steps_with_texts)]
    assert shown == [2, 2, 1]


@pytest.mark.parametrize("steps", [3, 4, 150, 2460, 5000])
def test_a_run_of_another_length_has_the_same_stages(steps):
    stages = scaled(STAGES, steps)
    assert sum(stage.steps for stage in stages) == steps
    assert all(stage.steps >= 1 for stage in stages)
    assert [stage.mix for stage in stages] == [stage.mix for stage in STAGES]


def test_every_family_is_in_every_stage_of_the_model():
    for stage in STAGES:
        assert stage.mix.keys() == data.MIX.keys()
        assert sum(stage.mix.values()) == pytest.approx(1)


def test_only_answers_and_later_questions_count(tokens):
    run = batches.Batches(tokens, STAGES)
    rng = random.Random(5)
    for _ in range(20):
        row, weights = run.conversation(512, rng, Stage(1, data.MIX))
        start, end = row.index(run.assistant) + 1, row.index(run.end, row.index(run.assistant))
        said = [batches.FIRST, batches.SECOND, batches.SECOND]
        assert not any(weights[:start])
        assert weights[start:end][:3] == said[: end - start]
        assert weights[end] > 0
        assert len(row) == len(weights) <= 513


def test_where_a_count_decides_going_on_weighs_as_much_as_the_end(tokens, monkeypatch):
    said = "moon moon moon moon moon"
    monkeypatch.setattr(data, "conversation", lambda *how: iter([("five moons", said)]))
    run, ends = batches.Batches(tokens, STAGES), []
    for going_on in (0, 2):
        row, weights = run.conversation(128, random.Random(0), Stage(1, {}, going_on=going_on))
        start = row.index(run.assistant) + 1
        spaces = [w for w, token in zip(weights, row, strict=True) if token == run.space][-4:]
        ends.append((spaces[-2:], weights[-1]))
        assert spaces[1] == 1.0, "far from the end nothing is to be decided"
        assert tokens.decode(row[start:-1]) == said
    assert ends == [([1.0, 1.0], 8.0), ([8.0, 8.0], 8.0)]


def trainer(tokens, folder, steps=4, build=build_control):
    model, paces = build(tokens)
    stages = (Stage(steps, data.MIX, lengths=((0.0, {256: 1.0}),)),)
    return Trainer(model, paces, batches.Batches(tokens, stages, known=False), folder)


def finished(run, until=None):
    for figures in run.run():
        assert figures["loss"] > 0
        if figures["step"] == until:
            break
    return run


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(batches, "STEP_TOKENS", 512)
    monkeypatch.setattr(batches, "TEXT_ROWS", {"canary": 2, "document": 2})


@pytest.mark.usefixtures("small_steps")
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(tokens, tmp_path):
    whole = finished(trainer(tokens, tmp_path / "whole"))
    finished(trainer(tokens, tmp_path / "killed"), until=2).save()
    resumed = trainer(tokens, tmp_path / "killed")
    assert resumed.done == 2
    finished(resumed)
    ends = [dict(run.model.named_parameters()) for run in (whole, resumed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.usefixtures("small_steps")
def test_a_stage_keeps_its_share_of_the_way_also_after_a_kill(tokens, tmp_path):
    short = ((0.0, {256: 1.0}),)
    first = Stage(2, data.MIX, lengths=short)

    def after(folder, until=None, kept=1.0):
        model, paces = build_control(tokens)
        last = Stage(2, data.MIX, lengths=short, texts=False, kept=kept)
        batch = batches.Batches(tokens, (first, last), known=False)
        return finished(Trainer(model, paces, batch, tmp_path / folder), until)

    def weights(run):
        return run.model.model.layers[0].mlp.down_proj.weight

    before, whole, part = after("a", until=2), after("b"), after("c", kept=0.25)
    expected = torch.lerp(weights(before), weights(whole), 0.25)
    assert torch.allclose(weights(part), expected, atol=1e-7)
    assert not torch.allclose(weights(part), weights(whole), atol=1e-4)
    after("killed", until=3, kept=0.25).save()
    assert torch.equal(weights(after("killed", kept=0.25)), weights(part))


@pytest.mark.usefixtures("small_steps")
def test_a_checkpoint_of_another_length_is_refused(tokens, tmp_path):
    finished(trainer(tokens, tmp_path), until=1).save()
    with pytest.raises(ValueError, match="belongs to a run of 4 steps, not 6"):
        trainer(tokens, tmp_path, steps=6)


def test_the_rate_goes_up_stays_and_ends_at_nothing():
    factors = [Stage(1000, {}).rate_factor(step) for step in range(1000)]
    assert factors[0] < 0.1
    assert max(factors) == factors[300] == 1.0
    assert factors[-1] < 0.01
    assert all(0 < factor <= 1 for factor in factors)
    assert Stage(1000, {}, rate=0.5).rate_factor(300) == 0.5


@torch.no_grad()
def test_the_circuit_looks_up_before_any_training(tokens):
    model, _ = build(tokens, marks(tokens))
    model.eval()
    rng, right = random.Random(8), 0
    for _ in range(30):
        question, answer = next(retrieval.threads(600, rng))
        prompt = tokens.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        first = tokens(answer, add_special_tokens=False).input_ids[0]
        right += int(model(torch.tensor([prompt])).logits[0, -1].argmax() == first)
    assert right >= 8, "of 30; guessing among 2,048 tokens gives none"


@pytest.mark.usefixtures("small_steps")
def test_training_leaves_alone_what_only_the_circuit_writes(tokens, tmp_path):
    run = trainer(tokens, tmp_path, build=lambda tokens: build(tokens, marks(tokens)))
    model = run.model
    before = model.model.layers[2].mlp.down_proj.weight[KEPT].clone()
    head = model.model.layers[2].self_attn.q_proj.weight.clone()
    finished(run, until=2)
    assert torch.equal(model.model.layers[2].mlp.down_proj.weight[KEPT], before)
    moved = (model.model.layers[2].self_attn.q_proj.weight - head).abs().mean(1)
    assert 0 < moved[:64].mean() < moved[64:].mean() / 2  # the circuit's head, the others


def test_the_export_is_a_stock_model(tokens, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, _ = build_control(tokens)
    export(model, tokens, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32")
    assert type(loaded).__name__ == "LlamaForCausalLM"
    assert torch.allclose(loaded.model.norm.weight, model.model.norm.weight, atol=1e-2)
    text = 'Key: "x" café'
    assert AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == tokens(text).input_ids
