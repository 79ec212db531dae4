"""The figure of an output-length data set shows the numbers that it was given."""

import subprocess
import sys

import numpy as np
import pytest

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.figures import files, output_length
from pytest_llmprobe.figures.files import check_figure_file, save_figure
from pytest_llmprobe.figures.output_length import output_length_figure

STEPS = np.tile(np.arange(12), 6)
LABELS = 11 - STEPS
TEST = np.arange(48, 72)
CURVE = [
    {"layer": 0, "skill": -0.1, "low": -0.2, "high": 0.0, "control": -0.3},
    {"layer": 3, "skill": 0.5, "low": 0.4, "high": 0.6, "control": -0.2},
    {"layer": 6, "skill": 0.7, "low": None, "high": None, "control": -0.25},
    {"layer": 7, "skill": None, "low": None, "high": None, "control": None},
]


def draw(**changes):
    given = {
        "labels": LABELS,
        "steps": STEPS,
        "norms": {0: 1.0 + STEPS, 3: 100.0 + STEPS},
        "curve": CURVE,
        "test": TEST,
        "predicted": LABELS[TEST] + 1.5,
        "title": "a model",
    }
    return output_length_figure(**given | changes)


def test_each_panel_shows_its_numbers():
    figure = draw()
    distribution, norm, skill, prediction = figure.axes
    bars = [sum(bar.get_height() for bar in bars) for bars in distribution.containers]
    assert bars == [48, 24]
    assert [text.get_text() for text in norm.get_legend().get_texts()] == ["layer 0", "layer 3"]
    for line, first in zip(norm.lines, (1, 100), strict=True):
        assert line.get_ydata().tolist() == list(range(first, first + 12))
    zero, probe, control = skill.lines
    assert set(zero.get_ydata()) == {0}
    assert list(probe.get_xdata()) == [0, 3, 6, 7]
    assert probe.get_ydata() == pytest.approx([-0.1, 0.5, 0.7, np.nan], nan_ok=True)
    assert control.get_ydata() == pytest.approx([-0.3, -0.2, -0.25, np.nan], nan_ok=True)
    (intervals,) = skill.collections
    ends = [segment[:, 1].tolist() for segment in intervals.get_segments() if len(segment)]
    assert ends == [[-0.2, 0.0], [0.4, 0.6]]
    assert prediction.collections[0].get_offsets().tolist() == [
        [actual, actual + 1.5] for actual in LABELS[TEST]
    ]
    assert "mean error 1.5" in prediction.get_title()
    assert figure.get_suptitle() == "a model"


def test_a_median_needs_some_rows():
    steps = np.append(STEPS, 40)
    figure = draw(
        steps=steps, labels=np.append(LABELS, 0), norms={1: np.ones(73)}, predicted=np.ones(24)
    )
    assert max(figure.axes[1].lines[0].get_xdata()) == 11


def test_bins_are_whole_tokens():
    labels = np.arange(1000)
    figure = draw(labels=labels, test=labels[:10], predicted=labels[:10])
    trained, held_out = ([bar.get_height() for bar in bars] for bars in figure.axes[0].containers)
    assert held_out == [10] + [0] * 39
    assert trained == [15] + [25] * 39


def test_many_layers_share_few_names():
    names = draw(norms={layer: np.ones(72) for layer in range(33)}).axes[1].get_legend().get_texts()
    assert [name.get_text() for name in names] == [f"layer {n}" for n in range(0, 33, 5)]


def test_many_points_are_thinned(monkeypatch):
    monkeypatch.setattr(output_length, "MOST_POINTS", 10)
    assert len(draw().axes[3].collections[0].get_offsets()) == 8  # every third of 24


@pytest.mark.parametrize("suffix", files.FORMATS)
def test_a_figure_is_saved_in_the_format_of_its_name(tmp_path, suffix):
    path = tmp_path / "new" / f"figure{suffix}"
    check_figure_file(path)
    save_figure(draw(), path)
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml", b"%PDF-")


def test_a_figure_that_cannot_be_made_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match=r"ends in \.png, \.svg, \.pdf"):
        check_figure_file(tmp_path / "figure.xls")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be written"):
        save_figure(draw(), tmp_path / "file" / "figure.png")
    monkeypatch.setattr(files, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'pytest-llmprobe\[plots\]'"):
        check_figure_file(tmp_path / "figure.png")


def test_matplotlib_is_loaded_only_to_draw():
    code = "import sys, pytest_llmprobe.figures.output_length; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
