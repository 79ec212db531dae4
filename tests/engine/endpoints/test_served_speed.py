"""evals/speed on a server: what it tells, and what only a stream can tell."""

import json
import time
from pathlib import Path

import pytest
from loopback import Loopback, Reply, chat, raw

ROOT = Path(__file__).parents[3]
PAUSE_S = 0.05
"""Between two tokens of a stream."""


class Streaming(Loopback):
    """Says as many tokens as it is asked for, one after another where a stream is wanted."""

    def send(self, handler, answer, asked):
        count = asked.body["max_tokens"]
        usage = {"prompt_tokens": 64, "completion_tokens": count}
        if not asked.body.get("stream"):
            time.sleep(PAUSE_S)
            handler.wfile.write(raw(Reply(chat("word " * count, "length", **usage))))
            return
        lines = [{"choices": [{"delta": {"content": "word "}}]} for _ in range(count)]
        lines.append({"choices": [{"delta": {}, "finish_reason": "length"}]})
        lines.append({"choices": [], "usage": usage})
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"
        handler.wfile.write(head)
        for line in lines:
            time.sleep(PAUSE_S)
            handler.wfile.write(f"data: {json.dumps(line)}\n\n".encode())
        handler.wfile.write(b"data: [DONE]\n\n")
        handler.close_connection = True


@pytest.mark.parametrize("stream", [True, False])
def test_a_servers_speed_is_measured(pytester, monkeypatch, server, stream):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # that of these tests
    served = server(None, Streaming)
    result = pytester.runpytest_subprocess(
        *("-p", "pytest_benchmark.plugin", "-p", "no:xdist", f"--rootdir={ROOT}"),
        *("--model=openai:served", f"--llmprobe-base-url={served.url}/v1"),
        *("--llmprobe-profile=smoke", "--llmprobe-json=report.json"),
        *(["--llmprobe-stream"] if stream else []),
        ROOT / "evals" / "speed",
    )
    assert result.ret == 0, result.stdout.str()
    tests = json.loads((pytester.path / "report.json").read_text())["tests"]
    told = {test["id"].partition("::")[2]: test["scores"] for test in tests}
    assert len(told) == 4
    for name, scores in told.items():
        rows = int(name.rpartition("x")[2].strip("]"))
        if "prefill" in name:
            assert set(scores) == {"first_token_s", "prefill_tokens_per_s"}
            assert scores["prefill_tokens_per_s"] == pytest.approx(
                64 * rows / scores["first_token_s"], rel=0.5
            )
        elif stream:
            assert set(scores) == {"answer_s", "decode_tokens_per_s"}
            # The answers of a batch come side by side.
            assert scores["decode_tokens_per_s"] < rows / PAUSE_S
        else:
            assert set(scores) == {"answer_s"}
    assert served.most_at_once == 2
    assert {asked.body["max_tokens"] for asked in served.asked} == {1, 8}
