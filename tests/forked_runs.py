"""Pytest runs of their own, forked from a process that has imported torch and transformers.

Importing them takes a run on a small model longer than all it asks. Nothing of this project is
imported before the fork; ``python forked_runs.py`` is the process that forks.
"""

import gc
import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from subprocess import PIPE

PYTEST = (sys.executable, "-mpytest")


class Forks:
    """A process that runs pytest, one run at a time, in forks of itself; a context manager."""

    def __enter__(self):
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True)
        return self

    def __exit__(self, *error):
        self._process.__exit__(*error)

    def start(self, arguments, stdout, stderr):
        """Begin ``python -m pytest ARGUMENTS`` here, which writes to the named files."""
        streams = str(Path(stdout).resolve()), str(Path(stderr).resolve())
        asked = [*arguments], streams, dict(os.environ), str(Path.cwd())
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Forked(self._process.stdout)


class Forked:
    """What ``Pytester.run`` needs of a ``subprocess.Popen`` that nobody has to stop."""

    stdin = None

    def __init__(self, ended):
        self._ended = ended

    def wait(self):
        return int(self._ended.readline())


def _serve():
    """Fork for each line of standard input; each exit code is a line of standard output."""
    sys.path.remove(str(Path(__file__).resolve().parent))
    _import_the_slow()
    gc.freeze()  # pytest collects garbage at its end, and none of this is
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run(*json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _import_the_slow():
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import transformers.generation
    import transformers.modeling_utils
    import transformers.models.auto.modeling_auto
    import transformers.models.gemma.modeling_gemma
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")  # made of a thousand regular expressions, once
    for entry in entry_points(group="pytest11"):  # as pytest wants it of plugins imported before it
        if plugin := sys.modules.get(entry.module.partition(".")[0]):
            plugin.__doc__ = "PYTEST_DONT_REWRITE"


def _run(arguments, streams, environment, folder):
    files = [os.open(path, os.O_WRONLY | os.O_APPEND) for path in streams]
    for number, file in enumerate([os.open(os.devnull, os.O_RDONLY), *files]):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    path = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ.update(environment, PYTHONPATH=os.pathsep.join(path))
    sys.path[:0] = path
    sys.argv = ["pytest", *arguments]

    import pytest

    sys.exit(pytest.main(arguments))


if __name__ == "__main__":
    _serve()
