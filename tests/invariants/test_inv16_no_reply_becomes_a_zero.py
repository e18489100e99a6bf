"""Invariant 16, for the client: late, duplicate, NaN, timed-out, 429, wrong-length and broken replies from a socket.

Each script is a list of what the server does with one connection after the other. The client either gives the true
score, from a later good reply, or raises: no number is ever made up.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reward_proto import ScoreItem
from rl_client.api import (
    ApiConnectionError,
    ApiStatusError,
    ApiTimeoutError,
    ReplyError,
    RetryPolicy,
    RewardClient,
    RewardClientError,
)

TRUE_SCORES = {"a": 0.625, "b": -1.5}
ITEMS = [ScoreItem(id="a", response="first"), ScoreItem(id="b", response="second one")]
TIMEOUT_S = 1.5
RETRY = RetryPolicy(retry_for_s=60.0, initial_delay_s=0.01, max_delay_s=0.02, max_retry_after_s=0.05)


def good_body() -> dict[str, Any]:
    results = [
        {
            "id": item.id,
            "scores": {
                "m": {
                    "model": "m", "version": "v", "runtime": "r", "granularity": "sequence",
                    "segments": [{"start": 0, "end": len(item.response), "score": TRUE_SCORES[item.id or ""]}],
                    "sequence_score": TRUE_SCORES[item.id or ""],
                }
            },
        }
        for item in ITEMS
    ]  # fmt: skip
    return {"results": results, "usage": {"input_tokens": 2, "padded_tokens": 2}, "request_id": "r"}


def raw(body: bytes, status: str = "200 OK", extra: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n{extra}\r\n"
    return head.encode() + body


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    body = good_body()
    change(body)
    return raw(json.dumps(body).encode())


def error(code: str, status: str, extra: str = "") -> bytes:
    body = {"error": {"code": code, "message": "m", "retryable": True, "request_id": "r"}}
    return raw(json.dumps(body).encode(), status, extra)


GOOD = raw(json.dumps(good_body()).encode())


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up(connection: socket.socket) -> None:
    """Close without a byte."""


def half(connection: socket.socket) -> None:
    connection.sendall(GOOD[: len(GOOD) // 2])


def half_of_the_head(connection: socket.socket) -> None:
    connection.sendall(GOOD[:20])


def half_then_reset(connection: socket.socket) -> None:
    connection.sendall(GOOD[: len(GOOD) // 2])
    reset(connection)


def late(connection: socket.socket) -> None:
    """The right reply, when nobody waits for it any more."""
    time.sleep(3 * TIMEOUT_S)
    connection.sendall(GOOD)


def drip(connection: socket.socket) -> None:
    """A reply that never ends, each byte of it in time."""
    connection.sendall(raw(b"", length=10**6))
    for _ in range(200):
        connection.sendall(b" ")
        time.sleep(0.02)


def no_http(connection: socket.socket) -> None:
    connection.sendall(b"220 smtp.example.org ready\r\n")


def say(reply: bytes) -> Callable[[socket.socket], None]:
    def act(connection: socket.socket) -> None:
        connection.sendall(reply)

    return act


Act = Callable[[socket.socket], None]

PASSING: dict[str, tuple[Act, type[RewardClientError]]] = {
    "reset": (reset, ApiConnectionError),
    "hang up": (hang_up, ApiConnectionError),
    "half a reply": (half, ApiConnectionError),
    "half a head": (half_of_the_head, ApiConnectionError),
    "half, then reset": (half_then_reset, ApiConnectionError),
    "no HTTP": (no_http, ApiConnectionError),
    "late": (late, ApiTimeoutError),
    "drip": (drip, ApiTimeoutError),
    "429": (say(error("rate_limited", "429 Too Many Requests", "Retry-After: 3600\r\n")), ApiStatusError),
    "503": (say(error("overloaded", "503 Service Unavailable", "Retry-After: 0\r\n")), ApiStatusError),
    "504": (say(error("deadline_exceeded", "504 Gateway Timeout")), ApiStatusError),
    "a proxy's 502": (say(raw(b"<html>bad gateway</html>", "502 Bad Gateway")), ApiStatusError),
}
"""What may pass: another try is made."""

FINAL: dict[str, Act] = {
    "NaN": say(GOOD.replace(b"0.625", b"NaN  ")),
    "infinite": say(GOOD.replace(b"0.625", b"1e999")),
    "null": say(GOOD.replace(b"0.625", b"null ")),
    "duplicate": say(changed(lambda body: body["results"].__setitem__(1, body["results"][0]))),
    "too short": say(changed(lambda body: body["results"].pop())),
    "too long": say(changed(lambda body: body["results"].append(body["results"][1]))),
    "empty": say(changed(lambda body: body["results"].clear())),
    "swapped": say(changed(lambda body: body["results"].reverse())),
    "no model": say(changed(lambda body: body["results"][0]["scores"].clear())),
    "no score": say(changed(lambda body: body["results"][0]["scores"]["m"].update(segments=None, sequence_score=None))),
    "no segment": say(changed(lambda body: body["results"][0]["scores"]["m"].update(segments=[]))),
    "span past the text": say(changed(lambda body: body["results"][0]["scores"]["m"]["segments"][0].update(end=6))),
    "an empty body": say(raw(b"")),
    "a proxy's page": say(raw(b"<html>welcome</html>")),
    "a redirect": say(raw(b"", "302 Found", "Location: /elsewhere\r\n")),
    "400 that calls itself retryable": say(error("invalid_request", "400 Bad Request")),
}
"""What no other try would mend: it raises at once."""


class ScriptedServer:
    """Plays one act for each connection; the last one for all further ones."""

    def __init__(self, port: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.acts: list[Act] = [hang_up]
        self.served = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            act = self.acts[min(self.served, len(self.acts) - 1)]
            self.served += 1
            threading.Thread(target=self._play, args=(connection, act), daemon=True).start()

    def _play(self, connection: socket.socket, act: Act) -> None:
        with connection:
            connection.settimeout(10)
            data = b""
            while b'"return_logits"' not in data:  # the end of the request
                data += connection.recv(65536)
            try:
                act(connection)
            except OSError:
                return  # the client did not wait


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


def scores_of(server: ScriptedServer, retry: RetryPolicy) -> dict[str, float | None]:
    with RewardClient(server.url, timeout_s=TIMEOUT_S, retry=retry) as client:
        return {result.id: result.scores["m"].sequence_score for result in client.score(ITEMS, ["m"])}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_ends_in_the_true_scores(name: str, server: ScriptedServer) -> None:
    act, _ = PASSING[name]
    server.acts = [act, act, say(GOOD)]
    assert scores_of(server, RETRY) == TRUE_SCORES
    assert server.served == 3


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_in_time_raises(name: str, server: ScriptedServer) -> None:
    act, kind = PASSING[name]
    server.acts = [act]
    with pytest.raises(kind) as raised:
        scores_of(server, RetryPolicy(retry_for_s=0.0))
    assert raised.value.retryable


@pytest.mark.parametrize("name", FINAL)
def test_what_is_wrong_raises_at_once(name: str, server: ScriptedServer) -> None:
    server.acts = [FINAL[name], say(GOOD)]
    with pytest.raises((ReplyError, ApiStatusError)) as raised:
        scores_of(server, RETRY)
    assert not raised.value.retryable
    assert server.served == 1


def test_a_service_that_is_away_for_a_while_is_waited_for() -> None:
    """Nobody listens on the port at first, as while a killed service starts again."""
    killed = ScriptedServer()
    port = killed.listener.getsockname()[1]
    killed.close()
    revived: list[ScriptedServer] = []

    def come_back() -> None:
        revived.append(ScriptedServer(port))
        revived[0].acts = [say(GOOD)]

    timer = threading.Timer(0.5, come_back)
    timer.start()
    try:
        assert scores_of(killed, RETRY) == TRUE_SCORES
    finally:
        timer.join()
        revived[0].close()
    assert killed.served == 0


def test_a_score_that_failed_alone_is_an_error_and_not_a_number(server: ScriptedServer) -> None:
    failed = {"code": "too_long", "message": "m", "retryable": False}
    server.acts = [
        say(
            changed(
                lambda body: body["results"][0]["scores"]["m"].update(segments=None, sequence_score=None, error=failed)
            )
        )
    ]
    with RewardClient(server.url, timeout_s=TIMEOUT_S, retry=RETRY) as client:
        first, second = client.score(ITEMS, ["m"])
    assert first.scores["m"].error is not None
    assert (first.scores["m"].segments, first.scores["m"].sequence_score) == (None, None)
    assert second.scores["m"].sequence_score == TRUE_SCORES["b"]
