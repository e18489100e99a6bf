"""Which items run together, and how many may wait: policy only, it knows nothing of models or callers.

There is no timer. Items gather while the backend is busy, so a batch is as large as the load makes it and an idle
service answers at once. Jobs take turns by the padded tokens that they use (`core.fair_share`): the job whose turn it
is gives the batch its first item, and items of like length fill it, whosever they are.

Source: the padded-token cost and skipping of callers who left follow huggingface/text-embeddings-inference's queue;
the length sort inside a bounded window follows michaelfeil/infinity's.
"""

import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from math import ceil
from typing import Generic

from reward_service.core.batch_choice import choose_batch
from reward_service.core.fair_share import FairShare, JobPolicies
from reward_service.core.queue_room import QueueRoom
from reward_service.core.takers import Takers
from reward_service.core.waiting import Lines, W
from reward_service.errors import OverloadedError

WINDOW_ITEMS = 512
"""How many of the items that are due first a batch may be chosen from; it bounds the cost of a choice."""

WINDOW_BATCHES = 32
"""How many batches' worth of tokens it may be chosen from: the shorter the batches, the more often one is chosen."""

CONTENTION_S = 10.0
"""For so long after two jobs have sent items in turn, batches are kept short, so that neither waits long."""


class TokenQueue(Generic[W]):
    """A bounded queue that gives out batches within a padded-token budget. Safe to use from several threads.

    Args:
        max_items: Items that may wait; see `core.queue_room` for several jobs.
        max_tokens: Real tokens that may wait.
        max_batch_tokens: Padded tokens of one batch: longest item x number of items. A longer item runs alone.
        max_padding: Share of a batch's tokens that may be padding, in [0, 1); more where that costs less than another
            batch.
        policies: Weights and bounds of the jobs; all alike if None.
        clock: Seconds; the clock that deadlines are told by.
    """

    def __init__(
        self,
        *,
        max_items: int,
        max_tokens: int,
        max_batch_tokens: int,
        max_padding: float,
        policies: JobPolicies | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.short_batch_tokens: int | None = None
        """Bound on a batch's padded tokens while jobs contend; set by what has measured the backend."""
        self.overhead_tokens = 0.0
        """What a batch costs beside its tokens, in the time of one; set by the same."""
        self.takers = 1
        """How many take batches side by side, among whom what waits is divided where it is less than a batch for each.
        A part is `1 / takers` of what is left, so that they end together (guided self-scheduling, Polychronopoulos and
        Kuck 1987), but no smaller than what it costs to begin one."""
        self._max_batch_tokens = max_batch_tokens
        self._max_padding = max_padding
        self._clock = clock
        self._policies = policies or JobPolicies()
        self._fair = FairShare(self._policies)
        self._room = QueueRoom(max_items, max_tokens, self._policies)
        self._lines: Lines[W] = Lines()
        self._last_job = ""
        self._contended_until_s = float("-inf")
        self._closed = False
        self._lock = threading.Lock()
        self._takers = Takers(self._lock, lambda: bool(self._lines))

    @property
    def items(self) -> int:
        """Items that wait."""
        return self._room.items

    @property
    def tokens(self) -> int:
        """Real tokens that wait."""
        return self._room.tokens

    @property
    def batch_tokens(self) -> int:
        """Bound on the padded tokens of a batch as things are; a longer item runs alone."""
        is_contended = self._clock() < self._contended_until_s or len(self._lines) > 1
        short = self.short_batch_tokens if is_contended else None
        return self._max_batch_tokens if short is None else min(short, self._max_batch_tokens)

    def reserve(self, job: str, items: int) -> None:
        """Keep places for items that are being prepared.

        Raises:
            OverloadedError: They do not fit now.
            RateLimitedError: The job has as many waiting as it may have.
            PayloadTooLargeError: They would not fit into an empty queue either.
        """
        with self._lock:
            self._check_room(job, items, 0)
            self._room.reserve(job, items)

    def release(self, job: str, items: int) -> None:
        """Give back places that were kept."""
        with self._lock:
            self._room.release(job, items)

    def put(self, entries: Sequence[W], reserved: int = 0) -> None:
        """Add all the entries or none of them: what one caller sends together is batched together.

        Args:
            entries: Of one job.
            reserved: Places that were kept for them; they are given back in any case.

        Raises:
            OverloadedError: They do not fit now.
            RateLimitedError: The job has as many waiting as it may have.
            PayloadTooLargeError: They would not fit into an empty queue either.
            RuntimeError: The queue is closed.
        """
        job = entries[0].job
        tokens = sum(entry.length_tokens for entry in entries)
        with self._lock:
            self._room.release(job, reserved)
            if self._closed:
                raise RuntimeError("the queue is closed")
            self._check_room(job, len(entries), tokens)
            self._room.add(job, len(entries), tokens)
            self._lines.add(job, entries)
            self._fair.arrive(job)
            if job != self._last_job:
                if self._last_job:
                    self._contended_until_s = self._clock() + CONTENTION_S
                self._last_job = job
            self._takers.wake_one()

    def put_back(self, entries: Sequence[W]) -> None:
        """Return a batch that was taken and not run, to be taken first again; there is room for it, and nobody pays.

        Raises:
            RuntimeError: The queue is closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the queue is closed")
            for entry in reversed(entries):
                self._room.add(entry.job, 1, entry.length_tokens)
                self._lines.add_first(entry.job, entry)
                self._fair.arrive(entry.job)
            self._charge(entries, -1)
            self._takers.wake_one()

    def take(self, is_idle: Callable[[], bool] = lambda: True) -> list[W]:
        """Wait for the next batch, longest item first.

        Args:
            is_idle: Whether it would be run at once. Who cannot do that leaves it to who can.

        Returns:
            At least one entry whose caller still waits; nothing once the queue is closed.
        """
        with self._lock, self._takers.one_more(is_idle) as taker:
            while taker.errand or not self._closed:
                if taker.errand:
                    taker.run_errand()
                elif not self._lines:
                    taker.sleep()
                elif is_idle() or (idle := self._takers.idle()) is None:
                    if batch := self._take_batch():
                        return batch
                else:
                    idle.wake()
                    taker.sleep()
            return []

    def send(self, errand: Callable[[], None]) -> bool:
        """Let one who waits for a batch and is idle do something first: what prepares an item and puts it.

        It is then with who runs it, and need not be passed from thread to thread.

        Args:
            errand: Short, and raises nothing.

        Returns:
            Whether somebody does it; nobody does where nobody is idle or something waits already.
        """
        with self._lock:
            return not self._closed and not self._lines and self._takers.send(errand)

    def close(self) -> list[W]:
        """Refuse new entries and wake the takers.

        Returns:
            The entries that nobody will run.
        """
        with self._lock:
            self._closed = True
            left = [entry for job in self._lines for entry in self._lines.of(job)]
            for job in list(self._lines):
                self._remove(job, set(map(id, self._lines.of(job))))
            self._takers.wake_all()
        return left

    def tokens_until_done(self, job: str, tokens: int) -> float:
        """Real tokens that are computed until a job's last new one is, each waiting job having its share.

        Args:
            job: Whose.
            tokens: That it would add to what it has waiting.
        """
        with self._lock:
            return self._room.tokens_until_done(job, tokens)

    def _check_room(self, job: str, items: int, tokens: int) -> None:
        try:
            self._room.check(job, items, tokens)
        except OverloadedError:
            now_s = self._clock()
            for other in list(self._lines):
                self._remove(other, {id(entry) for entry in self._lines.of(other) if entry.is_abandoned(now_s)})
            self._room.check(job, items, tokens)

    def _take_batch(self) -> list[W]:
        if self.items == 1:
            return self._take_only()
        due = self._fair.due()
        now_s = self._clock()
        left: dict[str, set[int]] = {job: set() for job in due}
        bound = self.batch_tokens
        if self.takers > 1:
            bound = min(bound, max(ceil(self.tokens / self.takers), int(self.overhead_tokens)))
        window = self._window(due, now_s, left, bound)
        batch = window
        if len(window) > 1:
            least = min(self._fair.served(entry.job) for entry in window)
            chosen = choose_batch(
                [entry.length_tokens for entry in window],
                bound,
                self._max_padding,
                [entry.job for entry in window] if len(due) > 1 else None,
                lambda job: self._fair.allowance(job, least, bound),
                self.overhead_tokens,
            )
            batch = [window[index] for index in chosen]
        self._charge(batch)
        for entry in batch:
            left[entry.job].add(id(entry))
        for job, gone in left.items():
            self._remove(job, gone)
        return batch

    def _take_only(self) -> list[W]:
        """All there is to choose from: an item of a lone caller, most often."""
        (job,) = self._lines
        (entry,) = self._lines.of(job)
        batch = [] if entry.is_abandoned(self._clock()) else [entry]
        self._charge(batch)
        self._remove(job, {id(entry)})
        return batch

    def _charge(self, batch: Sequence[W], sign: int = 1) -> None:
        for job, items in Counter(entry.job for entry in batch).items():
            self._fair.charge(job, sign * items * batch[0].length_tokens)

    def _window(self, due: Sequence[str], now_s: float, left: dict[str, set[int]], bound: int) -> list[W]:
        """The items that are due first; those that nobody waits for are put into `left`."""
        streams = [
            self._lines.in_order(job, place, self._fair.served(job), self._policies.of(job).weight, now_s, left[job])
            for place, job in enumerate(due)
        ]
        window: list[W] = []
        tokens = 0
        for *_, entry in islice(heapq.merge(*streams), WINDOW_ITEMS):
            window.append(entry)
            tokens += entry.length_tokens
            if tokens >= WINDOW_BATCHES * bound:
                break
        return window

    def _remove(self, job: str, gone: set[int]) -> None:
        """Take entries, by their ids, out of a job's."""
        self._room.remove(job, len(gone), self._lines.remove(job, gone))
        if job not in self._lines:
            self._fair.leave(job)
