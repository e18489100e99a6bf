import asyncio
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from reward_proto import ErrorCode, ErrorReply

ONE = {"items": [{"response": "Hello there.", "fields": {"question": "q"}}]}


def error_of(reply: Any) -> Any:
    error = ErrorReply.model_validate_json(reply.content).error
    assert error.request_id == reply.headers["X-Request-Id"]
    return error


def test_a_reply_tells_its_timing_and_id(service: Any) -> None:
    reply = service.score(ONE, headers={"X-Request-Id": "mine-1"})
    assert reply.status_code == 200
    assert reply.headers["X-Request-Id"] == reply.json()["request_id"] == "mine-1"
    number = r"\d+\.\d{3}"
    assert re.fullmatch(
        rf"tokenize;dur={number}, queue;dur={number}, inference;dur={number}", reply.headers["Server-Timing"]
    )


@pytest.mark.parametrize("given", ["", "has blank", "x" * 129, "naïve"])
def test_an_unusable_request_id_is_replaced(service: Any, given: str) -> None:
    reply = service.score(ONE, headers={"X-Request-Id": given.encode()})
    assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["X-Request-Id"])


def test_ids_default_to_the_index(service: Any) -> None:
    reply = service.score({"items": [{"response": "a"}, {"response": "b", "id": "x"}, {"response": "c"}]})
    assert [result["id"] for result in reply.json()["results"]] == ["0", "x", "2"]


def test_logits_come_only_when_asked_for(service: Any) -> None:
    def segments(body: dict[str, Any]) -> Any:
        return service.score(body).json()["results"][0]["scores"]["relevance"]["segments"]

    assert segments(ONE)[0]["logits"] is None
    assert len(segments({**ONE, "return_logits": True})[0]["logits"]) == 2


def test_too_many_items_are_too_large(make_service: Callable[..., Any]) -> None:
    service = make_service(max_items=2)
    assert service.score({"items": [{"response": "a"}] * 2, "models": ["factuality"]}).status_code == 200
    reply = service.score({"items": [{"response": "a"}] * 3})
    assert reply.status_code == 413
    assert error_of(reply).details == {"max_items": 2}


def test_a_large_body_is_too_large_declared_or_not(make_service: Callable[..., Any]) -> None:
    service = make_service(max_body_bytes=1024)
    body = json.dumps({"items": [{"response": "x" * 2000}]}).encode()

    async def undeclared() -> Any:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    for content in (body, undeclared()):
        reply = service.run(lambda client, content=content: client.post("/v1/score", content=content))
        assert reply.status_code == 413
        assert error_of(reply).details == {"max_body_bytes": 1024}


@pytest.mark.parametrize("body", [b'{"items": [{"response": "\xff"}]}', b"", b"\x00", b"\xef\xbb\xbf{}"])
def test_bytes_that_are_no_json_are_invalid(service: Any, body: bytes) -> None:
    reply = service.score(body)
    assert reply.status_code == 422
    assert error_of(reply).code is ErrorCode.INVALID_REQUEST


def test_faults_are_listed_up_to_a_bound(service: Any) -> None:
    error = error_of(service.score({"items": [{"response": 1}] * 50}))
    assert error.details["count"] == 50
    assert len(error.details["errors"]) == 20
    assert error.details["errors"][3] == {"path": "items.3.response", "message": "Input should be a valid string"}


def test_unknown_models_name_what_is_served(service: Any) -> None:
    for method, path, options in (
        ("POST", "/v1/score", {"json": {**ONE, "models": ["nobody"]}}),
        ("GET", "/v1/models/relevance@older", {}),
    ):
        reply = service.request(method, path, **options)
        assert reply.status_code == 404
        assert error_of(reply).details["served"] == ["relevance", "factuality", "completeness"]


def test_unknown_paths_and_methods_have_the_error_shape(service: Any) -> None:
    reply = service.request("GET", "/v1/nothing")
    assert (reply.status_code, error_of(reply).code) == (404, ErrorCode.INVALID_REQUEST)
    reply = service.request("GET", "/v1/score")
    assert (reply.status_code, error_of(reply).code) == (405, ErrorCode.INVALID_REQUEST)
    assert reply.headers["Allow"] == "POST"


