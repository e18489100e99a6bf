"""Which items run together, and how many may wait: policy only, it knows nothing of models or callers.

There is no timer. Items gather while the backend is busy, so a batch is as large as the load makes it and an idle
service answers at once.

Source: the padded-token cost and skipping of callers who left follow huggingface/text-embeddings-inference's queue;
the length sort inside a bounded window follows michaelfeil/infinity's.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from reward_service.errors import OverloadedError, PayloadTooLargeError

WINDOW_ITEMS = 512
"""How many of the oldest items a batch may be chosen from; it bounds the cost of a choice."""


class Waiting(Protocol):
    """What the queue must know of an item."""

    @property
    def length_tokens(self) -> int:
        """Real tokens of the item."""
        ...

    def is_abandoned(self, now_s: float) -> bool:
        """Whether nobody waits for it any more."""
        ...


W = TypeVar("W", bound=Waiting)


class TokenQueue(Generic[W]):
    """A bounded queue that gives out batches within a padded-token budget. Safe to use from several threads.

    Args:
        max_items: Items that may wait.
        max_tokens: Real tokens that may wait.
        max_batch_tokens: Padded tokens of one batch: longest item x number of items. A longer item runs alone.
        max_padding: Share of a batch's tokens that may be padding, in [0, 1).
        clock: Seconds; the clock that deadlines are told by.
    """

    def __init__(
        self,
        *,
        max_items: int,
        max_tokens: int,
        max_batch_tokens: int,
        max_padding: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_items = max_items
        self._max_tokens = max_tokens
        self._max_batch_tokens = max_batch_tokens
        self._max_padding = max_padding
        self._clock = clock
        self._waiting: deque[W] = deque()
        self._tokens = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def items(self) -> int:
        """Items that wait."""
        return len(self._waiting)

    @property
    def tokens(self) -> int:
        """Real tokens that wait."""
        return self._tokens

    def put(self, entries: Sequence[W]) -> None:
        """Add all the entries or none of them: what one caller sends together is batched together.

        Raises:
            OverloadedError: They do not fit now.
            PayloadTooLargeError: They would not fit into an empty queue either.
            RuntimeError: The queue is closed.
        """
        tokens = sum(entry.length_tokens for entry in entries)
        if len(entries) > self._max_items or tokens > self._max_tokens:
            raise PayloadTooLargeError(
                f"{len(entries)} items of {tokens} tokens are more than the queue holds",
                max_items=self._max_items,
                max_tokens=self._max_tokens,
            )
        with self._changed:
            if self._closed:
                raise RuntimeError("the queue is closed")
            if not self._fits(len(entries), tokens):
                self._drop_abandoned()
            if not self._fits(len(entries), tokens):
                raise OverloadedError("the queue is full", queue_items=self.items, queue_tokens=self.tokens)
            self._waiting.extend(entries)
            self._tokens += tokens
            self._changed.notify()

    def take(self) -> list[W]:
        """Wait for the next batch, longest item first.

        Returns:
            At least one entry whose caller still waits; nothing once the queue is closed.
        """
        with self._changed:
            while True:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return []
                self._drop_abandoned()
                if self._waiting:
                    return self._take_batch()

    def close(self) -> list[W]:
        """Refuse new entries and wake the taker.

        Returns:
            The entries that nobody will run.
        """
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._tokens = 0
            self._changed.notify_all()
        return left

    def _fits(self, items: int, tokens: int) -> bool:
        return self.items + items <= self._max_items and self._tokens + tokens <= self._max_tokens

    def _drop_abandoned(self) -> None:
        now_s = self._clock()
        kept = [entry for entry in self._waiting if not entry.is_abandoned(now_s)]
        if len(kept) < len(self._waiting):
            self._waiting = deque(kept)
            self._tokens = sum(entry.length_tokens for entry in kept)

    def _take_batch(self) -> list[W]:
        window = [self._waiting.popleft() for _ in range(min(WINDOW_ITEMS, len(self._waiting)))]
        lengths = [entry.length_tokens for entry in window]
        chosen = choose_batch(lengths, self._max_batch_tokens, self._max_padding)
        taken = set(chosen)
        self._waiting.extendleft(entry for i, entry in reversed(list(enumerate(window))) if i not in taken)
        self._tokens -= sum(lengths[i] for i in chosen)
        return [window[i] for i in chosen]


def choose_batch(lengths: Sequence[int], max_batch_tokens: int, max_padding: float) -> list[int]:
    """Choose the items to run with the oldest one: its neighbours in length, as long as budget and padding allow.

    The oldest item is always in the batch, so an item waits for at most as many batches as there are items before it.

    Args:
        lengths: Real tokens of the waiting items, oldest first; at least one.
        max_batch_tokens: Bound on longest x number of items. The oldest item is taken even if it is longer.
        max_padding: Bound on the share of padding in longest x number of items, in [0, 1).

    Returns:
        Indices into `lengths`, longest item first; equal lengths in order of arrival.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    first = order.index(0)
    last = first + 1  # order[first:last] is the batch
    real = lengths[0]
    while True:
        count = last - first + 1
        # (padded tokens, real tokens, grows to the longer side) of each possible next batch.
        options = []
        if first > 0:
            longer = lengths[order[first - 1]]
            options.append((longer * count, real + longer, True))
        if last < len(order):
            options.append((lengths[order[first]] * count, real + lengths[order[last]], False))
        allowed = [
            (padded - tokens, grows_longer, tokens)
            for padded, tokens, grows_longer in options
            if padded <= max_batch_tokens and padded - tokens <= max_padding * padded
        ]
        if not allowed:
            return order[first:last]
        _, grows_longer, real = min(allowed)
        first, last = (first - 1, last) if grows_longer else (first, last + 1)
