"""What a look at answers costs beside one batched forward pass over the same, and how large it is.

    python tests/benchmarks/fidelity_cost.py [--model reference] [--texts 64] [--repeats 5]

CPU seconds of this process, the median of the repeats, taken in turn: the pass that a baseline
makes (distributions kept) and that of a candidate (against them), and a plain forward pass of
transformers over the same texts, padded into batches, with its log-softmax of the answers.
Then the bytes of 1,000 answers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pytest_llmprobe import load_model
from pytest_llmprobe.engine.distribution_file import KeptAnswer, Maker, write_distributions
from pytest_llmprobe.engine.teacher_forcing import Forced, TeacherForcing

BATCH = 4096
"""Tokens of a padded batch."""


@torch.no_grad()
def plain(model: Any, texts: Sequence[Forced]) -> None:
    """One batched forward pass, and log-probabilities of the answers."""
    ordered = sorted(texts, key=lambda text: len(text.ids))
    while ordered:
        count = max(1, BATCH // len(ordered[-1].ids))
        batch, ordered = ordered[-count:], ordered[:-count]
        width = max(len(text.ids) for text in batch)
        ids = torch.tensor([[*text.ids, *[0] * (width - len(text.ids))] for text in batch])
        first = min(len(text.prompt) for text in batch) - 1
        logits = model(ids, logits_to_keep=width - first).logits
        for row, text in zip(logits, batch, strict=True):
            place = len(text.prompt) - 1 - first
            row[place : place + len(text.answer)].log_softmax(-1)


def texts_of(model: Any, count: int, shared: int, own: int, answer: int) -> list[Forced]:
    """Random texts: tokens that all share, tokens of the prompt's own, and an answer."""
    random = torch.Generator().manual_seed(0)

    def ids(size: int) -> tuple[int, ...]:
        words = model.config.vocab_size
        return tuple(torch.randint(5, words, (size,), generator=random).tolist())

    common = ids(shared)
    return [Forced(common + ids(own), ids(answer)) for _ in range(count)]


def seconds(passes: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """The median of CPU seconds of each, taken in turn."""
    taken: list[list[float]] = [[] for _ in passes]
    for _ in range(repeats):
        for one, into in zip(passes, taken, strict=True):
            start = time.process_time()
            one()
            into.append(time.process_time() - start)
    return [median(each) for each in taken]


def main() -> None:
    """Two lines of times, one of bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="reference")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model(options.model)
    forcing = TeacherForcing(loaded)
    print(f"{options.model}, {options.texts} texts, CPU seconds, median of {options.repeats}")
    columns = ("shared+own+answer", "plain", "kept", "ratio", "against", "ratio")
    print("{:>18} {:>7} {:>7} {:>6} {:>8} {:>6}".format(*columns))
    for shared, own, answer in ((0, 60, 20), (400, 20, 20)):
        texts = texts_of(loaded.model, options.texts, shared, own, answer)
        bases = forcing.distributions(texts)
        whole, kept, seen = seconds(
            [
                lambda texts=texts: plain(loaded.model, texts),
                lambda texts=texts: forcing.distributions(texts),
                lambda texts=texts, bases=bases: forcing.seen(texts, bases),
            ],
            options.repeats,
        )
        times = f"{whole:7.2f} {kept:7.2f} {kept / whole:6.2f} {seen:8.2f} {seen / whole:6.2f}"
        print(f"{f'{shared}+{own}+{answer}':>18} {times}")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kept.npz"
        (one,) = forcing.distributions(texts_of(loaded.model, 1, 0, 20, 50))
        names = (f"evals/test_it.py::test_it[{n:04}]" for n in range(1000))
        answers = [KeptAnswer(n, "0" * 16, "x" * 150, 50, (7,) * 50, one) for n in names]
        write_distributions(path, Maker(options.model, "0" * 16, one.k), answers)
        print(f"1,000 answers of 50 tokens, k {one.k}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
