"""The ways in which models say the same answer: one function each.

A style takes what is to be said and gives the whole answer. To add one, write a function and mark
it: ``@style`` for values (UUIDs, words, numbers), ``@block_style`` for texts of their own form
(JSON, a summary). Every one must be read as the bare value is: right if it is right, wrong if not.
``@correction`` is for values after others that are taken back, ``@refusal`` for ways to name values
and not to answer with them.
"""

import json
from dataclasses import dataclass
from html import escape

STYLES = {}
BLOCK_STYLES = {}
CORRECTIONS = {}
REFUSALS = {}


@dataclass(frozen=True)
class Said:
    """What is to be said."""

    keys: tuple[str, ...]  # what was asked for
    values: tuple[str, ...]  # the answers, in the order of the keys
    way: tuple[str, ...] = ()  # what was met before the answers were found
    question: str = ""
    slips: tuple[str, ...] = ()  # what is said first and taken back

    @property
    def pairs(self):
        """Key and value; the last key again for values that are too many."""
        keys = (*self.keys, *self.keys[-1:] * len(self.values))
        return list(zip(keys, self.values, strict=False))

    @property
    def lines(self):
        return "\n".join(self.values)

    @property
    def row(self):
        return ", ".join(self.values)

    @property
    def slip(self):
        return ", ".join(self.slips)


def style(function):
    STYLES[function.__name__] = function
    return function


def block_style(function):
    """Of a text that may have several lines; it is one value."""
    BLOCK_STYLES[function.__name__] = function
    return function


def correction(function):
    """Of values that come after slips, which they replace."""
    CORRECTIONS[function.__name__] = function
    return function


def refusal(function):
    """Of right values that are named and not given as the answer."""
    REFUSALS[function.__name__] = function
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


@style
def json_with_line_breaks(said):
    return json.dumps({"answer": said.lines})


@style
def em_dashes(said):
    return said.lines.replace("-", "\u2014")


@style
def tool_call(said):
    return json.dumps({"name": "answer", "arguments": {"value": said.row}})


@style
def restated(said):
    return f"You asked: {said.question}\n\n**Answer:** {said.row}"


@style
def thought_in_tags(said):
    return f"<thinking>I look for {said.keys[0]}.</thinking>\n<answer>{said.row}</answer>"


@style
def reflection_afterwards(said):
    return f"{said.lines}\n<reflection>That looks right.</reflection>"


@style
def beginning_of_text(said):
    return f"<s>{said.row}</s>"


@style
def isolated_text(said):
    return "\n".join(f"\u0627\u0644\u062c\u0648\u0627\u0628: \u2068{v}\u2069." for v in said.values)


@style
def final_answer_repeated(said):
    return f"{said.lines}\n\n## Final Answer\n\n$\\boxed{{{said.row}}}$\n\nI hope it is correct."


@style
def no_key_any_more(said):
    way = "".join(f"The value {step} is a key, so we look it up. " for step in said.way)
    return f"{way}We find {said.row}. I cannot find it as a key, so this is the end."


@style
def path_afterwards(said):
    return f"{said.lines}\n\nSo the path was: {', '.join(said.way) or 'direct'}, then the answer."


@style
def path_and_cue(said):
    way = "".join(f"{step} is not the answer yet: it is a key. " for step in said.way)
    return f"{way}Therefore the answer is {said.row}."


@style
def checked(said):
    return f"{said.row}\n\nWait, let me double-check that. Yes, it is {said.row}."


@style
def open_to_correction(said):
    return f"{said.row}\n\nIf I misread the text or that is wrong, please tell me!"


@style
def no_other_match(said):
    return f"{said.row}. I could not find any other match, and I cannot say more about it."


@style
def no_knowledge_but(said):
    return f"I cannot look it up anywhere else, but based on the text, the answer is {said.row}."


@style
def although(said):
    return f"Although I can't verify it outside of the text, the answer is {said.row}."


