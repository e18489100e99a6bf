"""Bounds on requests that arrive slowly, or many at a time: nobody holds the service by sending, or reading, little.

uvicorn waits for ever for a request's head and for its body. The protocol here bounds the one, the middleware the
other.
"""

import asyncio
import logging
import uuid
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from reward_proto.errors import ErrorCode
from reward_service.errors import DeadlineExceededError, OverloadedError
from reward_service.web.context import REQUEST_ID_HEADER
from reward_service.web.error_map import error_response

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and headers together, give or take one read from the connection."""

_REPLY, _CONTINUE, _BLANK_LINE = b"HTTP/1.1 ", b"HTTP/1.1 100 ", b"\r\n\r\n"

SMALL_BYTES = 64 * 1024
"""Bodies of no more are not refused for what the others hold: the queue's bounds bound them too."""

RETRY_AFTER_S = 1.0
"""When a request may come again that met too many others on their way."""


class BodyArrival:
    """ASGI middleware. Bounds how long a body may take, and how much all bodies hold until their replies.

    Args:
        app: What is served.
        timeout_s: From the head of a request to the end of its body.
        max_bytes: Of one body; what is over it is thrown away elsewhere.
        max_pending_bytes: Of all bodies whose requests are not answered. What they hold beside what a model reads
            waits in memory as long as they do.
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
            if self._pending_bytes > self._max_pending_bytes and held > SMALL_BYTES:
                raise OverloadedError("too many large bodies are waiting", retry_after_s=RETRY_AFTER_S)
            return message

        try:
            await self._app(scope, receive_in_time, send)
        finally:
            self._pending_bytes -= held


class JoinedWrites:
    """A connection on which a reply's head goes out together with the beginning of its body, as one packet.

    uvicorn writes them apart, so that the caller is woken twice for one small reply.

    Args:
        transport: The connection; all that is not told here is its.
        close_timeout_s: How long the caller may take to read what is left of a reply when the connection is closed.
    """

    def __init__(self, transport: asyncio.Transport, close_timeout_s: float) -> None:
        self._transport = transport
        self._close_timeout_s = close_timeout_s
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, unless it is a head: that waits for what comes next."""
        if not self._head and data.startswith(_REPLY) and not data.startswith(_CONTINUE) and data.endswith(_BLANK_LINE):
            self._head = data
            return
        data, self._head = self._head + data, b""
        self._transport.write(data)

    def flush(self) -> None:
        """Write what waits: a head to which no body belongs."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Close, after what waits; a caller who does not read it may not keep it in memory for ever."""
        self.flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(self._close_timeout_s, self._transport.abort)


class PromptProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, except that a request's head must arrive in time and be of a bounded size.

    And a reply of more than the system takes at once must be read in time: else whoever asks for large ones, and reads
    none, fills the memory.

    The parser has no bounds of its own. So what arrives is counted until it has made a head, a part of the body or the
    end of the request of it, which bounds trailers and the extensions of chunks as well.

    `head_timeout_s` is set by a subclass, since uvicorn makes the instances.
    """

    head_timeout_s = 30.0
    _timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None
    _unread_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        self._joined = JoinedWrites(transport, self.head_timeout_s)
        super().connection_made(cast(asyncio.Transport, self._joined))
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Wait on, or stop waiting as soon as there is a request; give up one that is all head."""
        self._unread_bytes += len(data)
        super().data_received(data)
        idle = self.cycle is None or self.cycle.response_complete
        if self._unread_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            logger.warning("a request's head is over %d bytes", MAX_HEAD_BYTES)
            if idle:
                self.send_400_response("Request head too large.")
            else:  # A reply may have begun.
                self.transport.close()
        if idle:
            self._wait_for_head()
        else:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the shape of all errors, where uvicorn would as plain text, and close."""
        request_id = uuid.uuid4().hex
        reply = error_response(request_id, ErrorCode.INVALID_REQUEST, msg, status=400)
        reply.headers.update({REQUEST_ID_HEADER: request_id, "Connection": "close"})
        headers = [*self.server_state.default_headers, *reply.raw_headers]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[reply.status_code] + head + b"\r\n" + bytes(reply.body))
        self.transport.close()

    def on_headers_complete(self) -> None:
        """A head is there."""
        self._unread_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body is there; `BodyArrival` bounds bodies."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there, its trailers too."""
        self._unread_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A reply is there, which may have been a head alone."""
        self._joined.flush()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The caller does not read as fast as is written; it has so long to catch up."""
        super().pause_writing()
        self._reading_timer = self.loop.call_later(self.head_timeout_s, self._joined.abort)

    def resume_writing(self) -> None:
        """It has read."""
        self._stop_reading_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_waiting()
        self._stop_reading_timer()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_reading_timer(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None


def protocol_within(head_timeout_s: float) -> type[PromptProtocol]:
    """The protocol with a time-out."""
    return type("ConfiguredProtocol", (PromptProtocol,), {"head_timeout_s": head_timeout_s})
