"""Real pytest runs on a model behind a server: reports, refusals, budgets, secrets."""

import time
from textwrap import dedent

import numpy  # noqa: F401 - once for all runs in this process
import openai  # noqa: F401
import pytest
from loopback import SENTINEL, FaultProxy, Reply, chat
from served_eval import EVAL, echo

from pytest_llmprobe.report.schema import validate


def test_a_served_model_is_evaluated_like_any_other(server, run):
    asked = server(echo)
    result, text, report = run(asked)
    assert result.ret == 0, text
    assert report["experiments"][0]["passed"] == 20
    info = report["model_info"]
    assert (info["source"], info["served_model"]) == (f"{asked.url}/v1", "served")
    assert not any(value for name, value in info["capabilities"].items() if name != "generation")
    assert info["capabilities"]["generation"] is True
    for test in report["tests"]:
        assert (test["prompt_tokens"], test["generated_tokens"]) == (3, 2)
        assert test["latency_s"] > 0
    assert sorted(one.prompt for one in asked.asked) == sorted(
        f"say {group}{name}" for group in range(4) for name in range(5)
    )
    assert all(one.headers["authorization"] == f"Bearer {SENTINEL}" for one in asked.asked)


def test_a_self_check_asks_a_server_one_by_one_and_together(server, run):
    under_way, at_once = [], []

    def answer(asked):
        if asked.prompt.startswith("say"):
            return echo(asked)
        under_way.append(asked)
        time.sleep(0.05 if len(at_once) >= 24 else 0.001)  # until others are under way
        at_once.append(len(under_way))
        under_way.pop()
        return chat("a" if at_once[-1] == 1 else "b")

    checked = server(answer)
    result, text, report = run(checked, "--llmprobe-self-check", "--llmprobe-concurrency=8")
    assert result.ret == 0, text
    validate(report)
    assert report["experiments"][0]["passed"] == 20
    assert at_once[:24] == [1] * 24
    assert 1 < max(at_once[24:]) <= 8
    found = report["self_check"]
    assert (found["dtype"], found["failed"], found["prompts"]) == (None, [], 24)
    assert all(way["flipped"] > 0 for way in found["ways"])
    assert f"self-check: {sum(way['flipped'] for way in found['ways'])} of 48 answers" in text
    assert len(checked.asked) == 24 + 24 + 13 + 12 + 20


LOUD = ("-vv", "--showlocals", "--tb=long", "--log-level=DEBUG", "-rA", "--full-trace")


def test_a_refused_key_stops_the_session_with_one_clear_error(server, run):
    words = f"Incorrect API key provided: {SENTINEL}. Find yours elsewhere."
    asked = server(lambda asked: Reply({"error": {"message": words}}, 401))
    result, text, report = run(asked, "--llmprobe-concurrency=1", *LOUD)
    assert result.ret == 6
    assert "answers 401: Incorrect API key provided: [key]" in text
    assert "check the environment's" in text
    assert len(asked.asked) == len(report["tests"]) == 1
    assert report["status"] == "interrupted"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_spent_budget_interrupts_the_run_and_keeps_what_was_answered(server, run, workers):
    def slow(asked):
        time.sleep(0.02)
        return echo(asked)

    asked = server(slow)
    options = ("--llmprobe-max-requests=7", "--llmprobe-concurrency=2")
    result, text, report = run(asked, *options, workers=workers)
    assert result.ret == 2, text
    assert len(asked.asked) == 7
    assert asked.most_at_once <= 2  # of all workers together
    assert "GATE NOT JUDGED" in text
    assert "--llmprobe-max-requests 7: all are spent" in text
    assert report["status"] == "interrupted"
    assert report["gate"]["verdict"] == "NOT JUDGED"
    outcomes = [test["outcome"] for test in report["tests"]]
    assert set(outcomes) == {"passed"}
    # Another worker may stop before it has scored all of its unit.
    assert 1 <= len(outcomes) <= 7 if workers else len(outcomes) == 7


def test_a_test_that_generates_by_itself_stops_the_run_when_nothing_is_left(server, run):
    evaluation = EVAL.replace("case, completion", "case, generate").replace(
        "completion.text", "generate(case.prompt).text"
    )
    asked = server(echo)
    result, _, report = run(asked, "--llmprobe-max-requests=3", evaluation=evaluation)
    assert result.ret == 2
    assert [test["outcome"] for test in report["tests"]] == ["passed"] * len(asked.asked)
    assert len(asked.asked) == 3


def test_an_interrupted_run_goes_on_and_asks_only_for_what_is_missing(server, run):
    asked = server(echo)
    result, _, _ = run(asked, "--llmprobe-max-requests=7")
    assert result.ret == 2
    result, text, report = run(asked, "--llmprobe-resume")
    assert result.ret == 0, text
    assert len(asked.asked) == len({one.prompt for one in asked.asked}) == 20
    assert report["experiments"][0]["passed"] == 20
    assert all(test["latency_s"] > 0 for test in report["tests"])


def test_a_limit_of_the_cost_takes_the_prices_of_the_models_entry(server, run, pytester):
    entry = 'source = "openai:m"\ninput_price = 1e6\noutput_price = 0\n'
    (pytester.path / "llmprobe.toml").write_text(f"[models.mine]\n{entry}")
    asked = server(echo)
    options = ("--model=mine", "--llmprobe-concurrency=1")
    result, text, report = run(asked, *options, "--llmprobe-max-cost=350")
    assert result.ret == 2, text
    assert "--llmprobe-max-cost 350" in text
    costs = 3 * len(report["tests"])  # 3 prompt tokens each
    assert 0 < costs <= 350
    assert len(asked.asked) == len(report["tests"])


