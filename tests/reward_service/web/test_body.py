import asyncio
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

from reward_service.errors import PayloadTooLargeError
from reward_service.web.body import DISCARDED_BYTES, read_body


def make_request(chunks: Iterable[bytes], headers: list[tuple[bytes, bytes]] | None = None) -> Request:
    waiting = iter(chunks)

    async def receive() -> Message:
        chunk = next(waiting, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    return Request({"type": "http", "method": "POST", "headers": headers or []}, receive)


def test_the_limit_is_inclusive() -> None:
    assert asyncio.run(read_body(make_request([b"abc", b"de"]), 5)) == b"abcde"
    with pytest.raises(PayloadTooLargeError):
        asyncio.run(read_body(make_request([b"abc", b"def"]), 5))


def test_a_declared_length_is_believed() -> None:
    with pytest.raises(PayloadTooLargeError):
        asyncio.run(read_body(make_request([b"abc"], [(b"content-length", b"6")]), 5))


def test_memory_and_reading_are_bounded() -> None:
    chunk_bytes = 1024 * 1024
    read = 0

    def endless() -> Iterable[bytes]:
        nonlocal read
        while True:
            read += chunk_bytes
            yield b"x" * chunk_bytes

    tracemalloc.start()
    with pytest.raises(PayloadTooLargeError):
        asyncio.run(read_body(make_request(endless()), 4 * chunk_bytes))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 8 * chunk_bytes
    assert read <= DISCARDED_BYTES + 6 * chunk_bytes


def test_a_caller_who_leaves_cancels_the_work(make_service: Callable[..., Any], gate: Any) -> None:
    service = make_service(gate)
    body = b'{"items": [{"response": "a"}], "models": ["factuality"]}'

    async def scenario(_: Any) -> None:
        left = asyncio.Event()
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Message:
            message = next(messages, None)
            if message is None:
                await left.wait()
                return {"type": "http.disconnect"}
            return message

        async def send(message: Message) -> None:
            raise AssertionError(f"nobody is there to read {message}")

        scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": [], "query_string": b""}
        call = asyncio.create_task(service.app(scope, receive, send))
        await gate.until_busy()
        assert service.scorer.active_requests == 1
        left.set()
        await call
        assert service.scorer.active_requests == 0

    service.run(scenario)
    labels = {"endpoint": "/v1/score", "client_job": "none", "code": "499"}
    assert service.metric("reward_requests_total", **labels) == 1


def test_a_caller_who_leaves_in_mid_body_is_no_error() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        asyncio.run(read_body(Request({"type": "http", "method": "POST", "headers": []}, receive), 5))
