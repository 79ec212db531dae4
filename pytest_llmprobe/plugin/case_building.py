"""What a test function's markers declare, and the cases that come of it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from pytest_llmprobe.case import Case, RawPrompt, check_cases, prompt_text, spread
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.generation import GenerateConfig
from pytest_llmprobe.plugin.command_line import REPEAT
from pytest_llmprobe.plugin.options import Options
from pytest_llmprobe.report.plan import Bar
from pytest_llmprobe.report.summary_function import SummaryFunction
from pytest_llmprobe.suite import Suite, seed_of

TEMPLATE = 512
"""Tokens that a chat template and BOS may add to a prompt."""


@dataclass(frozen=True)
class Probe:
    """What a test function's markers declare.

    Args:
        experiment: Its name: the function's without ``test_`` unless the marker gives one.
        function: Node id without parameters.
        config: How to generate; its room is the largest that a case has.
        bar: Its gate, or None.
        cases: A list or a function, or None for a test that generates by itself.
        summary: The eval file's own function of all its records, or None.
        deltas: Values of Delta at which each case with spans is asked; empty: none is steered.
        collected: Its tests before -k, -m, --lf and node ids choose among them.
        left_out: Cases that ``--llmprobe-limit`` left out before.
        remarks: What its cases function wants said, such as sizes that it left out.
        allowed_drop: What its pass rate may fall by against a baseline, or None.
        against_baseline: What else a comparison holds it to.
        judged: Whether it may be a ground for a verdict; else it is only reported.
        clusters: The groups whose cases share a long beginning of their prompts.
    """

    experiment: str
    function: str
    config: GenerateConfig
    bar: Bar | None
    cases: Sequence[Case] | Callable[..., Any] | None
    summary: SummaryFunction | None
    deltas: tuple[float, ...] = ()
    collected: int = 0
    left_out: int = 0
    remarks: tuple[str, ...] = ()
    allowed_drop: float | None = None
    against_baseline: Mapping[str, Any] = field(default_factory=dict)
    judged: bool = True
    clusters: frozenset[str] = frozenset()


def build_cases(probe: Probe, options: Options) -> tuple[list[Case], int]:
    """The cases of one experiment, limited, seeded, with room; one for each Delta where steered.

    Returns:
        The cases, and how many the limit left out before they were steered.

    Raises:
        CasesError: The cases function failed, or what it gave cannot be used.
    """
    source = getattr(probe.cases, "__name__", "cases")
    try:
        if callable(probe.cases):
            wants_suite = bool(inspect.signature(probe.cases).parameters)
            given = list(probe.cases(options.suite) if wants_suite else probe.cases())
        else:
            given = list(probe.cases or ())
    except CasesError as error:
        raise CasesError(f"{source}: {error}") from error
    except Exception as error:
        raise CasesError(
            f"building the cases with {source} failed: {type(error).__name__}: {error}"
        ) from error
    if not given and (remarks := options.suite.said()):
        raise CasesError(f"{source} yielded no cases: {'; '.join(remarks)}")
    cases = _repeated(check_cases(given, source), probe, options.suite)
    check_choices_fit(cases, options.suite)
    limit, seed = options.limit, options.suite.seed
    repeat = [os.environ[REPEAT]] if REPEAT in os.environ else []  # sampled anew, the same cases
    if limit is not None and any(case.spans for case in cases):
        steered = sum(len(options.layers) if delta else 1 for delta in probe.deltas)
        limit = max(1, limit // max(1, steered))  # all Deltas of a case, or none
    seeded = [
        replace(
            case,
            seed=seed_of(seed, probe.experiment, case.id, *repeat),
            max_new_tokens=_room(case, probe, options),
        )
        for case in spread(cases, limit)
    ]
    left_out = len(cases) - len(seeded)
    return check_cases(_at_each_delta(seeded, probe, options), source), left_out


def check_choices_fit(cases: Sequence[Case], suite: Suite) -> None:
    """Refuse a case whose prompt and choice are longer than the model's context.

    No token is shorter than a byte, so that most need not be tokenised.

    Raises:
        CasesError: Names the case and the choice.
    """
    limit = suite.context_length
    if limit is None or suite.counter is None:
        return
    for case in cases:
        for choice in case.choices:
            after = choice + (case.ending or "")
            if len((prompt_text(case.prompt) + after).encode()) + TEMPLATE <= limit:
                continue
            tokens = suite.tokens(case.prompt) + suite.tokens(RawPrompt(after))
            if tokens - 1 > limit:  # the last one is not fed
                row = case.metadata.get("row")
                raise CasesError(
                    f"case {case.id!r}{f' ({row})' if row else ''}: prompt and choice "
                    f"{shortened(choice)} have {tokens:,} tokens, and the model's context is "
                    f"{limit:,}: shorten or leave it out"
                )


def shortened(text: str) -> str:
    """The first words of a text, in quotes."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _room(case: Case, probe: Probe, options: Options) -> int:
    own = case.max_new_tokens
    return probe.config.max_new_tokens if own is None else options.suite.answer_room.of(own)


def _repeated(cases: Sequence[Case], probe: Probe, suite: Suite) -> Sequence[Case]:
    """The cases once for each trial that the user asks for, if they have none of their own.

    Only sampled answers are repeated: a greedy one, or a likelihood, would be the same again.
    """
    own = any("trial" in case.metadata or case.choices for case in cases)
    if suite.trials is None or own or not probe.config.temperature:
        return cases
    return [
        replace(
            case,
            id=f"{case.id}-trial-{trial}" if trial else case.id,
            metadata={**case.metadata, "trial": trial},
        )
        for case, trial in product(cases, range(suite.trials))
    ]


def _at_each_delta(cases: Sequence[Case], probe: Probe, options: Options) -> Iterator[Case]:
    """The cases with spans once for each Delta and set of layers, with one seed.

    So only these tell them apart. They keep their group; in all else a case at Delta 0 is an
    unsteered one.
    """
    if probe.deltas and not any(case.spans for case in cases):
        options.suite.remarks.setdefault("no case names a span, so Delta steers none", [])
    for case in cases:
        if not (probe.deltas and case.spans):
            yield case
            continue
        sets = list(options.layer_sets)
        for delta, layers in product(probe.deltas, sets):
            how: dict[str, Any] = {"delta": delta}
            name = f"{case.id}-delta-{delta:g}"
            if delta:
                how |= {"layers": layers, "phase": options.phase}
                name += f"-layers-{layers}" if len(sets) > 1 else ""
            elif layers != sets[0]:
                continue  # no layer is steered
            yield replace(case, id=name, metadata={**case.metadata, **how})
