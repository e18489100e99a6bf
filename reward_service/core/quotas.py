"""Quotas of training jobs: items that they may ask for and tokens that are computed for them, over time.

Token buckets. Items are counted when a request comes; tokens when they are computed, so that a job may run into debt by
what it has under way, and then waits until that is paid.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from reward_service.core.fair_share import JobPolicies
from reward_service.errors import RateLimitedError

BURST_S = 10.0
"""A quota of which no burst is told may be used up at once for so long."""

ROUNDING = 1e-9
"""Units that may be missing by the rounding of seconds."""

FORGET_ABOVE_JOBS = 1024
"""Jobs that are remembered before those with full buckets are looked for."""


@dataclass(slots=True)
class _Bucket:
    """What a job has left of one quota.

    Attributes:
        level: Units left at `at_s`; below 0 in debt.
        at_s: When the level was that.
        rate: Units that it gains in a second.
        burst: Units that it holds at most.
    """

    level: float
    at_s: float
    rate: float
    burst: float

    def refill(self, now_s: float) -> None:
        self.level = min(self.burst, self.level + (now_s - self.at_s) * self.rate)
        self.at_s = now_s


class Quotas:
    """Counts what jobs ask for. Its methods belong to one thread.

    Args:
        policies: The quotas of each job; none if None.
        clock: Seconds.
    """

    def __init__(self, policies: JobPolicies | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._policies = policies or JobPolicies()
        self._clock = clock
        self._items: dict[str, _Bucket] = {}
        self._tokens: dict[str, _Bucket] = {}

    def admit(self, job: str, items: int) -> None:
        """Count a request, or refuse it.

        A request of more items than the burst is let in when the bucket is full, and leaves a debt.

        Raises:
            RateLimitedError: The job is over a quota; `retry_after_s` tells when it no longer is.
        """
        policy = self._policies.of(job)
        of_items = self._bucket(self._items, job, policy.items_per_s, policy.burst_items)
        of_tokens = self._bucket(self._tokens, job, policy.tokens_per_s, policy.burst_tokens)
        if of_tokens is not None and of_tokens.level < 0:
            _refuse("tokens", of_tokens.rate, -of_tokens.level)
        if of_items is not None:
            missing = min(items, of_items.burst) - of_items.level
            if missing > ROUNDING:
                _refuse("items", of_items.rate, missing)
            of_items.level -= items

    def spend(self, job: str, tokens: int) -> None:
        """Count real tokens that were computed for a job."""
        policy = self._policies.of(job)
        bucket = self._bucket(self._tokens, job, policy.tokens_per_s, policy.burst_tokens)
        if bucket is not None:
            bucket.level -= tokens

    def _bucket(self, buckets: dict[str, _Bucket], job: str, rate: float | None, burst: float | None) -> _Bucket | None:
        if rate is None:
            buckets.pop(job, None)
            return None
        now_s = self._clock()
        holds = burst or rate * BURST_S
        bucket = buckets.setdefault(job, _Bucket(holds, now_s, rate, holds))
        bucket.rate, bucket.burst = rate, holds  # They may have been changed.
        bucket.refill(now_s)
        if len(buckets) > FORGET_ABOVE_JOBS:
            _forget_full(buckets, now_s, job)
        return bucket


def _refuse(unit: str, rate: float, missing: float) -> None:
    wait_s = missing / rate
    raise RateLimitedError(
        f"this job may use {rate:g} {unit} a second; there is room in {wait_s:.1f} s",
        retry_after_s=wait_s,
        quota=unit,
        per_s=rate,
    )


def _forget_full(buckets: dict[str, _Bucket], now_s: float, keep: str) -> None:
    for job, bucket in list(buckets.items()):
        bucket.refill(now_s)
        if job != keep and bucket.level >= bucket.burst:
            del buckets[job]
