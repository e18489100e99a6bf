import asyncio
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from reward_proto import ErrorCode, Granularity, ItemResult, ModelScore, ScoreItem
from rl_client.api import (
    ApiConnectionError,
    ApiTimeoutError,
    AsyncRewardClient,
    Pin,
    ReplyError,
    RetryPolicy,
    RewardClient,
)
from rl_client.api.errors import OverloadedError, TooLongError, UnauthenticatedError, UnknownModelError
from rl_client.api.testing import FakeModel, FakeRewardService

URL = "http://reward"
ITEMS = [ScoreItem(id=f"q{n}", response="Good. " * (n % 3) + "bad " * n) for n in range(7)]

Score = Callable[..., list[ItemResult]]


def sync_score(
    service: FakeRewardService, items: list[ScoreItem], models: Any = None, **settings: Any
) -> list[ItemResult]:
    with RewardClient(URL, transport=service.transport, **settings) as client:
        return client.score(items, models)


def async_score(
    service: FakeRewardService, items: list[ScoreItem], models: Any = None, **settings: Any
) -> list[ItemResult]:
    async def run() -> list[ItemResult]:
        async with AsyncRewardClient(URL, transport=service.transport, **settings) as client:
            return await client.score(items, models)

    return asyncio.run(run())


both = pytest.mark.parametrize("score", [sync_score, async_score])


def sequence(result: ItemResult, model: str) -> float | None:
    return result.scores[model].sequence_score


def codes(results: list[ItemResult], model: str) -> list[ErrorCode | None]:
    scores: list[ModelScore] = [result.scores[model] for result in results]
    return [score.error.code if score.error else None for score in scores]


@both
@pytest.mark.parametrize("max_concurrency", [1, 3])
@pytest.mark.parametrize("max_items", [1, 3, 100])
def test_order_and_ids_are_kept_however_it_is_split(
    score: Score, service: FakeRewardService, max_items: int, max_concurrency: int
) -> None:
    results = score(service, ITEMS, max_items_per_request=max_items, max_concurrency=max_concurrency)
    assert [result.id for result in results] == [item.id for item in ITEMS]
    trimmed = [float(len(item.response.strip())) for item in ITEMS]
    assert [sequence(result, "completeness") for result in results] == trimmed
    assert max(len(request.items) for request in service.requests) <= max_items
    assert sum(len(request.items) for request in service.requests) == len(ITEMS)


@both
def test_requests_go_one_after_the_other_by_default(score: Score, service: FakeRewardService) -> None:
    score(service, ITEMS, max_items_per_request=2)
    assert [item.id for request in service.requests for item in request.items] == [item.id for item in ITEMS]


@both
def test_nothing_to_score_asks_nothing(score: Score, service: FakeRewardService) -> None:
    assert score(service, []) == []
    assert service.headers == []


@both
def test_items_without_an_id_are_named_by_their_index_in_the_call(score: Score, service: FakeRewardService) -> None:
    items = [ScoreItem(response="a"), ScoreItem(id="x", response="bb"), ScoreItem(response="ccc")]
    results = score(service, items, ["completeness"], max_items_per_request=1)
    assert [(result.id, sequence(result, "completeness")) for result in results] == [("0", 1.0), ("x", 2.0), ("2", 3.0)]


@both
def test_what_the_service_is_told(score: Score, service: FakeRewardService) -> None:
    score(service, ITEMS[:1], ["completeness@latest"], api_key="k", client_job="job-7", timeout_s=20.0)
    assert service.requests[0].models == ["completeness@latest"]
    assert service.requests[0].timeout_s == pytest.approx(18.0)
    headers = service.headers[0]
    assert (headers["authorization"], headers["x-client-job"]) == ("Bearer k", "job-7")
    assert len(headers["x-request-id"]) == 32


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


def test_the_other_endpoints(service: FakeRewardService) -> None:
    async def ask() -> list[Any]:
        async with AsyncRewardClient(URL, transport=service.transport) as client:
            return [
                await client.models(),
                await client.model("relevance"),
                await client.segment("Yes. No.", "sentence"),
                await client.ready(),
                await client.pin(),
                client.pins,
            ]

    with RewardClient(URL, transport=service.transport) as client:
        answers = [
            client.models(),
            client.model("relevance"),
            client.segment("Yes. No.", Granularity.SENTENCE),
            client.ready(),
            client.pin(),
            client.pins,
        ]
        with pytest.raises(UnknownModelError):
            client.model("toxicity")
    assert asyncio.run(ask()) == answers
    models, model, segments, ready, pins, kept = answers
    assert [info.name for info in models] == ["relevance", "completeness"]
    assert model == models[0]
    assert segments.segments == [(0, 4), (5, 8)]
    assert ready is True
    assert pins == kept
    assert set(pins) == {"relevance", "completeness"}


def test_ready_asks_once() -> None:
    asked = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        raise httpx.ConnectError("refused")

    with RewardClient(URL, transport=httpx.MockTransport(refuse)) as client:
        assert client.ready() is False
    assert len(asked) == 1


