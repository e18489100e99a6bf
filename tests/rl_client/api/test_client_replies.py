"""Replies that the client takes or refuses: of the pinned version, to this request, whole in time."""

import time
from typing import Any

import httpx
import pytest

from reward_proto import ScoreItem
from rl_client.api import ApiTimeoutError, Pin, ReplyError, RetryPolicy, RewardClient
from rl_client.api.errors import UnknownModelError
from rl_client.api.testing import FakeModel, FakeRewardService
from tests.rl_client.api.both_clients import ITEMS, URL, Score, both, sequence


@both
def test_pins_are_asked_for_and_checked(score: Score, service: FakeRewardService) -> None:
    pins = {"completeness": Pin("bbbbbbbbbbbb", "fake-fp32")}
    results = score(service, ITEMS[:1], pins=pins)
    assert service.requests[0].models == ["completeness@bbbbbbbbbbbb"]
    assert list(results[0].scores) == ["completeness"]
    with pytest.raises(ReplyError, match="pinned is other"):
        score(service, ITEMS[:1], pins={"completeness": ("bbbbbbbbbbbb", "other")})
    with pytest.raises(UnknownModelError):
        score(service, ITEMS[:1], pins={"completeness": ("cccccccccccc", "fake-fp32")})


def test_a_model_that_changes_in_mid_run_is_an_error(service: FakeRewardService) -> None:
    with RewardClient(URL, transport=service.transport) as client:
        assert client.pin(["completeness"]) == {"completeness": ("bbbbbbbbbbbb", "fake-fp32")}
        client.score(ITEMS, ["completeness"])
        service.models["completeness"] = FakeModel("completeness", score=len, version="bbbbbbbbbbbb", runtime="int8")
        with pytest.raises(ReplyError, match="scored on int8, pinned is fake-fp32"):
            client.score(ITEMS, ["completeness"])
        service.models["completeness"] = FakeModel("completeness", score=len, version="dddddddddddd")
        with pytest.raises(UnknownModelError):
            client.score(ITEMS, ["completeness"])


def test_a_reply_that_drips_in_is_stopped() -> None:
    class Drip(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            while True:
                time.sleep(0.02)
                yield b" "

    class DripTransport(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=Drip())

    with (
        RewardClient(URL, transport=DripTransport(), timeout_s=0.1, retry=RetryPolicy(retry_for_s=0.0)) as client,
        pytest.raises(ApiTimeoutError, match=r"not whole within 0\.1 s"),
    ):
        client.score(ITEMS[:1])


@pytest.mark.parametrize("in_header", [False, True])
def test_the_answer_to_an_earlier_request_is_none_to_this_one(service: FakeRewardService, in_header: bool) -> None:
    """A server that answered the first request twice: ids, spans and version would all fit."""
    replies: list[httpx.Response] = []

    def answer(request: httpx.Request) -> httpx.Response:
        reply = service.transport.handle_request(request)
        if in_header:
            reply.headers["X-Request-Id"] = request.headers["X-Request-Id"]
        replies.append(reply)
        return replies[0] if len(replies) == 2 else reply

    first, second = (ScoreItem(id="a", response=text) for text in ("a bad one", "a new one"))
    patient = RetryPolicy(initial_delay_s=0.001)
    with RewardClient(URL, transport=httpx.MockTransport(answer), retry=patient) as client:
        assert sequence(client.score([first])[0], "relevance") == 0.25
        if in_header:  # its connection is closed and the request sent anew
            assert sequence(client.score([second])[0], "relevance") == 0.75
            return
        with pytest.raises(ReplyError, match="the reply is that of the request"):
            client.score([second])


def test_an_id_that_a_proxy_puts_in_is_no_fault(service: FakeRewardService) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        reply = service.transport.handle_request(request)
        content = reply.read().replace(request.headers["X-Request-Id"].encode(), b"of-the-proxy")
        return httpx.Response(200, content=content, headers={"X-Request-Id": "of-the-proxy"})

    with RewardClient(URL, transport=httpx.MockTransport(answer)) as client:
        assert sequence(client.score(ITEMS[:1])[0], "completeness") == len(ITEMS[0].response)
