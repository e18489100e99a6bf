"""What surrounds every request: its id, its metrics, and the answer to what nobody foresaw."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reward_proto.errors import ErrorCode
from reward_service.web.access import Access
from reward_service.web.error_map import error_response
from reward_service.web.metrics import Metrics

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-Id"
UNKNOWN_ENDPOINT = "unknown"
"""Label of requests to no route, whose paths are anybody's invention."""

CALLER_LEFT_STATUS = 499
"""Counted in the metrics for a caller that left before its reply; nobody receives it."""

_USABLE_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestContext:
    """ASGI middleware. Sets `state.request_id`, `state.caller` and `state.client_job`.

    An exception that reaches it becomes `internal`, without its trace.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, access: Access) -> None:
        self._app = app
        self._metrics = metrics
        self._access = access

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
            self._metrics.request_done(
                getattr(scope.get("route"), "path", UNKNOWN_ENDPOINT),
                state["client_job"],
                status,
                time.monotonic() - begin_s,
            )
            if "error_code" in state:
                self._metrics.rejected(state["error_code"])
