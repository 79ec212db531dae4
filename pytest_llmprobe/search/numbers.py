"""The number that an answer comes to, in whatever way it is written."""

from __future__ import annotations

import re

from pytest_llmprobe.experiments.answers import plain

_SIGN = r"(?:(?<![\w.,)\]}%])[-+\u2212\u2013](?:[$\u20ac\u00a3\u00a5]\s?)?)?"
_SPACES = "\u00a0\u2007\u2009\u202f"
_GROUPED = (
    r"\d{1,3}(?:,\d{3})+(?:\.\d+)?"  # 1,234.5
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?"  # 12,34,567
    r"|\d{1,3}(?:\.\d{3})+,\d+"  # 1.234,5
    r"|\d{1,3}(?:\.\d{3}){2,}"  # 1.234.567
    rf"|\d{{1,3}}(?:[ {_SPACES}]\d{{3}})+(?:[.,]\d+)?(?![\d])"  # 1 234,5
    r"|\d{1,3}(?:['_\u066c]\d{3})+(?:[.,]\d+)?"  # 1'234.5
    r"|\d{1,3}(?:(?:\{,\}|\\[,; ])\d{3})+(?:\.\d+)?"  # 1{,}234 and 1\,234 of LaTeX
)
_PLAIN = r"\d+(?:\.\d+)?|(?<![\w.])\.\d+"
_POWER = (
    r"(?:[eE](?P<e>[-+\u2212]?\d{1,4})(?![\w.])"
    r"|\s*(?:\u00d7|x|\*|\\times|\\cdot)\s*10(?:\^|\*\*)\{?(?P<ten>[-+\u2212]?\d{1,4})\}?"
    r"|\s*(?:\u00d7|x|\*)\s*10(?P<raised>[\u207b\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+))?"
)
_NUMBER = re.compile(f"(?P<sign>{_SIGN})(?P<digits>(?<!\\d)(?:{_GROUPED}|{_PLAIN})){_POWER}")
_RAISED = str.maketrans(
    "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079", "-0123456789"
)

_MARKED = re.compile(r"####[^\n]*")
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_NEXT_QUESTION = re.compile(r"\n\s*\n\s*(?:Question|Problem|Exercise|Q)\b[^\n:.]{0,20}[:.]")


def last_number(answer: str) -> float | None:
    r"""The number that an answer comes to, or None.

    That is the one after the first ``####`` (the form of GSM8K: what a model goes on to make up
    does not count), or else in the last ``\boxed{}``, or else the last one before the answer goes
    on to another question. Signs, decimals, exponents and separators between thousands are read as
    people write them: ``\u22123``, ``.5``, ``1e3``, ``1,234.50``, ``1.234,50``, ``12 500``; what
    joins two numbers is no sign: ``3-5``, ``2023-24``.
    """
    text = plain(answer)
    marked = _MARKED.search(text)
    if marked and (said := _numbers(marked[0])):
        return said[0]
    boxed = _BOXED.findall(text)
    if boxed and (said := _numbers(boxed[-1])):
        return said[-1]
    for end in (_NEXT_QUESTION.search(text), None):
        if said := _numbers(text[: end.start()] if end else text):
            return said[-1]
    return None


def _numbers(text: str) -> list[float]:
    return [_value(found) for found in _NUMBER.finditer(text)]


def _value(found: re.Match[str]) -> float:
    digits = re.sub(rf"[ {_SPACES}'_\u066c{{}}\\;]|(?<=\\),", "", found["digits"])
    if "," in digits and "." in digits:
        decimal = max(digits.rfind(","), digits.rfind("."))
        digits = re.sub("[,.]", "", digits[:decimal]) + "." + digits[decimal + 1 :]
    elif digits.count(".") > 1:
        digits = digits.replace(".", "")
    elif re.search(rf"[ {_SPACES}'_\u066c]", found["digits"]):
        digits = digits.replace(",", ".")  # 1 234,5
    digits = digits.replace(",", "")
    raised = (found["raised"] or "").translate(_RAISED)
    power = (found["e"] or found["ten"] or raised or "0").replace("\u2212", "-")
    sign = "-" if found["sign"][:1] in ("-", "\u2212", "\u2013") else ""
    return float(f"{sign}{digits}e{power}")