@style
def only_one_actually(said):
    return f"The answer is {said.row}. Actually, there is no doubt, and nothing is wrong with it."


# Values after others, which they replace


@correction
def wait_no(said):
    return f"{said.slip}... wait, no: {said.row}"


@correction
def wrong_then_right(said):
    return f"The answer is {said.slip}. Wait, no, that's wrong. The answer is {said.row}."


@correction
def correction_label(said):
    return f"{said.slip}\n\n**Correction:** {said.row}"


@correction
def my_mistake(said):
    return f"{said.slip}\n\nSorry, I made a mistake. The correct answer is {said.row}."


@correction
def actually(said):
    return f"It is {said.slip}. Hmm, actually, it is {said.row}."


@correction
def scratched(said):
    return f"{said.slip} \u2013 scratch that, {said.row}."


@correction
def meant(said):
    return f"{said.slip}, no, I mean {said.row}."


@correction
def asked_and_denied(said):
    return f"Is it {said.slip}? Hmm, no. It is {said.row}."


@correction
def struck_out(said):
    return f"~~{said.slip}~~ {said.row}"


@correction
def deleted(said):
    return f"<del>{said.slip}</del> {said.row}"


@correction
def edited(said):
    return f"{said.slip} (edit: {said.row})"


@correction
def of_something_else(said):
    return f"I see {said.slip}, but that belongs to something else. The answer is {said.row}."


@correction
def final_answer(said):
    return f"I looked at {said.slip}.\n\nFinal answer: {said.row}"


@correction
def boxed_in_the_end(said):
    return f"I looked at {said.slip}.\n\n$\\boxed{{{said.row}}}$"


@correction
def reasons_in_json(said):
    return json.dumps({"reasoning": f"First I saw {said.slip}.", "answer": said.row})


@correction
def thought_of(said):
    return f"<thinking>{said.slip}?</thinking>\n<answer>{said.row}</answer>"


@correction
def called_tempting(said):
    return f"It may be tempting to say {said.slip}. However, the correct answer is {said.row}."


# Right values that are no answer


@refusal
def cannot_determine(said):
    return f"I'm sorry, but I cannot determine it. The text mentions {said.row}, without more."


@refusal
def cannot_confirm(said):
    return f"I cannot confirm that it is {said.row}."


@refusal
def does_not_know(said):
    return f"I don't know. {said.row} occurs in the text, but I can't tell what it is."


@refusal
def too_little_known(said):
    return f"There is not enough information to say that it is {said.row}."


@refusal
def not_stated(said):
    return f"The text contains {said.row}, but the answer is not stated."


@refusal
def nearest(said):
    return f"I cannot find it in the text. The nearest thing is {said.row}."


@refusal
def unclear(said):
    return f"It is unclear whether it is {said.row}."


@refusal
def unknown(said):
    return f"Answer: unknown (the text mentions {said.row})"


@refusal
def withdrawn(said):
    return f"{said.row}. Wait, no, that is wrong."


@refusal
def asked_and_refused(said):
    return f"{said.row}? No, I cannot find the answer in the text."


@refusal
def replaced(said):
    return f"The text says {said.row} somewhere. So the answer is {said.slip}."


@refusal
def seen_besides(said):
    return f"{said.slip}\n\n(I also saw {said.row}.)"


@refusal
def passed(said):
    return f"Final answer: {said.slip}\n\nI passed {said.row} on the way."


@refusal
def seen_in_json(said):
    return json.dumps({"seen": said.row, "answer": said.slip})


# Texts of their own form


@block_style
def block_quoted(said):
    return "> " + said.lines.replace("\n", "\n> ")


@block_style
def block_windows_lines(said):
    return f"Here it is:\r\n\r\n{said.lines}\r\n"


@block_style
def block_offer(said):
    return f"{said.lines}\n\nLet me know if you'd like any changes!"


@block_style
def block_explained(said):
    return f"```\n{said.lines}\n```\n\nThis is what the text says; {{all}} of it was used."


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
