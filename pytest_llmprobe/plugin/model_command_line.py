"""Options that say how a model is loaded, asked and waited for, as pytest shows them in --help.

Imported in every pytest run of the environment, so nothing of weight is imported here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.plugin.argument_types import (
    duration,
    positive,
    positive_number,
    server_option,
    template_argument,
    told_date,
)

if TYPE_CHECKING:
    import pytest

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("nf4", "int8", "int8wo", "int4wo", "4bit", "8bit")


class NameModel(argparse.Action):
    """Keeps the model that is named last, as any option does, and beside it all that are named."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """One time that the option is given."""
        namespace.llmprobe_model = values
        before = getattr(namespace, "llmprobe_models", ())
        namespace.llmprobe_models = [*before, (option_string, values)]


def add_model_option(parser: pytest.Parser) -> None:
    """Which model."""
    parser.getgroup("llmprobe").addoption(
        "--llmprobe-model",
        action=NameModel,
        metavar="NAME",
        help="registry name, local folder, hub id org/name[@revision], or openai:NAME or "
        "anthropic:NAME for a model behind a server (default: reference, the embedded model; ini "
        "llmprobe_model, environment LLMPROBE_MODEL); several, as A,B,C or given several times, "
        "run one after another, and the first is the baseline of the others",
    )
    parser.addini("llmprobe_model", "model to evaluate", default="")


def add_short_model_option(parser: pytest.Parser) -> None:
    """Register ``--model``, unless another plugin or a conftest owns it."""
    group = parser.getgroup("llmprobe")
    try:
        group.addoption(
            "--model",
            dest="llmprobe_model",
            action=NameModel,
            metavar="NAME",
            help="short for --llmprobe-model",
        )
    except (ValueError, argparse.ArgumentError):
        return


def add_model_options(parser: pytest.Parser) -> None:
    """How a model is loaded, and what its chat template is told."""
    group = parser.getgroup("llmprobe")

    def add(name: str, help: str, type: Callable[[str], Any] = str, **more: Any) -> None:
        if "choices" in more:
            more["metavar"] = "|".join(more["choices"])
        group.addoption(f"--llmprobe-{name}", help=help, type=type, **more)

    add("dtype", "default: float32 on CPU, else the checkpoint's", choices=DTYPES)
    add("device", "cpu, cuda, cuda:1, mps (default: the best there is)", metavar="DEVICE")
    add("device-map", "for accelerate: auto spreads a model over GPUs", metavar="MAP")
    add("attn-implementation", "sdpa, eager, flash_attention_2 ...", metavar="NAME")
    add(
        "quantization",
        "load with bitsandbytes (nf4 = 4bit, int8 = 8bit) or torchao (int8wo, int4wo)",
        choices=QUANTIZATIONS,
    )
    add("adapter", "PEFT adapter to merge into the model", metavar="FOLDER")
    group.addoption(
        "--llmprobe-trust-remote-code",
        action="store_true",
        help="run code that comes with the model (default: off)",
    )
    add(
        "thinking",
        "whether the model is to think before it answers; auto: as its chat template does by "
        "itself (default: off where the template has a switch)",
        choices=("on", "off", "auto"),
    )
    add(
        "thinking-tokens",
        "room for a thought, beside the answer's own (default: 4096)",
        positive,
        metavar="N",
    )
    add(
        "template",
        "argument of the model's chat template; for several, give the option several times",
        template_argument,
        metavar="KEY=VALUE",
        action="append",
        default=[],
    )
    add(
        "date",
        "what the model's chat template takes for today, if it writes a date into its prompts "
        "(default: 2024-07-26, the same in every run)",
        told_date,
        metavar="today|YYYY-MM-DD",
    )
    add(
        "context",
        "most tokens of prompt and answer together (default: what the model's config says)",
        positive,
        metavar="N",
    )


def add_judge_option(parser: pytest.Parser) -> None:
    """Who judges answers."""
    parser.getgroup("llmprobe").addoption(
        "--llmprobe-judge",
        help="model for the `judge` fixture, named like --model",
        metavar="MODEL",
    )


def add_endpoint_options(parser: pytest.Parser) -> None:
    """How a server is asked."""
    group = parser.getgroup("llmprobe")

    def add(name: str, help: str, type: Callable[[str], Any], metavar: str = "N") -> None:
        group.addoption(f"--llmprobe-{name}", help=help, type=type, metavar=metavar)

    add("base-url", "server of openai:NAME, such as http://localhost:8000/v1", str, "URL")
    add("concurrency", "requests to a server at a time, of all workers (default: 16)", positive)
    add("timeout", "seconds for a server's answer (default: 600)", positive_number, "SECONDS")
    group.addoption(
        "--llmprobe-stream",
        action="store_true",
        help="have a server stream its answers, to record when the first token came",
    )
    add("max-requests", "stop the run before it sends a server more requests", positive)
    add("max-cost", "stop the run before it may cost more, see docs", positive_number, "SUM")
    add(
        "max-time",
        "stop the run after so long: 90, 90s, 30m, 2h; what is answered is kept",
        duration,
        "TIME",
    )
    group.addoption(
        "--llmprobe-server-option",
        help="what every request to a server holds besides, as JSON or text; for several, give the "
        "option several times",
        type=server_option,
        metavar="KEY=VALUE",
        action="append",
        default=[],
    )
