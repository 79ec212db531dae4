"""How much of a bare client's throughput a whole run keeps where answers take unequal times.

    pytest tests/benchmarks/test_unit_overlap.py -n 0 -s

Four units of cases, latencies log-normal (median 0.5 s, sigma 1), the same for a prompt on both
sides; 64 requests at a time need a machine that is idle, 16 do not. The server's own clock counts
from the first request on, so that neither side's start does: to the last answer, which a very slow
one may decide alone (at 64 the slowest takes 31 s of 55), and as long as a client has as many
requests left as may be under way. Interleaved repeats, medians of the ratios.
"""

import asyncio
import json
import subprocess
import sys
from statistics import median
from textwrap import dedent
from urllib.request import urlopen

import pytest

REPEATS, UNITS = 3, 4

SERVER = """
import asyncio, json, math, random, time

first, times = None, []

def answer(text):
    return json.dumps({
        "id": "x", "model": "m", "object": "chat.completion", "created": 1,
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }).encode()

async def serve(reader, writer):
    global first
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).lower()
            if head.startswith(b"get"):
                under_way = int(head.split()[1].rpartition(b"/")[2])
                ends = [times[-1] - first, times[-1 - under_way] - first]
                body, first = json.dumps(ends).encode(), None
                times.clear()
            else:
                length = int(head.partition(b"content-length: ")[2].split(b"\\r\\n")[0])
                asked = json.loads(await reader.readexactly(length))
                first = first or time.perf_counter()
                prompt = asked["messages"][0]["content"]
                await asyncio.sleep(0.5 * math.exp(random.Random(prompt).gauss(0, 1)))
                body = answer("fine")
                times.append(time.perf_counter())
            head = f"HTTP/1.1 200 OK\\r\\ncontent-length: {len(body)}\\r\\n"
            writer.write(head.encode() + b"content-type: application/json\\r\\n\\r\\n" + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    @pytest.mark.probe(cases=[Case(f"c{n}", f"case {n}: what?") for n in range(CASES)])
    def test_fine(case, completion):
        assert completion.text == "fine"
"""


async def bare(url, cases, concurrency):
    from openai import AsyncOpenAI

    free = asyncio.Semaphore(concurrency)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        async def one(number):
            async with free:
                messages = [{"role": "user", "content": f"case {number}: what?"}]
                await client.chat.completions.create(
                    model="m", messages=messages, temperature=0.0, max_tokens=64
                )

        await asyncio.gather(*map(one, range(cases)))


def ours(url, cases, concurrency, folder):
    command = [sys.executable, "-m", "pytest", "test_fine.py", "-q", "-n", "0", "--model=openai:m"]
    options = [f"--llmprobe-base-url={url}/v1", f"--llmprobe-concurrency={concurrency}"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)
    assert f"{cases} passed" in done.stdout, done.stdout[-2000:]


def seconds(url, concurrency):
    with urlopen(f"{url}/seconds/{concurrency}") as answer:
        return json.load(answer)


@pytest.mark.parametrize("concurrency", [16, 64])
def test_throughput_of_a_run_against_a_bare_client(concurrency, tmp_path):
    cases = UNITS * 8 * concurrency
    (tmp_path / "test_fine.py").write_text(dedent(EVAL).replace("CASES", str(cases)))
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    try:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        times = []
        for _ in range(REPEATS):
            asyncio.run(bare(url, cases, concurrency))
            theirs = seconds(url, concurrency)
            ours(url, cases, concurrency, tmp_path)
            times.append((seconds(url, concurrency), theirs))
    finally:
        process.kill()
        process.communicate()
    for place, what in enumerate(("to the last answer", "while all may be under way")):
        own, theirs = (median(t[side][place] for t in times) for side in (0, 1))
        ratio = median(t[1][place] / t[0][place] for t in times)
        print(
            f"\n{cases} cases at {concurrency}, {what}: run {own:.1f} s, bare client "
            f"{theirs:.1f} s; ratio of throughputs {ratio:.3f}"
        )
