"""One attempt at one request, by the official client of a protocol, without retries of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

from pytest_llmprobe.engine.endpoints.address import NO_KEY, address_of, check_endpoint, key_of
from pytest_llmprobe.engine.endpoints.anthropic_wire import AnthropicWire
from pytest_llmprobe.engine.endpoints.openai_wire import OpenAIWire
from pytest_llmprobe.engine.endpoints.wire import (
    Asking,
    Call,
    ErrorInsideError,
    PassingError,
    Stream,
    Wire,
)
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.models.thinking import marks_of


@dataclass(frozen=True)
class Connection:
    """A client, its protocol and what may be told of both.

    Args:
        client: The official asynchronous client; knows the key.
        package: Where the client's exceptions come from.
        url: The base URL without a query.
        secrets: What no message may hold.
        extra: What every request's body holds besides, as the user asked.
    """

    wire: Wire
    client: Any
    package: ModuleType
    url: str
    secrets: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Connection({self.url})"

    def hidden(self, text: str) -> str:
        """A text without the key, which a server may repeat."""
        for secret in self.secrets:
            text = text.replace(secret, "[key]")
        return text

    def body(self, call: Call) -> dict[str, Any]:
        """A request's body with what the user adds to it; tables are joined."""
        body = dict(call.body)
        for name, value in self.extra.items():
            both = isinstance(value, Mapping) and isinstance(body.get(name), Mapping)
            body[name] = {**body[name], **value} if both else value
        return body

    async def send(self, call: Call) -> tuple[Mapping[str, Any], None]:
        """The response to a request; when its text began is not known.

        Raises:
            ErrorInsideError: The response is an error, whatever its status.
            PassingError: The response is no JSON object.
        """
        import httpx2

        response = await self.client.post(call.path, body=call.body, cast_to=httpx2.Response)
        try:
            content = json.loads(response.content)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise PassingError(f"{self.url} answers something that is no JSON object")
        if (body := error_inside(content)) is not None:
            raise ErrorInsideError(body)
        return content, None

    async def stream(self, call: Call, collected: Stream) -> tuple[Mapping[str, Any], float | None]:
        """The response put together from its events, and the seconds until its first text."""
        start, first = time.perf_counter(), None
        events = await self.client.post(
            call.path,
            body=call.body | {"stream": True},
            cast_to=object,
            stream=True,
            stream_cls=self.package.AsyncStream[object],
        )
        async with events:
            async for event in events:
                if collected.add(event) and first is None:
                    first = time.perf_counter() - start
        return collected.response(), first


def error_inside(content: Mapping[str, Any]) -> Any:
    """What a response says of an error, if it is nothing but one; None otherwise."""
    if any(content.get(name) for name in ("choices", "content")):
        return None
    return content if content.get("object") == "error" else content.get("error") or None


def connect(
    spec: ModelSpec, timeout_s: float, extra: Mapping[str, Any] | None = None
) -> Connection:
    """A connection for what a spec describes; nothing is sent yet.

    Raises:
        ModelError: The client is not installed, the key or the base URL cannot be used.
    """
    check_endpoint(spec)
    from pytest_llmprobe.engine.endpoints.one_answer import one_answer

    address, key, name = address_of(spec), key_of(spec), str(spec.served_name)
    package = import_module(str(spec.protocol))
    build = package.AsyncOpenAI if spec.protocol == "openai" else package.AsyncAnthropic
    try:
        http_client = package.DefaultAsyncHttpxClient(
            timeout=timeout_s, event_hooks={"response": [one_answer]}
        )
    except (ImportError, OSError, ValueError) as error:  # the environment's proxy or certificates
        raise ModelError(f"{spec.name!r} cannot be asked: {error}") from None
    client = build(
        api_key=key,
        base_url=address.url,
        timeout=timeout_s,
        max_retries=0,  # ours count against the budget and are the only ones
        default_query=dict(address.query) or None,
        default_headers={"Accept-Encoding": "identity"},
        http_client=http_client,
    )
    asking = Asking(spec.thinking, spec.template, marks_of(spec.thought))
    wire: Wire = AnthropicWire(name, asking)
    if spec.protocol == "openai":
        wire = OpenAIWire(
            name,
            public=address.public,
            raw=spec.completions,
            own_ids=spec.tokenizer is not None,
            asking=asking,
        )
    secrets = (*(value for _, value in address.query if len(value) > 7), key)
    told = tuple(secret for secret in secrets if secret != NO_KEY)
    return Connection(wire, client, package, address.url, told, extra or {})
