"""Whose turn it is: a deficit round robin over padded tokens, kept as one figure for each job.

A job's `served` is what it has been charged, in padded tokens for a unit of weight. The least served of the waiting
jobs is next, and no other may be ahead of it by more than one batch. So over any time in which jobs wait, their shares
differ from their weights by a batch at most, whatever their items' lengths. A job that comes back is not behind the
others: a turn that it did not need is not saved up; what it owes is remembered until the others have caught up.

Source: deficit round robin (Shreedhar and Varghese 1995) in the form of start-time fair queueing (Goyal, Vin and Cheng
1996), which needs no rounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

FORGET_ABOVE_JOBS = 256
"""Jobs that are remembered before those that owe nothing are looked for."""


@dataclass(frozen=True, slots=True)
class JobPolicy:
    """What a training job may have.

    Attributes:
        weight: Its share of a busy model is this over the sum of the weights of the jobs that wait; over 0.
        priority: Items of a higher priority are always before those of a lower one.
        max_queue_items: Inputs of one model that it may have waiting; no bound of its own if None.
        items_per_s: Items that it may ask for, over time; no bound if None.
        burst_items: Items that it may ask for at once after a rest; of `items_per_s` in 10 s if None.
        tokens_per_s: Real tokens that may be computed for it, over time, over all models; no bound if None.
        burst_tokens: The same at once after a rest; `tokens_per_s` in 10 s if None.
    """

    weight: float = 1.0
    priority: int = 0
    max_queue_items: int | None = None
    items_per_s: float | None = None
    burst_items: float | None = None
    tokens_per_s: float | None = None
    burst_tokens: float | None = None


class JobPolicies:
    """The policy of every job. It may be replaced while the service runs.

    Args:
        default: Of jobs that are not named, and of callers that name no job, who share the name "".
        jobs: Of those that are.
    """

    def __init__(self, default: JobPolicy | None = None, jobs: Mapping[str, JobPolicy] = MappingProxyType({})) -> None:
        self.generation = 0
        """Tells when they were replaced."""
        self.replace(default or JobPolicy(), jobs)

    def replace(self, default: JobPolicy, jobs: Mapping[str, JobPolicy]) -> None:
        """Take others from now on."""
        self._current = (default, dict(jobs))
        self.generation += 1

    def of(self, job: str) -> JobPolicy:
        """The policy of one job."""
        default, jobs = self._current
        return jobs.get(job, default)


class FairShare:
    """Who was served how much. Not safe to use from several threads; the queue that owns it is.

    Args:
        policies: Weights and priorities.
    """

    def __init__(self, policies: JobPolicies) -> None:
        self._policies = policies
        self._generation = policies.generation
        self._priorities: dict[str, int] = {}
        self._served: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._floor: dict[int, float] = {}  # by priority: what the least served had when it was last served

    def arrive(self, job: str) -> None:
        """A job begins to wait."""
        self._follow_policies()
        if job not in self._waiting:
            priority = self._policies.of(job).priority
            self._served[job] = max(self._served.get(job, 0.0), self._floor.get(priority, 0.0))
            self._priorities[job] = priority
            self._waiting.add(job)

    def leave(self, job: str) -> None:
        """Nothing of a job waits any more."""
        self._follow_policies()
        self._waiting.discard(job)
        priority = self._policies.of(job).priority
        if not self._peers(priority):
            # Nobody waits for whom it would have to stand back.
            self._floor[priority] = max(self._floor.get(priority, 0.0), self._served.get(job, 0.0))
        if len(self._served) > FORGET_ABOVE_JOBS + 2 * len(self._waiting):
            self._forget()

    def due(self) -> list[str]:
        """The waiting jobs of the highest priority that waits, the least served first."""
        self._follow_policies()
        top = max(self._policies.of(job).priority for job in self._waiting)
        return sorted(self._peers(top), key=lambda job: (self._served[job], job))

    def served(self, job: str) -> float:
        """Padded tokens that a job was charged, for a unit of weight, counted from an arbitrary origin."""
        return self._served[job]

    def allowance(self, job: str, least_served: float, batch_tokens: int) -> float:
        """Padded tokens that a job may still have, to be ahead of the least served by one batch at most."""
        return batch_tokens - (self._served[job] - least_served) * self._policies.of(job).weight

    def charge(self, job: str, padded_tokens: int) -> None:
        """A job's items are computed with so many padded tokens."""
        self._follow_policies()
        policy = self._policies.of(job)
        floor = self._floor.get(policy.priority, 0.0)
        self._floor[policy.priority] = max(floor, min(self._served[peer] for peer in self._peers(policy.priority)))
        self._served[job] += padded_tokens / policy.weight

    def _peers(self, priority: int) -> list[str]:
        return [job for job in self._waiting if self._policies.of(job).priority == priority]

    def _follow_policies(self) -> None:
        """Jobs of another priority than before bring along what they owe: each priority counts from its own origin."""
        if self._generation == self._policies.generation:
            return
        self._generation = self._policies.generation
        for job, before in self._priorities.items():
            now = self._policies.of(job).priority
            if now != before:
                owed = max(0.0, self._served[job] - self._floor.get(before, 0.0))
                self._served[job] = self._floor.get(now, 0.0) + owed
                self._priorities[job] = now

    def _forget(self) -> None:
        for job in list(self._served):
            floor = self._floor.get(self._policies.of(job).priority, 0.0)
            if job not in self._waiting and self._served[job] <= floor:
                del self._served[job], self._priorities[job]
