"""The tasks of evals/standard against lm-evaluation-harness: the same numbers, and CPU seconds.

    python tests/benchmarks/lm_eval_agreement.py FOLDER [ROWS [tasks|chats|speed|plain]]

FOLDER has a model and its tokenizer (``save_pretrained``), such as SmolLM2-135M-Instruct; ROWS is
how many made-up rows each layout has (default 200; about ten minutes on one core).  chats: choices
after two examples through the model's chat template, in one message and as turns.  lm_eval may be
in an environment of its own: the variable LM_EVAL_PYTHON names its interpreter.  Without network.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from unittest.mock import patch

import torch

from pytest_llmprobe import Engine, RawPrompt, Request, Suite, load_model
from pytest_llmprobe.data.sources import read_datasets
from pytest_llmprobe.experiments.standard.choices import choice_of, requests_of
from pytest_llmprobe.experiments.standard.few_shot import Pool, choice_cases
from pytest_llmprobe.experiments.standard.layouts import questions
from pytest_llmprobe.experiments.standard.perplexity import TextLikelihood, corpus
from pytest_llmprobe.report.record import Record

TASKS = {
    "mmlu": "mmlu_astronomy",
    "hellaswag": "hellaswag",
    "arc": "arc_easy",
    "piqa": "piqa",
    "winogrande": "winogrande",
    "last_word": "lambada_openai",
    "perplexity": "wikitext",
}
CHATS = {name: task for name, task in TASKS.items() if name not in ("last_word", "perplexity")}
FEW_SHOT = 2
WINDOW = 128  # tokens of the context in which long texts are measured once more
BATCH_SIZES = (4, 8)
NOUNS = [
    "river",
    "lamp",
    "teacher",
    "garden",
    "engine",
    "mountain",
    "violin",
    "market",
    "ship",
    "doctor",
    "window",
    "cat",
]
VERBS = [
    "finds",
    "paints",
    "repairs",
    "follows",
    "carries",
    "washes",
    "sells",
    "forgets",
    "draws",
    "opens",
]
ADJECTIVES = [
    "old",
    "green",
    "quiet",
    "heavy",
    "small",
    "bright",
    "broken",
    "warm",
    "famous",
    "empty",
    "naïve",
]


def phrase(rng):
    return f"the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"


def sentence(rng):
    return f"{phrase(rng).capitalize()} {rng.choice(VERBS)} {phrase(rng)}"


def several(rng, make, count):
    found = []
    while len(found) < count:
        if (text := make(rng)) not in found:
            found.append(text)
    return found


def made_up(name, rng):
    """A row in a public layout."""
    four = several(rng, phrase, 4)
    if name == "mmlu":
        question = f" What is near {phrase(rng)}? "
        row = {"question": question, "choices": four, "answer": rng.randrange(4)}
        return row | {"subject": "astronomy"}
    if name == "hellaswag":
        texts = {"ctx_a": f"{sentence(rng)}.", "ctx_b": "then it", "activity_label": "At home"}
        endings = [f"{rng.choice(VERBS)} {text} [step] and goes  on." for text in four]
        return texts | {"endings": endings, "label": str(rng.randrange(4)), "ind": 1}
    if name == "arc":
        choices = {"text": four, "label": list("ABCD")}
        question = f"{sentence(rng)}. What does it see?"
        return {
            "id": "x",
            "question": question,
            "choices": choices,
            "answerKey": rng.choice("ABCD"),
        }
    if name == "piqa":
        one, two = several(rng, sentence, 2)
        return {"goal": f"How to use {phrase(rng)}", "sol1": one, "sol2": two, "label": 1}
    if name == "winogrande":
        one, two = rng.sample(NOUNS, 2)
        text = f"The {one} hit the {two} because the _ was {rng.choice(ADJECTIVES)}."
        return {"sentence": text, "option1": one, "option2": two, "answer": rng.choice("12")}
    text = ". ".join(sentence(rng) for _ in range(3 if name == "last_word" else 30))
    return {"text": text} if name == "last_word" else {"page": text}


def speed_pairs(count_tokens):
    """Four long choices of one prompt, and questions after one prefix of five examples."""
    rng = Random("speed")

    def prose(tokens):
        text = sentence(rng)
        while count_tokens(text) < tokens:
            text += f". {sentence(rng)}"
        return text

    prompts = [f"{prose(300)}. {sentence(rng)[:-3]}" for _ in range(3)]
    choices = [[f" {prose(20)}" for _ in range(4)] for _ in prompts]
    shots = "".join(f"Question: {prose(290)}?\nAnswer: {phrase(rng)}\n\n" for _ in range(5))
    asked = [f"{shots}Question: {sentence(rng)}?\nAnswer:" for _ in range(20)]
    return {
        "4 choices of a 300-token prompt": [
            (prompt, choice) for prompt, its in zip(prompts, choices, strict=True) for choice in its
        ],
        "20 questions after a 1,500-token prefix": [
            (prompt, f" {letter}") for prompt in asked for letter in "ABCD"
        ],
    }


def ours(engine, name, data, suite=None):
    """Values and metrics of one layout as the evaluations compute them."""
    if name in ("last_word", "perplexity"):
        texts = [row["text" if name == "last_word" else "page"] for _, row in data.rows()]
        asked = [Request(RawPrompt(""), continuation=text) for text in texts]
        if name == "last_word":
            cut = [text.rpartition(" ") for text in texts]
            asked = [Request(RawPrompt(a), continuation=f" {b}") for a, _, b in cut]
        answers = engine.generate(asked)
        values = [[answer.log_likelihood] for answer in answers]
        if name == "last_word":
            mean = math.fsum(value for (value,) in values) / len(values)
            hits = sum(answer.most_likely for answer in answers)
            return values, {"perplexity": math.exp(-mean), "acc": hits / len(answers)}
        measured = [
            TextLikelihood.of(text, answer.log_likelihood, len(answer.token_ids), False)
            for text, answer in zip(texts, answers, strict=True)
        ]
        return values, corpus([Record("", "", "passed", scores=m.scores) for m in measured])
    found = list(questions((where, with_prefix(name, row)) for where, row in data.rows()))
    cases = choice_cases(suite or Suite(), found, name, data)
    asked = [requests_of(case, chats=False) for case in cases]
    answers = iter(engine.generate([request for each in asked for request in each]))
    chosen = [
        choice_of(case, [next(answers) for _ in each])
        for case, each in zip(cases, asked, strict=True)
    ]
    values = [[*choice.log_likelihoods, *choice.unconditional] for choice in chosen]
    names = chosen[0].scores
    return values, {n: sum(choice.scores[n] for choice in chosen) / len(chosen) for n in names}


def with_prefix(name, row):
    """ARC is asked with the mutual information, too: as a row of one's own."""
    if name != "arc":
        return row
    texts, labels = row["choices"]["text"], row["choices"]["label"]
    prompt = f"Question: {row['question']}\nAnswer:"
    target = labels.index(row["answerKey"])
    return {"prompt": prompt, "choices": texts, "target": target, "unconditional": ""}


