"""The ways in which models say the same answer: one function each.

A style takes what is to be said and gives the whole answer. To add one, write a function and mark
it: ``@style`` for values (UUIDs, words, numbers), ``@block_style`` for texts of their own form
(JSON, a summary). Every one must be read as the bare value is: right if it is right, wrong if not.
"""

import json
from dataclasses import dataclass
from html import escape

STYLES = {}
BLOCK_STYLES = {}


@dataclass(frozen=True)
class Said:
    """What is to be said."""

    keys: tuple[str, ...]  # what was asked for
    values: tuple[str, ...]  # the answers, in the order of the keys
    way: tuple[str, ...] = ()  # what was met before the answers were found
    question: str = ""

    @property
    def pairs(self):
        """Key and value; the last key again for values that are too many."""
        keys = (*self.keys, *self.keys[-1:] * len(self.values))
        return list(zip(keys, self.values, strict=False))

    @property
    def lines(self):
        return "\n".join(self.values)


def style(function):
    STYLES[function.__name__] = function
    return function


def block_style(function):
    """Of a text that may have several lines; it is one value."""
    BLOCK_STYLES[function.__name__] = function
    return function


def json_object(said):
    """Of all pairs, though a key may have several values."""
    return "{" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in said.pairs) + "}"


# Values


@style
def bare(said):
    return said.lines


@style
def echo_of_the_key(said):
    return "\n".join(f'Key: "{key}"\nValue: "{value}"' for key, value in said.pairs)


@style
def sentence(said):
    return " ".join(
        f'The value corresponding to the key "{key}" is "{value}".' for key, value in said.pairs
    )


@style
def list_with_keys(said):
    return "\n".join(f'- "{key}": "{value}"' for key, value in said.pairs)


@style
def numbered_list(said):
    return "\n".join(f"{n}. {value}" for n, value in enumerate(said.values, 1))


@style
def json_of_key_and_value(said):
    return json_object(said)


@style
def json_of_one_value(said):
    return json.dumps({"key": said.keys[0], "value": ", ".join(said.values)}, indent=2)


@style
def json_list(said):
    return json.dumps(said.values)


@style
def json_in_a_fence(said):
    return f"Sure:\n```json\n{json_object(said)}\n```"


@style
def bold_and_backticks(said):
    return "\n".join(f"**`{value}`**" for value in said.values)


@style
def fence(said):
    return f"```text\n{said.lines}\n```"


@style
def value_first(said):
    way = "".join(f" There I met {step}." for step in said.way)
    return f"{said.lines}\n\nI looked for {' and '.join(said.keys)} in the text.{way}"


@style
def steps_first(said):
    steps = "".join(f"Step {n}: I look at {step}.\n" for n, step in enumerate(said.way, 1))
    return f"I start at {', '.join(said.keys)}.\n{steps}\nFinal value: {said.lines}"


@style
def arrows(said):
    return "\n".join(f"{key} -> {value}" for key, value in said.pairs)


@style
def tight_arrows(said):
    return "\n".join(f"{key}\u2192{value}" for key, value in said.pairs)


@style
def table(said):
    rows = "\n".join(f"| {key} | {value} |" for key, value in said.pairs)
    return f"| Asked | Found |\n|---|---|\n{rows}"


@style
def xml(said):
    return "\n".join(f"<answer><value>{value}</value></answer>" for value in said.values)


@style
def boxed(said):
    return "\n".join(f"$\\boxed{{\\text{{{value}}}}}$" for value in said.values)


@style
def csv(said):
    return "\n".join(f"{key},{value}" for key, value in said.pairs)


@style
def yaml(said):
    return "answer:\n" + "\n".join(f"  - value: {value}" for value in said.values)


@style
def toml(said):
    return "\n".join(f"'{key}' = '{value}'" for key, value in said.pairs)


@style
def german_quotes(said):
    return "\n".join(f"\u201e{value}\u201c" for value in said.values)


@style
def curly_quotes(said):
    return "\n".join(f"It\u2019s \u201c{value}\u201d." for value in said.values)


@style
def guillemets(said):
    return "\n".join(f"La valeur est \u00ab\u00a0{value}\u00a0\u00bb." for value in said.values)


@style
def spanish(said):
    return "\n".join(f"El valor es {value}." for value in said.values)


@style
def chinese(said):
    return "\n".join(f"\u7b54\u6848\u662f{value}\u3002" for value in said.values)


@style
def japanese(said):
    return "\n".join(f"{value}\u3067\u3059\u3002" for value in said.values)


@style
def corner_brackets(said):
    return "\n".join(f"\u300c{value}\u300d" for value in said.values)


@style
def emoji(said):
    return f"{said.lines} \U0001f600\U0001f44d"


@style
def answer_colon(said):
    return f"Answer: {', '.join(said.values)}."


@style
def bold_label(said):
    return f"**Answer:** {', '.join(said.values)}"


@style
def heading(said):
    return f"## Answer\n\n{said.lines}\n"


@style
def blockquote(said):
    return "\n".join(f"> {value}" for value in said.values)


@style
def parenthesised(said):
    return "\n".join(f"({value})" for value in said.values)


@style
def html(said):
    return "<ul>" + "".join(f"<li><b>{escape(value)}</b></li>" for value in said.values) + "</ul>"


@style
def html_entities(said):
    return "\n".join(f"&quot;{value}&quot;&nbsp;&#33;" for value in said.values)


@style
def windows_lines(said):
    return "\r\n".join(["The answer:", "", *said.values, ""])


@style
def tight_bullets(said):
    return "\n".join(f"-{value}" for value in said.values)


@style
def question_first(said):
    return f"{said.question}\n{said.lines}"


@style
def apology(said):
    return (
        f"I apologize for the confusion! I'm not sure I understood, but here it is:\n{said.lines}"
    )


@style
def polite_end(said):
    return f"{said.lines}\n\nLet me know if you need anything else, or if I can help further!"


@style
def twice(said):
    return f"{said.lines}\n\nSo the answer is:\n{said.lines}"


@style
def typographic_hyphens(said):
    return said.lines.replace("-", "\u2011")


@style
def upper_case(said):
    return said.lines.upper()


@style
def invisible_characters(said):
    return f"\ufeff\u200b{said.lines}\u200b"


# Texts of their own form


@block_style
def block_bare(said):
    return said.lines


@block_style
def block_white_space(said):
    return f"\n\n  {said.lines}\n "


@block_style
def block_fence(said):
    return f"```\n{said.lines}\n```"


@block_style
def block_tildes(said):
    return f"~~~\n{said.lines}\n~~~\n"


@block_style
def block_answer(said):
    return f"Answer: {said.lines}"


@block_style
def block_heading(said):
    return f"## {said.keys[0]}\n\n{said.lines}"


@block_style
def block_label(said):
    return f"**{said.keys[0]} :**\n\n{said.lines}"


@block_style
def block_introduction(said):
    return f"Sure, here it is:\n\n{said.lines}"


@block_style
def block_apology(said):
    return f"Sorry about that:\n{said.lines}"


@block_style
def block_tags(said):
    return f"<answer>\n{said.lines}\n</answer>"


@block_style
def block_emoji(said):
    return f"{said.lines} \U0001f600"


@block_style
def block_rule(said):
    return f"---\n\n{said.lines}\n\n---"
