"""Runs on real models whose folder changes between two of them: nothing is taken for the same."""

import json
import shutil

import pytest

from pytest_llmprobe.models.registry import REFERENCE

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    CASES = [Case(f"c{n}", f"Repeat the word tree {n + 1} times.", str(n)) for n in range(16)]

    @pytest.mark.probe(cases=CASES, max_new_tokens=2)
    def test_echo(case, completion):
        assert completion.text is not None
"""
# Two days and their clocks: what transformers' templates call today.
CLOCK = """
    import os
    import datetime
    import transformers.utils.chat_template_utils as utils

    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(os.environ.get("DAY", "2026-11-26"))

    utils.datetime = Fixed
"""
# What the model makes of its prompt, taken to the point: right if it reads a certain text.
READING = """
    import os
    import pytest
    from pytest_llmprobe import Case
    from pytest_llmprobe.models.prompts import PromptEncoder

    CASES = [Case(f"c{n}", f"Q{n}?") for n in range(SIZE)]

    @pytest.mark.probe(cases=CASES, max_new_tokens=1)
    def test_reading(case, completion, model):
        read = model.tokenizer.decode(PromptEncoder.of(model).ids(case.prompt))
        assert WANTED in read and "WORSE" not in os.environ, read
"""


@pytest.fixture
def mode():
    return ("-p", "no:xdist")


@pytest.fixture
def folder(pytester):
    ignored = shutil.ignore_patterns("__pycache__", "*.py", "unlearned", "training")
    shutil.copytree(REFERENCE, pytester.path / "model", ignore=ignored)
    return pytester.path / "model"


def edit(path, **values):
    content = json.loads(path.read_text())
    for name, value in values.items():
        if name in content.get("rope_parameters", {}):
            content["rope_parameters"][name] = value
        else:
            content[name] = value
    path.write_text(json.dumps(content))


def swap_rows(folder):
    import torch
    from safetensors.torch import load_file, save_file

    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    name = next(name for name in tensors if "embed_tokens" in name)
    tensors[name] = tensors[name].clone()
    tensors[name][torch.tensor([700, 900])] = tensors[name][torch.tensor([900, 700])]
    save_file(tensors, path, {"format": "pt"})


def other_theta(folder):
    edit(folder / "config.json", rope_theta=100.0)


def other_end(folder):
    edit(folder / "generation_config.json", eos_token_id=[2, 9])


CHANGES = [
    pytest.param(
        *(other_theta, "config rope_parameters.rope_theta 100000000.0 -> 100.0"),
        "config: rope_theta 100000000 -> 100",
        id="rope_theta 1e8 -> 100: 16 of 16 answers were used again",
    ),
    pytest.param(
        *(other_end, "generation_config eos_token_id 2 -> [2, 9]"),
        "generation_config: eos_token_id 2 -> [2, 9]",
        id="another end of an answer",
    ),
    pytest.param(
        *(swap_rows, "fingerprint "), "weights: ", id="swapped rows: went unseen in 17 of 20"
    ),
]


@pytest.mark.parametrize(("change", "said", "cause"), CHANGES)
def test_a_run_that_goes_on_asks_a_changed_model_anew(change, said, cause, folder, probe, pytester):
    pytester.makepyfile(test_eval=EVAL)
    first = probe("--model=model", "--llmprobe-save=before")
    assert first.exit_code == 0, first.text
    name = first.report_path.parent.name
    change(folder)
    again = probe("--model=model", "--llmprobe-resume", "--llmprobe-compare=before")
    assert f"{name}: 0 of 16 answers were there" in again.text
    assert f"the model is not as it was: {said}" in again.text
    assert f"first difference: {cause}" in again.text
    unchanged = probe("--model=./model/", f"--llmprobe-resume={name}")
    assert "16 of 16 answers were there" in unchanged.text


def test_a_replay_refuses_a_model_whose_config_has_changed(folder, probe, pytester):
    pytester.makepyfile(test_eval=EVAL)
    name = probe("--model=model").report_path.parent.name
    again = probe(f"--llmprobe-replay={name}", "--model=./model/")
    assert "16 of 16 answers were there" in again.text
    other_theta(folder)
    refused = probe(f"--llmprobe-replay={name}")
    assert refused.exit_code != 0
    assert f"config.json of 'model' has changed since {name} was made" in refused.text
    shutil.copytree(folder, pytester.path / "other")
    for options, words in (
        (["--model=other"], "are of 'model' and not of 'other'"),
        (["--llmprobe-dtype=bfloat16"], "was made with --llmprobe-dtype auto, and this session"),
        (["--llmprobe-date=2020-01-01"], "was made with --llmprobe-date 2024-07-26, and this"),
    ):
        run = pytester.runpytest_subprocess(f"--llmprobe-replay={name}", *options)
        assert run.ret == 4
        run.stderr.fnmatch_lines([f"ERROR: llmprobe: *{words}*"])


TURNS = "{% for m in messages %}HEAD{{ m.content }}\n{% endfor %}answer:"
DATED = "Today Date: {{ strftime_now('%d %b %Y') }}\n" + TURNS
CLEAN, TORN = TURNS.replace("HEAD", "asked: "), TURNS.replace("HEAD", "")
TORN_BUT_2 = TURNS.replace("HEAD", "{{ 'asked: ' if m.content in ('Q0?', 'Q1?') else '' }}")


@pytest.fixture
def reading(folder, pytester):
    """An eval of a size that is right where the model reads a text, and the model's template."""

    def reading(size, wanted, template):
        source = READING.replace("SIZE", str(size)).replace("WANTED", repr(wanted))
        pytester.makepyfile(test_eval=source)
        (folder / "chat_template.jinja").write_text(template)

    return reading


