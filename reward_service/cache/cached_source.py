"""A source that computes a score once: known ones are found, those under way waited for, the rest asked for."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from reward_service.cache.codec import encode_scores
from reward_service.cache.in_flight import InFlight, Results, Work, follow
from reward_service.cache.key import KeyMaker
from reward_service.cache.score_cache import DISK_PATIENCE_S, ScoreCache, Scores
from reward_service.core.source import ScoreSource, SourceOutcome, WrappingSource
from reward_service.domain import ItemScore, TextItem

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Answered:
    """What came for the items that were not in memory.

    Attributes:
        results: By key.
        costs: Of each call, without results.
        hits: How many were on disk.
        coalesced: How many another caller's work gave.
    """

    results: dict[bytes, Results] = field(default_factory=dict)
    costs: list[SourceOutcome] = field(default_factory=list)
    hits: int = 0
    coalesced: int = 0


class CachedSource(WrappingSource):
    """Answers from a cache what it can, and asks the inner source for the rest. Its coroutines belong to one loop.

    Errors are not kept. A cached score costs no place in the inner source's queue, no token and no quota.

    Args:
        inner: Computes scores.
        cache: Where they are kept; shared with other sources, and closed by whoever made it.
        keys: Makes the keys of this source's scores.
        items_per_call: Of the inner source; all of a request's if None. With few, what is there before the last item
            is kept even if the caller leaves; with all, they are batched together.
    """

    def __init__(
        self, inner: ScoreSource, cache: ScoreCache, keys: KeyMaker, items_per_call: int | None = None
    ) -> None:
        super().__init__(inner)
        self._cache = cache
        self._keys = keys
        self._items_per_call = items_per_call
        self._heads = len(inner.cards)
        self._in_flight = InFlight(self._compute)

    @property
    def inner(self) -> ScoreSource:
        """What computes the scores."""
        return self._inner

    async def score(self, items: Sequence[TextItem], deadline_s: float | None, job: str = "") -> SourceOutcome:
        """See `core.source.ScoreSource`. Of the same item several times in one call, one is computed."""
        keys = [self._keys.make(item) for item in items]
        found: dict[bytes, Results] = {}
        wanted: dict[bytes, TextItem] = {}
        for key, item in zip(keys, items, strict=True):
            if key in found or key in wanted:
                continue
            if (scores := self._cache.find(key, self._heads)) is None:
                wanted[key] = item
            else:
                found[key] = scores
        hits = sum(key in found for key in keys)
        answered = await self._ask(wanted, deadline_s, job) if wanted else _Answered()
        found |= answered.results
        twice = len(items) - hits - len(wanted)
        self._cache.telemetry.cache_requests(
            self.name,
            hits=hits + answered.hits,
            misses=len(wanted) - answered.hits - answered.coalesced,
            coalesced=answered.coalesced + twice,
        )
        return _sum_up(tuple(found[key] for key in keys), answered.costs)

    async def _ask(
        self, wanted: Mapping[bytes, TextItem], deadline_s: float | None, job: str, *, may_follow: bool = True
    ) -> _Answered:
        """Wait for what is under way, and have the rest computed."""
        followed: dict[bytes, Work] = {}
        led: dict[bytes, TextItem] = {}
        for key, item in wanted.items():
            work = self._in_flight.find(job, key) if may_follow else None
            if work is None:
                led[key] = item
            else:
                followed[key] = work
        own = [self._in_flight.begin(job, some, deadline_s) for some in _chunks(led, self._items_per_call)]
        works = {*own, *followed.values()}
        for work in works:
            work.waiters += 1
        answered = _Answered()
        try:
            if followed:
                following = self._follow(answered, followed, wanted, deadline_s, job)
                await asyncio.gather(self._lead(answered, own), following)
            else:  # As nearly always. A task each takes time.
                await self._lead(answered, own)
        finally:
            self._in_flight.leave(works)
        return answered

    async def _lead(self, answered: _Answered, own: Sequence[Work]) -> None:
        # Whoever leaves takes nothing with it that others wait for.
        shielded = [asyncio.shield(work.task) for work in own]
        outcomes = [await shielded[0]] if len(own) == 1 else await asyncio.gather(*shielded)
        for work, outcome in zip(own, outcomes, strict=True):
            answered.results.update(zip(work.items, outcome.results, strict=True))
            answered.costs.append(outcome)
            answered.hits += work.hits

    async def _follow(
        self,
        answered: _Answered,
        followed: Mapping[bytes, Work],
        wanted: Mapping[bytes, TextItem],
        deadline_s: float | None,
        job: str,
    ) -> None:
        begin_s = time.monotonic()
        shared = await follow(followed, self._heads, deadline_s)
        answered.costs.append(SourceOutcome((), queue_s=time.monotonic() - begin_s))
        given = {key: results for key, results in shared.items() if results is not None}
        answered.results |= given
        answered.coalesced += len(given)
        left = {key: wanted[key] for key in shared if key not in given}
        if left:
            rest = await self._ask(left, deadline_s, job, may_follow=False)
            answered.results |= rest.results
            answered.costs += rest.costs
            answered.hits += rest.hits

    async def _compute(self, work: Work) -> SourceOutcome:
        """Look on disk, have the inner source compute what is not there, and keep it."""
        results: dict[bytes, Results] = {}
        if self._cache.has_disk:
            patience_s = DISK_PATIENCE_S if work.deadline_s is None else work.deadline_s - time.monotonic()
            results.update(await self._cache.find_on_disk(list(work.items), self._heads, max(0.0, patience_s)))
            work.hits = len(results)
            for key, scores in results.items():
                work.answer(key, scores)
        left = {key: item for key, item in work.items.items() if key not in results}
        costs = []
        if left:
            outcome = await self._inner.score(list(left.values()), work.deadline_s, work.job)
            costs.append(outcome)
            for key, of_item in zip(left, outcome.results, strict=True):
                results[key] = of_item
                self._keep(key, of_item)
        return _sum_up(tuple(results[key] for key in work.items), costs)

    def _keep(self, key: bytes, results: Results) -> None:
        scores: Scores = tuple(result for result in results if isinstance(result, ItemScore))
        if len(scores) < len(results):
            return
        try:
            self._cache.keep(key, encode_scores(scores))
        except (TypeError, ValueError):
            logger.warning("model %s: a score that cannot be written down is not kept", self.name, exc_info=True)


def _chunks(items: Mapping[bytes, TextItem], size: int | None) -> Iterable[dict[bytes, TextItem]]:
    rest = iter(items.items())
    while chunk := dict(islice(rest, size)):
        yield chunk


def _sum_up(results: tuple[Results, ...], costs: Sequence[SourceOutcome]) -> SourceOutcome:
    return SourceOutcome(
        results=results,
        input_tokens=sum(cost.input_tokens for cost in costs),
        padded_tokens=sum(cost.padded_tokens for cost in costs),
        tokenize_s=max((cost.tokenize_s for cost in costs), default=0.0),
        queue_s=max((cost.queue_s for cost in costs), default=0.0),
        inference_s=max((cost.inference_s for cost in costs), default=0.0),
    )
