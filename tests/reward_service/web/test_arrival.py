"""Bounds on bodies, with messages handed over by hand; `test_hostile` tries them on a real process."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from reward_service.errors import DeadlineExceededError, OverloadedError
from reward_service.web.arrival import BodyArrival, JoinedWrites, PromptProtocol, protocol_within

SCOPE = {"type": "http"}


def chunk(size: int, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


async def read_all(_: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    size = 0
    while True:
        message = await receive()
        size += len(message["body"])
        if not message["more_body"]:
            await send(size)
            return


def call(app: BodyArrival, messages: list[dict[str, Any]], forever: bool = False) -> Any:
    sent: list[Any] = []
    waiting = iter(messages)

    async def receive() -> Any:
        message = next(waiting, None)
        if message is None:
            assert forever
            await asyncio.Event().wait()
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(SCOPE, receive, send))
    return sent[0]


def test_a_body_that_arrives_is_passed_on() -> None:
    app = BodyArrival(read_all, timeout_s=60, max_bytes=10, max_pending_bytes=10)
    for _ in range(3):  # What one request held is free for the next.
        assert call(app, [chunk(4, True), chunk(4, True), chunk(1, False)]) == 9


def test_a_body_that_stops_is_given_up() -> None:
    app = BodyArrival(read_all, timeout_s=0.01, max_bytes=10, max_pending_bytes=10)
    with pytest.raises(DeadlineExceededError, match=r"within 0\.01 s"):
        call(app, [chunk(4, True)], forever=True)


def test_what_is_thrown_away_counts_up_to_the_limit_of_a_body() -> None:
    app = BodyArrival(read_all, timeout_s=60, max_bytes=10, max_pending_bytes=10)
    assert call(app, [chunk(100, True), chunk(100, True), chunk(1, False)]) == 201


KIB = 1024


def test_all_bodies_together_are_bounded() -> None:
    async def scenario() -> None:
        app = BodyArrival(read_all, timeout_s=60, max_bytes=100 * KIB, max_pending_bytes=150 * KIB)
        go_on = asyncio.Event()
        begun = asyncio.Event()

        async def slow() -> Any:
            if not begun.is_set():
                begun.set()
                return chunk(100 * KIB, True)
            await go_on.wait()
            return chunk(0, False)

        held = asyncio.create_task(app(SCOPE, slow, drop))
        await begun.wait()
        with pytest.raises(OverloadedError):
            await app(SCOPE, sends(chunk(65 * KIB, True)), drop)
        go_on.set()
        await held
        await app(SCOPE, sends(chunk(100 * KIB, False)), drop)

    asyncio.run(scenario())


def test_a_body_counts_until_its_request_is_answered_and_holds_up_no_small_one() -> None:
    async def scenario() -> None:
        answer = asyncio.Event()
        arrived = asyncio.Event()

        async def wait_for_scores(_: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
            await receive()
            arrived.set()
            await answer.wait()

        app = BodyArrival(wait_for_scores, timeout_s=60, max_bytes=100 * KIB, max_pending_bytes=150 * KIB)
        waiting = asyncio.create_task(app(SCOPE, sends(chunk(100 * KIB, False)), drop))
        await arrived.wait()
        with pytest.raises(OverloadedError):
            await app(SCOPE, sends(chunk(65 * KIB, False)), drop)
        small = asyncio.create_task(app(SCOPE, sends(chunk(64 * KIB, False)), drop))
        answer.set()
        await asyncio.gather(waiting, small)
        await app(SCOPE, sends(chunk(100 * KIB, False)), drop)

    asyncio.run(scenario())


def sends(message: dict[str, Any]) -> Callable[[], Any]:
    async def receive() -> Any:
        return message

    return receive


async def drop(_: Any) -> None:
    pass


def test_waiting_for_the_caller_to_leave_has_no_end() -> None:
    async def app(_: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        await receive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.05)
        await send("waited")

    assert call(BodyArrival(app, timeout_s=0.01, max_bytes=1, max_pending_bytes=1), [chunk(1, False)], True) == "waited"


def test_the_protocol_takes_the_setting() -> None:
    assert protocol_within(3.0).head_timeout_s == 3.0
    assert PromptProtocol.head_timeout_s == 30.0


class Wire:
    """Remembers what was written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False
        self.unread_bytes = 0
        self.aborted = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def abort(self) -> None:
        self.aborted.set()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


def test_a_head_goes_out_with_its_body() -> None:
    wire = Wire()
    joined = JoinedWrites(wire, 60.0)  # type: ignore[arg-type]
    joined.write(HEAD)
    assert wire.written == []
    joined.write(b"body")
    joined.write(HEAD)
    joined.write(b"\r\n\r\n")  # A body that looks like an end of a head.
    joined.write(b"more")
    assert wire.written == [HEAD + b"body", HEAD + b"\r\n\r\n", b"more"]
    assert joined.is_closing() is False


def test_a_lone_head_waits_for_nothing_but_the_end_of_its_reply() -> None:
    wire = Wire()
    joined = JoinedWrites(wire, 60.0)  # type: ignore[arg-type]
    joined.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    joined.write(HEAD)
    joined.flush()
    joined.flush()
    joined.write(HEAD)
    joined.close()
    assert wire.written == [b"HTTP/1.1 100 Continue\r\n\r\n", HEAD, HEAD]
    assert wire.closed


def test_a_reply_that_nobody_reads_is_given_up_after_the_end() -> None:
    async def scenario() -> None:
        wire = Wire()
        wire.unread_bytes = 1
        joined = JoinedWrites(wire, 0.01)  # type: ignore[arg-type]
        assert not wire.aborted.is_set()
        joined.close()
        assert wire.closed
        async with asyncio.timeout(60.0):
            await wire.aborted.wait()

    asyncio.run(scenario())