@pytest.mark.parametrize(
    ("size", "template", "changed"),
    [
        pytest.param(32, TORN, 32, id="template exchanged, 32 -> 0: was NOT JUDGED with exit 0"),
        pytest.param(40, TORN_BUT_2, 38, id="38 of 40 prompts changed: was PASS on the two left"),
    ],
)
def test_another_template_fails_the_gate(size, template, changed, folder, reading, probe):
    reading(size, "asked: Q", CLEAN)
    first = probe("--model=model", "--llmprobe-save=main")
    assert first.outcomes == {"passed": size}, first.text
    reading(size, "asked: Q", template)
    second = probe("--model=model", "--llmprobe-compare=main")
    assert (second.verdict, second.exit_code) == ("FAIL", 1)
    said = second.report["comparison"]["prompts"]
    assert said.startswith(f"the prompts of {changed} of {size} cases changed (chat template")
    assert said in second.text


def test_the_next_day_is_judged_where_20_to_0_was_not_judged_with_exit_0(
    reading, probe, pytester, monkeypatch
):
    pytester.makeconftest(CLOCK)
    reading(20, "Today Date: 26 Jul 2024", DATED)
    first = probe("--model=model", "--llmprobe-save=main")
    assert first.outcomes == {"passed": 20}, first.text
    assert first.report["model_info"]["date"] == first.report["config"]["date"] == "2024-07-26"
    monkeypatch.setenv("DAY", "2026-11-27")
    same = probe("--model=model", "--llmprobe-compare=main", "--llmprobe-resume")
    assert same.verdict == "PASS"
    assert same.report["comparison"]["prompts"] is None
    assert "20 of 20 answers were there" in same.text
    other = probe("--model=model", "--llmprobe-compare=main", "--llmprobe-date=2026-11-27")
    assert (other.verdict, other.exit_code) == ("FAIL", 1)
    assert "20 of 20 cases changed (date: 2024-07-26 -> 2026-11-27)" in other.text
    monkeypatch.setenv("WORSE", "1")
    worse = probe("--model=model", "--llmprobe-compare=main")
    assert (worse.verdict, worse.exit_code) == ("FAIL", 1)
    assert worse.report["comparison"]["prompts"] is None


def test_today_is_a_day_and_nonsense_is_refused_before_anything_runs(pytester):
    for given in ("tomorrow", "2024-13-01", "26.7.2024"):
        run = pytester.runpytest_subprocess("--model=reference", f"--llmprobe-date={given}")
        assert run.ret == 4
        run.stderr.fnmatch_lines([f"*'{given}' is not today and no YYYY-MM-DD"])
    run = pytester.runpytest_subprocess(
        "--model=openai:m", "--llmprobe-base-url=http://localhost:1/v1", "--llmprobe-date=today"
    )
    assert run.ret == 4
    run.stderr.fnmatch_lines(["*date has no meaning for 'openai:m', whose server renders*"])
