import random

import pytest

from reward_proto import ErrorCode
from rl_client.api.retry import Retries, RetryPolicy


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Highest(random.Random):
    """Draws the upper bound each time."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_backoff_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy(initial_delay_s=0.5, max_delay_s=3.0)
    assert [policy.backoff_s(n, Highest()) for n in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert policy.backoff_s(10_000, Highest()) == 3.0


def test_jitter_is_full_and_comes_from_the_given_generator() -> None:
    policy = RetryPolicy(initial_delay_s=1.0)
    draws = [policy.backoff_s(1, random.Random(seed)) for seed in range(200)]
    assert min(draws) < 0.1
    assert max(draws) > 0.9
    assert all(0.0 <= draw <= 1.0 for draw in draws)
    assert policy.backoff_s(1, random.Random(7)) == policy.backoff_s(1, random.Random(7))


def test_the_budget_runs_from_the_first_failure() -> None:
    clock = Clock()
    retries = Retries(RetryPolicy(retry_for_s=10.0, initial_delay_s=1.0, max_delay_s=1.0), Highest(), clock)
    assert retries.delay_s(None) == 1.0
    clock.now_s += 9.0
    assert retries.delay_s(None) == 1.0  # ends at 10 s exactly
    clock.now_s += 0.5
    assert retries.delay_s(None) is None
    assert retries.failures == 3


def test_a_budget_of_nothing_never_retries() -> None:
    class Lowest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return a

    assert Retries(RetryPolicy(retry_for_s=0.0), Lowest(), Clock()).delay_s(None) is None


def test_a_service_that_restarts_after_20_s_is_survived_by_default() -> None:
    for seed in range(50):
        clock = Clock()
        retries = Retries(RetryPolicy(), random.Random(seed), clock)
        while clock.now_s < 120.0:
            delay_s = retries.delay_s(None)
            assert delay_s is not None
            clock.now_s += delay_s


def test_retry_after_is_honoured_up_to_the_cap() -> None:
    policy = RetryPolicy(retry_for_s=100.0, initial_delay_s=0.25, max_retry_after_s=30.0)
    retries = Retries(policy, Highest(), Clock())
    assert retries.delay_s(ErrorCode.OVERLOADED, 4.0) == 4.25
    assert retries.delay_s(ErrorCode.OVERLOADED, 3600.0) == 30.25
    assert retries.delay_s(ErrorCode.OVERLOADED, 0.0) == 0.25


def test_a_retry_after_past_the_budget_gives_up_at_once() -> None:
    retries = Retries(RetryPolicy(retry_for_s=5.0), Highest(), Clock())
    assert retries.delay_s(ErrorCode.RATE_LIMITED, 20.0) is None


@pytest.mark.parametrize("code", [ErrorCode.MODEL_FAILED, ErrorCode.INTERNAL])
def test_faults_are_tried_max_faults_times_however_much_time_is_left(code: ErrorCode) -> None:
    retries = Retries(RetryPolicy(retry_for_s=1e6, max_faults=3), Highest(), Clock())
    assert retries.delay_s(code) is not None
    assert retries.delay_s(None) is not None  # a connection error in between does not count
    assert retries.delay_s(code) is not None
    assert retries.delay_s(code) is None
