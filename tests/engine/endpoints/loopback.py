"""A server on loopback that answers as a function says, and a proxy that does it harm."""

import http.client
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

SENTINEL = "sk-sentinel-4f1c9d0e7a"
"""A key that must show up nowhere."""


class Asked(NamedTuple):
    """A request as it arrived."""

    path: str
    headers: dict
    body: dict

    @property
    def prompt(self):
        """The last message, or the text to be continued."""
        chat = "messages" in self.body
        return self.body["messages"][-1]["content"] if chat else self.body["prompt"]


class Reply(NamedTuple):
    """What to answer; a body that is no text is sent as JSON."""

    body: object
    status: int = 200
    headers: dict = {}

    @property
    def content(self):
        body = self.body
        return body if isinstance(body, bytes) else json.dumps(body).encode()


class Loopback:
    """A server in threads.

    Args:
        answer: Gives a Reply, or the JSON of one, for what was Asked.
    """

    def __init__(self, answer):
        self.asked, self.most_at_once, self._now = [], 0, 0
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {key.lower(): value for key, value in self.headers.items()}
                asked = Asked(self.path, headers, body)
                with lock:
                    outer.asked.append(asked)
                    outer._now += 1
                    outer.most_at_once = max(outer.most_at_once, outer._now)
                try:
                    outer.send(self, answer, asked)
                finally:
                    with lock:
                        outer._now -= 1

            def log_message(self, *arguments):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                pass  # a client that hangs up is no error

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def send(self, handler, answer, asked):
        """Answer one request."""
        reply = answer(asked)
        reply = reply if isinstance(reply, Reply) else Reply(reply)
        handler.wfile.write(raw(reply))

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def raw(reply):
    """A whole HTTP response, after which the server hangs up."""
    # Told, so that no client sends its next request into a connection that is being closed.
    headers = {"connection": "close", "content-type": "application/json"}
    headers["content-length"] = str(len(reply.content))
    lines = [f"{name}: {value}" for name, value in (headers | reply.headers).items()]
    return (
        f"HTTP/1.1 {reply.status} Some\r\n".encode()
        + "\r\n".join([*lines, "", ""]).encode()
        + (reply.content)
    )


def chat(text, finish="stop", prompt_tokens=3, completion_tokens=2, **more):
    """A chat completion of the OpenAI-compatible protocol."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    return {"id": "x", "model": "served", "choices": [choice], "usage": usage} | more


def message(text, reason="end_turn", **more):
    """A message of Anthropic's protocol."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-of-the-test",
        "content": [{"type": "text", "text": text}],
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    } | more


class FaultProxy(Loopback):
    """Passes requests on to a server and does what a schedule says to the answers.

    Args:
        upstream: The server.
        fault: Names the fault for what was Asked and the number of the attempt from 0; or None.
        stall_s: How long a stall lasts.
    """

    def __init__(self, upstream, fault, stall_s=60):
        self.attempts, self._fault = {}, fault
        self._upstream, self._stall_s = upstream, stall_s
        self._over, self._lock = threading.Event(), threading.Lock()
        super().__init__(self._passed_on)

    def _passed_on(self, asked):
        host = self._upstream.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=30)
        try:
            connection.request(
                "POST", asked.path, json.dumps(asked.body), {"content-type": "application/json"}
            )
            response = connection.getresponse()
            return Reply(response.read(), response.status)
        finally:
            connection.close()

    def send(self, handler, answer, asked):
        with self._lock:
            attempt = self.attempts.get(asked.prompt, 0)
            self.attempts[asked.prompt] = attempt + 1
        fault = self._fault(asked, attempt)
        if fault == "429":
            refusal = {"error": {"message": "slow down"}}
            handler.wfile.write(raw(Reply(refusal, 429, {"retry-after": "0.2"})))
            return
        if fault == "500":
            handler.wfile.write(raw(Reply(b"<html>oops</html>", 500)))
            return
        if fault == "stall":
            self._over.wait(self._stall_s)
            handler.close_connection = True
            return
        content = raw(answer(asked))
        if fault == "reset":
            content = b""
        elif fault == "truncated":
            content = content[:-9]
        elif fault == "wrong JSON":
            content = raw(Reply(b'{"choices": [nonsense'))
        elif fault == "twice":
            content += content
        handler.wfile.write(content)
        if fault in ("reset", "truncated"):
            handler.wfile.flush()
            handler.connection.close()
            handler.close_connection = True

    def close(self):
        self._over.set()
        super().close()


def eventually(condition, seconds=5):
    """Whether something becomes true soon."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()
