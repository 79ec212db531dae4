"""What a step of decoding takes beside the products that are in it: CPU milliseconds of one thread.

    python tests/benchmarks/decode_step.py [--model smollm2] [--rows 8] [--tokens 60] [--rounded]

Texts of random tokens, of so many and some more, each of which says 64 tokens; steps that all
rows take part in count. The products are those of the model's layers with as many rows, by the
copies of the weights that the engine has made, one after the other and nothing between them.
``--rounded`` rounds the weights to bfloat16 first, so that 16 bits hold them. Prints medians.
"""

from __future__ import annotations

import argparse
import random
import time
from statistics import median
from unittest import mock

import torch
from peers import ready

from pytest_llmprobe import GenerateConfig
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.engine.linear_products import inputs_of
from pytest_llmprobe.engine.memory import TreeMemory
from pytest_llmprobe.engine.packed_weights import PackedWeights
from pytest_llmprobe.engine.planning import Row

SAID = 64


def steps(backend: FastBackend, count: int, tokens: int) -> list[float]:
    """CPU milliseconds of the steps in which all rows say one token."""
    draw, words = random.Random(0), backend.model.config.get_text_config().vocab_size
    rows = [
        Row(n, tuple(draw.randrange(words) for _ in range(tokens + n)), GenerateConfig(SAID))
        for n in range(count)
    ]
    taken, own = [], TreeMemory.feed

    def feed(memory, segments):
        start = time.process_time()
        logits = own(memory, segments)
        if len(segments) == count and all(len(segment.tokens) == 1 for segment in segments):
            taken.append(1e3 * (time.process_time() - start))
        return logits

    with mock.patch.object(TreeMemory, "feed", feed):
        backend.together(rows, lambda _: None, lambda row, answer: None)
    return taken


@torch.inference_mode()
def products(weights: PackedWeights, rows: int, turns: int) -> list[float]:
    """CPU milliseconds of all products of a step, some times."""
    taken = []
    with weights.active():
        texts = [torch.randn(1, rows, inputs_of(group[0])) for group in weights.groups]
        for _ in range(turns):
            start = time.process_time()
            for group, text in zip(weights.groups, texts, strict=True):
                for layer in group:
                    layer(text)
            taken.append(1e3 * (time.process_time() - start))
    return taken


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounded", action="store_true")
    options = parser.parse_args()
    backend = FastBackend(ready(options.model, options.rounded), drafts=False)
    weights = backend._packed
    if not isinstance(weights, PackedWeights):
        raise SystemExit(f"{options.model}: weights {weights}")
    whole, within = [], []
    for _ in range(options.repeats):  # in turn
        whole += steps(backend, options.rows, options.tokens)
        within += products(weights, options.rows, turns=20)
    ratio = median(whole) / median(within)
    print(
        f"a step of {options.rows} rows {median(whole):.1f} ms (of {len(whole)} steps, least "
        f"{min(whole):.1f}), its products {median(within):.1f} (least {min(within):.1f}): "
        f"{ratio:.2f} times"
    )


if __name__ == "__main__":
    main()
