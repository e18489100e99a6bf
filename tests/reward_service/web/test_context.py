import asyncio
import logging
import re
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Message, Receive, Scope, Send

from reward_proto import ErrorCode, ErrorReply
from reward_service.request_labels import current_request
from reward_service.web.access import Access
from reward_service.web.context import RequestContext
from reward_service.web.metrics import Metrics


def call(app: Any, metrics: Metrics) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-request-id", b"mine")]}
    asyncio.run(RequestContext(app, metrics, Access())(scope, receive, send))
    return sent


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), 4)


def test_one_line_tells_of_each_request(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["error_code"] = ErrorCode.TOO_LONG
        await send({"type": "http.response.start", "status": 422, "headers": []})

    with caplog.at_level(logging.DEBUG, "reward_service.access"):
        call(app, metrics)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    told = vars(record)
    assert (told["endpoint"], told["status"], told["code"]) == ("unknown", 422, "too_long")
    assert told["duration_ms"] >= 0
    assert re.fullmatch(r"GET unknown 422 in \d+\.\d ms", record.getMessage())


def test_code_that_works_for_a_request_knows_it(metrics: Metrics) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(current_request.get())

    call(app, metrics)
    assert (seen[0].request_id, seen[0].traceparent) == ("mine", "")
    assert current_request.get() is None


def status_count(metrics: Metrics, code: str) -> float | None:
    labels = {"endpoint": "unknown", "client_job": "none", "code": code}
    return metrics.registry.get_sample_value("reward_requests_total", labels)


def test_what_nobody_foresaw_is_internal_and_keeps_its_trace_inside(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("secret")

    with caplog.at_level(logging.ERROR):
        start, body = call(broken, metrics)
    assert start["status"] == 500
    assert (b"x-request-id", b"mine") in start["headers"]
    error = ErrorReply.model_validate_json(body["body"]).error
    assert (error.code, error.retryable, error.request_id) == (ErrorCode.INTERNAL, True, "mine")
    assert b"secret" not in body["body"]
    assert "secret" in caplog.text
    assert status_count(metrics, "500") == 1
    assert metrics.registry.get_sample_value("reward_rejected_total", {"reason": "internal"}) == 1


def test_the_job_is_the_headers_or_what_a_route_sets(metrics: Metrics) -> None:
    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["state"]["client_job"] == ""
        scope["state"]["client_job"] = "from-key"
        await send({"type": "http.response.start", "status": 200, "headers": []})

    call(named, metrics)
    labels = {"endpoint": "unknown", "client_job": "from-key", "code": "200"}
    assert metrics.registry.get_sample_value("reward_requests_total", labels) == 1


def test_an_error_after_the_reply_began_breaks_the_connection(metrics: Metrics) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError

    with pytest.raises(KeyError):
        call(broken, metrics)


def test_other_scopes_pass_through(metrics: Metrics) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    asyncio.run(RequestContext(app, metrics, Access())({"type": "lifespan"}, nothing, nothing))
    assert seen == ["lifespan"]
