import pytest

from reward_service.core.fair_share import JobPolicies, JobPolicy
from reward_service.core.quotas import FORGET_ABOVE_JOBS, Quotas
from reward_service.errors import RateLimitedError


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def make(default: JobPolicy | None = None, **jobs: JobPolicy) -> tuple[Quotas, Clock]:
    clock = Clock()
    return Quotas(JobPolicies(default, jobs), clock), clock


def refused_for(quotas: Quotas, job: str, items: int = 1) -> float:
    with pytest.raises(RateLimitedError) as caught:
        quotas.admit(job, items)
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_items_over_the_rate_are_refused_until_there_is_room() -> None:
    quotas, clock = make(a=JobPolicy(items_per_s=2.0, burst_items=10.0))
    quotas.admit("a", 8)
    assert refused_for(quotas, "a", 4) == pytest.approx(1.0)  # 2 are missing, at 2 a second.
    quotas.admit("a", 2)
    clock.now_s += 1.0
    assert refused_for(quotas, "a", 4) == pytest.approx(1.0)
    clock.now_s += 1.0
    quotas.admit("a", 4)
    quotas.admit("b", 10_000)


def test_waiting_for_as_long_as_told_is_enough() -> None:
    quotas, clock = make(JobPolicy(items_per_s=3.0, burst_items=7.0))
    for _ in range(50):
        quotas.admit("a", 5)
        clock.now_s += refused_for(quotas, "a", 5)


def test_a_request_of_more_than_the_burst_runs_into_debt() -> None:
    quotas, clock = make(JobPolicy(items_per_s=1.0, burst_items=10.0))
    quotas.admit("a", 30)
    assert refused_for(quotas, "a") == pytest.approx(21.0)
    clock.now_s += 21.0
    quotas.admit("a", 1)


def test_without_a_burst_ten_seconds_may_be_used_at_once() -> None:
    quotas, _ = make(JobPolicy(items_per_s=2.0))
    quotas.admit("a", 20)
    assert refused_for(quotas, "a") == pytest.approx(0.5)


def test_tokens_are_paid_for_afterwards() -> None:
    quotas, clock = make(JobPolicy(tokens_per_s=100.0, burst_tokens=1000.0))
    quotas.admit("a", 1)
    quotas.spend("a", 1500)
    assert refused_for(quotas, "a") == pytest.approx(5.0)
    clock.now_s += 5.0
    quotas.admit("a", 1)


def test_jobs_with_full_buckets_are_forgotten() -> None:
    quotas, clock = make(JobPolicy(items_per_s=10.0))
    for number in range(3 * FORGET_ABOVE_JOBS):
        clock.now_s += 0.1
        quotas.admit(f"job {number}", 1)
    assert len(quotas._items) <= FORGET_ABOVE_JOBS + 1


def test_without_quotas_nothing_is_refused_and_nothing_kept() -> None:
    quotas, _ = make()
    for _ in range(100):
        quotas.admit("a", 10_000)
        quotas.spend("a", 10**9)
    assert not quotas._items
    assert not quotas._tokens
