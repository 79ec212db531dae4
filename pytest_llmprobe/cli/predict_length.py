"""``llmprobe predict-length``: at each token of an answer, how many a probe expects to follow.

Models and arrays are imported when the command runs: listing commands must stay quick.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.cli.arguments import positive
from pytest_llmprobe.errors import CasesError
from pytest_llmprobe.models.settings import project_models

if TYPE_CHECKING:
    import numpy.typing as npt

    from pytest_llmprobe.whitebox.length_probe import LengthProbe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    parser.description = "Generate an answer and print what the probe expects at each token."
    add = parser.add_argument
    add("--probe", type=Path, required=True, metavar="DIR", help="what `train-length-probe` wrote")
    add("--prompt", required=True, metavar="TEXT", help="what the user says")
    add("--raw", action="store_true", help="the prompt goes on as a text, without a chat template")
    add("--model", metavar="M", help="default: the one that the probe was trained on")
    add("--max-new-tokens", type=positive, default=256, metavar="N", help="default: 256")
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> None:
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.generation import GenerateConfig
    from pytest_llmprobe.models.loading import load_model
    from pytest_llmprobe.report.cores import cpu_threads
    from pytest_llmprobe.whitebox.hidden_states import HiddenStateReader
    from pytest_llmprobe.whitebox.length_probe import LengthProbe

    probe = LengthProbe.load(options.probe)
    origin = _checked_origin(probe, options.probe)
    loaded = load_model(
        options.model or origin["name"], models=project_models(), threads=cpu_threads()
    )
    if loaded.info["fingerprint"] != origin["fingerprint"]:
        raise CasesError(
            f"{options.probe} was trained on states of {origin['name']} ({origin['fingerprint']}), "
            f"and {loaded.spec.name} has other weights ({loaded.info['fingerprint']}): train anew"
        )
    reader = HiddenStateReader(loaded, origin["layers"], origin["dates"])
    prompt = reader.raw(options.prompt) if options.raw else reader.prompt(options.prompt)
    config = GenerateConfig(max_new_tokens=options.max_new_tokens)
    (answer,) = Engine(loaded).generate([prompt], config)
    (states,) = reader.states([prompt.ids], [answer.token_ids])
    ended = answer.finish_reason == "stop"
    predicted = probe.predict(states)
    print(f"{'step':>5}  {'predicted':>9}  {'remain':>6}  token")
    for step, (token, number) in enumerate(zip(answer.token_ids, predicted, strict=True)):
        remain = str(len(states) - 1 - step) if ended else "?"
        print(f"{step:5}  {number:9.1f}  {remain:>6}  {reader.token_text(token)!r}")
    if ended:
        print(_errors(predicted))
    else:
        print(f"the answer did not end within {options.max_new_tokens} tokens")


def _errors(predicted: npt.NDArray[Any]) -> str:
    """MAE and MAPE of one answer's predictions [T], which end with the one for 0 remaining."""
    import numpy as np

    from pytest_llmprobe.experiments.output_length.baselines import MAPE_ABOVE, metrics

    actual = np.arange(len(predicted))[::-1]
    found = metrics(predicted, actual, float(actual.mean()))
    said = f"mean absolute error {found['mae']:.2f} tokens"
    if found["mape"] is None:
        return said
    return f"{said}, {found['mape']:.1f} % of what remains where that is more than {MAPE_ABOVE}"


def _checked_origin(probe: LengthProbe, folder: Path) -> dict[str, Any]:
    origin = probe.origin
    if not (
        all(isinstance(origin.get(name), str) for name in ("name", "fingerprint"))
        and origin.get("dates") in ("leave out", "pin")
        and isinstance(origin.get("layers"), list)
        and all(isinstance(layer, int) for layer in origin["layers"])
    ):
        raise CasesError(f"{folder} does not say which model and layers it was trained on")
    return origin
