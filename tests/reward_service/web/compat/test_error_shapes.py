"""Errors in each protocol's own words, whatever part of the service they come from."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from reward_proto import HTTP_STATUS, ErrorBody, ErrorCode
from reward_service.compat_settings import Compat
from reward_service.web.compat.error_shapes import classify_error, predict_error


def body(code: ErrorCode) -> ErrorBody:
    return ErrorBody(code=code, message="why", retryable=True, request_id="r", details={"path": "input.3"})


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_both_shapes(code: ErrorCode) -> None:
    status, error = classify_error(HTTP_STATUS[code], body(code))
    assert error.model_dump() == {"error": {"message": "why", "type": code, "param": "input.3", "code": status}}
    assert status == (503 if code is ErrorCode.RATE_LIMITED else HTTP_STATUS[code])
    status, flat = predict_error(HTTP_STATUS[code], body(code))
    assert status == HTTP_STATUS[code]
    assert flat.error == "why"
    assert flat.error_type in {"Unhealthy", "Backend", "Overloaded", "Validation"}


def test_verl_never_sees_a_4xx_for_what_a_retry_mends() -> None:
    for code in (ErrorCode.RATE_LIMITED, ErrorCode.OVERLOADED, ErrorCode.DRAINING, ErrorCode.DEADLINE_EXCEEDED):
        assert classify_error(HTTP_STATUS[code], body(code))[0] >= 500


def test_draining_keeps_its_headers(make_service: Callable[..., Any]) -> None:
    service = make_service(compat=Compat(weights={"completeness": 1.0}))
    service.scorer.start_draining()
    for path, request, key in (("/classify", {"input": "a"}, "error"), ("/predict", {"inputs": "a"}, "error_type")):
        reply = service.request("POST", path, json=request, headers={"X-Request-Id": "r1"})
        assert reply.status_code == 503
        assert reply.headers["Retry-After"] == "1"
        assert reply.headers["X-Request-Id"] == "r1"
        assert key in reply.json()
        assert len(reply.content) == int(reply.headers["Content-Length"])


def test_wrong_methods_and_what_nobody_foresaw_have_the_shape_too(
    make_service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    service = make_service(compat=Compat(weights={"completeness": 1.0}))
    reply = service.request("GET", "/predict")
    assert (reply.status_code, reply.json()["error_type"]) == (405, "Validation")

    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(service.scorer, "score", fail)
    reply = service.request("POST", "/classify", json={"input": "a"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "internal")
    assert "secret" not in reply.text


def test_the_native_endpoints_keep_the_native_shape(service: Any) -> None:
    reply = service.request("POST", "/v1/score", content=b"{")
    assert reply.json()["error"]["code"] == "invalid_request"
    assert reply.json()["error"]["request_id"]
