import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from reward_proto import HTTP_STATUS, RETRYABLE, ErrorBody, ErrorCode, ErrorReply
from rl_client.api.errors import (
    STATUS_ERRORS,
    ApiConnectionError,
    ApiStatusError,
    ApiTimeoutError,
    ReplyError,
    RewardClientError,
)
from rl_client.api.exchange import (
    Attempt,
    Exchange,
    RawReply,
    parse_retry_after,
    request_with_retries,
    status_error,
    transport_error,
)
from rl_client.api.retry import Retries, RetryPolicy

ATTEMPT = Attempt("POST", "/v1/score", "r1", b"{}")
OK = RawReply(200, httpx.Headers(), b"{}")


def error_reply(code: ErrorCode, status: int | None = None, **changes: object) -> RawReply:
    body = ErrorBody(code=code, message="m", retryable=code in RETRYABLE, request_id="r9", details={"k": 1})
    content = ErrorReply(error=body.model_copy(update=changes)).model_dump_json().encode()
    return RawReply(status or HTTP_STATUS[code], httpx.Headers({"Retry-After": "2"}), content)


def play(outcomes: list[RawReply | Exception], policy: RetryPolicy) -> tuple[RawReply | RewardClientError, list[float]]:
    """Run the generator against scripted outcomes; the answer or the error, and the waits before each attempt."""
    now_s = 0.0
    exchange: Exchange[RawReply] = request_with_retries(ATTEMPT, Retries(policy, random.Random(0), lambda: now_s))
    waits = []
    try:
        attempt = next(exchange)
        for outcome in outcomes:
            waits.append(attempt.delay_s)
            now_s += attempt.delay_s
            attempt = exchange.throw(outcome) if isinstance(outcome, Exception) else exchange.send(outcome)
    except StopIteration as done:
        return done.value, waits
    except RewardClientError as error:
        return error, waits
    raise AssertionError("it wanted another attempt")


def test_a_success_is_returned_at_once() -> None:
    assert play([OK], RetryPolicy()) == (OK, [0.0])


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("half a reply"),
        error_reply(ErrorCode.OVERLOADED),
        error_reply(ErrorCode.RATE_LIMITED),
        error_reply(ErrorCode.DRAINING),
        error_reply(ErrorCode.DEADLINE_EXCEEDED),
        error_reply(ErrorCode.MODEL_FAILED),
        error_reply(ErrorCode.INTERNAL),
        RawReply(502, httpx.Headers(), b"<html>bad gateway</html>"),
        RawReply(503, httpx.Headers(), b""),
    ],
)
def test_what_may_pass_is_tried_again(failure: RawReply | Exception) -> None:
    answer, waits = play([failure, OK], RetryPolicy())
    assert answer is OK
    assert len(waits) == 2


@pytest.mark.parametrize(
    "failure",
    [
        *(error_reply(code) for code in ErrorCode if code not in RETRYABLE),
        error_reply(ErrorCode.OVERLOADED, status=400),  # no 4xx but 429, whatever the body says
        error_reply(ErrorCode.INVALID_REQUEST, retryable=True),
        RawReply(404, httpx.Headers(), b"not here"),
        RawReply(307, httpx.Headers({"location": "http://other"}), b""),
        httpx.UnsupportedProtocol("ftp"),
        httpx.LocalProtocolError("illegal header"),
    ],
)
def test_what_stays_wrong_is_not(failure: RawReply | Exception) -> None:
    answer, waits = play([failure], RetryPolicy())
    assert isinstance(answer, RewardClientError)
    assert not answer.retryable
    assert waits == [0.0]


def test_retry_after_sets_the_wait() -> None:
    _, waits = play([error_reply(ErrorCode.OVERLOADED), OK], RetryPolicy(initial_delay_s=0.5))
    assert 2.0 <= waits[1] <= 2.5


def test_giving_up_raises_the_last_failure_and_says_how_often_it_tried() -> None:
    policy = RetryPolicy(retry_for_s=1.0, initial_delay_s=1.0, max_delay_s=1.0)
    refused = [httpx.ConnectError("refused") for _ in range(50)]
    answer, waits = play(refused, policy)
    assert isinstance(answer, ApiConnectionError)
    assert isinstance(answer.__cause__, httpx.ConnectError)
    assert sum(waits) <= 1.0
    assert answer.__notes__ == [f"gave up after {len(waits)} attempts"]


@pytest.mark.parametrize("code", ErrorCode)
def test_each_code_becomes_its_exception(code: ErrorCode) -> None:
    error = status_error(error_reply(code))
    assert type(error) is STATUS_ERRORS[code]
    assert (error.code, error.status, error.request_id) == (code, HTTP_STATUS[code], "r9")
    assert (error.message, error.details, error.retry_after_s) == ("m", {"k": 1}, 2.0)
    assert error.retryable == (code in RETRYABLE)


def test_a_body_of_no_contract_is_shown_and_judged_by_its_status() -> None:
    error = status_error(RawReply(502, httpx.Headers({"X-Request-Id": "p1"}), b"<html>" + b"x" * 1000))
    assert type(error) is ApiStatusError
    assert error.code is None
    assert error.retryable
    assert error.request_id == "p1"
    assert "<html>xxx" in error.message
    assert len(error.message) < 300


def test_a_code_of_a_newer_service_is_no_crash() -> None:
    content = error_reply(ErrorCode.OVERLOADED).content.replace(b"overloaded", b"on_holiday")
    error = status_error(RawReply(503, httpx.Headers(), content))
    assert (error.code, error.retryable) == (None, True)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (httpx.ConnectTimeout("x"), ApiTimeoutError),
        (httpx.PoolTimeout("x"), ApiTimeoutError),
        (httpx.ReadError("x"), ApiConnectionError),
        (httpx.DecodingError("bad gzip"), ReplyError),
    ],
)
def test_exceptions_of_httpx_become_ours(raised: httpx.HTTPError, expected: type[RewardClientError]) -> None:
    error = transport_error(raised, ATTEMPT)
    assert type(error) is expected
    assert "POST /v1/score (request r1)" in str(error)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("3", 3.0), ("0.5", 0.5), ("-4", 0.0), ("nan", None), ("soon", None), ("", None)],
)
def test_retry_after_values(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_retry_after_may_be_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    seconds = parse_retry_after(later)
    assert seconds is not None
    assert 90 < seconds <= 100
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 -0000") is None  # of no known zone
