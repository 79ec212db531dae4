"""``llmprobe prefixes``, ``continue`` and ``canaries`` on the embedded model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pytest_llmprobe.cli import main
from pytest_llmprobe.experiments.memorization.known_texts import known_texts
from pytest_llmprobe.experiments.memorization.prefix_map.files import load_prefix_map
from pytest_llmprobe.models.registry import REFERENCE


@pytest.fixture
def corpus(tmp_path):
    """Four texts that the reference model was shown 64 times, then four that it never saw."""
    path = tmp_path / "corpus.jsonl"
    known = [k for k in known_texts() if k.kind == "canary"]
    texts = [k.text for n in (64, 0) for k in [k for k in known if k.exposures == n][:4]]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, "short"]))
    return path


@pytest.fixture
def run(capsys):
    """Run a command; what it prints."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


@pytest.fixture
def fails(capsys):
    """Run a command that fails; its one line."""

    def fails(*arguments):
        assert main([str(argument) for argument in arguments]) == 4
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()[-1]

    return fails


def test_what_the_reference_model_was_shown_comes_back_and_nothing_else(
    corpus, run, tmp_path, capsys
):
    maps, out = tmp_path / "maps", tmp_path / "out.jsonl"
    folder = run("prefixes", "--dataset", corpus, "--prefix-tokens", 12, "--out", maps).rstrip("\n")
    assert folder.startswith(f"{maps}/reference_corpus.jsonl_12_start_")
    asked = ("continue", "--prefix-map", folder, "--max-length", 16, "--batch-size", 5)
    said = run(*asked, "--num-strings", 6, "--out", out)
    assert said.startswith(f"{out}: 6 strings, 4 of 6 true suffixes given back exactly")
    said = run(*asked, "--out", out)  # goes on with the rest
    assert said.startswith(f"{out}: 8 strings, 4 of 8 true suffixes given back exactly")
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert [result["scores"]["exact"] for result in results] == [True] * 4 + [False] * 4
    assert [result["document"] for result in results] == [f"line {n}" for n in range(1, 9)]
    meta = json.loads((tmp_path / "out.jsonl.meta.json").read_text())
    assert meta["model"] == "reference"
    assert meta["before"] == [1]
    again = [*asked, "--num-strings", 9, "--out", out]
    assert main([str(argument) for argument in again]) == 0
    assert "8 prefixes: greedy decoding gives the text of round 0 again" in capsys.readouterr().err


def test_prefixes_takes_its_options(corpus, run, tmp_path):
    options = (
        "--location",
        "random",
        "--seed",
        3,
        "--size",
        5,
        "--document-tokens",
        20,
        "--out",
        tmp_path,
    )
    folders = [
        run("prefixes", "--dataset", corpus, "--prefix-tokens", 4, *options, "--out", tmp_path)[:-1]
        for _ in range(2)
    ]
    maps = [load_prefix_map(tmp_path / folder, None) for folder in folders]
    parameters = {
        "prefix_tokens": 4,
        "location": "random",
        "size": 5,
        "document_tokens": 20,
        "seed": 3,
    }
    assert maps[0].metadata["parameters"] == parameters
    assert maps[0].metadata["dataset"] == str(corpus)
    assert len({entry.start for entry in maps[0]}) > 1
    assert all(len(e.suffix_ids) == 16 - e.start for e in maps[0])
    assert np.array_equal(maps[0].prefix_ids, maps[1].prefix_ids)


def test_documents_without_text_are_counted(corpus, tmp_path, capsys):
    with corpus.open("a") as file:
        file.write('{"text": null}\n{"text": " "}\n')
    asked = ("prefixes", "--dataset", corpus, "--prefix-tokens", 4, "--out", tmp_path / "maps")
    assert main([str(argument) for argument in asked]) == 0
    assert "2 documents without text left out" in capsys.readouterr().err


