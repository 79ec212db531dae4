"""Many requests at a time: their order, their number, their times, and what the record gets."""

import json
import threading
import time

import pytest
from loopback import Reply, chat, eventually

from pytest_llmprobe import GenerateConfig, RawPrompt, Request, Steer
from pytest_llmprobe.engine.completion_store import CompletionStore
from pytest_llmprobe.errors import ModelError, RequestError, ServerError, SteeringError
from pytest_llmprobe.generation import Usage
from pytest_llmprobe.models.registry import resolve, with_options


def echo(asked):
    return chat(asked.prompt.upper())


def test_answers_come_in_the_order_of_the_requests_with_the_servers_usage(server, ask):
    engine = ask(server(echo))
    completions = engine.generate([f"p{number}" for number in range(40)])
    assert [c.text for c in completions] == [f"P{number}" for number in range(40)]
    one = completions[0]
    assert (one.usage, one.token_ids, one.finish_reason) == (Usage(3, 2), (), "stop")
    assert 0 < one.timings.latency_s < 20
    assert one.timings.first_token_s is None
    assert one.timings.batch_size == 40
    assert len({c.prompt_hash for c in completions}) == 40
    assert engine.backend.info["served_model"] == "served"


def test_prompts_that_begin_alike_are_sent_one_after_another(server, ask):
    asked = server(echo)
    prompts = [f"haystack {hay} question {q}" for q in range(5) for hay in "abc"]
    ask(asked, concurrency=1).generate(prompts)
    sent = [one.prompt for one in asked.asked]
    assert sent == sorted(prompts)
    assert sent != prompts


def test_no_more_requests_are_under_way_than_allowed(server, ask):
    def slow(asked):
        time.sleep(0.02)
        return echo(asked)

    asked = server(slow)
    ask(asked, concurrency=3).generate([f"p{number}" for number in range(12)])
    assert asked.most_at_once == 3


def test_a_busy_server_is_asked_again_when_it_says(server, ask):
    times = []

    def answer(asked):
        times.append(time.monotonic())
        busy = Reply({"error": {"message": "busy"}}, 429, {"retry-after": "0.3"})
        return busy if len(times) == 1 else echo(asked)

    (completion,) = ask(server(answer)).generate(["a"])
    assert completion.text == "A"
    assert times[1] - times[0] >= 0.3


