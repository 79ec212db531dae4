"""Bars written into a TOML file: the one table changes, and every other byte stays."""

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.models.bars_table import lines_of, lower_bar, with_bars

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = ("tool", "llmprobe", "gates", "mine")

PROJECT = '''# a project
[build-system]
requires = ["hatchling"]  # [tool.llmprobe.gates.mine]

[tool.text]
note = """
[tool.llmprobe.gates.mine]
needle = 3
"""
lists = [
    [1],
    [2],
]

[tool.llmprobe.gates.mine]  # what it must reach
# by hand
needle = { pass_rate = 0.1, rule = "significant" }   # a "#" was here
threads = false	# not gated
json = { score = { "field accuracy" = 0.8 } }

# The next one.
[tool.ruff]
line-length = 100
'''


def test_only_the_tables_lines_change():
    after = with_bars(PROJECT, TABLE, {"needle": 0.25, "threads": 0.5, "json": 0.75, "new": 1.0})
    expected = PROJECT.replace(
        "needle = { pass_rate = 0.1, rule", "needle = { pass_rate = 0.25, rule"
    ).replace(
        'json = { score = { "field accuracy" = 0.8 } }\n',
        'json = { pass_rate = 0.75, score = { "field accuracy" = 0.8 } }\n'
        "new = { pass_rate = 1.0 }\n",
    )
    assert after == expected


@pytest.mark.parametrize("text", ["", "[tool.ruff]\nx = 1\n", "[tool.ruff]\nx = 1", "a = 1\r\n"])
def test_a_new_table_comes_last(text):
    after = with_bars(text, ("gates", "ckpt/step-1"), {"b": 0.5, "a": 0.25})
    assert after.startswith(text)
    assert tomllib.loads(after)["gates"] == {
        "ckpt/step-1": {"a": {"pass_rate": 0.25}, "b": {"pass_rate": 0.5}}
    }
    assert ("\r\n" in after) == ("\r" in text)
    assert after.endswith("\n")
    assert "\n".join(lines_of(("gates", "ckpt/step-1"), {"a": 0.25, "b": 0.5})) in after.replace(
        "\r\n", "\n"
    )


def test_windows_line_ends_stay():
    after = with_bars(PROJECT.replace("\n", "\r\n"), TABLE, {"needle": 0.5})
    assert "\n" not in after.replace("\r\n", "")
    assert after.replace("\r\n", "\n") == PROJECT.replace("pass_rate = 0.1", "pass_rate = 0.5")


@pytest.mark.parametrize(
    "text",
    [
        "tool.llmprobe.gates.mine.needle.pass_rate = 0.1\n",
        "[tool.llmprobe]\ngates = { mine = { needle = { pass_rate = 0.1 } } }\n",
        "[tool.llmprobe.gates.mine.needle]\npass_rate = 0.1\n",
        "[tool.llmprobe.gates.mine]\nneedle.pass_rate = 0.1\nneedle.rule = 'observed'\n",
        "[tool.llmprobe]\ngates = 1\n",
        "[[tool.llmprobe.gates.mine]]\nneedle = { pass_rate = 0.1 }\n",
        "[tool",
    ],
)
def test_what_cannot_be_changed_line_by_line_is_refused(text):
    with pytest.raises(SettingsError):
        with_bars(text, TABLE, {"needle": 0.5})


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@settings(deadline=None, max_examples=150)
@given(
    st.dictionaries(names, st.floats(0.01, 1), min_size=1, max_size=4),
    st.dictionaries(names, st.floats(0.01, 1), min_size=1, max_size=4),
    names,
)
def test_whatever_the_names_are_the_file_reads_as_it_should(first, second, model):
    table = ("tool", "llmprobe", "gates", model)
    text = with_bars(PROJECT, table, first)
    both = with_bars(text, table, second)
    found = tomllib.loads(both)
    entries = found["tool"]["llmprobe"]["gates"].pop(model)
    before = {} if model != "mine" else tomllib.loads(PROJECT)["tool"]["llmprobe"]["gates"]["mine"]
    for name, bar in (first | second).items():
        if before.get(name) is not False:
            assert entries.pop(name)["pass_rate"] == bar
    assert entries == {name: before[name] for name in entries}
    assert both.startswith(PROJECT[:200])


@given(st.floats(0, 1))
def test_a_bar_is_rounded_down_and_never_zero(low):
    bar = lower_bar(low)
    assert (bar is None) == (low < 0.01 - 1e-9)
    if bar is not None:
        assert bar <= low + 1e-9 < bar + 0.01 + 1e-9
        assert math.isclose(bar * 100, round(bar * 100))
