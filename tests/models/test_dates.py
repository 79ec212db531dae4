"""The date that chat templates are told: the same in every run, whatever the clock says."""

import datetime as clocks
import json
from datetime import date, datetime

import pytest
from test_date_lines import BODY, GPT_OSS, GRANITE, LLAMA_31, LLAMA_32, MISTRAL, SMOLLM_3
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.dates import iso_date, told_date
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.models.registry import REFERENCE, ModelSpec, registered, with_options
from pytest_llmprobe.models.thinking import template_arguments
from pytest_llmprobe.models.token_counter import TokenCounter

TEMPLATES = {
    "llama 3.2": LLAMA_32,
    "llama 3.1": LLAMA_31,
    "smollm 3": SMOLLM_3,
    "gpt-oss": GPT_OSS,
    "granite": GRANITE,
    "mistral": MISTRAL,
    "computes": "{{ strftime_now('%Y')|int * 1000 + strftime_now('%j')|int }}\n",
    "cuts": "{{ strftime_now('%A, %d %B')[:9] }} {{ strftime_now('%Y')|int - 1 }}\n",
    "given": "{{ strftime_now('%d') }}{{ current_date|default('no date') }}\n",
}
ASKED = "Which day is it?"


def at(monkeypatch, day):
    """Set the clock of transformers' templates."""

    class Fixed(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(day)

    monkeypatch.setattr(chat_template_utils, "datetime", Fixed)


@pytest.fixture(scope="module")
def reference():
    return AutoTokenizer.from_pretrained(REFERENCE)


@pytest.fixture
def tokenizer(reference, monkeypatch):
    def tokenizer(template):
        monkeypatch.setattr(reference, "chat_template", template)
        return reference

    return tokenizer


def by_transformers(tokenizer, **arguments):
    messages = [{"role": "user", "content": ASKED}]
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **arguments
    )


def ours(tokenizer, day=None):
    arguments = template_arguments(tokenizer.chat_template, None, {}, day)
    encoder = PromptEncoder(tokenizer, True, arguments, date=day)
    return encoder.text([{"role": "user", "content": ASKED}]), arguments


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_prompt_is_what_transformers_writes_on_the_pinned_day(template, tokenizer, monkeypatch):
    tokenizer = tokenizer(template + BODY)
    text, arguments = ours(tokenizer)
    assert arguments == {}
    at(monkeypatch, "2024-07-26")
    assert text == by_transformers(tokenizer)


@pytest.mark.parametrize("day", ["2026-11-27", "2024-02-29", "1999-12-31"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_date_of_the_users_is_the_templates_today(template, day, tokenizer, monkeypatch):
    tokenizer = tokenizer(template + BODY)
    text, arguments = ours(tokenizer, day)
    at(monkeypatch, day)
    assert text == by_transformers(tokenizer, **arguments)
    assert text != ours(tokenizer)[0]


def test_llama_31_which_has_no_clock_is_told_the_date(tokenizer):
    text, arguments = ours(tokenizer(LLAMA_31 + BODY), "2025-01-02")
    assert arguments == {"date_string": "02 Jan 2025"}
    assert "Today Date: 02 Jan 2025\n" in text


def test_a_date_that_the_user_gives_as_an_argument_wins():
    given = {"date_string": "1 May"}
    assert template_arguments(LLAMA_32, None, given, "2025-01-02") == given


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("day", [None, "2026-11-27"])
def test_tokens_are_counted_of_the_same_prompt(template, day, tokenizer, tmp_path):
    tokenizer = tokenizer(template + BODY)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    text, _ = ours(tokenizer, day)
    counter = TokenCounter(ModelSpec("here", str(tmp_path), date=day))
    assert counter.ids(ASKED) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_report_names_the_date_where_there_is_one():
    day = "2026-11-27"
    assert told_date(SMOLLM_3, (), None) == "2024-07-26"
    assert told_date(SMOLLM_3, (), day) == day
    clockless = "{{ date_string|default('26 Jul 2024') }}" + BODY
    assert told_date(clockless, {"date_string": "27 Nov 2026"}, day) == day
    for template in (BODY, clockless, None):
        assert told_date(template, (), None) is None
    assert told_date(BODY, (), day) is None


@pytest.mark.parametrize(
    "given",
    [
        *("tomorrow", "", "2024-13-01", "2023-02-29", "20240726", "2024-07-26T00:00"),
        *("2024-W30-5", "٢٠٢٤-07-26", 2024, None, True, datetime(2024, 7, 26)),
    ],
)
def test_what_is_no_date_is_refused(given):
    with pytest.raises(ModelError, match="is no date such as 2024-07-26"):
        iso_date(given)


def test_a_date_of_a_models_entry_is_one_in_toml_too():
    assert iso_date(clocks.date(2024, 7, 26)) == iso_date("2024-07-26") == "2024-07-26"
    spec = registered({"mine": {"source": "org/m", "date": date(2025, 1, 2)}})["mine"]
    assert with_options(spec).date == "2025-01-02"
    with pytest.raises(ModelError, match="'soon' is no date"):
        with_options(ModelSpec("m", "m", date="soon"))


def test_a_server_has_a_clock_of_its_own():
    with pytest.raises(ModelError, match="whose server renders its prompts by its own clock"):
        with_options(ModelSpec("s", "openai:s"), date="2024-07-26")
