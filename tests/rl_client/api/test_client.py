"""How the client splits a call into requests, what they say, and its other endpoints and settings."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from typing import Any

import httpx
import pytest

from reward_proto import ErrorCode, Granularity, ScoreItem
from rl_client.api import AsyncRewardClient, RetryPolicy, RewardClient
from rl_client.api.errors import TooLongError, UnknownModelError
from rl_client.api.testing import FakeRewardService
from tests.rl_client.api.both_clients import ITEMS, URL, Score, both, sequence


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
