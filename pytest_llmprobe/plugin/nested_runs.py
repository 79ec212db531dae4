"""Behind ``llmprobe search``: pytest runs of evaluations in this process, on one shared model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmprobe.engine.completion_file import COMPLETIONS
from pytest_llmprobe.engine.engine import Engine
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.plugin.options import OPTIONS, Options, options_of
from pytest_llmprobe.search.ahead import AheadEngine
from pytest_llmprobe.search.passes import Judged, conclude, judged_cases, search_table
from pytest_llmprobe.search.space import SEED, Configuration
from pytest_llmprobe.search.tuner import SearchResult, best_of

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel
    from pytest_llmprobe.plugin.run import Run

ALWAYS = ("-n", "0", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
"""One process, and no word on this package, which a run within a process finds imported."""

SETTINGS, REPORT, LOG = "search.json", "report.json", "pytest.log"


class EvalSearch:
    """Runs evaluations under configurations, each in a folder of its own.

    Args:
        arguments: For pytest: paths, -k, --llmprobe-limit ...
        configurations: The default first.
        folder: Of all runs; a run that is complete there is not repeated.
        tell: Told what was run.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        configurations: Sequence[Configuration],
        folder: Path,
        tell: Callable[[str], None],
    ) -> None:
        self._arguments, self._configurations = list(arguments), configurations
        self._folder, self._tell = folder, tell
        self._loaded: LoadedModel | None = None
        self._engine: AheadEngine | None = None
        self._open()

    def _open(self) -> None:
        """Remember in the folder what is searched, or check that it is the same."""
        labels = [one.label for one in self._configurations]
        settings = {"arguments": self._arguments, "configurations": labels}
        path = self._folder / SETTINGS
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: {error}; give another --out") from None
        if known != settings:
            raise SettingsError(f"{path} is of another search; give another --out")

    def search(self, seed: int, held_out_seed: int) -> SearchResult:
        """All configurations on the cases of one seed, the best and the default on the other's.

        Raises:
            CasesError: Nothing could be judged, or nothing is held out.
            SettingsError: pytest could not run the evaluations.
        """
        runs: dict[str, tuple[Configuration, Judged]] = {}
        for one in self._configurations:
            how, judged = self._run(one, "search", seed, self._configurations)
            runs.setdefault(how, (one, judged))  # the default may be in the space, too
        asked, found = zip(*runs.values(), strict=True)
        table = search_table(asked, found)
        best, default = best_of(table), asked[0]
        _, theirs = self._run(default, "held-out", held_out_seed, [best])
        ours = theirs
        if best is not default:
            _, ours = self._run(best, "held-out", held_out_seed, [best])
        return conclude(table, found[0], ours, theirs)

    def _run(
        self, one: Configuration, part: str, seed: int, ahead: Sequence[Configuration]
    ) -> tuple[str, Judged]:
        """How was generated, and what came of it."""
        number = self._configurations.index(one)
        folder = self._folder / f"{part}-{seed}-{number:03}"
        report = _complete_report(folder / REPORT)
        if report is None:
            report = self._pytest(one, seed, folder, ahead)
        judged = judged_cases(report)
        rate = sum(case.score for case in judged.values()) / len(judged) if judged else 0.0
        self._tell(f"{part} {one.label}: {rate:.3f} of {len(judged)} cases")
        how = {e["name"]: e["generation"] for e in report["experiments"]}
        is_greedy = all(options["temperature"] == 0 for options in how.values())
        return json.dumps([how, 0 if is_greedy else one.seed], sort_keys=True), judged

    def _pytest(
        self, one: Configuration, seed: int, folder: Path, ahead: Sequence[Configuration]
    ) -> Mapping[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        path, log = folder / REPORT, folder / LOG
        options = [f"--llmprobe-seed={seed}", f"--llmprobe-json={path}", "--llmprobe-gate=none"]
        plugin = _Plugin(self, one, ahead)
        with log.open("w", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
            code = pytest.main([*ALWAYS, *options, *self._arguments], plugins=[plugin])
        if code == pytest.ExitCode.INTERRUPTED and _complete_report(path) is None:
            raise KeyboardInterrupt
        report = _complete_report(path)
        if report is None:
            last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise SettingsError(f"pytest ran no evaluation (exit code {code}); see {log}: {last}")
        return report

    def model(self, run: Run, session: pytest.Session) -> LoadedModel:
        """The model, loaded at the first call."""
        if self._loaded is None:
            from pytest_llmprobe.plugin.engines import session_model

            self._loaded = session_model(run, session)
        return self._loaded

    def engine(
        self, options: Options, one: Configuration, ahead: Sequence[Configuration]
    ) -> Engine:
        """The engine, made at the first call, set to a configuration."""
        assert self._loaded is not None
        if self._engine is None:
            how = {
                "batch_size": options.batch_size,
                "token_budget": options.token_budget,
                "drafts": options.drafts,
            }
            path = self._folder / COMPLETIONS
            self._engine = AheadEngine(self._loaded, ahead, path, **how)
        self._engine.configurations, self._engine.active = ahead, one
        return self._engine


def _complete_report(path: Path) -> Mapping[str, Any] | None:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CasesError(f"{path} cannot be read: {error}; remove it") from None
    whole = isinstance(report, dict) and report.get("status") == "complete"
    return report if whole and report["tests"] else None


@dataclass(frozen=True)
class _Plugin:
    """Sets a run's configuration, and gives it the shared model in place of one of its own."""

    runs: EvalSearch
    one: Configuration
    ahead: Sequence[Configuration]

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """After all other plugins, so that these fixtures win over theirs."""
        own = {name: value for name, value in self.one.parameters if name != SEED}
        config.stash[OPTIONS] = replace(options_of(config), generation=own)
        config.pluginmanager.register(_Fixtures(self))


class _Fixtures:
    def __init__(self, plugin: _Plugin) -> None:
        self._plugin = plugin

    @pytest.fixture(scope="session")
    def model(self, request: pytest.FixtureRequest, _llmprobe_run: Run) -> LoadedModel:
        """The model that all runs share."""
        return self._plugin.runs.model(_llmprobe_run, request.session)

    @pytest.fixture(scope="session")
    def engine(self, _llmprobe_run: Run, model: LoadedModel) -> Engine:
        """The engine that all runs share."""
        plugin, options = self._plugin, _llmprobe_run.options
        return plugin.runs.engine(options, plugin.one, plugin.ahead)
