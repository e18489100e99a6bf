"""The one error shape that every endpoint uses, and the codes it may carry."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field


class ErrorCode(StrEnum):
    """Why a request, or one score of it, could not be answered."""

    INVALID_REQUEST = "invalid_request"
    MISSING_FIELD = "missing_field"
    TOO_LONG = "too_long"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    UNKNOWN_MODEL = "unknown_model"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    MODEL_FAILED = "model_failed"
    INTERNAL = "internal"


HTTP_STATUS: dict[ErrorCode, int] = {
    ErrorCode.INVALID_REQUEST: 422,
    ErrorCode.MISSING_FIELD: 422,
    ErrorCode.TOO_LONG: 422,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.UNKNOWN_MODEL: 404,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.DRAINING: 503,
    ErrorCode.DEADLINE_EXCEEDED: 504,
    ErrorCode.MODEL_FAILED: 500,
    ErrorCode.INTERNAL: 500,
}
"""The HTTP status of each code when it answers a whole request."""

RETRYABLE: frozenset[ErrorCode] = frozenset(
    {
        ErrorCode.RATE_LIMITED,
        ErrorCode.OVERLOADED,
        ErrorCode.DRAINING,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.MODEL_FAILED,
        ErrorCode.INTERNAL,
    }
)
"""Codes after which the same request may succeed."""

RETRY_AFTER: frozenset[ErrorCode] = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.OVERLOADED, ErrorCode.DRAINING})
"""Codes whose HTTP reply carries a `Retry-After` header, in seconds."""


class ErrorBody(BaseModel):
    """What went wrong with a whole request."""

    code: ErrorCode
    message: str
    retryable: bool
    request_id: str
    details: dict[str, Any] = Field(default_factory=dict)


class ErrorReply(BaseModel):
    """The body of every reply whose status is not 2xx."""

    error: ErrorBody


class ScoreError(BaseModel):
    """Why one model gave no score for one item; the other items and models still answer."""

    code: ErrorCode
    message: str
    retryable: bool
