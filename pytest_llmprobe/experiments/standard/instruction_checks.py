"""IFEval's instructions that a program can verify (arXiv 2311.07911), a function each.

Names, arguments and verdicts are those of its code as lm-evaluation-harness carries it
(tasks/ifeval/instructions.py), but for three: sentences are counted by a rule instead of a trained
model, capital words without a trained tokenizer, and all-capital or all-lowercase answers may be in
any language. ``language:response_language``, which needs a model of languages, is not here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Arguments: TypeAlias = Mapping[str, Any]
Check: TypeAlias = Callable[[str, Arguments], bool]

ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Sr|Jr|vs|etc|Inc|Ltd|e\.g|i\.e|[A-Z]))\.\Z"
)
_END = re.compile(r"[.!?]+[\"'\u201d\u2019)\]]*(?=\s)")


def _compared(count: int, arguments: Arguments, relation: str, number: str) -> bool:
    """``less than`` or ``at least`` so many."""
    bound = int(arguments[number])
    return count < bound if arguments.get(relation) == "less than" else count >= bound


def sentences(text: str) -> int:
    """How many sentences a text has: what ends in a stop, but for abbreviations and initials."""
    text = text.strip()
    ends = [found.end() for found in _END.finditer(text)]
    real = [at for at in ends if not _ABBREVIATION.search(text, max(0, at - 8), at)]
    return len(real) + 1 if text else 0


def _keywords(text: str, arguments: Arguments) -> bool:
    lower = text.lower()
    return all(str(word).lower() in lower for word in arguments["keywords"])


def _keyword_frequency(text: str, arguments: Arguments) -> bool:
    count = text.lower().count(str(arguments["keyword"]).strip().lower())
    return _compared(count, arguments, "relation", "frequency")


def _forbidden_words(text: str, arguments: Arguments) -> bool:
    words = "|".join(re.escape(str(word)) for word in arguments["forbidden_words"])
    return re.search(rf"\b(?:{words})\b", text, re.IGNORECASE) is None


def _letter_frequency(text: str, arguments: Arguments) -> bool:
    count = text.lower().count(str(arguments["letter"]).lower())
    return _compared(count, arguments, "let_relation", "let_frequency")


def _number_sentences(text: str, arguments: Arguments) -> bool:
    return _compared(sentences(text), arguments, "relation", "num_sentences")


def _number_paragraphs(text: str, arguments: Arguments) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    if any(not part.strip() for part in parts[1:-1]):
        return False
    return sum(bool(part.strip()) for part in parts) == int(arguments["num_paragraphs"])


def _number_words(text: str, arguments: Arguments) -> bool:
    return _compared(len(re.findall(r"\w+", text)), arguments, "relation", "num_words")


def _nth_paragraph_first_word(text: str, arguments: Arguments) -> bool:
    parts, nth = text.split("\n\n"), int(arguments["nth_paragraph"])
    count = sum(bool(part.strip()) for part in parts)
    if nth > count or not parts[nth - 1].strip():
        return False
    word = parts[nth - 1].split()[0].lstrip("'").lstrip('"')
    first = re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower()
    right = first == str(arguments["first_word"]).lower()
    return right and count == int(arguments["num_paragraphs"])


def _placeholders(text: str, arguments: Arguments) -> bool:
    return len(re.findall(r"\[[^\]\n]*\]", text)) >= int(arguments["num_placeholders"])


def _postscript(text: str, arguments: Arguments) -> bool:
    marker = str(arguments["postscript_marker"]).strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(known.get(marker, re.escape(marker.lower())), text.lower()) is not None


def _bullet_lists(text: str, arguments: Arguments) -> bool:
    bullets = re.findall(r"^[^\S\n]*(?:\*[^*\n]|-).*$", text, re.MULTILINE)
    return len(bullets) == int(arguments["num_bullets"])


def _constrained_response(text: str, _: Arguments) -> bool:
    return any(answer in text for answer in ANSWERS)


def _highlighted(text: str, arguments: Arguments) -> bool:
    single = re.findall(r"\*[^\n*]*\*", text)
    double = re.findall(r"\*\*[^\n*]*\*\*", text)
    count = sum(bool(found.strip("*").strip()) for found in single)
    count += sum(bool(found[2:-2].strip()) for found in double)
    return count >= int(arguments["num_highlights"])


def _sections(text: str, arguments: Arguments) -> bool:
    splitter = re.escape(str(arguments["section_spliter"]).strip())
    return len(re.findall(rf"{splitter}\s?\d+", text)) >= int(arguments["num_sections"])


def _json(text: str, _: Arguments) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str, _: Arguments) -> bool:
    found = re.findall(r"<<[^\n]+>>", text)
    return any(title.lstrip("<").rstrip(">").strip() for title in found)


def _two_responses(text: str, _: Arguments) -> bool:
    parts = text.split("******")
    if any(not part.strip() for part in parts[1:-1]):
        return False
    said = [part.strip() for part in parts if part.strip()]
    return len(said) == 2 and said[0] != said[1]


def _repeat_prompt(text: str, arguments: Arguments) -> bool:
    return text.strip().lower().startswith(str(arguments["prompt_to_repeat"]).strip().lower())


def _end(text: str, arguments: Arguments) -> bool:
    ending = str(arguments["end_phrase"]).strip().lower()
    return text.strip().strip('"').lower().endswith(ending)


def _quotation(text: str, _: Arguments) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _capital_words(text: str, arguments: Arguments) -> bool:
    count = sum(word.isupper() for word in re.findall(r"\w+(?:[-./]\w+)*", text))
    return _compared(count, arguments, "capital_relation", "capital_frequency")


def _capitals(text: str, _: Arguments) -> bool:
    return text.isupper()


def _lowercase(text: str, _: Arguments) -> bool:
    return text.islower()


def _no_comma(text: str, _: Arguments) -> bool:
    return "," not in text


CHECKS: Mapping[str, tuple[Check, tuple[str, ...]]] = {
    "keywords:existence": (_keywords, ("keywords",)),
    "keywords:frequency": (_keyword_frequency, ("keyword", "frequency")),
    "keywords:forbidden_words": (_forbidden_words, ("forbidden_words",)),
    "keywords:letter_frequency": (_letter_frequency, ("letter", "let_frequency")),
    "length_constraints:number_sentences": (_number_sentences, ("num_sentences",)),
    "length_constraints:number_paragraphs": (_number_paragraphs, ("num_paragraphs",)),
    "length_constraints:number_words": (_number_words, ("num_words",)),
    "length_constraints:nth_paragraph_first_word": (
        _nth_paragraph_first_word,
        ("num_paragraphs", "nth_paragraph", "first_word"),
    ),
    "detectable_content:number_placeholders": (_placeholders, ("num_placeholders",)),
    "detectable_content:postscript": (_postscript, ("postscript_marker",)),
    "detectable_format:number_bullet_lists": (_bullet_lists, ("num_bullets",)),
    "detectable_format:constrained_response": (_constrained_response, ()),
    "detectable_format:number_highlighted_sections": (_highlighted, ("num_highlights",)),
    "detectable_format:multiple_sections": (_sections, ("section_spliter", "num_sections")),
    "detectable_format:json_format": (_json, ()),
    "detectable_format:title": (_title, ()),
    "combination:two_responses": (_two_responses, ()),
    "combination:repeat_prompt": (_repeat_prompt, ("prompt_to_repeat",)),
    "startend:end_checker": (_end, ("end_phrase",)),
    "startend:quotation": (_quotation, ()),
    "change_case:capital_word_frequency": (_capital_words, ("capital_frequency",)),
    "change_case:english_capital": (_capitals, ()),
    "change_case:english_lowercase": (_lowercase, ()),
    "punctuation:no_comma": (_no_comma, ()),
}
"""The checks by their ids in IFEval's rows, and the arguments that each cannot do without."""

NOT_CHECKED = frozenset({"language:response_language"})
"""IFEval's ids that need more than a program."""
