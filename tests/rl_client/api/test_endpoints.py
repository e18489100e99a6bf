import random
import time

import httpx
import pytest

from reward_proto import Granularity, ModelInfo
from rl_client.api import endpoints
from rl_client.api.errors import ReplyError, UnauthenticatedError, UnknownModelError
from rl_client.api.exchange import Exchange, RawReply, T
from rl_client.api.reply_check import Pin
from rl_client.api.retry import Retries, RetryPolicy

RELEVANCE = {
    "name": "relevance",
    "version": "aaaaaaaaaaaa",
    "aliases": ["latest", "best"],
    "kind": "token_classification",
    "granularity": "sentence",
    "labels": ["error", "ok"],
    "template": "{prompt}",
    "max_tokens": 512,
    "runtime": "onnxruntime-fp32",
    "digest": "aaaaaaaaaaaa0000",
    "state": "ready",
}


def retries() -> Retries:
    return Retries(RetryPolicy(retry_for_s=0.0), random.Random(0), time.monotonic)


def answer(exchange: Exchange[T], body: object, status: int = 200) -> tuple[T, str]:
    """What the exchange makes of one reply, and the request line it sent."""
    attempt = next(exchange)
    line = f"{attempt.method} {attempt.path}"
    try:
        exchange.send(RawReply(status, httpx.Headers(), httpx.Response(status, json=body).content))
    except StopIteration as done:
        return done.value, line
    raise AssertionError("it wanted another attempt")


def failure(code: str) -> dict[str, object]:
    return {"error": {"code": code, "message": "m", "retryable": True, "request_id": "r"}}


def test_models_and_one_model() -> None:
    info = ModelInfo.model_validate(RELEVANCE)
    assert answer(endpoints.models_exchange(retries()), {"models": [RELEVANCE]}) == ([info], "GET /v1/models")
    assert answer(endpoints.model_exchange("relevance", retries()), RELEVANCE) == (info, "GET /v1/models/relevance")


def test_a_name_cannot_leave_its_path() -> None:
    _, line = answer(endpoints.model_exchange("../x?y", retries()), RELEVANCE)
    assert line == "GET /v1/models/..%2Fx%3Fy"


@pytest.mark.parametrize("reference", ["relevance", "relevance@latest", "relevance@best", "relevance@aaaaaaaaaaaa"])
def test_every_kind_of_reference_is_pinned(reference: str) -> None:
    pins, _ = answer(endpoints.pin_exchange([reference], retries()), {"models": [RELEVANCE]})
    assert pins == {"relevance": Pin("aaaaaaaaaaaa", "onnxruntime-fp32")}


def test_everything_is_pinned_when_nothing_is_named() -> None:
    other = {**RELEVANCE, "name": "factuality", "version": "bbbbbbbbbbbb", "runtime": "torch-fp32"}
    pins, _ = answer(endpoints.pin_exchange(None, retries()), {"models": [RELEVANCE, other]})
    assert pins == {"relevance": ("aaaaaaaaaaaa", "onnxruntime-fp32"), "factuality": ("bbbbbbbbbbbb", "torch-fp32")}


@pytest.mark.parametrize("state", ["loading", "unloaded"])
def test_what_is_listed_but_not_served_is_not_pinned(state: str) -> None:
    other = {**RELEVANCE, "name": "factuality", "state": state}
    pins, _ = answer(endpoints.pin_exchange(None, retries()), {"models": [RELEVANCE, other]})
    assert list(pins) == ["relevance"]
    with pytest.raises(UnknownModelError, match="factuality"):
        answer(endpoints.pin_exchange(["factuality"], retries()), {"models": [RELEVANCE, other]})


@pytest.mark.parametrize("reference", ["toxicity", "relevance@old", "relevance@bbbbbbbbbbbb"])
def test_what_is_not_served_cannot_be_pinned(reference: str) -> None:
    with pytest.raises(UnknownModelError, match=rf"{reference}.*served: relevance@aaaaaaaaaaaa"):
        answer(endpoints.pin_exchange([reference], retries()), {"models": [RELEVANCE]})


def test_segments() -> None:
    body = {"granularity": "sentence", "segmenter": "s", "segments": [[0, 4]]}
    reply, line = answer(endpoints.segment_exchange("Yes.", Granularity.SENTENCE, retries()), body)
    assert (reply.segments, line) == ([(0, 4)], "POST /v1/segment")
    with pytest.raises(ReplyError):
        answer(endpoints.segment_exchange("No", Granularity.SENTENCE, retries()), body)


def test_ready() -> None:
    assert answer(endpoints.ready_exchange(retries()), {"ready": True}) == (True, "GET /readyz")
    assert answer(endpoints.ready_exchange(retries()), {"ready": False}, 503)[0] is False
    assert answer(endpoints.ready_exchange(retries()), failure("draining"), 503)[0] is False
    with pytest.raises(UnauthenticatedError):
        answer(endpoints.ready_exchange(retries()), failure("unauthenticated"), 401)


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
def test_a_service_that_cannot_be_reached_is_not_ready(error: httpx.HTTPError) -> None:
    exchange = endpoints.ready_exchange(retries())
    next(exchange)
    with pytest.raises(StopIteration) as done:
        exchange.throw(error)
    assert done.value.value is False
