"""Options and markers as pytest shows them in --help and --markers.

Imported in every pytest run of the environment, so nothing of weight is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.plugin.argument_types import (
    allowed_drop,
    answer_room,
    auto_or_positive,
    deltas,
    generation,
    layer_sets,
    positive,
    whole,
)
from pytest_llmprobe.plugin.model_command_line import (
    add_endpoint_options,
    add_judge_option,
    add_model_option,
    add_model_options,
)

if TYPE_CHECKING:
    import pytest

MARKERS = (
    "probe(*, cases=None, experiment=None, summary=None, delta=(), dataset=None, **generation): "
    "ask the model "
    "each case; cases is a list of Case or a function of the suite that yields them, summary a "
    "function of all records that gives a dict for the report, delta the steering of cases that "
    "name spans, dataset the data without which the test is absent; an argument may be a dict of "
    "values by profile",
    "gate(*, pass_rate=None, score=None, rule='observed', allowed_drop=None, recovery=None, "
    "kl=None, top1=None, perplexity=None, judge=True): what the experiment must reach; by how much "
    "it may be worse than a baseline, and how far from it; judge=False: it is only reported",
    "needle: values of keys in a haystack of UUID pairs",
    "multiple_needles: values of several keys, in order",
    "conditional_needles: values of all keys that contain a special character",
    "threading: follow a thread of values that are keys",
    "multi_threading: follow several threads at once",
    "branched_threading: follow the longest of the threads that share their keys",
    "haystack: facts in prose",
    "json_format: records as JSON under a schema",
    "french_summary: summaries in French",
    "standard: choices by log-likelihood, exact answers, instructions, perplexity",
    "steering: attention steered by Delta, and what predicts success without it",
    "memorization: texts that a model must not know by heart",
    "generation_search: which generation parameters serve the model best",
    "output_length: what hidden states know about the length of an answer",
    "speed: how fast the model is on this machine; only where it is asked for",
    "whitebox: needs the model in this process: hidden states, attention",
    "slow: takes minutes even on the reference model",
)


LATEST = "last"
"""Of --llmprobe-resume: the model's last run."""

NEEDS_BASELINE = ("baseline", "same-prompts")
"""Values of --llmprobe-gate that judge by a baseline."""

REPEAT = "LLMPROBE_REPEAT"
"""Environment variable of a run that repeats another one to measure its noise: which repeat."""


