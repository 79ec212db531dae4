"""How much of a bare client's throughput the engine keeps: 10,000 cases, 64 requests at a time.

    pytest tests/benchmarks/test_endpoint_speed.py -n 0 -s

The server is a process of its own that answers at once; the bare client is the official one with a
semaphore. Interleaved repeats, median of the ratios of wall times; CPU seconds of the client.
"""

import asyncio
import subprocess
import sys
import time
from statistics import median

import pytest

from pytest_llmprobe import Engine, Request
from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
from pytest_llmprobe.engine.endpoints.connection import connect
from pytest_llmprobe.models.registry import ModelSpec

CASES, CONCURRENCY, REPEATS = 10_000, 64, 3

SERVER = """
import asyncio, json

ANSWER = json.dumps({
    "id": "x", "model": "m", "object": "chat.completion", "created": 1,
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "fine"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}).encode()
HEAD = f"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: {len(ANSWER)}"
RESPONSE = HEAD.encode() + b"\\r\\n\\r\\n" + ANSWER

async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\\r\\n")[0])
            await reader.readexactly(length)
            writer.write(RESPONSE)
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture
def url():
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    process.kill()
    process.communicate()


async def bare(url, prompts):
    from openai import AsyncOpenAI

    free = asyncio.Semaphore(CONCURRENCY)
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def one(prompt):
            async with free:
                messages = [{"role": "user", "content": prompt}]
                answer = await client.chat.completions.create(
                    model="m", messages=messages, temperature=0.0, max_tokens=64
                )
                return answer.choices[0].message.content

        return await asyncio.gather(*map(one, prompts))


def ours(url, prompts):
    spec = ModelSpec("m", "openai:m", base_url=url)
    backend = EndpointBackend(connect(spec, 60.0), concurrency=CONCURRENCY)
    engine = Engine(backend, token_budget=2**62)
    completions = engine.generate([Request(prompt) for prompt in prompts])
    backend.close()
    return [completion.text for completion in completions]


def timed(function, *arguments):
    wall, cpu = time.perf_counter(), time.process_time()
    answers = function(*arguments)
    assert answers == ["fine"] * CASES
    return time.perf_counter() - wall, time.process_time() - cpu


def test_throughput_against_a_bare_client(url):
    prompts = [f"case {number}: what is it?" for number in range(CASES)]
    runs = []
    for _ in range(REPEATS):
        runs.append(
            (timed(ours, url, prompts), timed(lambda u, p: asyncio.run(bare(u, p)), url, prompts))
        )
    ratio = median(their[0] / our[0] for our, their in runs)
    speeds = [CASES / median(run[side][0] for run in runs) for side in (0, 1)]
    cpu = [median(run[side][1] for run in runs) for side in (0, 1)]
    print(
        f"\n{CASES} cases at {CONCURRENCY}: engine {speeds[0]:.0f}/s ({cpu[0]:.1f} CPU s), bare "
        f"client {speeds[1]:.0f}/s ({cpu[1]:.1f} CPU s); ratio of throughputs {ratio:.2f}"
    )
