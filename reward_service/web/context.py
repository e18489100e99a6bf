"""What surrounds every request: its id, its metrics, and the answer to what nobody foresaw."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reward_proto.errors import ErrorCode
from reward_service.core.stages import recorded_stages
from reward_service.request_labels import RequestLabels, current_request, valid_traceparent
from reward_service.web.access import METRICS_PATH, OPEN_PATHS, Access
from reward_service.web.error_map import error_response
from reward_service.web.metrics import Metrics
from reward_service.web.trace import Span, Tracer

logger = logging.getLogger(__name__)
access_log = logging.getLogger("reward_service.access")

REQUEST_ID_HEADER = "X-Request-Id"
TRACEPARENT_HEADER = "traceparent"
TRACESTATE_HEADER = "tracestate"
QUIET_ENDPOINTS = OPEN_PATHS | {METRICS_PATH}
"""What probes and scrapers ask every few seconds; logged at debug."""

UNKNOWN_ENDPOINT = "unknown"
"""Label of requests to no route, whose paths are anybody's invention."""

CALLER_LEFT_STATUS = 499
"""Counted in the metrics for a caller that left before its reply; nobody receives it."""

_USABLE_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestContext:
    """ASGI middleware. Sets `state.request_id`, `state.caller` and `state.client_job`.

    An exception that reaches it becomes `internal`, without its trace.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, access: Access, tracer: Tracer | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._access = access
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin_s = time.monotonic()
        headers = Headers(scope=scope)
        given_id = headers.get(REQUEST_ID_HEADER, "")
        request_id = given_id if _USABLE_ID.fullmatch(given_id) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["caller"] = caller = self._access.identify(headers)
        state["client_job"] = caller.job
        traceparent = valid_traceparent(headers.get(TRACEPARENT_HEADER, ""))
        span = self._tracer.begin(traceparent, headers.get(TRACESTATE_HEADER, "")) if self._tracer else None
        labels = RequestLabels(request_id, caller.job, span.traceparent if span else traceparent)
        entered = current_request.set(labels)
        recording = recorded_stages.set(None if span is None else [])
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = CALLER_LEFT_STATUS
        except Exception:
            logger.exception("request %s failed", request_id)
            if status:  # The reply has begun; only the connection can tell the caller now.
                raise
            state["error_code"] = ErrorCode.INTERNAL
            response = error_response(request_id, ErrorCode.INTERNAL, "the service failed on this request")
            await response(scope, receive, send_with_id)
        finally:
            self._done(scope, status, time.monotonic() - begin_s, span)
            recorded_stages.reset(recording)
            current_request.reset(entered)

    def _done(self, scope: Scope, status: int, took_s: float, span: Span | None) -> None:
        """Count, log and trace an answered request."""
        state = scope["state"]
        endpoint = getattr(scope.get("route"), "path", UNKNOWN_ENDPOINT)
        code: ErrorCode | None = state.get("error_code")
        self._metrics.request_done(endpoint, state["client_job"], status, took_s)
        if code is not None:
            self._metrics.rejected(code)
        key = state["caller"].key
        told = {"code": code.value if code else None, "key_id": key.id if key else None}
        known = {name: value for name, value in told.items() if value is not None}
        access_log.log(
            logging.DEBUG if endpoint in QUIET_ENDPOINTS else logging.INFO,
            "%s %s %d in %.1f ms",
            scope["method"],
            endpoint,
            status,
            took_s * 1000,
            extra={"endpoint": endpoint, "status": status, "duration_ms": round(took_s * 1000, 3), **known},
        )
        if span is not None:
            labels = {"reward.request_id": state["request_id"], "reward.client_job": state["client_job"]}
            span.end(
                method=scope["method"],
                endpoint=endpoint,
                status=status,
                error_code=told["code"],
                labels=labels,
                stages=recorded_stages.get() or (),
            )
