"""Exceptions of the client.

RewardClientError
├── ApiConnectionError          the service could not be reached, or the connection broke
├── ApiTimeoutError             no whole reply within the time-out
├── ReplyError                  a reply came that is not the answer to what was asked
└── ApiStatusError              the service refused; one subclass for each `ErrorCode`
    ├── InvalidRequestError     422
    ├── MissingFieldError       422
    ├── TooLongError            422
    ├── UnauthenticatedError    401
    ├── ForbiddenError          403
    ├── UnknownModelError       404
    ├── PayloadTooLargeError    413
    ├── RateLimitedError        429
    ├── OverloadedError         503
    ├── DrainingError           503
    ├── DeadlineExceededError   504
    ├── ModelFailedError        500
    └── InternalError           500

Retryable ones are raised only when the retry policy's budget is spent.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from reward_proto import ErrorCode


class RewardClientError(Exception):
    """No answer, or none that can be used.

    Attributes:
        message: What happened.
        retryable: Whether the same request may succeed later.
        retry_after_s: How long the service asked to wait; None if it did not say.
    """

    def __init__(self, message: str, *, retryable: bool, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class ApiConnectionError(RewardClientError):
    """The service could not be reached, or the connection broke before the whole reply was here."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message, retryable=retryable)


class ApiTimeoutError(RewardClientError):
    """No whole reply came within the time-out."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


class ReplyError(RewardClientError):
    """A reply came, but it is not the answer to what was asked; no score of it is used.

    A wrong number of results, wrong ids or order, a missing model, NaN, a null score without an error, spans outside
    the response, another version or runtime than the pinned one, or no JSON of the contract at all.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)


class ApiStatusError(RewardClientError):
    """The service, or a proxy before it, answered with an error status.

    Attributes:
        status: HTTP status.
        code: The contract's error code; None when the reply has none that this client knows.
        request_id: Names the request in the service's log; empty if unknown.
        details: What the service added.
    """

    code: ClassVar[ErrorCode | None] = None

    def __init__(
        self,
        message: str,
        *,
        status: int,
        retryable: bool,
        request_id: str = "",
        details: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable, retry_after_s=retry_after_s)
        self.status = status
        self.request_id = request_id
        self.details = dict(details or {})

    def __str__(self) -> str:
        code = self.code or "no known error code"
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {code}: {self.message}{request}"


class InvalidRequestError(ApiStatusError):
    """The request breaks the schema, or its spans are out of range or overlap."""

    code = ErrorCode.INVALID_REQUEST


class MissingFieldError(ApiStatusError):
    """A model's template needs a field that an item lacks."""

    code = ErrorCode.MISSING_FIELD


class TooLongError(ApiStatusError):
    """An input is over the model's length and its manifest allows no cut."""

    code = ErrorCode.TOO_LONG


class UnauthenticatedError(ApiStatusError):
    """No key or a wrong one."""

    code = ErrorCode.UNAUTHENTICATED


class ForbiddenError(ApiStatusError):
    """The key has no right to this."""

    code = ErrorCode.FORBIDDEN


class UnknownModelError(ApiStatusError):
    """No such name, alias or version is served."""

    code = ErrorCode.UNKNOWN_MODEL


class PayloadTooLargeError(ApiStatusError):
    """The body or the number of items is over the service's limit."""

    code = ErrorCode.PAYLOAD_TOO_LARGE


class RateLimitedError(ApiStatusError):
    """This job is over its quota."""

    code = ErrorCode.RATE_LIMITED


class OverloadedError(ApiStatusError):
    """The service's queue is full, or the deadline cannot be met."""

    code = ErrorCode.OVERLOADED


class DrainingError(ApiStatusError):
    """The service is shutting down."""

    code = ErrorCode.DRAINING


class DeadlineExceededError(ApiStatusError):
    """The request's deadline passed before its scores were there."""

    code = ErrorCode.DEADLINE_EXCEEDED


class ModelFailedError(ApiStatusError):
    """The model's runtime raised, or gave NaN or infinity."""

    code = ErrorCode.MODEL_FAILED


class InternalError(ApiStatusError):
    """Anything else went wrong in the service."""

    code = ErrorCode.INTERNAL


STATUS_ERRORS: Mapping[ErrorCode, type[ApiStatusError]] = {
    ErrorCode.INVALID_REQUEST: InvalidRequestError,
    ErrorCode.MISSING_FIELD: MissingFieldError,
    ErrorCode.TOO_LONG: TooLongError,
    ErrorCode.UNAUTHENTICATED: UnauthenticatedError,
    ErrorCode.FORBIDDEN: ForbiddenError,
    ErrorCode.UNKNOWN_MODEL: UnknownModelError,
    ErrorCode.PAYLOAD_TOO_LARGE: PayloadTooLargeError,
    ErrorCode.RATE_LIMITED: RateLimitedError,
    ErrorCode.OVERLOADED: OverloadedError,
    ErrorCode.DRAINING: DrainingError,
    ErrorCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    ErrorCode.MODEL_FAILED: ModelFailedError,
    ErrorCode.INTERNAL: InternalError,
}
"""The exception of each error code."""
