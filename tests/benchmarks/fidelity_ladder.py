"""A ladder of damaged models beside the whole one: divergence and right answers on the same cases.

    python tests/benchmarks/fidelity_ladder.py --out ladder [--cases 240] [--model smollm2] \
        [--figure docs/fidelity_ladder.png]

Each rung is written when it is done, and a second call goes on; the table is docs/fidelity.md's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from pytest_llmprobe import Engine, GenerateConfig, load_model
from pytest_llmprobe.engine.distribution_file import (
    DistributionFile,
    KeptAnswer,
    Maker,
    write_distributions,
)
from pytest_llmprobe.engine.teacher_forcing import Forced, TeacherForcing
from pytest_llmprobe.figures.files import check_figure_file, save_figure
from pytest_llmprobe.report.ladder import Rung, draw_ladder
from pytest_llmprobe.statistics.divergence import fidelity
from pytest_llmprobe.statistics.paired import mcnemar
from pytest_llmprobe.statistics.ratios import ratio_interval

SYSTEM = (
    "You are a helpful assistant who knows geography, words and numbers well. You answer every "
    "question with the answer alone: one word or one number, without a sentence around it, without "
    "an explanation, and without repeating what was asked. If you are not sure, you still give the "
    "one answer that you think is the likeliest. Write numbers with digits and names "
    "with a capital."
)
OTHER = SYSTEM.replace("You are a helpful assistant who knows", "Be an expert on")

CAPITALS = (
    "France Paris,Germany Berlin,Italy Rome,Spain Madrid,Portugal Lisbon,Austria Vienna,Greece "
    "Athens,Poland Warsaw,Hungary Budapest,Norway Oslo,Sweden Stockholm,Finland Helsinki,Denmark "
    "Copenhagen,Ireland Dublin,Belgium Brussels,Netherlands Amsterdam,Russia Moscow,Ukraine Kyiv,"
    "Turkey Ankara,Egypt Cairo,Kenya Nairobi,Ethiopia Addis,Ghana Accra,Morocco Rabat,Algeria "
    "Algiers,Tunisia Tunis,Senegal Dakar,Japan Tokyo,China Beijing,India Delhi,Thailand Bangkok,"
    "Vietnam Hanoi,Indonesia Jakarta,Malaysia Kuala,Philippines Manila,Iran Tehran,Iraq Baghdad,"
    "Syria Damascus,Lebanon Beirut,Jordan Amman,Nepal Kathmandu,Bangladesh Dhaka,Pakistan "
    "Islamabad,Afghanistan Kabul,Cuba Havana,Peru Lima,Chile Santiago,Bolivia Sucre,Ecuador Quito,"
    "Colombia Bogot,Venezuela Caracas,Uruguay Montevideo,Canada Ottawa,Australia Canberra,Iceland "
    "Reykjav,Bulgaria Sofia,Romania Bucharest,Serbia Belgrade,Croatia Zagreb,Latvia Riga,Estonia "
    "Tallinn,Lithuania Vilnius,Jamaica Kingston,Argentina Buenos,Brazil Bras,Mongolia Ulaan"
)
OPPOSITES = (
    "hot cold,big small,tall short,fast slow,day night,up down,left right,rich poor,old young,open "
    "closed,light dark,happy sad,hard soft,early late,empty full,wet dry,clean dirty,strong weak,"
    "high low,loud quiet,near far,first last,love hate,war peace,begin end,buy sell,push pull,win "
    "lose,thick thin,wide narrow,deep shallow,true false,inside outside,before after,above below,"
    "good bad,black white,male female,summer winter,north south,sweet sour,rough smooth"
)
PLURALS = (
    "child children,mouse mice,foot feet,tooth teeth,goose geese,man men,woman women,knife knives,"
    "leaf leaves,wolf wolves,city cities,baby babies,box boxes,church churches,hero heroes,ox oxen,"
    "life lives,wife wives,shelf shelves,loaf loaves,bus buses,fox foxes,lady ladies,"
    "potato potatoes"
)
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Monday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
    "January",
]


def questions() -> Iterator[tuple[str, str]]:
    """Questions of one line, and the word that a right answer holds."""
    for topic, pairs in (
        ("What is the capital of {}?", CAPITALS),
        ("What is the opposite of {}?", OPPOSITES),
        ("What is the plural of {}?", PLURALS),
    ):
        for pair in pairs.split(","):
            asked, right = pair.split()
            yield topic.format(asked), right
    for name, after in itertools.pairwise(DAYS):
        yield f"Which day comes after {name}?", after
    for name, after in itertools.pairwise(MONTHS):
        yield f"Which month comes after {name}?", after
    for a in range(2, 9):
        for b in range(3, 11):
            yield f"What is {a} plus {b}?", str(a + b)
    for a in range(2, 7):
        for b in range(2, 9):
            yield f"What is {a} times {b}?", str(a * b)


def is_right(answer: str, right: str) -> bool:
    """Whether an answer holds the word, or begins one with it where it is a name's beginning."""
    end = r"\b" if right.isdecimal() else ""
    return re.search(rf"\b{re.escape(right.lower())}{end}", answer.lower()) is not None