def test_an_error_names_the_option_of_this_command(fails, tmp_path, corpus):
    assert fails("prefixes", "--dataset", "absent.txt").startswith(
        "llmprobe: --dataset absent.txt: there is no file or folder"
    )
    empty = tmp_path / "a.jsonl"
    empty.write_text('{"body": "text"}\n')
    assert fails("prefixes", "--dataset", empty, "--out", tmp_path / "maps").startswith(
        f"llmprobe: --dataset {empty}: {empty} line 1 has no text"
    )
    assert "document_tokens=3: it must be 11 or more" in fails(
        "prefixes", "--dataset", corpus, "--document-tokens", 3
    )


def test_places_that_had_to_be_clamped_are_said(corpus, run, tmp_path, capsys):
    asked = ["prefixes", "--dataset", str(corpus), "--prefix-tokens", "4", "--out", str(tmp_path)]
    assert main([*asked, "--location", "99999"]) == 0
    out, err = capsys.readouterr()
    kept = load_prefix_map(tmp_path / out.rstrip("\n"), None)
    assert f"--location 99999: {len(kept)} of {len(kept)} documents end before token 100003" in err
    assert kept.metadata["clamped"] == len(kept)
    assert main([*asked, "--location", "0"]) == 0
    assert "--location" not in capsys.readouterr().err


def test_continue_checks_what_it_is_told_before_it_loads_a_model(fails, corpus, run, tmp_path):
    folder = run("prefixes", "--dataset", corpus, "--out", tmp_path / "maps").rstrip("\n")
    asked = ("continue", "--prefix-map", folder, "--model", "no-such-model")
    out = ("--out", tmp_path / "out.jsonl")
    assert "--out /proc/x cannot be written" in fails(*asked, "--out", "/proc/x")
    assert "has no {prefix}" in fails(*asked, *out, "--message", "go on")
    assert "max_length=0: it must be" in fails(*asked, *out, "--max-length", 0)
    asked = ("continue", "--prefix-map", folder, *out)
    assert fails(*asked, "--max-length", 4087).endswith(
        "--max-length 4087: the model's context is 4096 tokens, and a prefix has 10: 4086 are left"
    )
    served = ("--model", "openai:m", "--base-url", "http://127.0.0.1:9")
    assert fails(*asked, *served).endswith("start it, or name another one with --base-url")


@pytest.mark.parametrize(
    "arguments",
    [
        ("prefixes", "--dataset", "d"),
        ("hidden-states",),
        ("train-length-probe", "d"),
        ("influence", "--prompt", "p", "--span", "s"),
        ("search", "evals"),
        ("similar", "f"),
        ("canaries",),
    ],
)
def test_where_a_command_writes_is_looked_at_first(fails, arguments):
    assert "--out /proc/x cannot be written: /proc takes no such" in fails(
        *arguments, "--out", "/proc/x"
    )


def test_continue_without_a_map_or_strings_is_one_line(fails, tmp_path, corpus, run):
    out = ("--out", tmp_path / "out.jsonl")
    assert "no finished prefix map" in fails("continue", "--prefix-map", tmp_path, *out)
    folder = run("prefixes", "--dataset", corpus, "--out", tmp_path / "maps").rstrip("\n")
    asked = ("continue", "--prefix-map", folder, *out)
    assert "num_strings=0" in fails(*asked, "--num-strings", 0)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(("option", "value"), [("--location", "end"), ("--size", "many")])
def test_wrong_usage_says_what_is_right(option, value, capsys):
    with pytest.raises(SystemExit, match="4"):
        main(["prefixes", "--dataset", "d", option, value])
    assert f"'{value}' is not" in capsys.readouterr().err


def test_canaries_are_lines_on_the_terminal_or_in_a_file(run, tmp_path):
    lines = run("canaries", "--count", 3, "--seed", 5)
    canaries = [json.loads(line) for line in lines.splitlines()]
    assert [canary.keys() for canary in canaries] == [{"text", "prefix", "secret"}] * 3
    assert all(c["text"] == f"{c['prefix']} {c['secret']}." for c in canaries)
    path = tmp_path / "new" / "canaries.jsonl"
    assert run("canaries", "--count", 3, "--seed", 5, "--out", path) == ""
    assert path.read_text() == lines
    assert run("canaries", "--count", 3) != lines
    assert len(run("canaries").splitlines()) == 50


