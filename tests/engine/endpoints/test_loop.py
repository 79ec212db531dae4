"""Coroutines for callers that are none: results, errors, an interrupt."""

import asyncio
import os
import signal
import threading
import time

import pytest

from pytest_llmprobe.engine.endpoints.loop import LoopThread


@pytest.fixture
def loop():
    loop = LoopThread()
    yield loop
    loop.close()


async def double(number):
    await asyncio.sleep(0)
    return 2 * number


def test_a_result_comes_back_even_from_within_another_loop(loop):
    async def caller():
        return loop.run(double(4))

    assert loop.run(double(3)) == 6
    assert asyncio.run(caller()) == 8


def test_an_error_comes_back(loop):
    async def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        loop.run(fail())


def test_an_interrupt_does_not_wait_for_what_is_under_way(loop):
    ended = []

    async def long():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    start = time.monotonic()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(long())
    loop.close()
    assert time.monotonic() - start < 30
    assert ended == [True]
