"""What the gate promises, simulated: coverage, false alarms, power on the suite's own layout.

    python tests/benchmarks/gate_simulation.py [DRAWS]

Prints four tables, the same for the same DRAWS (default 200; minutes). Luck is shared inside
clusters in two ways: the clusters' rates are beta distributed, or a case has its cluster's own luck
with the root of the correlation. docs/comparison.md shows the tables.
"""

import math
import sys
from itertools import product

import numpy as np

from pytest_llmprobe.statistics.clusters import Flips
from pytest_llmprobe.statistics.intervals import rate_interval
from pytest_llmprobe.statistics.paired import change_interval
from pytest_llmprobe.statistics.suite_test import compare_suite

FAMILIES = {
    "haystack": ("closed_book", "text_decoys", "text_needle"),
    "memorization": ("exposure", "extraction", "membership", "verbatim"),
    "needle": (
        "branched_threading",
        "conditional_needles",
        "multi_threading",
        "multiple_needles",
        "single_needle",
        "threading",
    ),
    "steering": ("steered_french", "steered_json", "steered_needle"),
}
FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}

KINDS = ("beta", "shared")
CORRELATIONS = (0.0, 0.3, 0.9)

# clusters, cases in each, pass rate: the suite's experiments on the reference model at profile ci
# that may be grounds for a verdict
LAYOUT = {
    "branched_threading": (33, 1, 0.36),
    "closed_book": (9, 1, 0.98),
    "conditional_needles": (36, 1, 0.22),
    "exposure": (20, 1, 0.90),
    "extraction": (160, 1, 0.81),
    "french_summary": (27, 3, 0.63),
    "json_format": (18, 3, 0.78),
    "membership": (160, 1, 0.63),
    "multi_threading": (33, 1, 0.70),
    "multiple_needles": (6, 6, 0.67),
    "single_needle": (20, 5, 0.98),
    "steered_french": (16, 5, 0.62),
    "steered_json": (20, 4, 0.57),
    "steered_needle": (18, 8, 0.60),
    "text_decoys": (3, 5, 0.60),
    "text_needle": (9, 5, 0.96),
    "threading": (54, 1, 0.78),
    "verbatim": (60, 1, 0.93),
}


def luck(random, kind, rate, correlation, groups, size):
    """Whether each case passes, (groups, size)."""
    if correlation == 0:
        rates = np.full(groups, rate)
    elif kind == "beta":
        weight = (1 - correlation) / correlation
        rates = random.beta(rate * weight, (1 - rate) * weight, size=groups)
    else:
        shared = math.sqrt(correlation)
        rates = (random.random(groups) < rate) * shared + (1 - shared) * rate
    return random.random((groups, size)) < rates[:, None]


def flips_of(first, second):
    """The flips by cluster of two runs, each (groups, size)."""
    return Flips(
        [first.shape[1]] * len(first),
        (first & ~second).sum(axis=1).tolist(),
        (second & ~first).sum(axis=1).tolist(),
    )


def verdict(runs):
    """Whether a test fails the gate, the suite's own does, and whether something is all lost.

    Runs of the layout have its families; numbered ones are in families of four.
    """
    flips = {name: flips_of(*pair) for name, pair in runs.items()}
    passed = {name: int(second.sum()) for name, (_, second) in runs.items()}
    family = {n: FAMILY_OF.get(n) if isinstance(n, str) else f"family {n // 4}" for n in runs}
    tests, suite, families = compare_suite(flips, passed, {n: f for n, f in family.items() if f})
    by_suite = suite is not None and suite.worse
    tested = any(t.found and not t.all_lost and sum(flips[n].sums) < 0 for n, t in tests.items())
    tested = tested or any(family.worse for family in families.values())
    return tested or by_suite, by_suite, any(test.all_lost for test in tests.values())


def coverage(random, draws):
    """How often the interval of a rate holds it: the least over rates and sizes."""
    print("| clusters | correlation 0 | .3 | .9 |\n|---|---|---|---|")
    for groups in (2, 3, 5, 8, 12, 20, 30):
        row = []
        for correlation in CORRELATIONS:
            held = []
            for kind, size, rate in product(KINDS, (3, 20), (0.05, 0.5, 0.95)):
                clusters = np.repeat(np.arange(groups), size).tolist()
                found = 0
                for _ in range(draws):
                    outcomes = luck(random, kind, rate, correlation, groups, size)
                    low, high = rate_interval(outcomes.ravel().tolist(), clusters)
                    found += low <= rate <= high
                held.append(found / draws)
            row.append(f"{np.mean(held):.3f} ({min(held):.2f})")
        print(f"| {groups} | {' | '.join(row)} |", flush=True)


def two_runs(random, drop, kind, rate, correlation, groups, size):
    """Two runs and the true difference: what luck is shared is lost again, or cases are lost by it.

    A drop of None is two runs that have nothing in common but their rate.
    """
    first = luck(random, kind, rate, correlation, groups, size)
    if drop is None:
        return first, luck(random, kind, rate, correlation, groups, size), 0.0
    lost = luck(random, kind, drop, correlation, groups, size)
    return first, first & ~lost, -drop * rate


