"""The real client against the real app, in process and as a process of its own that gets killed."""

import asyncio
import math
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from reward_proto import ErrorCode, Granularity, ItemResult, ScoreItem
from rl_client.api import AsyncRewardClient, ReplyError, RetryPolicy, RewardClient
from rl_client.api.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    MissingFieldError,
    ModelFailedError,
    PayloadTooLargeError,
    TooLongError,
    UnknownModelError,
)

T = TypeVar("T")

SCRIPT = Path(__file__).with_name("scripted_service.py")
PINS = {"relevance": ("aaaaaaaaaaaa", "scripted-fp32"), "length": ("bbbbbbbbbbbb", "scripted-fp32")}
NO_RETRIES = RetryPolicy(retry_for_s=0.0)
PATIENT = RetryPolicy(retry_for_s=120.0, initial_delay_s=0.05, max_delay_s=0.2)

TEXT = "alpha Beta gamma. Delta, epsilon! Zeta eta 👍🏽 theta. Iota? Kappa lambda mu é中. Nu xi"
WORDS = TEXT.split()


def items(count: int) -> list[ScoreItem]:
    """Responses of other lengths and first letters each, some of them blank."""
    made = []
    for n in range(count):
        words = [WORDS[(n * 7 + k) % len(WORDS)] for k in range(n % 23)]
        made.append(ScoreItem(id=f"q{n}", response=" ".join(words), fields={"question": f"Q{n}"}))
    return made


def check(asked: list[ScoreItem], results: list[ItemResult]) -> None:
    """Every result is in its place and every score is what can be told by hand from the text."""
    assert [result.id for result in results] == [item.id for item in asked]
    for item, result in zip(asked, results, strict=True):
        # [CLS], separator, space, the bytes, [SEP]
        assert result.scores["length"].sequence_score == 2 + len(item.response.encode())
        segments = result.scores["relevance"].segments
        assert segments is not None
        assert "".join(item.response[s.start : s.end] for s in segments).replace(" ", "") == item.response.replace(
            " ", ""
        )
        for segment in segments:
            first = item.response[segment.start]
            if first.isascii():
                expected = 1 / (1 + math.exp(-(ord(first) - 29) / 50))
                assert segment.score == pytest.approx(expected, abs=1e-5)


class InProcess:
    """The app and one event loop for all its requests, as in a server."""

    def __init__(self) -> None:
        self.app, self.scorer = runpy.run_path(str(SCRIPT))["make_app"]()
        self.runner = asyncio.Runner()

    def run(self, act: Callable[[AsyncRewardClient], Coroutine[Any, Any, T]], **settings: Any) -> T:
        async def connected() -> T:
            async with AsyncRewardClient("http://app", transport=httpx.ASGITransport(self.app), **settings) as client:
                return await act(client)

        return self.runner.run(connected())

    def close(self) -> None:
        self.scorer.close(5.0)
        self.runner.close()


@pytest.fixture(scope="module")
def app() -> Iterator[InProcess]:
    running = InProcess()
    yield running
    running.close()


def score(app: InProcess, asked: list[ScoreItem], models: list[str] | None = None, **settings: Any) -> list[ItemResult]:
    return app.run(lambda client: client.score(asked, models), **settings)


def codes(results: list[ItemResult], model: str) -> list[ErrorCode | None]:
    return [error.code if (error := result.scores[model].error) else None for result in results]


@pytest.mark.parametrize("max_concurrency", [1, 4])
@pytest.mark.parametrize("max_items", [1, 7, 64])
def test_scores_ids_and_order(app: InProcess, max_items: int, max_concurrency: int) -> None:
    asked = items(60)
    check(asked, score(app, asked, pins=PINS, max_items_per_request=max_items, max_concurrency=max_concurrency))


def test_models_pins_segments_readiness_and_logits(app: InProcess) -> None:
    async def act(client: AsyncRewardClient) -> None:
        names = [info.name for info in await client.models()]
        assert names == ["relevance", "length"]
        for reference in ("relevance", "relevance@latest", "relevance@aaaaaaaaaaaa"):
            assert (await client.model(reference)).version == "aaaaaaaaaaaa"
        assert await client.pin(["relevance@latest", "length@bbbbbbbbbbbb"]) == PINS
        assert await client.ready()
        assert (await client.segment("Yes, it is. No!", "sentence")).segments == [(0, 11), (12, 15)]
        (result,) = await client.score(items(4)[3:], ["length"], return_logits=True)
        segments = result.scores["length"].segments
        assert segments is not None
        assert segments[0].logits == [segments[0].score]

    app.run(act)


def test_the_callers_own_segments(app: InProcess) -> None:
    item = ScoreItem(
        response="One two. Three.", fields={"question": "q"}, segments={Granularity.SENTENCE: [(0, 3), (4, 15)]}
    )
    (result,) = score(app, [item])
    segments = result.scores["relevance"].segments
    assert segments is not None
    assert [(segment.start, segment.end) for segment in segments] == [(0, 3), (4, 15)]
    with pytest.raises(InvalidRequestError):
        score(app, [item.model_copy(update={"segments": {Granularity.SENTENCE: [(0, 99)]}})])


