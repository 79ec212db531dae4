"""Hidden states, a probe of them and its live table, from the command line to the files."""

import argparse
import ast
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_llmprobe import Engine, GenerateConfig, RawPrompt
from pytest_llmprobe.cli import output_length
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.experiments.output_length.data_set import load_length_data
from pytest_llmprobe.experiments.output_length.words import PHRASINGS
from pytest_llmprobe.models.loading import load_model
from pytest_llmprobe.whitebox.length_probe import LengthProbe, ProbeConfig


def run(*arguments):
    parser = argparse.ArgumentParser()
    output_length.add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args([str(argument) for argument in arguments])
    options.run(options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """States of whatever the embedded model answers: how well it repeats is not tested here."""
    folder = tmp_path_factory.mktemp("output_length")
    words = ("apple", "dog", "child")
    prompts = [p.format(word=w, count=n) for n, p in enumerate(PHRASINGS[:8], 1) for w in words]
    rows = [{"prompt": prompt, "phrasing": prompt[:9]} for prompt in prompts]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = ("--dataset", folder / "mine.jsonl", "--max-new-tokens", 60)
    run("hidden-states", *dataset, "--layers=-1,2", "--share", "0.3", "--out", folder / "data")
    train = ("train-length-probe", folder / "data", "--layer", 2, "--out", folder / "probe")
    run(*train, "--figure", folder / "figure.png")
    return folder


def test_states_are_written(folder):
    data = load_length_data(folder / "data")
    assert data.layers == (6, 2)
    assert data.metadata["parameters"]["model"]["name"] == "reference"
    assert data.metadata["parameters"]["max_new_tokens"] == 60
    assert sum(data.metadata["statistics"]["samples"].values()) == 24
    assert data.states(np.arange(len(data))).shape == (len(data), 2 * data.hidden_size)


def test_a_probe_knows_its_origin_and_what_it_is_worth(folder):
    origin = LengthProbe.load(folder / "probe").origin
    assert (origin["name"], origin["layers"], origin["dates"]) == ("reference", [2], "leave out")
    assert {"probe", "constant", "step", "shuffled_labels"} <= set(origin["metrics"])
    low, high = origin["skill_ci95"]
    assert low <= origin["skill"] <= high
    assert origin["skill_of_shuffled_labels"] < 0.1


def test_a_figure_is_drawn(folder):
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_cannot_be_drawn_is_an_error_before_any_training(folder, tmp_path):
    train = ("train-length-probe", folder / "data", "--out", tmp_path / "probe")
    with pytest.raises(SettingsError, match=r"ends in \.png"):
        run(*train, "--figure", "figure.xls")
    assert not (tmp_path / "probe").exists()


def test_each_layer_has_a_line_where_that_is_asked_for(folder, tmp_path, capsys):
    how = ("--layer", 2, "--hold-out", "phrasing", "--epochs", 5, "--by-layer")
    run("train-length-probe", folder / "data", *how, "--out", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    first = next(n for n, line in enumerate(lines) if "in 5 folds by phrasing" in line)
    assert lines[first].startswith(
        f"{len({s['sample_id'] for s in load_length_data(folder / 'data').metadata['samples']})} "
    )
    names = [line[:15].strip() for line in lines[first + 2 :]]
    assert names == [
        *("mean", "constant", "step", "token id", "prompt", "layer 2", "layer 6"),
    ]
    number = r"-?\d+\.\d+ \[-?\d+\.\d+, -?\d+\.\d+\]"
    assert [len(re.findall(number, line)) for line in lines[first + 2 :]] == [2] * 5 + [4] * 2


def test_the_table_ends_with_the_skill_and_its_interval(folder, tmp_path, capsys):
    run("train-length-probe", folder / "data", "--layer", 2, "--out", tmp_path)
    *table, skill, said = capsys.readouterr().out.splitlines()
    assert [line[:16].strip() for line in table] == [
        *("", "probe", "constant", "step", "token id", "shuffled labels")
    ]
    origin = LengthProbe.load(tmp_path).origin
    low, high = origin["skill_ci95"]
    assert skill.endswith(f"{origin['skill']:.3f} [{low:.3f}, {high:.3f}]")
    assert said == f"probe: {tmp_path}"


def test_the_table_says_where_no_probe_can_be_better():
    shown = ("mae", "mape", "rmse", "r2", "spearman", "bin_accuracy", "bin_macro_f1")
    judged = SimpleNamespace(
        metrics={name: dict.fromkeys(shown) for name in ("probe", "step")}, best="step", skill=None
    )
    *lines, last = output_length._table(judged).splitlines()
    assert last == "no skill can be had: step tells the remaining tokens exactly"
    assert lines[-1].split() == ["step", *"-------"]


def test_the_table_has_every_token_and_counts_down(folder, capsys):
    data = load_length_data(folder / "data")
    prompt = data.metadata["samples"][0]["prompt"]
    run("predict-length", "--probe", folder / "probe", "--prompt", prompt)
    _, *lines, errors = capsys.readouterr().out.splitlines()
    columns = [line.split(maxsplit=3) for line in lines]
    n = data.metadata["samples"][0]["tokens"]
    assert [int(step) for step, *_ in columns] == list(range(n))
    assert [int(remain) for _, _, remain, _ in columns] == list(range(n))[::-1]
    rows = np.flatnonzero(data.tokens("sample_id") == data.metadata["samples"][0]["sample_id"])
    predicted = LengthProbe.load(folder / "probe").predict(data.states(rows, 2))
    assert [float(said) for _, said, *_ in columns] == pytest.approx(predicted, abs=0.1)
    assert [text for *_, text in columns] == [repr(str(t)) for t in data.tokens("token_text")[rows]]
    remain = np.arange(n)[::-1]
    off = np.abs(predicted - remain)
    said = [float(number) for number in re.findall(r"[\d.]+(?= tokens| %)", errors)]
    expected = [off.mean(), (off / remain)[remain > 5].mean() * 100] if n > 6 else [off.mean()]
    assert said == pytest.approx(expected, abs=0.06)


def test_a_raw_prompt_is_gone_on_with_as_it_is(folder, capsys):
    command = ("predict-length", "--probe", folder / "probe", "--max-new-tokens", 12)
    run(*command, "--prompt", "apple apple apple", "--raw")
    _, *lines, _ = capsys.readouterr().out.splitlines()
    answer = "".join(ast.literal_eval(line.split(maxsplit=3)[3]) for line in lines)
    engine, config = Engine(load_model("reference")), GenerateConfig(max_new_tokens=12)
    (plain,) = engine.generate([RawPrompt("apple apple apple")], config)
    assert answer.startswith(plain.text)
    (chat,) = engine.generate(["apple apple apple"], config)
    assert chat.token_ids != plain.token_ids


def test_every_option_of_the_training_reaches_it(folder, tmp_path):
    options = {"hidden": "16,8", "dropout": "0.2", "learning-rate": "0.01", "batch-size": "64"}
    options |= {"epochs": "3", "patience": "2", "bins": "1,4,16", "kind": "mlp", "seed": "5"}
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    figure = tmp_path / "tokens.png"
    run("train-length-probe", folder / "data", *given, "--out", tmp_path, "--token-figure", figure)
    config = LengthProbe.load(tmp_path).config
    assert config == ProbeConfig("mlp", (1, 4, 16), (16, 8), 0.2, 0.01, 64, 3, 2, 5)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_without_options_the_training_is_that_of_the_library(folder, tmp_path):
    run("train-length-probe", folder / "data", "--layer", 2, "--out", tmp_path)
    assert LengthProbe.load(tmp_path).config == ProbeConfig()


def test_an_answer_that_does_not_end_has_no_known_rest(folder, capsys):
    prompt = load_length_data(folder / "data").metadata["samples"][0]["prompt"]
    command = ("predict-length", "--probe", folder / "probe", "--prompt", prompt)
    run(*command, "--max-new-tokens", 1)
    assert "?" in (out := capsys.readouterr().out)
    assert out.endswith("the answer did not end within 1 tokens\n")


def test_a_probe_of_other_weights_is_refused(folder):
    command = ("predict-length", "--probe", folder / "probe", "--prompt", "hello")
    with pytest.raises(CasesError, match="has other weights"):
        run(*command, "--model", "reference-random")


def test_a_probe_without_an_origin_is_refused(folder, tmp_path):
    probe = LengthProbe.load(folder / "probe")
    probe.origin = {"name": "reference"}
    probe.save(tmp_path)
    with pytest.raises(CasesError, match="does not say which model"):
        run("predict-length", "--probe", tmp_path, "--prompt", "hello")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("--layers=9",), SettingsError, "hidden states 0 to 6"),
        (("--words", "a b"), SettingsError, "without spaces"),
        (("--counts", "0:3"), SettingsError, "from 1 to"),
        (("--share", "1"), SettingsError, "between 0 and 1"),
        (("--dataset", "none.jsonl"), CasesError, "give same_prompt"),
    ],
)
def test_what_cannot_be_asked_is_an_error(tmp_path, arguments, error, words):
    with pytest.raises(error, match=words):
        run("hidden-states", *arguments, "--out", tmp_path / "data")
    assert not (tmp_path / "data").exists()


