import json

import pytest

from reward_proto import ErrorCode
from reward_service.web.error_map import error_response


@pytest.mark.parametrize(
    ("retry_after_s", "header"), [(None, "1"), (0.0, "1"), (0.2, "1"), (1.2, "2"), (59.5, "60"), (1e6, "60")]
)
def test_retry_after_is_whole_seconds_within_bounds(retry_after_s: float | None, header: str) -> None:
    response = error_response("r", ErrorCode.OVERLOADED, "m", retry_after_s=retry_after_s)
    assert response.headers["Retry-After"] == header


def test_only_some_codes_tell_when_to_come_back() -> None:
    assert "Retry-After" not in error_response("r", ErrorCode.MODEL_FAILED, "m", retry_after_s=3.0).headers


def test_the_shape() -> None:
    response = error_response("r", ErrorCode.TOO_LONG, "m", details={"max_tokens": 3})
    assert response.status_code == 422
    assert json.loads(bytes(response.body)) == {
        "error": {
            "code": "too_long",
            "message": "m",
            "retryable": False,
            "request_id": "r",
            "details": {"max_tokens": 3},
        }
    }


def test_long_texts_of_a_request_are_not_sent_back() -> None:
    details = {"model": "x" * 2000, "errors": [{"path": "y" * 1001, "count": 3}], "served": ["z" * 1000]}
    response = error_response("r", ErrorCode.UNKNOWN_MODEL, "m" * 2000, details=details)
    error = json.loads(bytes(response.body))["error"]
    assert error["message"] == "m" * 1000 + "..."
    assert error["details"] == {
        "model": "x" * 1000 + "...",
        "errors": [{"path": "y" * 1000 + "...", "count": 3}],
        "served": ["z" * 1000],
    }
