"""What a chat template may call: filters, methods, functions, each with what it makes at most."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import wraps
from types import BuiltinMethodType, MethodType
from typing import TYPE_CHECKING, Any

from jinja2 import Undefined, pass_eval_context
from jinja2.filters import do_center, do_format, do_indent, do_join, do_replace, do_round, do_sum
from jinja2.runtime import BlockReference, LoopContext, Macro
from jinja2.utils import Cycler, Joiner
from markupsafe import Markup

from pytest_llmprobe.errors import TemplateTooCostlyError
from pytest_llmprobe.models.template_budget import (
    ESCAPED,
    STEP,
    budget,
    format_cost,
    percent_cost,
    product_cost,
    replacement_cost,
)

if TYPE_CHECKING:
    from jinja2.nodes import EvalContext

TEXT_FILTERS = {
    **dict.fromkeys(("capitalize", "lower", "safe", "title", "trim", "truncate", "upper"), 3),
    **dict.fromkeys(("string", "escape", "e", "forceescape"), ESCAPED),
}
"""Filters that make a text, and how many characters of one; upper case has up to three."""

OTHER_FILTERS = frozenset(
    (
        *("abs", "attr", "count", "d", "default", "dictsort", "first", "float", "groupby", "int"),
        *("items", "last", "length", "list", "map", "max", "min", "reject", "rejectattr"),
        *("reverse", "select", "selectattr", "sort", "unique", "wordcount"),
    )
)
"""Filters that make a number, one of the things they are given, or a list of them."""

LETTERS = ("do_dictsort", "do_list", "do_sort", "do_unique")

TEXT_METHODS = frozenset(
    (
        *("upper", "lower", "title", "capitalize", "casefold", "swapcase", "strip", "lstrip"),
        *("rstrip", "removeprefix", "removesuffix", "startswith", "endswith", "find", "rfind"),
        *("index", "rindex", "count", "partition", "rpartition", "split", "rsplit", "splitlines"),
        *("isdigit", "isalpha", "isalnum", "isnumeric", "isdecimal", "isspace", "isupper"),
        *("islower", "istitle", "isascii", "replace", "join", "ljust", "rjust", "center", "zfill"),
    )
)
METHODS: dict[type, frozenset[str]] = {
    str: TEXT_METHODS,
    Markup: TEXT_METHODS,
    dict: frozenset(("get", "items", "keys", "values", "copy")),
    list: frozenset(("index", "count", "copy")),
    tuple: frozenset(("index", "count")),
    datetime: frozenset(("strftime",)),
    LoopContext: frozenset(("cycle", "changed")),
    Cycler: frozenset(("next", "reset")),
}
OBJECTS = (Macro, LoopContext, BlockReference, Joiner, Undefined)


def bounded_filters(filters: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Those of Jinja's filters that chat templates use, counted."""
    return {
        **{name: _text(filters[name], by) for name, by in TEXT_FILTERS.items()},
        **{name: counted(filters[name]) for name in OTHER_FILTERS},
        "tojson": _to_json,
        "join": _join,
        "replace": _replace,
        "indent": _indent,
        "center": _center,
        "format": _format,
        "round": _round,
        "sum": _sum,
    }


def may_be_called(function: object) -> bool:
    """Whether it is known what a call makes: of a macro, or of a method of the known ones."""
    if isinstance(function, (*OBJECTS, Formatted)):
        return True
    if not isinstance(function, BuiltinMethodType | MethodType):
        return False
    return function.__name__ in METHODS.get(type(function.__self__), ())


class Formatted:
    """``str.format`` or ``str.format_map`` of a text, counted."""

    def __init__(self, form: Callable[..., str], method: Any) -> None:
        self._form, self._text, self.__name__ = form, method.__self__, method.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        """The text with the values in it."""
        budget().spend(format_cost(self._text, args, kwargs))
        return self._form(*args, **kwargs)


