"""Every command of README and docs/ runs: blocks of a page in order, in a user's repository."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_llmprobe.cli import main
from pytest_llmprobe.models.registry import REFERENCE

ROOT = Path(__file__).parents[2]
SHELL = Path(__file__).with_name("docs_shell.py")
PAGES = [path for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")) if path.stem != "LOG"]
WITH_COMMANDS = [path for path in PAGES if "```sh\n" in path.read_text(encoding="utf-8")]

OTHERS = {
    "pip": "installs; .ci/run does so in a clean clone",
    "python3": "makes the environment, likewise",
    "git": "commits the user's files",
    "hf": "downloads from a network",
    "vllm": "a server of others: one on loopback answers in its place",
    "ray": "likewise",
    "docker": "likewise",
    "llama-server": "likewise; tests/engine/endpoints/test_llama_cpp.py runs it",
    "ollama": "likewise",
    "transformers": "likewise; tests/engine/endpoints/test_transformers_serve.py runs it",
}
"""Programs that do nothing here, and why."""

FOLDERS = ("my-checkpoint", "base", "tuned", "quantised", "candidate", "int4", "int8")
NAMES = (
    *("mistral", "mistral-v0.1", "llama-3.1-8b-instruct", "smollm2"),
    *("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B@main", "./model-Q4_K_M.gguf", "base", "candidate"),
)
"""Models that are the embedded one here."""

STAND_IN = """\
#!/bin/sh
exec {python} -I -S {shell} "{place}" {name} "$@"
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """The folder of the programs that a page calls, and what they need in the environment."""
    folder = tmp_path_factory.mktemp("bin")
    place = f"{folder}/s"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GITHUB"))}
    clean["PYTHONPATH"] = str(ROOT)
    process = subprocess.Popen([sys.executable, SHELL, place], env=clean | {"OMP_NUM_THREADS": "1"})
    python = f'case "$1" in -c) exec {sys.executable} "$@";; esac\n'
    scripts = dict.fromkeys(OTHERS, "#!/bin/sh\nexit 0\n") | {"python": f"#!/bin/sh\n{python}"}
    for name in ("pytest", "llmprobe"):
        scripts[name] = STAND_IN.format(python=sys.executable, shell=SHELL, place=place, name=name)
    for name, script in scripts.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    while not Path(place).exists():
        assert process.poll() is None
        time.sleep(0.05)
    yield folder, clean
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def server():
    loopback = runpy.run_path(str(ROOT / "tests/engine/endpoints/loopback.py"))

    def answer(asked):
        return loopback["message" if asked.path.endswith("messages") else "chat"]("I do not know.")

    running = loopback["Loopback"](answer)
    yield running
    running.close()


ALLOWED = {"pytest": (0, 1), "compare": (0, 1), "bars": (0, 4)}
"""Exit codes: one case in place of all cannot always be judged, and is too little for a bar."""

ROWS = {
    "mmlu": {"question": "?", "choices": list("wxyz"), "answer": 1, "subject": "astronomy"},
    "hellaswag": {
        "activity_label": "a",
        "ctx_a": "A",
        "ctx_b": "b",
        "endings": list("wxyz"),
        "label": 1,
    },
    "ours": {"prompt": "Which?", "choices": ["a", "b"], "target": 0},
    "gsm8k": {"question": "1 + 1?", "answer": "#### 2"},
    "texts": {"text": "The old mill stood by the river. " * 24},
    "corpus": {"text": "The old mill stood by the river. " * 4, "title": "t", "url": "u"},
    "trained": {"text": "The old mill stood by the river, and Anna sold it. " * 4},
    "held-out": {"text": "A new bridge was built over the lake, and Otto saw it. " * 4},
}
DIFFERENT = ("question", "ctx_a", "prompt", "text")
"""Fields that differ from row to row."""


@pytest.fixture
def repository(tmp_path, shell, earlier):
    """What a user has before the first command: evaluations, checkpoints, data."""
    assert main(["init", str(tmp_path), "--ci", "none"]) == 0
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        for path in Path(REFERENCE).glob("*.*"):
            if path.suffix in (".json", ".jinja", ".safetensors"):
                shutil.copy(path, tmp_path / name)
    models = "".join(f'[models."{name}"]\nsource = "my-checkpoint"\n' for name in NAMES)
    (tmp_path / "llmprobe.toml").write_text(models)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(shell[0])
    for name, row in ROWS.items():
        rows = [{k: f"{v} {n}" if k in DIFFERENT else v for k, v in row.items()} for n in range(8)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "a.txt").write_text("The old mill stood by the river. " * 20)
    (tmp_path / "two.json").write_text('{"temperature": [0.5, 1.0]}')
    shutil.copytree(earlier, tmp_path / ".llmprobe")
    (tmp_path / "prompt.txt").write_text("Say in French where Paris is.")
    return tmp_path


@pytest.fixture(scope="module")
def earlier(tmp_path_factory, shell):
    """A run of before, which some pages begin with."""
    folder = tmp_path_factory.mktemp("earlier")
    assert main(["init", str(folder), "--ci", "none", "--family", "needle"]) == 0
    (folder / "llmprobe.toml").write_text(f'[models.mistral]\nsource = "{REFERENCE}"\n')
    command = [shell[0] / "pytest", "evals", "--model=mistral"]
    subprocess.run(command, cwd=folder, env=environment(folder, shell), check=True)
    return folder / ".llmprobe"


def environment(folder, shell):
    return shell[1] | {
        "PATH": f"{shell[0]}:/usr/bin:/bin",
        "CODES": str(folder / "codes.jsonl"),
        "SERVER": os.environ.get("SERVER", ""),
        "ANTHROPIC_API_KEY": "none",
        "OPENAI_API_KEY": "none",
        "LLMPROBE_CACHE": "off",
        "PYTEST_ADDOPTS": os.environ.get("PYTEST_ADDOPTS", ""),
    }


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda path: path.stem)
def test_the_commands_of_a_page_run_in_order(page, repository, shell, server):
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    variables = environment(repository, shell) | {
        "SERVER": server.url,
        "ANTHROPIC_BASE_URL": server.url,
    }
    for block in blocks:
        done = subprocess.run(
            ["bash", "-c", f"set -u\n{block}"],
            cwd=repository,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert "command not found" not in done.stdout, done.stdout
    log = repository / "codes.jsonl"
    ran = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    wrong = [
        f"{name} {words}: {code}\n{text}"
        for code, name, words, text in ran
        if code not in ALLOWED.get(name, ALLOWED.get(words[0], (0,)))
    ]
    assert not wrong, "\n\n".join(wrong)
