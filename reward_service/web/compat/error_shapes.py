"""Errors in the words of the server that a protocol comes from. The others keep the service's own shape.

An ASGI middleware around everything else, so that no error escapes it: neither of access nor of what nobody foresaw.
"""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reward_proto.errors import HTTP_STATUS, ErrorBody, ErrorCode, ErrorReply
from reward_service.web.compat.classify import ClassifyErrorBody, ClassifyErrorReply
from reward_service.web.compat.tei import PredictErrorReply

CLASSIFY_PATH = "/classify"
PREDICT_PATH = "/predict"
FIRST_ERROR_STATUS = 400

_TEI_TYPES = {
    ErrorCode.OVERLOADED: "Overloaded",
    ErrorCode.RATE_LIMITED: "Overloaded",
    ErrorCode.DRAINING: "Unhealthy",
    ErrorCode.MODEL_FAILED: "Backend",
    ErrorCode.INTERNAL: "Backend",
    ErrorCode.DEADLINE_EXCEEDED: "Backend",
}
_TEI_FAULT_OF_REQUEST = "Validation"


def classify_error(status: int, body: ErrorBody) -> tuple[int, ClassifyErrorReply]:
    """The error of vLLM. A quota is 503: verl gives up at any 4xx, and a training would end for being early."""
    if body.code is ErrorCode.RATE_LIMITED:
        status = HTTP_STATUS[ErrorCode.OVERLOADED]
    error = ClassifyErrorBody(message=body.message, type=body.code, param=body.details.get("path"), code=status)
    return status, ClassifyErrorReply(error=error)


def predict_error(status: int, body: ErrorBody) -> tuple[int, PredictErrorReply]:
    """TEI's error."""
    error_type = _TEI_TYPES.get(body.code, _TEI_FAULT_OF_REQUEST)
    return status, PredictErrorReply(error=body.message, error_type=error_type)


SHAPES: dict[str, Callable[[int, ErrorBody], tuple[int, BaseModel]]] = {
    CLASSIFY_PATH: classify_error,
    PREDICT_PATH: predict_error,
}


class ErrorShapes:
    """ASGI middleware. Rewrites the service's own errors on the paths of `SHAPES`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        shape = SHAPES.get(scope.get("path", "")) if scope["type"] == "http" else None
        if shape is None:
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        content = b""

        async def send_shaped(message: Message) -> None:
            nonlocal start, content
            if message["type"] == "http.response.start" and message["status"] >= FIRST_ERROR_STATUS:
                start = message
            elif start is not None and message["type"] == "http.response.body":
                content += message.get("body", b"")
                if not message.get("more_body", False):
                    rewritten = _reshape(start, content, shape)
                    await send(start)
                    await send({"type": "http.response.body", "body": rewritten})
            else:
                await send(message)

        await self._app(scope, receive, send_shaped)


def _reshape(start: Any, content: bytes, shape: Callable[[int, ErrorBody], tuple[int, BaseModel]]) -> bytes:
    """The body in the protocol's shape; `start` gets its status and length."""
    try:
        body = ErrorReply.model_validate_json(content).error
    except ValidationError:
        return content
    start["status"], reply = shape(start["status"], body)
    rewritten = reply.model_dump_json().encode()
    MutableHeaders(scope=start)["Content-Length"] = str(len(rewritten))
    return rewritten
