"""How much may wait in a queue, of one job and of all.

A job that floods the queue must not shut the others out. So while the queue is full, a job that has less than its share
of the room is still let in, up to twice the room for all jobs together. So is one that has nothing there, however small
its share: what it asks for at once may be more than that, and would else never find room.
"""

from collections import Counter

from reward_service.core.fair_share import JobPolicies
from reward_service.errors import OverloadedError, PayloadTooLargeError, RateLimitedError

HARD_LIMIT = 2
"""Times the room that all jobs together may fill."""


class QueueRoom:
    """Counts what waits and what places are kept. Not safe to use from several threads; the queue that owns it is.

    Args:
        max_items: Items that one job may have waiting while no other has; places that are kept count.
        max_tokens: Their real tokens.
        policies: Weights, and bounds of single jobs.
    """

    def __init__(self, max_items: int, max_tokens: int, policies: JobPolicies) -> None:
        self._max_items = max_items
        self._max_tokens = max_tokens
        self._policies = policies
        self._items: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self.items = 0
        self.tokens = 0
        self._all_reserved = 0

    def reserve(self, job: str, items: int) -> None:
        """Keep places."""
        self._reserved[job] += items
        self._all_reserved += items

    def release(self, job: str, items: int) -> None:
        """Give places back."""
        self._reserved[job] -= items
        self._all_reserved -= items
        if self._reserved[job] <= 0:
            del self._reserved[job]

    def add(self, job: str, items: int, tokens: int) -> None:
        """Items wait."""
        self._items[job] += items
        self._tokens[job] += tokens
        self.items += items
        self.tokens += tokens

    def remove(self, job: str, items: int, tokens: int) -> None:
        """Items wait no more."""
        self._items[job] -= items
        self._tokens[job] -= tokens
        self.items -= items
        self.tokens -= tokens
        if self._items[job] <= 0:
            del self._items[job], self._tokens[job]

    def check(self, job: str, items: int, tokens: int) -> None:
        """Tell whether items find room.

        Raises:
            PayloadTooLargeError: Not even in an empty queue.
            RateLimitedError: The job has as many waiting as it may have.
            OverloadedError: Not now.
        """
        own_bound = self._policies.of(job).max_queue_items
        if items > self._max_items or tokens > self._max_tokens:
            raise PayloadTooLargeError(
                f"{items} items of {tokens} tokens are more than the queue holds",
                max_items=self._max_items,
                max_tokens=self._max_tokens,
            )
        has_none = not (self._items[job] or self._reserved[job])
        own_items = self._items[job] + self._reserved[job] + items
        if own_bound is not None and own_items > own_bound:
            if items > own_bound:
                raise PayloadTooLargeError(f"{items} items are more than this job may queue", max_items=own_bound)
            raise RateLimitedError(
                f"this job may have {own_bound} items waiting", queue_items=self._items[job], max_items=own_bound
            )
        share = 1.0 if has_none else self._share(job)
        total_items = self.items + self._all_reserved + items
        own_tokens = self._tokens[job] + tokens
        if not (
            _fits(total_items, own_items, self._max_items, share)
            and _fits(self.tokens + tokens, own_tokens, self._max_tokens, share)
        ):
            raise OverloadedError("the queue is full", queue_items=self.items, queue_tokens=self.tokens)

    def tokens_until_done(self, job: str, tokens: int) -> float:
        """See `core.token_queue.TokenQueue.tokens_until_done`."""
        policy = self._policies.of(job)
        own = self._tokens[job] + tokens
        total = float(own)
        for other, theirs in self._tokens.items():
            if other == job:
                continue
            other_policy = self._policies.of(other)
            if other_policy.priority > policy.priority:
                total += theirs
            elif other_policy.priority == policy.priority:
                total += min(theirs, own * other_policy.weight / policy.weight)
        return total

    def _share(self, job: str) -> float:
        """A job's share of the room, among those that have something in it."""
        jobs = {*self._items, *self._reserved, job}
        return self._policies.of(job).weight / sum(self._policies.of(other).weight for other in jobs)


def _fits(total: int, own: int, room: int, share: float) -> bool:
    return total <= room or (own <= share * room and total <= HARD_LIMIT * room)
