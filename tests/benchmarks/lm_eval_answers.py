"""Given answers judged by evals/standard and by lm-evaluation-harness: GSM8K and IFEval.

    python tests/benchmarks/lm_eval_answers.py [ROWS]

ROWS is how many made-up rows each has (default 200), of IFEval twelve times as many.  No model is
asked.  lm_eval may be in an environment of its own: the variable LM_EVAL_PYTHON names its
interpreter, which for IFEval needs langdetect, immutabledict and nltk.  Without network.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from pytest_llmprobe import Suite
from pytest_llmprobe.data.rows import Row
from pytest_llmprobe.experiments.standard import exact
from pytest_llmprobe.experiments.standard.instruction_checks import CHECKS
from pytest_llmprobe.experiments.standard.instructions import Task, summary, tasks, verdict
from pytest_llmprobe.report.record import Record
from pytest_llmprobe.search.numbers import last_number

OTHERWISE = {  # judged otherwise on purpose, or where NLTK's sentences are not at hand
    "change_case:english_capital": "no model of languages",
    "change_case:english_lowercase": "no model of languages",
    "length_constraints:number_sentences": "sentences by a rule",
}
WORDS = [
    "the",
    "river",
    "Lamp",
    "sings",
    "of",
    "WINTER",
    "and",
    "an",
    "Old",
    "cat",
    "well-known",
    "LOUD",
    "12",
    "naïve",
    "it",
    "P.S.",
]
# Keywords are patterns there and texts here: the same if they are letters.
KEYWORDS = [word for word in WORDS if word.isalpha()]
PIECES = [
    *("* one", "- two", "** three **", "*bold*", "**bolder**", "* *", "****", "<<A title>>"),
    *("<< >>", "<<>>", "[name]", "[]", "[a] [b]", "***", "******", "P.S. more", "P. S. x"),
    *("P.P.S of it", "p.p.s.", "My answer is yes.", "My answer is maybe.", '{"a": 1}', "{a: 1}"),
    *("```json", "```", "Section 1", "SECTION 2", "Part 3", "Part3", "a, b", '"', "The end."),
    *("Dr. Who came. He left!", "Why? No...", "", " ", "I AM LOUD", "U.S.A."),
]


def words(rng, most=6):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def answer(rng):
    """A text of pieces that the checks look for."""
    if rng.random() < 0.1:
        return rng.choice(["", " ", "\n", '"', '{"a": [1]}', "```json\n[1]\n```", "ALL LOUD."])
    pieces = [
        rng.choice(PIECES) if rng.random() < 0.4 else words(rng) for _ in range(rng.randint(1, 9))
    ]
    text = "".join(piece + rng.choice([" ", "\n", "\n\n", ". ", ", "]) for piece in pieces)
    text = text.upper() if (change := rng.random()) < 0.07 else text
    text = text.lower() if change > 0.93 else text
    text = text.replace(",", "") if rng.random() < 0.5 else text
    return f'"{text.strip()}"' if rng.random() < 0.1 else text


def arguments(name, rng):
    """Of an instruction, as its rows have them."""
    relation, number = rng.choice(["less than", "at least"]), rng.randint(1, 5)
    return {
        "keywords:existence": {"keywords": [rng.choice(KEYWORDS), rng.choice(KEYWORDS)]},
        "keywords:frequency": {
            "keyword": rng.choice(KEYWORDS), "frequency": number, "relation": relation},
        "keywords:forbidden_words": {"forbidden_words": [rng.choice(KEYWORDS), "win"]},
        "keywords:letter_frequency": {
            "letter": rng.choice("aeinw"), "let_frequency": number, "let_relation": relation},
        "length_constraints:number_sentences": {"num_sentences": number, "relation": relation},
        "length_constraints:number_paragraphs": {"num_paragraphs": rng.randint(1, 3)},
        "length_constraints:number_words": {
            "num_words": rng.randint(3, 25), "relation": relation},
        "length_constraints:nth_paragraph_first_word": {
            "num_paragraphs": (count := rng.randint(1, 3)),
            "nth_paragraph": rng.randint(1, count),
            "first_word": rng.choice(["the", "lamp", "dr", "p"])},
        "detectable_content:number_placeholders": {"num_placeholders": rng.randint(1, 2)},
        "detectable_content:postscript": {"postscript_marker": rng.choice(["P.S.", "P.P.S"])},
        "detectable_format:number_bullet_lists": {"num_bullets": rng.randint(1, 3)},
        "detectable_format:number_highlighted_sections": {"num_highlights": rng.randint(1, 3)},
        "detectable_format:multiple_sections": {
            "section_spliter": rng.choice(["Section", "SECTION", "Part"]),
            "num_sections": rng.randint(1, 2)},
        "combination:repeat_prompt": {"prompt_to_repeat": rng.choice(["the river", "Lamp", "p."])},
        "startend:end_checker": {"end_phrase": rng.choice(["The end.", "cat", "more", '"'])},
        "change_case:capital_word_frequency": {
            "capital_frequency": number, "capital_relation": relation},
    }.get(name, {})  # fmt: skip


def instruction_row(number, rng):
    names = rng.sample(sorted(CHECKS), rng.randint(1, 3))
    kwargs = [arguments(name, rng) for name in names]
    return {"key": number, "prompt": words(rng), "instruction_id_list": names, "kwargs": kwargs}


def number(rng):
    return rng.choice(
        [
            str(rng.randint(-9, 99)),
            f"{rng.randint(1_000, 99_999):,}",
            f"${rng.randint(1, 999)}",
            f"{rng.randint(1, 99)}.{rng.randint(0, 99)}",
            f"{rng.randint(1, 99)}.",
        ]
    )


def worked(rng, result):
    steps = " ".join(f"{words(rng)} {number(rng)}" for _ in range(rng.randint(0, 3)))
    return f"{steps}\n#### {result}"


def solved(rng, result):
    """Answers to a problem in several forms, most of them right."""
    said = result if rng.random() < 0.7 else number(rng)
    return rng.choice(
        [
            worked(rng, said),
            f"{words(rng)} {number(rng)}. The answer is {said}",
            f"{words(rng)} **{said}**.",
            f"{worked(rng, said)}\n{words(rng)} {number(rng)}",
            f"####{said}",
            words(rng),
            "",
        ]
    )


def their_side(folder, rows, answers):
    """Their verdicts, by their own task files."""
    for name, its in rows.items():
        lines = "\n".join(json.dumps(row) for row in its)
        (Path(folder) / f"{name}.jsonl").write_text(lines)
    work, result = Path(folder) / "work.json", Path(folder) / "result.json"
    work.write_text(json.dumps({"folder": folder, "answers": answers}))
    side = Path(__file__).with_name("lm_eval_side.py")
    command = [os.environ.get("LM_EVAL_PYTHON", sys.executable), side, work, result]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": folder}
    subprocess.run(command, check=True, env=kept | offline, stdout=subprocess.DEVNULL)
    return json.loads(result.read_text())


def compare_numbers(rows, answers, theirs):
    named: list[Row] = [(f"row {n}", row) for n, row in enumerate(rows)]
    problems = list(exact.problems(named, last_number))
    ours = {"strict-match": exact.strict_match, "flexible-extract": exact.flexible_extract}
    other = Counter()
    for sample in theirs["samples"]:
        at, name = sample["doc_id"], sample["filter"]
        is_same = ours[name](answers[at], problems[at].result) == bool(sample["exact_match"])
        other[name] += not is_same
        other["prompt"] += sample["arguments"][0][0] != problems[at].asked
        if not is_same:
            print(f"  {name}: {answers[at]!r} for {problems[at].result!r}")
    for name, judge in ours.items():
        both = zip(answers, problems, strict=True)
        mean = sum(judge(text, one.result) for text, one in both) / len(answers)
        its = theirs["metrics"][f"exact_match,{name}"]
        print(
            f"gsm8k {name}: {mean:.6g} / {its:.6g}, {other[name]} of {len(rows)} judged otherwise"
        )
    print(f"gsm8k prompts: {other['prompt']} of {2 * len(rows)} differ")


def compare_instructions(rows, answers, theirs, with_sentences):
    found = list(tasks([(f"row {n}", row) for n, row in enumerate(rows)], Suite()))
    otherwise = set(OTHERWISE)
    if not with_sentences:
        print("without NLTK's trained sentences there (punkt_tab): they are not compared")
    asked, other, records = Counter(), Counter(), []
    for sample in theirs["samples"]:
        at = sample["doc_id"]
        mine = verdict(Task.of(found[at].as_json()), answers[at])
        for how in ("strict", "loose"):
            its = sample[f"inst_level_{how}_acc"]
            for name, kept, theirs_kept in zip(mine.checks, getattr(mine, how), its, strict=True):
                asked[name] += 1
                other[name] += kept != bool(theirs_kept)
                if kept != bool(theirs_kept) and name not in otherwise:
                    print(f"  {name} {how}: ours {kept}: {answers[at]!r} {found[at].arguments}")
        if not otherwise & set(mine.checks):
            records.append((Record("", "", "passed", scores=mine.scores), sample))
    for name, why in OTHERWISE.items():
        if with_sentences or "sentences" not in name:
            print(f"ifeval {name}: {other[name]} of {asked[name]} judged otherwise ({why})")
    rest = [name for name in asked if name not in otherwise]
    print(
        f"ifeval, the other {len(rest)} kinds: {sum(other[name] for name in rest)} of "
        f"{sum(asked[name] for name in rest)} judged otherwise"
    )
    ours = summary([record for record, _ in records])
    for how in ("strict", "loose"):
        prompts = [bool(sample[f"prompt_level_{how}_acc"]) for _, sample in records]
        single = [kept for _, sample in records for kept in sample[f"inst_level_{how}_acc"]]
        for level, its in (("prompt", prompts), ("instruction", single)):
            name = f"{level}_level_{how}"
            print(f"ifeval {name}: {ours[name]:.6g} / {sum(its) / len(its):.6g}")


def main(rows=200):
    rng = Random("answers")
    results = [number(rng) for _ in range(int(rows))]
    made = {
        "gsm8k": [
            {"question": words(rng, 20), "answer": worked(rng, result)} for result in results
        ],
        "ifeval": [instruction_row(n, rng) for n in range(12 * int(rows))],
    }
    answers = {
        "gsm8k": [solved(rng, result) for result in results],
        "ifeval": [answer(rng) for _ in made["ifeval"]],
    }
    with tempfile.TemporaryDirectory() as folder:
        theirs = their_side(folder, made, answers)
    compare_numbers(made["gsm8k"], answers["gsm8k"], theirs["gsm8k"])
    with_sentences = theirs["sentences"]
    compare_instructions(made["ifeval"], answers["ifeval"], theirs["ifeval"], with_sentences)


if __name__ == "__main__":
    main(*sys.argv[1:])
