"""What a failed attempt means: an error in one sentence, and whether to try again and when."""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any

from pytest_llmprobe.engine.endpoints.reach import proxy_of
from pytest_llmprobe.engine.endpoints.wire import ErrorInsideError, PassingError, found
from pytest_llmprobe.errors import (
    AccessError,
    PromptTooLongError,
    RequestError,
    ServerError,
    StorageError,
)

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

LASTING = {501, 505, 511}
"""Of those from 500 up: a server that cannot do it will not learn it."""

NO_MEMORY = "this machine has no memory left"

QUOTA = ("insufficient_quota", "billing_not_active", "account_deactivated")
"""Codes of an account that has to be seen to, whatever the status."""

FULL = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)
"""What this machine has run out of: no other attempt is better."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed.

    Args:
        error: What the case is told if no other attempt succeeds.
        again: Whether another attempt may succeed.
        wait_s: Seconds that the server asks to wait.
        late: Nothing came in the time that the attempt had.
        for_all: It holds for every request.
        unless_answered: An AccessError that says nothing of other requests once one was answered.
    """

    error: RequestError
    again: bool = False
    wait_s: float | None = None
    late: bool = False
    for_all: bool = False
    unless_answered: bool = False


def failure_of(error: Exception, client: ModuleType, url: str, timeout_s: float) -> Failure:
    """What an exception of an attempt means; ``client`` is the package of the client's own ones.

    Raises:
        StorageError: Not the server, this machine is at fault.
    """
    if any(isinstance(each, MemoryError) for each in _chain(error)):
        raise StorageError(NO_MEMORY) from None
    if isinstance(error, ErrorInsideError):
        return of_words(_coded(error.body) or 0, error.body, words_of(error.body), url, error.where)
    if isinstance(error, RequestError):
        return Failure(error, again=isinstance(error, PassingError))
    if isinstance(cause := error.__cause__, RequestError):  # raised while the client read
        return Failure(type(cause)(str(cause)))
    if isinstance(error, asyncio.TimeoutError | client.APITimeoutError):
        late = f"{url} has not answered in {timeout_s:g} s; see --llmprobe-timeout"
        return Failure(ServerError(late), again=True, late=True)
    if isinstance(error, client.APIStatusError):
        status, body = int(error.status_code), error.body
        words = words_of(body if body is not None else error.response.text)
        where = "" if status >= 400 else "within a stream"
        status = _coded(body) or status if status < 400 else status
        return of_words(status, body, words, url, where, error.response.headers)
    if isinstance(error, client.APIConnectionError):
        return _of_connection(error, url)
    if isinstance(error, client.APIError):  # an event of a stream
        status = _coded(error.body) or 0
        return of_words(status, error.body, words_of(error.message), url, "within a stream")
    again = isinstance(error, ValueError)  # a stream's event that is cut off
    return Failure(ServerError(f"{url} sent no whole answer ({type(error).__name__})"), again)


def _of_connection(error: Exception, url: str) -> Failure:
    """What hinders that a request arrives or its answer."""
    kind, proxy = type(error.__cause__ or error).__name__, proxy_of(url)
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in FULL:
            raise StorageError(
                f"this machine has no more room for connections ({each.strerror}): lower "
                "--llmprobe-concurrency, or raise its limit (ulimit -n)"
            ) from None
        if isinstance(each, ssl.SSLError):
            return Failure(AccessError(_tls(each, url)))
    if proxy is not None and kind in ("ConnectError", "ConnectTimeout", "ProxyError"):
        said = (
            f"{url} cannot be reached through {proxy}: check that environment variable, or name "
            "the server's host in NO_PROXY"
        )
        return Failure(AccessError(said), again=True)
    if kind in ("ConnectError", "ConnectTimeout"):
        absent = f"no server answers at {url}: is it running, and is --llmprobe-base-url right?"
        return Failure(AccessError(absent), again=True)
    lost = f"{url} closed the connection before its answer was whole ({kind})"
    return Failure(ServerError(lost), again=True)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it came from."""
    each: BaseException | None = error
    for _ in range(20):
        if each is None:
            return
        yield each
        each = each.__cause__ or each.__context__


def _tls(error: ssl.SSLError, url: str) -> str:
    """What is wrong with a secure connection, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {url} is not trusted ({error.verify_message}): name the file of "
            "its authority in SSL_CERT_FILE"
        )
    reason = (error.reason or str(error)).lower().replace("_", " ")
    return f"no secure connection to {url} ({reason}): does the server speak http:// only?"


def of_words(
    status: int,
    body: Any,
    words: str,
    url: str,
    where: str = "",
    headers: Mapping[str, str] | None = None,
) -> Failure:
    """What a server's own words mean.

    Args:
        status: Of HTTP, or the code that the words come with; 0 if there is none.
        body: The error as JSON, or a text.
        words: What it says, for a person.
        url: The base URL.
        where: Where else than in a response of this status; "".
        headers: Of the response.
    """
    said = f"{url} answers {' '.join(str(s) for s in (status or 'an error', where) if s)}"
    said += f": {words}" if words else ""
    code = found(body, "code") or found(body, "error", "code")
    if status == 401:
        return Failure(AccessError(f"{said}. The server refuses the key: check the environment's"))
    if status == 407:
        return Failure(AccessError(f"{said}. {proxy_of(url) or 'A proxy'} asks for a password"))
    remedy = None
    if status in (402, 403) or code in QUOTA:
        remedy = "The key is known, and may not ask for this model: check its plan"
    elif status in (404, 405):
        remedy = "Check the model's name, and the base URL: for most servers it ends in /v1"
    if remedy is not None:
        return Failure(AccessError(f"{said}. {remedy}"), unless_answered=True)
    if status == 413 or (status in (0, 400, 422, 500) and TOO_LONG.search(words)):
        remedy = "Use smaller cases, fewer max_new_tokens, or a longer context"
        return Failure(PromptTooLongError(f"{said}. {remedy}"))
    wait = retry_after(headers or {})
    passing = status in TRY_AGAIN or status < 400 or (status >= 500 and status not in LASTING)
    if passing and wait is not None and wait > LONGEST_WAIT:
        said += f" (it asks to wait {wait:.0f} s, and at most {LONGEST_WAIT:.0f} s are waited)"
        return Failure(ServerError(said), for_all=True)
    return Failure(ServerError(said), passing, wait)


def _coded(body: Any) -> int | None:
    """The status that an error's own code or type stands for, if it is one."""
    for value in (found(body, "code"), found(body, "error", "code"), found(body, "status")):
        if str(value).isdecimal() and 400 <= int(value) < 600:
            return int(value)
    kinds = {found(body, "type"), found(body, "error", "type"), found(body, "code")}
    return next((status for kind, status in KINDS.items() if kind in kinds), None)


KINDS = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "invalid_request_error": 400,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded_error": 529,
    "server_error": 500,
    "api_error": 500,
}
"""Types of errors in the words of Anthropic and OpenAI."""


def words_of(body: Any) -> str:
    """What a server itself says, on one line."""
    for path in (("message",), ("error", "message"), ("detail",), ("error",)):
        if isinstance(words := found(body, *path), str):
            break
    else:
        words = str(dict(body)) if isinstance(body, Mapping) else str(body)
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
