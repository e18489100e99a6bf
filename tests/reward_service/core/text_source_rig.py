"""A source over a reward that is told by the texts what to do, and that a test may hold."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.source import SourceOutcome
from reward_service.core.text_reward import Result
from reward_service.core.text_source import TextSource
from reward_service.domain import Head, ItemScore, ModelCard, ScoredSpan, Segmented, TextItem
from reward_service.errors import ServiceError, TooLongError
from reward_service.request_labels import RequestLabels, current_request
from tests.reward_service.core.telemetry import Telemetry

TIMEOUT_S = 20.0


class Reward:
    """A segment's score is 1 / (its characters); what a response says decides what goes wrong."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.under_way = 0
        self.most_under_way = 0
        self.cancelled = 0
        self.closed = False
        self.released = threading.Event()
        self.thread: threading.Thread | None = None
        self.request: RequestLabels | None = None

    async def score(self, responses: Sequence[Segmented]) -> Sequence[Result]:
        self.thread = threading.current_thread()
        self.request = current_request.get()
        self.calls.append([one.item.response for one in responses])
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            while any("hold" in one.item.response for one in responses) and not self.released.is_set():
                await asyncio.sleep(0.001)
            return [self._score(one) for one in responses][: 0 if "lose" in responses[0].item.response else None]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1

    def _score(self, one: Segmented) -> Result:
        text = one.item.response
        if "raise" in text:
            raise ZeroDivisionError("secret detail")
        if "exit" in text:
            raise SystemExit(3)
        if "late" in text:
            raise TimeoutError
        if "long" in text:
            return TooLongError("too long")
        segments = [
            ScoredSpan(span, math.nan if "nan" in text else 1 / (span.end - span.start), None, ()) for span in one.spans
        ]
        return ItemScore(tuple(segments), sum(one.score for one in segments) if segments else 0.25)

    async def close(self) -> None:
        self.closed = True


class Rig:
    def __init__(self, granularity: Granularity = Granularity.SENTENCE, **options: int) -> None:
        self.reward = Reward()
        self.telemetry = Telemetry()
        head = Head(ModelKind.SEQUENCE_REGRESSION)
        card = ModelCard("mine", "v", "v", (), head, granularity, "en", "", 0, "python")
        given: dict[str, Any] = {"concurrency": 2, "max_queue_items": 100, **options}
        self.source = TextSource(card, self.reward, telemetry=self.telemetry, **given)
        self.source.start()

    async def score(self, *texts: str, timeout_s: float | None = None, job: str = "") -> SourceOutcome:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        return await self.source.score([TextItem("", text) for text in texts], deadline_s, job)

    def results(self, *texts: str) -> list[Result]:
        return only(asyncio.run(self.score(*texts)))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():
                await asyncio.sleep(0.001)

    def close(self) -> None:
        self.reward.released.set()
        self.source.close(TIMEOUT_S)
        assert not self.source.alive


def only(outcome: SourceOutcome) -> list[Result]:
    return [result for (result,) in outcome.results]


def codes(results: Sequence[Result]) -> list[str]:
    return [result.code if isinstance(result, ServiceError) else "score" for result in results]