def coverage_of_differences(random, draws):
    """How often the interval of a difference holds it: the mean and the least over layouts."""
    print("| clusters | correlation 0 | .3 | .9 |\n|---|---|---|---|")
    for groups in (2, 3, 5, 8, 12, 20, 30):
        row = []
        for correlation in CORRELATIONS:
            held = []
            for kind, size, rate, drop in product(
                KINDS, (3, 20), (0.05, 0.5, 0.95), (None, 0.05, 0.3)
            ):
                clusters = np.repeat(np.arange(groups), size).tolist()
                found = 0
                for _ in range(draws):
                    first, second, true = two_runs(
                        random, drop, kind, rate, correlation, groups, size
                    )
                    changes = (second.astype(int) - first).ravel().tolist()
                    low, high = change_interval(changes, clusters)
                    found += low <= true <= high
                held.append(found / draws)
            row.append(f"{np.mean(held):.3f} ({min(held):.2f})")
        print(f"| {groups} | {' | '.join(row)} |", flush=True)


def false_alarms(random, draws):
    """How often equal models fail, over rates .05 to .95 and clusters of 2, 5 and 20 cases."""
    print("| experiments | clusters | correlation 0 | .3 | .9 |\n|---|---|---|---|---|")
    for experiments, groups in product((1, 5, 20), (2, 3, 6, 12, 30)):
        row = []
        for correlation in CORRELATIONS:
            found = []
            for kind, size, rate in product(KINDS, (2, 5, 20), (0.05, 0.3, 0.5, 0.95)):
                how = (kind, rate, correlation, groups, size)
                for _ in range(max(1, draws // (2 * experiments))):
                    runs = {n: (luck(random, *how), luck(random, *how)) for n in range(experiments)}
                    tested, _, lost = verdict(runs)
                    found.append((tested, lost))
            alarm, lost = np.mean(found, axis=0)
            row.append(f"{alarm:.1%} ({lost:.1%})")
        print(f"| {experiments} | {groups} | {' | '.join(row)} |", flush=True)


def changed(random, rate, groups, size, noise, drop):
    """A run and a later one: half of ``noise`` of the cases flips each way, ``drop`` is lost.

    Where fewer pass, or fewer miss, than would flip, less does: chance alone changes no rate.
    """
    noise = min(noise, 2 * rate, 2 * (1 - rate))
    first = random.random((groups, size)) < rate
    flips = np.where(first, noise / 2 / rate, noise / 2 / (1 - rate))
    second = first ^ (random.random(first.shape) < flips)
    return first, second & ~(first & (random.random(first.shape) < drop / rate))


def losing(random, runs, count):
    """The runs with so many more cases lost, of those that pass in both."""
    kept = [(name, *case) for name, (a, b) in runs.items() for case in np.argwhere(a & b)]
    for place in random.choice(len(kept), count, replace=False):
        name, *case = kept[place]
        runs[name][1][tuple(case)] = False


def power(random, draws):
    """How often losses are found on the suite's layout; a number of points is of all cases."""
    print(
        "| loss | noise | suite's test | any test | all of an experiment |\n|---|---|---|---|---|"
    )
    everywhere = dict.fromkeys(LAYOUT)
    scenarios = [
        ("none", everywhere, 0.0, 0.02),
        ("none", everywhere, 0.0, 0.10),
        ("2 points everywhere", everywhere, 0.02, 0.02),
        ("2 points everywhere, their number given", 2, 0.0, 0.02),
        ("5 points everywhere", everywhere, 0.05, 0.10),
        ("5 points everywhere, their number given", 5, 0.0, 0.10),
        ("20 points of french_summary", {"french_summary"}, 0.20, 0.02),
        ("20 points of extraction", {"extraction"}, 0.20, 0.02),
        ("50 points of multiple_needles", {"multiple_needles"}, 0.50, 0.02),
        ("all of text_decoys", {"text_decoys"}, 1.0, 0.0),
        ("all of closed_book", {"closed_book"}, 1.0, 0.0),
    ]
    cases = sum(groups * size for groups, size, _ in LAYOUT.values())
    for said, where, drop, noise in scenarios:
        points, where = (where, ()) if isinstance(where, int) else (0, where)
        found = []
        for _ in range(draws):
            runs = {
                name: changed(
                    random, rate, groups, size, noise, min(drop, rate) if name in where else 0
                )
                for name, (groups, size, rate) in LAYOUT.items()
            }
            losing(random, runs, round(cases * points / 100))
            found.append(verdict(runs))
        tested, suite, lost = np.mean(found, axis=0)
        print(f"| {said} | {noise:.0%} | {suite:.1%} | {tested:.1%} | {lost:.1%} |", flush=True)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for table in (coverage, coverage_of_differences, false_alarms, power):
        print(f"\n{table.__doc__}\n")
        table(np.random.default_rng(0), count)
