"""A long run: the controller's memory stays where it is, and its page opens.

    python tests/benchmarks/soak.py [--cases 20000] [--keep FOLDER]

So many cases of a scripted model under ``-n 2``, with texts as long as real answers are. Prints
the controller's resident memory at each tenth of the run, the most, the seconds, and the sizes of
report and page, which is opened by hand or by a browser's driver. Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import dedent

CONFTEST = """
    import pytest
    from pytest_llmprobe import Engine, ScriptedModel

    WORDS = " ".join(f"word{n}" for n in range(60))

    @pytest.fixture(scope="session")
    def engine():
        return Engine(ScriptedModel(lambda prompt: f"{WORDS} {prompt.split()[-1]}"))
"""

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    TEXT = " ".join(f"some{n}" for n in range(120))

    def cases(experiment):
        for number in range(CASES // 4):
            text = f"{experiment}.{number}"
            metadata = {"size": number % 5, "depth": number % 7}
            yield Case(f"g{number // 8}/c{number}", f"{TEXT}: {text}", text, metadata)

    def check(case, completion, score):
        score("length", len(completion.text))
        assert completion.text.endswith(f" {case.target}") and case.metadata["depth"], "no word"
""" + "".join(
    f"""
    @pytest.mark.probe(cases=list(cases("{name}")), max_new_tokens=600)
    def test_{name}(case, completion, score):
        check(case, completion, score)
"""
    for name in ("first", "second", "third", "fourth")
)


def memory(pid: int) -> float:
    """Resident MB of a process; 0 when it has gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def main() -> None:
    """Run, watch, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(exist_ok=True)
        (folder / "conftest.py").write_text(dedent(CONFTEST))
        (folder / "test_soak.py").write_text(dedent(EVAL).replace("CASES", str(options.cases)))
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--llmprobe-html=page.html"]
        start, seen = time.monotonic(), list[float]()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--llmprobe-json=report.json"],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            while process.poll() is None:
                seen.append(memory(process.pid))
                time.sleep(0.5)
        took = time.monotonic() - start
        tenths = [seen[min(len(seen) - 1, len(seen) * part // 10)] for part in range(1, 11)]
        print("MB at each tenth:", " ".join(f"{mb:.0f}" for mb in tenths), f"most {max(seen):.0f}")
        print((folder / "log").read_text().splitlines()[-1])
        report, page = folder / "report.json", folder / "page.html"
        n = sum(e["n"] for e in json.loads(report.read_text())["experiments"])
        print(
            f"{n} cases in {took:.0f} s; report {report.stat().st_size / 1e6:.1f} MB, page "
            f"{page.stat().st_size / 1e6:.1f} MB"
        )


if __name__ == "__main__":
    main()
