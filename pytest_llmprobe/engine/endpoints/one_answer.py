"""A connection on which a server says more than it was asked is used no more.

HTTP/1.1 matches answers to requests by their order alone. Where a server or a proxy sends a
response twice, the second one would be read as the answer to the next request: another case's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2


async def one_answer(response: Any) -> None:
    """A response hook for httpx2 clients."""
    response.stream = _OneAnswer(response.stream)


class _OneAnswer(httpx2.AsyncByteStream):
    """A response's stream; when it ends, so does the connection if there is more to read."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part
        state = _h11_state(self._stream)
        if state is not None and state.trailing_data[0]:
            state.send_failed()  # or the connection would go back to the pool

    async def aclose(self) -> None:
        await self._stream.aclose()


def _h11_state(stream: Any) -> Any:
    """The HTTP/1.1 state of the connection below a stream; no library says where it is."""
    for _ in range(8):
        if stream is None or hasattr(stream, "_h11_state"):
            break
        names = ("_connection", "_httpcore_stream", "_stream")
        stream = next((found for n in names if (found := getattr(stream, n, None))), None)
    return getattr(stream, "_h11_state", None)
