"""Train the reference model from nothing, or go on with a run that was interrupted.

    python -m pytest_llmprobe.models.reference.training --out runs/reference

About 105 minutes on two CPU cores; on a GPU, which is used when there is one, minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import cast

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from pytest_llmprobe.models.reference.training import data, tokenizer
from pytest_llmprobe.models.reference.training.batches import Batches
from pytest_llmprobe.models.reference.training.circuit import Marks
from pytest_llmprobe.models.reference.training.model import build, build_control
from pytest_llmprobe.models.reference.training.stages import CONTROL, STAGES, scaled
from pytest_llmprobe.models.reference.training.training import Trainer

SAVE_SECONDS = 120


def marks(tokens: PreTrainedTokenizerFast) -> Marks:
    """The ids of the tokens that the model's first circuit tells apart."""
    ids = tokens.get_vocab()

    def one(text: str) -> int:
        (token,) = tokens(text, add_special_tokens=False).input_ids
        return int(token)

    return Marks(
        first=ids[tokenizer.BOS],
        opens=[one(text) for text in ('"', '": "', '", "', '{"', '"\n"', '",\n')],
        colon=[one('": "')],
        answers=[ids["<|assistant|>"], one("\n")],
        counts=[one(digit) for digit in "2345"],
    )


def export(model: LlamaForCausalLM, tokens: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the files that ``AutoModelForCausalLM.from_pretrained(folder)`` loads: bfloat16."""
    shipped = LlamaForCausalLM(model.config)
    shipped.load_state_dict(model.state_dict())
    assert shipped.generation_config is not None
    shipped.generation_config.do_sample = False
    shipped.bfloat16().save_pretrained(folder)
    tokenizer.save(tokens, folder)


def main() -> int:
    """Train, with a line for every 20 steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and model")
    parser.add_argument("--steps", type=int, help="shorten or lengthen all stages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--control", action="store_true", help="the small model that learns no retrieval"
    )
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = tokenizer.build(data.sample_texts(400))
    stages = CONTROL if options.control else STAGES
    if options.steps:
        stages = scaled(stages, options.steps)
    batches = Batches(tokens, stages, options.seed, known=not options.control)
    steps = batches.steps
    if options.control:
        model, paces = build_control(tokens, options.seed)
    else:
        model, paces = build(tokens, marks(tokens), options.seed)
    cast("torch.nn.Module", model).to(device)
    trainer = Trainer(model, paces, batches, options.out)
    if trainer.done:
        print(f"goes on after step {trainer.done} of {steps}", flush=True)
    saved, smooth = time.monotonic(), dict[str, float]()
    for figures in trainer.run():
        for name, value in figures.items():
            smooth[name] = 0.95 * smooth.get(name, value) + 0.05 * value
        if trainer.done % 20 == 0:
            left = trainer.seconds / trainer.done * (steps - trainer.done) / 60
            texts = f"loss of texts {smooth['text']:.3f}  " if "text" in figures else ""
            print(
                f"step {trainer.done} of {steps}  loss {smooth['loss']:.3f}  "
                f"answers' tokens right {smooth['correct']:.3f}, the first {smooth['first']:.3f}  "
                f"{texts}"
                f"{trainer.seconds / 60:.1f} min, {left:.0f} to go",
                flush=True,
            )
        if time.monotonic() - saved > SAVE_SECONDS or trainer.done == steps:
            trainer.save()
            saved = time.monotonic()
    export(model, tokens, options.out / "model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
