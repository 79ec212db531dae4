"""From marked functions to cases, and from the selected cases to the plan of the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest

from pytest_llmprobe.case import Case, checked_spans
from pytest_llmprobe.errors import CasesError, ReportError, SettingsError
from pytest_llmprobe.generation import GenerateConfig, Request, Steer, delta_grid
from pytest_llmprobe.plugin.case_building import Probe, build_cases
from pytest_llmprobe.plugin.gate_marker import read_gate
from pytest_llmprobe.plugin.gated_names import check_scores, is_narrowed, not_collected
from pytest_llmprobe.plugin.options import Options, options_of
from pytest_llmprobe.plugin.refusal import refuse
from pytest_llmprobe.plugin.shared_prefixes import groups_with_prefix
from pytest_llmprobe.plugin.units import function_of
from pytest_llmprobe.report.files import check_writable
from pytest_llmprobe.report.plan import Bar, ExperimentPlan, Plan
from pytest_llmprobe.report.summary_function import SummaryFunction

PROBE = pytest.StashKey[Probe]()
"""On a test: what its markers declare."""

PROBES = pytest.StashKey[dict[str, Probe]]()
"""On the config: the same by function, while tests are collected."""


def parametrise(metafunc: pytest.Metafunc) -> None:
    """Turn a function with the probe marker into one test per case.

    Called after all other parametrisation, so that every combination is counted. Where a marker or
    the cases cannot be used the run is refused, with the function's name.
    """
    node = metafunc.definition
    try:
        options = options_of(metafunc.config)
    except pytest.UsageError as error:
        refuse(metafunc.config, str(error))
        return
    try:
        check_writable(options.report_place)
        probe = read_probe(node, options)
        probes = metafunc.config.stash.setdefault(PROBES, {})
        for twin in probes.values():
            if twin.experiment == probe.experiment and twin.function != probe.function:
                raise SettingsError(
                    f"{twin.function} is the experiment {probe.experiment!r} too; give one of them "
                    "probe(experiment='...')"
                )
        probes[probe.function] = probe
        if probe.cases is not None and "case" in metafunc.fixturenames:
            suite = replace(options.suite, remarks={})
            cases, left_out = build_cases(probe, replace(options, suite=suite))
            metafunc.parametrize("case", cases, ids=[case.id for case in cases])
            most = max(case.max_new_tokens or 1 for case in cases)
            probes[probe.function] = replace(
                probe,
                config=replace(probe.config, max_new_tokens=most),
                collected=len(metafunc._calls),
                left_out=left_out,
                remarks=tuple(suite.said()),
                clusters=groups_with_prefix(cases),
            )
        elif probe.cases is None and _lacks_case(metafunc):
            raise SettingsError(
                "the test uses `case`, and the probe marker gives none: write "
                "probe(cases=[Case('name', prompt='...', target='...')]), or name a function that "
                "yields cases"
            )
        elif probe.cases is not None:
            raise SettingsError("the probe marker gives cases, but the test does not use `case`")
    except (CasesError, ReportError, SettingsError) as error:
        refuse(metafunc.config, f"llmprobe: {node.nodeid}: {error}")


def is_absent(config: pytest.Config, dataset: str) -> bool:
    """Whether the user gave no data of a name that an evaluation cannot do without."""
    try:
        return options_of(config).suite.dataset(dataset) is None
    except pytest.UsageError:
        return False  # whatever is collected says why


def _lacks_case(metafunc: pytest.Metafunc) -> bool:
    """Whether a test takes a `case` that neither a fixture nor `parametrize` gives."""
    if "case" not in metafunc.fixturenames or metafunc._arg2fixturedefs.get("case"):
        return False
    return not any("case" in call.params for call in metafunc._calls)


def read_probe(node: pytest.Function, options: Options) -> Probe:
    """What the markers of a function say, with this model's own bar from the configuration.

    Raises:
        SettingsError: An argument is unknown or impossible.
    """
    marker = node.get_closest_marker("probe")
    assert marker is not None
    function = function_of(node.nodeid)
    name = function.rpartition("::")[2].removeprefix("test_")
    if marker.args:
        raise SettingsError(f"probe takes keyword arguments only, as in probe(cases={name})")
    arguments = _of_profile(marker.kwargs, options.suite.profile)
    cases = arguments.pop("cases", None)
    experiment = arguments.pop("experiment", None) or name
    summary = arguments.pop("summary", None)
    arguments.pop("dataset", None)  # ``is_absent`` has looked at it
    try:
        deltas = delta_grid(arguments.pop("delta", ()))
    except SettingsError as error:
        raise SettingsError(f"probe marker: {error}") from None
    if not isinstance(experiment, str):
        raise SettingsError(f"probe(experiment={experiment!r}): give a name")
    try:
        config = GenerateConfig.of(**arguments | dict(options.generation))
    except SettingsError as error:
        raise SettingsError(
            f"probe marker: {error}; besides: cases, dataset, delta, experiment, summary"
        ) from None
    if cases is not None:
        room = options.suite.answer_room.of(config.max_new_tokens)
        config = replace(config, max_new_tokens=room)
    if summary is not None:
        summary = SummaryFunction.of(summary, node.module, node.path)
    bar, judged = _marked(node, function)
    own = _own_bar(node, experiment, options)
    return Probe(
        experiment,
        function,
        config,
        _alone(bar, own, options),
        cases,
        summary,
        options.deltas or deltas,
        **_against_baseline(bar, own, options),
        judged=judged,
    )


def _of_profile(arguments: Mapping[str, Any], profile: str) -> dict[str, Any]:
    """The marker's arguments; of one that has a value for each profile, this profile's."""
    by_profile = {name: v for name, v in arguments.items() if isinstance(v, Mapping)}
    for name, values in by_profile.items():
        if profile not in values:
            known = ", ".join(map(str, values)) or "nothing"
            raise SettingsError(f"probe({name}=...) has no value for {profile!r}, only {known}")
    return {**arguments, **{name: values[profile] for name, values in by_profile.items()}}


def _marked(node: pytest.Function, function: str) -> tuple[Bar | None, bool]:
    """What the gate marker says; one that says nothing possible ends the run."""
    try:
        bar, judged = read_gate(node)
        if bar is not None:
            check_scores(node, "gate marker", bar)
    except SettingsError as error:
        refuse(node.config, f"llmprobe: {function}: {error}")
        return None, True
    return bar, judged


def _own_bar(node: pytest.Function, experiment: str, options: Options) -> Bar | bool | None:
    """What the configuration says of this experiment for this model."""
    own = options.bars.get(experiment)
    if isinstance(own, Bar):
        try:
            check_scores(node, f"[tool.llmprobe.gates.{options.model}] {experiment}", own)
        except SettingsError as error:
            refuse(node.config, f"llmprobe: {error}")
    return own


def _alone(bar: Bar | None, own: Bar | bool | None, options: Options) -> Bar | None:
    """The bar for the run by itself: the configuration's if it has one, else the marker's."""
    if options.gate in ("baseline", "none") or own is False:
        return None
    of_model = own.alone if isinstance(own, Bar) else None
    return of_model or (bar.alone if bar else None)


def _against_baseline(bar: Bar | None, own: Bar | bool | None, options: Options) -> dict[str, Any]:
    """What a comparison holds the experiment to.

    Each is as the configuration says, or else the marker, or for the drop the command line.
    """
    found: dict[str, Any] = {"allowed_drop": options.allowed_drop, "against_baseline": {}}
    for said in (bar, own):
        if isinstance(said, Bar):
            if said.allowed_drop is not None:
                found["allowed_drop"] = said.allowed_drop
            found["against_baseline"] |= {
                name: value for name, value in said.against_baseline.items() if value
            }
    return found


def plan_session(session: pytest.Session) -> tuple[Plan, dict[str, pytest.Function]]:
    """The experiments of the selected cases, and their tests by node id."""
    options, probes = options_of(session.config), session.config.stash.get(PROBES, {})
    items: dict[str, pytest.Function] = {}
    ids: dict[str, list[str]] = defaultdict(list)
    for item in session.items:
        probe = probes.get(function_of(item.nodeid))
        if isinstance(item, pytest.Function) and probe is not None:
            item.stash[PROBE] = probe
            items[item.nodeid] = item
            ids[probe.function].append(item.nodeid)
    gated = {f for f, probe in probes.items() if probe.bar and not is_narrowed(session.config)}
    plan = {
        probe.experiment: ExperimentPlan(
            probe.experiment,
            function,
            max(probe.collected, len(ids[function])),
            ids[function],
            probe.bar,
            probe.summary,
            [*probe.remarks, *_protocol_remarks(options, probe.config)],
            asdict(probe.config) | {"stop": list(probe.config.stop)},
            probe.left_out,
            allowed_drop=probe.allowed_drop,
            against_baseline=probe.against_baseline,
            judged=probe.judged,
        )
        for function, probe in probes.items()
        if function in ids or function in gated
    }
    absent = not_collected(session.config, options, [p.experiment for p in probes.values()])
    return plan | {experiment.name: experiment for experiment in absent}, items


def _protocol_remarks(options: Options, generation: GenerateConfig) -> list[str]:
    """What the report is to say of settings that a server's protocol cannot promise."""
    from pytest_llmprobe.engine.endpoints.openai_wire import BEYOND
    from pytest_llmprobe.engine.endpoints.wire import changed

    protocol = options.spec.protocol
    if protocol == "anthropic":
        return ["sampled as the service does it: Anthropic's protocol has no temperature"]
    if protocol == "openai" and (names := changed(generation, BEYOND)):
        return [f"{', '.join(names)}: not in OpenAI's protocol, so the server may ignore it"]
    return []


