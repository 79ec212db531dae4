"""Forty collapses in two real runs, a baseline and a later one: none ends as PASS in any mode.

All rows are experiments of one evaluation, so that a mode costs two runs; each is then compared by
itself, as if its experiments had been the whole run.
"""

import json

import pytest
import transformers.integrations.sdpa_attention  # noqa: F401 # forgotten after a run, loads once

from pytest_llmprobe.report.comparison import compare
from pytest_llmprobe.report.run_file import reduce_report

EVAL = """
    import json
    from pathlib import Path
    import pytest
    from pytest_llmprobe import Case

    def experiment(name, letters, haystack, gate, losses):
        def case(n):
            group = n // haystack if haystack else n
            text = f"{group} " * 200 if haystack else ""
            id = f"h{group}/c{n}" if haystack else f"c{n}"
            return Case(id, f"{text}say {n}", metadata={"letter": letters[n]})

        cases = [case(n) for n in range(len(letters)) if letters[n] != "."]

        @pytest.mark.probe(cases=cases, experiment=name, max_new_tokens=9)
        def test(case, completion, score):
            letter, n = case.metadata["letter"], int(completion.text)
            if losses:
                score("loss", losses[n])
            if letter == "e":
                1 / 0
            if letter == "s":
                pytest.skip("no")
            assert letter == "p"

        return pytest.mark.gate(**gate)(test) if gate else test

    for name, row in json.loads(Path("rows.json").read_text()).items():
        globals()[f"test_{name}"] = experiment(name, **row)
"""
ANSWER = "return prompt.split()[-1]"
PLAIN = ("-p", "no:xdist")
P, M = "p", "m"
LOSS = [2 + n % 7 / 10 for n in range(12)]


def one(before, after, haystack=0, gate=None, losses=(None, None)):
    return [(before, after, haystack, gate, losses)]


def some(*pairs):
    return [one(*pair)[0] for pair in pairs]


def scored(after, limit):
    return one(P * 12, P * 12, gate={"score": {"loss": limit}}, losses=(LOSS, after))


