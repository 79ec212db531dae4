"""The gate on a real model: the same model again never alarms, damaged ones fail and are named.

    python tests/benchmarks/gate_ladder.py [MODEL] [--evals PATH ...] [--rungs RUNG ...] [--OPTION]

MODEL is a checkpoint's folder or a model's name (default: the reference model), OPTION one of
pytest's for every run. Each rung is a pytest run of its own against the baseline of the first run,
with a bar on fidelity for each experiment that generates: damage that loses none of so few cases is
still seen in its distributions. Prints a markdown table: the rung, the verdict, cases lost and
gained, whether pass rates or bars failed, and what the comparison names first as different. Ends
with exit code 1 if a rung did not end as it should.
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
KL = 0.005
"""Most mean divergence, in nats a token: about that of int8 without groups (docs/fidelity.md)."""


class Rung(NamedTuple):
    """One run: how the checkpoint is damaged, its options, and what its last lines must say."""

    damage: Callable[[Path], None] | None
    options: Sequence[str]
    verdict: str
    named: str
    cores: str = "0"
    turned: bool = False


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
        None, ("-n", "0", "--llmprobe-batch-size=1"), "PASS", "batch plan", turned=True
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
    files = evals[::-1] if rung.turned else evals
    command = [sys.executable, "-m", "pytest", *files, f"--model={model}", "-q", "-p"]
    command += ["no:cacheprovider", "--llmprobe-dtype=float32", f"--llmprobe-storage={work}/kept"]
    done = subprocess.run(
        ["taskset", "-c", rung.cores, *command, *rung.options, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def bars(work: Path, models: Sequence[Path]) -> Path:
    """A configuration with a bar on the fidelity of each experiment of the baseline's answers."""
    (baseline,) = work.glob("kept/baselines/*/main.json")
    found = json.loads(baseline.read_text())["experiments"]
    generating = sorted(name for name, e in found.items() if e["timings"]["tokens_per_s"])
    lines = [
        line
        for model in models
        for line in (f'[gates."{model}"]', *(f"{name} = {{ kl = {KL} }}" for name in generating))
    ]
    config = work / "llmprobe.toml"
    config.write_text("\n".join(lines))
    return config


def damaged(model: Path, work: Path, rungs: Sequence[str]) -> dict[str, Path]:
    """The checkpoint of each rung."""
    found = {}
    for said in rungs:
        found[said] = model
        if LADDER[said].damage:
            found[said] = work / re.sub(r"\W", "-", said)
            ignored = shutil.ignore_patterns("training", "*.py", "unlearned")
            shutil.copytree(model, found[said], ignore=ignored)
            LADDER[said].damage(found[said])
    return found


def told(report: dict, text: str) -> tuple[str, str, str]:
    """Cases lost and gained, what failed, and all that was named as different."""
    experiments = report["comparison"]["experiments"]
    flips = " / ".join(str(sum(len(e[what]) for e in experiments)) for what in ("lost", "gained"))
    failed = [c["metric"] for c in report["gate"]["checks"] if c["verdict"] == "FAIL"]
    what = "pass rates" if "change of the pass rate" in failed else ""
    what = ", ".join(filter(None, [what, "KL" if "kl" in failed else ""])) or "nothing"
    causes = re.findall(r"^(?:first difference|also): .*", text, re.MULTILINE)
    return flips, what, " ".join(causes).removeprefix("first difference: ") or "nothing"


def climb(model: Path, evals: Sequence[str], options: Sequence[str], rungs: Sequence[str]) -> bool:
    """Run each rung and print the table; whether all ended as they should."""
    good = True
    columns = ("rung", "verdict", "lost / gained", "failed", "first named", "as it should")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        first = ask(work, model, evals, LADDER["again"], "--llmprobe-save=main", *options)
        if "baseline: " not in first:
            raise SystemExit(first[-3000:])
        candidates = damaged(model, work, rungs)
        config = bars(work, sorted({model, *candidates.values()}))
        compared = ("--llmprobe-compare=main", f"--llmprobe-config={config}")
        for said, candidate in candidates.items():
            rung = LADDER[said]
            text = ask(work, candidate, evals, rung, *compared, *options)
            verdict = re.findall(r"^llmprobe: GATE (PASS|FAIL|NOT JUDGED)", text, re.MULTILINE)
            if not verdict:
                raise SystemExit(text[-3000:])
            written = max(work.glob("kept/runs/*/report.json"), key=lambda p: p.stat().st_mtime_ns)
            report = json.loads(written.read_text())
            flips, failed, named = told(report, text)
            fits = verdict == [rung.verdict] and rung.named in named
            good &= fits
            ended = "yes" if fits else "NO"
            cells = (said, *verdict, flips, failed, named[:80], ended)
            print(f"| {' | '.join(cells)} |", flush=True)
            if not fits:
                print(text[-2500:], file=sys.stderr)
    return good


def folder(model: str, work: Path) -> Path:
    """The checkpoint of a model, written if it is no folder."""
    if Path(model).is_dir():
        return Path(model).resolve()
    from pytest_llmprobe.models.loading import load_spec
    from pytest_llmprobe.models.registry import resolve

    loaded = load_spec(resolve(model, {}))
    loaded.model.save_pretrained(work)
    loaded.tokenizer.save_pretrained(work)
    return work.resolve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(REFERENCE))
    parser.add_argument("--evals", nargs="+", default=EVALS)
    parser.add_argument("--rungs", nargs="+", choices=LADDER, default=[*LADDER], metavar="RUNG")
    given, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as place:
        good = climb(folder(given.model, Path(place)), given.evals, rest, given.rungs)
    raise SystemExit(0 if good else 1)
