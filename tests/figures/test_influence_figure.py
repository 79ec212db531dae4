"""The figure of an influence map shows the numbers that it was given."""

import numpy as np
import pytest

from pytest_llmprobe.figures.files import save_figure
from pytest_llmprobe.figures.influence import LOWEST, influence_figure

# Three layers, six tokens, the span on tokens 1, 2 and 4.
VALUES = np.array(
    [[0, 1, 1, 0, 1, 0], [0, 0.9, 0.8, 0.1, 0.9, 0.01], [0, 0.5, 0.4, 0.2, 0.5, 0.02]], np.float32
)
SPAN = (1, 2, 4)


def test_each_layer_is_a_line_and_a_zero_is_left_out():
    (axes,) = influence_figure(VALUES, SPAN, "a model", "rollout").axes
    assert [line.get_label() for line in axes.lines] == ["after layer 0", "after layer 1"]
    for line, row in zip(axes.lines, VALUES[1:], strict=True):
        drawn = line.get_ydata()
        assert np.isnan(drawn[0])
        assert drawn[1:].tolist() == row[1:].tolist()
    assert axes.get_yscale() == "log"
    assert (axes.get_title(), axes.get_ylabel()) == ("a model", "rollout")


def test_the_axis_holds_every_value():
    (axes,) = influence_figure(VALUES, SPAN).axes
    low, high = axes.get_ylim()
    assert low < 0.01
    assert high > 1
    (axes,) = influence_figure(VALUES * 1e-12, SPAN).axes
    assert axes.get_ylim()[0] == pytest.approx(LOWEST / 1.5)


def test_the_span_is_a_band_for_each_of_its_runs():
    (axes,) = influence_figure(VALUES, SPAN).axes
    bands = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    assert bands == [(0.5, 2.5), (3.5, 4.5)]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["the span", "after layer 0", "after layer 1"]


@pytest.mark.parametrize("layers", [2, 33])
def test_it_can_be_saved_whatever_it_holds(tmp_path, layers):
    rows = np.zeros((layers, 4), np.float32)
    save_figure(influence_figure(rows, ()), tmp_path / "new" / "figure.svg")
    assert "<svg" in (tmp_path / "new" / "figure.svg").read_text()
