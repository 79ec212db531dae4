"""A model in memory: evaluated as its folder would be, and given back as it was."""

import copy
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from pytest_llmprobe import Engine, EvaluationCallback, GenerateConfig, evaluate, load_model
from pytest_llmprobe.errors import ModelError, SettingsError
from pytest_llmprobe.models.registry import REFERENCE
from pytest_llmprobe.report.schema import validate

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    # The run within this process finds its modules imported.
    pytest.mark.filterwarnings("ignore::pytest.PytestAssertRewriteWarning"),
]

PROMPTS = ["Which city is meant?", "Key: 12, 13, 14", "a " * 40]

EVAL = """
import pytest
from pytest_llmprobe import Case

def cases(suite):
    for n in range(6):
        yield Case(f"n{n}", f"Give the number {n} again: {n}.", target=str(n))

@pytest.mark.probe(cases=cases, max_new_tokens=6)
def test_echo(case, completion):
    assert case.target in completion.text
"""


@pytest.fixture(scope="module")
def evals(tmp_path_factory):
    path = tmp_path_factory.mktemp("evals") / "test_echo_of_numbers.py"
    path.write_text(EVAL)
    return path


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(REFERENCE)


@pytest.fixture
def model(tokenizer):
    """In training mode, but for one frozen layer, with a generation config of its own."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=0,
        attention_dropout=0.5,
    )
    model = LlamaForCausalLM(config).train()
    model.model.layers[0].eval()
    model.generation_config = GenerationConfig(
        repetition_penalty=5.0, do_sample=True, temperature=3.0, eos_token_id=0
    )
    return model


def state_of(model):
    """What an evaluation must leave: modes, generation config, attention, gradients, generators."""
    return (
        [module.training for module in model.modules()],
        model.generation_config.to_json_string(),
        model.config.to_json_string(),
        model.config._attn_implementation,
        [p.requires_grad for p in model.parameters()],
        random.getstate(),
        json.dumps(np.random.get_state()[1].tolist()),
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )


@pytest.mark.parametrize("batch_size", [None, 1])
def test_the_engine_answers_as_for_the_folder_and_gives_the_model_back(
    tmp_path, model, tokenizer, batch_size
):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    folder = Engine(load_model(str(tmp_path)), batch_size=batch_size)
    before = state_of(model)
    engine = Engine(model=model, tokenizer=tokenizer, batch_size=batch_size)
    assert state_of(model) == before
    config = GenerateConfig(max_new_tokens=8)
    answers = engine.generate(PROMPTS, config)
    assert state_of(model) == before
    expected = folder.generate(PROMPTS, config)
    assert [a.token_ids for a in answers] == [a.token_ids for a in expected]


@pytest.mark.parametrize("wrap", ["data parallel", "compiled", "peft"])
def test_a_wrapped_model_is_the_one_in_the_wrapper(model, tokenizer, wrap):
    config = GenerateConfig(max_new_tokens=6)
    if wrap == "peft":
        wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.5)
        own = wrapped
    else:
        compiled = wrap == "compiled"
        wrapped = (
            torch.compile(model, backend="eager") if compiled else torch.nn.DataParallel(model)
        )
        own = model
    answers = Engine(wrapped, tokenizer=tokenizer).generate(PROMPTS, config)
    own.eval()
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        out = own.generate(input_ids=ids, max_new_tokens=6, do_sample=False, repetition_penalty=1.0)
        said = out[0, ids.shape[1] :].tolist()
        assert list(answer.token_ids) == said[: len(answer.token_ids)]


def prefix_tuned(model, tokenizer):
    return get_peft_model(
        model, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    ), tokenizer


def on_meta(model, tokenizer):
    return model.to("meta"), tokenizer


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda m, t: (m, None), "needs its tokenizer"),
        (lambda m, t: (torch.nn.Linear(1, 1), t), "no transformers model"),
        (on_meta, "not whole"),
        (prefix_tuned, "lies in no weights of its base"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(model, tokenizer, damage, says):
    damaged, its_tokenizer = damage(model, tokenizer)
    with pytest.raises(ModelError, match=says) as error:
        Engine(damaged, tokenizer=its_tokenizer)
    assert "\n" not in str(error.value)


def test_evaluate_gives_the_report_and_the_model_back(
    tmp_path, monkeypatch, model, tokenizer, evals
):
    monkeypatch.chdir(tmp_path)
    before = state_of(model)
    report = evaluate(model, tokenizer, evals=evals, limit=4, name="mine", storage="runs")
    assert state_of(model) == before
    validate(report)
    assert report["model"] == "mine"
    assert report["model_info"]["source"] == "memory:mine"
    (echo,) = report["experiments"]
    assert (echo["name"], echo["n"], echo["errors"]) == ("echo", 4, 0)
    kept = list((tmp_path / "runs" / "runs").glob("*/report.json"))
    assert len(kept) == 1
    assert "echo" in (kept[0].parent / "pytest.log").read_text()


def test_evaluate_agrees_with_a_run_on_the_reference_folder(tmp_path, monkeypatch, evals):
    monkeypatch.chdir(tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(REFERENCE, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    report = evaluate(reference, tokenizer, evals=[evals])
    loaded = load_model("reference")
    engine = Engine(loaded)
    prompts = [f"Give the number {n} again: {n}." for n in range(6)]
    answers = engine.generate(prompts, GenerateConfig(max_new_tokens=6))
    assert [test["received"] for test in report["tests"]] == [a.text for a in answers]
    assert report["model_info"]["fingerprint"] == loaded.info["fingerprint"]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"evals": []}, "evals is empty"),
        ({"evals": "absent.py"}, "absent.py is no file"),
        ({"options": ["-k", "nothing"]}, "no evaluation"),
        ({"options": ["--llmprobe-engine=shared"]}, "in the memory of its caller"),
        ({"options": ["--llmprobe-dtype=float16"]}, "is in memory as it is"),
    ],
)
def test_a_run_that_is_none_is_an_error(tmp_path, monkeypatch, model, tokenizer, evals, how, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=says):
        evaluate(model, tokenizer, **{"evals": evals} | how)


class Watch(TrainerCallback):
    """What the training's steps see of the model and the generators."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def on_step_begin(self, args, state, control, **more):
        self.seen.append((self.model.training, torch.get_rng_state().tolist()))


