"""A model without weights whose answers depend on the config and the seed, and tasks for it."""

import random

from pytest_llmprobe import Engine, ScriptedModel
from pytest_llmprobe.search import RegexNumber, SearchTask

ROWS = [{"a": n, "b": 2 * n, "sum": 3 * n} for n in range(40)]


class Sampler(ScriptedModel):
    """Adds right at temperature 0; at temperature t it is wrong with probability t / 2."""

    shares_prefixes = True

    def __init__(self):
        super().__init__(lambda prompt: prompt)
        self.calls = []

    def generate(self, rows, on_tokens):
        self.calls.append(list(rows))
        for row in rows:
            prompt = "".join(map(chr, row.prompt_ids))
            right = sum(map(int, prompt.removesuffix("=").split("+")))
            off = random.Random(row.seed).random() < row.config.temperature / 2
            self.answer = lambda _, said=right + off: f"It is {said}."
            yield from super().generate([row], on_tokens)

    @property
    def answered(self):
        return sum(map(len, self.calls))


def task(rows=ROWS, score=None, **how):
    """A task and its model."""
    model = Sampler()
    return SearchTask(Engine(model), rows, "{a}+{b}=", score or RegexNumber("sum"), **how), model
