"""Callers who mean ill, or whose programs are broken, against a real process.

They get typed errors, the service's memory stays bounded, and others are unharmed.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest

from reward_proto.errors import ErrorReply
from reward_service.core.segment import MAX_SEGMENTS

TIMEOUT_S = 30.0
MB = 1024 * 1024
MAX_BODY = 4 * MB
POSTS = ("/v1/score", "/v1/segment", "/get_reward", "/classify", "/predict", "/rm", "/v1/rewards")
ITEM = {"prompt": "p", "response": "One. Two.", "fields": {"question": "Why?"}}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any], tiny_store: Path) -> Any:
    models = [{"name": name, "runtime": "onnxruntime"} for name in ("relevance", "factuality", "completeness")]
    limits = {"receive_timeout_s": 1.0, "max_body_bytes": MAX_BODY, "max_pending_bytes": 4 * MAX_BODY}
    compat = {"weights": {"factuality": 1.0}}
    return start_service(store=str(tiny_store), models=models, limits=limits, compat=compat)


@pytest.fixture
def http(service: Any) -> Iterator[httpx.Client]:
    """Checks that a friendly request is answered before and after the test."""
    with httpx.Client(base_url=service.url, timeout=TIMEOUT_S) as client:
        score(client)
        yield client
        score(client)
        assert client.get("/readyz").status_code == 200


def score(http: httpx.Client) -> None:
    reply = http.post("/v1/score", json={"items": [ITEM]})
    assert reply.status_code == 200, reply.text
    assert all(model["error"] is None for model in reply.json()["results"][0]["scores"].values())


def connect(url: str, receive_bytes: int | None = None) -> socket.socket:
    """A connection whose system keeps no more than so much of what nobody reads."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.settimeout(TIMEOUT_S)
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect((host, int(port)))
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def body_of(reply: bytes) -> Any:
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def peak_memory_mb(process: Any) -> float:
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def overloaded(http: httpx.Client) -> float:
    """Requests that were refused so far because there were too many."""
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith('reward_rejected_total{reason="overloaded"'))


@pytest.mark.parametrize("sent", [b"", b"POST /v1/sc", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: "])
def test_heads_that_do_not_arrive_are_not_waited_for(sent: bytes, http: httpx.Client, service: Any) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(service.url)) for _ in range(50)]
        for connection in connections:
            connection.sendall(sent)
        score(http)
        for connection in connections:
            assert read_all(connection) == b""


def test_a_second_head_is_not_waited_for_either(http: httpx.Client, service: Any) -> None:
    with connect(service.url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /heal")
        read_all(connection)


@pytest.mark.parametrize("path", POSTS)
def test_bodies_that_do_not_arrive_are_deadline_exceeded(path: str, http: httpx.Client, service: Any) -> None:
    with connect(service.url) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + b'{"items": ')
        score(http)
        status, body = body_of(read_all(connection))
    assert status == 504
    assert "did not arrive within 1 s" in json.dumps(body)


def test_a_body_that_trickles_does_not_buy_time(http: httpx.Client, service: Any) -> None:
    with connect(service.url) as connection:
        connection.sendall(b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        connection.settimeout(0.1)
        received = b""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not received:
            assert time.monotonic() < deadline_s
            try:
                connection.sendall(b" ")
                received = connection.recv(65536)
            except TimeoutError:
                continue
        assert received.startswith(b"HTTP/1.1 504")


def test_bodies_on_their_way_are_bounded_together(http: httpx.Client, service: Any) -> None:
    before_mb, before = peak_memory_mb(service), overloaded(http)
    head = f"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Length: {MAX_BODY}\r\n\r\n".encode()
    statuses = set()
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(service.url)) for _ in range(24)]
        for connection in connections:
            with suppress(ConnectionError):  # Refused and hung up on while this one was still sending.
                connection.sendall(head + b" " * (MAX_BODY - 1))
        for connection in connections:
            with suppress(ConnectionError):  # A reply may be lost where the connection is reset after it.
                statuses.update(int(line.split()[1]) for line in [connection.recv(65536)] if line)
    assert statuses <= {503, 504}
    assert overloaded(http) > before
    assert peak_memory_mb(service) - before_mb < 24 * MAX_BODY / MB / 2


