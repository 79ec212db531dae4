"""Runs that a server or this machine ends: exit codes, words, what is kept, what goes on."""

import errno
import json
import os
import signal
import threading
from importlib import import_module
from pathlib import Path

import numpy  # noqa: F401 - once for all runs in this process
import openai  # noqa: F401
import pytest
from loopback import Reply, chat
from served_eval import EVAL, echo

from pytest_llmprobe.report.schema import validate


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.engine.endpoints.attempts.FIRST_PAUSE_S", 0.001)


def fails_after(answers, status=500, message="out of memory"):
    seen = []

    def answer(asked):
        seen.append(asked)
        gone = Reply({"error": {"message": message}}, status)
        return echo(asked) if len(seen) <= answers else gone

    return answer


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device", "/full")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_that_fails_ends_the_run_with_a_code_and_words_of_its_own(server, run, workers):
    failing = server(fails_after(0))
    result, text, report = run(failing, workers=workers)
    assert result.ret == 6, text
    assert "INTERNALERROR" not in text
    last = [line for line in text.splitlines() if "llmprobe: GATE" in line]
    assert "GATE NOT JUDGED" in last[-1]
    assert "answers 500: out of memory (3 requests in a row" in last[-1]
    assert "--llmprobe-resume goes on" in last[-1]
    validate(report)
    assert (report["status"], report["gate"]["verdict"]) == ("interrupted", "NOT JUDGED")
    assert len(failing.asked) <= 7 * max(1, workers)


def test_what_was_answered_before_a_server_fails_is_scored_and_the_run_goes_on(server, run):
    failing = server(fails_after(5))
    result, text, report = run(failing, "--llmprobe-concurrency=1")
    assert result.ret == 6, text
    outcomes = [test["outcome"] for test in report["tests"]]
    assert (outcomes.count("passed"), outcomes.count("error")) == (5, 3)  # and no more of them
    assert len(failing.asked) == 5 + 7
    well = server(echo)
    result, text, report = run(well, "--llmprobe-resume")
    assert "the model is not as it was: source" in text  # another server
    assert report["experiments"][0]["passed"] == 20


def test_a_full_disk_sends_nothing_again_and_ends_in_one_line(server, run, monkeypatch):
    asked, write, written = server(echo), os.write, []

    def few(descriptor, data):
        if b'"completion"' in data:
            written.append(data)
            if len(written) > 6:
                full()
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr("pytest_llmprobe.engine.completion_store.os.write", few)
        result, text, report = run(asked, "--llmprobe-concurrency=2")
    assert result.ret == 7, text
    assert "completions.jsonl cannot be written: No space left on device" in text
    assert "make room, and --llmprobe-resume goes on" in text
    assert "INTERNALERROR" not in text
    assert "Traceback" not in text
    assert len(asked.asked) <= 9
    result, text, report = run(asked, "--llmprobe-resume")
    assert result.ret == 0, text
    assert report["experiments"][0]["passed"] == 20
    assert len(asked.asked) <= 9 + 14


def test_a_record_that_cannot_be_written_ends_the_run(server, run, monkeypatch):
    from pytest_llmprobe.report.files import RecordLog

    append, kept = RecordLog.append, []

    def few(self, line):
        if len(kept) > 4:
            full()
        kept.append(line)
        append(self, line)

    monkeypatch.setattr(RecordLog, "append", few)
    result, text, report = run(server(echo))
    assert result.ret == 7, text
    assert "INTERNALERROR" not in text
    assert report["experiments"][0]["passed"] == 4


def test_a_report_that_cannot_be_written_is_told_with_where_the_records_are(
    server, run, monkeypatch
):
    recorder = import_module("pytest_llmprobe.plugin.recorder")  # as the run will find it
    monkeypatch.setattr(recorder, "write_atomically", full)
    result, text, report = run(server(echo))
    assert (result.ret, report) == (7, None), text
    assert "report: not written; records.jsonl has what was measured" in text
    assert "GATE NOT JUDGED (/full cannot be written: No space left on device" in text


def test_a_cancelled_job_has_its_report(server, run):
    def answer(asked):
        if asked.prompt == "say 12":
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(0.3)
        return echo(asked)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(server(answer))
    report = json.loads(Path("r.json").read_text())
    assert (report["status"], report["gate"]["verdict"]) == ("interrupted", "NOT JUDGED")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


def dying(evaluation):
    """The same, in which the first process that comes to one of the cases dies."""
    return evaluation.replace(
        "        assert completion",
        """        import os, pathlib
        died = pathlib.Path("died")
        if case.target == "21" and not died.exists():
            died.touch()
            os._exit(3)
        assert completion""",
    )