def _text(function: Any, by: int) -> Any:
    """A filter whose text has at most so many characters for one of what it is given."""

    @wraps(function)  # and what Jinja passes to it
    def spending(*args: Any, **kwargs: Any) -> Any:
        budget().spend(by * sum(map(budget().text_weight, (*args, *kwargs.values()))))
        return budget().made(function(*args, **kwargs))

    return spending


def counted(function: Any) -> Any:
    """A filter or a test that makes no text; of a text it may make a list of letters."""

    @wraps(function)
    def spending(*args: Any, **kwargs: Any) -> Any:
        budget().weights((*args, *kwargs.values()))
        letters = sum(len(value) for value in args if isinstance(value, str))
        budget().spend(STEP * letters if function.__name__ in LETTERS else 0)
        return budget().made(function(*args, **kwargs))

    return spending


def is_join(function: Any) -> bool:
    """Whether it is a text's ``join``, which takes what can be gone through only once."""
    return isinstance(getattr(function, "__self__", None), str) and function.__name__ == "join"


def call_cost(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Characters of what a call makes, at most."""
    spent = budget()
    given = spent.weights((*args, *kwargs.values()))
    text = getattr(function, "__self__", None)
    if isinstance(text, datetime):
        return 256 * given  # Python's strftime gives up there
    if not isinstance(text, str):
        return 0
    grown, name = ESCAPED if isinstance(text, Markup) else 3, function.__name__
    cost = len(text) + given
    if name == "replace":
        cost = replacement_cost(text, *args[:2])
    elif name == "join":
        cost = given + len(text) * len(args[0])
    elif name in ("ljust", "rjust", "center", "zfill"):
        cost += sum(abs(value) for value in args if isinstance(value, int))
    elif name in ("split", "rsplit", "splitlines"):
        separator = next((value for value in args if isinstance(value, str)), None)
        pieces = text.count(separator) if separator else len(text) // 2
        cost += STEP * pieces
    return grown * cost


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As ``json.dumps``, in pieces that are counted."""
    budget().weight(value)
    if isinstance(indent, int):
        budget().spend(max(indent, 0))  # it is made a text at once
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    pieces = []
    for piece in encoder.iterencode(value):
        budget().spend(len(piece))
        pieces.append(piece)
    return "".join(pieces)


@pass_eval_context
def _join(
    context: EvalContext, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    values, spent = list(value), budget()
    cost = sum(map(spent.text_weight, values)) + len(values) * spent.text_weight(d)
    spent.spend(cost * (ESCAPED if context.autoescape else 1))
    joined: str = do_join(context, values, d, attribute)
    return joined


@pass_eval_context
def _replace(context: EvalContext, s: Any, old: str, new: str, count: int | None = None) -> str:
    budget().spend(budget().text_weight(s))
    cost = replacement_cost(str(s), str(old), str(new))
    budget().spend(cost * (ESCAPED if isinstance(s, Markup) else 1))
    return do_replace(context, s, old, new, count)


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    by = len(width) if isinstance(width, str) else width
    budget().spend(len(s) + (1 + len(s.splitlines())) * max(by, 0))
    return do_indent(s, width, first, blank)


def _center(value: str, width: int = 80) -> str:
    budget().spend(budget().text_weight(value) + max(width, 0))
    return do_center(value, width)


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    budget().spend(percent_cost(str(value), args or tuple(kwargs.values())))
    return do_format(value, *args, **kwargs)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    budget().spend(product_cost("**", 10, abs(precision)))
    return do_round(value, precision, method)


@pass_eval_context
def _sum(
    context: EvalContext,
    iterable: Iterable[Any],
    attribute: str | int | None = None,
    start: Any = 0,
) -> Any:
    values = list(iterable)
    budget().weight(values)
    if not isinstance(start, int | float):
        raise TemplateTooCostlyError("the chat template adds up what are no numbers")
    return do_sum(context.environment, values, attribute, start)
