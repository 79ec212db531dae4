"""What a failed attempt means: an error in one sentence, and whether to try again and when."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any

from pytest_llmprobe.engine.endpoints.wire import found
from pytest_llmprobe.errors import AccessError, PromptTooLongError, RequestError, ServerError

LONGEST_WAIT = 120.0
"""Seconds; a server that asks to wait longer (a daily limit, say) is not waited for."""

SHOWN = 500
"""Characters of a server's own words that an error repeats."""

TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|(prompt|input).{0,40}too (long|large)|too many tokens"
    r"|exceed.{0,40}tokens",
    re.IGNORECASE | re.DOTALL,
)

TRY_AGAIN = {408, 409, 425, 429}
"""Besides all from 500 up."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed.

    Args:
        error: What the case is told if no other attempt succeeds.
        again: Whether another attempt may succeed.
        wait_s: Seconds that the server asks to wait.
        unless_answered: An AccessError that says nothing of other requests once one was answered.
    """

    error: RequestError
    again: bool = False
    wait_s: float | None = None
    unless_answered: bool = False


def failure_of(error: Exception, client: ModuleType, url: str, timeout_s: float) -> Failure:
    """What an exception of an attempt means; ``client`` is the package of the client's own ones."""
    if isinstance(error, RequestError):
        return Failure(error)
    if isinstance(cause := error.__cause__, RequestError):  # raised while the client read
        return Failure(type(cause)(str(cause)))
    if isinstance(error, asyncio.TimeoutError | client.APITimeoutError):
        late = f"{url} has not answered in {timeout_s:g} s; see --llmprobe-timeout"
        return Failure(ServerError(late), again=True)
    if isinstance(error, client.APIStatusError):
        return _of_status(error, url)
    kind = type(error.__cause__ or error).__name__
    unreachable = kind in ("ConnectError", "ConnectTimeout")
    if isinstance(error, client.APIConnectionError) and unreachable:
        absent = f"no server answers at {url}: is it running, and is --llmprobe-base-url right?"
        return Failure(AccessError(absent), again=True)
    return Failure(ServerError(f"{url} sent no whole answer ({kind})"), again=True)


def _of_status(error: Any, url: str) -> Failure:
    status, words = int(error.status_code), _words(error)
    said = f"{url} answers {status}" + (f": {words}" if words else "")
    if status == 401:
        return Failure(AccessError(f"{said}. The server refuses the key: check the environment's"))
    remedy = None
    if status in (402, 403) or found(error.body, "code") == "insufficient_quota":
        remedy = "The key is known, and may not ask for this model: check its plan"
    elif status == 404:
        remedy = "Check the model's name, and the base URL: for most servers it ends in /v1"
    if remedy is not None:
        return Failure(AccessError(f"{said}. {remedy}"), unless_answered=True)
    if status == 413 or (status in (400, 422) and TOO_LONG.search(words)):
        remedy = "Use smaller cases, fewer max_new_tokens, or a longer context"
        return Failure(PromptTooLongError(f"{said}. {remedy}"))
    wait = retry_after(error.response.headers)
    passing = status in TRY_AGAIN or status >= 500 or status < 400  # < 400: within a stream
    again = passing and (wait is None or wait <= LONGEST_WAIT)
    if wait is not None and wait > LONGEST_WAIT:
        said += f" (it asks to wait {wait:.0f} s)"
    return Failure(ServerError(said), again, wait)


def _words(error: Any) -> str:
    """What the server itself says, on one line."""
    body = error.body
    for path in (("message",), ("error", "message"), ("detail",), ("error",)):
        if isinstance(words := found(body, *path), str):
            break
    else:
        words = error.response.text if not isinstance(body, Mapping) else str(dict(body))
    words = " ".join("".join(c if c.isprintable() else " " for c in words[: 4 * SHOWN]).split())
    return words if len(words) <= SHOWN else f"{words[:SHOWN]}..."


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait, as a number or an HTTP date (RFC 9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return seconds if 0 <= seconds < 1e9 else None
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
