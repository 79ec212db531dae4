"""The table and the remarks: aligned, complete, and safe to print."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.report.check import Check
from pytest_llmprobe.report.terminal import (
    aligned,
    folded,
    measured,
    printable,
    remarks,
    summaries,
    table,
    terminal_width,
)

CONTROL = [*map(chr, range(32)), "\x7f", *map(chr, range(0x80, 0xA0)), "\u2028", "\u2029"]


def experiment(name="needle", **fields):
    return {
        "name": name,
        "n": 20,
        "pass_rate": 0.85,
        "ci95": [0.1, 0.2],
        "ci95_clustered": [0.64, 0.948],
        "chance": 0.05,
        "errors": 0,
        "skipped": 0,
        "collected": 20,
        "selected": 20,
        "reported": 20,
        "timings": {"tokens_per_s": 1234.5},
        "summary": {},
        "remarks": [],
    } | fields


def check(verdict="PASS", name="needle", metric="pass_rate", bar=0.8):
    return Check(name, metric, bar, "observed", 0.85, verdict, "because")


def cells(line):
    return [cell for cell in line.split("  ") if cell.strip()]


def test_a_row_holds_count_rate_clustered_interval_chance_gate_and_speed():
    header, row = table([experiment()], [check()])
    assert [cell.strip() for cell in cells(header)] == [
        "experiment",
        "n",
        "pass rate [95% CI]",
        "chance",
        "gate",
        "tokens/s",
    ]
    assert [cell.strip() for cell in cells(row)] == [
        "needle",
        "20",
        "0.850 [0.640, 0.948]",
        "0.050",
        "PASS (>= 0.8)",
        "1,234",
    ]


def test_what_was_not_measured_is_a_dash():
    nothing = experiment(
        n=0, pass_rate=None, ci95_clustered=None, chance=None, timings={"tokens_per_s": None}
    )
    _, row = table([nothing], [])
    assert [cell.strip() for cell in cells(row)] == ["needle", "0", "-", "-", "-", "-"]


def test_a_row_shows_the_checks_of_its_own_experiment_and_their_metrics():
    checks = [check("FAIL"), check("NOT JUDGED", metric="f1", bar=0.5), check(name="other")]
    _, row = table([experiment()], checks)
    assert "FAIL (>= 0.8), NOT JUDGED (f1 >= 0.5)" in row
    assert "PASS" not in row


def test_columns_begin_and_end_at_the_same_place_in_every_row():
    lines = table([experiment(), experiment("a_much_longer_name", n=12345)], [check()])
    assert len({len(line) for line in lines}) == 1
    assert len({line.index("]") for line in lines}) == 1
    assert [line[:18] for line in lines] == [
        "experiment        ",
        "needle            ",
        "a_much_longer_name",
    ]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            30,
            [
                "experiment   n",
                "needle      20",
                "  pass rate [95% CI] 0.850",
                "    [0.640, 0.948]",
                "  chance 0.050",
                "  gate PASS (>= 0.8)",
                "  tokens/s 1,234",
            ],
        ),
        (
            40,
            [
                "experiment   n    pass rate [95% CI]",
                "needle      20  0.850 [0.640, 0.948]",
                "  chance 0.050, gate PASS (>= 0.8)",
                "  tokens/s 1,234",
            ],
        ),
        (
            80,
            [
                "experiment   n    pass rate [95% CI]  chance  gate           tokens/s",
                "needle      20  0.850 [0.640, 0.948]   0.050  PASS (>= 0.8)     1,234",
            ],
        ),
    ],
)
def test_a_narrow_terminal_has_the_rest_of_a_row_below_it(width, lines):
    assert table([experiment()], [check()], width) == lines


CELL = st.text("ab ", min_size=1, max_size=12).map(str.strip).filter(bool)


@given(st.data(), st.integers(1, 5), st.integers(1, 60))
def test_no_cell_is_lost_and_only_what_is_too_long_by_itself_is_wider(data, columns, width):
    names = [f"c{column}" for column in range(columns)]
    rows = data.draw(st.lists(st.lists(CELL, min_size=columns, max_size=columns), min_size=1))
    lines = aligned([names, *rows], (0,), width)
    whole = "".join("".join(lines).split())
    for row in rows:
        assert all("".join(cell.split()) in whole for cell in row)
    words = [word for row in rows for cell in row for word in cell.split()]
    # a word goes with its column's name and a comma at most
    assert all(len(line) <= max(width, max(map(len, words)) + len("    ,")) for line in lines)


def test_a_name_that_is_wider_than_the_terminal_is_parted_at_its_signs():
    long = experiment("memorization_of_several_canaries[64-exposures]")
    assert table([long], [], 40)[1:] == [
        "memorization_of_several_canaries[64-",
        "  exposures]",
        "  n 20",
        "  pass rate [95% CI] 0.850 [0.640,",
        "    0.948]",
        "  chance 0.050, gate MEASURED",
        "  tokens/s 1,234",
    ]
    parts = ["x" * 18, f"  {'x' * 18}", f"  {'x' * 14}"]
    assert table([experiment("x" * 50)], [], 20)[1:4] == parts


LINE = st.lists(st.text("abc-/", min_size=1, max_size=14), min_size=1, max_size=12).map(" ".join)


@given(LINE, st.integers(0, 4), st.integers(8, 60))
def test_a_folded_line_has_every_word_whole_and_room_for_it(line, indent, width):
    lines = folded(" " * indent + line, width)
    assert " ".join(lines).split() == line.split()
    longest = max(map(len, line.split()))
    assert all(len(part) <= max(width, longest + indent + 2) for part in lines)
    assert all(part.startswith(" " * indent) for part in lines)
    assert folded(line, None) == [line]


def test_a_pipe_has_lines_of_any_length_and_columns_decide(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_width() is None
    monkeypatch.setenv("COLUMNS", "40")
    assert terminal_width() == 40


def test_no_experiment_is_a_header_alone():
    assert len(table([], [])) == 1


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"errors": 2}, "needle: 2 in error"),
        ({"skipped": 3}, "needle: 3 skipped"),
        ({"reported": 15}, "needle: 5 selected but never ran"),
        ({"collected": 100}, "needle: 80 deselected"),
        ({"remarks": ["2 sizes left out"]}, "needle: 2 sizes left out"),
        (
            {"errors": 1, "skipped": 2, "reported": 17, "collected": 24},
            "needle: 1 in error, 2 skipped, 3 selected but never ran, 4 deselected",
        ),
    ],
)
def test_a_remark_says_what_the_table_does_not(fields, line):
    assert remarks([experiment("other"), experiment(**fields)]) == [line]


@pytest.mark.parametrize(
    ("summary", "line"),
    [
        ({"effective_context_characters": 3200}, "needle: effective context characters 3,200"),
        ({"characters": None}, "needle: characters none"),
        (
            {"recall": 0.25, "small": 0.00012, "zero": 0.0},
            "needle: recall 0.250, small 0.00012, zero 0",
        ),
        ({"big": 1e300, "low": -1234.5}, "needle: big 1e+300, low -1,234.500"),
        ({"safe": True, "worst": "forward"}, "needle: safe True, worst forward"),
        ({"curve": [1], "map": {}, "n": 3}, "needle: n 3"),
        ({"error": "summarise: it broke"}, "needle: the summary failed: summarise: it broke"),
    ],
)
def test_the_plain_numbers_of_a_summary_are_one_line(summary, line):
    assert summaries([experiment("other"), experiment(summary=summary)]) == [line]


def test_a_summary_of_tables_alone_is_no_line():
    assert summaries([experiment(summary={"curve": []})]) == []


@pytest.mark.parametrize("character", CONTROL)
def test_no_control_character_reaches_the_terminal(character):
    assert printable(f"a{character}b") == "a b"


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_printable_text_is_one_line_of_the_same_length(text):
    shown = printable(text)
    assert len(shown) == len(text)
    assert len(shown.splitlines()) <= 1
    assert all(new in (old, " ") for old, new in zip(text, shown, strict=True))


def test_a_hostile_name_cannot_steer_the_terminal():
    hostile = "x\x1b[2J\r\nGATE PASS"
    lines = [
        *table([experiment(hostile)], [check(name=hostile, metric=hostile)]),
        *remarks([experiment(hostile, errors=1)]),
        *summaries([experiment(hostile, summary={hostile: hostile})]),
        *summaries([experiment(hostile, summary={"error": hostile})]),
    ]
    assert len(lines) == 5
    assert not any(character in line for line in lines for character in CONTROL)


@pytest.mark.parametrize("override", ["\u202e", "\u2066"])
def test_text_cannot_reorder_the_line_that_it_stands_in(override):
    assert override not in printable(f"a{override}b")


@pytest.mark.parametrize(
    ("interval", "chance", "cell"),
    [
        ([0.2, 0.4], 0.25, "0.250 (not above)"),
        ([0.2, 0.4], 0.5, "0.500 (not above)"),
        ([0.3, 0.4], 0.25, "0.250"),
        ([0.9, 0.99], 0.95, "0.950 (not told apart)"),
        ([0.7, 0.9], 0.95, "0.950 (told apart)"),
    ],
)
def test_a_rate_that_a_model_without_the_ability_has_says_so(interval, chance, cell):
    found = experiment(pass_rate=0.3, ci95_clustered=interval, chance=chance)
    assert measured(found)[1] == cell