def test_canaries_that_cannot_be_made_or_written_are_one_line(fails, tmp_path):
    assert "canaries with different secrets" in fails("canaries", "--count", -1)
    assert "cannot be written" in fails("canaries", "--out", tmp_path)


@pytest.mark.parametrize("command", ["models", "canaries"])
def test_commands_without_a_model_load_nothing_heavy(command):
    code = f"""
import sys
from pytest_llmprobe.cli import main
main([{command!r}])
print(sorted({{"torch", "transformers", "numpy", "pytest", "datasets"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_label_and_info_go_with_the_strings_and_the_nearest_are_shown(corpus, run, fails, tmp_path):
    rows = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    lines = [{"text": t, "title": f"T{n}", "url": f"u/{n}"} for n, t in enumerate(rows)]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    cut = ("prefixes", "--dataset", corpus, "--prefix-tokens", 12, "--out", tmp_path / "maps")
    folder = run(*cut, "--label", "title", "--info", "url")[:-1]
    out = tmp_path / "out.jsonl"
    run("continue", "--prefix-map", folder, "--max-length", 16, "--out", out)
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["label"], r["info"]) for r in results] == [(f"T{n}", f"u/{n}") for n in range(8)]
    assert all(r["suffix_text"] in text for r, text in zip(results, rows, strict=False))
    shown = run("similar", out, "--measure", "levenshtein", "--top", 4)
    assert shown.count("levenshtein") == 4
    assert shown.startswith("levenshtein 1: 0 (string 0, line 1, T0, u/0)\n  prefix  ")
    run("similar", out, "--top", 3, "--out", tmp_path / "near.jsonl")
    near = [json.loads(line) for line in (tmp_path / "near.jsonl").read_text().splitlines()]
    assert len(near) == 3 * len({pair["measure"] for pair in near}) == 27
    assert {pair["index"] for pair in near if pair["rank"] == 1} <= {0, 1, 2, 3}
    before = out.read_bytes()
    assert "is the file that is read: give another one" in fails("similar", out, "--out", out)
    assert out.read_bytes() == before
    assert "line 1 has no field 'name': it has text, title, url" in fails(*cut, "--label", "name")


@pytest.mark.parametrize(("options", "saved"), [((), 9), (("--crop",), 2)])
def test_the_corpus_is_saved_whole_or_as_far_as_the_map_goes(corpus, run, tmp_path, options, saved):
    folder = run(
        "prefixes", "--dataset", corpus, "--size", 2, "--save", *options, "--out", tmp_path
    )[:-1]
    assert len(load_prefix_map(tmp_path / folder, None)) == 2
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    kept = [
        json.loads(line) for line in (tmp_path / folder / "corpus.jsonl").read_text().splitlines()
    ]
    assert kept == [{"id": f"line {n}"} | row for n, row in enumerate(rows, 1)][:saved]


def test_crop_without_save_would_do_nothing(corpus, fails):
    assert "ask for save, too" in fails("prefixes", "--dataset", corpus, "--crop")


def test_a_mamba_checkpoint_goes_on_as_transformers_does(corpus, run, tmp_path):
    folder = tmp_path / "mamba"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("*.safetensors", "unlearned"))
    config = AutoConfig.for_model(
        "mamba", vocab_size=2048, hidden_size=32, num_hidden_layers=2, state_size=8, eos_token_id=2
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    maps, out = tmp_path / "maps", tmp_path / "out.jsonl"
    cut = ("prefixes", "--model", folder, "--dataset", corpus, "--prefix-tokens", 6)
    entries = load_prefix_map(Path(run(*cut, "--out", maps)[:-1]), None)
    go_on = ("continue", "--prefix-map", entries.folder, "--model", folder, "--max-length", 8)
    run(*go_on, "--out", out, "--batch-size", 3)
    for entry, line in zip(entries, out.read_text().splitlines(), strict=True):
        ids = torch.tensor([[1, *entry.prefix_ids.tolist()]])
        said = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
        assert json.loads(line)["generated_ids"] == said[0, ids.shape[1] :].tolist()
