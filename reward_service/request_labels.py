"""Which request the running code works for: for its log lines, and for the services that are asked on its behalf."""

import re
from contextvars import ContextVar
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class RequestLabels:
    """What tells one request from others.

    Attributes:
        request_id: As in the reply's `X-Request-Id`.
        client_job: The training job; empty if none is named.
        traceparent: The service's span, or the caller's where the service makes none; empty without either.
            Source: https://www.w3.org/TR/trace-context/.
    """

    request_id: str
    client_job: str = ""
    traceparent: str = ""

    @property
    def trace_id(self) -> str:
        """The trace's, empty without one."""
        return self.traceparent.split("-")[1] if self.traceparent else ""


current_request: ContextVar[RequestLabels | None] = ContextVar("current_request", default=None)
"""None outside of requests. A thread that works for a request runs in a copy of its context."""


def valid_traceparent(header: str) -> str:
    """The header as it is, empty if it is none that the standard knows."""
    return header if _TRACEPARENT.fullmatch(header) else ""
