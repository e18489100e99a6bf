"""Reading a request's body within bounds, and noticing that its sender has left."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar, cast

from fastapi import Request
from starlette.requests import ClientDisconnect

from reward_service.errors import DeadlineExceededError, PayloadTooLargeError

DISCARDED_BYTES = 64 * 1024 * 1024
"""How much of a body over the limit is read and thrown away, so that its sender gets to see the reply."""

BYTES_A_VALUE = 64
"""A body may have one value of JSON for so many bytes of `max_bytes`. To check a value takes some 1 us, in which no
other thread of the process runs; 8 MB of `0,` would stop it for a minute and take gigabytes."""

MIN_VALUES = 10_000
"""A body may always have as many."""

_VALUE_MARKS = (b",", b"[", b"{")

WATCH_AFTER_S = 0.05
"""When a caller who may have left is looked for. What is done by then is not disturbed: on a few cores all that runs
beside an inference makes it longer."""

R = TypeVar("R")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read the body, holding at most `max_bytes` of it.

    Raises:
        PayloadTooLargeError: It is longer, or has too many values to be parsed.
        DeadlineExceededError: It did not arrive in time (`web.arrival`).
        ClientDisconnect: The sender left.
    """
    declared = request.headers.get("Content-Length", "")
    chunks: list[bytes] = []
    size = 0
    too_large = declared.isdecimal() and int(declared) > max_bytes
    try:
        async for chunk in request.stream():
            size += len(chunk)
            too_large = too_large or size > max_bytes
            if not too_large:
                chunks.append(chunk)
                continue
            chunks.clear()
            if size > max_bytes + DISCARDED_BYTES:
                break
    except DeadlineExceededError:
        if not too_large:  # What is too large is so, whether its rest comes in time or not.
            raise
    if too_large:
        raise PayloadTooLargeError(f"the body is over {max_bytes} bytes", max_body_bytes=max_bytes)
    body = b"".join(chunks)
    most = max(MIN_VALUES, max_bytes // BYTES_A_VALUE)
    # Most bodies are too short, or have few even if all that is in texts counts.
    if len(body) > most < sum(map(body.count, _VALUE_MARKS)) and await asyncio.to_thread(has_more_values, body, most):
        raise PayloadTooLargeError(f"the body has more than {most} values", max_values=most)
    return body


def has_more_values(body: bytes, most: int) -> bool:
    """Whether JSON has more values than that: as many as commas and opening brackets outside of its texts, about.

    Texts may be as long as they are.
    """
    quotes = 4 * most + 8  # Two around each text, and each value has one text beside it at most: its key.
    parts = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', quotes)
    outside = b"".join(parts[::2])
    return len(parts) > quotes or sum(map(outside.count, _VALUE_MARKS)) > most


async def while_connected(request: Request, work: Awaitable[R]) -> R:
    """Run `work`, and cancel it if the caller leaves. The body must have been read.

    Raises:
        ClientDisconnect: The caller left.
    """
    task = cast(asyncio.Task[Any], asyncio.current_task())  # Every endpoint runs in one.
    watch: asyncio.Task[None] | None = None
    has_left = is_over = False

    def begin() -> None:
        nonlocal watch
        watch = asyncio.ensure_future(_disconnected(request))
        watch.add_done_callback(leave)

    def leave(watch: asyncio.Task[None]) -> None:
        nonlocal has_left
        if not watch.cancelled() and not is_over:
            has_left = True
            task.cancel()

    timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, begin)
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        is_over = True
        timer.cancel()
        if watch is not None:
            watch.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
