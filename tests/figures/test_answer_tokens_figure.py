"""The figure of a data set's tokens shows their frequencies and each answer's countdown."""

import numpy as np

from pytest_llmprobe.figures.answer_tokens import answer_tokens_figure
from pytest_llmprobe.figures.files import save_figure


def rows(lengths):
    """Texts, answers, steps and labels of answers of some lengths, in a random order."""
    found = [
        (f" w{step % 3}" if step < length - 1 else "<end>", number, step, length - 1 - step)
        for number, length in enumerate(lengths)
        for step in range(length)
    ]
    order = np.random.default_rng(0).permutation(len(found))
    return [np.array(column)[order] for column in zip(*found, strict=True)]


def test_bars_count_the_tokens_and_each_line_counts_down(tmp_path):
    lengths = [4, 7, 10]
    figure = answer_tokens_figure(*rows(lengths))
    common, sequences = figure.axes
    bars = {
        label.get_text(): bar.get_height()
        for label, bar in zip(common.get_xticklabels(), common.patches, strict=True)
    }
    assert bars == {"␣w0": 6, "␣w1": 6, "␣w2": 6, "<end>": 3}
    for line, length in zip(sequences.lines, lengths, strict=True):
        assert line.get_xdata().tolist() == list(range(length))
        assert line.get_ydata().tolist() == list(range(length))[::-1]
    save_figure(figure, tmp_path / "tokens.svg")
    assert "3 of 3 answers" in (tmp_path / "tokens.svg").read_text()


def test_of_many_answers_and_tokens_some_are_drawn():
    texts, samples, steps, labels = rows(range(3, 43))
    names = np.array([f"t{n % 30}" for n in range(len(texts))])
    common, sequences = answer_tokens_figure(names, samples, steps, labels).axes
    assert len(common.patches) == 15
    lengths = [len(line.get_xdata()) for line in sequences.lines]
    assert len(lengths) == 10
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (3, 42)