def test_a_service_that_cannot_be_reached_is_named_without_its_password(quick: RetryPolicy) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    transport = httpx.MockTransport(refuse)
    named = r"GET http://rewards\.example:81/base/v1/models \(request"
    with (
        RewardClient("http://me:secret@rewards.example:81/base", transport=transport, retry=quick) as client,
        pytest.raises(ApiConnectionError, match=named) as caught,
    ):
        client.models()
    assert "secret" not in str(caught.value)


def test_latencies_are_kept_until_taken(service: FakeRewardService, quick: RetryPolicy) -> None:
    with RewardClient(URL, transport=service.transport, max_items_per_request=3, retry=quick) as client:
        client.score(ITEMS)
        client.models()
        latencies_s = client.take_latencies_s()
        assert len(latencies_s) == 3
        assert all(0.0 <= latency_s < 60.0 for latency_s in latencies_s)
        assert client.take_latencies_s() == []
        service.fail_next(ErrorCode.TOO_LONG)
        with pytest.raises(TooLongError):
            client.score(ITEMS[:1])
        assert client.take_latencies_s() == []


class ThreeAtATime(httpx.MockTransport):
    """Answers when three requests have come together, and fails if a fourth comes before."""

    def __init__(self, inner: httpx.MockTransport) -> None:
        super().__init__(inner.handler)
        self.free = threading.Semaphore(3)
        self.threads = threading.Barrier(3)
        self.tasks = asyncio.Barrier(3)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert self.free.acquire(blocking=False)
        self.threads.wait(timeout=30)
        self.free.release()
        return super().handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert self.free.acquire(blocking=False)
        await self.tasks.wait()
        self.free.release()
        return await super().handle_async_request(request)


@both
def test_concurrency_is_used_and_bounded(score: Score, service: FakeRewardService) -> None:
    service.transport = ThreeAtATime(service.transport)
    results = score(service, ITEMS[:6], max_items_per_request=1, max_concurrency=3)
    assert [result.id for result in results] == [item.id for item in ITEMS[:6]]


@both
def test_one_failed_request_of_many_fails_the_call(score: Score, service: FakeRewardService) -> None:
    service.fail_next(ErrorCode.TOO_LONG)
    with pytest.raises(TooLongError):
        score(service, ITEMS, max_items_per_request=1, max_concurrency=2)


@pytest.mark.parametrize("url", ["reward:8000", "ftp://reward", "http://", ""])
def test_an_address_that_cannot_work_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        RewardClient(url)


@pytest.mark.parametrize(
    "setting",
    [
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"max_items_per_request": 0},
        {"max_request_bytes": 0},
        {"max_concurrency": 0},
    ],
)
def test_settings_out_of_range_are_refused_at_once(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        RewardClient(URL, **setting)


def test_a_base_url_with_a_path_keeps_it(service: FakeRewardService) -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200)

    for base in ("http://gateway/rewards", "http://gateway/rewards/"):
        with RewardClient(base, transport=httpx.MockTransport(answer)) as client:
            client.ready()
    assert seen == ["/rewards/readyz"] * 2


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


def test_it_imports_and_scores_without_torch() -> None:
    script = """
        import sys
        absent = ("torch", "transformers", "numpy", "tokenizers", "yaml", "typer", "rich")
        sys.modules.update({name: None for name in absent})
        from reward_proto import ScoreItem
        from rl_client.api import RewardClient
        from rl_client.api.testing import FakeModel, FakeRewardService
        service = FakeRewardService([FakeModel("m", score=lambda text: 0.5)])
        with RewardClient("http://reward", transport=service.transport) as client:
            print(client.score([ScoreItem(response="x")])[0].scores["m"].sequence_score)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0.5\n", "")


def test_a_connection_error_is_one_of_ours() -> None:
    service = FakeRewardService([FakeModel("m", score=len)])
    service.fail_next(httpx.ConnectError("refused"))
    with pytest.raises(ApiConnectionError, match="refused"):
        sync_score(service, ITEMS[:1], retry=RetryPolicy(retry_for_s=0.0))


@pytest.mark.parametrize("is_async", [False, True])
def test_run_and_step_are_told(service: FakeRewardService, is_async: bool) -> None:
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return service.transport.handle_request(request)

    options: dict[str, Any] = {"transport": httpx.MockTransport(answer), "client_job": "job", "client_run": "runs/käse"}

    async def score() -> None:
        async with AsyncRewardClient(URL, **options) as client:
            await client.score(ITEMS[:1], step=0)
            await client.score(ITEMS[:1])

    if is_async:
        asyncio.run(score())
    else:
        with RewardClient(URL, **options) as client:
            client.score(ITEMS[:1], step=0)
            client.score(ITEMS[:1])
    assert [headers.get("X-Client-Step") for headers in seen] == ["0", None]
    for headers in seen:
        assert dict(headers.raw)[b"X-Client-Run"] == "runs/käse".encode()
        assert headers["X-Client-Job"] == "job"


@pytest.mark.parametrize("run", ["", "a\nb", "x" * 257])
def test_a_run_that_no_header_holds_is_refused(run: str) -> None:
    with pytest.raises(ValueError, match="client_run"):
        RewardClient(URL, client_run=run)
