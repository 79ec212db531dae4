"""Ways to a server: TLS, proxies, what this machine has run out of, time that is over."""

import errno
import ssl
import time

import pytest
from loopback import Loopback, chat

from pytest_llmprobe import Completion, Request
from pytest_llmprobe.engine.endpoints.backend import EndpointBackend
from pytest_llmprobe.engine.endpoints.breaker import FEW, MANY, Breaker
from pytest_llmprobe.engine.endpoints.budget import Budget
from pytest_llmprobe.engine.endpoints.connection import connect
from pytest_llmprobe.engine.endpoints.engine import EndpointEngine
from pytest_llmprobe.engine.endpoints.reach import proxy_of
from pytest_llmprobe.errors import AccessError, OutageError, ServerError, StorageError
from pytest_llmprobe.models.registry import ModelSpec

# Of nobody, for 127.0.0.1, until 2126; signed by itself.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBkDCCATagAwIBAgIUN2O07y0JFTXvNaRB5R+y/fKU0IEwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyNzA4MzIwM1oYDzIxMjYxMTAz
MDgzMjAzWjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASAMi+OoSADdjD7E3JqCUOkO91xnu2u484BWSHFWMSxVxAAwVzm5wNY
eWE+ssYXLIyRmplTM5s8FW9W3ReEDqeOo2QwYjAdBgNVHQ4EFgQUYpe2ESC2JhJQ
7mjs3W/GTwE5/YUwHwYDVR0jBBgwFoAUYpe2ESC2JhJQ7mjs3W/GTwE5/YUwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0gAMEUC
IBMxncZFbIVmFcFdlAEx23VIXE9ZO5XDFWeFjG80riwIAiEA+1K7WzV4ZFXMep6L
wrD/SZbYN/vRSr4EQ07sSLnwOvE=
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgreeTx965nfBMYW0V
rthLtxDcAthbxJgXJEaqPa3Lo7GhRANCAASAMi+OoSADdjD7E3JqCUOkO91xnu2u
484BWSHFWMSxVxAAwVzm5wNYeWE+ssYXLIyRmplTM5s8FW9W3ReEDqeO
-----END PRIVATE KEY-----
"""


class Secure(Loopback):
    """Speaks TLS with a certificate that nobody trusts."""

    def __init__(self, answer, file):
        super().__init__(answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.engine.endpoints.attempts.FIRST_PAUSE_S", 0.001)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def asked():
    """What becomes of two requests to an address."""
    backends = []

    def ask(url, **how):
        spec = ModelSpec("m", "openai:m", base_url=f"{url}/v1")
        backends.append(EndpointBackend(connect(spec, 5.0), concurrency=1, **how))
        return EndpointEngine(backends[-1]).attempt([Request("a"), Request("b")])

    yield ask
    for backend in backends:
        backend.close()


def test_a_certificate_that_is_not_trusted_is_named_and_can_be(
    server, asked, tmp_path, monkeypatch
):
    file = tmp_path / "both.pem"
    file.write_text(CERTIFICATE)
    secure = server(lambda asked: chat("fine"), kind=Secure, file=file)
    outcomes = asked(secure.url)
    assert {type(outcome) for outcome in outcomes} == {AccessError}
    assert "is not trusted (self-signed certificate): name the file of its authority in" in str(
        outcomes[0]
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert [outcome.text for outcome in asked(secure.url)] == ["fine", "fine"]


def test_a_server_that_speaks_no_tls_is_told_of(server, asked):
    plain = server(lambda asked: chat("fine"))
    error, other = asked(plain.url.replace("http:", "https:"))
    assert type(error) is AccessError
    assert "no secure connection to https://127.0.0.1" in str(error)
    assert "does the server speak http:// only?" in str(error)
    assert str(other) == str(error)


def test_a_proxy_that_has_gone_is_named_without_its_password(asked, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:hunter2@127.0.0.1:9")
    error, _ = asked("http://10.0.0.1:8000", retries=0)
    assert type(error) is AccessError
    assert "through the proxy http://127.0.0.1:9 (HTTP_PROXY)" in str(error)
    assert "NO_PROXY" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"https_proxy": "http://p:1"}, None),
        ({"http_proxy": "p:1"}, "the proxy http://p:1 (http_proxy)"),
        ({"ALL_PROXY": "socks5://p:1"}, "the proxy socks5://p:1 (ALL_PROXY)"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "host"}, None),
    ],
)
def test_the_proxy_of_an_address_and_where_it_is_named(variables, proxy, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_of("http://host:8000/v1") == proxy


def test_what_this_machine_has_run_out_of_is_not_tried_again(asked, monkeypatch):
    tried = []

    async def none_left(*_, **__):
        tried.append(1)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("anyio.connect_tcp", none_left)
    with pytest.raises(StorageError, match=r"Too many open files.*ulimit -n"):
        asked("http://127.0.0.1:8000")
    assert len(tried) == 1


def test_time_that_is_over_ends_what_is_under_way_and_sends_nothing_more(server, ask):
    def slow(asked):
        time.sleep(0.1)
        return chat("fine")

    behind = server(slow)
    start = time.monotonic()
    engine = ask(behind, concurrency=1, budget=Budget(max_s=0.35))
    outcomes = engine.attempt([Request(f"p{n:02}") for n in range(20)])
    assert time.monotonic() - start < 1.5
    kinds = [type(outcome).__name__ for outcome in outcomes]
    answered = kinds.count("Completion")
    assert 1 <= answered <= 4
    assert kinds == ["Completion"] * answered + ["BudgetError"] * (20 - answered)
    assert "--llmprobe-max-time" in str(outcomes[-1])
    assert len(behind.asked) <= answered + 1


def test_progress_moves_with_each_answer(server, ask):
    seen = []
    engine = ask(server(lambda asked: chat("fine")), concurrency=2)
    outcomes = engine.attempt([Request(f"p{n}") for n in range(6)], seen.append)
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert set(done) == {1, 2, 3, 4, 5, 6}
    assert seen[-1].generated_tokens == 12


def test_an_earlier_call_is_answered_before_a_later_one(server, ask):
    from threading import Thread

    def slow(asked):
        time.sleep(0.01)
        return chat(asked.prompt)

    asked = server(slow)
    engine = ask(asked, concurrency=2)
    first = Thread(target=engine.attempt, args=([Request(f"a{n:02}") for n in range(20)],))
    first.start()
    while len(asked.asked) < 4:
        time.sleep(0.001)
    engine.attempt([Request(f"b{n:02}") for n in range(20)])
    first.join()
    prompts = [one.prompt for one in asked.asked]
    assert max(n for n, p in enumerate(prompts) if p[0] == "a") <= 22
    assert len(set(prompts)) == 40


def test_failures_that_differ_stop_a_run_only_when_they_are_many():
    breaker = Breaker(16)
    for number in range(MANY - 1):
        error = ServerError("overloaded" if number % 2 else "reset")
        breaker.failed(number, error, late=False)
        assert breaker.give_up(error, lasting=False) is error
    breaker.failed(99, error, late=False)
    assert isinstance(breaker.give_up(error, lasting=False), OutageError)


def test_an_answer_begins_the_count_again():
    breaker, error = Breaker(1), ServerError("answers 500: request 17")
    for number in range(3 * FEW):
        breaker.failed(number, error, late=False)
        assert breaker.give_up(error, lasting=False) is error
        if number % (FEW - 1):
            breaker.alive()
