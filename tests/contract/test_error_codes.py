"""Each error code has a status, a line in the docs, and at most one exception of the service."""

from pathlib import Path

import pytest

from reward_proto import HTTP_STATUS, RETRY_AFTER, RETRYABLE, ErrorCode
from reward_service import errors
from reward_service.errors import ServiceError

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"
RESERVED = {ErrorCode.INTERNAL}
"""What no exception of the service carries: `internal` is for those that nobody foresaw."""

# The table of the wire contract, written out by hand.
STATUS_AND_RETRY = {
    "invalid_request": (422, False),
    "missing_field": (422, False),
    "too_long": (422, False),
    "unauthenticated": (401, False),
    "forbidden": (403, False),
    "unknown_model": (404, False),
    "payload_too_large": (413, False),
    "rate_limited": (429, True),
    "overloaded": (503, True),
    "draining": (503, True),
    "deadline_exceeded": (504, True),
    "model_failed": (500, True),
    "internal": (500, True),
}


def test_statuses_and_retries_are_the_contracts() -> None:
    assert {code.value: (HTTP_STATUS[code], code in RETRYABLE) for code in ErrorCode} == STATUS_AND_RETRY
    assert {code.value for code in RETRY_AFTER} == {"rate_limited", "overloaded", "draining"}


@pytest.mark.parametrize("code", ErrorCode)
def test_each_code_has_a_line_in_the_docs(code: ErrorCode) -> None:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{code}` |")]
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert cells[1] == str(HTTP_STATUS[code])
    assert cells[2].startswith("yes" if code in RETRYABLE else "no")
    assert ("Retry-After" in cells[2]) == (code in RETRY_AFTER)


def test_each_code_has_one_exception_of_the_service() -> None:
    raised = [
        kind.code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ServiceError) and kind is not ServiceError
    ]
    assert len(raised) == len(set(raised))
    assert set(raised) == set(ErrorCode) - RESERVED