def refuse_unknown_data(session: pytest.Session) -> None:
    """Refuse the run if no evaluation asked for some of the data."""
    suite = options_of(session.config).suite
    unused = sorted(suite.datasets.keys() - suite.asked)
    if unused and not session.testsfailed:  # an eval that cannot be collected may have asked for it
        known = ", ".join(sorted(suite.asked)) or "they take none"
        text = f"no collected evaluation takes data named {unused[0]!r}; known names: {known}"
        refuse(session.config, f"llmprobe: {suite.datasets[unused[0]]}: {text}")


def case_of(item: pytest.Item) -> Case | None:
    """The case that a test was parametrised with."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec is not None else None
    return case if isinstance(case, Case) else None


def request_of(item: pytest.Function, options: Options) -> Request:
    """What a test asks the model."""
    case = case_of(item)
    assert case is not None
    return Request.of_case(case, item.stash[PROBE].config, steer_of(item, options))


def steer_of(item: pytest.Item, options: Options) -> Steer | None:
    """How a test's case is steered.

    Raises:
        SettingsError: It is to be, and is none of the probe marker's cases.
    """
    case, probe = case_of(item), item.stash.get(PROBE, None)
    if case is None or probe is None or not (probe.deltas and case.spans):
        return None
    if probe.cases is None:
        raise SettingsError("only cases that the probe marker gives can be steered")
    layers = options.layer_sets[case.metadata.get("layers", next(iter(options.layer_sets)))]
    return Steer(checked_spans(case.spans), case.metadata["delta"], layers, options.phase)
