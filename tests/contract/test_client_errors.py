"""The contract as the client sees it: each error code has an exception, and the golden examples can be read."""

from pathlib import Path

import httpx
import pytest

from reward_proto import (
    HTTP_STATUS,
    RETRYABLE,
    ErrorBody,
    ErrorCode,
    ErrorReply,
)
from rl_client.api.errors import STATUS_ERRORS
from rl_client.api.exchange import RawReply, status_error

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "proto" / "examples"
CLIENT_DOC = ROOT / "docs" / "client-api.md"


@pytest.mark.parametrize("code", ErrorCode)
def test_each_code_has_an_exception_of_its_own(code: ErrorCode) -> None:
    assert STATUS_ERRORS[code].code is code
    assert list(STATUS_ERRORS.values()).count(STATUS_ERRORS[code]) == 1
    body = ErrorBody(code=code, message="m", retryable=code in RETRYABLE, request_id="r")
    content = ErrorReply(error=body).model_dump_json().encode()
    error = status_error(RawReply(HTTP_STATUS[code], httpx.Headers(), content))
    assert type(error) is STATUS_ERRORS[code]
    assert error.retryable == (code in RETRYABLE)


@pytest.mark.parametrize("code", ErrorCode)
def test_each_code_has_a_line_in_the_clients_doc(code: ErrorCode) -> None:
    exception = STATUS_ERRORS[code].__name__
    retried = "yes" if code in RETRYABLE else "no"
    rows = [
        line for line in CLIENT_DOC.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{exception}` ")
    ]
    assert len(rows) == 1, f"{CLIENT_DOC.name} must have one row for {exception}"
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert cells[1:4] == [f"`{code}`", str(HTTP_STATUS[code]), retried]
