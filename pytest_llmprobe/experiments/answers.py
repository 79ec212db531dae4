"""What all readings of answers share: one form of a text, values denied, values side by side.

A model's answer is untrusted and may be long: all of this takes linear time.
"""

from __future__ import annotations

import html
import re
from functools import cache

SEPARATOR = r"(?:[,.'_\u00b7\u066c\u00a0\u2007\u2009\u202f]|\{,\}|\\[,; ]|~)"
"""What may stand between the thousands of a number, besides a space."""

WRONG = frozenset(
    {
        *("denied", "hedged"),
        *("invented_uuid", "other_key_in_haystack", "other_value_in_haystack"),
        *("shorter_branch", "wrong_order"),
        *("decoy", "known", "other_value"),
        *("duplicate_keys", "in_list", "invalid", "not_json", "several_objects"),
        *("loop", "mixed", "stop_words"),
        *("exposed", "extracted", "told_apart", "verbatim"),
    }
)
"""Failures of an answer that is complete and wrong: what might have followed would not mend it."""

_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff\ufe0f]")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_ALIKE = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\u2039\u203a\uff07", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u300c\u300d\uff02", '"'),
    **dict.fromkeys("\u2010\u2011\uff0d\ufe63", "-"),
    "\uff0c": ",",
    "\uff0e": ".",
}
_TO_ASCII = str.maketrans(_ALIKE)

_MARKS = r"[\s\"'`*_()\[\]<>{}]*"
_FILLER = (
    r"the|a|an|be|is|it|equal|to|value|values|key|keys|answer|number|word|city|necessarily|actually"
    r"|really|simply|just|le|la|die|der|das|el"
)
_DENIED_BEFORE = re.compile(
    r"(?:(?<![a-z])(?:not|never|cannot|neither|nor|nicht|kein|keine|pas|no\s+es|instead\s+of"
    r"|(?:anything|everything)\s+(?:but|except)|rather\s+than|ruled?\s+out|reject(?:ed)?"
    r"|tempting\s+to\s+(?:say|answer|think)"
    r"|(?:thought|think|assumed?|guess(?:ed)?)\s+(?:that\s+)?(?:it|this|the\s+\w+)"
    r"\s+(?:was|were|might\s+be|would\s+be))|n't|\u4e0d\u662f)"
    rf"(?:\s+(?:{_FILLER}))*[\s\"'`*_\[(<]*\Z",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    rf"{_MARKS}(?:(?:is|was|are|seems|looks)(?:\s+not|n't)\s+(?:the\s+|a\s+)?"
    r"(?:right|correct|final|actual|true|(?:(?:magic|secret|home|corresponding|requested)\s+)?"
    r"(?:value|answer|number|word|city)|it)\b"
    r"|(?:is|was|are|seems|looks)\s+(?:the\s+)?(?:wrong|incorrect|false|invalid)\b"
    r"|(?:is|was|are)(?:\s+not|n't)\s+(?:what|the\s+one)\b|\?[\s\"'`*_]*(?:hmm+,?\s+)?no\b"
    r"|,?\s+but\s+(?:I\s+)?(?:rejected|dismissed|discarded|ruled)\b"
    r"|,?\s+but\s+(?:that|this|it)(?:'s|\s+is)\s+(?:the\s+)?(?:wrong|incorrect|not)\b"
    r"|[^.!?\n]{0,40}?(?:belongs?\s+to|(?:is|was)(?:\s+the\s+\w+)?\s+(?:of|for|about)|refers?\s+to)"
    r"\s+(?:something|someone|somebody|another|a\s+different|some\s+other)\b)",
    re.IGNORECASE,
)
_REACH = 80
"""Characters before or after a value in which a denial of it may stand."""

_DIRECTLY = re.compile(rf"{_MARKS}(?:[,;/|&+]|(?<![a-z])and(?![a-z])){_MARKS}")
_EITHER = re.compile(
    r"(?<![a-z])(?:or|either|alternatively|otherwise|perhaps|maybe|possibly|could|might|may|oder"
    r"|ou)(?![a-z])|\u6216",
    re.IGNORECASE,
)
_GAP = 60
"""Characters at most between two values that are offered as alternatives."""


def is_final(failure: str) -> bool:
    """Whether more room could not have mended an answer that failed so.

    A miss of any other kind says ``cut_off`` first where the answer had no room left.
    """
    return failure in WRONG or len(failure) == 2  # the code of a language that is not the one


def plain(answer: str) -> str:
    r"""An answer in one form: the same text without what only shows or encodes it.

    HTML entities and ``\uXXXX`` are decoded, characters that nobody sees are dropped; quotes,
    hyphens and digits of other scripts become ASCII's. Dashes stay.
    """
    text = html.unescape(answer) if "&" in answer else answer
    text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    if text.isascii():
        return text
    text = _INVISIBLE.sub("", text).translate(_TO_ASCII)
    return _OTHER_DIGIT.sub(lambda found: str(int(found[0])), text)


def is_denied(text: str, start: int, end: int) -> bool:
    """Whether a `plain` text says of the value between two places that it is not the one."""
    before = text[max(0, start - _REACH) : start]
    return bool(_DENIED_BEFORE.search(before) or _DENIED_AFTER.match(text, end, end + _REACH))


def offers_both(gap: str, *, listed: bool = True) -> bool:
    """Whether what stands between two values makes them alternatives: ``or``, ``it could be``.

    With ``listed`` also a comma, a slash or ``and`` alone.
    """
    if len(gap) > _GAP:
        return False
    return bool(_EITHER.search(gap) or (listed and _DIRECTLY.fullmatch(gap)))


@cache
def number_pattern(digits: str) -> str:
    """A pattern of a whole number: as it is, or with one separator between its thousands.

    Indian English separates otherwise: ``8,82,776``.
    """
    head = len(digits) % 3 or 3
    groups = [digits[:head], *(digits[i : i + 3] for i in range(head, len(digits), 3))]
    if len(groups) == 1:
        return digits
    first, *rest = groups[1:]
    again = "".join(f"(?P=between){group}" for group in rest)
    forms = [
        digits,
        f"{groups[0]}(?P<between>{SEPARATOR}){first}{again}",
        rf"(?<!\d ){'[ ]'.join(groups)}(?![ ]\d{{3}}(?!\d))",
    ]
    if len(digits) > 5:
        head = (len(digits) - 3) % 2 or 2
        pairs = [digits[:head], *(digits[i : i + 2] for i in range(head, len(digits) - 3, 2))]
        forms.append(",".join([*pairs, digits[-3:]]))
    return f"(?:{'|'.join(forms)})"
