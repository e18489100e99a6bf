"""Shares of simulated jobs, against figures by hand. The backend costs 1 s a padded token; time is only counted."""

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from reward_service.core.fair_share import FORGET_ABOVE_JOBS, FairShare, JobPolicies, JobPolicy
from reward_service.core.token_queue import TokenQueue

BATCH_TOKENS = 2048


@dataclass(eq=False)
class Item:
    length_tokens: int
    job: str
    came_s: float = 0.0

    def is_abandoned(self, now_s: float) -> bool:
        return False


class Simulation:
    """Jobs that always have so many items waiting, on one backend."""

    def __init__(
        self,
        policies: JobPolicies | None = None,
        short_batch_tokens: int | None = None,
        overhead_tokens: float = 0.0,
    ) -> None:
        self.now_s = 0.0
        self.queue: TokenQueue[Item] = TokenQueue(
            max_items=100_000,
            max_tokens=10**9,
            max_batch_tokens=BATCH_TOKENS,
            max_padding=0.05,
            policies=policies,
            clock=lambda: self.now_s,
        )
        self.queue.short_batch_tokens = short_batch_tokens
        self.queue.overhead_tokens = overhead_tokens
        self.used: Counter[str] = Counter()
        self.done: deque[tuple[Item, float]] = deque()

    def put(self, job: str, lengths: Sequence[int]) -> None:
        self.queue.put([Item(length, job, self.now_s) for length in lengths])

    def step(self) -> list[Item]:
        batch = self.queue.take()
        longest = max(item.length_tokens for item in batch)
        self.now_s += longest * len(batch)
        for item in batch:
            self.used[item.job] += longest
            self.done.append((item, self.now_s))
        return batch

    def run(self, lengths: dict[str, Callable[[], int]], tokens: int, waiting: int = 200) -> None:
        for job, draw in lengths.items():
            self.put(job, [draw() for _ in range(waiting)])
        while self.now_s < tokens:
            for job, items in Counter(item.job for item in self.step()).items():
                self.put(job, [lengths[job]() for _ in range(items)])

    def shares(self) -> dict[str, float]:
        return {job: used / sum(self.used.values()) for job, used in sorted(self.used.items())}


def draws(seed: int) -> dict[str, Callable[[], int]]:
    """Short, long and very different lengths."""
    rng = random.Random(seed)
    return {
        "a": lambda: rng.randint(10, 60),
        "b": lambda: rng.randint(150, 400),
        "c": lambda: rng.choice([12, 50, 51, 180, 500]),
    }


@pytest.mark.parametrize("short", [None, 100])
@pytest.mark.parametrize("seed", range(3))
def test_equal_jobs_have_equal_shares_whatever_their_lengths(seed: int, short: int | None) -> None:
    simulation = Simulation(short_batch_tokens=short)
    simulation.run(draws(seed), tokens=300_000)
    # Each is ahead of another by a batch at most: 2,048 of about 100,000 tokens each.
    assert list(simulation.shares().values()) == pytest.approx([1 / 3] * 3, abs=0.01)


@pytest.mark.parametrize("short", [None, 100])
@pytest.mark.parametrize("seed", range(3))
def test_weights_are_shares(seed: int, short: int | None) -> None:
    policies = JobPolicies(jobs={"a": JobPolicy(weight=1), "b": JobPolicy(weight=2), "c": JobPolicy(weight=4)})
    simulation = Simulation(policies, short)
    simulation.run(draws(seed), tokens=400_000)
    assert list(simulation.shares().values()) == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.01)


@pytest.mark.parametrize("overhead", [100.0, 5e3, 1e6])
def test_nobody_is_ahead_by_more_than_a_batch_however_much_padding_pays(overhead: float) -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 4.0}
    policies = JobPolicies(jobs={job: JobPolicy(weight=weight) for job, weight in weights.items()})
    simulation = Simulation(policies, overhead_tokens=overhead)
    lengths = draws(0)
    for job, draw in lengths.items():
        simulation.put(job, [draw() for _ in range(60)])
    for _ in range(600):
        for job, items in Counter(item.job for item in simulation.step()).items():
            simulation.put(job, [lengths[job]() for _ in range(items)])
        least = min(simulation.used[job] / weight for job, weight in weights.items())
        ahead = [simulation.used[job] - least * weight for job, weight in weights.items()]
        assert max(ahead) <= BATCH_TOKENS + 1e-6
    assert list(simulation.shares().values()) == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.01)


