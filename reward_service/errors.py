"""Exceptions of the service. Each carries the wire's `ErrorCode`; `web.error_map` alone turns them into replies.

ServiceError
├── InvalidRequestError     spans out of range or overlapping, unknown granularity
├── MissingFieldError       a template needs a field that the item lacks
├── TooLongError            over the model's length and the manifest allows no cut
├── UnauthenticatedError    no key, or a wrong one
├── ForbiddenError          not this key's right
├── UnknownModelError       name, alias or version not served
├── PayloadTooLargeError    body or number of items over the limit
├── RateLimitedError        the job is over its quota
├── OverloadedError         the queue is full, or the deadline cannot be met
├── DrainingError           shutting down
├── DeadlineExceededError   the caller's time-out passed
└── ModelFailedError        the runtime raised, or gave NaN or infinity
ConfigError                 a settings file with faults; all of them are listed
StoreError                  a model's files are missing, changed or refused
└── NotInStoreError         no such model, alias or version
ParityError                 an export differs from torch by more than the tolerance
"""

from typing import Any, ClassVar

from reward_proto.errors import ErrorCode


class ServiceError(Exception):
    """A request, or one score of it, could not be answered."""

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL

    def __init__(self, message: str, *, retry_after_s: float | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.details = details


class InvalidRequestError(ServiceError):
    """The request is well-formed JSON but cannot be meant."""

    code = ErrorCode.INVALID_REQUEST


class MissingFieldError(ServiceError):
    """A template needs a field that the item lacks."""

    code = ErrorCode.MISSING_FIELD


class TooLongError(ServiceError):
    """The input is over the model's length and its manifest allows no cut that would help."""

    code = ErrorCode.TOO_LONG


class UnauthenticatedError(ServiceError):
    """No key was given, or a wrong one."""

    code = ErrorCode.UNAUTHENTICATED


class ForbiddenError(ServiceError):
    """The key does not have this right."""

    code = ErrorCode.FORBIDDEN


class UnknownModelError(ServiceError):
    """No such name, alias or version is served."""

    code = ErrorCode.UNKNOWN_MODEL


class PayloadTooLargeError(ServiceError):
    """The body or the number of items is over the limit."""

    code = ErrorCode.PAYLOAD_TOO_LARGE


class RateLimitedError(ServiceError):
    """The training job is over its quota."""

    code = ErrorCode.RATE_LIMITED


class OverloadedError(ServiceError):
    """The queue is full, or the deadline cannot be met."""

    code = ErrorCode.OVERLOADED


class DrainingError(ServiceError):
    """The service is shutting down."""

    code = ErrorCode.DRAINING


class DeadlineExceededError(ServiceError):
    """The caller's time-out passed before the score was there."""

    code = ErrorCode.DEADLINE_EXCEEDED


class ModelFailedError(ServiceError):
    """The runtime raised, or gave NaN or infinity."""

    code = ErrorCode.MODEL_FAILED


class ConfigError(ValueError):
    """A settings file has faults; `faults` lists every one with its path in the file."""

    def __init__(self, source: str, faults: list[str]) -> None:
        super().__init__("\n".join([f"{source}: {len(faults)} fault(s)", *(f"  - {fault}" for fault in faults)]))
        self.source = source
        self.faults = faults


class StoreError(Exception):
    """A model's files are missing, changed or refused; the message names the file and the fault."""


class NotInStoreError(StoreError):
    """The store has no such model, alias or version."""


class ParityError(Exception):
    """An exported model differs from the torch model by more than the stated tolerance."""
