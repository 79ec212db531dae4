"""Generates one unit of work in a process of its own and prints what it cost in memory, in MiB.

    python tests/benchmarks/memory_of_a_unit.py FOLDER DTYPE

The unit: 20 questions about one haystack of 1,500 tokens with their answers as drafts, then 32
independent prompts of 50 to 800 tokens; 40 new tokens each.
"""

import json
import random
import sys
from pathlib import Path

import torch

from pytest_llmprobe import Engine, GenerateConfig, Request, load_model
from pytest_llmprobe.engine import memory


def status(name):
    """A figure of /proc/self in MiB."""
    file = "smaps_rollup" if name.startswith(("Pss", "Private")) else "status"
    lines = Path(f"/proc/self/{file}").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def forget_peak():
    """Let the peak begin again at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def tokens(rng, count):
    return " ".join(f"w{rng.randrange(1000)}" for _ in range(count // 4))


def stored(cache):
    """Keys and values of a batch in MiB."""
    own = list(cache._cascade.own._layers.values())
    common = [pair for keys in cache._shared for pair in keys.layers.values()]
    return sum(tensor.nbytes for pair in (*own, *common) for tensor in pair) / 2**20


def main(folder, dtype):
    torch.set_num_threads(1)
    model = load_model(folder, dtype=dtype)
    weights = sum(p.nbytes for p in {id(p): p for p in model.model.parameters()}.values())
    loaded = {name: status(name) for name in ("VmRSS", "Pss", "Private_Dirty")}
    rng, config = random.Random(0), GenerateConfig(max_new_tokens=40)
    haystack = tokens(rng, 1500)
    shared = [f"{haystack} {tokens(rng, 60)}" for _ in range(20)]
    alone = [tokens(rng, rng.randint(50, 800)) for _ in range(32)]
    engine = Engine(model)
    said = [c.token_ids for c in engine.generate(shared[:2], config)]
    sizes, feed = [], memory.TreeMemory.feed

    def watched(self, segments):
        sizes.append(stored(self))
        return feed(self, segments)

    memory.TreeMemory.feed = watched
    forget_peak()
    drafts = [Request(p, config, draft=said[n % 2]) for n, p in enumerate(shared)]
    engine.generate([*drafts, *(Request(p, config) for p in alone)])
    print(
        json.dumps(
            loaded
            | {"weights": weights / 2**20, "peak": status("VmHWM"), "largest cache": max(sizes)}
            | {"after": status("Pss"), "private": status("Private_Dirty")}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