def test_jobs_of_like_lengths_share_batches_and_still_have_their_weights() -> None:
    rng = random.Random(0)
    policies = JobPolicies(jobs={"b": JobPolicy(weight=4)})
    simulation = Simulation(policies)
    simulation.run(dict.fromkeys("ab", lambda: rng.randint(95, 105)), tokens=300_000)
    assert simulation.shares() == pytest.approx({"a": 0.2, "b": 0.8}, abs=0.01)
    assert simulation.now_s / len(simulation.done) < 106, "hardly any padding"


def test_a_flood_leaves_a_light_job_nearly_alone() -> None:
    """The light job's items of 50 tokens come one by one: each waits for the batch at hand, and at most one more."""
    rng = random.Random(0)
    simulation = Simulation(short_batch_tokens=100)
    simulation.put("flood", [rng.randint(24, 178) for _ in range(64 * 64)])
    waits_s = []
    simulation.step()
    for _ in range(100):
        simulation.put("light", [50])
        came_s = simulation.now_s
        while all(item.job != "light" for item in simulation.step()):
            simulation.put("flood", [rng.randint(24, 178)])
        waits_s.append(simulation.now_s - came_s)
    assert max(waits_s) <= 178 + 100


def test_a_request_of_many_lengths_waits_for_the_flood_once_only() -> None:
    """16 items of 16 lengths fit no common batch; the flood may have one batch in between them, not sixteen."""
    simulation = Simulation()
    simulation.put("flood", [length for length in range(20, 180, 10) for _ in range(300)])
    simulation.step()
    lengths = list(range(20, 180, 10))
    simulation.put("light", lengths)
    came_s = simulation.now_s
    left = len(lengths)
    while left:
        left -= sum(item.job == "light" for item in simulation.step())
    assert simulation.now_s - came_s <= sum(lengths) + 2 * BATCH_TOKENS


def make(weights: dict[str, float] | None = None) -> FairShare:
    return FairShare(JobPolicies(jobs={job: JobPolicy(weight=weight) for job, weight in (weights or {}).items()}))


def test_the_least_served_is_due_first() -> None:
    fair = make({"b": 4.0})
    fair.arrive("a")
    fair.arrive("b")
    fair.charge("a", 100)
    assert fair.due() == ["b", "a"]
    fair.charge("b", 360)  # 90 for a unit of weight.
    assert fair.due() == ["b", "a"]
    fair.charge("b", 80)  # 110.
    assert fair.due() == ["a", "b"]
    assert fair.allowance("a", 100.0, 50) == 50
    assert fair.allowance("b", 100.0, 50) == 50 - 10 * 4


def test_no_turns_are_saved_up_while_away() -> None:
    fair = make()
    fair.arrive("a")
    for _ in range(10):
        fair.charge("a", 100)
    fair.arrive("b")
    assert fair.served("b") == 900, "what a had before its last batch"
    assert fair.due() == ["b", "a"]


def test_what_is_owed_is_remembered() -> None:
    fair = make()
    fair.arrive("a")
    fair.arrive("b")
    fair.charge("a", 100)
    fair.leave("a")
    fair.arrive("a")
    assert fair.due() == ["b", "a"]


def test_jobs_that_owe_nothing_are_forgotten() -> None:
    fair = make()
    for number in range(10 * FORGET_ABOVE_JOBS):
        fair.arrive(f"job {number}")
        fair.charge(f"job {number}", 5)
        fair.leave(f"job {number}")
    assert len(fair._served) <= FORGET_ABOVE_JOBS + 1


def test_policies_can_be_replaced() -> None:
    policies = JobPolicies(JobPolicy(weight=2.0))
    assert policies.of("any").weight == 2.0
    policies.replace(JobPolicy(), {"a": JobPolicy(weight=3.0)})
    assert (policies.of("any").weight, policies.of("a").weight) == (1.0, 3.0)


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 0)])
def test_a_job_whose_priority_changes_is_neither_behind_nor_ahead_for_long(before: int, after: int) -> None:
    stays = JobPolicy(priority=before)
    policies = JobPolicies(JobPolicy(priority=after), {"a": stays, "b": stays})
    fair = FairShare(policies)
    for job in "abc":
        fair.arrive(job)
    for _ in range(1000):
        fair.charge("a", 100)
        fair.charge("b", 100)
        fair.charge("c", 5)
    fair.charge("b", 100)
    policies.replace(JobPolicy(priority=after), {"b": stays})
    assert fair.due() == (["a", "c"] if after else ["b"])
    assert abs(fair.served("a") - fair.served("c")) <= 100
    fair.leave("a")
    fair.arrive("new")
    assert fair.served("c") - fair.served("new") <= 5
