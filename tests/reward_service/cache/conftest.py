"""A source whose scores are told by hand and whose calls are seen, and a cache around it."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.cache.cached_source import CachedSource
from reward_service.cache.disk_store import DiskStore
from reward_service.cache.key import KeyMaker
from reward_service.cache.memory_store import MemoryStore
from reward_service.cache.score_cache import ScoreCache
from reward_service.core.source import SourceOutcome
from reward_service.domain import Head, ItemScore, ModelCard, ScoredSpan, Span, TextItem
from reward_service.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelFailedError,
    OverloadedError,
    ServiceError,
)

TIMEOUT_S = 20.0
HEAD = Head(ModelKind.TOKEN_CLASSIFICATION, ("ok", "bad"), "ok")
CARDS = tuple(
    ModelCard(name, "0" * 12, "0" * 64, ("latest",), HEAD, Granularity.SENTENCE, "en", "{prompt}", 99, "fake-fp32")
    for name in ("one", "two")
)
ERRORS: dict[str, ServiceError] = {
    "failing": ModelFailedError("no score"),
    "full": OverloadedError("the queue is full", retry_after_s=1.0),
    "wrong": InvalidRequestError("cannot be meant"),
}


def scores_of(item: TextItem) -> tuple[ItemScore | ServiceError, ...]:
    """By two heads: made of every part of the item; responses named in `ERRORS` fail, `half` for one head."""
    if item.response in ERRORS:
        return (ERRORS[item.response],) * 2
    spans = item.segments.get(Granularity.SENTENCE, (Span(0, len(item.response)),))
    number = hash_of(item) / 7
    scored = tuple(ScoredSpan(span, number + place, "ok", (number, -0.0)) for place, span in enumerate(spans))
    first = ItemScore(scored, number, len(item.prompt))
    return first, ERRORS["failing"] if item.response == "half" else ItemScore((), None)


def hash_of(item: TextItem) -> int:
    text = repr((item.prompt, item.response, sorted(item.fields.items()), item.segments.get(Granularity.SENTENCE)))
    return sum(ord(character) * (place + 1) for place, character in enumerate(text))


class Inner:
    """Gives `scores_of` once `gate` is open, or `DeadlineExceededError` at the deadline; 10 tokens an item."""

    name = "inner"
    alive = True
    queue_items = 3
    queue_tokens = 7
    estimated_wait_s = 0.5

    def __init__(self) -> None:
        self.cards = CARDS
        self.asked: list[list[str]] = []
        self.calls: list[tuple[float | None, str]] = []
        self.cancelled = 0
        self.events: list[str] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def start(self) -> None:
        self.events.append("start")

    def close(self, timeout_s: float) -> None:
        self.events.append(f"close {timeout_s}")

    async def score(self, items: Sequence[TextItem], deadline_s: float | None, job: str = "") -> SourceOutcome:
        self.asked.append([item.response for item in items])
        self.calls.append((deadline_s, job))
        try:
            async with asyncio.timeout(None if deadline_s is None else deadline_s - time.monotonic()):
                await self.gate.wait()
        except TimeoutError:
            return SourceOutcome(((DeadlineExceededError("late"),) * 2,) * len(items))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        results = tuple(scores_of(item) for item in items)
        return SourceOutcome(results, 10 * len(items), 16 * len(items), 0.1, 0.2, 0.3)


class Telemetry:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self._lock = threading.Lock()

    def cache_requests(self, model: str, *, hits: int, misses: int, coalesced: int) -> None:
        assert model == "inner"
        self.results.update({"hit": hits, "miss": misses, "coalesced": coalesced})

    def disk_event(self, event: str, count: int) -> None:
        with self._lock:
            self.events[event] += count

    @property
    def counts(self) -> tuple[int, int, int]:
        """Hits, misses, coalesced."""
        return self.results["hit"], self.results["miss"], self.results["coalesced"]


class CacheRig:
    """A cached source over `Inner`."""

    def __init__(self, memory_bytes: int, path: Path | None, items_per_call: int | None) -> None:
        self.telemetry = Telemetry()
        self.inner = Inner()
        self.disk = None if path is None else DiskStore(path, 100 * 1024 * 1024, self.telemetry)
        self.cache = ScoreCache(MemoryStore(memory_bytes), self.disk, self.telemetry)
        self.source = CachedSource(self.inner, self.cache, KeyMaker(CARDS), items_per_call)

    async def until_asked(self, calls: int) -> None:
        """Wait until the inner source got so many calls."""
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.inner.asked) < calls:
                await asyncio.sleep(0.001)


@pytest.fixture
def make_rig() -> Iterator[Callable[..., CacheRig]]:
    """Builds rigs that are closed after the test."""
    made: list[CacheRig] = []

    def make(memory_bytes: int = 10**6, path: Path | None = None, items_per_call: int | None = None) -> CacheRig:
        made.append(CacheRig(memory_bytes, path, items_per_call))
        return made[-1]

    yield make
    for rig in made:
        rig.cache.close(TIMEOUT_S)


@pytest.fixture
def run() -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Runs coroutines, all on one loop."""
    with asyncio.Runner() as runner:

        async def wait_for(work: Awaitable[Any]) -> Any:
            async with asyncio.timeout(TIMEOUT_S):
                return await work

        yield lambda work: runner.run(wait_for(work))


@pytest.fixture(name="scores_of")
def _scores_of() -> Callable[[TextItem], Any]:
    return scores_of
