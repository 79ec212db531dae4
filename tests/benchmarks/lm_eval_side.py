"""Run by lm_eval_agreement.py with an interpreter that has lm_eval: their side of the comparison.

    python lm_eval_side.py WORK.json RESULT.json

Nothing of this project is imported here.
"""

import json
import sys
import time
from pathlib import Path

import lm_eval
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


def evaluate(lm, folder, tasks):
    """Their own task files on our rows: samples and metrics of each."""
    found, manager = {}, TaskManager()
    for name, task in tasks.items():
        file = str(Path(folder) / f"{name}.jsonl")
        files = dict.fromkeys(("train", "validation", "test", "dev"), file)
        ours = {
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": files},
            "test_split": "test",
            **({"metric_list": METRICS[name]} if name in METRICS else {}),
        }
        built = manager._factory.build(  # their file, with our rows in place of the hub's
            manager.task_index[task], overrides=ours, registry=manager.task_index
        )
        result = lm_eval.simple_evaluate(lm, tasks=[built], log_samples=True, bootstrap_iters=0)
        (key,) = result["samples"]
        samples = sorted(result["samples"][key], key=lambda sample: sample["doc_id"])
        found[name] = {
            "values": [flat(sample["filtered_resps"]) for sample in samples],
            "metrics": {
                metric.split(",")[0]: value
                for metric, value in result["results"][key].items()
                if isinstance(value, float) and "stderr" not in metric
            },
        }
    return found


METRICS = {
    "arc": [{"metric": metric} for metric in ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")]
}


def flat(responses):
    return [
        response[0] if isinstance(response, list | tuple) else response for response in responses
    ]


def seconds(lm, pairs):
    """CPU seconds of scoring some pairs of context and continuation."""
    requests = [
        Instance("loglikelihood", {}, tuple(pair), number) for number, pair in enumerate(pairs)
    ]
    start = time.process_time()
    values = lm.loglikelihood(requests, disable_tqdm=True)
    return time.process_time() - start, [value for value, _ in values]


def main(work, result):
    torch.set_num_threads(1)
    asked = json.loads(Path(work).read_text())
    lm = HFLM(asked["model"], device="cpu", dtype="float32", batch_size=8)
    found = {"tasks": evaluate(lm, asked["folder"], asked["tasks"])}
    if asked["tasks"]:
        size = asked["window"]
        short = HFLM(lm.model, tokenizer=lm.tokenizer, device="cpu", batch_size=8, max_length=size)
        long = {"perplexity": asked["tasks"]["perplexity"]}
        found["windows"] = evaluate(short, asked["folder"], long)["perplexity"]
    found["speed"] = {}
    for name, pairs in asked["speed"].items():
        for size in asked["batch_sizes"]:
            lm.batch_size_per_gpu = size
            spent, values = seconds(lm, pairs)
            found["speed"].setdefault(name, {})[size] = {"seconds": spent, "values": values}
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
