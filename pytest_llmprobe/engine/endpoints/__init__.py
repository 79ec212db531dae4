"""Models behind a server: the OpenAI-compatible protocol and Anthropic's. No torch here."""

from pytest_llmprobe.engine.endpoints.address import check_endpoint
from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
from pytest_llmprobe.engine.endpoints.budget import Budget, Prices
from pytest_llmprobe.engine.endpoints.connection import Connection, connect
from pytest_llmprobe.engine.endpoints.engine import EndpointEngine
from pytest_llmprobe.engine.endpoints.options import EndpointOptions
from pytest_llmprobe.engine.endpoints.reach import check_server

__all__ = [
    "Budget",
    "Connection",
    "EndpointBackend",
    "EndpointEngine",
    "EndpointOptions",
    "Prices",
    "check_endpoint",
    "check_server",
    "connect",
]
