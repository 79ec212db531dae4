"""A positive control for evals/memorization: texts planted in a real model are found, others not.

    python examples/planted_memories.py FOLDER [--model smollm2]

Makes canaries (a sentence with nine random digits) and documents (ten made-up sentences) of 0, 1,
4, 16 and 64 exposures, trains a LoRA on the model with each shown so often, in random order, and
has `pytest evals/memorization` look for those of each class in the model with the LoRA; then, as a
second control, for those of 64 exposures in the model without. Prints a markdown table with 95 %
intervals. Needs the extra `peft`; on one CPU core SmolLM2 takes half an hour in all. The same
command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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

EVALS = Path(__file__).parent.parent / "evals" / "memorization"
EXPOSURES = (0, 1, 4, 16, 64)
UNSEEN = 100  # documents that are never shown: the non-members
SENTENCES = 10  # of a document: 105 tokens of SmolLM2's, 50 to give and 50 to ask for
ROWS = 8  # of a batch; texts of one kind, so that little is padding
RATE, RANK, WARM_UP = 1e-3, 16, 20  # learning rate, rank of the LoRA, steps of warming up
EVERY = 20  # steps between checkpoints


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
    """The files for --llmprobe-dataset: canaries-4.jsonl, documents-4.jsonl ..., unseen.jsonl."""
    rows = {"unseen": [{"text": text} for text in found.unseen]}
    for n in EXPOSURES:
        rows[f"canaries-{n}"] = [asdict(canary) for canary in found.canaries[n]]
        rows[f"documents-{n}"] = [{"text": text} for text in found.documents[n]]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in rows.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


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
        return float(loss)

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


def evaluate(model: str, exposures: int, folder: Path, adapter: bool) -> dict[str, Any]:
    """The report of evals/memorization about the texts of so many exposures; made once."""
    name = f"{exposures}-exposures" if adapter else f"{exposures}-exposures-without-adapter"
    report = folder / "runs" / name / "report.json"
    if not report.is_file():
        data = folder / "data"
        documents = data / f"documents-{exposures}.jsonl"
        sources = {"documents": documents, "members": documents}
        sources |= {"canaries": data / f"canaries-{exposures}.jsonl"}
        sources |= {"non_members": data / "unseen.jsonl"}
        command = [sys.executable, "-m", "pytest", EVALS, "-q", "-n", "0", f"--model={model}"]
        command += ["-k", "extraction or membership or exposure"]
        command += ["--llmprobe-gate=none", f"--llmprobe-json={report}"]
        command += ["--llmprobe-adapter", folder / "adapter"] if adapter else []
        for source, path in sources.items():
            command += ["--llmprobe-dataset", f"{source}={path}"]
        done = subprocess.run(command, check=False, env=os.environ, cwd=folder)
        if done.returncode:
            sys.exit(done.returncode)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def row(report: Mapping[str, Any]) -> dict[str, str]:
    """The cells of the table."""
    cases = report["tests"]
    by_task = {
        task: [case for case in cases if case["experiment"] == name and case["task"] == task]
        for name, task in (
            ("extraction", "canary"),
            ("extraction", "document"),
            ("exposure", "exposure"),
        )
    }
    bits = [case["scores"]["exposure"] for case in by_task["exposure"]]
    (membership,) = (e for e in report["experiments"] if e["name"] == "membership")
    area = membership["summary"]["loss, all"]
    return {
        "canaries extracted": _share(by_task["canary"]),
        "documents extracted": _share(by_task["document"]),
        "exposure of canaries, bits of 6.64": _number(
            fmean(bits), mean_interval(bits, range(len(bits)))
        ),
        "canaries exposed": _share(by_task["exposure"]),
        "area under the ROC curve, members": _number(area["roc_auc"], area["roc_auc_ci95"]),
    }


def _share(cases: Sequence[Mapping[str, Any]]) -> str:
    missed = sum(case["outcome"] == "missed" for case in cases)
    low, high = wilson(missed, len(cases))
    return f"{missed} of {len(cases)} [{low:.2f}, {high:.2f}]"


def _number(value: float, interval: Sequence[float]) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, a line for each report."""
    rows = {name: row(report) for name, report in reports.items()}
    names = list(next(iter(rows.values())))
    lines = [["exposures", *names], ["---"] * (len(names) + 1)]
    lines += [[name, *(cells[column] for column in names)] for name, cells in rows.items()]
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
    reports = {str(n): evaluate(options.model, n, folder, adapter=True) for n in EXPOSURES}
    most = EXPOSURES[-1]
    reports[f"{most}, model without them"] = evaluate(options.model, most, folder, adapter=False)
    print(table(reports))


if __name__ == "__main__":
    main()
