"""Records where tests run: built when one has finished, and sent on its report."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_llmprobe.errors import LlmprobeError
from pytest_llmprobe.experiments.answers import is_final
from pytest_llmprobe.plugin.asking import TRACE, Trace, trace_of
from pytest_llmprobe.plugin.collection import PROBE, case_of
from pytest_llmprobe.plugin.ending import code_of, end_run
from pytest_llmprobe.plugin.engines import INCAPABLE
from pytest_llmprobe.plugin.other_reporters import properties, wanted
from pytest_llmprobe.plugin.process import MISSED, PROPERTY
from pytest_llmprobe.plugin.run import Run
from pytest_llmprobe.report.failures import CUT_OFF, verdict_word
from pytest_llmprobe.report.files import to_json
from pytest_llmprobe.report.record import Outcome, build_record, explained


def attach_record(
    run: Run, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
) -> None:
    """Put the record of a finished test on its report, and turn a miss into no failure.

    Only built-in types travel: one JSON string.
    """
    if PROBE not in item.stash:
        return
    trace = trace_of(item)
    if call.when != "call" and report.outcome == "passed":
        if call.when == "teardown":
            del item.stash[TRACE]  # pytest keeps every test until the session ends
        return
    if trace.not_asked:
        return
    error = call.excinfo.value if call.excinfo is not None else None
    if code_of(error) is not None:
        assert error is not None
        end_run(item.session, error)
    if call.when == "call" and isinstance(error, AssertionError) and report.outcome == "failed":
        trace.miss = explanation(error)
        if run.options.misses == "count":
            report.outcome, report.longrepr = "passed", None
            call.excinfo = None  # or --pdb would stop at it
    outcome = _outcome(call.when, report, trace, error)
    if outcome == "error" and isinstance(error, LlmprobeError):
        report.longrepr = str(error)  # says what to do; a traceback of our code would not
    if outcome == "missed":
        setattr(report, MISSED, True)
    record = build_record(
        item.nodeid,
        item.stash[PROBE].experiment,
        outcome,
        case_of(item) if isinstance(item, pytest.Function) else None,
        trace.completions,
        trace.scores,
        explanation=_why(outcome, report, trace),
        error=explained(error) if outcome == "error" and error is not None else None,
        prompt_characters=trace.prompt_characters,
        details=parameters(item) | trace.details,
        cut_off=trace.cut_off,
        clusters=item.stash[PROBE].clusters,
        fidelity=run.fidelity.of(item.nodeid),
    )
    payload: dict[str, Any] = {"record": record.as_dict()}
    if hasattr(error, INCAPABLE):
        payload["incapable"] = True
    if run.options.resume or run.options.replay:
        payload["answers"] = len(trace.completions)
        payload["found"] = sum(completion.recorded for completion in trace.completions)
    if run.model_info:
        payload["model_info"] = run.model_info
        payload["changes"] = run.folder.model_changes()
        run.model_info = {}  # told once, until there is more to tell
    report.user_properties.append((PROPERTY, to_json(payload)))
    if wanted(item.config):
        shown = list(properties(record))
        item.user_properties += shown  # JUnit XML takes those of the report on the teardown
        report.user_properties += shown


def parameters(item: pytest.Item) -> dict[str, Any]:
    """What a test was parametrised with beside its case, by itself or by a fixture."""
    callspec = getattr(item, "callspec", None)
    params: dict[str, Any] = callspec.params if callspec is not None else {}
    case, kinds = case_of(item), str | int | float | bool | None
    known = case.metadata if case is not None else ()
    return {k: v for k, v in params.items() if isinstance(v, kinds) and k not in known}


def _outcome(
    when: str, report: pytest.TestReport, trace: Trace, error: BaseException | None
) -> Outcome:
    if report.outcome == "skipped":
        return "skipped"
    if when != "call" or (error is not None and not isinstance(error, AssertionError)):
        return "error"
    return "missed" if trace.miss is not None else "passed"


def _why(outcome: Outcome, report: pytest.TestReport, trace: Trace) -> str | None:
    if outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    if trace.miss is None or not trace.completions:
        return trace.miss
    last = trace.completions[-1]
    if last.unanswered:
        return f"{last.unanswered}; {trace.miss}"
    word = verdict_word(trace.miss)
    if not trace.cut_off or word == CUT_OFF or (word is not None and is_final(word)):
        return trace.miss
    return f"{CUT_OFF}: the answer ended at {last.usage.generated_tokens} tokens; {trace.miss}"


def explanation(error: AssertionError) -> str:
    """The words of a failed assertion, without pytest's picture of the compared values."""
    text = str(error)
    words = text.partition("\nassert ")[0]
    return words.strip() or "the assertion failed"