COUNTS, LAYERS = "is not as 5:49 or 5,10,20", "is not all or layers as -1,-2,-3"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        *((f"--counts={given}", COUNTS) for given in ("5-9", "a:b", "1,x", "")),
        *((f"--layers={given}", LAYERS) for given in ("last", "1,x", "")),
        *((f"--batch-size={given}", "from 1 up") for given in ("0", "-1", "many")),
    ],
)
def test_values_that_cannot_be_read_are_wrong_usage(tmp_path, capsys, option, words):
    with pytest.raises(SystemExit):
        run("hidden-states", option, "--out", tmp_path)
    assert words in capsys.readouterr().err


def test_what_became_of_the_answers_is_said(tmp_path, capsys):
    grid = ("--words", "apple,anchor", "--counts", "1:4", "--keep", "words")
    run("hidden-states", *grid, "--out", tmp_path / "data")
    first, *rest = capsys.readouterr().out.splitlines()
    found = load_length_data(tmp_path / "data").metadata["statistics"]
    assert first == f"{tmp_path / 'data'}: " + ", ".join(
        f"{n} {status}" for status, n in found["samples"].items()
    )
    off = found["count_deviation"]["mean_absolute"]
    assert rest[0] == f"counts are off by {off:.2f} in the mean"
    assert rest[1].endswith("320 numbers each, layers 6")


def test_counts_and_layers_are_read():
    assert output_length._counts("5:8") == (5, 6, 7, 8)
    assert output_length._counts("5,10") == (5, 10)
    assert output_length._layers("-1,-2") == (-1, -2)
    assert output_length._layers("all") == ()
    assert output_length._words("a, b") == ("a", "b")
