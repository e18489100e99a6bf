"""Rewards that read the text itself, not token ids: a remote API, a language model as judge, a function.

Each has a thread with an event loop of its own, so that code which blocks its loop blocks nobody else's. What one item
runs into stands in that item's place.
"""

import asyncio
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from reward_proto.score import Granularity
from reward_service.core.fair_share import JobPolicies
from reward_service.core.fair_slots import FairSlots
from reward_service.core.queue_room import QueueRoom
from reward_service.core.source import SourceOutcome, check_deadline, or_late, refuse_all, spans_for
from reward_service.core.telemetry import BatchReport, Telemetry
from reward_service.core.text_reward import Result, TextReward, ask
from reward_service.domain import ItemScore, ModelCard, Segmented, TextItem
from reward_service.errors import (
    ModelFailedError,
    OverloadedError,
    PayloadTooLargeError,
    RateLimitedError,
    ServiceError,
)

DURATION_SMOOTHING = 0.2
"""Weight of the newest call in the moving average of an item's duration."""


@dataclass(slots=True)
class _Request:
    """One request, as its scores come in."""

    deadline_s: float | None
    job: str
    results: list[Result | None]
    tokenize_s: float = 0.0
    queue_s: float = 0.0
    inference_s: float = 0.0
    enqueued_s: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Group:
    """Responses of one request that are scored in one call, with their places in it."""

    request: _Request
    places: list[int]
    responses: list[Segmented]
    waits: bool = True


