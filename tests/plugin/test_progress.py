"""The line that shows what is generated, between the dots that others write."""

import json
import re
import time
from types import SimpleNamespace

import pytest

from pytest_llmprobe.plugin.process import PROCESS
from pytest_llmprobe.plugin.progress import INTERVAL_S, WorkersProgress


class Screen:
    """The last line of a terminal: what the sequences that we write do to it."""

    fullwidth = 60

    def __init__(self):
        self._cells, self._at, self._saved = [], 0, 0
        self._file = self

    @property
    def width_of_current_line(self):
        return self._at

    @property
    def text(self):
        return "".join(self._cells).rstrip()

    def write(self, text):
        for part in re.findall(r"\x1b\[\d*\w|\x1b\d|.", text):
            if part == "\x1b7":
                self._saved = self._at
            elif part == "\x1b8":
                self._at = self._saved
            elif part == "\x1b[K":
                del self._cells[self._at :]
            elif not part.startswith("\x1b"):
                self._cells[self._at : self._at + 1] = [part]
                self._at += 1

    def flush(self):
        pass


@pytest.fixture
def screen():
    return Screen()


@pytest.fixture
def progress(tmp_path, screen):
    """Of two workers, one of which generates."""
    state = {"experiment": "single_needle", "done": 3, "total": 16, "tokens_per_s": 250.0}
    (tmp_path / "progress-gw1.json").write_text(json.dumps(state))
    plugins = SimpleNamespace(get_plugin=lambda name: SimpleNamespace(_tw=screen))
    stash = {PROCESS: SimpleNamespace(scratch=tmp_path)}
    shown = WorkersProgress(SimpleNamespace(pluginmanager=plugins, stash=stash))
    shown.start()
    yield shown
    shown.stop()


def eventually(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(INTERVAL_S / 4)


def test_dots_and_progress_never_mix(progress, screen):
    line = "  single_needle 3/16, 250 tok/s"
    eventually(lambda: screen.text == line)
    for dots in range(1, 4):
        with progress.held_back():
            screen.write(".")
            time.sleep(1.5 * INTERVAL_S)  # long enough for the line to be drawn, if it could be
            assert screen.text == "." * dots
        eventually(lambda dots=dots: screen.text == "." * dots + line)
    progress.stop()
    assert screen.text == "..."
