"""The table of one model's bars in a TOML file: written, with every other byte left as it is.

No TOML library at hand keeps comments, so lines are exchanged, and what came of it is read again:
if anything but this table has changed, nothing is written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.models.settings import read_toml

DIGITS = 100
"""Bars are whole hundredths."""


def lower_bar(low: float) -> float | None:
    """The bar for the lower end of an interval, rounded down; None if nothing would be below it."""
    bar = math.floor(low * DIGITS + 1e-9) / DIGITS
    return bar if bar > 0 else None


def with_bars(text: str, table: Sequence[str], bars: Mapping[str, float]) -> str:
    """A TOML text in which a table has these pass rates.

    What an entry says beside its pass rate stays, and so does an entry that is ``false``.

    Args:
        text: The file's.
        table: Names of the table and of those that it is in.
        bars: Pass rates by experiment.

    Raises:
        SettingsError: The text is no TOML, or has the table in a form that cannot be changed line
            by line.
    """
    try:
        before = read_toml(text)
    except ValueError as error:
        raise SettingsError(f"it is no TOML: {error}") from None
    wanted = deepcopy(before)
    entries: Any = wanted
    for name in table:
        entries = entries.setdefault(name, {}) if isinstance(entries, dict) else None
    if not isinstance(entries, dict):
        raise SettingsError(f"{'.'.join(table)} is no table")
    for name, bar in bars.items():
        if entries.get(name) is not False:
            old = entries.get(name)
            entries[name] = {"pass_rate": bar} | (old if isinstance(old, dict) else {})
            entries[name]["pass_rate"] = bar
    changed = {name: entries[name] for name in bars if entries[name] is not False}
    written = _written(text, table, changed)
    try:
        unchanged = read_toml(written) == wanted
    except ValueError:
        unchanged = False
    if not unchanged:
        raise SettingsError(
            f"the table [{_header(table)}] is not written line by line, so it cannot be changed "
            "here: use --print and put the lines in by hand"
        )
    return written


def lines_of(table: Sequence[str], bars: Mapping[str, float]) -> list[str]:
    """A whole table of pass rates."""
    entries = [_entry(name, {"pass_rate": bar}) for name, bar in sorted(bars.items())]
    return [f"[{_header(table)}]", *entries]


def _written(text: str, table: Sequence[str], entries: Mapping[str, Mapping[str, Any]]) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)  # splitlines knows more ends than TOML
    span = _span(lines, table)
    if span is None:
        gap = "" if not text else end if text.endswith(("\n", "\r")) else end + end
        new = [f"[{_header(table)}]", *(_entry(n, entries[n]) for n in sorted(entries))]
        return text + gap + "".join(line + end for line in new)
    first, last = span
    body, left = [], dict(entries)
    for line in lines[first:last]:
        name = _key(line)
        if name in left:
            line = _entry(str(name), left.pop(str(name))) + _after_value(line) + end
        body.append(line)
    new = [_entry(name, left[name]) + end for name in sorted(left)]
    place = max((n for n, line in enumerate(body, 1) if _key(line) is not None), default=0)
    before = [*lines[:first], *body[:place]]
    if new and not before[-1].endswith("\n"):
        before[-1] += end
    return "".join([*before, *new, *body[place:], *lines[last:]])


def _span(lines: Sequence[str], table: Sequence[str]) -> tuple[int, int] | None:
    """The lines of a table's entries: behind its header, up to the next one."""
    first = None
    for number, header in _headers(lines):
        if first is not None:
            return first, number
        if header == list(table):
            first = number + 1
    return None if first is None else (first, len(lines))


def _headers(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines):
        if line.lstrip().startswith("[") and _reads("".join(lines[:number])):
            try:  # a line within a text or a list of several lines is none
                found, names = read_toml(line), list[str]()
            except ValueError:
                continue
            while isinstance(found, dict) and found:
                ((name, found),) = found.items()
                names.append(name)
            yield number, names


def _reads(text: str) -> bool:
    try:
        read_toml(text)
    except ValueError:
        return False
    return True


def _key(line: str) -> str | None:
    """The first key of a line, if it is an entry."""
    try:
        return next(iter(read_toml(line)), None)
    except ValueError:
        return None


def _after_value(line: str) -> str:
    """A comment behind an entry's value, with the space before it."""
    bare = line.rstrip("\r\n")
    for place in (found.start() for found in re.finditer(r"\s*#", bare)):
        if _reads(bare[:place]) and read_toml(bare[:place]) == read_toml(bare):
            return bare[place:]
    return bare[len(bare.rstrip()) :]


def _entry(name: str, values: Mapping[str, Any]) -> str:
    return f"{_text_key(name)} = {_value(values)}"


def _header(table: Sequence[str]) -> str:
    return ".".join(map(_text_key, table))


def _text_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name, re.ASCII) else _value(name)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_text_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
