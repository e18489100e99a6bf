"""Bounds on requests that arrive slowly, or many at a time, so that nobody holds the service by sending little.

uvicorn waits for ever for a request's head and for its body. The protocol here bounds the one, the middleware the
other.
"""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from reward_service.errors import DeadlineExceededError, OverloadedError

RETRY_AFTER_S = 1.0
"""When a request may come again that met too many others on their way."""


class BodyArrival:
    """ASGI middleware. Bounds how long a body may take, and how much of all bodies may wait for its rest.

    Args:
        app: What is served.
        timeout_s: From the head of a request to the end of its body.
        max_bytes: Of one body; what is over it is thrown away elsewhere.
        max_pending_bytes: Of all bodies that have not arrived whole.
    """

    def __init__(self, app: ASGIApp, timeout_s: float, max_bytes: int, max_pending_bytes: int) -> None:
        self._app = app
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._max_pending_bytes = max_pending_bytes
        self._pending_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        arrived = False
        held = 0

        async def receive_in_time() -> Message:
            nonlocal arrived, held
            if arrived:  # What is waited for now is that the caller leaves.
                return await receive()
            try:
                async with asyncio.timeout_at(deadline_s):
                    message = await receive()
            except TimeoutError:
                raise DeadlineExceededError(f"the body did not arrive within {self._timeout_s:g} s") from None
            arrived = not message.get("more_body", False)
            more = min(len(message.get("body", b"")), self._max_bytes - held)
            self._pending_bytes += more
            held += more
            if arrived:
                self._pending_bytes -= held
                held = 0
            elif self._pending_bytes > self._max_pending_bytes:
                raise OverloadedError("too many bodies are on their way", retry_after_s=RETRY_AFTER_S)
            return message

        try:
            await self._app(scope, receive_in_time, send)
        finally:
            self._pending_bytes -= held


class PromptProtocol(H11Protocol):
    """uvicorn's HTTP protocol, except that a connection is closed whose request's head does not arrive in time.

    `head_timeout_s` is set by a subclass, since uvicorn makes the instances.
    """

    head_timeout_s = 30.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Wait on, or stop waiting as soon as there is a request."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def protocol_within(head_timeout_s: float) -> type[PromptProtocol]:
    """The protocol with a time-out."""
    return type("ConfiguredProtocol", (PromptProtocol,), {"head_timeout_s": head_timeout_s})
