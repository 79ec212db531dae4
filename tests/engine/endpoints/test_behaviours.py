"""The tables of what servers do: requests that arrive, what becomes of the cases, which words."""

import re

import pytest
from behaviours import TABLE
from behaviours_learned import ANTHROPIC, ECHO, LEARNED
from behaviours_told import TOLD
from loopback import SENTINEL, Loopback, Reply, raw

from pytest_llmprobe import Completion, GenerateConfig, RawPrompt, Request

ALL = TABLE | TOLD | LEARNED


class Blunt(Loopback):
    """Sends bytes as they are, and hangs up after them."""

    def send(self, handler, answer, asked):
        reply = answer(asked)
        if not isinstance(reply, bytes):
            super().send(handler, lambda asked: reply, asked)
            return
        handler.wfile.write(reply)
        handler.wfile.flush()
        handler.connection.close()
        handler.close_connection = True


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.engine.endpoints.attempts.FIRST_PAUSE_S", 0.001)


@pytest.fixture
def played(server, ask):
    """What becomes of the cases of a row: the server and the backend, too."""

    def play(row, protocol="openai", requests=None):
        seen = []

        def answer(asked):
            seen.append(asked)
            return row.answer(len(seen) - 1, asked)

        asked = server(answer, kind=Blunt)
        engine = ask(asked, protocol, **{"concurrency": 1} | row.how)
        config = GenerateConfig(**row.config)
        given = requests or [Request(f"p{n:02}", config) for n in range(row.cases)]
        return engine.attempt(given), asked, engine.backend

    return play


def check(row, outcomes, asked, backend):
    said = [o.text if isinstance(o, Completion) else type(o).__name__ for o in outcomes]
    expected = [row.outcome] * row.cases if isinstance(row.outcome, str) else list(row.outcome)
    if row.outcome == "OutageError":  # the words come with the request that is one too many
        said = ["OutageError" if name in ("ServerError", "OutageError") else name for name in said]
        assert any(type(o).__name__ == "OutageError" for o in outcomes)
    if isinstance(row.outcome, tuple) and "OutageError" in row.outcome:
        said = ["OutageError" if name == "ServerError" else name for name in said]
        assert type(outcomes[-1]).__name__ == "OutageError"
    assert said == expected, [str(o) for o in outcomes]
    assert len(asked.asked) == row.requests
    errors = [o for o in outcomes if not isinstance(o, Completion)]
    if row.words:
        assert re.search(row.words, str(errors[-1] if errors else backend.info))
    assert all(str(e).isprintable() and e.__traceback__ is None for e in errors)
    answers = [o for o in outcomes if isinstance(o, Completion)]
    assert {a.finish_reason for a in answers} <= {row.finish}
    for name, value in row.info.items():
        found = backend.info[name]
        assert found == value if isinstance(found, list) else re.search(value, str(found))


@pytest.mark.parametrize("name", ALL)
def test_what_a_server_does_costs_and_means(name, played):
    check(ALL[name], *played(ALL[name]))


@pytest.mark.parametrize("name", ANTHROPIC)
def test_what_anthropics_service_does(name, played, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", SENTINEL)
    check(ANTHROPIC[name], *played(ANTHROPIC[name], "anthropic"))


@pytest.mark.parametrize("name", ECHO)
def test_what_a_server_without_log_probabilities_does(name, played):
    row = ECHO[name]
    texts = [Request(RawPrompt("It is"), continuation=f" {n}") for n in range(row.cases)]
    check(row, *played(row, requests=texts))


def test_the_tables_are_as_large_as_they_have_to_be():
    assert len(ALL) + len(ANTHROPIC) + len(ECHO) >= 150


@pytest.mark.parametrize("streamed", [False, True])
def test_many_at_a_time_cost_a_failing_server_no_more_than_are_under_way(streamed, server, ask):
    """Until its first answer a server is asked one at a time, whatever may be under way."""
    failing = server(lambda asked: raw(Reply(b"no", 500)), kind=Blunt)
    outcomes = ask(failing, concurrency=16, stream=streamed).attempt(
        [Request(f"p{n}") for n in range(60)]
    )
    assert len(failing.asked) == 7
    assert {type(outcome).__name__ for outcome in outcomes} <= {"ServerError", "OutageError"}