def compare(name, values, metrics, theirs):
    pairs = [
        (mine, its)
        for some, other in zip(values, theirs["values"], strict=True)
        for mine, its in zip(some, map(float, other), strict=True)
    ]
    largest = max(abs(mine - its) for mine, its in pairs)
    both = {n: (metrics[n], value) for n, value in theirs["metrics"].items() if n in metrics}
    same = "  ".join(f"{n} {mine:.6g} / {its:.6g}" for n, (mine, its) in sorted(both.items()))
    print(f"{name:12} {len(pairs):6} values, largest difference {largest:.1e}   {same}")


def compare_speed(engine, name, pairs, theirs):
    asked = [Request(RawPrompt(context), continuation=text) for context, text in pairs]
    times, answers = [], []
    for _ in range(2):
        start = time.process_time()
        answers = engine.generate(asked)
        times.append(time.process_time() - start)
    best, size = min((found["seconds"], size) for size, found in theirs.items())
    its = theirs[size]["values"]
    largest = max(abs(a.log_likelihood - v) for a, v in zip(answers, its, strict=True))
    print(
        f"{name}: {min(times):.2f} CPU s, lm_eval {best:.2f} (batch size {size}): "
        f"{best / min(times):.1f} times faster; largest difference {largest:.1e}"
    )


