"""``llmprobe fidelity`` and ``llmprobe gate``: a candidate beside its baseline, in one command.

Models are loaded one after the other, when the command runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.cli.arguments import positive
from pytest_llmprobe.cli.reports import STORAGE
from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.models.spec_fields import DTYPES

if TYPE_CHECKING:
    from pytest_llmprobe.engine.distribution_file import DistributionFile
    from pytest_llmprobe.report.check import Check, Verdict

KEPT = "gate"
"""Name of the baseline that the evaluations of the first model are kept under."""

TEXTS = "texts"
"""What the corpus is called beside experiments."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands on the parser's subparsers."""
    fidelity = commands.add_parser("fidelity", help="how far a model is from another one")
    fidelity.description = (
        "How far CANDIDATE is from BASE: on a corpus, perplexity and bits per byte of both and the "
        "divergence token by token; on the answers of evaluations likewise. No outcome decides."
    )
    gate = commands.add_parser("gate", help="whether a model may take another one's place")
    gate.description = (
        "Run evaluations with both models, and a corpus through both: fidelity and paired outcomes "
        "in one table, one verdict, one exit code."
    )
    for parser in (fidelity, gate):
        _add_arguments(parser)
        parser.set_defaults(run=_run, takes_pytest_options=True, outcomes=parser is gate)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("base", metavar="BASE", help="a model, or the file of a saved baseline")
    add("candidate", metavar="CANDIDATE", help="the model in question")
    add("paths", nargs="*", metavar="PATH", help="eval files, folders; -- and options of pytest")
    add("--texts", metavar="FILE", help="a corpus: .txt, .jsonl or a folder of texts")
    add("--window", type=positive, default=1024, metavar="N", help="its tokens at once (1024)")
    add("--dtype", choices=DTYPES, default="auto", help="of both models (default: auto)")
    add("--candidate-dtype", choices=DTYPES, help="of the candidate, if another one")
    add("--kl", type=_bar, metavar="X", help="bar: most mean divergence on the corpus, in nats")
    add("--top1", type=_bar, metavar="X", help="bar: least share of equal likeliest tokens")
    add("--perplexity-increase", type=_bar, metavar="X", help="bar: most growth, .02 for 2 %%")
    add("--storage", type=Path, default=STORAGE, metavar="DIR", help=f"default: {STORAGE}")
    add("--json", type=Path, metavar="OUT", help="write what was measured, too")


def _bar(given: str) -> float:
    try:
        bar = float(given)
    except ValueError:
        bar = -1.0
    if not 0 <= bar < float("inf"):
        raise argparse.ArgumentTypeError(f"{given!r} is no number from 0 up")
    return bar


def _run(options: argparse.Namespace) -> None:
    from pytest_llmprobe.report.fidelity_text import texts_lines
    from pytest_llmprobe.report.files import check_writable, write_atomically
    from pytest_llmprobe.report.several import paired_rows
    from pytest_llmprobe.report.terminal import folded, terminal_width

    bars = {
        "kl": options.kl,
        "top1": options.top1,
        "perplexity increase": options.perplexity_increase,
    }
    bars = {name: bar for name, bar in bars.items() if bar is not None}
    if options.texts is None and not options.paths:
        raise SettingsError("there is nothing to compare on: give --texts FILE, or eval files")
    if bars and options.texts is None:
        raise SettingsError(
            "--kl, --top1 and --perplexity-increase are bars for --texts; those of evaluations are "
            "in gate markers and [tool.llmprobe.gates]"
        )
    if options.json is not None:
        check_writable(options.json)
    found: dict[str, Any] = {"base": options.base, "candidate": options.candidate}
    checks: list[Check] = []
    if options.texts is not None:
        found["texts"] = _corpus(options)
        checks += _checks(found["texts"], bars)
        for line in texts_lines(found["texts"]):
            print(*folded(line, terminal_width()), sep="\n")
    code = 0
    if options.paths:
        code, report = _evaluations(options)
        found["evaluations"], found["gate"] = paired_rows(report), report["gate"]
    if options.json is not None:
        write_atomically(options.json, json.dumps(found, indent=1, sort_keys=True) + "\n")
    _conclude(options, found, checks, code)


def _corpus(options: argparse.Namespace) -> dict[str, Any]:
    """Both models over the corpus, the first let go before the second is loaded."""
    from pytest_llmprobe.data.sources import read_datasets
    from pytest_llmprobe.plugin.run_texts import WHOLE

    data = read_datasets([f"texts={options.texts}"], Path.cwd())["texts"]
    sample = data.sample(longest=WHOLE)
    texts = list(sample.texts)
    from pytest_llmprobe.engine.corpus import score_corpus
    from pytest_llmprobe.engine.corpus_fidelity import compare_corpus
    from pytest_llmprobe.engine.corpus_file import read_corpus
    from pytest_llmprobe.engine.teacher_forcing import TeacherForcing
    from pytest_llmprobe.models.loading import load_model
    from pytest_llmprobe.models.settings import project_models
    from pytest_llmprobe.report.cores import cpu_threads

    models, kept = project_models(), _kept_corpus(Path(options.base))
    base = None
    if kept is None:
        first = load_model(options.base, models=models, dtype=options.dtype, threads=cpu_threads())
        base = score_corpus(TeacherForcing(first), texts, options.window)
        tokenizer = first.info["tokenizer_hash"]
        del first
    dtype = options.candidate_dtype or options.dtype
    second = load_model(options.candidate, models=models, dtype=dtype, threads=cpu_threads())
    if kept is not None:
        base, tokenizer = read_corpus(kept, texts, sample.origin, second), kept.maker.tokenizer_hash
    assert base is not None
    found = compare_corpus(base, tokenizer, TeacherForcing(second), texts, options.window)
    return {"source": sample.origin, **found}


