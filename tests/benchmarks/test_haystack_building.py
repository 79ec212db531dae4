"""Twenty questions about one haystack of 100,000 pairs: made, sized and turned into token ids.

pytest tests/benchmarks/test_haystack_building.py -n 0 -s
"""

import json
import os
import subprocess
import sys

PROGRAM = """
import json, random, resource, time
from pytest_llmprobe.experiments import needle
from pytest_llmprobe.models.registry import resolve
from pytest_llmprobe.models.token_counter import TokenCounter

clock = [time.process_time()]
pairs = needle.random_pairs(100_000, random.Random(0))
text = needle.render(pairs)
prompts = [
    f"Find a value.\\n\\n{text}\\n\\nKey: {pairs[needle.position(5 * n, len(pairs))][0]}\\nValue:"
    for n in range(20)
]
clock.append(time.process_time())
counter = TokenCounter(resolve("reference"))
counter.count("warm up")
clock.append(time.process_time())
sizes = [counter.count(prompt) for prompt in prompts]
clock.append(time.process_time())
print(json.dumps({
    "pairs_s": clock[1] - clock[0],
    "tokens_s": clock[3] - clock[2],
    "tokens": sizes[0],
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def test_a_second_run_does_not_tokenise_again(tmp_path):
    first, second = (built(tmp_path) for _ in range(2))
    for name, run in (("first", first), ("second", second)):
        print(f"\n{name} run: " + ", ".join(f"{key} {value:,.2f}" for key, value in run.items()))
    print(f"tokenising, second run / first: {second['tokens_s'] / first['tokens_s']:.3f}")
    assert first["tokens"] == second["tokens"] > 1_000_000


def built(cache):
    """One fresh process."""
    environment = os.environ | {"LLMPROBE_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])