def test_a_request_whose_scores_all_fail_alike_fails(service: Any) -> None:
    reply = service.score({"items": [{"response": "a"}, {"response": "b"}], "models": ["relevance"]})
    assert reply.status_code == 422
    assert error_of(reply).code is ErrorCode.MISSING_FIELD


def test_too_long_is_an_error_and_no_cut(service: Any) -> None:
    reply = service.score({"items": [{"response": "a" * 50_000}, {"response": "b"}], "models": ["factuality"]})
    first, second = (result["scores"]["factuality"] for result in reply.json()["results"])
    assert first["error"]["code"] == "too_long"
    assert first["segments"] is None
    assert first["sequence_score"] is None
    assert second["error"] is None


def test_a_failing_runtime_is_model_failed(make_service: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("secret path /home/x")

    caplog.set_level(logging.CRITICAL)
    reply = make_service(fail).score(ONE)
    assert reply.status_code == 500
    error = error_of(reply)
    assert (error.code, error.retryable) == (ErrorCode.MODEL_FAILED, True)
    assert "secret" not in reply.text


def test_a_full_queue_is_overloaded_with_a_time_to_come_back(make_service: Callable[..., Any], gate: Any) -> None:
    service = make_service(gate, max_items=1, max_queue_items=1)
    body = {**ONE, "models": ["factuality"]}

    async def scenario(client: Any) -> Any:
        held = asyncio.create_task(client.post("/v1/score", json=body))
        await gate.until_busy()
        waiting = asyncio.create_task(client.post("/v1/score", json=body))
        while service.scorer.models["factuality"].source.queue_items < 1:
            await asyncio.sleep(0.001)
        refused = await client.post("/v1/score", json=body)
        gate.open()
        assert [(await task).status_code for task in (held, waiting)] == [200, 200]
        return refused

    reply = service.run(scenario)
    assert reply.status_code == 503
    assert error_of(reply).code is ErrorCode.OVERLOADED
    assert int(reply.headers["Retry-After"]) >= 1


def test_a_deadline_is_kept(make_service: Callable[..., Any], gate: Any) -> None:
    service = make_service(gate)
    reply = service.score({**ONE, "timeout_s": 0.05})
    assert reply.status_code == 504
    assert error_of(reply).code is ErrorCode.DEADLINE_EXCEEDED
    blank = service.score({"items": [{"response": " "}], "models": ["factuality", "completeness"], "timeout_s": 0.05})
    assert blank.status_code == 200
    scores = blank.json()["results"][0]["scores"]
    assert scores["factuality"]["segments"] == []
    assert scores["completeness"]["error"]["code"] == "deadline_exceeded"


def test_draining_refuses_and_is_not_ready(service: Any) -> None:
    assert service.request("GET", "/readyz").json() == {"ready": True}
    service.scorer.start_draining()
    for method, path, options in (
        ("POST", "/v1/score", {"json": ONE}),
        ("GET", "/readyz", {}),
        ("GET", "/v2/health/ready", {}),
    ):
        reply = service.request(method, path, **options)
        assert (reply.status_code, error_of(reply).code) == (503, ErrorCode.DRAINING)
        assert reply.headers["Retry-After"] == "1"
    assert service.request("GET", "/healthz").status_code == 200


def test_a_dead_worker_is_not_ready(service: Any) -> None:
    service.scorer.models["relevance"].source.close(20)
    for path in ("/readyz", "/v2/health/ready"):
        reply = service.request("GET", path)
        assert reply.status_code == 503
        assert error_of(reply).details == {"models": ["relevance"]}
    assert service.request("GET", "/v1/models/relevance").json()["state"] == "failed"
    scores = service.score(ONE).json()["results"][0]["scores"]
    assert scores["relevance"]["error"]["code"] == "model_failed"
    assert scores["factuality"]["error"] is None


@pytest.mark.parametrize("path", ["/healthz", "/v2/health/live"])
def test_liveness(service: Any, path: str) -> None:
    assert service.request("GET", path).json() == {"live": True}


def test_segment_takes_more_than_any_model(service: Any) -> None:
    reply = service.request("POST", "/v1/segment", json={"text": "One. " * 5_000, "granularity": "sentence"})
    segments = reply.json()["segments"]
    assert len(segments) == 5_000
    assert segments[-1] == [24_995, 24_999]