class TextSource:
    """Serves one `TextReward` as one named model. Its `score` may be called on any event loop.

    Args:
        card: The model.
        reward: Gives the scores; closed with the source.
        concurrency: Calls of the reward that may be under way at a time.
        batch_items: Responses of one call. One that fails is made again for each response alone.
        max_queue_items: Items that may wait for their call; see `core.queue_room` for several jobs.
        telemetry: Is told of each call.
        policies: Weights, priorities and bounds of the jobs; all alike if None.
    """

    def __init__(
        self,
        card: ModelCard,
        reward: TextReward,
        *,
        concurrency: int,
        batch_items: int = 1,
        max_queue_items: int,
        telemetry: Telemetry,
        policies: JobPolicies | None = None,
    ) -> None:
        policies = policies or JobPolicies()
        self.cards = (card,)
        self._card = card
        self._reward = reward
        self._concurrency = concurrency
        self._batch_items = batch_items
        self._telemetry = telemetry
        # An item counts as one token: what the texts cost is not known.
        self._room = QueueRoom(max_queue_items, max_queue_items, policies)
        self._item_s = 0.0
        self._closing = False
        self._slots = FairSlots(concurrency, policies)
        self._stop = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"text-{card.name}", daemon=True)

    @property
    def name(self) -> str:
        """See `core.source.ScoreSource`."""
        return self._card.name

    @property
    def alive(self) -> bool:
        """Whether its loop runs. Whether a remote service answers is told by its scores, never asked here."""
        return self._thread.is_alive() and not self._closing

    @property
    def queue_items(self) -> int:
        """See `core.source.ScoreSource`."""
        return self._room.items

    @property
    def queue_tokens(self) -> int:
        """No tokens are counted here."""
        return 0

    @property
    def estimated_wait_s(self) -> float:
        """See `core.source.ScoreSource`."""
        return self._room.items * self._item_s / self._concurrency

    def start(self) -> None:
        """See `core.source.ScoreSource`."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """End the calls under way and the thread; what still waits fails."""
        self._closing = True
        if self._thread.ident is None:
            self._loop.run_until_complete(self._reward.close())
            self._loop.close()
        elif self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout_s)

    async def score(self, items: Sequence[TextItem], deadline_s: float | None, job: str = "") -> SourceOutcome:
        """See `core.source.ScoreSource`."""
        if not self.alive:
            return SourceOutcome(((self._ended(),),) * len(items))
        work = asyncio.run_coroutine_threadsafe(self._score(items, deadline_s, job), self._loop)
        # A caller that leaves cancels its own calls with it.
        return await asyncio.wrap_future(work)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._until_stopped())
        finally:
            self._loop.close()

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        while calls := set(self._calls):
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        # The requests of these calls still hand over what they have.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await self._reward.close()

    async def _score(self, items: Sequence[TextItem], deadline_s: float | None, job: str) -> SourceOutcome:
        try:
            check_deadline(self.name, self._wait_s(job, len(items)), deadline_s)
        except ServiceError as error:
            return refuse_all(error, len(items), 1)
        request = _Request(deadline_s, job, [None] * len(items))
        groups = self._grouped(request, self._segmented(request, items))
        waiting = sum(len(group.places) for group in groups)
        if waiting and (refusal := self._refusal(job, waiting)) is not None:
            for group in groups:
                self._settle(group, [refusal] * len(group.places))
            groups = []
        for group in groups:
            self._room.add(job, len(group.places), len(group.places))
        tasks = [self._loop.create_task(self._call(group)) for group in groups]
        self._calls.update(tasks)
        for task in tasks:
            task.add_done_callback(self._calls.discard)
        try:
            await asyncio.gather(*tasks)
        finally:
            for group in groups:  # A call that was cancelled before its first step has not done it.
                self._leaves_queue(group)
        return SourceOutcome(
            results=tuple((or_late(result),) for result in request.results),
            tokenize_s=request.tokenize_s,
            queue_s=request.queue_s,
            inference_s=request.inference_s,
        )

    def _segmented(self, request: _Request, items: Sequence[TextItem]) -> list[tuple[int, Segmented]]:
        """The items that need a call, with their places; the others are settled."""
        begin_s = time.monotonic()
        segmented = []
        for place, item in enumerate(items):
            try:
                spans = spans_for(self._card, item)
            except ServiceError as error:
                request.results[place] = error
                continue
            if not spans and self._card.granularity is not Granularity.SEQUENCE:
                request.results[place] = ItemScore((), None)
            else:
                segmented.append((place, Segmented(item, spans)))
        request.tokenize_s = time.monotonic() - begin_s
        self._telemetry.encoded(self.name, request.tokenize_s, 0)
        return segmented

    def _grouped(self, request: _Request, segmented: Sequence[tuple[int, Segmented]]) -> list[_Group]:
        size = self._batch_items
        chunks = [segmented[first : first + size] for first in range(0, len(segmented), size)]
        return [_Group(request, [place for place, _ in chunk], [one for _, one in chunk]) for chunk in chunks]

    def _refusal(self, job: str, items: int) -> ServiceError | None:
        if self._closing:
            return self._ended()
        try:
            self._room.check(job, items, items)
        except (OverloadedError, RateLimitedError) as error:
            error.retry_after_s = self._wait_s(job, items)
            error.details.setdefault("model", self.name)
            return error
        except PayloadTooLargeError as error:
            return error
        return None

    def _wait_s(self, job: str, items: int) -> float:
        """How long a job's further items wait for what is before them, at its share."""
        before = self._room.tokens_until_done(job, items) - items
        return before * self._item_s / self._concurrency

    async def _call(self, group: _Group) -> None:
        """Wait for a slot, call the reward, settle the group's places; late ones are left empty."""
        timeout = asyncio.timeout_at(group.request.deadline_s)  # The loop's clock is the monotonic one.
        try:
            async with timeout, self._slots.slot(group.request.job, len(group.places)):
                self._leaves_queue(group)
                await self._score_group(group)
        except TimeoutError:
            # Only its own: the reward's exceptions do not come up to here.
            pass
        except asyncio.CancelledError:
            if not self._closing:
                raise
            self._settle(group, [self._ended()] * len(group.places))
        finally:
            self._leaves_queue(group)

    def _leaves_queue(self, group: _Group) -> None:
        if group.waits:
            group.waits = False
            self._room.remove(group.request.job, len(group.places), len(group.places))

    async def _score_group(self, group: _Group) -> None:
        begin_s = time.monotonic()
        waited_s = begin_s - group.request.enqueued_s
        results = await ask(self._reward, self._card, group.responses)
        took_s = time.monotonic() - begin_s
        self._settle(group, results)
        group.request.queue_s = max(group.request.queue_s, waited_s)
        group.request.inference_s = max(group.request.inference_s, took_s)
        item_s = took_s / len(results)
        self._item_s += (item_s - self._item_s) * (DURATION_SMOOTHING if self._item_s else 1.0)
        self._telemetry.batch_done(
            BatchReport(
                model=self.name,
                items=len(results),
                real_tokens=0,
                padded_tokens=0,
                inference_s=took_s,
                queue_s=(waited_s,) * len(results),
                scores=((self.name, tuple(_sequence_scores(results))),),
            )
        )

    def _settle(self, group: _Group, results: Sequence[Result]) -> None:
        for place, result in zip(group.places, results, strict=True):
            group.request.results[place] = result

    def _ended(self) -> ModelFailedError:
        return ModelFailedError(f"model {self.name!r} has ended")


def _sequence_scores(results: Iterable[Result]) -> Iterable[float]:
    return (r.sequence_score for r in results if isinstance(r, ItemScore) and r.sequence_score is not None)
