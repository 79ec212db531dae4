"""The gate on a real model: the same model again never alarms, damaged ones fail and are named.

    python tests/benchmarks/gate_ladder.py [FOLDER] [--evals PATH ...] [--rungs RUNG ...]

FOLDER is a checkpoint (default: the reference model). Each rung is a pytest run of its own against
the baseline that the first run saved. Prints a markdown table: the rung, the verdict, and what the
comparison names first as different. Ends with exit code 1 if a rung did not end as it should.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors.torch import load_file, save_file

from pytest_llmprobe.models.registry import REFERENCE

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).parents[2]
EVALS = ("evals/needle", "evals/json_format", "evals/haystack")
GROUP = 32
"""Weights that share a scale at int4."""


class Rung(NamedTuple):
    """One run: how the checkpoint is damaged, its options, and what its last lines must say."""

    damage: Callable[[Path], None] | None
    options: Sequence[str]
    verdict: str
    named: str
    cores: str = "0"


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]):
    path = folder / "model.safetensors"
    changed = {name: w.contiguous() for name, w in change(load_file(path)).items()}
    path.unlink()
    save_file(changed, path, metadata={"format": "pt"})


def int4(folder: Path) -> None:
    """Round to nearest with one scale for 32 weights of a row, as the plainest quantisers do."""

    def rounded(name: str, weight: torch.Tensor) -> torch.Tensor:
        if weight.ndim != 2 or "embed" in name or "lm_head" in name:
            return weight
        groups = weight.float().reshape(len(weight), -1, GROUP)
        scale = groups.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 7
        whole = (groups / scale).round().clamp(-8, 7)
        return (whole * scale).reshape(weight.shape).to(weight.dtype)

    weights(folder, lambda all_of_them: {n: rounded(n, w) for n, w in all_of_them.items()})


def dropped_layer(folder: Path) -> None:
    """Leave out the layer in the middle."""
    config = json.loads((folder / "config.json").read_text())
    layers = config["num_hidden_layers"]
    gone = layers // 2

    def kept(all_of_them: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = {}
        for name, weight in all_of_them.items():
            place = re.search(r"layers\.(\d+)\.", name)
            number = int(place[1]) if place else -1
            if number != gone:
                new = name.replace(f"layers.{number}.", f"layers.{number - 1}.")
                found[new if number > gone else name] = weight
        return found

    weights(folder, kept)
    _write(folder / "config.json", json.dumps(config | {"num_hidden_layers": layers - 1}))


def another_template(folder: Path) -> None:
    """Write turns as another family of models does."""
    _write(
        folder / "chat_template.jinja",
        "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}",
    )


def wrong_bos(folder: Path) -> None:
    """Begin with the token for padding."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    _write(path, json.dumps(config | {"bos_token": config["pad_token"]}))


def _write(path: Path, text: str) -> None:
    """In place of what may be a link."""
    path.unlink()
    path.write_text(text)


LADDER = {
    "again": Rung(None, ("-n", "0"), "PASS", "nothing"),
    "other order, one case a batch": Rung(
        None, ("-n", "0", "--llmprobe-batch-size=1"), "PASS", "batch plan"
    ),
    "-n 1": Rung(None, ("-n", "1"), "PASS", ""),
    "-n 2": Rung(None, ("-n", "2"), "PASS", ""),
    "two threads": Rung(None, ("-n", "0"), "PASS", "", "0,1"),
    "resumed": Rung(None, ("-n", "0", "--llmprobe-resume"), "PASS", ""),
    "int4": Rung(int4, ("-n", "0"), "FAIL", "weights"),
    "a dropped layer": Rung(dropped_layer, ("-n", "0"), "FAIL", "weights"),
    "another template": Rung(another_template, ("-n", "0"), "FAIL", "chat template"),
    "a wrong BOS": Rung(wrong_bos, ("-n", "0"), "FAIL", "tokenizer"),
}


def ask(work: Path, model: Path, evals: Sequence[str], rung: Rung, *options: str) -> str:
    """The output of one run."""
    command = [sys.executable, "-m", "pytest", *evals, f"--model={model}", "-q", "-p"]
    command += ["no:cacheprovider", "--llmprobe-dtype=float32", f"--llmprobe-storage={work}/kept"]
    done = subprocess.run(
        ["taskset", "-c", rung.cores, *command, *rung.options, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def climb(model: Path, evals: Sequence[str], options: Sequence[str], rungs: Sequence[str]) -> bool:
    """Run each rung and print the table; whether all ended as they should."""
    good = True
    print("| rung | verdict | first named | as it should |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        first = ask(work, model, evals, LADDER["again"], "--llmprobe-save=main", *options)
        if "baseline: " not in first:
            raise SystemExit(first[-3000:])
        for said in rungs:
            rung = LADDER[said]
            candidate = model
            if rung.damage:
                candidate = work / re.sub(r"\W", "-", said)
                shutil.copytree(model, candidate, ignore=shutil.ignore_patterns("training", "*.py"))
                rung.damage(candidate)
            text = ask(work, candidate, evals, rung, "--llmprobe-compare=main", *options)
            verdict = re.findall(r"^llmprobe: GATE (PASS|FAIL|NOT JUDGED)", text, re.MULTILINE)
            causes = re.findall(r"^(?:first difference|also): .*", text, re.MULTILINE)
            named = " ".join(causes) or "nothing"
            fits = verdict == [rung.verdict] and rung.named in named
            good &= fits
            shown = (causes or ["nothing"])[0].removeprefix("first difference: ")[:90]
            ended = verdict[0] if verdict else "no verdict"
            print(f"| {said} | {ended} | {shown} | {'yes' if fits else 'NO'} |", flush=True)
            if not fits:
                print(text[-2500:], file=sys.stderr)
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=REFERENCE)
    parser.add_argument("--evals", nargs="+", default=EVALS)
    parser.add_argument("--rungs", nargs="+", choices=LADDER, default=[*LADDER], metavar="RUNG")
    given, rest = parser.parse_known_args()
    good = climb(given.folder.resolve(), given.evals, rest, given.rungs)
    raise SystemExit(0 if good else 1)
