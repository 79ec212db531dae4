"""``prefixes`` and ``continue``, and the fixtures, on models behind a server, of both protocols."""

import json

import pytest
from loopback import SENTINEL, chat, message

from pytest_llmprobe.cli import main
from pytest_llmprobe.experiments.memorization.prefix_prompts import MESSAGE

KNOWN = [
    "When Bernard came to Rome, the canvas was broken. Agnes buried the loud drum one Sunday.",
    "Nobody in Chicago reached the tiny door. Éric  folded the sail\nnear the narrow bridge.",
]
OTHER = "The quiet horn in Oslo was rusty and warm. Ida and Tom mended the ancient wagon at noon."


@pytest.fixture
def strings(server, tmp_path, capsys, monkeypatch):
    """Cut a map, have a server go on from it; the requests, the results and what was printed."""

    def strings(kind, answer, *options, model, words=200):
        def answered(asked):
            known = next((text for text in KNOWN if shown(asked) in text), None)
            at = known.index(shown(asked)) + len(shown(asked)) if known else 0
            return answer(known[at : at + words] if known else " nothing of it")

        def shown(asked):
            return asked.prompt.removeprefix(MESSAGE.removesuffix("{prefix}"))

        asked = server(answered)
        monkeypatch.setenv(f"{kind}_API_KEY", SENTINEL)
        corpus, out = tmp_path / "corpus.jsonl", tmp_path / "strings.jsonl"
        rows = [{"text": text, "title": text[:6], "url": None} for text in (*KNOWN, OTHER)]
        corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
        base = asked.url + ("/v1" if kind == "OPENAI" else "")
        cut = ["prefixes", "--model", model, "--dataset", corpus, "--prefix-tokens", 12]
        cut += ["--label", "title", "--info", "url", "--location", 1, "--out", tmp_path / "maps"]
        assert main([str(word) for word in cut]) == 0
        told = capsys.readouterr()
        go_on = ["continue", "--prefix-map", told.out[:-1], "--model", model, "--base-url", base]
        go_on += ["--max-length", 8, "--out", out, *options]
        assert main([str(word) for word in go_on]) == 0
        results = [json.loads(line) for line in out.read_text().splitlines()]
        assert SENTINEL not in out.read_text() + (tmp_path / "strings.jsonl.meta.json").read_text()
        return asked.asked, results, told.err + capsys.readouterr().out

    return strings


def completion(text):
    choice = {"index": 0, "finish_reason": "length", "text": text}
    return {"id": "x", "model": "served", "choices": [choice]}


def test_an_openai_server_continues_the_text_of_the_prefix(strings):
    asked, results, told = strings("OPENAI", completion, model="openai:m")
    assert [one.path for one in asked] == ["/v1/completions"] * 3
    assert sorted(one.prompt for one in asked) == sorted(result["prefix"] for result in results)
    assert all(one.body["max_tokens"] == 8 for one in asked)
    assert [result["scores"]["exact"] for result in results] == [True, True, False]
    assert [result["label"] for result in results] == [KNOWN[0][:6], KNOWN[1][:6], OTHER[:6]]
    assert [result["info"] for result in results] == [None] * 3
    assert all(result["suffix_text"] in text for result, text in zip(results, KNOWN, strict=False))
    assert "openai:m is behind a server: its texts are cut into the tokens of `reference`" in told
    assert "2 of 3 true suffixes given back exactly" in told


def test_claude_is_asked_in_a_message_and_its_missing_space_does_not_count(strings):
    asked, results, _ = strings("ANTHROPIC", lambda said: message(said.strip()), model="claude-API")
    assert [one.path for one in asked] == ["/v1/messages"] * 3
    sent = sorted(one.prompt for one in asked)
    assert sent == sorted(MESSAGE.replace("{prefix}", result["prefix"]) for result in results)
    assert [result["scores"]["exact"] for result in results] == [True, True, False]


def test_half_of_the_words_is_half_of_the_score(strings):
    _, (first, *_), _ = strings("ANTHROPIC", message, model="claude-API", words=8)
    scores = first["scores"]
    assert not scores["exact"]
    assert 0 < scores["matched_prefix"] < scores["suffix_tokens"]


def test_a_message_of_ones_own_holds_the_prefix(strings):
    asked, results, _ = strings(
        "ANTHROPIC", message, "--message", "{prefix}", model="anthropic:other"
    )
    assert {one.prompt for one in asked} == {result["prefix"] for result in results}


def test_a_message_without_a_place_for_the_prefix_asks_nothing(strings, capsys):
    with pytest.raises(AssertionError):
        strings("ANTHROPIC", message, "--message", "go on", model="claude-API")
    assert "'go on' has no {prefix}" in capsys.readouterr().err


def test_a_setting_that_the_protocol_lacks_is_said_in_one_line(strings, capsys):
    with pytest.raises(AssertionError):
        strings("ANTHROPIC", message, "--temperature", "0.5", model="claude-API")
    assert "temperature" in capsys.readouterr().err.splitlines()[-1]


FIXTURES = """
    import pytest
    from pytest_llmprobe import Case

    def cases(suite):
        assert suite.dataset("documents")
        return [Case("once", "unused")]

    @pytest.mark.probe(cases=cases)
    def test_documents(case, suite, prefix_map, continuations, score):
        data = suite.dataset("documents")
        entries = prefix_map(data, prefix_tokens=12, location=1)
        strings = continuations(entries, MESSAGE max_length=8)
        assert [s["prefix"] for s in strings] == [entry.prefix for entry in entries]
        score("known", [s["scores"]["exact"] for s in strings] == [True, True, False])
        score("tokenizer", entries.metadata["tokenizer"] == "TOKENIZER")
"""


@pytest.mark.parametrize(
    ("model", "answer", "given", "path"),
    [
        ("openai:m", completion, "", "/v1/completions"),
        ("openai:m", chat, "message='Go on: {prefix}',", "/v1/chat/completions"),
        ("anthropic:m", message, "", "/v1/messages"),
        ("mine", completion, "", "/v1/completions"),
    ],
)
def test_the_fixtures_cut_and_go_on_as_the_commands_do(
    server, run, pytester, monkeypatch, model, answer, given, path
):
    monkeypatch.setenv("ANTHROPIC_API_KEY", SENTINEL)
    own = model == "mine"
    pytester.makepyprojecttoml(
        "[tool.llmprobe.models.mine]\nsource = 'openai:m'\ntokenizer = 'reference-unlearned'"
    )
    rows = [{"text": text} for text in (*KNOWN, OTHER)]
    (pytester.path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answered(asked):
        sent = asked.prompt.removeprefix("Go on: ").removeprefix(MESSAGE.removesuffix("{prefix}"))
        known = next((text for text in KNOWN if sent in text), "")
        return answer(known.partition(sent)[2] or " nothing of it")

    evaluation = FIXTURES.replace("MESSAGE", given)
    evaluation = evaluation.replace("TOKENIZER", "reference-unlearned" if own else "reference")
    data = "--llmprobe-dataset=documents=corpus.jsonl"
    asked = server(answered)
    result, text, report = run(asked, f"--model={model}", data, evaluation=evaluation)
    assert result.ret == 0, text
    assert {one.path.replace("/v1/v1", "/v1") for one in asked.asked} == {path}
    (test,) = report["tests"]
    assert (test["outcome"], test["explanation"]) == ("passed", None)
    assert test["scores"] == {"known": 1, "tokenizer": 1}
