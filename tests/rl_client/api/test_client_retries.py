"""What the client asks again, for how long, and what it raises when it gives up."""

import random

import httpx
import pytest

from reward_proto import ErrorCode
from rl_client.api import ApiConnectionError, RetryPolicy, RewardClient
from rl_client.api.errors import OverloadedError, TooLongError, UnauthenticatedError
from rl_client.api.testing import FakeModel, FakeRewardService
from tests.rl_client.api.both_clients import ITEMS, Score, both, codes, sequence, sync_score


@both
def test_failures_of_whole_requests_are_survived(score: Score, service: FakeRewardService, quick: RetryPolicy) -> None:
    expected = score(service, ITEMS)
    service.fail_next(ErrorCode.OVERLOADED, httpx.ConnectError("refused"), httpx.Response(502, text="<html>"))
    assert score(service, ITEMS, retry=quick) == expected


@both
def test_a_final_error_is_raised_and_nothing_is_retried(score: Score, service: FakeRewardService) -> None:
    service.fail_next(ErrorCode.TOO_LONG)
    with pytest.raises(TooLongError):
        score(service, ITEMS)
    assert len(service.headers) == 1


@both
def test_the_last_failure_is_raised_when_the_budget_is_spent(score: Score, service: FakeRewardService) -> None:
    service.fail_next(*[ErrorCode.OVERLOADED] * 1000)
    policy = RetryPolicy(retry_for_s=0.05, initial_delay_s=0.01, max_delay_s=0.01)
    with pytest.raises(OverloadedError):
        score(service, ITEMS, retry=policy)
    assert len(service.headers) > 1


@both
def test_only_the_scores_that_failed_are_asked_again(
    score: Score, service: FakeRewardService, quick: RetryPolicy
) -> None:
    expected = score(service, ITEMS)
    service.requests.clear()
    service.fail_scores("relevance", ErrorCode.OVERLOADED, item_id="q2", times=2)
    service.fail_scores("completeness", ErrorCode.DEADLINE_EXCEEDED, item_id="q5")
    assert score(service, ITEMS, retry=quick) == expected
    asked = [([item.id for item in request.items], request.models) for request in service.requests]
    assert asked == [
        ([item.id for item in ITEMS], None),
        (["q2"], ["relevance"]),
        (["q2"], ["relevance"]),
        (["q5"], ["completeness"]),
    ]


@both
def test_a_score_that_stays_failed_keeps_its_error(
    score: Score, service: FakeRewardService, quick: RetryPolicy
) -> None:
    service.fail_scores("relevance", ErrorCode.MISSING_FIELD, item_id="q1")
    service.fail_scores("relevance", ErrorCode.MODEL_FAILED, item_id="q3", times=1000)
    results = score(service, ITEMS, retry=quick)
    expected = [None, ErrorCode.MISSING_FIELD, None, ErrorCode.MODEL_FAILED, None, None, None]
    assert codes(results, "relevance") == expected
    assert codes(results, "completeness") == [None] * 7
    for result, code in zip(results, expected, strict=True):
        assert (sequence(result, "relevance") is None) == (code is not None or result.id == "q0")
    # Asked once, and twice more for the model that fails; the missing field is final.
    assert [[item.id for item in request.items] for request in service.requests[1:]] == [["q3"], ["q3"]]


@both
def test_what_becomes_of_a_score_asked_again_stays_in_its_place(
    score: Score, service: FakeRewardService, quick: RetryPolicy
) -> None:
    """The service refuses a request whole when all its scores fail alike; the scores that are here already stand."""
    service.fail_scores("relevance", ErrorCode.DEADLINE_EXCEEDED, item_id="q2")
    service.fail_scores("relevance", ErrorCode.TOO_LONG, item_id="q2")
    results = score(service, ITEMS, retry=quick)
    expected = [None, None, ErrorCode.TOO_LONG, None, None, None, None]
    assert codes(results, "relevance") == expected
    assert codes(results, "completeness") == [None] * 7


@both
def test_a_score_that_was_given_up_is_not_asked_for_before_its_retry_after(
    score: Score, service: FakeRewardService
) -> None:
    service.retry_after_s = 40.0
    service.fail_scores("relevance", ErrorCode.OVERLOADED, item_id="q2", times=1000)
    results = score(service, ITEMS, retry=RetryPolicy(retry_for_s=30.0, initial_delay_s=0.001))
    assert codes(results, "relevance")[2] is ErrorCode.OVERLOADED
    assert len(service.requests) == 2


@both
def test_an_error_of_the_whole_request_is_raised_also_when_asking_again(
    score: Score, service: FakeRewardService, quick: RetryPolicy
) -> None:
    service.fail_scores("relevance", ErrorCode.OVERLOADED, item_id="q2")
    handler, asked = service.transport.handler, []

    def expire(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) == 2:
            service.fail_next(ErrorCode.UNAUTHENTICATED)
        return handler(request)

    service.transport = httpx.MockTransport(expire)
    with pytest.raises(UnauthenticatedError):
        score(service, ITEMS, retry=quick)


@both
def test_other_scores_are_asked_again_after_a_model_is_given_up(
    score: Score, service: FakeRewardService, quick: RetryPolicy
) -> None:
    service.fail_scores("relevance", ErrorCode.MODEL_FAILED, item_id="q2", times=1000)
    service.fail_scores("completeness", ErrorCode.OVERLOADED, item_id="q2", times=6)
    service.fail_scores("completeness", ErrorCode.OVERLOADED, item_id="q3", times=6)
    results = score(service, ITEMS, retry=quick)
    assert codes(results, "relevance") == [None, None, ErrorCode.MODEL_FAILED, None, None, None, None]
    assert codes(results, "completeness") == [None] * 7


@both
def test_an_overloaded_score_keeps_its_error_when_the_budget_is_spent(score: Score, service: FakeRewardService) -> None:
    service.fail_scores("relevance", ErrorCode.OVERLOADED, times=10_000)
    results = score(service, ITEMS[:2], retry=RetryPolicy(retry_for_s=0.05, initial_delay_s=0.01, max_delay_s=0.01))
    assert codes(results, "relevance") == [ErrorCode.OVERLOADED] * 2
    assert len(service.requests) > 1


def test_a_service_that_cannot_be_reached_is_named_without_its_password() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    transport = httpx.MockTransport(refuse)
    once = RetryPolicy(retry_for_s=0.0)
    named = r"GET http://rewards\.example:81/base/v1/models \(request"
    with (
        RewardClient("http://me:secret@rewards.example:81/base", transport=transport, retry=once) as client,
        pytest.raises(ApiConnectionError, match=named) as caught,
    ):
        client.models()
    assert "secret" not in str(caught.value)


def test_the_jitter_comes_from_the_given_generator() -> None:
    class Counting(random.Random):
        draws = 0

        def uniform(self, a: float, b: float) -> float:
            self.draws += 1
            return 0.0

    rng = Counting()
    service = FakeRewardService([FakeModel("m", score=len)])
    service.fail_next(httpx.ConnectError("x"), httpx.ConnectError("x"))
    sync_score(service, ITEMS[:1], rng=rng)
    assert rng.draws == 2


def test_a_connection_error_is_one_of_ours() -> None:
    service = FakeRewardService([FakeModel("m", score=len)])
    service.fail_next(httpx.ConnectError("refused"))
    with pytest.raises(ApiConnectionError, match="refused"):
        sync_score(service, ITEMS[:1], retry=RetryPolicy(retry_for_s=0.0))