@pytest.mark.parametrize(
    ("model", "unit", "code"),
    [
        ("relevance", "x", "too_long"),
        ("relevance", "One two three.\n\n", "too_long"),
        ("completeness", "x ", "too_long"),
        ("factuality", "你好。", "invalid_request"),
    ],
)
def test_a_text_of_megabytes_is_refused_in_little_memory(
    model: str, unit: str, code: str, http: httpx.Client, service: Any
) -> None:
    before_mb = peak_memory_mb(service)
    text = unit * (3 * MB // len(unit.encode()))
    reply = http.post("/v1/score", json={"items": [{**ITEM, "response": text}], "models": [model]})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, code)
    assert peak_memory_mb(service) - before_mb < 100


def test_replies_that_nobody_reads_are_not_kept(http: httpx.Client, service: Any) -> None:
    body = json.dumps({"text": "a\n\n" * MAX_SEGMENTS, "granularity": "paragraph"}).encode()
    head = f"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    requests, reply_bytes = 16, 1_500_000  # The system takes some MB itself.
    open_files = Path(f"/proc/{service.popen.pid}/fd")
    before = len(list(open_files.iterdir()))
    with connect(service.url, receive_bytes=4096) as connection:
        connection.settimeout(1.0)
        with suppress(TimeoutError, ConnectionError):
            connection.sendall((head.encode() + body) * requests)
        connection.settimeout(TIMEOUT_S)
        deadline_s = time.monotonic() + TIMEOUT_S
        while len(list(open_files.iterdir())) > before:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        received = 0
        with suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += len(chunk)
    assert received < requests * reply_bytes, "only what was under way already"


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_100_mb_is_refused_in_little_memory(declared: bool, http: httpx.Client, service: Any) -> None:
    before_mb = peak_memory_mb(service)

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * MB

    headers = {"Content-Length": str(100 * MB)} if declared else {}
    try:
        reply = http.post("/v1/score", content=chunks(), headers=headers)
        # On a busy machine a body without a length may not get beyond the limit in the second that it has.
        codes = {"payload_too_large"} if declared else {"payload_too_large", "deadline_exceeded"}
        assert reply.json()["error"]["code"] in codes
    except httpx.TransportError:  # The service hung up in the middle of the body, as it may.
        pass
    assert peak_memory_mb(service) - before_mb < 50


NASTY = {
    "deep lists": b'{"items": ' + b"[" * 60_000,
    "deep objects": b'{"a":' * 60_000,
    "closed deep lists": b"[" * 5_000 + b"]" * 5_000,
    "invalid UTF-8": b'{"items": [{"response": "\xc3\x28"}]}',
    "overlong UTF-8": b'{"items": [{"response": "\xc0\xaf"}]}',
    "lone surrogate": b'{"items": [{"response": "\\ud83d"}], "query": ["\\ud83d"], "input": "\\udc00"}',
    "UTF-16": '{"items": []}'.encode("utf-16"),
    "huge number": b'{"timeout_s": 1' + b"0" * 100_000 + b"}",
    "NaN": b'{"timeout_s": NaN}',
    "many keys": json.dumps({str(n): n for n in range(60_000)}).encode(),
    "nothing": b"",
    "NUL": b"\x00",
}


MANY_VALUES = {
    "zeros": b'{"items": [0' + b",0" * 2_000_000 + b"]}",
    "empty items": b'{"items": [{}' + b",{}" * 1_000_000 + b"]}",
    "spans": b'{"items": [{"response": "a", "segments": {"sentence": [[0,1]' + b",[0,1]" * 600_000 + b"]}}]}",
    "keys": json.dumps(dict.fromkeys(map(str, range(250_000)), 0)).encode(),
    "texts": b'{"query": [""' + b',""' * 1_000_000 + b"]}",
}


@pytest.mark.parametrize("path", POSTS)
def test_bodies_of_many_values_are_not_looked_at(path: str, http: httpx.Client, service: Any) -> None:
    before_mb = peak_memory_mb(service)
    for name, body in MANY_VALUES.items():
        assert len(body) < MAX_BODY
        reply = http.post(path, content=body)
        assert reply.status_code == 413, (name, reply.text[:200])
        assert "values" in reply.text
    assert peak_memory_mb(service) - before_mb < 100


def test_many_faults_are_counted_and_not_spelled_out(http: httpx.Client) -> None:
    spans = b"[0" + b",0" * 59_999 + b"]"
    body = b'{"items": [{"response": "a", "segments": {"sentence": ' + spans + b"}}]}"
    reply = http.post("/v1/score", content=body)
    assert reply.status_code == 422
    assert reply.json()["error"]["message"] == "the body has 60000 faults, too many to name one"
    assert reply.json()["error"]["details"] == {"errors": [], "count": 60_000}


