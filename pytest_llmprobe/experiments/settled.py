"""What an answer stands by: not what it strikes out, takes back or says only to refuse.

``A ... wait, no: B`` says B. ``The text mentions A, but I cannot tell`` says nothing. Where an
answer says what is final (``So the answer is: B``), that decides.

Answers are `plain` and may be long: all of this takes linear time.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

Places: TypeAlias = Callable[[str], Sequence[tuple[int, int]]]
"""Where a text says values of the kind that is asked for, right or wrong, in order."""

_STRUCK = re.compile(
    r"~~(?=\S)[^\n]{1,200}?(?<=\S)~~|<(?P<tag>del|strike)>[^\n]{1,200}?</(?P=tag)>", re.IGNORECASE
)
_THOUGHT_ENDS = re.compile(
    r"</(?:thinking|thoughts?|scratchpad|reasoning|analysis|reflection)>", re.IGNORECASE
)

_MISTAKEN = (
    r"(?:that|this|it)(?:'s|\s+is|\s+was)\s+(?:wrong|incorrect|a\s+mistake|not\s+(?:right|correct))"
)
_TAKEN_BACK = re.compile(
    r"(?=[cefilnrstw\u66f4\u4e0d])(?:"  # how all of them begin, for speed
    rf"\bwait\b[\W_]*(?:no\b|{_MISTAKEN})|\b(?:no|nope)\b[,.!]?\s*(?:wait\b|{_MISTAKEN})"
    rf"|\b(?:scratch|strike|forget|ignore)\s+that\b|(?<!\w){_MISTAKEN}"
    r"|\b(?:(?:self-)?correction|corrected|edit|revised)\b[*_]*\s*(?::|-|!|\u2013|\u2014)"
    r"|\bI\s+see\s+my\s+(?:error|mistake)\b|\bI\s+(?:have\s+|just\s+)?"
    r"(?:made\s+(?:a|an)\s+(?:mistake|error)|was\s+wrong|misread|misspoke|misstated)\b"
    r"|\blet\s+me\s+correct\b|\u66f4\u6b63|\u4e0d\u5bf9"
    r")",
    re.IGNORECASE,
)
"""What takes back what was said before it."""

_REPLACED = re.compile(
    r"(?:\b(?:hmm+|oops|no|nein|non|sorry|moment|attendez|espera)\b[\W_]*)?"
    r"(?:\?\s{0,4}(?:hmm+,?\s+)?no\b|[.,;:!?\n(\u2013\u2014-]\s{0,4}(?:no\s*(?:[:,-]|\.(?!\s?\d{1,2}\b))|nein\b|(?:no,?\s+)?I\s+mean[t]?\b|oops\b"
    r"|(?:or\s+|oder\s+|ou\s+)rather\b|(?:hmm+,?\s+)?actually\b|on\s+second\s+thoughts?\b"
    r"|my\s+mistake\b|let\s+me\s+double-?check\b))",
    re.IGNORECASE,
)
"""What takes it back only if another value follows, or a refusal."""

_ONLY_IF = re.compile(
    r"\b(?:if|unless|whether|should|hope|case|not|never|don't\s+think)\b[^.!?\n]{0,40}\Z",
    re.IGNORECASE,
)
_BACK = 160
"""Characters before words that take back, in which the value stands that they are about."""

_VERB = (
    r"(?:determine|tell|confirm|answer|identify|verify|say|provide|give|help|decide|conclude|find"
    r"|locate|see|know|be\s+sure|be\s+certain|infer|deduce|extract|retrieve|reveal|share|disclose)"
)
_KNOWN = r"(?:stated|given|specified|provided|available|present|found|known)"
_REFUSAL = re.compile(
    r"(?=[acdiknruvw']|\A)"
    r"(?:\b(?:can(?:not|'t|\s+not)|could(?:n't|\s+not)"
    r"|(?:am|was|'m|are|were)\s+(?:unable|not\s+able)\s+to|unable\s+to|impossible\s+to|will\s+not"
    rf"|won't|no\s+way\s+to|refuse\s+to|decline\s+to|rather\s+not)\s+(?:\w+ly\s+)?{_VERB}\b"
    r"|\bcan(?:not|'t)\s+be\s+(?:determined|found|inferred|known|answered|identified)\b"
    r"|\b(?:do\s+not|don't)\s+know\b|\bno\s+idea\b|\binsufficient\s+information\b"
    r"|(?:\bnot|n't)\s+(?:have\s+|contain\s+|give\s+)?enough\s+(?:information|context)\b"
    r"|\bno\s+(?:clear\s+|definite\s+)?answer\b|\bN/A\b|\b(?:unclear|uncertain)\s+(?:whether|if)\b"
    rf"|\b(?:answer|value|information|it)\s+(?:is|was)(?:\s+not|n't)\s+{_KNOWN}\b"
    rf"|(?:\A\W*|\banswer\W{{1,6}})(?:unknown|not\s+{_KNOWN})\b"
    r"|\bkann\b[^.!?\n]{0,60}\bnicht\b|\bne\s+(?:peux|sais)\b|\bno\s+(?:puedo|s\u00e9)\b)"
    r"(?![^.!?\n]{0,30}\b(?:other|else\w*|more|further|again"
    r"|(?:as|among|in|is|an?|any)\s+(?:\w+\s+){0,2}keys?)\b)",
    re.IGNORECASE,
)
_HEARSAY = re.compile(
    r"\b(?:mention(?:s|ed)?|appears?|occurs?|contains?|nearest|closest|whether|only\s+one\s+of"
    r"|candidates?|kommt|unrelated|something\s+else|text\s+has)\b|\?\s*\Z",
    re.IGNORECASE,
)
_BUT = re.compile(
    r"\b(?:but|however|nevertheless|nonetheless|still|yet)\b"
    r"|,(?=\s+(?:the|my)\s[^,.!?\n]{0,80}\bis\b)",
    re.IGNORECASE,
)
_NO = re.compile(r"\s*no\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[^\n]+?(?:[.!?](?=[\s*_\"')]|\Z)|(?=\n)|\Z)")

_ONE = "value|word|city|number|result|location"
_MANY = "answers?|lists?|results|values|words|names|variables|conclusion"
_VERBS = (
    r"(?:\s+(?:is|are|was|were|would\s+be|must\s+be|should\s+be)\b|\s*(?:[:=\uff1a]|->|\u2192))"
)
_MARK = r"[\"'`*_]*"


def _cues(nouns: str) -> re.Pattern[str]:
    return re.compile(
        rf"\b(?:final|correct|right|actual|true|corrected|requested|the|my|so|answer|conclusion)"
        rf"\s+(?:{nouns})\b{_MARK}(?:\s+(?:of|to|for|from|in)\b[^.\n:]{{0,120}}?)?{_MARK}{_VERBS}"
        rf"|\b(?:answer|conclusion|final){_MARK}\s*[:=\uff1a]"
        rf"|(?P<weak>\b(?:therefore|thus|hence|so)\b(?![^.\n:]{{0,80}}\b(?:final|answer|{nouns})\b)"
        r"[^.\n:]{0,80}(?:[:\uff1a]|\b(?:is|are)\b))"
        r"|\\boxed\b|</?(?:final_?)?answer>|\[/?answer\]|####|\u7b54\u6848(?:\u662f|\s*[:\uff1a])",
        re.IGNORECASE,
    )


_CUES = {True: _cues(f"{_ONE}|{_MANY}"), False: _cues(_MANY)}  # whether one value is asked for
_DIRECTLY = re.compile(
    r"(?:[\W\d_]|\b(?:text|textbf|textit|texttt|mathrm|mathtt|mathbf|boxed|final|the|an?|is|are"
    r"|value|values|answer|key|word|city|number|array|item|quad|n|json|xml)\b)*",
    re.IGNORECASE,
)


class Conclusion(NamedTuple):
    """What an answer says in the end.

    Args:
        text: From there on.
        head: The value that follows directly, as it is written; empty if other text does.
    """

    text: str
    head: str


WITHDRAWN = "withdrawn: it does not stand by what it says"
"""Why an answer is missed that takes back all that it says."""


@dataclass(frozen=True)
class Asked(Generic[T]):
    """How answers to a question are read.

    Args:
        places: Says where values stand.
        required: How many are asked for.
        judge: The verdict on a text.
        is_right: Whether a verdict is that of a right answer.
        is_wanted: Whether a value is one of those that are asked for.
    """

    places: Places
    required: int
    judge: Callable[[str], T]
    is_right: Callable[[T], bool]
    is_wanted: Callable[[str], bool]

    def verdict(self, text: str) -> T | None:
        """The verdict on what an answer stands by, its end if it says what is final.

        None if it takes back all that it says.
        """
        kept = settled(text, self.places, self.required)
        if kept != text and not self.places(kept):
            if self.places(text):
                return None
            kept = text
        said, final = self.judge(kept), conclusion(kept, self.places, self.required)
        if final is None:
            first = self._first_line(kept)
            return self.judge(first) if first and not self.is_wanted(first) else said
        if final.head and not self.is_wanted(final.head):
            return self.judge(final.head)
        end = self.judge(final.text)
        return end if final.head or self.is_right(end) else said

    def _first_line(self, text: str) -> str:
        """The value that alone makes up the first line, before words about it; or nothing."""
        lines = [line for line in text.split("\n", 20)[:20] if line.strip()]
        if len(lines) < 2:
            return ""
        first, second = (
            [line[slice(*place)] for place in self.places(line) if _is_bare(line, *place)]
            for line in lines[:2]
        )
        return first[0] if first and not second else ""


def _is_bare(line: str, start: int, end: int) -> bool:
    return not re.search(r"[^\W\d_]", line[:start] + line[end:])


def settled(text: str, places: Places, required: int) -> str:
    """An answer without what it strikes out, takes back, or says only to refuse.

    Args:
        text: The answer, `plain`.
        places: Says where values stand.
        required: How many are asked for.
    """
    text = _STRUCK.sub(" ", text)
    if thoughts := list(_THOUGHT_ENDS.finditer(text)):
        rest = text[thoughts[-1].end() :]
        text = rest if places(rest) or _REFUSAL.search(rest) else text
    return _without_refused(_without_taken_back(text, places, required), places, required)


def conclusion(text: str, places: Places, required: int) -> Conclusion | None:
    """What an answer comes to, if it says so in words that it uses once: ``Final answer:``.

    Words that come again and again are labels of many values.
    """
    cues = list(_CUES[required == 1].finditer(text))
    spots = places(text) if cues else []
    kinds = Counter(_kind(cue[0]) for cue in cues)
    for cue in reversed(cues):
        if kinds[_kind(cue[0])] > 1 or not spots or spots[-1][0] < cue.end():
            continue
        start, end = spots[bisect_left(spots, (cue.end(), 0))]
        directly = not cue["weak"] and _DIRECTLY.fullmatch(text, cue.end(), start)
        return Conclusion(text[cue.end() :], text[start:end] if directly else "")
    return None


def _kind(cue: str) -> str:
    return " ".join(re.findall(r"[^\W\d_]+", cue.lower())[:2]) or cue


def _without_taken_back(text: str, places: Places, required: int) -> str:
    """What follows the last words that take back, where that is a whole answer.

    Where it is not, they are about the last value before them: ``A, B - wait, no, C``.
    """
    always, cues = list(_TAKEN_BACK.finditer(text)), list(_REPLACED.finditer(text))
    spots = places(text) if always or cues else []
    if not spots:
        return text
    cues = [
        one
        for one in cues
        if one.end() <= spots[-1][0] or _REFUSAL.search(text, one.end(), one.end() + 40)
    ] + always
    for cue in sorted(cues, key=lambda one: one.end(), reverse=True):
        before = spots[: bisect_left(spots, (cue.start(), 0))]
        if not before or _ONLY_IF.search(text, max(0, cue.start() - 60), cue.start()):
            continue
        rest, after = text[cue.end() :], spots[bisect_left(spots, (cue.end(), 0)) :]
        said = {text[start:end].lower() for start, end in after}
        if required == 1 or len(said) >= required:
            return rest
        start = before[-1][0]
        return f"{text[:start]} {rest}" if cue.start() - start < _BACK else text
    return text


def _without_refused(text: str, places: Places, required: int) -> str:
    """Without the sentences that refuse, and those that only say where a value was seen."""
    if not _REFUSAL.search(text):
        return text
    for cue in _CUES[required == 1].finditer(text):
        if (no := _REFUSAL.search(text, cue.end(), cue.end() + 80)) and not places(
            text[cue.end() : no.start()]
        ):
            return ""
    kept = []
    for sentence in _SENTENCE.finditer(text):
        said = sentence[0]
        if refusal := _REFUSAL.search(said):
            but = _BUT.search(said, refusal.end())
            no = _NO.match(said)  # which is about the value before it: A? No, I cannot tell.
            said = said[but.end() :] if but else no[0] if no else ""
        kept.append("" if _HEARSAY.search(said) else said)
    return "\n".join(kept)