def test_a_worker_that_takes_anothers_place_asks_nothing_again(server, run):
    asked = server(echo)
    _, text, report = run(asked, evaluation=dying(EVAL), workers=1)
    assert [test["outcome"] for test in report["tests"]].count("passed") == 19, text
    assert len(asked.asked) == 20


def test_what_a_dead_worker_was_answered_is_not_asked_again_by_another(server, run):
    evaluation = dying(EVAL.replace("range(4)", "range(26)"))
    asked = server(echo)
    _, text, report = run(asked, "--llmprobe-concurrency=4", evaluation=evaluation, workers=2)
    assert [test["outcome"] for test in report["tests"]].count("passed") == 129, text
    assert len(asked.asked) <= 130 + 2  # what was under way as it died; its unit has 32


def test_a_run_that_goes_on_knows_what_the_served_model_calls_itself(server, run):
    asked = server(lambda asked: chat(asked.prompt.split()[-1], "flagged"))
    run(asked)
    _, text, report = run(asked, "--llmprobe-resume")
    assert len(asked.asked) == 20
    info = report["model_info"]
    assert (info["served_model"], info["finish_reasons"]) == ("served", ["flagged"])
    assert "the server: it ends answers with 'flagged', which is kept as it is" in text


def test_the_next_unit_is_asked_while_one_waits_for_its_slowest_answer(server, run):
    evaluation = EVAL.replace("range(4)", "range(10)")  # units of 32
    later = threading.Event()

    def answer(asked):
        if asked.prompt == "say 94":
            later.set()
        if asked.prompt == "say 01":
            assert later.wait(10)
        return echo(asked)

    result, text, report = run(server(answer), "--llmprobe-concurrency=4", evaluation=evaluation)
    assert result.ret == 0, text
    assert report["experiments"][0]["passed"] == 50


def test_so_does_each_worker(server, run):
    evaluation = EVAL.replace("range(4)", "range(39)")  # units of 32, the first and third gw0's
    later = threading.Event()

    def answer(asked):
        if asked.prompt == "say 150":
            later.set()
        if asked.prompt == "say 01":
            assert later.wait(10)
        return echo(asked)

    asked = server(answer)
    result, text, report = run(asked, "--llmprobe-concurrency=4", evaluation=evaluation, workers=2)
    assert result.ret == 0, text
    assert report["experiments"][0]["passed"] == 195
    assert len(asked.asked) == 195


def test_what_a_server_refuses_is_said_once(server, run):
    def answer(asked):
        words = "'temperature' does not support 0 with this model"
        return (
            Reply({"error": {"message": words}}, 400)
            if "temperature" in asked.body
            else (chat(asked.prompt.split()[-1], usage=None))
        )

    asked = server(answer)
    result, text, report = run(asked)
    assert result.ret == 0, text
    validate(report)
    assert len(asked.asked) == 21
    assert report["model_info"]["adapted"]["temperature"].startswith("left out")
    assert text.count("the server: temperature left out") == 1
    times = report["experiments"][0]["timings"]
    assert (times["generated_tokens"], times["tokens_per_s"]) == (None, None)
    assert report["tests"][0]["generated_tokens"] is None


def test_an_option_of_the_server_goes_with_every_request(server, run):
    asked = server(echo)
    given = (
        "--llmprobe-server-option=reasoning_effort=low",
        '--llmprobe-server-option=chat_template_kwargs={"a": 1}',
        "--llmprobe-thinking=off",
    )
    result, text, report = run(asked, *given)
    assert result.ret == 0, text
    assert all(one.body["reasoning_effort"] == "low" for one in asked.asked)
    kwargs = asked.asked[0].body["chat_template_kwargs"]
    assert kwargs == {"a": 1, "enable_thinking": False, "thinking": False}
    expected = {"reasoning_effort": "low", "chat_template_kwargs": {"a": 1}}
    assert report["config"]["endpoint"]["options"] == expected


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--llmprobe-server-option=temperature=1", "temperature is given by --llmprobe-generate"),
        ("--llmprobe-server-option=low", "is not KEY=VALUE"),
        ("--llmprobe-max-time=soon", "'soon' is no time such as 90s"),
    ],
)
def test_an_option_that_cannot_be_is_refused_at_once(server, run, option, words):
    asked = server(echo)
    result, text, _ = run(asked, option)
    assert result.ret == 4
    assert words in text
    assert asked.asked == []


def test_a_proxy_that_is_not_there_is_named_before_any_case(server, run, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:hunter2@127.0.0.1:9")
    for name in ("http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    result, text, _ = run(server(echo))
    assert result.ret == 4
    assert "no server answers at 127.0.0.1:9" in text
    assert "it is the proxy of HTTP_PROXY" in text
    assert "hunter2" not in text