GREEN = {
    "nothing changed": one(P * 12 + M * 4, P * 12 + M * 4),
    "nothing was measured that is lost": one(P * 12 + "s", P * 12 + "s"),
    "a little noise": one(P * 12 + M * 4, M + P * 12 + M * 3),
    "haystacks that stay": one(P * 24, P * 24, 2),
    "the loss stays": scored(LOSS, {"max_increase": "10%"}),
}
TABLE = {
    # all of it
    "all of 12": one(P * 12, M * 12),
    "all of 5": one(P * 5, M * 5),
    "all of the few that passed": one(P * 7 + M * 5, M * 12),
    "all but one": one(P * 12, M * 11 + P),
    "all, and others gained": one(P * 12 + M * 2, M * 12 + P * 2),
    "one haystack": one(P * 12, M * 12, 12),
    "two haystacks": one(P * 12, M * 12, 6),
    "three haystacks": one(P * 12, M * 12, 4),
    "all of half of the haystacks": one(P * 24, (M * 2 + P * 2) * 6, 2),
    "one of four experiments": some(*[(P * 12, P * 12)] * 3, (P * 12, M * 12)),
    "a small one of four": some(*[(P * 12, P * 12)] * 3, (P * 5, M * 5)),
    "each of four small ones": some(*[(P * 5, M * 5)] * 4),
    "one haystack of one of two": [
        *one(P * 12, P * 12),
        *one(P * 12, M * 12, 12),
    ],
    # a part of it
    "a half": one(P * 12, M * 8 + P * 4),
    "a third": one(P * 30, M * 10 + P * 20),
    "a third, with noise": one(P * 30 + M * 6, M * 12 + P * 18 + P + M * 5),
    "from most to a few": one(P * 18 + M * 6, P * 4 + M * 20),
    "some of each haystack": one(P * 24, "mp" * 12, 2),
    "two of 9 in each of 6": some(*[(P * 9, "mm" + P * 7)] * 6),
    "one of 4 in each of 10": some(*[(P * 4, M + P * 3)] * 10),
    "half of each small one": some(*[(P * 4, "mmpp")] * 6),
    "one gains what another loses": some((M * 12, P * 12), (P * 12, M * 12)),
    # without an answer
    "one error": one(P * 12, P * 11 + "e"),
    "all but one in error": one(P * 12, "e" * 11 + P),
    "all in error": one(P * 12, "e" * 12),
    "errors instead of misses": one(P * 8 + M * 8, P * 8 + "e" * 8),
    "one skipped": one(P * 12, P * 11 + "s"),
    "half skipped": one(P * 12, P * 6 + "s" * 6),
    "all skipped": one(P * 12, "s" * 12),
    "a third is not there": one(P * 12, P * 8 + "." * 4),
    "all but two are not there": one(P * 12, P * 2 + "." * 10),
    "one of two is not there": some((P * 12, P * 12), (P * 12, "." * 12)),
    "lost and not there": one(P * 12, M * 8 + "." * 4),
    # what may be lost
    "a drop of 10 % with half of that allowed": one(
        P * 60, M * 6 + P * 54, gate={"allowed_drop": 0.05}
    ),
    "a drop that so few cannot exclude": one(P * 12, P * 12, gate={"allowed_drop": 0.02}),
    "a half with a tenth allowed": one(P * 30, M * 15 + P * 15, gate={"allowed_drop": 0.1}),
    "a recovery of half": one(P * 30, M * 15 + P * 15, gate={"recovery": 0.95}),
    "a recovery from nothing": one(M * 12, M * 12, gate={"recovery": 0.5}),
    # scores
    "the loss doubles": scored([2 * x for x in LOSS], {"max_increase": "10%"}),
    "the loss creeps": scored([x + 0.02 for x in LOSS], {"max_increase": 0.01}),
    "the loss of one explodes": scored([*LOSS[1:], 1e9], {"max_increase": 0.5}),
    "no loss is told": one(
        P * 12, P * 12, gate={"score": {"loss": {"max_increase": 1}}}, losses=(LOSS, None)
    ),
    "a loss too good to be true": scored([0.0] * 12, {"max_drop": 0.5}),
}


def rows(side):
    """What the evaluation reads of each experiment, before or after."""
    return {
        f"r{number:02}_{place}": {
            "letters": both[side],
            "haystack": haystack,
            "gate": gate,
            "losses": losses[side],
        }
        for number, row in enumerate((GREEN | TABLE).values())
        for place, (*both, haystack, gate, losses) in enumerate(row)
        if set(both[side]) != {"."}
    }


def part(report, number):
    """The report as if it were of one row alone."""
    mine = f"r{number:02}_"
    return report | {
        "experiments": [e for e in report["experiments"] if e["name"].startswith(mine)],
        "tests": [test for test in report["tests"] if test["experiment"].startswith(mine)],
    }


@pytest.fixture(scope="module")
def kept():
    """The report of the run before, made once."""
    return {}


def report_of(pytester, side, *mode):
    (pytester.path / "rows.json").write_text(json.dumps(rows(side)))
    result = pytester.runpytest_inprocess(
        *mode, "--llmprobe-json=report.json", "--llmprobe-fidelity=off", "-q", "--tb=no", "-rN"
    )
    assert result.ret == side, result.stdout.str()[-2000:]
    return json.loads((pytester.path / "report.json").read_text())


@pytest.mark.parametrize("mode", [PLAIN, ("-n", "0"), ("-n", "2")], ids=["plain", "n0", "n2"])
def test_no_collapse_is_green_in_any_mode(project, pytester, kept, mode):
    assert len(TABLE) >= 40
    project(EVAL, ANSWER)
    if not kept:
        kept.update(report_of(pytester, 0, *PLAIN))
    after = report_of(pytester, 1, *mode)
    found = {}
    for number, name in enumerate(GREEN | TABLE):
        first, second = (reduce_report(part(report, number)) for report in (kept, after))
        found[name] = compare(first, second).verdict
    green = {name: reason for name, (verdict, reason) in found.items() if verdict == "PASS"}
    assert green.keys() == GREEN.keys()
    assert all(reason for _, reason in found.values())