def declare_markers(config: pytest.Config) -> None:
    """Make the markers known to ``--strict-markers`` and ``--markers``."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def add_options(parser: pytest.Parser) -> None:
    """Register every option but ``--model``, which may belong to another plugin."""
    group = parser.getgroup("llmprobe", "llmprobe: evaluations of language models")

    def add(name: str, help: str, type: Callable[[str], Any] = str, **more: Any) -> None:
        if "choices" in more:
            more["metavar"] = "|".join(more["choices"])
        group.addoption(f"--llmprobe-{name}", help=help, type=type, **more)

    add_model_option(parser)
    add("profile", "size of the grids (default: ci)", choices=("smoke", "ci", "full"), default="ci")
    add("seed", "seed of all cases (default: 0)", int, default=0, metavar="N")
    add("trials", "repeats of each cell of a grid", positive, metavar="N")
    add("limit", "at most N cases per experiment, evenly spread", positive, metavar="N")
    add(
        "max-new-tokens",
        "room for an answer: N tokens, or xF times what the evaluation gives it, such as x2 "
        "(default: its target and the question's keys in the model's tokens, and a sentence more)",
        answer_room,
        metavar="N|xF",
    )
    add(
        "few-shot",
        "solved examples before a question, where the evaluation has some (default: 1 for a model "
        "without chat template, else 0)",
        whole,
        metavar="N",
    )
    add(
        "ask",
        "how evals/standard asks: a text to be continued, one chat message, or a chat whose turns "
        "are the examples (default: choices and examples as a text)",
        choices=("text", "message", "turns"),
    )
    add(
        "generate",
        "generation options of every answer, whatever the evaluation says, as "
        "temperature=0.7,top_p=0.9 (default: the evaluation's own, mostly greedy)",
        generation,
        default={},
        metavar="KEY=VALUE[,...]",
    )
    add(
        "dataset",
        "data for an experiment: a file, a folder, or a Hugging Face data set as "
        "org/name[:[config:]split][@revision][#field]; for several, give the option several times",
        metavar="NAME=SOURCE",
        action="append",
        default=[],
    )
    add(
        "delta",
        "attention steering of every case that names a span: each is asked once with every D, 0 "
        "being none; with a minus sign in front as --llmprobe-delta=-1,0,1 (default: what the "
        "evaluation says, mostly none)",
        deltas,
        default=(),
        metavar="D[,D...]",
    )
    add(
        "layers",
        "layers to steer (default: all); of several sets, as in all/first/0-3, each is tried",
        layer_sets,
        default=("all",),
        metavar="all|first|last|0,3-5[/...]",
    )
    add(
        "phase",
        "prefill: steer the prompt alone, as the GUIDE paper's code does; all: the answer, too "
        "(default: prefill)",
        choices=("all", "prefill"),
        default="prefill",
    )
    add("batch-size", "rows generated together (default: auto)", auto_or_positive, metavar="auto|N")
    add(
        "token-budget",
        "tokens of the rows generated together, if no batch size is given (default: auto, as "
        "cores and memory allow)",
        auto_or_positive,
        metavar="auto|N",
    )
    group.addoption(
        "--llmprobe-no-drafts",
        action="store_true",
        help="do not guess tokens for the model to check (the answers are the same)",
    )
    group.addoption(
        "--llmprobe-self-check",
        action="store_true",
        help="before the cases: ask a few prompts one by one, batched, padded and with a shared "
        "prefix, and report how many answers differ",
    )
    add(
        "misses",
        "count: a miss is a result; fail: every miss is a failed test (default: count)",
        choices=("count", "fail"),
        default="count",
    )
    add(
        "gate",
        "which verdicts decide the exit code (default: all); same-prompts: all, and what was "
        "asked with other prompts than the baseline's is not judged",
        choices=("all", "thresholds", "baseline", "same-prompts", "none"),
    )
    group.addoption(
        "--llmprobe-require-judged",
        action="store_true",
        default=None,
        help="exit code 1 if something that was asked to be judged could not be (default: where "
        "--llmprobe-compare, -gate or -config is given, or the environment variable CI is set)",
    )
    group.addoption(
        "--no-llmprobe-require-judged",
        action="store_false",
        default=None,
        dest="llmprobe_require_judged",
        help="exit code 0 if all that could be judged has passed",
    )
    add(
        "allowed-drop",
        "with --llmprobe-compare: the drop of a pass rate that is allowed; an experiment passes "
        "only if its drop is surely smaller (default: none; it fails if it is surely worse)",
        allowed_drop,
        metavar="X",
    )
    add(
        "engine",
        "process: a model in each worker; shared: one process with the model answers for all "
        "workers; openvino, vllm: that program answers, too (default: process)",
        choices=("process", "shared", "openvino", "vllm"),
        default="process",
    )
    add("config", "TOML file with models and gates (default: pyproject.toml)", metavar="FILE")
    add(
        "storage",
        "folder of runs and baselines (default: .llmprobe)",
        default=".llmprobe",
        metavar="DIR",
    )
    add("save", "keep this run as a baseline of this name", metavar="NAME")
    add("compare", "compare with a baseline, a report or a run's folder", metavar="NAME|PATH")
    add(
        "fidelity",
        "answers: a saved baseline keeps the distributions of its answers' tokens, and a run "
        "compared with it is measured against them; off: neither; a file or a folder of texts: "
        "the same, and on these texts, too (default: answers)",
        default="answers",
        metavar="off|answers|FILE",
    )
    add(
        "save-logits",
        "what a saved baseline keeps of each token's distribution: its 64 likeliest tokens, or "
        "full: all of them, 200 kB a token for 50,000 (default: top)",
        choices=("top", "full"),
        default="top",
    )
    group.addoption(
        "--llmprobe-resume",
        nargs="?",
        const=LATEST,
        metavar="RUN",
        help="go on with an interrupted run, named by its folder (default: the model's last one): "
        "answers that are there are not generated again",
    )
    add(
        "replay",
        "score the answers of a run again, without loading a model",
        metavar="RUN",
    )
    add(
        "calibrate",
        "with --llmprobe-save: repeat the run N times and keep with the baseline how far pass "
        "rates differ by chance, each repeat with sampling seeds of its own; intervals of a "
        "difference become as much wider",
        positive,
        default=0,
        metavar="N",
    )
    add("json", "path of the JSON report", metavar="PATH")
    add("html", "write the report as a page, too", metavar="PATH")
    add("md", "write the report as markdown, too", metavar="PATH")
    add_model_options(parser)
    add_endpoint_options(parser)
    add_judge_option(parser)


def names_model_or_report(config: pytest.Config) -> bool:
    """Whether the command line names a model, a file to write or compare with, or data."""
    option = config.option
    given = (
        *("model", "json", "html", "md", "save", "compare", "resume", "replay", "config"),
        *("base_url", "require_judged", "device", "quantization", "attn_implementation"),
    )
    return any(
        (
            *(getattr(option, f"llmprobe_{name}") is not None for name in given),
            option.llmprobe_calibrate,
            option.llmprobe_layers != ("all",),
            option.llmprobe_self_check,
            option.llmprobe_gate in NEEDS_BASELINE,
            option.llmprobe_dataset,
        )
    )
