"""A process that runs `pytest` and `llmprobe` for a shell, each in a fork of what is loaded once.

    python docs_shell.py SOCKET          serves
    python docs_shell.py SOCKET COMMAND  asks, and prints what it printed

Starting each of a hundred commands anew would take longer than all of them do.
"""

import gc
import json
import os
import re
import socket
import sys
import tempfile
import traceback
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

STAMP = re.compile(r"\d{8}T\d{6}Z-|_\d{8}T\d{6}Z")

SMALL = {
    "pytest": [
        *("-n", "0", "--llmprobe-profile=smoke", "--llmprobe-limit=1"),
        *("--llmprobe-trials=1", "--llmprobe-max-new-tokens=8"),
    ],
    "llmprobe search": ["--profile", "smoke", "--limit", "1", "--space", "two.json"],
    "llmprobe hidden-states": ["--counts", "3:4", "--words", "apple,house", "--layers=1,2"],
    "llmprobe train-length-probe": ["--epochs", "1", "--layer", "1"],
    "llmprobe predict-length": ["--max-new-tokens", "4"],
    "llmprobe continue": ["--num-strings", "2", "--max-length", "4"],
    "llmprobe influence": ["--layers", "0,1"],
}
"""What is said at last, and so counts: the command that a reader runs, as small as it can be."""

STATE = {"--llmprobe-sa", "--llmprobe-co", "--llmprobe-re"}
"""How options begin with which a run depends on earlier ones, or is one that others depend on."""

INSTEAD = {
    r"(https?://(localhost|HEAD_IP):\d+)": "SERVER",
    r"cais/mmlu:astronomy:test": "mmlu.jsonl",
    r"Rowan/hellaswag:validation": "hellaswag.jsonl",
    r"openai/gsm8k:main:test": "gsm8k.jsonl",
    r"stas/openwebtext-10k": "texts.jsonl",
    r"wikimedia/wikipedia:20231101.en:train": "corpus.jsonl",
    r"--llmprobe-quantization=nf4": "--llmprobe-dtype=float32",
    r"all/first/0-3/13-16/28-31": "all/first/0-3",
    r"^threading\[.*|^single_needle\[.*|^threading$": "single_needle",
}
"""What a machine without a network, a GPU and other people's packages has in place of it."""


def smaller(command, words, here):
    """The words of a command as it is run here; None if it is run elsewhere in the tests."""
    for pattern, put in INSTEAD.items():
        put = os.environ["SERVER"] if put == "SERVER" else put
        words = [re.sub(pattern, put, word) for word in words]
    words = [existing(word, here) for word in words]
    if command == "pytest":
        several = any(word.startswith("--model=") and "," in word for word in words)
        if words[0] == "tests" or several:
            return None
        if words[0] == "evals" and "-k" not in words:
            words = ["evals/needle/test_single_needle.py", *words[1:]]
    elif words[:1] == ["gate"] or words[:1] == ["fidelity"]:
        return None
    elif "--parquet" in words and find_spec("pyarrow") is None:
        at = words.index("--parquet")
        del words[at : at + 2]
    elif words[:1] == ["show"]:
        words = [word for word in words if word != "--missed"]
    key = command if command == "pytest" else f"{command} {words[0]}"
    return [*words, *SMALL.get(key, ())]


def existing(word, here):
    """A path with a time in its name as the newest that was made here; ``RUN`` is the last run."""
    if word == "RUN":
        return "last"
    path = Path(word) if not word.startswith("maps/") else Path("maps/_20000101T000000Z")
    if not STAMP.search(path.name):
        return word
    found = sorted(here.glob(str(path.parent / STAMP.sub("*", path.name))))
    return str(found[-1].relative_to(here)) if found else word


def run(command, words):
    """Run it in this process; its exit code."""
    if command == "pytest":
        import pytest

        return int(pytest.main(words))
    from pytest_llmprobe.cli import main

    try:
        return main(words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1


def serve(place):
    """Answer until whoever started this is gone."""
    for name in ("jsonschema", "matplotlib.pyplot", "openai", "anthropic", "pytest"):
        import_module(name)
    from pytest_llmprobe import Engine, GenerateConfig, load_model

    Engine(load_model("reference")).generate(["x"], GenerateConfig(max_new_tokens=2))
    gc.freeze()  # a fork collects what is its own alone
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(place)
    listening.listen()
    ran = {}  # pages repeat one another
    while True:
        asking, _ = listening.accept()
        with asking, asking.makefile("r") as lines, tempfile.TemporaryFile() as said:
            asked = json.loads(lines.readline())
            alone = asked["command"] == "pytest" and not STATE & {w[:13] for w in asked["words"]}
            key = tuple(asked["words"])
            if alone and key in ran:
                asking.sendall(json.dumps(ran[key]).encode())
                continue
            child = os.fork()
            if child == 0:
                os.environ.clear()
                os.environ.update(asked["environment"])
                os.chdir(asked["here"])
                for stream in (1, 2):
                    os.dup2(said.fileno(), stream)
                code = 70
                try:
                    words = smaller(asked["command"], asked["words"], Path(asked["here"]))
                    code = 0 if words is None else run(asked["command"], words)
                except Exception:  # told to the test
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            _, status = os.waitpid(child, 0)
            said.seek(0)
            text = said.read().decode(errors="replace")
            answer = {"code": os.waitstatus_to_exitcode(status), "text": text}
            if alone and answer["code"] == 0:
                ran[key] = answer
            asking.sendall(json.dumps(answer).encode())


def ask(place, command, words):
    """Have a command run; its exit code."""
    asked = {"command": command, "words": words, "here": str(Path.cwd())}
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(place)
        asking.sendall(json.dumps({**asked, "environment": dict(os.environ)}).encode() + b"\n")
        with asking.makefile("r") as lines:
            answer = json.loads(lines.read())
    print(answer["text"], end="")
    with Path(os.environ["CODES"]).open("a") as codes:
        codes.write(json.dumps([answer["code"], command, words, answer["text"][-3000:]]) + "\n")
    return answer["code"]


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    sys.exit(ask(sys.argv[1], sys.argv[2], sys.argv[3:]))
