"""What the reference model can do and what it remembers, measured on fresh cases.

    python -m pytest_llmprobe.cli.reference_card [FOLDER] [--card CARD.json]

Greedy, float32, through the engine. Prints a table; every rate comes with its 95 % Wilson interval.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from pytest_llmprobe.data import prose
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.experiments.memorization import known_texts
from pytest_llmprobe.experiments.output_length import words
from pytest_llmprobe.generation import GenerateConfig
from pytest_llmprobe.models.loading import LoadedModel, load_model
from pytest_llmprobe.models.reference.training.cells import SEED, cells
from pytest_llmprobe.models.registry import REFERENCE
from pytest_llmprobe.statistics.intervals import wilson
from pytest_llmprobe.statistics.ranking import roc_auc


def measure(model: LoadedModel, n: int) -> Iterator[dict[str, Any]]:
    """The figures of each cell, from ``n`` questions."""
    engine = Engine(model)
    for cell in cells():
        questions = cell.questions(n)
        completions = engine.generate(
            [question.prompt for question in questions], GenerateConfig(cell.max_new_tokens)
        )
        answers = zip(questions, completions, strict=True)
        scores = [question.score(completion.text) for question, completion in answers]
        yield rate(cell.family, cell.cell, scores)


def rate(family: str, cell: str, scores: list[float]) -> dict[str, Any]:
    """A rate with its Wilson interval; of fractions, one that is wide enough too."""
    n, total = len(scores), sum(scores)
    interval = [round(end, 3) for end in wilson(total, n)]
    mean = round(total / n, 3)
    return {"family": family, "cell": cell, "rate": mean, "ci95": interval, "n": n}


@torch.no_grad()
def losses(model: LoadedModel, texts: Iterable[str]) -> Iterator[tuple[float, torch.Tensor]]:
    """For each text: the mean loss of its tokens, and which of them are the likeliest [tokens]."""
    for text in texts:
        ids = torch.tensor([model.tokenizer(text).input_ids])
        logits = model.model(ids).logits[0, :-1].float()
        loss = functional.cross_entropy(logits, ids[0, 1:]).item()
        yield loss, logits.argmax(-1) == ids[0, 1:]


def memories(model: LoadedModel) -> Iterator[dict[str, Any]]:
    """Known texts: what comes out of their first half, and whether they differ from fresh ones.

    A half is extractable if greedy generation from the other half gives it to the last token.
    """
    rng = random.Random(f"{SEED} fresh")
    for kind, sentences in known_texts.SENTENCES.items():
        unknown = (prose.prose(rng, sentences) for _ in range(200))
        fresh = [-loss for loss, _ in losses(model, unknown)]
        for exposures in known_texts.EXPOSURES:
            texts = known_texts.known_texts()
            known = [k.text for k in texts if (k.kind, k.exposures) == (kind, exposures)]
            measured = list(losses(model, known))
            out = [float(right[len(right) // 2 :].all()) for _, right in measured]
            yield rate(f"{kind}, second half extracted", f"{exposures} exposures", out) | {
                "auc": round(roc_auc([-loss for loss, _ in measured], fresh), 3),
                "loss": round(sum(loss for loss, _ in measured) / len(measured), 3),
            }


def speeds(model: LoadedModel) -> dict[str, int]:
    """Tokens per second of CPU time that the engine generates with one thread, 64 rows."""
    rng = random.Random(f"{SEED} speed")
    asked = (
        (rng.choice(words.PHRASINGS), rng.choice(words.WORDS), rng.randint(5, 20))
        for _ in range(64)
    )
    prompts: dict[str, list[str]] = {
        "prompts of 100 tokens, answers of 30": [prose.prose(rng, 5) for _ in range(64)],
        "a word repeated 5 to 20 times": [words.prompt(*how) for how in asked],
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {name: math.floor(_speed(model, its)) for name, its in prompts.items()}
    torch.set_num_threads(threads)
    return found


def _speed(model: LoadedModel, prompts: list[str]) -> float:
    engine = Engine(model)
    best = 0.0
    for _ in range(3):
        started = time.process_time()
        completions = engine.generate(prompts, GenerateConfig(100))
        generated = sum(completion.usage.generated_tokens or 0 for completion in completions)
        best = max(best, generated / (time.process_time() - started))
    return best


def main() -> int:
    """Print the table; with ``--card``, keep it as JSON too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=REFERENCE)
    parser.add_argument("--n", type=int, default=100, help="cases a cell")
    parser.add_argument("--card", type=Path, help="write the figures here")
    options = parser.parse_args()
    model = load_model(str(options.folder), dtype="float32")
    rows = []
    for row in chain(measure(model, options.n), memories(model)):
        rows.append(row)
        low, high = row["ci95"]
        shown = f"{row['rate']:.3f} [{low:.3f}, {high:.3f}]"
        extra = f"  AUC {row['auc']:.3f}" if "auc" in row else ""
        print(f"{row['family']:<32} {row['cell']:<14} {shown}{extra}", flush=True)
    tokens_per_second = speeds(model)
    for name, value in tokens_per_second.items():
        print(f"{name}: {value} tokens/s on one core")
    if options.card:
        card = {
            "fingerprint": model.info["fingerprint"],
            "cases_per_cell": options.n,
            "tokens_per_second_one_core": tokens_per_second,
            "figures": rows,
        }
        options.card.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
