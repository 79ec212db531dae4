"""Reports to compare and to show, built like a run builds them."""

from itertools import chain

from pytest_llmprobe.report.gate import run_verdict
from pytest_llmprobe.report.plan import ExperimentPlan
from pytest_llmprobe.report.record import Record
from pytest_llmprobe.report.run_file import reduce_report
from pytest_llmprobe.report.schema import SCHEMA_VERSION, validate
from pytest_llmprobe.report.summary import summarise

MODEL_INFO = {
    "source": "org/model",
    "revision": "abc",
    "fingerprint": "f" * 16,
    "config": {"rope_parameters.rope_theta": 1e8, "hidden_size": 576},
    "generation_config": {"eos_token_id": 2},
    "adapters": {},
    "end_ids": [2],
    "template": {},
    "date": "2024-07-26",
    "tokenizer_hash": "t" * 16,
    "chat_template_hash": "c" * 16,
    "dtype": "float32",
    "device": "cpu",
    "attention": "sdpa",
    "quantization": None,
    "parameters": 1000,
    "capabilities": {"packed_rows": True},
}
CONFIG = {
    "model": "org/model",
    "profile": "ci",
    "seed": 0,
    "trials": None,
    "limit": None,
    "datasets": {},
    "delta": [],
    "layers": "all",
    "phase": "all",
    "batch_size": "auto",
    "token_budget": "auto",
    "drafts": True,
    "dtype": "auto",
}
ENVIRONMENT = {
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "transformers": "5.23.0"},
    "platform": "Linux",
    "cpu": {"name": "CPU", "cores": 2},
    "accelerators": [],
}


def records(outcomes, experiment="needle", **fields):
    """Records of one experiment from letters: p passed, m missed, e error, s skipped.

    A field that is a list has a value for each record.
    """
    words = {"p": "passed", "m": "missed", "e": "error", "s": "skipped"}
    return [
        Record(
            id=f"evals/test_{experiment}.py::test_{experiment}[g{n:04}]",
            experiment=experiment,
            outcome=words[letter],
            **{
                "prompt_hash": f"{n:016x}",
                "received": "right" if letter == "p" else "wrong",
                "expected": "right",
                "explanation": "it is wrong" if letter == "m" else None,
                "duration": 0.25,
                "generated_tokens": 10,
                "prompt_tokens": 100,
                "batch_size": 4,
            }
            | {
                key: value[n] if isinstance(value, list) else value for key, value in fields.items()
            },
        )
        for n, letter in enumerate(outcomes)
    ]


def report(*experiments, collected=None, summary=None, timestamp="2026-03-01T12:00:00Z", **header):
    """A whole valid report of lists of records, one list an experiment."""
    plans = [
        ExperimentPlan(of_it[0].experiment, "t::a", collected or len(of_it), [r.id for r in of_it])
        for of_it in experiments
    ]
    entries = [
        {
            **summarise(plan, of_it),
            "summary": (summary or {}).get(plan.name, {}),
            "gate": [],
        }
        for plan, of_it in zip(plans, experiments, strict=True)
    ]
    verdict, reason = run_verdict([], 0, 0)
    made = {
        "schema_version": SCHEMA_VERSION,
        "model": "org/model",
        "timestamp": timestamp,
        "status": "complete",
        "environment": ENVIRONMENT,
        "commit": {"id": "1" * 40, "dirty": False},
        "config": CONFIG,
        "model_info": MODEL_INFO,
        "experiments": entries,
        "gate": {"verdict": verdict, "reason": reason, "checks": []},
        "comparison": None,
        "self_check": None,
        "texts": None,
        "timings": {"total_s": 10.0, "generation_s": 5.0},
        "tests": [r.as_dict() for r in sorted(chain(*experiments), key=lambda r: r.id)],
    } | header
    validate(made)
    return made


def run(*experiments, **header):
    """The same, reduced to what a comparison needs."""
    return reduce_report(report(*experiments, **header))