def test_errors_of_single_scores_stay_in_their_places(app: InProcess) -> None:
    asked = items(4)
    asked[1] = ScoreItem(id="q1", response="no question")
    asked[2] = ScoreItem(id="q2", response="x" * 3000, fields={"question": "q"})
    results = score(app, asked)
    assert codes(results, "relevance") == [None, ErrorCode.MISSING_FIELD, ErrorCode.TOO_LONG, None]
    assert codes(results, "length") == [None, None, ErrorCode.TOO_LONG, None]


@pytest.mark.parametrize("trigger", ["~", "|"])
def test_a_model_that_raises_or_gives_nan_fails_its_item_alone(app: InProcess, trigger: str) -> None:
    asked = items(5)
    asked[2] = ScoreItem(id="q2", response=trigger, fields={"question": "q"})
    quick = RetryPolicy(initial_delay_s=0.001)
    results = score(app, asked, retry=quick)
    expected = [None, None, ErrorCode.MODEL_FAILED, None, None]
    assert codes(results, "relevance") == codes(results, "length") == expected
    assert results[2].scores["length"].sequence_score is None
    check(asked[3:], results[3:])


def test_errors_of_whole_requests(app: InProcess) -> None:
    with pytest.raises(UnknownModelError, match="toxicity"):
        score(app, items(1), ["toxicity"])
    with pytest.raises(UnknownModelError):
        score(app, items(1), pins={"length": ("cccccccccccc", None)})
    with pytest.raises(ReplyError, match="pinned is torch-fp32"):
        score(app, items(1), pins={"length": ("bbbbbbbbbbbb", "torch-fp32")})
    with pytest.raises(PayloadTooLargeError):
        score(app, items(65), max_items_per_request=65)
    with pytest.raises(PayloadTooLargeError):
        score(app, [ScoreItem(response="x" * 300_000)])
    with pytest.raises(MissingFieldError):
        score(app, [ScoreItem(response="x")], ["relevance"])
    with pytest.raises(TooLongError):
        score(app, [ScoreItem(response="x" * 3000)], ["length"])
    with pytest.raises(ModelFailedError):
        score(app, [ScoreItem(response="~")], ["length"], retry=NO_RETRIES)


def test_a_body_over_the_limit_is_avoided_by_splitting(app: InProcess) -> None:
    asked = [ScoreItem(id=str(n), prompt="p" * 50_000, response="x") for n in range(10)]
    results = score(app, asked, ["length"], max_request_bytes=180_000)
    assert len(results) == 10


def test_the_service_is_told_the_deadline(app: InProcess) -> None:
    # The service gives up after 0.9 of 2 s, the client after all of it, the model after 3.2 s.
    with pytest.raises(DeadlineExceededError):
        score(app, [ScoreItem(response="^" * 8)], ["length"], timeout_s=2.0, retry=NO_RETRIES)


class Process:
    """The scripted service in a process of its own."""

    def __init__(self, port: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, str(SCRIPT), str(port)], env=environment)

    def kill(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(timeout=60)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def start(port: int) -> Iterator[Callable[[], Process]]:
    started: list[Process] = []

    def make() -> Process:
        started.append(Process(port))
        return started[-1]

    yield make
    for process in started:
        if process.process.poll() is None:
            process.kill(signal.SIGKILL)


def test_a_service_that_is_killed_and_started_again_is_survived(port: int, start: Callable[[], Process]) -> None:
    """Over a socket: it starts late, is killed at work, comes back, is asked to stop at work, and comes back again."""
    asked = items(50)
    slow = [ScoreItem(id=f"slow{n}", response="^" + "x" * n, fields={"question": "q"}) for n in range(12)]
    found: dict[str, list[ItemResult]] = {}
    with RewardClient(f"http://127.0.0.1:{port}", retry=PATIENT, pins=PINS, max_items_per_request=20) as client:
        first = start()
        check(asked, client.score(asked))
        for how in (signal.SIGKILL, signal.SIGTERM):
            at_work = threading.Thread(target=lambda: found.update(slow=client.score(slow, ["length"])))
            at_work.start()
            time.sleep(0.3)  # The requests are most likely at work by then; the result is the same if they are not.
            code = first.kill(how)
            assert code == (-signal.SIGKILL if how is signal.SIGKILL else 0)
            assert not client.ready()
            first = start()
            check(asked, client.score(asked))
            at_work.join(timeout=120)
            scores = [result.scores["length"].sequence_score for result in found.pop("slow")]
            assert scores == [float(3 + n) for n in range(12)]


def test_many_concurrent_callers_each_get_their_own_answers(port: int, start: Callable[[], Process]) -> None:
    start()
    asked = items(100)

    async def act() -> list[list[ItemResult]]:
        settings: dict[str, Any] = {"retry": PATIENT, "max_items_per_request": 1, "max_concurrency": 40}
        url = f"http://127.0.0.1:{port}"
        async with AsyncRewardClient(url, **settings) as one, AsyncRewardClient(url, **settings) as other:
            return list(await asyncio.gather(one.score(asked), other.score(asked[::-1])))

    forwards, backwards = asyncio.run(act())
    check(asked, forwards)
    check(asked[::-1], backwards)


def test_the_sync_client_with_threads(port: int, start: Callable[[], Process]) -> None:
    start()
    asked = items(90)
    url = f"http://127.0.0.1:{port}"
    with RewardClient(url, retry=PATIENT, max_items_per_request=4, max_concurrency=8) as client:
        check(asked, client.score(asked))
        assert len(client.take_latencies_s()) == 23
