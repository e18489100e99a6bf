"""What is being computed now, so that whoever asks for the same waits for it.

A computation goes on when the caller who began it leaves, as long as somebody else waits. Only callers of one training
job wait for each other: another job's input may stand far back in a queue that is shared fairly.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from reward_proto.errors import ErrorCode
from reward_service.core.source import SourceOutcome, or_late
from reward_service.domain import ItemScore, TextItem
from reward_service.errors import ServiceError

Results = tuple[ItemScore | ServiceError, ...]
"""What each head says of one item, or why it says nothing."""

OF_THE_CALLER = frozenset(
    {ErrorCode.DEADLINE_EXCEEDED, ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED, ErrorCode.DRAINING}
)
"""Errors that befell one caller, and need not befell another who asks for the same."""


@dataclass(slots=True, eq=False)
class Work:
    """Items that are asked for in one call.

    Attributes:
        job: Whose they are.
        items: By key.
        deadline_s: Of the caller who began it.
        answers: Results by key; None where nothing came that another caller could use.
        waiters: Callers who wait for any of them.
        hits: How many of them were on disk.
        task: Gives the results in the order of `items`.
    """

    job: str
    items: Mapping[bytes, TextItem]
    deadline_s: float | None
    answers: dict[bytes, "asyncio.Future[Results | None]"]
    waiters: int = 0
    hits: int = 0
    task: "asyncio.Task[SourceOutcome]" = field(init=False)

    def answer(self, key: bytes, results: Results) -> None:
        """Hand one item's results to those who wait for it."""
        future = self.answers[key]
        if not future.done():
            of_the_caller = any(isinstance(one, ServiceError) and one.code in OF_THE_CALLER for one in results)
            future.set_result(None if of_the_caller else results)


class InFlight:
    """Computations under way. For one event loop.

    Args:
        compute: Computes a work's items. What it answers early need not wait for the rest.
    """

    def __init__(self, compute: Callable[[Work], Awaitable[SourceOutcome]]) -> None:
        self._compute = compute
        self._works: dict[tuple[str, bytes], Work] = {}

    def find(self, job: str, key: bytes) -> Work | None:
        """The job's work that will give a key's results."""
        return self._works.get((job, key))

    def begin(self, job: str, items: Mapping[bytes, TextItem], deadline_s: float | None) -> Work:
        """Begin to compute items; whoever asks for one of them from now on may wait for it."""
        loop = asyncio.get_running_loop()
        work = Work(job, items, deadline_s, {key: loop.create_future() for key in items})
        self._works.update({(job, key): work for key in items})
        work.task = loop.create_task(self._run(work))
        return work

    def leave(self, works: Iterable[Work]) -> None:
        """A caller waits no longer; what nobody waits for ends."""
        for work in works:
            work.waiters -= 1
            if not work.waiters and not work.task.done():
                self._forget(work)
                work.task.cancel()

    async def _run(self, work: Work) -> SourceOutcome:
        try:
            outcome = await self._compute(work)
            for key, results in zip(work.items, outcome.results, strict=True):
                work.answer(key, results)
            return outcome
        finally:
            self._forget(work)
            for future in work.answers.values():
                if not future.done():
                    future.set_result(None)

    def _forget(self, work: Work) -> None:
        for key in work.items:
            if self._works.get((work.job, key)) is work:
                del self._works[work.job, key]


async def follow(works: Mapping[bytes, Work], heads: int, deadline_s: float | None) -> dict[bytes, Results | None]:
    """Wait for others' results.

    Args:
        works: By the key whose results are wanted.
        heads: Results of one item.
        deadline_s: Of the caller who waits, on the monotonic clock.

    Returns:
        Results by key; None for those that the caller must compute after all.
    """
    answers = {key: work.answers[key] for key, work in works.items()}
    await asyncio.wait(
        set(answers.values()), timeout=None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
    )
    late: Results = (or_late(None),) * heads
    return {key: answer.result() if answer.done() else late for key, answer in answers.items()}
