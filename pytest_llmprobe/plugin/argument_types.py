"""What options take, for argparse: each reads a text or says in one line why it cannot.

Imported in every pytest run of the environment, so nothing of weight is imported here.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_llmprobe.suite import AnswerRoom


def positive(text: str) -> int:
    """A whole number from 1 up, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def auto_or_positive(text: str) -> int | None:
    """``auto`` (None) or a whole number from 1 up, for argparse."""
    return None if text == "auto" else positive(text)


def positive_number(text: str) -> float:
    """A number above 0, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Seconds, or a number with its unit, for argparse."""
    found = re.fullmatch(r"([\d.]+)([smhd]?)", text.strip(), re.ASCII)
    try:
        return positive_number(found[1] if found else "") * UNITS_S[found[2] if found else ""]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 30m or 2h") from None


RESERVED = {
    **dict.fromkeys(("model", "messages", "prompt", "system", "n", "stream"), "is set by the run"),
    **dict.fromkeys(("temperature", "top_p", "top_k", "min_p"), "is given by --llmprobe-generate"),
    **dict.fromkeys(
        ("max_tokens", "max_completion_tokens"), "is given by --llmprobe-max-new-tokens"
    ),
    **dict.fromkeys(("stop", "stop_sequences"), "is the evaluations'"),
    "seed": "is given by --llmprobe-seed",
}
"""What a request holds anyway, by what decides it."""


def server_option(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` of every request's body, for argparse; the value as that of a template."""
    try:
        name, value = template_argument(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not KEY=VALUE, such as reasoning_effort=low"
        ) from None
    if name in RESERVED:
        raise argparse.ArgumentTypeError(f"{name} {RESERVED[name]}")
    return name, value


def template_argument(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` of a chat template, for argparse: true, false, null, numbers, JSON, or a text.

    The value is read as JSON if it is any.
    """
    import json

    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as enable_thinking=true")
    plain = {"True": True, "False": False, "None": None}
    if value in plain:
        return name.strip(), plain[value]
    try:
        return name.strip(), json.loads(value, parse_constant=lambda word: word)
    except ValueError:
        return name.strip(), value


def whole(text: str) -> int:
    """A whole number from 0 up, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def allowed_drop(text: str) -> float:
    """A drop of a pass rate from 0 to below 1, for argparse."""
    from pytest_llmprobe.errors import SettingsError
    from pytest_llmprobe.report.plan import checked_drop

    try:
        return checked_drop(float(text))
    except (SettingsError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no drop of a pass rate: give a number from 0 to below 1, such as 0.02"
        ) from None


def deltas(text: str) -> tuple[float, ...]:
    """Numbers with commas between, for argparse."""
    from pytest_llmprobe.errors import SettingsError
    from pytest_llmprobe.generation import delta_grid

    try:
        return delta_grid([float(number) for number in text.split(",")])
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 0,1,2") from None


def answer_room(text: str) -> AnswerRoom:
    """``N`` tokens or ``xF`` times what the evaluations give, for argparse."""
    from pytest_llmprobe.suite import AnswerRoom

    if not text.startswith("x"):
        try:
            return AnswerRoom(positive(text))
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}, nor a factor such as x2") from None
    return AnswerRoom(factor=positive_number(text[1:]))


def layer_sets(text: str) -> tuple[str | tuple[int, ...], ...]:
    """Sets of layers, each as for `layers`, with slashes between, for argparse."""
    sets = [layers(part.strip()) for part in text.split("/")]
    if len(set(sets)) < len(sets):
        raise argparse.ArgumentTypeError(f"{text!r} names a set of layers twice")
    return tuple(sets)


def layers(text: str) -> str | tuple[int, ...]:
    """``all``, ``first``, ``last``, or numbers and ranges with commas between, for argparse."""
    if text in ("all", "first", "last"):
        return text
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip(), re.ASCII)
        chosen = range(int(found[1]), int(found[2] or found[1]) + 1) if found else ()
        if not chosen:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not all, first, last or numbers of layers such as 0,3-5"
            )
        numbers.update(chosen)
    return tuple(sorted(numbers))


def generation(text: str) -> dict[str, object]:
    """``temperature=0.7,top_p=0.9`` as generation options, for argparse."""
    from pytest_llmprobe.errors import SettingsError
    from pytest_llmprobe.generation import GenerateConfig

    given: dict[str, object] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or name in given:
            raise argparse.ArgumentTypeError(
                f"{part!r}: give NAME=NUMBER, each once, such as temperature=0.7,top_p=0.9"
            )
        try:
            given[name] = int(value) if value.strip().isdecimal() else float(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r}: {value!r} is no number") from None
        if name in ("stop", "max_new_tokens", "thinking_tokens"):
            raise argparse.ArgumentTypeError(
                f"{name} is not set here: the evaluations stop where an answer ends, and "
                "--llmprobe-max-new-tokens and --llmprobe-thinking-tokens give room"
            )
    try:
        GenerateConfig.of(**given)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return given


def told_date(text: str) -> str:
    """``today`` or a date, for argparse, as YYYY-MM-DD: workers are told the same day."""
    from datetime import date

    from pytest_llmprobe.errors import ModelError
    from pytest_llmprobe.models.dates import iso_date

    try:
        return date.today().isoformat() if text == "today" else iso_date(text)
    except ModelError:
        raise argparse.ArgumentTypeError(f"{text!r} is not today and no YYYY-MM-DD") from None
