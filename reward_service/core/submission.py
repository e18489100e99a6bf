"""What passes between the request path and the batch path: the inputs of a request, and their results."""

import contextvars
import threading
from collections.abc import Callable
from dataclasses import dataclass

from reward_service.domain import Encoded, ItemScore
from reward_service.errors import ModelFailedError, ServiceError

HeadScores = tuple[ItemScore | ModelFailedError, ...]
"""What each head of a model says of one item."""


class Submission:
    """The items of one request for one model. Results come in place, from the workers' threads.

    Attributes:
        results: One for each item of the request, or the error that stands for it; None until it is there.
        deadline_s: On the monotonic clock; None waits for ever.
        job: The training job that asks.
        context: The request's, for what is logged on its behalf on other threads.
        abandoned: Set by the caller when it no longer waits.
        padded_tokens: Tokens computed for the items so far, padding included.
        queue_s: Longest wait of an item in the queue.
        inference_s: Longest inference that an item was part of.
    """

    def __init__(self, size: int, deadline_s: float | None, on_done: Callable[[], None], job: str = "") -> None:
        self.results: list[HeadScores | ServiceError | None] = [None] * size
        self.deadline_s = deadline_s
        self.job = job
        self.context = contextvars.copy_context()
        self.abandoned = False
        self.padded_tokens = 0
        self.queue_s = 0.0
        self.inference_s = 0.0
        self._pending = size
        self._on_done = on_done
        self._lock = threading.Lock()

    def settle(self, index: int, result: HeadScores | ServiceError) -> None:
        """Put in one result; the last one wakes the caller. Each index is settled once."""
        with self._lock:
            self.results[index] = result
            self._pending -= 1
            is_last = self._pending == 0
        if is_last:
            self._on_done()

    def account(self, padded_tokens: int, queue_s: float, inference_s: float) -> None:
        """Add what one item cost."""
        with self._lock:
            self.padded_tokens += padded_tokens
            self.queue_s = max(self.queue_s, queue_s)
            self.inference_s = max(self.inference_s, inference_s)


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One input in the queue."""

    encoded: Encoded
    submission: Submission
    index: int
    enqueued_s: float

    @property
    def length_tokens(self) -> int:
        """Real tokens of the input."""
        return self.encoded.length_tokens

    @property
    def job(self) -> str:
        """The training job that it is for."""
        return self.submission.job

    def is_abandoned(self, now_s: float) -> bool:
        """Whether its caller left, or its deadline has passed."""
        deadline_s = self.submission.deadline_s
        return self.submission.abandoned or (deadline_s is not None and now_s >= deadline_s)

    def settle(self, result: HeadScores | ServiceError) -> None:
        """Give its result to its caller, unless it has one."""
        if self.submission.results[self.index] is None:
            self.submission.settle(self.index, result)