def _matrices(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], None]:
    """A damage to every matrix of a model."""

    @torch.no_grad()
    def damage(model: Any) -> None:
        torch.manual_seed(0)
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.copy_(change(parameter))

    return damage


def _int8(weight: torch.Tensor) -> torch.Tensor:
    scale = (weight.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
    return (weight / scale).round() * scale


def _int4(weight: torch.Tensor) -> torch.Tensor:
    groups = weight.reshape(-1, 32)
    scale = (groups.abs().amax(1, keepdim=True) / 7).clamp(min=1e-12)
    return ((groups / scale).round() * scale).reshape(weight.shape)


def _pruned(weight: torch.Tensor) -> torch.Tensor:
    bar = weight.abs().flatten().kthvalue(max(1, weight.numel() // 50)).values
    return weight.where(weight.abs() > bar, 0.0)


def _noise(part: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda weight: weight + part * weight.std() * torch.randn_like(weight)


def _dropped(model: Any) -> None:
    layers = model.model.layers
    del layers[len(layers) // 2]
    for number, layer in enumerate(layers):
        layer.self_attn.layer_idx = number
    model.config.num_hidden_layers -= 1


RUNGS: dict[str, Callable[[Any], None]] = {
    "the same": lambda model: None,
    "fp16": _matrices(lambda weight: weight.half().float()),
    "bf16": _matrices(lambda weight: weight.bfloat16().float()),
    "2 % pruned": _matrices(_pruned),
    "int8 per channel": _matrices(_int8),
    "noise .01": _matrices(_noise(0.01)),
    "noise .05": _matrices(_noise(0.05)),
    "one layer dropped": _dropped,
    "int4, groups of 32": _matrices(_int4),
    "another template": lambda model: None,
}


def _asked(system: str, count: int) -> list[tuple[list[dict[str, str]], str]]:
    every = list(questions())
    step = len(every) / min(count, len(every))
    some = [every[int(i * step)] for i in range(min(count, len(every)))]
    return [
        ([{"role": "system", "content": system}, {"role": "user", "content": asked}], right)
        for asked, right in some
    ]


def measure(name: str, model: str, cases: int, file: Path) -> dict[str, Any]:
    """One rung: its answers, and how far it is from those in the file, which the first makes."""
    loaded = load_model(model)
    RUNGS.get(name, lambda model: None)(loaded.model)
    engine, forcing = Engine(loaded), TeacherForcing(loaded)
    asked = _asked(OTHER if name == "another template" else SYSTEM, cases)
    prompts = [prompt for prompt, _ in asked]
    answers = engine.generate(prompts, GenerateConfig(max_new_tokens=16))
    right = [is_right(a.text, word) for a, (_, word) in zip(answers, asked, strict=True)]
    said = {"right": right, "answers": [a.text for a in answers]}
    encoded = [tuple(engine.backend.encode(prompt)) for prompt in prompts]
    if name == "base":
        texts = [Forced(p, a.token_ids) for p, a in zip(encoded, answers, strict=True)]
        found = forcing.distributions(texts)
        maker = Maker(model, loaded.info["tokenizer_hash"], found[0].k)
        kept = [
            KeptAnswer(str(n), a.prompt_hash, a.text, len(a.token_ids), a.token_ids, d)
            for n, (a, d) in enumerate(zip(answers, found, strict=True))
        ]
        write_distributions(file, maker, kept)
        return said
    bases = [DistributionFile(file)[str(n)] for n in range(len(asked))]
    texts = [Forced(p, b.tokens) for p, b in zip(encoded, bases, strict=True)]
    seen = forcing.seen(texts, [b.found for b in bases])
    pairs = [fidelity(b.found, s) for b, s in zip(bases, seen, strict=True)]
    return said | {
        "kl": [pair.kl.tolist() for pair in pairs],
        "agrees": [pair.agrees.tolist() for pair in pairs],
        "change": [(pair.base - pair.candidate).tolist() for pair in pairs],
    }


def rung_of(name: str, base: dict[str, Any], rung: dict[str, Any]) -> Rung:
    """A point of the figure."""
    tokens = [np.array(kl) for kl in rung["kl"]]
    sums, counts = [float(kl.sum()) for kl in tokens], [len(kl) for kl in tokens]
    ends = ratio_interval(sums, counts, range(len(counts)))
    pairs = list(zip(base["right"], rung["right"], strict=True))
    lost, gained = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    worse = mcnemar(lost, gained) < 0.05 and lost > gained
    mean = sum(sums) / sum(counts)
    return Rung(name, mean, None if ends is None else [*ends], lost, gained, len(pairs), worse)


def row(name: str, base: dict[str, Any], rung: dict[str, Any]) -> str:
    """A line of the table; the standard error is of tokens in clusters, a cluster a case."""
    flat = np.concatenate([np.array(kl) for kl in rung["kl"]])
    mean, n = flat.mean(), len(rung["kl"])
    sums = np.array([np.sum(np.array(kl) - mean) for kl in rung["kl"]])
    error = np.sqrt((sums**2).sum() * n / (n - 1)) / len(flat)
    top = fmean(flag for flags in rung["agrees"] for flag in flags)
    change = fmean(value for values in rung["change"] for value in values)
    lost = sum(a and not b for a, b in zip(base["right"], rung["right"], strict=True))
    gained = sum(b and not a for a, b in zip(base["right"], rung["right"], strict=True))
    p = mcnemar(lost, gained)
    worse = "different and worse" if p < 0.05 and lost > gained else "different, not worse"
    verdict = "the same" if flat.max() <= 1e-6 else worse
    return (
        f"| {name} | {mean:.2g} +- {error:.1g} | {np.quantile(flat, 0.99):.2g} | {top:.3f} | "
        f"{change:+.3f} | {sum(rung['right'])} | {lost} / {gained} | {p:.2g} | {verdict} |"
    )


def main() -> None:
    """Every rung that is not there yet, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=240)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.figure is not None:
        check_figure_file(options.figure)
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for name in ("base", *RUNGS):
        path = options.out / f"{re.sub(r'[^a-z0-9]+', '-', name)}.json"
        if not path.exists():
            file = options.out / "base.npz"
            path.write_text(json.dumps(measure(name, options.model, options.cases, file)))
        found[name] = json.loads(path.read_text())
        if name != "base":
            print(row(name, found["base"], found[name]), flush=True)
    if options.figure is not None:
        rungs = [rung_of(name, found["base"], found[name]) for name in RUNGS]
        save_figure(draw_ladder(rungs), options.figure)
    tokens, right = sum(map(len, found["the same"]["kl"])), found["base"]["right"]
    print(f"{len(right)} cases, {tokens} tokens, right: {sum(right)}")


if __name__ == "__main__":
    main()
