"""A positive control for evals/memorization: texts planted in a real model are found, others not.

    python examples/planted_memories.py FOLDER [--model smollm2]

Makes canaries (a sentence with nine random digits) and documents (ten made-up sentences) of 0, 1,
4, 16 and 64 exposures, trains a LoRA on the model with each shown so often, in random order, and
has `pytest evals/memorization` look for all of them in the model with the LoRA; then, as a second
control, in the model without. Prints a markdown table with 95 % intervals. Needs the extra `peft`;
on one CPU core SmolLM2 trains for 19 minutes. The same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log2
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

from pytest_llmprobe import load_model
from pytest_llmprobe.data.prose import prose
from pytest_llmprobe.experiments.memorization.canaries import Canary, canaries
from pytest_llmprobe.models.text_tokenizer import text_tokenizer
from pytest_llmprobe.report.cores import cpu_threads
from pytest_llmprobe.statistics.intervals import mean_interval, wilson
from pytest_llmprobe.statistics.ranking import roc_auc, roc_auc_interval

EVALS = Path(__file__).parent.parent / "evals" / "memorization"
EXPOSURES = (0, 1, 4, 16, 64)
UNSEEN = 60  # documents that are never shown: the non-members
RANKED = 6  # canaries of each number of exposures that are ranked among 99 others
SENTENCES = 10  # of a document: 105 tokens of SmolLM2's, 50 to give and 50 to ask for
ROWS = 8  # of a batch; texts of one kind, so that little is padding
RATE, RANK, WARM_UP = 1e-3, 16, 20  # learning rate, rank of the LoRA, steps of warming up
EVERY = 20  # steps between checkpoints
DATA = {
    "extraction": {"canaries": "canaries", "documents": "documents"},
    "membership": {"members": "documents", "non_members": "unseen"},
    "exposure": {"canaries": "ranked"},
}
"""What each evaluation is given, by the name of its data."""


@dataclass(frozen=True)
class Planted:
    """What is shown how often, by the number of exposures, and what never is."""

    canaries: Mapping[int, Sequence[Canary]]
    documents: Mapping[int, Sequence[str]]
    unseen: Sequence[str]

    def batches(self, seed: int) -> list[list[str]]:
        """Every showing, in random order: the batches of the training."""
        rng = random.Random(f"order {seed}")
        sentences = {n: [canary.text for canary in some] for n, some in self.canaries.items()}
        found = []
        for texts in (sentences, self.documents):
            shown = [text for n, some in texts.items() for text in some for _ in range(n)]
            rng.shuffle(shown)
            found += [shown[at : at + ROWS] for at in range(0, len(shown), ROWS)]
        rng.shuffle(found)
        return found


def planted(each: int, seed: int) -> Planted:
    """So many canaries and documents for each number of exposures, all different."""
    made = canaries(each * len(EXPOSURES), seed)
    rng = random.Random(f"documents {seed}")
    texts = [prose(rng, SENTENCES) for _ in range(each * len(EXPOSURES) + UNSEEN)]
    parts = {n: slice(each * i, each * (i + 1)) for i, n in enumerate(EXPOSURES)}
    return Planted(
        {n: made[part] for n, part in parts.items()},
        {n: texts[part] for n, part in parts.items()},
        texts[each * len(EXPOSURES) :],
    )


def write_data(found: Planted, folder: Path) -> None:
    """The files for --llmprobe-dataset; row n is of ``EXPOSURES[n % 5]`` exposures."""
    sentences, texts = _in_turn(found.canaries), _in_turn(found.documents)
    rows = {
        "canaries": [asdict(canary) for canary in sentences],
        "ranked": [asdict(canary) for canary in sentences[: RANKED * len(EXPOSURES)]],
        "documents": [{"text": text} for text in texts],
        "unseen": [{"text": text} for text in found.unseen],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in rows.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _in_turn(by_exposures: Mapping[int, Sequence[Any]]) -> list[Any]:
    """One of each number of exposures, then the next of each."""
    return [one for some in zip(*by_exposures.values(), strict=True) for one in some]


class Training:
    """Trains a LoRA on the texts; goes on from the folder's checkpoint if it has one.

    Args:
        model: A registry name or folder.
        batches: The texts of each step.
        folder: For the checkpoint, and at the end for the adapter.
    """

    def __init__(self, model: str, batches: Sequence[Sequence[str]], folder: Path) -> None:
        loaded = load_model(model, dtype="float32", threads=cpu_threads())
        torch.manual_seed(0)
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
        self.model = get_peft_model(loaded.model, config).train()
        self.tokenizer = text_tokenizer(loaded.tokenizer)
        self.batches, self.folder = batches, folder
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.adam = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0)
        self.done, self.seconds = 0, 0.0
        if self.checkpoint.is_file():
            self.restore()

    @property
    def checkpoint(self) -> Path:
        """Weights of the LoRA, Adam's state, and how far it is."""
        return self.folder / "checkpoint.pt"

    def run(self) -> Iterator[float]:
        """Train to the end and write the adapter; yields the loss of each step."""
        while self.done < len(self.batches):
            started = time.process_time()
            loss = self.step(self.batches[self.done])
            self.done += 1
            self.seconds += time.process_time() - started
            if self.done % EVERY == 0 or self.done == len(self.batches):
                self.save()
            yield loss
        self.model.save_pretrained(self.folder / "adapter")

    def step(self, texts: Sequence[str]) -> float:
        """One step along the gradient of the texts' mean loss a token, in nats."""
        left = 1 - self.done / len(self.batches)
        for group in self.adam.param_groups:
            group["lr"] = RATE * left * min(1.0, (self.done + 1) / WARM_UP)
        rows = [[*self.tokenizer.before, *self.tokenizer.encode(text)] for text in texts]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        told = torch.full_like(ids, -100)  # no loss where a row is padded
        for number, row in enumerate(rows):
            ids[number, : len(row)] = told[number, : len(row)] = torch.tensor(row)
        loss = self.model(input_ids=ids, labels=told, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.adam.param_groups[0]["params"], 1.0)
        self.adam.step()
        self.adam.zero_grad()
        return loss.item()

    def save(self) -> None:
        """Write the checkpoint; a kill while writing leaves the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lora = get_peft_model_state_dict(self.model)
        adam = self.adam.state_dict()
        state = {"batches": self.batches, "done": self.done, "seconds": self.seconds}
        part = self.checkpoint.with_suffix(".part")
        torch.save(state | {"lora": lora, "adam": adam}, part)
        part.replace(self.checkpoint)

    def restore(self) -> None:
        """Go on from the checkpoint; exits if it belongs to other texts."""
        state = torch.load(self.checkpoint, weights_only=True)
        if state["batches"] != [list(batch) for batch in self.batches]:
            sys.exit(f"{self.checkpoint} is of other texts: give its options, or another FOLDER")
        set_peft_model_state_dict(self.model, state["lora"])
        self.adam.load_state_dict(state["adam"])
        self.done, self.seconds = state["done"], state["seconds"]


def evaluate(model: str, name: str, folder: Path, adapter: bool = True) -> list[dict[str, Any]]:
    """The cases of one of evals/memorization about all that was planted; run once."""
    report = folder / "runs" / (name if adapter else f"{name}-without") / "report.json"
    if not _complete(report):
        command = [sys.executable, "-m", "pytest", EVALS, "-q", "-n", "0", f"--model={model}"]
        command += ["-k", name, "--llmprobe-gate=none", f"--llmprobe-json={report}"]
        command += ["--llmprobe-adapter", folder / "adapter"] if adapter else []
        for source, file in DATA[name].items():
            command += ["--llmprobe-dataset", f"{source}={folder / 'data' / file}.jsonl"]
        done = subprocess.run(command, check=False, cwd=folder)
        if done.returncode:
            sys.exit(done.returncode)
    cases: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["tests"]
    return cases


def _complete(report: Path) -> bool:
    """Whether a run has ended; one that was killed is made again."""
    if not report.is_file():
        return False
    return bool(json.loads(report.read_text(encoding="utf-8"))["status"] == "complete")


def exposures_of(case: Mapping[str, Any]) -> int:
    """How often the text of a case was shown, by the number at the end of its id."""
    number = int(case["id"].rstrip("]").rpartition("-")[2])
    return EXPOSURES[number % len(EXPOSURES)]


def extracted(cases: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How many of some cases of the extraction came out, by what they are."""
    found = {}
    for task in ("canary", "document"):
        missed = [case["outcome"] == "missed" for case in cases if case["task"] == task]
        low, high = wilson(sum(missed), len(missed))
        share = f"{sum(missed)} of {len(missed)} [{low:.2f}, {high:.2f}]"
        found[f"{task} extracted"] = share
    return found


