"""Memory of a run of many rows with choices: of the controller and its worker, while it goes on.

    python tests/benchmarks/memory_of_choices.py [ROWS]

ROWS (default 10,000) made-up rows of MMLU's layout are asked of a tiny random model by the real
evaluation, with -n 1.  Resident megabytes are printed at each tenth of the records.  Linux.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import torch
from lm_eval_agreement import made_up
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pytest_llmprobe.models.registry import REFERENCE

ROOT = Path(__file__).parents[2]


def tiny_model(folder):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1_024,
        vocab_size=len(tokenizer),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def megabytes(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1_024


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def main(rows=10_000):
    rows = int(rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_model(folder / "tiny")
        rng = Random(0)
        lines = [json.dumps(made_up("mmlu", rng)) for _ in range(rows)]
        (folder / "rows.jsonl").write_text("\n".join(lines))
        command = [sys.executable, "-m", "pytest", ROOT / "evals" / "standard", "-k", "multiple"]
        command += [f"--model={folder / 'tiny'}", "-n", "1", "-q", "-p", "no:cacheprovider"]
        command += [f"--llmprobe-dataset=multiple_choice={folder / 'rows.jsonl'}"]
        command += [f"--llmprobe-json={folder / 'out' / 'report.json'}", "--llmprobe-gate=none"]
        records, start = folder / "out" / "records.jsonl", time.monotonic()
        with (folder / "said").open("w") as said:
            run = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        tenth = 1
        while run.poll() is None:
            time.sleep(0.2)
            done = records.read_bytes().count(b"\n") if records.exists() else 0
            if done >= tenth * rows / 10 and (workers := children(run.pid)):
                sizes = [megabytes(run.pid), *map(megabytes, workers)]
                each = ", ".join(f"{size:.0f}" for size in sizes)
                print(f"{done:6} records, {time.monotonic() - start:4.0f} s: {each} MB", flush=True)
                tenth = done * 10 // rows + 1
        print((folder / "said").read_text()[-400:])


if __name__ == "__main__":
    main(*sys.argv[1:])
