"""``--model=A,B``: a run of each model, the first being the baseline, one table, one exit code."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_llmprobe.plugin import several_models
from pytest_llmprobe.plugin.several_models import without_resume


@pytest.fixture
def mode():
    return ("-p", "no:xdist")


def config(*arguments, before=(), **option):
    """A configuration as pytest makes it of ``arguments``, after those of addopts."""
    models = []
    every = [*before, *arguments]
    for number, argument in enumerate(every):
        name, equals, value = argument.partition("=")
        if argument == "--":
            break
        if name in ("--model", "--llmprobe-model"):
            models.append((name, value if equals else every[number + 1]))
    return SimpleNamespace(
        option=SimpleNamespace(llmprobe_models=models, **option),
        invocation_params=SimpleNamespace(args=arguments),
        getini=lambda name: "",
    )


@pytest.mark.parametrize(
    ("arguments", "before", "expected"),
    [
        (["evals", "--model=a,b"], [], ["a", "b"]),
        (["--model", "a", "evals", "--llmprobe-model=b"], [], ["a", "b"]),
        (["evals", "--model=a"], ["--model=mine"], ["a"]),
        (["evals"], ["--model=mine"], ["mine"]),
        (["evals"], ["--model=x", "--model=y,z"], ["y", "z"]),
        (["--model=a,,b"], [], ["a", "", "b"]),
        (["--model=a", "--", "--model=b"], [], ["a"]),
    ],
)
def test_the_command_line_s_models_are_all_meant_and_overrule_those_of_addopts(
    arguments, before, expected
):
    assert several_models.named_models(config(*arguments, before=before)) == expected


def test_a_folder_with_a_comma_is_one_model(tmp_path):
    folder = tmp_path / "a,b"
    folder.mkdir()
    assert several_models.named_models(config(f"--model={folder}")) == [str(folder)]


def test_the_models_alone_are_taken_from_the_arguments():
    given = config("--model", "a", "evals", "-k", "x", "--llmprobe-model=b", "--", "--model=c")
    assert several_models.without_models(given) == (["evals", "-k", "x"], ["--", "--model=c"])


def test_two_models_run_and_the_worse_one_fails(project, probe, pytester):
    pytester.makepyprojecttoml(
        f"""
        [tool.llmprobe.models.other]
        source = "{_reference()}"
        """
    )
    project(
        answer="return '?' if OTHER else prompt.split()[-1]",
        conftest="""
        import sys
        OTHER = any(argument == "--llmprobe-model=other" for argument in sys.argv)
        """,
    )
    out = pytester.path / "out" / "all.json"
    run = probe(
        "--model=reference", "--model", "other", f"--llmprobe-json={out}", "--junit-xml=j.xml"
    )
    assert run.exit_code == 1, run.said
    last = run.text.splitlines()[-1]
    assert last.startswith("llmprobe: GATE FAIL (")
    assert "other: FAIL (" in last
    found = json.loads(out.read_text())
    first, second = found["models"]
    assert (first["model"], first["exit_code"], first["gate"]["verdict"]) == (
        "reference",
        0,
        "PASS",
    )
    assert (second["exit_code"], second["gate"]["verdict"]) == (1, "FAIL")
    assert (second["experiments"][0]["lost"], second["experiments"][0]["gained"]) == (20, 0)
    assert sorted(p.name for p in pytester.path.glob("j*.xml")) == [
        "j-other.xml",
        "j-reference.xml",
    ]
    reports = [json.loads(path.read_text()) for path in run.folder.glob(".llmprobe/runs/*/*.json")]
    assert {report["model"] for report in reports} == {"reference", "other"}


EVAL = """
    import pytest
    from pytest_llmprobe import Case

    CASES = [Case(f"c{n}", f"Repeat the word tree {n + 2} times.") for n in range(4)]

    @pytest.mark.probe(cases=CASES, max_new_tokens=8)
    def test_echo(case, completion):
        assert completion.token_ids
