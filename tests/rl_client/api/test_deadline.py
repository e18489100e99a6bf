"""Sockets whose other end drips: httpx's time-outs, which bound each read, never come."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx
import pytest

from rl_client.api import ApiTimeoutError, AsyncRewardClient, RetryPolicy, RewardClient
from rl_client.api.deadline import bound, within

TIMEOUT_S = 0.3
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
DRIPS = {
    "status_line": b"HTTP/1.1 200 OK" + b"K" * 50_000,
    "headers": HEAD + b"X-Long: " + b"x" * 50_000,
    "body": HEAD + b"Content-Length: 50000\r\n\r\n" + b" " * 50_000,
    "chunk_size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 50_000,
    "interim_replies": b"HTTP/1.1 102 Processing\r\n\r\n" * 2000,
}


@pytest.fixture
def drip() -> Iterator[Callable[[bytes], str]]:
    """Starts a server that answers a byte every few milliseconds; all of it would take minutes."""
    over = threading.Event()
    threads: list[threading.Thread] = []
    listeners: list[socket.socket] = []

    def serve(listener: socket.socket, content: bytes) -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            connection.recv(65536)
            for byte in content:
                connection.sendall(bytes([byte]))
                if over.wait(0.01):
                    return

    def start(content: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threads.append(threading.Thread(target=serve, args=(listener, content), daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    over.set()
    for listener in listeners:
        listener.close()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("what", DRIPS)
def test_a_reply_that_drips_in_is_ended_wherever_it_drips(
    drip: Callable[[bytes], str], what: str, is_async: bool
) -> None:
    url = drip(DRIPS[what])
    once = RetryPolicy(retry_for_s=0.0)

    async def ask() -> None:
        async with AsyncRewardClient(url, timeout_s=TIMEOUT_S, retry=once) as client:
            await client.models()

    def ask_sync() -> None:
        with RewardClient(url, timeout_s=TIMEOUT_S, retry=once) as client:
            client.models()

    with pytest.raises(ApiTimeoutError):
        asyncio.run(ask()) if is_async else ask_sync()


def test_outside_of_within_the_clients_own_time_outs_hold(drip: Callable[[bytes], str]) -> None:
    url = drip(HEAD + b"Content-Length: 5\r\n\r\nabcde")
    with httpx.Client(timeout=60.0, trust_env=False) as http:
        bound(http)
        assert http.get(url).text == "abcde"


def test_a_time_that_is_up_connects_to_nobody() -> None:
    with httpx.Client(timeout=60.0, trust_env=False) as http:
        bound(http)
        with within(-1.0), pytest.raises(httpx.ConnectTimeout):
            http.get("http://127.0.0.1:9")


def test_a_proxys_connections_are_bound_too(drip: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", drip(DRIPS["headers"]))
    monkeypatch.setenv("NO_PROXY", "")
    once = RetryPolicy(retry_for_s=0.0)
    client = RewardClient("http://reward.invalid", timeout_s=TIMEOUT_S, retry=once)
    with client, pytest.raises(ApiTimeoutError):
        client.models()