def compare_plain(engine, loaded, name, pairs, shown=8):
    """Against a pass over each whole text; of many texts the first few, in proportion."""
    asked = [Request(RawPrompt(context), continuation=text) for context, text in pairs]
    start = time.process_time()
    answers = engine.generate(asked)
    ours = time.process_time() - start
    model, encode = loaded.model, loaded.tokenizer
    start, largest = time.process_time(), 0.0
    for (context, text), answer in zip(pairs[:shown], answers, strict=False):
        ids = encode(context + text, return_tensors="pt")["input_ids"]
        first = len(encode(context.rstrip())["input_ids"])  # white space belongs to what follows
        with torch.no_grad():
            scores = model(ids).logits[0, first - 1 : -1].log_softmax(-1)
        value = scores.gather(1, ids[0, first:, None]).sum().item()
        largest = max(largest, abs(value - answer.log_likelihood))
    plain = (time.process_time() - start) * len(pairs) / min(shown, len(pairs))
    print(
        f"{name}: {ours:.2f} CPU s, one by one {plain:.2f} ({min(shown, len(pairs))} of "
        f"{len(pairs)} run): {plain / ours:.1f} times faster; largest difference {largest:.1e}"
    )


def first_rows(numbers, shown, rng, what):
    """Examples as their sampler ``first_n`` has them."""
    return Pool(tuple(numbers[: shown + 1]), shown)


def main(model, rows=200, part="all"):
    torch.set_num_threads(1)
    loaded = load_model(str(Path(model).resolve()), dtype="float32")
    engine = Engine(loaded)
    speed = speed_pairs(lambda text: len(loaded.tokenizer(text)["input_ids"]))
    if part == "plain":
        for name, pairs in speed.items():
            compare_plain(engine, loaded, name, pairs)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in TASKS:
            rng = Random(name)
            lines = [json.dumps(made_up(name, rng)) for _ in range(int(rows))]
            (Path(folder) / f"{name}.jsonl").write_text("\n".join(lines))
        work, result = Path(folder) / "work.json", Path(folder) / "result.json"
        asked = {"model": str(Path(model).resolve()), "folder": folder, "window": WINDOW}
        asked |= {"tasks": TASKS if part in ("all", "tasks") else {}, "batch_sizes": BATCH_SIZES}
        asked |= {"chats": CHATS if part in ("all", "chats") else {}, "few_shot": FEW_SHOT}
        asked["speed"] = speed if part in ("all", "speed") else {}
        work.write_text(json.dumps(asked))
        side = Path(__file__).with_name("lm_eval_side.py")
        command = [os.environ.get("LM_EVAL_PYTHON", sys.executable), side, work, result]
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run(command, check=True, env=kept | offline, stdout=subprocess.DEVNULL)
        theirs = json.loads(result.read_text())
        data = read_datasets([f"{name}={folder}/{name}.jsonl" for name in TASKS], Path(folder))
        for name, its in theirs["tasks"].items():
            compare(name, *ours(engine, name, data[name]), its)
        for form, tasks in theirs["chats"].items():
            suite = Suite(few_shot=FEW_SHOT, ask=form, chats=True)
            print(f"{FEW_SHOT} examples, chat template, as {form}:")
            with patch.object(Pool, "draw", first_rows):
                for name, its in tasks.items():
                    compare(name, *ours(engine, name, data[name], suite), its)
        if part in ("all", "tasks"):
            short = Engine(load_model(str(Path(model).resolve()), dtype="float32", context=WINDOW))
            its = theirs["windows"]
            compare("in windows", *ours(short, "perplexity", data["perplexity"]), its)
        for name, its in theirs["speed"].items():
            compare_speed(engine, name, speed[name], its)


if __name__ == "__main__":
    main(*sys.argv[1:])