def _kept_corpus(base: Path) -> DistributionFile | None:
    """What a saved baseline keeps of a corpus; None where a model is named.

    Raises:
        ReportError: It keeps none, or is damaged.
    """
    if not base.is_file() or base.suffix != ".json":
        return None
    from pytest_llmprobe.engine.distribution_file import DistributionFile
    from pytest_llmprobe.errors import ReportError
    from pytest_llmprobe.plugin.run_texts import texts_path

    path = texts_path(base)
    if not path.is_file():
        raise ReportError(
            f"{base} keeps no corpus: make it with --llmprobe-save and --llmprobe-fidelity FILE, "
            "or name the model itself"
        )
    return DistributionFile(path)


def _checks(found: Mapping[str, Any], bars: Mapping[str, float]) -> list[Check]:
    from pytest_llmprobe.report.fidelity_gate import check

    fidelity = found["fidelity"] or {"kl": None, "remarks": {found["remark"]: 1}}
    return [check(TEXTS, fidelity, name, bar, "observed") for name, bar in bars.items()]


def _evaluations(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Both models through the evaluations: the exit code of the candidate's run, its report.

    Raises:
        SystemExit: The baseline's run failed, with its exit code.
    """
    from pytest_llmprobe.report.baseline import baseline_path
    from pytest_llmprobe.report.run_file import read_json

    storage, kept = options.storage.resolve(), Path(options.base)
    always = [*options.paths, f"--llmprobe-storage={storage}", *options.for_pytest]
    if not kept.is_file():
        saved = ["--llmprobe-gate=none", "--no-llmprobe-require-judged"]
        model = [f"--llmprobe-model={options.base}", f"--llmprobe-dtype={options.dtype}"]
        code = _pytest([*model, f"--llmprobe-save={KEPT}", *saved, *always])
        if code:
            raise SystemExit(code)
        from pytest_llmprobe.models.registry import registered
        from pytest_llmprobe.models.settings import project_models
        from pytest_llmprobe.report.model_names import canonical_name

        name = canonical_name(options.base, registered(project_models()), storage.parent)
        kept = baseline_path(storage, name, KEPT)
    report = storage / "gate-report.json"
    report.unlink(missing_ok=True)
    dtype = options.candidate_dtype or options.dtype
    model = [f"--llmprobe-model={options.candidate}", f"--llmprobe-dtype={dtype}"]
    gate = [] if options.outcomes else ["--llmprobe-gate=none", "--no-llmprobe-require-judged"]
    given = [f"--llmprobe-compare={kept}", f"--llmprobe-json={report}", *gate]
    code = _pytest([*model, *given, *always])
    if code not in (0, 1):
        raise SystemExit(code)
    return code, read_json(report)


def _pytest(arguments: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


def _conclude(
    options: argparse.Namespace, found: Mapping[str, Any], checks: list[Check], code: int
) -> None:
    """One table, one verdict.

    Raises:
        SystemExit: 1, unless everything that was asked for has passed.
    """
    from pytest_llmprobe.report.gate import run_verdict
    from pytest_llmprobe.report.terminal import printable

    for line in _table(found):
        print(line)
    failed = any(check.verdict != "PASS" for check in checks)
    verdict: Verdict
    verdict, reason = run_verdict(checks, int(any(c.verdict == "FAIL" for c in checks)), 0)
    if not checks:
        reason = "no bar was given for the corpus" if options.texts else "no bar was asked for here"
    own = found.get("gate", {"verdict": "PASS"})["verdict"]
    if verdict != "FAIL" and (code or (options.outcomes and own != "PASS")):
        verdict, reason = own, "the evaluations' own verdict, above"
    elif options.paths and options.outcomes and not failed:
        verdict, reason = "PASS", "the evaluations' own verdict, above, and every bar of the corpus"
    print(f"llmprobe: GATE {verdict} ({printable(reason)})")
    if code or failed:
        raise SystemExit(1)


def _table(found: Mapping[str, Any]) -> list[str]:
    from pytest_llmprobe.report.several import direction_cells, displacement_cells, finding
    from pytest_llmprobe.report.terminal import aligned, terminal_width

    rows = list(found.get("evaluations", ()))
    if not rows:
        return []
    if "texts" in found and found["texts"]["fidelity"]:
        rows.append({"name": TEXTS, "n": 0, "fidelity": found["texts"]["fidelity"]})
    lines = [["experiment", "KL mean", "p99", "top-1", "lost", "gained", "verdict"]]
    for row in rows:
        cells = [*displacement_cells(row), *direction_cells(row)]
        lines.append([row["name"], *cells, finding(row)])
    return aligned(lines, (0, len(lines[0]) - 1), terminal_width())
