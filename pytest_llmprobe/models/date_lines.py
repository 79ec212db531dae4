"""Prompts without the date of today, which some chat templates write into every one.

The template is rendered with a mark in place of the date, so that only the template's own date is
found and never one that a user wrote. Whatever the mark does not come out of as known is an error.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias

from jinja2 import TemplateError

from pytest_llmprobe.case import RawPrompt
from pytest_llmprobe.errors import RequestError
from pytest_llmprobe.models.chat_template import render
from pytest_llmprobe.models.dates import DATE_STRING, PINNED

Dates: TypeAlias = Literal["leave out", "pin"]

START, END = "\ue0f2", "\ue0f3"  # private use: no text has them
MARK = re.compile(f"{START}([^{START}{END}]*){END}")
# strftime_now is the only clock that a template has; the first lines hide it behind a macro.
PREFIX = (
    f"{{%- macro _marked(form) -%}}{START}{{{{ form }}}}{END}{{%- endmacro -%}}"
    "{%- set strftime_now = _marked -%}"
)
LINES = re.compile(  # of Llama 3, SmolLM3, gpt-oss and Granite; the blank line after them too
    r"(?:^|(?<=\n)|(?<=>))"
    r"(?:(?:Cutting Knowledge Date|Knowledge Cutoff Date|Knowledge cutoff): [^\n]*\n)?"
    rf"(?:Today Date|Today's Date|Current date): {MARK.pattern}\.?\n\n?"
)


def render_prompt(tokenizer: Any, text: str, dates: Dates = "leave out") -> RawPrompt:
    """A user's message as the model reads it and its token ids, without the date of today.

    ``leave out`` leaves out the lines that say the date and up to when the model knows the world,
    ``pin`` gives 26 July 2024 for the date. Without a chat template the text stays as it is.

    Raises:
        RequestError: The template refuses the message, or does something with the date that is
            not known here.
    """
    if not getattr(tokenizer, "chat_template", None):
        return RawPrompt(text, tuple(tokenizer(text)["input_ids"]))
    messages = [{"role": "user", "content": text}]
    try:
        rendered = _render(tokenizer, messages, dates)
    except (TemplateError, TypeError, ValueError) as error:
        raise RequestError(f"the chat template refuses this prompt: {error}") from error
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    return RawPrompt(rendered, tuple(ids))


def _render(tokenizer: Any, messages: list[dict[str, str]], dates: Dates) -> str:
    marked = _marked(tokenizer, messages)
    if dates == "pin":
        return MARK.sub(lambda found: PINNED.strftime(found[1]), marked)
    dateless = LINES.sub("", marked)
    if found := MARK.search(dateless):
        start, end = dateless.rfind("\n", 0, found.start()) + 1, dateless.find("\n", found.end())
        line = MARK.sub("DATE", dateless[start : None if end < 0 else end])[:200]
        raise RequestError(
            f"the chat template writes the date of today in an unknown form ({line!r}); pin the "
            "dates instead of leaving them out"
        )
    return dateless


def _marked(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The rendered messages with a mark, which holds the date's format, in place of each date."""
    template = tokenizer.get_chat_template()
    special = tokenizer.special_tokens_map
    plain = render(template, messages, special)
    if START in plain or END in plain:
        raise RequestError(f"the prompt holds {START!r} or {END!r}, which mark dates here")
    # Llama 3 takes a date by this name; a template that writes one only if given it is tried next.
    given: dict[str, str]
    for given in ({"date_string": f"{START}{DATE_STRING}{END}"}, {}):
        marked = render(PREFIX + template, messages, special, arguments=given)
        if re.fullmatch(_with_dates(marked), plain):
            return marked
    raise RequestError(
        "the chat template computes with the date of today, so that no prompt without it can be "
        "made; give the tokenizer a template without dates"
    )


def _with_dates(marked: str) -> str:
    """A pattern: the marked text with the date it is told in place of each mark, and no change."""
    pieces = MARK.split(marked)  # text, form, text, form, ... text
    for place in range(1, len(pieces), 2):
        dates = {re.escape(PINNED.strftime(pieces[place]))}
        if pieces[place] == DATE_STRING:
            dates.add(r"\d\d \w{3} \d{4}")  # Llama 3.1 says the same date every day
        pieces[place] = f"(?:{'|'.join(dates)})"
    pieces[::2] = map(re.escape, pieces[::2])
    return "".join(pieces)
