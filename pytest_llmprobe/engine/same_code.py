"""Whether a function is another one, word for word, but for its name and what it says of itself."""

from __future__ import annotations

from types import FunctionType
from typing import Any


def same_code(one: Any, other: Any, name: str) -> bool:
    """Whether functions of two classes or modules have the same instructions."""
    first, second = getattr(one, name, None), getattr(other, name, None)
    if not isinstance(first, FunctionType) or not isinstance(second, FunctionType):
        return False
    if not is_plain(first) or first.__defaults__ != second.__defaults__:
        return False
    return _instructions(first) == _instructions(second)


def is_plain(function: Any) -> bool:
    """A function that is all there is: nothing is wrapped around another one."""
    plain = isinstance(function, FunctionType) and not function.__closure__
    return plain and not hasattr(function, "__wrapped__")


def _instructions(function: FunctionType) -> tuple[object, ...]:
    """Code without its texts: a docstring is a constant, too."""
    code = function.__code__
    numbers = [constant for constant in code.co_consts if not isinstance(constant, str)]
    return code.co_code, code.co_names, code.co_varnames, numbers
