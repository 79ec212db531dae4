"""Hidden-state data whose answers are known, and a probe without torch."""

import numpy as np

from pytest_llmprobe.experiments.output_length.baselines import linear
from pytest_llmprobe.experiments.output_length.data_set import Arrays, LengthData
from pytest_llmprobe.experiments.output_length.data_set_files import TOKEN
from pytest_llmprobe.experiments.output_length.words import PHRASINGS


def made_up(states, tokens_per_word=(1, 2, 3), counts=range(3, 13)):
    """Answers of every count in words of several tokens; ``states`` of (remaining, step, count)."""
    samples, rows, inputs = [], [], []
    for count in counts:
        for number, k in enumerate(tokens_per_word):
            phrasing = PHRASINGS[(count + number) % 4]
            word = f"word{number}"
            sample = {"sample_id": len(samples), "part": "val" if count % 4 == 0 else "train"}
            sample |= {"word": word, "count": count, "phrasing": phrasing}
            sample["prompt"] = phrasing.format(word=word, count=count)
            total = k * count + 1
            for step in range(total):
                token = 2 if step == total - 1 else 10 * number + step % k
                rows.append((token, str(token), len(samples), step, total - 1 - step))
                inputs.append((total - 1 - step, step, count))
            samples.append(sample)
    values = np.array([states(*row) for row in inputs], np.float32)
    part = np.array([samples[row[2]]["part"] == "val" for row in rows])
    tokens, labels = (
        np.array([row[:4] for row in rows], TOKEN),
        np.array([r[4] for r in rows], "<i4"),
    )
    both = [Arrays(values[of], labels[of], tokens[of]) for of in (~part, part)]
    return LengthData({"samples": samples}, (0, 1), values.shape[1] // 2, *both)


class LeastSquares:
    """A probe without torch: a line through the training rows."""

    def __init__(self, states, labels, train, stop):
        self._inputs, self._labels = states(train), labels[train]

    def predict(self, states):
        return linear(self._inputs, self._labels, states)


NOISE = np.random.default_rng(0)
INFORMED = made_up(lambda remaining, step, count: (1.0, NOISE.normal(), remaining / 9, 3.0))
