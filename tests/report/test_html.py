"""The page: what it shows, and that nothing in a report can run, ask for an address or hide."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from some_reports import records, report

from pytest_llmprobe.figures import files
from pytest_llmprobe.report.charts import charts, is_drawn
from pytest_llmprobe.report.comparison import compare
from pytest_llmprobe.report.fidelity import EMPTY
from pytest_llmprobe.report.files import write_atomically
from pytest_llmprobe.report.html import html
from pytest_llmprobe.report.run_file import reduce_report

HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "]]> {{ 7 * 7 }} {% raw %}",
    "\x1b[2J\x1b]0;title\x07",
    "\x00\ud800 \udfff\u202e\u2066\ufffe",
    "javascript:alert(1) $\\frac{1}{0}$",
]
HEAT_MAP = {
    "row_key": "depth",
    "column_key": "size",
    "rows": [0, 50],
    "columns": [5, 10, 20],
    "n": [[1, 1, 1], [1, 0, 1]],
    "pass_rate": [[1.0, 0.5, 0.0], [1.0, None, 0.25]],
}
CURVE = [
    {"value": hops, "n": 9, "pass_rate": rate, "ci95": [rate / 2, rate]}
    for hops, rate in ((2, 0.9), (3, 0.5), (10, 0.1))
]
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chrome")


class Parsed(HTMLParser):
    """The elements of a page and its text outside of scripts and styles."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.data = [], "", {}
        self._inside = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = dict(attrs).get("id", tag)
            self.data[self._inside] = ""

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text += data
        else:
            self.data[self._inside] += data

    @property
    def cases(self):
        return json.loads(self.data["cases"])


def flipped(answer="wrong"):
    first, second = report(records("p" * 30)), report(records("m" * 8 + "p" * 22, received=answer))
    return second, compare(reduce_report(first), reduce_report(second), ("main", "this run"))


# What it shows


def test_the_verdict_is_on_top_and_every_experiment_has_its_interval():
    made = report(
        records("p" * 9 + "m", "needle", chance=0.1),
        records("pes", "threads"),
        gate={"verdict": "FAIL", "reason": "needle is low", "checks": []},
    )
    page = Parsed(html(made))
    shown = " ".join(page.text.split())
    assert shown.startswith("llmprobe: org/model: FAIL FAILorg/model needle is low 2026-03-01T12")
    assert "0.900 [0.596, 0.982]" in page.text
    assert "threads: 1 in error, 1 skipped" in page.text
    assert "compared with" not in page.text


def test_every_case_is_there_with_its_answer_expectation_and_explanation():
    made = report(records("pm", size=[5, 10], params={"depth": 0.5}))
    first, second = Parsed(html(made)).cases
    assert (second["outcome"], second["received"]) == ("missed", "wrong")
    assert (second["expected"], second["explanation"]) == ("right", "it is wrong")
    assert (first["size"], second["size"], second["params"]) == (5, 10, {"depth": 0.5})
    assert "explanation" not in first


def test_an_interrupted_run_is_said_to_be_one():
    assert (
        "The run was interrupted" in Parsed(html(report(records("p"), status="interrupted"))).text
    )


def test_a_comparison_shows_differences_causes_and_both_answers():
    page = Parsed(html(*flipped()))
    assert "compared with main" in page.text
    assert "needle: worse: pass rate 1.000 -> 0.733, p = 0.0078" in page.text
    assert "-0.267 [-0.423, -0.077]" in page.text
    assert "nothing that the reports tell of differs" in page.text
    lost = [case for case in page.cases if case.get("change") == "lost"]
    assert len(lost) == 8
    assert (lost[0]["before"], lost[0]["received"]) == ("right", "wrong")
    assert "lost" in page.text.partition("all outcomes")[2][:60]


def test_what_cannot_be_compared_comes_before_the_numbers():
    first, second = report(records("pp")), report(records("ppp", prompt_hash="x"))
    found = compare(reduce_report(first), reduce_report(second), ("main", "this run"))
    text = Parsed(html(second, found)).text
    assert text.index("the prompts of 2 of 2 cases changed") < text.index("difference [95% CI]")


