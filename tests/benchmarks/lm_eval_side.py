"""Run by lm_eval_agreement.py and lm_eval_answers.py with an interpreter that has lm_eval.

    python lm_eval_side.py WORK.json RESULT.json

Nothing of this project is imported here.
"""

import functools
import json
import sys
import time
from pathlib import Path

import lm_eval
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


def with_rows(manager, task, file, **changed):
    """Their own task file with our rows in place of the hub's."""
    files = dict.fromkeys(("train", "validation", "test", "dev"), str(file))
    ours = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
    }
    return manager._factory.build(
        manager.task_index[task], overrides=ours | changed, registry=manager.task_index
    )


def evaluate(lm, folder, tasks, few_shot=0, **form):
    """Their own task files on our rows: samples and metrics of each, examples the first rows."""
    few = {"fewshot_split": "test", "fewshot_config": {"sampler": "first_n"}} if few_shot else {}
    found, manager = {}, TaskManager()
    for name, task in tasks.items():
        changed = {"metric_list": METRICS[name]} if name in METRICS else {}
        built = with_rows(manager, task, Path(folder) / f"{name}.jsonl", **few, **changed)
        asked = {"num_fewshot": few_shot, "log_samples": True, "bootstrap_iters": 0}
        result = lm_eval.simple_evaluate(lm, tasks=[built], **asked, **form)
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


class Scripted(LM):
    """A model that gives the answers that it was given."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def generate_until(self, requests, **_):
        return [self.answers[request.doc_id] for request in requests]

    def loglikelihood(self, requests, **_):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def judged(folder, answers):
    """What their code makes of given answers: prompts, verdicts and metrics of GSM8K and IFEval."""
    found, manager = {}, TaskManager()
    for task, texts in answers.items():
        built = with_rows(manager, task, Path(folder) / f"{task}.jsonl")
        result = lm_eval.simple_evaluate(
            Scripted(texts), tasks=[built], num_fewshot=0, log_samples=True, bootstrap_iters=0
        )
        ((key, samples),) = result["samples"].items()
        kept = ("doc_id", "filter", "arguments", "exact_match", *IFEVAL)
        found[task] = {
            "samples": [{n: one[n] for n in kept if n in one} for one in samples],
            "metrics": {n: v for n, v in result["results"][key].items() if isinstance(v, float)},
        }
    return found


IFEVAL = tuple(f"{of}_level_{how}_acc" for of in ("prompt", "inst") for how in ("strict", "loose"))


def without_punkt():
    """Have their IFEval work without the trained sentences of NLTK; returns whether they are here.

    Words are split as with them, sentences are not counted.
    """
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        nltk.download = lambda *_: None  # it would ask the network
        nltk.word_tokenize = functools.partial(nltk.word_tokenize, preserve_line=True)
        from lm_eval.tasks.ifeval import instructions_util

        instructions_util.count_sentences = lambda _: 0
        return False
    return True


def main(work, result):
    torch.set_num_threads(1)
    asked = json.loads(Path(work).read_text())
    if "answers" in asked:
        found = {"sentences": without_punkt()}
        Path(result).write_text(json.dumps(found | judged(asked["folder"], asked["answers"])))
        return
    lm = HFLM(asked["model"], device="cpu", dtype="float32", batch_size=8)
    found = {"tasks": evaluate(lm, asked["folder"], asked["tasks"])}
    if asked["tasks"]:
        size = asked["window"]
        short = HFLM(lm.model, tokenizer=lm.tokenizer, device="cpu", batch_size=8, max_length=size)
        long = {"perplexity": asked["tasks"]["perplexity"]}
        found["windows"] = evaluate(short, asked["folder"], long)["perplexity"]
    found["chats"] = {
        form: evaluate(
            lm,
            asked["folder"],
            asked["chats"],
            asked["few_shot"],
            apply_chat_template=True,
            fewshot_as_multiturn=form == "turns",
        )
        for form in ("message", "turns")
        if asked["chats"]
    }
    found["speed"] = {}
    for name, pairs in asked["speed"].items():
        for size in asked["batch_sizes"]:
            lm.batch_size_per_gpu = size
            spent, values = seconds(lm, pairs)
            found["speed"].setdefault(name, {})[size] = {"seconds": spent, "values": values}
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
