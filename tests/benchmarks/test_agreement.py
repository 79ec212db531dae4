"""Whether a verdict is the model's: 200 answers of SmolLM2 judged here and by a plain protocol.

    pytest tests/benchmarks/test_agreement.py -n 0 -s

The plain protocol shares nothing with the package but the prompts: the tokenizer's own chat
template, `generate` one prompt at a time with ample room, and a substring for a right answer, with
those that offer two left out. About half an hour of one core; what is answered is kept in pytest's
cache, and the next run goes on there.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema

from pytest_llmprobe.experiments.json_format import documents
from pytest_llmprobe.models.registry import resolve
from pytest_llmprobe.models.token_counter import counter_of
from pytest_llmprobe.suite import Suite

ROOT = Path(__file__).parents[2]
EVALS = ROOT / "evals"
ROOM = 512  # tokens
UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def holds_value(case, text):
    """The value, and none of the other values of the haystack."""
    pairs = re.findall(f'"({UUID.pattern})": "({UUID.pattern})"', case.prompt)
    others = {value for _, value in pairs} - {case.target}
    said = set(UUID.findall(text.lower()))
    return case.target in said and not said & others


def holds_fact(case, text):
    return case.target.lower() in text.lower()


def holds_object(case, text):
    """One object that its schema allows, alone or with words around it."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1])
        jsonschema.validate(found, documents.schema(case.metadata["kind"]))
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


FAMILIES = {  # experiment: its file, its cases, how many trials, which sizes, the plain reading
    "single_needle": ("needle/test_single_needle.py", "single_needles", 8, (5, 10), holds_value),
    "text_needle": ("haystack/test_text_needle.py", "text_needles", 3, (500, 1_500), holds_fact),
    "json_format": (
        "json_format/test_json_format.py",
        "json_objects",
        1,
        (400, 1_200),
        holds_object,
    ),
}


def cases_of(file, function, trials, sizes):
    spec = resolve("smollm2")
    suite = Suite(profile="ci", trials=trials, counter=counter_of(spec))
    scope = {"__name__": "evaluation"}
    exec(compile((EVALS / file).read_text(encoding="utf-8"), file, "exec"), scope)
    return [case for case in scope[function](suite) if case.metadata["size"] in sizes]


def judged_by_the_product(file, experiment, trials, cases, report):
    """Records by case id, of a run of its own."""
    if not report.exists():
        options = ["--model=smollm2", f"--llmprobe-trials={trials}", "--llmprobe-gate=none"]
        nodes = [f"evals/{file}::test_{experiment}[{case.id}]" for case in cases]
        command = [sys.executable, "-m", "pytest", "-n0", f"--llmprobe-json={report}"]
        subprocess.run(command + options + nodes, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    tests = json.loads(report.read_text(encoding="utf-8"))["tests"]
    return {test["id"].partition("[")[2].rpartition("]")[0]: test for test in tests}


def plain_answers(smollm2, cases, kept):
    """By case id; a line of the file each, as soon as there is one."""
    answers = {}
    if kept.exists():
        lines = kept.read_text(encoding="utf-8").splitlines()
        answers = {line["id"]: line["text"] for line in map(json.loads, lines)}
    model, tokenizer = smollm2.model, smollm2.tokenizer
    for case in cases:
        if case.id in answers:
            continue
        given = tokenizer.apply_chat_template(
            [{"role": "user", "content": case.prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        out = model.generate(**given, max_new_tokens=ROOM, do_sample=False)
        text = tokenizer.decode(out[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
        answers[case.id] = text
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"id": case.id, "text": text}) + "\n")
    return answers


def test_verdicts_agree_with_a_plain_protocol(capsys, request, smollm2):
    folder = request.config.cache.mkdir("agreement")
    judged, others = 0, 0
    for experiment in FAMILIES:
        n, otherwise = compared(capsys, folder, smollm2, experiment)
        judged, others = judged + n, others + otherwise
    assert others <= 0.02 * judged


def compared(capsys, folder, smollm2, experiment):
    """How many cases there are, and in how many the verdicts differ; those are printed."""
    file, function, trials, sizes, is_right = FAMILIES[experiment]
    cases = cases_of(file, function, trials, sizes)
    report = folder / experiment / "report.json"  # records and answers lie beside it
    product = judged_by_the_product(file, experiment, trials, cases, report)
    answers = plain_answers(smollm2, cases, folder / f"{experiment}.jsonl")
    verdicts = {case.id: is_right(case, answers[case.id]) for case in cases}
    others = [name for name, right in verdicts.items() if product[name]["is_correct"] != right]
    with capsys.disabled():
        right = sum(verdicts.values())
        print(f"\n{experiment}: {len(cases)} cases, {right} right by the plain protocol,", end=" ")
        print(f"{len(others)} judged otherwise here")
        for name in others:
            test = product[name]
            print(f"  {name}: here {test['outcome']}: {test['explanation']!r}")
            print(f"    here {test['received']!r}\n    plain {answers[name]!r}")
    return len(cases), len(others)
