"""How scores become one number, and that a missing score is never one."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from reward_service.compat_settings import Compat

FIELDS = {"question": "{prompt}"}
ASK = {"prompt": "Why?", "response": "It rains."}


def rm(service: Any, **more: Any) -> Any:
    return service.request("POST", "/rm", json={**ASK, **more})


def test_one_model_needs_no_weight_and_several_do(make_service: Callable[..., Any]) -> None:
    reply = rm(make_service())
    assert reply.status_code == 404
    error = reply.json()["error"]
    assert (error["code"], error["details"]["served"]) == (
        "unknown_model",
        ["relevance", "factuality", "completeness"],
    )


def test_only_models_with_a_weight_are_asked(make_service: Callable[..., Any]) -> None:
    service = make_service(compat=Compat(weights={"completeness": -2.0}))
    assert rm(service).json() == pytest.approx(-4 / 7)
    assert service.metric("reward_batch_items_count", model="completeness") == 1
    assert not service.metric("reward_batch_items_count", model="factuality")


def test_a_sum_that_is_not_finite_is_an_error(make_service: Callable[..., Any]) -> None:
    # 1.7e308 x 0.639 fits a double, and two of them do not.
    weights = {"factuality": 1.7e308, "relevance": 1.7e308}
    reply = rm(make_service(compat=Compat(weights=weights, fields=FIELDS)))
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "model_failed"


def test_one_failed_score_fails_the_request(make_service: Callable[..., Any]) -> None:
    service = make_service(compat=Compat(weights={"factuality": 1.0, "completeness": 1.0}))
    body = {"query": ["fine", "x" * 3000], "prompts": ["", ""]}
    reply = service.request("POST", "/get_reward", json=body)
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert error["code"] == "too_long"
    assert error["message"].startswith("query.1: factuality: ")
    assert (error["details"]["path"], error["details"]["model"]) == ("query.1", "factuality")


def test_what_no_retry_mends_goes_first(make_service: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("broken")

    caplog.set_level(logging.CRITICAL)
    service = make_service(fail, compat=Compat(weights={"completeness": 1.0, "relevance": 1.0}))
    assert rm(service).json()["error"]["code"] == "missing_field"


def test_a_failing_model_is_retryable(make_service: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("broken")

    caplog.set_level(logging.CRITICAL)
    reply = rm(make_service(fail, compat=Compat(weights={"completeness": 1.0})))
    assert (reply.status_code, reply.json()["error"]["retryable"]) == (500, True)


def test_an_empty_response_is_an_error_unless_it_has_a_score(make_service: Callable[..., Any]) -> None:
    weights = {"factuality": 1.0, "completeness": 7.0}
    for response in ("", " \n"):
        reply = rm(make_service(compat=Compat(weights=weights)), response=response)
        assert reply.status_code == 422
        assert "empty_score" in reply.json()["error"]["message"]
        reply = rm(make_service(compat=Compat(weights=weights, empty_score=-5.0)), response=response)
        assert reply.json() == pytest.approx(-5 + 7 * 2 / 7), "a model that scores empty texts keeps its own score"


def test_too_many_texts_are_too_large(make_service: Callable[..., Any]) -> None:
    service = make_service(compat=Compat(weights={"completeness": 1.0}), max_items=2)
    for count, status in ((2, 200), (3, 413)):
        reply = service.request("POST", "/v1/rewards", json={"messages": ["a"] * count})
        assert reply.status_code == status


def test_nothing_to_score_costs_nothing(make_service: Callable[..., Any]) -> None:
    service = make_service(compat=Compat(weights={"completeness": 1.0}))
    assert service.request("POST", "/v1/rewards", json={"messages": []}).json() == {"scores": []}
    assert not service.metric("reward_batch_items_count", model="completeness")


def test_the_job_is_counted(make_service: Callable[..., Any]) -> None:
    service = make_service(compat=Compat(weights={"completeness": 1.0}))
    reply = service.request("POST", "/rm", json=ASK, headers={"X-Client-Job": "j7"})
    assert reply.headers["Server-Timing"].startswith("tokenize;dur=")
    assert service.metric("reward_requests_total", endpoint="/rm", client_job="j7", code="200") == 1
