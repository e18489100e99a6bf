"""When to ask again, and how long to wait before."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from reward_proto import ErrorCode

MODEL_FAULTS: frozenset[ErrorCode | None] = frozenset({ErrorCode.MODEL_FAILED, ErrorCode.INTERNAL})
"""Codes with which the service says that it tried and failed. Waiting longer does not help, a second try may."""

_MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, a budget of time, and Retry-After honoured up to a cap.

    Attributes:
        retry_for_s: How long after its first failure a request is tried again; 0 never retries. Longer than
            the service takes to restart, so that a restart is survived.
        max_faults: How often a request is sent that the service fails to answer (`model_failed`, `internal`).
        initial_delay_s: Upper bound of the first random wait; it doubles with each failure.
        max_delay_s: Upper bound of every random wait.
        max_retry_after_s: The longest Retry-After that is waited for; a longer one is cut to this.
    """

    retry_for_s: float = 60.0
    max_faults: int = 3
    initial_delay_s: float = 0.25
    max_delay_s: float = 8.0
    max_retry_after_s: float = 60.0

    def backoff_s(self, failures: int, rng: random.Random) -> float:
        """A random wait after the n-th failure in a row: uniform between 0 and the doubled bound ("full jitter").

        Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog.
        """
        bound = self.initial_delay_s * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)
        return rng.uniform(0.0, min(self.max_delay_s, bound))


class Retries:
    """What one request has gone through so far, and whether it is tried again."""

    def __init__(self, policy: RetryPolicy, rng: random.Random, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._rng = rng
        self._clock = clock
        self._first_failure_s: float | None = None
        self.failures = 0
        self._faults = 0

    @property
    def faults_left(self) -> bool:
        """Whether a score that a model failed to give is asked for again."""
        return self._faults < self._policy.max_faults

    def count_fault(self) -> None:
        """Count an answer that a model failed."""
        self._faults += 1

    def delay_s(self, code: ErrorCode | None, retry_after_s: float | None = None) -> float | None:
        """Count a failure that may be retried.

        Args:
            code: The service's error code; None for a connection error or a time-out.
            retry_after_s: What the service asked for.

        Returns:
            Seconds to wait before the next try, or None to give up.
        """
        now = self._clock()
        if self._first_failure_s is None:
            self._first_failure_s = now
        self.failures += 1
        if code in MODEL_FAULTS:
            self.count_fault()
            if not self.faults_left:
                return None
        if not self._policy.retry_for_s:
            return None
        delay = self._policy.backoff_s(self.failures, self._rng)
        if retry_after_s is not None:
            # Jitter on top: jobs that were turned away together should not come back together.
            delay = min(retry_after_s, self._policy.max_retry_after_s) + min(delay, self._policy.initial_delay_s)
        if now + delay - self._first_failure_s > self._policy.retry_for_s:
            return None
        return delay