def test_scores_are_shown_with_their_change():
    first = report(records("p" * 9, scores={"f1": 0.5}))
    second = report(records("p" * 9, scores={"f1": 0.75, "new": 1.0}))
    found = compare(reduce_report(first), reduce_report(second))
    text = re.sub(r"\s+", " ", Parsed(html(second, found)).text)
    assert "needlef190.75 [0.75, 0.75]0.5+0.25 [+0.25, +0.25]0.0039" in text
    assert "needlenew91 [0.701, 1]---" in text
    assert "before, on the pairs" not in html(second)


def test_options_and_machine_are_at_the_end():
    text = Parsed(html(report(records("p")))).text
    assert "fingerprint" in text
    assert '"transformers": "5.23.0"' in text


def test_a_report_without_cases_is_a_page():
    assert "NOT JUDGED" in Parsed(html(report())).text


# Charts


def test_heat_maps_and_curves_are_drawn_and_the_rest_is_text():
    summary = {"needle": {"heat_map": HEAT_MAP, "hops": CURVE, "effective_context": 3346}}
    page = Parsed(html(report(records("pm"), summary=summary)))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [p["alt"] for p in pictures] == ["needle: heat map", "needle: hops"]
    for picture in pictures:
        kind, _, data = picture["src"].partition("base64,")
        assert kind == "data:image/svg+xml;"
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
    assert "needle: effective context3346" in page.text


def texts_of(chart):
    tree = ElementTree.fromstring(chart.svg)
    return [element.text for element in tree.iter() if element.tag.endswith("}text")]


def test_a_heat_map_names_its_keys_and_writes_rates_into_its_cells():
    (chart,) = charts({"heat_map": HEAT_MAP})
    shown = texts_of(chart)
    assert {"depth", "size", "0", "50", "5", "10", "20"} <= set(shown)
    assert sorted(text for text in shown if re.fullmatch(r"\d\.\d\d", text)) == [
        "0.00",
        "0.25",
        "0.50",
        "1.00",
        "1.00",
    ]


def test_the_same_summary_gives_the_same_drawing():
    assert charts({"a": HEAT_MAP, "b": CURVE}, 0.1) == charts({"a": HEAT_MAP, "b": CURVE}, 0.1)


def test_a_curve_of_scores_is_drawn_too():
    points = [{"value": v, "n": 1, "mean": 7.5, "ci95": None} for v in ("a", "b")]
    (chart,) = charts({"recall": points})
    assert {"a", "b", "mean"} <= set(texts_of(chart))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_labels_are_text_in_a_chart(hostile):
    data = HEAT_MAP | {"row_key": hostile, "column_key": hostile, "rows": [hostile, "b"]}
    points = [point | {"value": f"{hostile}{n}"} for n, point in enumerate(CURVE)]
    for chart in charts({hostile: data, f"{hostile} ": points}):
        names = {
            element.tag.rpartition("}")[2] for element in ElementTree.fromstring(chart.svg).iter()
        }
        assert not names & {"script", "img", "foreignObject", "a"}


@pytest.mark.parametrize(
    "data",
    [
        None,
        3,
        [],
        {},
        [1, 2],
        CURVE[:1],
        CURVE * 50,
        [{"value": 1, "pass_rate": "high"}] * 2,
        [{"value": 1, "pass_rate": 0.5, "ci95": [0]}] * 2,
        [{"pass_rate": 0.5}] * 2,
        HEAT_MAP | {"pass_rate": [[1.0]]},
        HEAT_MAP | {"pass_rate": [["a", "b", "c"]] * 2},
        HEAT_MAP | {"pass_rate": None},
        HEAT_MAP | {"rows": [], "pass_rate": []},
        HEAT_MAP | {"rows": list(range(5_000)), "pass_rate": [[0.5] * 3] * 5_000},
    ],
)
def test_what_is_no_heat_map_and_no_curve_is_text(data):
    assert not is_drawn(data)
    assert charts({"odd": data}) == []


def test_without_matplotlib_the_page_says_so_and_shows_the_numbers(monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    page = Parsed(html(report(records("pm"), summary={"needle": {"hops": CURVE}})))
    assert 'pip install "pytest-llmprobe[plots]"' in page.text
    assert '"pass_rate": 0.9' in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]


# Safety


