"""A connection on which a server says more than it was asked is used no more.

HTTP/1.1 matches answers to requests by their order alone. Where a server or a proxy sends a
response twice, the second one would be read as the answer to the next request: another case's.
Nor is a response read to its end that is too long for an answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2

from pytest_llmprobe.errors import ServerError

LARGEST_RESPONSE = 64 * 2**20
"""Bytes; a compressed one, which we do not ask for, may be a thousandth of it."""


async def one_answer(response: Any) -> None:
    """A response hook for httpx2 clients."""
    plain = response.headers.get("content-encoding", "identity") == "identity"
    most = LARGEST_RESPONSE if plain else LARGEST_RESPONSE // 1000
    response.stream = _OneAnswer(response.stream, most)


class _OneAnswer(httpx2.AsyncByteStream):
    """A response's stream; when it ends, so does the connection if there is more to read."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._left = stream, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            self._left -= len(part)
            if self._left < 0:
                raise TooMuchError(f"the server sent more than {LARGEST_RESPONSE} bytes")
            yield part
        state = _h11_state(self._stream)
        if state is not None and state.trailing_data[0]:
            state.send_failed()  # or the connection would go back to the pool

    async def aclose(self) -> None:
        await self._stream.aclose()


class TooMuchError(ServerError):
    """A response that is too long to be an answer."""


def _h11_state(stream: Any) -> Any:
    """The HTTP/1.1 state of the connection below a stream; no library says where it is."""
    for _ in range(8):
        if stream is None or hasattr(stream, "_h11_state"):
            break
        names = ("_connection", "_httpcore_stream", "_stream")
        stream = next((found for n in names if (found := getattr(stream, n, None))), None)
    return getattr(stream, "_h11_state", None)
