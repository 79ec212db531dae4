"""What JUnit XML and pytest-html show of a case."""

import json
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    HOSTILE = ["<script>alert(1)</script>", "]]> | `x` &amp;", chr(0) + "\\x1b[2J", "\\ud800"]
    HOSTILE.append("x" * 10_000)
    cases = [Case(f"c{n}", f"say {n}", HOSTILE[n]) for n in range(5)]

    @pytest.mark.probe(cases=cases, max_new_tokens=20_000)
    def test_echo(case, completion, score):
        score("length", 3)
        assert case.id == "c1", "it is no first"
"""
ANSWER = """
        import test_eval
        return test_eval.HOSTILE[int(prompt.split()[-1])]"""


@pytest.fixture(params=[("-p", "no:xdist"), ("-n", "2")], ids=str)
def mode(request, monkeypatch):
    monkeypatch.delenv("PYTEST_ADDOPTS")  # pytest-html is one of them
    return request.param


def properties(path):
    tree = ElementTree.parse(path)
    return {
        case.get("name"): [(p.get("name"), p.get("value")) for p in case.iter("property")]
        for case in tree.iter("testcase")
    }


def test_junit_has_a_property_for_each_field(project, probe, pytester):
    project(EVAL, ANSWER)
    probe("--junit-xml=junit.xml")
    found = properties(pytester.path / "junit.xml")
    assert len(found) == 5
    first = dict(found["test_echo[c0]"])
    assert len(first) == len(found["test_echo[c0]"])
    assert first == {
        "llmprobe.experiment": "echo",
        "llmprobe.outcome": "missed",
        "llmprobe.expected": "<script>alert(1)</script>",
        "llmprobe.received": "<script>alert(1)</script>",
        "llmprobe.failure": "it is no first",
        "llmprobe.explanation": "it is no first",
        "llmprobe.prompt_tokens": "5",
        "llmprobe.generated_tokens": "25",
        "llmprobe.finish_reason": "stop",
        "llmprobe.score.length": "3.0",
    }
    assert dict(found["test_echo[c1]"])["llmprobe.outcome"] == "passed"
    assert "\x1b" not in dict(found["test_echo[c2]"])["llmprobe.received"]
    assert dict(found["test_echo[c3]"])["llmprobe.received"] == "\\ud800"
    assert len(dict(found["test_echo[c4]"])["llmprobe.received"]) == 1004


def test_an_error_before_the_test_has_its_properties_too(project, probe, pytester):
    project(EVAL, "raise RuntimeError('no power')")
    assert probe("--junit-xml=junit.xml", "-k", "c0").exit_code == 1
    (found,) = properties(pytester.path / "junit.xml").values()
    assert dict(found)["llmprobe.outcome"] == "error"
    assert "no power" in dict(found)["llmprobe.error"]
    assert [name for name, _ in found if name == "llmprobe"] == []


class Cells(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_pytest_html_shows_our_columns_and_nothing_hostile(project, probe, pytester):
    project(EVAL, ANSWER)
    pytester.makepyfile(test_other="def test_other(): pass")
    probe("--html=page.html", "--self-contained-html")
    page = (pytester.path / "page.html").read_text()
    head = page.partition("<thead")[2].partition("</thead>")[0]
    assert Cells(head).text.split()[-3:] == ["Outcome", "Expected", "Received"]
    (blob,) = Blob(page).found
    rows = [cells for tests in json.loads(blob)["tests"].values() for cells in tests]
    shown = {Cells("".join(row["resultsTableRow"])).text for row in rows}
    assert any("c0" in row and "missed<script>alert(1)</script>" in row for row in shown)
    assert all("script" not in Cells("".join(row["resultsTableRow"])).tags for row in rows)
    assert "\x1b[2J" not in page


class Blob(HTMLParser):
    """pytest-html keeps its rows as JSON in an attribute."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if "data-jsonblob" in attributes:
            self.found.append(attributes["data-jsonblob"])


def test_a_suite_without_cases_keeps_its_table(pytester, mode):
    pytester.makepyfile(test_other="def test_other(): pass")
    pytester.runpytest_subprocess(*mode, "--html=page.html", "--junit-xml=junit.xml")
    assert "Received" not in (pytester.path / "page.html").read_text()
    assert properties(pytester.path / "junit.xml") == {"test_other": []}
