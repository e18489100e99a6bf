"""So many calls at a time, and in what order those that wait get theirs: by the jobs' shares, as batches do."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reward_service.core.fair_share import FairShare, JobPolicies


class FairSlots:
    """Slots for calls. Belongs to one event loop.

    Args:
        count: Calls that may be under way at a time.
        policies: Weights and priorities of the jobs.
    """

    def __init__(self, count: int, policies: JobPolicies) -> None:
        self._free = count
        self._fair = FairShare(policies)
        self._waiting: dict[str, deque[tuple[asyncio.Future[None], int]]] = {}

    @asynccontextmanager
    async def slot(self, job: str, items: int) -> AsyncIterator[None]:
        """Wait for a slot, and hold it.

        Args:
            job: The training job that asks.
            items: What the call counts, for the job's share.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job, deque()).append((turn, items))
        self._fair.arrive(job)
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # It was this one's turn in the same moment.
                self._give_back()
            raise
        try:
            yield
        finally:
            self._give_back()

    def _give_back(self) -> None:
        self._free += 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            job = self._fair.due()[0]
            turn, items = self._waiting[job].popleft()
            if not turn.cancelled():
                turn.set_result(None)
                self._free -= 1
                self._fair.charge(job, items)
            if not self._waiting[job]:
                del self._waiting[job]
                self._fair.leave(job)