@pytest.mark.parametrize(
    "body",
    [
        {"items": [ITEM], "models": ["x" * MB]},
        {"items": [ITEM], "x" * MB: 1},
        {"items": [{**ITEM, "segments": {"x" * MB: []}}]},
        {"items": [{**ITEM, "id": "x" * MB}] * 2},
    ],
)
def test_long_names_are_not_sent_back(body: Any, http: httpx.Client) -> None:
    reply = http.post("/v1/score", json=body)
    assert reply.status_code in (404, 422)
    assert len(reply.content) < 10_000


def test_items_over_the_limit_are_refused_and_spans_of_three_ends_are_not_taken_for_them(http: httpx.Client) -> None:
    reply = http.post("/v1/score", json={"items": [ITEM] * 257})
    assert (reply.status_code, reply.json()["error"]["message"]) == (413, "more than 256 items")
    reply = http.post("/v1/score", json={"items": [{**ITEM, "segments": {"sentence": [[0, 1, 2]]}}]})
    assert reply.status_code == 422


@pytest.mark.parametrize("path", POSTS)
def test_nasty_bodies_are_invalid_requests(path: str, http: httpx.Client) -> None:
    for name, body in NASTY.items():
        reply = http.post(path, content=body)
        assert reply.status_code == 422, (name, reply.text[:200])
        shown = reply.json()
        assert "error" in shown
        assert len(reply.content) < 10_000, "an error does not send the body back"


def test_texts_of_every_kind_are_scored_or_refused(http: httpx.Client) -> None:
    marks = "e" + "\u0301" * 900
    texts = ["\x00", "\u202e", "\ufeff", marks, "👍🏽" * 30, "\U0010ffff", "\r\n", "a\x0bb\x85c\u2028d"]
    for text in texts:
        reply = http.post("/v1/score", json={"items": [{**ITEM, "response": text}]})
        assert reply.status_code in (200, 422), text
        for model in reply.json()["results"][0]["scores"].values() if reply.status_code == 200 else ():
            end = 0
            for segment in model["segments"] or []:
                assert end <= segment["start"] < segment["end"] <= len(text)
                end = segment["end"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\r\nnonsense\r\n\r\n",
        b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 300_000,
    ],
)
def test_what_is_no_http_is_refused(sent: bytes, http: httpx.Client, service: Any) -> None:
    with connect(service.url) as connection:
        try:
            connection.sendall(sent)
            reply = connection.recv(65536)
        except ConnectionError:
            return
    assert reply == b"" or 400 <= int(reply.split()[1]) < 500


def test_what_is_no_http_is_answered_in_the_shape_of_all_errors(http: httpx.Client, service: Any) -> None:
    two_lengths = "Content-Length: 5\r\nTransfer-Encoding: chunked"  # The way to smuggle a request past a proxy.
    with connect(service.url) as connection:
        connection.sendall(f"POST /v1/score HTTP/1.1\r\nHost: a\r\n{two_lengths}\r\n\r\n0\r\n\r\n".encode())
        reply = HTTPResponse(connection)
        reply.begin()
        body = reply.read()
        assert connection.recv(1) == b"", "the connection is closed"
    error = ErrorReply.model_validate_json(body).error
    assert (reply.status, error.code, error.retryable) == (400, "invalid_request", False)
    assert error.request_id == reply.headers["X-Request-Id"]
    assert http.get("/healthz").status_code == 200


POST_CHUNKED = b"POST /v1/score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /", b"a" * 4096),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: ", b"a" * 4096),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n", b"X-Many: a\r\n" * 400),
        (POST_CHUNKED + b"5;", b"a" * 4096),
        (POST_CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-Many: a\r\n" * 400),
    ],
    ids=["address", "header", "headers", "extension", "trailers"],
)
def test_what_has_no_end_is_cut_off(begin: bytes, more: bytes, http: httpx.Client, service: Any) -> None:
    before_mb = peak_memory_mb(service)
    sent = 0
    with connect(service.url) as connection, suppress(ConnectionError):
        connection.sendall(begin)
        while sent < 64 * MB:
            connection.sendall(more)
            sent += len(more)
    assert sent < 64 * MB
    assert peak_memory_mb(service) - before_mb < 20


def test_a_head_within_the_bound_is_served(http: httpx.Client) -> None:
    assert http.get("/healthz", headers={"X-Long": "a" * 50_000}).status_code == 200


def test_a_reply_without_a_body_is_sent(http: httpx.Client) -> None:
    for _ in range(2):  # On one connection.
        assert http.head("/healthz").status_code == 405
