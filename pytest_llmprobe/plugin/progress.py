"""A line that shows what is being generated, while it is; only on a terminal.

In a worker the state goes through a file in the scratch folder, since a worker has no terminal;
the controller's thread reads the files of all workers and draws.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_llmprobe.plugin.process import process_of
from pytest_llmprobe.report.terminal import printable

if TYPE_CHECKING:
    import pytest

    from pytest_llmprobe.engine import Progress

INTERVAL_S = 0.2

State: TypeAlias = Mapping[str, Any]
Show: TypeAlias = Callable[[State | None], None]


class UnitProgress:
    """Tells somebody how far a unit's generation is, a few times a second.

    Args:
        show: Receives the state, or None when the unit is done; None to tell nobody.
    """

    def __init__(self, show: Show | None) -> None:
        self._show = show
        self._last = 0.0

    @classmethod
    def of(cls, config: pytest.Config) -> UnitProgress:
        """This process's way: a line on its terminal, a file for the controller, or none."""
        process = process_of(config)
        if not process.watched:
            return cls(None)
        if process.is_worker:
            return cls(StateFile(process.scratch / f"progress-{process.name}.json"))
        return cls(Line(config).show_one)

    @contextmanager
    def unit(self, experiment: str) -> Iterator[Callable[[Progress], None] | None]:
        """A callback for the engine while one unit of ``experiment`` is generated."""
        show = self._show
        if show is None:
            yield None
            return

        def on_progress(progress: Progress) -> None:
            now = time.monotonic()
            if now - self._last >= INTERVAL_S:
                self._last = now
                speed = progress.generated_tokens / max(progress.seconds, 1e-9)
                state = {"experiment": experiment, "done": progress.done}
                show(state | {"total": progress.total, "tokens_per_s": speed})

        try:
            yield on_progress
        finally:
            self._last = 0.0
            show(None)


class StateFile:
    """Leaves the state in a file that is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, state: State | None) -> None:
        """Write the state, or remove the file when there is none."""
        if state is None:
            self._path.unlink(missing_ok=True)
            return
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(self._path)


class Line:
    """Text to the right of the cursor; what pytest writes next overwrites it.

    Args:
        config: Its terminal reporter knows the stream and how much of the line is left.
    """

    def __init__(self, config: pytest.Config) -> None:
        plugin: Any = config.pluginmanager.get_plugin
        self._writer = plugin("terminalreporter")._tw
        self._capture = plugin("capturemanager")

    def show_one(self, state: State | None) -> None:
        """Draw one unit's state, or erase it, from within a test whose output is captured."""
        with self._capture.global_and_fixture_disabled():
            self.show([state] if state else [])

    def show(self, states: Sequence[State]) -> None:
        """Save the cursor, erase the rest of the line, write, restore the cursor."""
        text = "".join(
            f"  {printable(at['experiment'])} {at['done']}/{at['total']}, "
            f"{at['tokens_per_s']:.0f} tok/s"
            for at in states
        )
        # pytest never writes the last column, so what we left there would stay.
        room = self._writer.fullwidth - self._writer.width_of_current_line - 2
        stream = self._writer._file
        stream.write(f"\x1b7\x1b[K\x1b[2m{text[: max(0, room)]}\x1b[0m\x1b8")
        stream.flush()


class WorkersProgress:
    """In the controller: a thread that draws the states which the workers leave in files."""

    def __init__(self, config: pytest.Config) -> None:
        self._folder = process_of(config).scratch
        self._line = Line(config)
        self._stop, self._drawing, self._drawn = threading.Event(), threading.Lock(), False
        self._thread = threading.Thread(target=self._watch, name="llmprobe-progress", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Erase the line and end the thread."""
        self._stop.set()
        self._thread.join(timeout=2)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Erase the line while somebody else writes: dots would leave parts of it standing."""
        with self._drawing:
            self._show([])
            yield

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            states = self._states()
            with self._drawing:
                self._show(states)
        with self._drawing:
            self._show([])

    def _show(self, states: Sequence[State]) -> None:
        if states or self._drawn:
            self._line.show(states)
        self._drawn = bool(states)

    def _states(self) -> list[State]:
        states = []
        for path in sorted(self._folder.glob("progress-*.json")):
            try:
                states.append(json.loads(path.read_text(encoding="utf-8")))
            except (FileNotFoundError, ValueError):
                continue  # the worker has just finished its unit
        return states
