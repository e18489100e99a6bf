"""Exceptions to replies: one error shape for everything that is not a 2xx."""

import math
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from reward_proto.errors import HTTP_STATUS, RETRY_AFTER, RETRYABLE, ErrorBody, ErrorCode, ErrorReply
from reward_service.errors import ServiceError

MAX_LISTED_FAULTS = 20
"""Faults of one body that the reply spells out; `details.count` tells how many there are."""

MAX_FAULTS = 2000
"""With more faults none is spelled out: pydantic does that for all of them or none, at some 10 us each."""

MAX_TEXT_CHARS = 1000
"""Of a message or of a text in its details, which may quote the request: a name of megabytes is not sent back."""

MIN_RETRY_AFTER_S = 1
MAX_RETRY_AFTER_S = 60


def error_response(
    request_id: str,
    code: ErrorCode,
    message: str,
    *,
    status: int | None = None,
    retry_after_s: float | None = None,
    details: dict[str, Any] | None = None,
) -> Response:
    """Build the reply for an error; `status` overrides the code's own."""
    body = ErrorBody(
        code=code,
        message=_clip(message),
        retryable=code in RETRYABLE,
        request_id=request_id,
        details=_clip(details or {}),
    )
    headers = {}
    if code is ErrorCode.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if code is ErrorCode.DRAINING:
        headers["Connection"] = "close"  # The caller's next request shall meet another instance.
    if code in RETRY_AFTER:
        seconds = math.ceil(retry_after_s or 0.0)
        headers["Retry-After"] = str(min(max(seconds, MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S))
    return Response(
        ErrorReply(error=body).model_dump_json(),
        status_code=HTTP_STATUS[code] if status is None else status,
        headers=headers,
        media_type="application/json",
    )


def _clip(value: Any) -> Any:
    """A value with every text in it cut to `MAX_TEXT_CHARS`."""
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
        return value[:MAX_TEXT_CHARS] + "..."
    if isinstance(value, list):
        return [_clip(entry) for entry in value]
    if isinstance(value, dict):
        return {name: _clip(entry) for name, entry in value.items()}
    return value


def install(app: FastAPI) -> None:
    """Teach the app to answer its exceptions. What is not listed here is `internal`; see `web.context`.

    The handlers are coroutines, since others would be sent to a thread.
    """
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(ValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)  # noqa: S101 - Starlette's signature is wider than its use
    request.state.error_code = error.code
    return error_response(
        request.state.request_id, error.code, error.message, retry_after_s=error.retry_after_s, details=error.details
    )


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)  # noqa: S101
    request.state.error_code = ErrorCode.INVALID_REQUEST
    count = error.error_count()
    if count > MAX_FAULTS:
        faults, first = [], f"the body has {count} faults, too many to name one"
    else:
        faults = [
            {"path": ".".join(map(str, fault["loc"])), "message": fault["msg"]}
            for fault in error.errors(include_url=False, include_context=False, include_input=False)[:MAX_LISTED_FAULTS]
        ]
        first = f"{faults[0]['path']}: {faults[0]['message']}" if faults[0]["path"] else faults[0]["message"]
    details = {"errors": faults, "count": count}
    return error_response(request.state.request_id, ErrorCode.INVALID_REQUEST, first, details=details)


async def _http_error(request: Request, error: Exception) -> Response:
    """No such route, or not with this method: the status stays HTTP's own."""
    assert isinstance(error, HTTPException)  # noqa: S101
    request.state.error_code = ErrorCode.INVALID_REQUEST
    response = error_response(
        request.state.request_id,
        ErrorCode.INVALID_REQUEST,
        f"{request.method} {request.url.path}: {error.detail}",
        status=error.status_code,
    )
    response.headers.update(error.headers or {})
    return response
