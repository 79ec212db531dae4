"""A finished run for others to read: a page, markdown, the summary of a GitHub job, a baseline."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.report.baseline import Baseline, with_noise, write_baseline
from pytest_llmprobe.report.files import write_atomically
from pytest_llmprobe.report.run_file import reduce_report

if TYPE_CHECKING:
    from pytest_llmprobe.report.comparison import Comparison

JOB_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Environment variable: the file that GitHub shows on the page of a job."""


def publish(
    report: Mapping[str, Any],
    comparison: Comparison | None,
    *,
    page: Path | None,
    text: Path | None,
    baseline: Path | None,
    repeats: Sequence[Baseline] = (),
    prompts: Path | None = None,
) -> list[str]:
    """Write what was asked for, and the summary of a GitHub Actions job if this is one.

    HTML goes to ``page``, with what has room there of the file ``prompts``, markdown to ``text``.
    An interrupted run is no ``baseline``; the noise of one is told by ``repeats`` of the run.
    Returns a line for each file.

    Raises:
        ReportError: A file cannot be written.
    """
    said = []
    if page is not None:
        from pytest_llmprobe.report.html import (
            html_pieces,  # numpy, for the intervals of a comparison
        )

        write_atomically(page, html_pieces(report, comparison, prompts))
        said.append(f"page: {page}")
    if text is not None or os.environ.get(JOB_SUMMARY):
        from pytest_llmprobe.report.markdown import markdown

        in_markdown = markdown(report, comparison)
        if text is not None:
            write_atomically(text, in_markdown)
            said.append(f"markdown: {text}")
        add_to_job_summary(in_markdown)
    if baseline is not None and report["status"] != "complete":
        said.append(f"baseline {baseline.stem} not saved: the run was interrupted")
    elif baseline is not None:
        saved = with_noise(reduce_report(report), repeats)
        write_baseline(saved, baseline)
        said.append(f"baseline: {baseline} (next time --llmprobe-compare {baseline.stem})")
        if repeats:
            said.append(f"noise over {len(repeats) + 1} runs: {_largest(saved.noise)}")
    return said


def _largest(noise: Mapping[str, float]) -> str:
    if not any(noise.values()):
        return "no pass rate changed"
    name = max(noise, key=lambda name: noise[name])
    return f"standard deviation of a pass rate up to {noise[name]:.3f} ({name})"


def add_to_job_summary(text: str) -> bool:
    """Append markdown to the page of a GitHub Actions job, and say whether this is one.

    Raises:
        ReportError: The file that GitHub names cannot be written.
    """
    path = os.environ.get(JOB_SUMMARY)
    if not path:
        return False
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise ReportError(f"the job's summary {path} cannot be written: {error.strerror}") from None
    return True