def trained(tmp_path, model, tokenizer, evals):
    """Losses, what was seen at each step, and the callback, if there were evaluations."""
    texts = [tokenizer(f"text number {n}")["input_ids"][:6] for n in range(8)]
    rows = [{"input_ids": ids, "labels": ids} for ids in texts]
    arguments = TrainingArguments(
        str(tmp_path / "out"),
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        logging_steps=1,
        save_strategy="no",
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
    )
    trainer = Trainer(
        model, arguments, train_dataset=rows, eval_dataset=rows[:2], processing_class=tokenizer
    )
    watch, callback = Watch(model), None
    trainer.add_callback(watch)
    if evals is not None:
        callback = EvaluationCallback(trainer, evals, limit=3)
        trainer.add_callback(callback)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, watch.seen, callback, trainer


@pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
def test_a_trainer_is_told_pass_rates_and_trains_on_as_without(
    tmp_path, monkeypatch, model, tokenizer, evals
):
    monkeypatch.chdir(tmp_path)
    alone = trained(tmp_path / "alone", copy.deepcopy(model), tokenizer, None)[:2]
    losses, seen, callback, trainer = trained(tmp_path, copy.deepcopy(model), tokenizer, evals)
    rates = {
        entry["step"]: entry["eval_echo_pass_rate"]
        for entry in trainer.state.log_history
        if "eval_echo_pass_rate" in entry
    }
    assert rates == {
        step: report["experiments"][0]["pass_rate"] for step, report in callback.reports.items()
    }
    assert list(rates) == [2, 4]
    prints = {r["model_info"]["fingerprint"] for r in callback.reports.values()}
    assert len(prints) == 2
    assert len(list((tmp_path / "out" / "llmprobe" / "runs").iterdir())) == 2
    assert losses == alone[0]
    assert seen == alone[1]


def test_a_trainer_without_tokenizer_is_refused(tmp_path, model, evals):
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(SettingsError, match="processing_class"):
        EvaluationCallback(Trainer(model, arguments), evals)


DOCS = Path(__file__).parent.parent.parent / "docs" / "models.md"


@pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
def test_the_examples_of_the_docs_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "evals").symlink_to(DOCS.parent.parent / "evals")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), flags=re.DOTALL):
        exec(example, names)
    assert "single_needle 1.0" in capsys.readouterr().out
    assert sorted(names["callback"].reports) == [1, 2]