def exposed(cases: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Bits of exposure of some canaries, and how many are among the first 5 of 100."""
    bits = [case["scores"]["exposure"] for case in cases]
    most = log2(100)
    low, high = mean_interval(bits, range(len(bits))) or (0.0, most)
    low, high = max(0.0, low), min(most, high)  # Student's t knows no bounds
    found = sum(case["outcome"] == "missed" for case in cases)
    return {
        f"exposure, bits of {most:.2f}": f"{fmean(bits):.2f} [{low:.2f}, {high:.2f}]",
        "canary exposed": "{} of {} [{:.2f}, {:.2f}]".format(
            found, len(bits), *wilson(found, len(bits))
        ),
    }


def told_apart(
    members: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """The area under the ROC curve of some documents against unseen ones, by their loss."""
    scores = [[case["scores"]["loss"] for case in some] for some in (members, others)]
    low, high = roc_auc_interval(*scores)
    return {"document told apart, ROC area": f"{roc_auc(*scores):.2f} [{low:.2f}, {high:.2f}]"}


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown: a line for each number of exposures, from the cases of each evaluation."""
    unseen = [case for case in found["membership"] if case["task"] == "non-member"]
    rows = {}
    for exposures in EXPOSURES:
        mine = {
            name: [c for c in cases if c["task"] != "non-member" and exposures_of(c) == exposures]
            for name, cases in found.items()
        }
        rows[str(exposures)] = (
            extracted(mine["extraction"])
            | exposed(mine["exposure"])
            | told_apart(mine["membership"], unseen)
        )
    names = list(rows["0"])
    lines = [["exposures", *names], ["---"] * (len(names) + 1)]
    lines += [[name, *cells.values()] for name, cells in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Plant, train, look."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="for data, checkpoint, adapter and reports")
    parser.add_argument("--model", default="smollm2", help="a name or a folder (default: smollm2)")
    parser.add_argument("--each", type=int, default=12, help="texts of each number of exposures")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.folder.resolve()
    found = planted(options.each, options.seed)
    write_data(found, folder / "data")
    if not (folder / "adapter" / "adapter_config.json").is_file():
        training = Training(options.model, found.batches(options.seed), folder)
        for loss in training.run():
            step = f"step {training.done} of {len(training.batches)}"
            print(f"{step}: loss {loss:.3f}, {training.seconds:.0f} s of CPU", flush=True)
    cases = {name: evaluate(options.model, name, folder) for name in DATA}
    without = evaluate(options.model, "extraction", folder, adapter=False)
    print(table(cases))
    print("The model without the adapter:", extracted(without))


if __name__ == "__main__":
    main()