def test_a_server_that_stays_broken_is_asked_as_often_as_allowed(server, ask, monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.engine.endpoints.attempts.FIRST_PAUSE_S", 0.001)
    asked = server(lambda asked: Reply(b"oops", 503))
    (error,) = ask(asked, retries=3).attempt([Request("a")])
    assert type(error) is ServerError
    assert "answers 503: oops" in str(error)
    assert len(asked.asked) == 4


def test_an_answer_that_takes_too_long_is_an_error_with_the_option_that_allows_more(server, ask):
    def never(asked):
        time.sleep(1)
        return echo(asked)

    engine = ask(server(never), timeout_s=0.1, retries=0)
    (error,) = engine.attempt([Request("a")])
    assert "has not answered in 0.1 s; see --llmprobe-timeout" in str(error)


def test_a_streamed_answer_tells_when_its_first_token_came(server, ask):
    def streamed(asked):
        assert asked.body["stream"] is True
        events = [
            {"choices": [{"delta": {"content": "Pa"}}], "model": "served"},
            {"choices": [{"delta": {"content": "ris"}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
        ]
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        body = "".join([*lines, "data: [DONE]\n\n"]).encode()
        return Reply(body, headers={"content-type": "text/event-stream"})

    (completion,) = ask(server(streamed), stream=True).generate(["a"])
    assert (completion.text, completion.usage) == ("Paris", Usage(3, 2))
    assert 0 < completion.timings.first_token_s <= completion.timings.latency_s


def test_a_setting_that_the_protocol_has_no_name_for_is_refused_before_anything_is_sent(
    server, ask
):
    asked = server(echo)
    with pytest.raises(RequestError, match="no_repeat_ngram_size=3 has no name"):
        ask(asked).generate(["a"], GenerateConfig(no_repeat_ngram_size=3))
    assert asked.asked == []


def test_a_text_is_continued_and_its_ids_are_not_guessed(server, ask):
    asked = server(lambda asked: {"choices": [{"text": " there", "finish_reason": "length"}]})
    engine = ask(asked)
    assert engine.generate([RawPrompt("hello")])[0].text == " there"
    assert asked.asked[0].path == "/v1/completions"
    with pytest.raises(RequestError, match="token ids"):
        engine.generate([RawPrompt("hello", (1, 2))])


def test_a_model_behind_a_server_is_not_steered(server, ask):
    with pytest.raises(SteeringError, match="behind a server"):
        ask(server(echo)).generate([Request("say it", steer=Steer("it", 1.0))])


def test_a_key_is_asked_for_by_name_where_the_public_service_needs_one():
    from pytest_llmprobe.engine.endpoints.address import check_endpoint

    with pytest.raises(ModelError, match=r"OPENAI_API_KEY.*--llmprobe-base-url"):
        check_endpoint(resolve("openai:gpt"))
    with pytest.raises(ModelError, match="ANTHROPIC_API_KEY"):
        check_endpoint(resolve("claude-API"))
    check_endpoint(with_options(resolve("openai:gpt"), base_url="http://localhost:1/v1"))


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host", "http://", "http://a:b/", ""])
def test_a_base_url_must_be_one(url, monkeypatch):
    from pytest_llmprobe.engine.endpoints.address import check_endpoint

    monkeypatch.setenv("OPENAI_BASE_URL", url or "nothing")
    with pytest.raises(ModelError, match=r"no http\(s\) URL"):
        check_endpoint(resolve("openai:gpt"))


def test_a_password_in_a_base_url_is_refused_and_not_repeated():
    from pytest_llmprobe.engine.endpoints.address import check_endpoint

    spec = with_options(resolve("openai:gpt"), base_url="https://me:hunter2@host/v1")
    with pytest.raises(ModelError, match="OPENAI_API_KEY") as caught:
        check_endpoint(spec)
    assert "hunter2" not in str(caught.value)


def test_a_base_urls_query_goes_with_every_request_and_into_no_report(server, ask):
    from pytest_llmprobe import Engine
    from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
    from pytest_llmprobe.engine.endpoints.connection import connect

    asked = server(echo)
    spec = with_options(resolve("openai:m"), base_url=f"{asked.url}/v1?api-version=7")
    backend = EndpointBackend(connect(spec, 10.0))
    Engine(backend).generate(["a"])
    backend.close()
    assert asked.asked[0].path == "/v1/chat/completions?api-version=7"
    assert backend.info["source"] == f"{asked.url}/v1"


def test_options_that_load_a_model_have_no_meaning_for_one_behind_a_server():
    with pytest.raises(ModelError, match="dtype has no meaning for 'openai:gpt'"):
        with_options(resolve("openai:gpt"), dtype="float32")
    with pytest.raises(ModelError, match="base_url has no meaning for 'reference'"):
        with_options(resolve("reference"), base_url="http://localhost/v1")


def test_an_answer_is_kept_as_soon_as_it_arrives(server, ask, tmp_path):
    release = threading.Event()

    def answer(asked):
        if asked.prompt == "late":
            release.wait(20)
        return echo(asked)

    engine = ask(server(answer), concurrency=2)
    path = tmp_path / "completions.jsonl"
    engine.store = CompletionStore(path, engine.backend.info)
    requests = [Request(p) for p in ("a", "b", "late")]
    asking = threading.Thread(target=engine.attempt, args=(requests,))
    asking.start()
    try:
        assert eventually(lambda: path.read_text().count('"completion"') == 2)
        found = CompletionStore(path, engine.backend.info, look_up=True)
        texts = [found.find(request) for request in requests]
    finally:
        release.set()
        asking.join()
    assert [text and text.text for text in texts] == ["A", "B", None]
    assert texts[0].timings.latency_s > 0