FAULTS = {
    "no JSON": Reply(SENTINEL.encode()),
    "repeats the key": Reply({"error": {"message": f"your key {SENTINEL} is bad"}}, 400),
    "refused": Reply({"error": {"message": f"{SENTINEL}"}}, 403),
    "lost": Reply({"detail": SENTINEL}, 404),
    "withheld": Reply(chat(None, "content_filter")),
    "strange": Reply({"choices": SENTINEL}),
}

USES = """
    import logging
    import pytest
    from pytest_llmprobe import Case

    FAULTS = ["all well", "no JSON", "repeats the key", "refused", "lost", "withheld", "strange"]

    @pytest.mark.probe(cases=[Case(fault, fault) for fault in FAULTS])
    def test_asked(case, completion):
        logging.getLogger().info("asked")
        assert completion.text == "another"

    @pytest.mark.probe(cases=[Case(fault, fault) for fault in FAULTS])
    def test_generated(case, generate):
        assert generate(case.prompt).text == "another"

    @pytest.mark.parametrize("fault", FAULTS[1:3])
    def test_no_probe(engine, fault):
        assert engine.generate([fault])[0].text == "another"
"""


def test_the_key_is_in_no_error_traceback_local_variable_or_log(server, run, monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.engine.endpoints.attempts.FIRST_PAUSE_S", 0.001)
    asked = server(lambda asked: FAULTS.get(asked.prompt) or echo(asked))
    options = (*LOUD, "--llmprobe-concurrency=1", "--llmprobe-misses=fail")
    result, text, report = run(asked, *options, evaluation=USES)
    outcomes = [test["outcome"] for test in report["tests"]]
    assert (outcomes.count("error"), outcomes.count("missed")) == (12, 2)
    result.assert_outcomes(failed=10, errors=6)
    assert "asked" in text
    assert all(one.headers["authorization"] == f"Bearer {SENTINEL}" for one in asked.asked)


def test_a_run_through_faults_loses_doubles_and_mixes_up_no_case(server, run, monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.engine.endpoints.attempts.FIRST_PAUSE_S", 0.001)
    faults = ("reset", "429", "500", "truncated", "wrong JSON", "twice", "stall")

    def mixture(asked, attempt):
        number = int(asked.prompt.split()[-1])
        return faults[(number + attempt) % len(faults)] if attempt < number % 6 else None

    proxy = server(server(echo), kind=FaultProxy, fault=mixture)
    result, _, report = run(proxy, "--llmprobe-timeout=0.3")
    assert result.ret in (0, 1)
    assert len(report["tests"]) == len({test["id"] for test in report["tests"]}) == 20
    outcomes = [test["outcome"] for test in report["tests"]]
    assert set(outcomes) <= {"passed", "error"}  # a miss would be another case's answer
    assert outcomes.count("passed") >= 15
    assert max(proxy.attempts.values()) <= 5


def test_settings_that_a_server_may_ignore_are_remarked(server, run):
    evaluation = EVAL.replace("max_new_tokens=20", "top_k=1, min_p=0.1")
    asked = server(echo)
    _, text, report = run(asked, evaluation=evaluation)
    assert asked.asked[0].body["top_k"] == 1
    remark = "top_k, min_p: not in OpenAI's protocol, so the server may ignore it"
    assert report["experiments"][0]["remarks"] == [remark]
    assert remark in text


def test_what_looks_into_a_model_is_skipped_with_the_reason(server, run):
    evaluation = """
        import pytest
        from pytest_llmprobe import Case

        @pytest.mark.probe(cases=[Case("a", "say a", spans="a")])
        def test_model(case, model):
            raise AssertionError

        @pytest.mark.probe(cases=[Case("a", "say a", spans="a")])
        def test_predictors(case, predictors):
            raise AssertionError

        @pytest.mark.probe(cases=[Case("a", "say a", spans="a")], delta=1)
        def test_steered(case, completion):
            raise AssertionError

        @pytest.mark.probe(cases=[Case("a", "say a")], temperature=1.0, typical_p=0.9)
        def test_sampled(case, completion):
            raise AssertionError

        @pytest.mark.probe(cases=[Case("a", "say a")])
        def test_search(case, search):
            rows = [{"id": str(n), "prompt": f"say {n}"} for n in range(4)]
            how = {"temperature": 1, "typical_p": 0.9}
            search(rows, lambda rows, said: 1.0, space={"top_k": [2, 3]} | how, default=how)
    """
    asked = server(echo)
    result, text, report = run(asked, evaluation=evaluation)
    assert result.ret == 0, text
    assert [test["outcome"] for test in report["tests"]] == ["skipped"] * 5
    assert all(
        "server" in t["explanation"] or "process" in t["explanation"] for t in report["tests"]
    )
    assert asked.asked == []


def test_an_option_that_loads_a_model_is_refused_at_once(server, run):
    asked = server(echo)
    result, text, _ = run(asked, "--llmprobe-dtype=float32")
    assert result.ret == 4
    assert "dtype has no meaning for 'openai:m', which is loaded where its server runs" in text


def test_a_missing_key_is_told_before_any_test(pytester, monkeypatch):
    pytester.makepyfile(test_eval=dedent(EVAL))
    result = pytester.runpytest_inprocess("-n", "0", "--model=claude-API")
    assert result.ret == 4
    assert "set the environment variable ANTHROPIC_API_KEY" in result.stderr.str()
