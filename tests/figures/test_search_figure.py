"""The figure of a search shows every score, and the held-out rows' own."""

import pytest

from pytest_llmprobe.figures import save_figure, search_figure


def found(n=3, **more):
    """n configurations; the last is the best, the first the default."""
    tried = [
        {"value": f"temperature={i}", "mean": 0.1 * i, "ci95": [0.1 * i - 0.05, 0.1 * i + 0.05]}
        for i in range(n)
    ]
    return {
        "verdict": "no configuration is better",
        "best": tried[-1]["value"],
        "default": tried[0]["value"],
        "search_rows": 20,
        "held_out_rows": 10,
        "held_out_best": 0.4,
        "held_out_default": 0.3,
        "configurations": tried,
    } | more


def drawn(figure):
    """Names and the scores of their dots from the bottom up, and the bars."""
    tried, held_out = figure.axes
    dots = [line.get_xdata()[0] for line in tried.lines if line.get_marker() == "o"]
    names = [label.get_text() for label in tried.get_yticklabels()]
    return names, dots, [bar.get_height() for bar in held_out.patches]


def test_scores_intervals_and_bars_are_those_of_the_search(tmp_path):
    figure = search_figure(found(), "a task")
    names, dots, bars = drawn(figure)
    assert names == ["temperature=0", "temperature=1", "temperature=2"]
    assert dots == pytest.approx([0, 0.1, 0.2])
    assert bars == [0.3, 0.4]
    intervals = [line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert intervals[2] == pytest.approx([0.15, 0.25])
    save_figure(figure, tmp_path / "search.svg")
    shown = (tmp_path / "search.svg").read_text()
    assert "a task" in shown
    assert "no configuration is better" in shown


def test_the_best_is_on_top_where_less_is_better_too():
    names, dots, _ = drawn(search_figure(found(greater_is_better=False, best="temperature=0")))
    assert names[-1] == "temperature=0"
    assert dots == sorted(dots, reverse=True)


def test_of_very_many_configurations_best_and_default_are_named():
    many = found(61)
    assert drawn(search_figure(many))[0] == ["temperature=0", "temperature=60"]


def test_a_configuration_without_interval_is_a_dot():
    one = found()
    one["configurations"][1]["ci95"] = None
    lines = search_figure(one).axes[0].lines
    assert len(lines) == 5