def hostile_page(text):
    second, comparison = flipped(text)
    second["model"] = second["gate"]["reason"] = second["commit"]["id"] = text
    second["config"] = {text: text, "nested": [text]}
    experiment = second["experiments"][0]
    experiment["remarks"] = [text]
    experiment["summary"] = {text: text, "curve": [p | {"value": text} for p in CURVE]}
    experiment["scores"] = {text: {"mean": 0.5, "ci95": None, "n": 1}}
    for test in second["tests"]:
        test |= {"experiment": text, "expected": [text], "explanation": text, "error": text}
        test["params"] = {text: text}
    return html(second, comparison), second


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_text_makes_no_element_and_no_attribute(hostile, tmp_path):
    page, second = hostile_page(hostile)
    harmless, _ = hostile_page("harmless")
    parsed, expected = Parsed(page), Parsed(harmless)
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in expected.tags]
    assert [set(a) for _, a in parsed.tags] == [set(a) for _, a in expected.tags]
    assert parsed.data["script"] == expected.data["script"]
    assert parsed.cases[0]["received"] == second["tests"][0]["received"]
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page
    )
    write_atomically(tmp_path / "page.html", page)


def test_text_that_looks_like_a_template_is_not_one():
    page, _ = hostile_page("{{ 7 * 7 }}")
    assert "{{ 7 * 7 }}" in unescape(page)


def test_only_the_pages_own_script_and_style_may_run_and_no_address_is_asked():
    page, _ = hostile_page("x")
    parsed = Parsed(page)
    policy = next(a["content"] for tag, a in parsed.tags if a.get("http-equiv"))
    for part in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(parsed.data[part].encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    addresses = [a.get("src") or a.get("href") for _, a in parsed.tags]
    assert all(address is None or address.startswith("data:") for address in addresses)
    assert not any(name.startswith(("on", "style")) for _, a in parsed.tags for name in a)


def test_the_script_never_reads_text_as_html():
    script = Parsed(html(report())).data["script"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_a_long_answer_is_cut():
    made = report(records("p"))
    made["tests"][0]["received"] = "<" * 10_000_000
    page = html(made)
    assert len(page) < 200_000
    assert Parsed(page).cases[0]["received"].endswith("[9990000 more characters]")


@pytest.fixture(scope="session")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("there is no headless browser")
    return found


def dom(browser, path, fragment=""):
    """The page's elements after its script ran."""
    arguments = ["--headless", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    if os.getuid() == 0:
        arguments.append("--no-sandbox")
    done = subprocess.run(
        [
            browser,
            *arguments,
            f"--user-data-dir={path.parent / 'profile'}",
            path.as_uri() + fragment,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "Content Security Policy" not in done.stderr
    return Parsed(done.stdout)


def test_a_browser_shows_the_first_page_of_cases_as_text(browser, tmp_path):
    hostile = "".join(HOSTILE[:6]) + "\x1b[2J\x00"
    made = report(records("pm" * 120, received=hostile))
    path = tmp_path / "page.html"
    path.write_text(html(made))
    shown = dom(browser, path)
    assert "240 of 240 cases, page 1 of 3" in shown.text
    assert [a.get("class") for tag, a in shown.tags if tag == "tr"].count("case") == 100
    assert shown.text.count("<script>alert(1)</script><img src=x onerror=alert(1)>") == 100
    assert "\u241b[2J\u2400" in shown.text
    assert not any(name.startswith("on") for _, a in shown.tags for name in a)


def fidelity(kl, pieces):
    return EMPTY | {
        "tokens": len(kl),
        "kl": kl,
        "agrees": [value < 0.5 for value in kl],
        "pieces": pieces,
        "kl_mean": sum(kl) / len(kl),
        "kl_max": max(kl),
        "top1": 0.5,
        "base_log_probability": -1.0,
        "log_probability": -2.0,
    }


def test_a_link_opens_a_case_with_both_answers_and_colours(browser, tmp_path):
    first = report(records("p" * 150, received="The city is Lima."))
    found = fidelity([0.0, 0.02, 3.0], ["The <b>", " city", " is"])
    second = report(records("m" * 150, received="The city is Paris.", fidelity=found))
    comparison = compare(reduce_report(first), reduce_report(second), ("a", "b"))
    path = tmp_path / "page.html"
    path.write_text(html(second, comparison))
    name = second["tests"][140]["id"]
    shown = dom(browser, path, f"#case={quote(name)}")
    assert "150 of 150 cases, page 2 of 2" in shown.text
    classes = [a.get("class") for tag, a in shown.tags if tag == "span"]
    assert classes.count("changed") == 2  # Lima, Paris
    assert [c for c in classes if str(c).startswith("kl")] == ["kl0", "kl1", "kl4 other"]
    assert "The <b> city is" in shown.text