"""


def test_an_interrupted_run_ends_by_itself_and_writes_what_it_has(tmp_path):
    child = """
import pathlib, signal, time
def interrupted(number, frame):
    time.sleep(1)  # longer than subprocess.run waits before it kills
    pathlib.Path("report").touch()
    raise SystemExit(2)
signal.signal(signal.SIGINT, interrupted)
pathlib.Path("begun").touch()
time.sleep(30)
"""
    parent = f"""
import pathlib, sys
from pytest_llmprobe.plugin.several_models import _ended
print(_ended([sys.executable, "-c", {child!r}], pathlib.Path.cwd()))
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True
    ) as run:
        while not (tmp_path / "begun").exists():
            assert run.poll() is None
        os.killpg(run.pid, signal.SIGINT)
        said, _ = run.communicate()
    assert (said.strip(), run.returncode) == (b"2", 0)
    assert (tmp_path / "report").exists()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_adapters_side_by_side_on_one_base_say_what_peft_generates(probe, pytester):
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(_reference())
    for seed in (1, 2):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        wrapped = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.5)
        wrapped.save_pretrained(pytester.path / f"adapter-{seed}")
    pytester.makepyfile(test_eval=EVAL)
    run = probe("--model=reference,./adapter-1,./adapter-2", "--llmprobe-gate=none")
    assert run.exit_code == 0, run.said
    said = {}
    for path in run.folder.glob(".llmprobe/runs/*/records.jsonl"):
        model = json.loads(path.with_name("report.json").read_text())["model"]
        _, *records = map(json.loads, path.read_text().splitlines())
        said[Path(model).name] = {record["id"]: record["received"] for record in records}
    assert len({json.dumps(answers) for answers in said.values()}) == 3
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for seed in (1, 2):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        peft = PeftModel.from_pretrained(model, pytester.path / f"adapter-{seed}").eval()
        chat = [{"role": "user", "content": "Repeat the word tree 3 times."}]
        ids = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = peft.generate(**ids, max_new_tokens=8, do_sample=False)
        expected = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        (answer,) = (said[f"adapter-{seed}"][name] for name in said["reference"] if "c1" in name)
        assert answer.strip() == expected.strip() != ""


def _reference():
    from pytest_llmprobe.models.registry import REGISTRY

    return REGISTRY["reference"].folder


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--model=reference,"], "a name between commas is empty"),
        (["--model=reference,no-such-model"], "no-such-model"),
        (["--model=reference,reference", "--llmprobe-compare=x"], "the first model is what the"),
        (["--model=reference,reference", "--llmprobe-replay=x"], "a run's answers are one model's"),
        (["--model=reference,reference", "--llmprobe-resume=x"], "each goes on with its own"),
        (["--model=reference,reference", "--llmprobe-json=."], "is a folder"),
    ],
)
def test_what_several_models_cannot_be_asked_is_one_error_before_any_runs(given, said, pytester):
    result = pytester.runpytest_inprocess("-p", "no:xdist", *given)
    assert result.ret == 4
    (line,) = (line for line in [*result.errlines, *result.outlines] if "ERROR: llmprobe: " in line)
    assert said in line
    assert not (pytester.path / ".llmprobe" / "runs").exists()


def test_cases_are_collected_once(project, probe):
    project()
    run = probe("--model=reference,reference", "--collect-only", "-q")
    assert run.text.count("test_eval.py::test_echo[g0/c0]") == 1


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["--llmprobe-resume", "evals"], ["evals"]),
        (["--llmprobe-resume", "last", "evals"], ["evals"]),
        (["--llmprobe-resume=last", "evals", "last"], ["evals", "last"]),
        (["last", "-n", "2"], ["last", "-n", "2"]),
    ],
)
def test_each_run_is_told_itself_which_one_it_goes_on_with(given, left):
    assert without_resume(given) == left
