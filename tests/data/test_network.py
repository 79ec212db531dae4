"""Whether a connection stands: found out in seconds, whatever the network does."""

import socket
import time

import pytest

from pytest_llmprobe.data import network
from pytest_llmprobe.data.network import can_connect, hub_is_reachable


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    can_connect.cache_clear()
    yield
    can_connect.cache_clear()


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_is_reached_and_a_closed_port_is_not(server):
    assert can_connect(server + "/models")
    assert not can_connect("http://127.0.0.1:9")


def test_the_proxy_is_what_must_be_reached(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server)
    assert can_connect("http://no-such-host.invalid")
    monkeypatch.setenv("http_proxy", server.removeprefix("http://"))
    assert can_connect("http://no-such-host.invalid/")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert not can_connect(server)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert can_connect(server + "/")


def test_a_network_that_swallows_everything_is_given_up(monkeypatch):
    monkeypatch.setattr(network, "PATIENCE", 0.1)
    monkeypatch.setattr(network, "_connect", lambda *_: time.sleep(5))
    start = time.monotonic()
    assert not can_connect("http://10.255.255.1")
    assert time.monotonic() - start < 3


def test_offline_nothing_is_tried(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(network, "can_connect", lambda url: pytest.fail("was tried"))
    assert not hub_is_reachable()
