"""``llmprobe influence``: the files it writes are those of the library."""

import argparse
import json

import numpy as np
import pytest

from pytest_llmprobe.cli import influence as command
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.figures import files
from pytest_llmprobe.models.loading import load_model
from pytest_llmprobe.whitebox.influence import influence
from pytest_llmprobe.whitebox.spans import locate
from pytest_llmprobe.whitebox.steering import steer

PROMPT = "Answer in French.\n\nAnna sold the lamp. Anna sold the kite."


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(["influence", *(str(argument) for argument in arguments)])
    options.run(options)


def test_it_writes_the_map_the_tokens_and_a_plot(tmp_path, capsys):
    (tmp_path / "prompt.txt").write_text(PROMPT)
    out = tmp_path / "new" / "folder"
    run("--prompt", f"@{tmp_path / 'prompt.txt'}", "--span", "in French", "--out", out)
    values = np.load(out / "influence.npy", allow_pickle=False)
    expected = influence(load_model("reference"), PROMPT, "in French")
    assert values.dtype == np.float32
    assert values.tolist() == expected.values.tolist()
    described = json.loads((out / "tokens.json").read_text())
    assert described["span"] == list(expected.prompt.positions)
    assert len(described["tokens"]) == values.shape[1]
    assert "".join(described["tokens"][i] for i in described["span"]).strip() == "in French"
    assert (out / "influence.png").read_bytes().startswith(b"\x89PNG")
    *layers, last = capsys.readouterr().out.splitlines()
    assert last == str(out)
    assert [float(line.split()[-1]) for line in layers] == pytest.approx(
        values[1:, -10:].mean(1), abs=1e-6
    )


def test_of_a_steered_model_it_is_what_the_library_gives_within_steer(tmp_path):
    model = load_model("reference")
    found = {}
    for delta in (0, 2, -2):
        run("--prompt", PROMPT, "--span", "in French", "--delta", delta, "--out", tmp_path)
        found[delta] = np.load(tmp_path / "influence.npy")
        with steer(model, locate(model, PROMPT, "in French"), delta=delta):
            expected = influence(model, PROMPT, "in French").values
        assert found[delta].tolist() == expected.tolist()
    ends = [found[delta][-1, -10:].mean() for delta in (-2, 0, 2)]
    assert ends[0] < ends[1] < ends[2]
    with pytest.raises(SettingsError, match="delta"):
        run("--prompt", PROMPT, "--span", "in French", "--delta", "nan", "--out", tmp_path)


def test_several_spans_and_chosen_layers(tmp_path, capsys):
    spans = ["in French", "Anna sold the kite"]
    given = [word for span in spans for word in ("--span", span)]
    run("--prompt", PROMPT, *given, "--layers", "0,2", "--out", tmp_path)
    expected = [influence(load_model("reference"), PROMPT, span).values for span in spans]
    for name, values in zip(("influence", "influence-2"), expected, strict=True):
        assert np.load(tmp_path / f"{name}.npy") == pytest.approx(values, abs=1e-6)
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
    *rows, _ = capsys.readouterr().out.splitlines()
    assert [row.split()[:3] for row in rows] == [["after", "layer", "0"], ["after", "layer", "2"]]
    for row, layer in zip(rows, (0, 2), strict=True):
        means = [values[1 + layer, -10:].mean() for values in expected]
        assert [float(mean) for mean in row.split()[3:]] == pytest.approx(means, abs=1e-6)
    with pytest.raises(SettingsError, match=r"--layers 99: the last layer is \d+"):
        run("--prompt", PROMPT, *given, "--layers", "99", "--out", tmp_path)


def test_another_measure_and_another_occurrence(tmp_path):
    given = ("--prompt", PROMPT, "--span", "Anna sold", "--out", tmp_path)
    with pytest.raises(CasesError, match="2 times"):
        run(*given)
    run(*given, "--occurrence", 1, "--method", "rollout")
    described = json.loads((tmp_path / "tokens.json").read_text())
    assert described["method"] == "rollout"
    after = described["tokens"][described["span"][-1] + 1 :]
    assert "kite" in "".join(after)
    assert "lamp" not in "".join(after)


def test_without_matplotlib_the_numbers_are_written_all_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    run("--prompt", PROMPT, "--span", "in French", "--out", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["influence.npy", "tokens.json"]
    assert "no plot: it needs matplotlib" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("--prompt", PROMPT, "--span", "in German"), CasesError, "does not hold 'in German'"),
        (("--prompt", PROMPT, "--span", " "), CasesError, "the text of a span is ' '"),
        (("--prompt", "@no/such.txt", "--span", "a"), CasesError, "@no/such.txt: No such file"),
    ],
)
def test_what_cannot_be_asked_is_an_error(tmp_path, arguments, error, words):
    with pytest.raises(error, match=words):
        run(*arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_is_no_text_and_a_folder_that_is_a_file_are_errors(tmp_path):
    (tmp_path / "prompt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CasesError, match="it is not UTF-8"):
        run("--prompt", f"@{tmp_path / 'prompt'}", "--span", "a", "--out", tmp_path)
    with pytest.raises(SettingsError, match=r"--out .*prompt cannot be written: it is a file"):
        run("--prompt", PROMPT, "--span", "French", "--out", tmp_path / "prompt")
